"""Scale and offset of Landsat Collection 2: from its metadata, else from its names.

The files carry no scale tags. Level 2 is surface reflectance of any satellite, level 1
that at the top of the atmosphere of Landsat 8 and 9.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from rsupres.products.model import Radiometry
from rsupres.products.reading import read_bytes

# Common names of STAC of the bands of OLI (Landsat 8 and 9), also in HLS.
OLI = {
    1: "coastal",
    2: "blue",
    3: "green",
    4: "red",
    5: "nir",
    6: "swir16",
    7: "swir22",
}
_LEVEL_2 = Radiometry(2.75e-05, -0.2)
_LEVEL_1 = Radiometry(2e-05, -0.1)
_FACTOR = re.compile(
    r'REFLECTANCE_(MULT|ADD)_BAND_(\d+)[\s=":>]+([-+.\dEe]+)', re.IGNORECASE
)


def named_radiometry(
    name: str, tags: Mapping[str, str], band_names: Sequence[str | None]
) -> Radiometry | None:
    """Return scale and offset of Collection 2 files by USGS's names, or None.

    Args:
        name: of the file, without folders.
        tags: of the file.
        band_names: its descriptions.
    """
    if re.search(r"_(ST|QA)_", name, re.IGNORECASE):  # heat or bits, no reflectance
        return None
    text = " ".join([name, *(f"{k}={v}" for k, v in tags.items())]).upper()
    labels = [(label or "").upper() for label in band_names]
    if re.search(r"\bL[CETO]0[45789]_L2S[PR]_", text) or (
        labels and all(label.startswith(("SR_B", "QA", "ST_")) for label in labels)
    ):
        return _LEVEL_2
    if re.search(r"\bL[CO]0[89]_L1(TP|GT|GS)_", text):
        return _LEVEL_1
    return None


def mtl_radiometry(path: str) -> Callable[[str], Radiometry | None] | None:
    """Return scale and offset by band (B4, SR_B4) of an MTL file of any form, or None.

    Raises:
        InputError: it cannot be read.
    """
    text = read_bytes(path).decode("utf-8", "replace")
    factors: dict[tuple[str, int], float] = {}
    for kind, band, value in _FACTOR.findall(text):  # level 2 stands before level 1
        factors.setdefault((kind.upper(), int(band)), float(value))
    if not factors:
        return None

    def of_band(name: str) -> Radiometry | None:
        number = re.search(r"(\d+)$", name)
        band = int(number.group(1)) if number else 0
        pair = factors.get(("MULT", band)), factors.get(("ADD", band))
        return None if None in pair else Radiometry(*pair)  # type: ignore[arg-type]

    return of_band
