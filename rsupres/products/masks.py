"""Classes of ground that is hidden or not measured, by name, in each kind of mask.

Scene classifications hold a class per pixel, quality bands a bit per class. The cloud
mask of early Level-1C products holds polygons.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from rsupres.errors import InputError
from rsupres.products.reading import read_bytes

Kind = Literal["classes", "bits", "bands"]

DEFAULT = ("nodata", "saturated", "shadow", "clouds", "cirrus")
NAMES = (*DEFAULT, "dark", "vegetation", "soil", "water", "unclassified", "snow")


@dataclass(frozen=True)
class Legend:
    """Encoding by which a mask says which class a pixel has.

    Attributes:
        kind: a number per class, a bit per class, or a band per class.
        values: class -> its numbers, bits or bands (from 0).
    """

    kind: Kind
    values: Mapping[str, tuple[int, ...]]


LEGENDS = {
    "SCL": Legend(
        "classes",
        {
            "nodata": (0,),
            "saturated": (1,),
            "dark": (2,),
            "shadow": (3,),
            "vegetation": (4,),
            "soil": (5,),
            "water": (6,),
            "unclassified": (7,),
            "clouds": (8, 9),
            "cirrus": (10,),
            "snow": (11,),
        },
    ),
    "QA60": Legend("bits", {"clouds": (10,), "cirrus": (11,)}),
    "CLASSI": Legend("bands", {"clouds": (0,), "cirrus": (1,), "snow": (2,)}),
    "QA_PIXEL": Legend(
        "bits",
        {
            "nodata": (0,),
            "clouds": (1, 3),
            "cirrus": (2,),
            "shadow": (4,),
            "snow": (5,),
            "water": (7,),
        },
    ),
    "FMASK": Legend(
        "bits",
        {"cirrus": (0,), "clouds": (1, 2), "shadow": (3,), "snow": (4,), "water": (5,)},
    ),
}

# Classes of the cloud mask of early Level 1C, and how it spells them.
CLOUD_KINDS = {"clouds": "OPAQUE", "cirrus": "CIRRUS"}

_CODES = re.compile(
    r"(scl|clm|clp|f?mask|datamask|bqa|qa\d+|msk_?clas\w*|(\w+_)?q[ac](_\w+)?|"
    r"state_\d+k?m|cloud_?mask|scene.?classification|land_?cover|class(es|ification)?|"
    r"labels?)\b.*"
)


def is_class_name(name: str) -> bool:
    """Return whether a band's name says that it holds classes or bits."""
    return _CODES.fullmatch(name.strip().lower()) is not None


def parse_classes(text: Sequence[str] | None) -> tuple[str | int, ...]:
    """Return the classes that words of `NAMES`, or numbers, mean; None = `DEFAULT`.

    Raises:
        InputError: an unknown name.

    >>> parse_classes(["clouds", "7"])
    ('clouds', 7)
    """
    found: list[str | int] = []
    for part in DEFAULT if text is None else text:
        word = part.strip().lower().replace("cloud-shadow", "shadow")
        if word.isdigit():
            found.append(int(word))
        elif word in NAMES:
            found.append(word)
        else:
            raise InputError(
                f"{part!r} is unknown; give numbers, or some of {', '.join(NAMES)}.",
                argument="mask_classes",
            )
    return tuple(found)


def find_hidden(
    pixels: NDArray[Any], legend: Legend | None, classes: Sequence[str | int]
) -> NDArray[np.bool_]:
    """Return where a mask has one of some classes, (h, w).

    Args:
        pixels: (c, h, w) of the mask.
        legend: what its numbers mean; None = all but 0 is hidden, unless `classes`
            has numbers.
        classes: wanted.
    """
    numbers = [item for item in classes if isinstance(item, int)]
    if legend is None:
        return np.asarray(np.isin(pixels[0], numbers) if numbers else pixels[0] != 0)
    known = [legend.values.get(item, ()) for item in classes if isinstance(item, str)]
    numbers += [value for values in known for value in values]
    if legend.kind == "classes":
        return np.asarray(np.isin(pixels[0], numbers))
    if legend.kind == "bands":
        return np.asarray((pixels[[n for n in numbers if n < len(pixels)]] > 0).any(0))
    bits = sum(1 << number for number in set(numbers))
    return np.asarray((pixels[0].astype(np.int64) & bits) != 0)


def cloud_polygons(
    path: str, classes: Sequence[str | int]
) -> list[list[tuple[float, float]]]:
    """Return the rings of a cloud mask of early Level 1C, in the tile's CRS.

    Args:
        path: of the GML file.
        classes: "clouds" stands for its opaque clouds, "cirrus" for cirrus.

    Raises:
        InputError: the file cannot be read.
    """
    wanted = {CLOUD_KINDS.get(str(c)) for c in classes}
    try:
        root = ElementTree.fromstring(read_bytes(path))
    except ElementTree.ParseError as error:
        raise InputError(f"{path}: damaged cloud mask ({error}).") from error
    rings = []
    for feature in root.iter():
        if not feature.tag.endswith("}MaskFeature"):
            continue
        parts = {item.tag.rsplit("}", 1)[-1]: item for item in feature.iter()}
        kind = (parts["maskType"].text or "").strip() if "maskType" in parts else ""
        positions = parts.get("posList")
        if kind in wanted and positions is not None:
            size = int(positions.get("srsDimension", "2"))
            values = [
                float(value)
                for value in re.split(r"\s+", positions.text or "")
                if value
            ]
            rings.append(list(zip(values[::size], values[1::size], strict=False)))
    return rings
