"""Define the colour or code and the drawing order of map features.

A legend is a TOML file, read by `rsupres.legends.legend_file`. Three are shipped:
`classes` (one band of class codes), `maptiler` and `osm-carto` (RGB). This module opens
no file and draws nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rsupres.errors import InputError
from rsupres.legends.line_width import LineWidth
from rsupres.legends.toml_table import Colour

Geometry = Literal["area", "line", "any"]
# The values that a rule requires of tags: any value but "no" (None), or one of a set.
Wanted = Mapping[str, frozenset[str] | None]

DEFAULT_CLASS_LEGEND = "classes"  # of `rasterize`: one band of codes
DEFAULT_COLOUR_LEGEND = "maptiler"  # of maps for models, which look at colours
# Tag of a drawn map: the name of its legend.
LEGEND_TAG = "RSUPRES_LEGEND"
# OSM tags that decide how a feature of any class is drawn.
DRAWING_KEYS = ("bridge", "tunnel", "layer", "location", "width", "lanes", "area")


@dataclass(frozen=True)
class LegendClass:
    """One kind of feature.

    Attributes:
        key: name, unique in the legend.
        group: what a choice of layers may name instead, such as `road` for `motorway`.
        tags: alternatives; a feature belongs here when it meets all tags of one.
        without: alternatives; a feature that meets all tags of one does not belong.
        colour: (r, g, b) 0...255.
        code: of the class raster; 0 in RGB legends.
        order: classes are drawn from the lowest to the highest.
        geometry: which geometries count; `any` fills areas and widens lines.
        width: of lines.
        on_top: bridges do not cover it, such as buildings.
        casing: colour and width in metres of a border along lines.
    """

    key: str
    group: str
    tags: tuple[Wanted, ...]
    without: tuple[Wanted, ...]
    colour: Colour
    code: int
    order: int
    geometry: Geometry
    width: LineWidth | None = None
    on_top: bool = False
    casing: tuple[Colour, float] | None = None

    def meets(self, columns: Mapping[str, NDArray[np.object_]]) -> NDArray[np.bool_]:
        """Return which features belong to this class by their tags, (n,) bool.

        Args:
            columns: key -> (n,) values, None where a feature has no such tag.
        """
        found = _any_of(self.tags, columns)
        return found & ~_any_of(self.without, columns) if self.without else found


@dataclass(frozen=True)
class Legend:
    """The classes of features that a map shows.

    Attributes:
        name: of the shipped legend, or the file's.
        kind: `rgb` or `classes`.
        classes: in the file's order.
        background: colour where nothing is mapped; its code is 0.
        antialias: edges are blended; RGB legends only.
        sha256: of the file.
    """

    name: str
    kind: Literal["rgb", "classes"]
    classes: tuple[LegendClass, ...]
    background: Colour
    antialias: bool
    sha256: str

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """Keys of the OSM tags that this legend and the drawing need, sorted."""
        keys = set(DRAWING_KEYS)
        for entry in self.classes:
            for wanted in (*entry.tags, *entry.without):
                keys |= wanted.keys()
            if entry.width and entry.width.key:
                keys.add(entry.width.key)
        return tuple(sorted(keys))

    @property
    def n_bands(self) -> int:
        """Bands of the picture: 3 for RGB, 1 for codes."""
        return 3 if self.kind == "rgb" else 1

    def palette(self) -> dict[int, tuple[str, Colour]]:
        """Return code -> (name, colour) of a class legend; 0 stands for no feature."""
        named = {entry.code: (entry.group, entry.colour) for entry in self.classes}
        return dict(sorted({0: ("nothing mapped", self.background), **named}.items()))

    def only(self, layers: Sequence[str] | None) -> Legend:
        """Return the legend with classes of some keys or groups; None keeps all.

        Raises:
            InputError: a name is in no class.
        """
        if layers is None:
            return self
        names = {name for c in self.classes for name in (c.key, c.group)}
        for name in layers:
            if name not in names:
                raise InputError(
                    f"{name}: legend {self.name} has no such layer; it has "
                    f"{', '.join(sorted(names))}.",
                    argument="layers",
                )
        kept = tuple(c for c in self.classes if {c.key, c.group} & set(layers))
        return replace(self, classes=kept)

    def antialiased(self) -> Legend:
        """Return the legend with blended edges.

        Raises:
            InputError: class codes cannot be blended.
        """
        if self.kind == "classes":
            raise InputError(
                f"cannot blend the class codes of legend {self.name}; use an RGB "
                "legend such as maptiler.",
                argument="antialias",
                remedies=("legend=maptiler",),
            )
        return replace(self, antialias=True)


def _any_of(
    alternatives: Sequence[Wanted], columns: Mapping[str, NDArray[np.object_]]
) -> NDArray[np.bool_]:
    n_features = len(next(iter(columns.values()), ()))
    found = np.zeros(n_features, bool)
    for wanted in alternatives:
        meets = np.ones(n_features, bool)
        for key, values in wanted.items():
            column = columns.get(key)
            if column is None:
                meets[:] = False
                break
            meets &= _holds(column, values)
        found |= meets
    return found


def _holds(
    column: NDArray[np.object_], values: frozenset[str] | None
) -> NDArray[np.bool_]:
    """Return where a column has one of the values; None = any but `no`."""
    import pandas as pd

    codes, uniques = pd.factorize(column)  # None becomes -1
    if values is None:
        good = [str(value) not in ("no", "") for value in uniques]
    else:
        # Several values in one tag, as `sport=soccer;tennis`.
        good = [bool(values.intersection(str(v).split(";"))) for v in uniques]
    return np.asarray([*good, False], bool)[codes]
