"""The features of one vector layer, and the boxes that a reader is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyproj
from numpy.typing import NDArray

from rsupres.vector.geometry import Box

BoxesIn = Callable[[pyproj.CRS], Sequence[Box]]


@dataclass(frozen=True)
class Features:
    """The features of one layer that may touch what is asked for.

    Attributes:
        name: of the file, and the layer where there are several.
        crs: of the geometries; longitude or easting first.
        wkb: (n,) bytes, None for features without geometry.
        tags: key -> (n,) texts, None where a feature has no such tag.
        extent: bounds of the whole layer, where the file tells; else of `wkb`.
        boxes: the bounds that were asked for, in this CRS.
    """

    name: str
    crs: pyproj.CRS
    wkb: NDArray[np.object_]
    tags: Mapping[str, NDArray[np.object_]]
    extent: Box | None
    boxes: Sequence[Box]
