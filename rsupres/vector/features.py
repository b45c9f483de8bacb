"""Hold the features of one vector layer: geometries, tags and bounds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyproj
from numpy.typing import NDArray

from rsupres.vector.geometry import Box

# Returns the bounds that are needed, in a given CRS; two at the antimeridian.
BoxesIn = Callable[[pyproj.CRS], Sequence[Box]]


@dataclass(frozen=True)
class Features:
    """The features of one layer that may touch the wanted bounds.

    Attributes:
        name: of the file, and of the layer where there are several.
        crs: of the geometries; longitude or easting first.
        wkb: (n,) bytes, None for features without geometry.
        tags: key -> (n,) texts, None where a feature has no such tag.
        extent: bounds of the whole layer, None where the file has none.
        boxes: the wanted bounds, in this CRS.
        is_way: (n,) bool: known to be ways of OpenStreetMap; None = not known of any.
    """

    name: str
    crs: pyproj.CRS
    wkb: NDArray[np.object_]
    tags: Mapping[str, NDArray[np.object_]]
    extent: Box | None
    boxes: Sequence[Box]
    is_way: NDArray[np.bool_] | None = None
