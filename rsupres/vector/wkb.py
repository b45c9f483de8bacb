"""Read WKB into valid geometries, and repair the broken ones.

GEOS refuses unclosed rings and rings of too few points, which real files hold; these
are read here.
"""

from __future__ import annotations

import struct
import warnings
from typing import NamedTuple

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely import GeometryCollection, LineString, Polygon
from shapely.errors import GEOSException
from shapely.geometry.base import BaseGeometry

Shapes = NDArray[np.object_]


class Parsed(NamedTuple):
    """Geometries that were read from WKB.

    Attributes:
        shapes: (n,) valid geometries without Z; None where nothing is usable.
        n_repaired: geometries that were broken and are used.
        n_dropped: geometries of which nothing is usable.
    """

    shapes: Shapes
    n_repaired: int
    n_dropped: int


def parse(wkb: NDArray[np.object_]) -> Parsed:
    """Return valid geometries of WKB or None: rings closed, crossings and Z gone."""
    shapes = shapely.from_wkb(wkb, on_invalid="ignore")
    broken = np.flatnonzero(shapely.is_missing(shapes) & (wkb != None))  # noqa: E711
    for index in broken:
        shapes[index] = _read_leniently(wkb[index])
    is_missing = shapely.is_missing(shapes)
    absent = shapely.is_missing(wkb) if wkb.dtype != object else is_missing
    shapes[~is_missing] = shapely.force_2d(shapes[~is_missing])
    repaired = {int(i) for i in broken if not is_missing[i]}
    for index in np.flatnonzero(~shapely.is_valid(shapes) & ~is_missing):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # NaN in coordinates
            try:
                shapes[index] = repair(shapes[index])
            except GEOSException:
                shapes[index] = None
        repaired.add(int(index))
    empty = shapely.is_missing(shapes) | shapely.is_empty(shapes)
    shapes[empty] = None
    repaired -= set(np.flatnonzero(empty).tolist())
    return Parsed(shapes, len(repaired), int((empty | absent).sum()))


def repair(shape: BaseGeometry) -> BaseGeometry:
    """Return a valid geometry of any; of a polygon only areas are kept.

    Where rings touch along a line, or a ring runs out and back as a spike, GEOS would
    also return that line, which would be drawn as a road or a stream of its own.
    Parts of a multipolygon that overlap are joined.

    Raises:
        GEOSException: it cannot be repaired.
    """
    if shape.geom_type in ("Polygon", "MultiPolygon"):
        return shapely.make_valid(shape, method="structure", keep_collapsed=False)
    if isinstance(shape, GeometryCollection):
        return GeometryCollection([repair(part) for part in shape.geoms])
    return shapely.make_valid(shape)


def _read_leniently(wkb: bytes) -> BaseGeometry | None:
    """Return the usable parts of a geometry that GEOS refuses to read."""
    try:
        shape, _ = _read_wkb(memoryview(wkb), 0)
    except (struct.error, ValueError, IndexError):
        return None
    return shape


def _read_wkb(wkb: memoryview, at: int) -> tuple[BaseGeometry | None, int]:
    """Read one geometry; close its rings, leave out those of under three points."""
    order = "<" if wkb[at] else ">"
    (kind,) = struct.unpack_from(f"{order}I", wkb, at + 1)
    n_axes = 2 + bool(kind & 0x80000000) + bool(kind & 0x40000000)
    kind &= 0x1FFFFFFF
    n_axes += (0, 1, 1, 2)[kind // 1000]
    kind %= 1000
    at += 5
    if kind == 1:
        return None, at + 8 * n_axes
    (count,) = struct.unpack_from(f"{order}I", wkb, at)
    at += 4
    if kind == 2:
        points, at = _read_points(wkb, at, count, n_axes, order)
        return (LineString(points) if len(points) > 1 else None), at
    if kind == 3:
        return _read_polygon(wkb, at, count, n_axes, order)
    parts: list[BaseGeometry] = []
    for _ in range(count):
        part_read, at = _read_wkb(wkb, at)
        if part_read is not None:
            parts.append(part_read)
    return (GeometryCollection(parts) if parts else None), at


def _read_polygon(
    wkb: memoryview, at: int, n_rings: int, n_axes: int, order: str
) -> tuple[BaseGeometry | None, int]:
    """Read the rings of a polygon; by the even-odd rule, a ring in a ring is a hole."""
    whole: BaseGeometry | None = None
    for _ in range(n_rings):
        (length,) = struct.unpack_from(f"{order}I", wkb, at)
        points, at = _read_points(wkb, at + 4, length, n_axes, order)
        if len(np.unique(points, axis=0)) > 2:
            closed = np.vstack([points, points[:1]])
            part = repair(Polygon(closed))
            whole = part if whole is None else whole.symmetric_difference(part)
    return whole, at


def _read_points(
    wkb: memoryview, at: int, count: int, n_axes: int, order: str
) -> tuple[NDArray[np.float64], int]:
    size = 8 * n_axes * count
    if at + size > len(wkb):
        raise ValueError("WKB ends early")
    values = np.frombuffer(wkb[at : at + size], f"{order}f8").reshape(count, n_axes)
    return values[:, :2].astype(np.float64), at + size
