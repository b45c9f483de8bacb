"""Add vertices to long edges before a reprojection, so that the edges stay in place.

An edge of a polygon in degrees is straight in longitude and latitude (RFC 7946), and
curved in another projection. When only its ends are projected, its middle may be
kilometres off.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import shapely
from numpy.typing import NDArray

TOLERANCE = 1 / 16  # pixels by which an edge may lie off its place
SHORT = 16.0  # pixels; shorter edges bend by far less than the tolerance
# Pieces of the longest edge of a geometry in each round: an edge that crosses the
# antimeridian stays bent, whatever the number of pieces.
MAX_PIECES = (1024, 4, 4)

Shapes = NDArray[np.object_]
ToPixels = Callable[[NDArray[np.float64]], NDArray[np.float64]]


def densified(shapes: Shapes, to_pixels: ToPixels) -> Shapes:
    """Return geometries whose projected edges lie where the edges lie.

    Args:
        shapes: (n,) geometries, None allowed.
        to_pixels: projects (n, 2) coordinates of the geometries to pixels.

    Returns:
        (n,) geometries; those without long edges are the same objects.
    """
    result = shapes
    for most in MAX_PIECES:
        steps = _steps(result, to_pixels, most)
        bent = np.flatnonzero(np.isfinite(steps))
        if not len(bent):
            break
        result = result.copy()
        result[bent] = shapely.segmentize(result[bent], steps[bent])
    return result


def _steps(shapes: Shapes, to_pixels: ToPixels, most: int) -> NDArray[np.float64]:
    """Return the longest edge that each geometry may have, inf where all are good.

    The distance between an edge and its chord grows with the square of its length.
    """
    steps = np.full(len(shapes), np.inf)
    xy, index = shapely.get_coordinates(shapes, return_index=True)
    if len(xy) < 2:
        return steps
    places = to_pixels(xy)
    with np.errstate(invalid="ignore"):
        long = np.hypot(*np.diff(places, axis=0).T) > SHORT
    start = np.flatnonzero(long & (index[1:] == index[:-1]))
    if not len(start):
        return steps
    worst = np.zeros(len(start))
    for share in (0.25, 0.5, 0.75):
        chord = places[start] + share * (places[start + 1] - places[start])
        true = to_pixels(xy[start] + share * (xy[start + 1] - xy[start]))
        with np.errstate(invalid="ignore"):
            worst = np.fmax(worst, np.hypot(*(true - chord).T))
    off = (worst > TOLERANCE) & np.isfinite(worst)
    start, worst = start[off], worst[off]
    lengths = np.hypot(*(xy[start + 1] - xy[start]).T)
    pieces = np.minimum(np.ceil(np.sqrt(worst / TOLERANCE)) + 1, most)
    np.minimum.at(steps, index[start], lengths / pieces)
    return steps
