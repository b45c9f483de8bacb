"""Land cover of a town as classes on a pixel grid, from its shapes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.features import rasterize
from shapely.geometry import Point
from shapely.geometry.base import BaseGeometry
from town_shapes import Town


class CoverClass(NamedTuple):
    """A class of land cover and the colour that it is drawn in."""

    name: str
    colour: tuple[int, int, int]


# Order and colours that are usual for the SECOND data set.
LAND_COVER: dict[int, CoverClass] = {
    0: CoverClass("unchanged", (255, 255, 255)),
    1: CoverClass("water", (0, 0, 255)),
    2: CoverClass("ground", (128, 128, 128)),
    3: CoverClass("low vegetation", (0, 128, 0)),
    4: CoverClass("tree", (0, 255, 0)),
    5: CoverClass("building", (128, 0, 0)),
    6: CoverClass("playground", (255, 0, 0)),
}
WATER, GROUND, LOW, TREE, BUILDING, PLAYGROUND = range(1, 7)
_PATCH_CLASSES = {
    "pond": WATER,
    "pool": WATER,
    "pitch": PLAYGROUND,
    "tartan": PLAYGROUND,
    "lawn": LOW,
    "dry lawn": LOW,
    "rough": LOW,
    "felled": LOW,
}


def land_cover(town: Town, gsd_m: float) -> NDArray[np.uint8]:
    """Return (H, W) uint8 classes 1-6 of one era of a town, north up.

    Fields are low vegetation whatever grows there, so that crops that rotate are no
    change of cover. Shrubs and crowns under 1.5 m radius count as what they stand on.

    Args:
        town: `Town.now` or `Town.earlier`.
        gsd_m: metres per pixel.

    Returns:
        The class at each pixel's centre.
    """
    shapes: list[tuple[BaseGeometry, int]] = []
    shapes += [(wood.polygon, TREE) for wood in town.woods]
    shapes += [(p.polygon, _PATCH_CLASSES.get(p.surface, GROUND)) for p in town.patches]
    shapes.append((town.river, WATER))
    shapes += [(road.line.buffer(road.width / 2), GROUND) for road in town.roads]
    shapes += [
        (Point(tree.x, tree.y).buffer(0.9 * tree.radius, 4), TREE)
        for tree in town.trees
        if tree.radius >= 1.5
    ]
    shapes += [(building.footprint(), BUILDING) for building in town.buildings]
    side = int(town.size / gsd_m)
    cover: NDArray[np.uint8] = rasterize(
        shapes,
        out_shape=(side, side),
        transform=Affine(gsd_m, 0, 0, 0, -gsd_m, town.size),
        fill=LOW,
        dtype="uint8",
    )
    return cover
