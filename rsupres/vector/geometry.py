"""Geometries of any file become sound polygons in the pixels of a grid.

Broken geometries are repaired, lines widened by their metres on the ground, large
polygons cut into pieces, vertices put on a lattice of 1/256 pixel. Knows no tags, no
legend and no files.
"""

from __future__ import annotations

import struct
import warnings
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyproj
import shapely
from numpy.typing import NDArray
from shapely import GeometryCollection, LineString, Polygon
from shapely.errors import GEOSException
from shapely.geometry.base import BaseGeometry

from rsupres.grid import Grid

if TYPE_CHECKING:
    from affine import Affine

Shapes = NDArray[np.object_]
Box = tuple[float, float, float, float]

# Vertices lie on multiples of 1 / LATTICE pixel, so that moving them by whole pixels
# is exact and a crossing never comes so near a pixel centre that rounding decides.
LATTICE = 256
MANY_VERTICES = 256  # a polygon with more is cut into pieces ...
SMALL_PIECE = 128  # ... unless it is as small as this, SR pixels
NODES = 17  # along each axis, where the ground size of a pixel is measured
QUAD_SEGMENTS = 4  # of a quarter circle at the ends and bends of lines
DENSIFY = 21
_AREAS, _LINES, _COLLECTION = (3, 6), (1, 2, 5), 7


class Parsed(NamedTuple):
    """Geometries out of WKB.

    Attributes:
        shapes: (n,) geometries without Z; None where nothing could be saved.
        n_repaired: that were broken and are used.
        n_dropped: of which nothing could be used.
    """

    shapes: Shapes
    n_repaired: int
    n_dropped: int


def parse(wkb: NDArray[np.object_]) -> Parsed:
    """Return valid geometries: rings are closed, crossings undone, Z left out."""
    shapes = shapely.from_wkb(wkb, on_invalid="ignore")
    broken = np.flatnonzero(shapely.is_missing(shapes) & (wkb != None))  # noqa: E711
    for index in broken:
        shapes[index] = _salvage(wkb[index])
    is_missing = shapely.is_missing(shapes)
    absent = shapely.is_missing(wkb) if wkb.dtype != object else is_missing
    shapes[~is_missing] = shapely.force_2d(shapes[~is_missing])
    repaired = {int(i) for i in broken if not is_missing[i]}
    for index in np.flatnonzero(~shapely.is_valid(shapes) & ~is_missing):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # NaN in coordinates
            try:
                shapes[index] = shapely.make_valid(shapes[index])
            except GEOSException:
                shapes[index] = None
        repaired.add(int(index))
    empty = shapely.is_missing(shapes) | shapely.is_empty(shapes)
    shapes[empty] = None
    repaired -= set(np.flatnonzero(empty).tolist())
    return Parsed(shapes, len(repaired), int((empty | absent).sum()))


class PixelPlane:
    """The pixels of a grid as a plane: x = column, y = row, margin included.

    Attributes:
        grid: what it belongs to.
        margin: SR pixels kept around the grid.
    """

    def __init__(self, grid: Grid, margin: int) -> None:
        self.grid = grid
        self.margin = margin
        assert grid.crs is not None
        self.crs = pyproj.CRS.from_user_input(grid.crs.to_wkt())
        inverse = ~grid.transform
        self._linear = np.array([[inverse.a, inverse.b], [inverse.d, inverse.e]])
        # From the grid's corner, so that large coordinates lose nothing.
        self._corner = np.array([grid.transform.c, grid.transform.f])

    @property
    def box(self) -> Box:
        """Left, top, right, bottom in pixels, margin included."""
        m = self.margin
        return (-m, -m, self.grid.width + m, self.grid.height + m)

    @property
    def outline(self) -> BaseGeometry:
        """The grid itself, in pixels."""
        return shapely.box(0, 0, self.grid.width, self.grid.height)

    @cached_property
    def bounds(self) -> Box:
        """West, south, east, north of the frame in the grid's CRS, with margin."""
        left, top, right, bottom = self.box
        corners = [
            self.grid.transform @ corner
            for corner in ((left, top), (right, top), (left, bottom), (right, bottom))
        ]
        xs, ys = zip(*corners, strict=True)
        return min(xs), min(ys), max(xs), max(ys)

    def boxes_in(self, crs: pyproj.CRS) -> list[Box]:
        """Return the frame's bounds in another CRS; two at the antimeridian."""
        place = _transformer(self.crs, crs).transform_bounds(
            *self.bounds, densify_pts=DENSIFY
        )
        west, south, east, north = (float(value) for value in place)
        if not crs.is_geographic:
            return [(west, south, east, north)]
        turn = 360.0 * np.floor((west + 180.0) / 360.0)
        west, east = west - turn, east - turn
        if west > east:
            east += 360.0
        if east <= 180.0:
            return [(west, south, east, north)]
        return [(west, south, 180.0, north), (-180.0, south, east - 360.0, north)]

    def to_pixels(self, shapes: Shapes, crs: pyproj.CRS) -> Shapes:
        """Return geometries with columns and rows for coordinates.

        What the projection cannot bring to the grid's CRS becomes None.
        """
        xy, index = shapely.get_coordinates(shapes, return_index=True)
        if crs != self.crs:
            forward = _transformer(crs, self.crs)
            xy = np.stack(forward.transform(xy[:, 0], xy[:, 1]), axis=1)
        if self.crs.is_geographic and len(xy):
            xy[:, 0] += self._turns(xy[:, 0], index)
        pixels = (xy - self._corner) @ self._linear.T
        lost = np.unique(index[~np.isfinite(pixels).all(axis=1)])
        pixels[~np.isfinite(pixels)] = 0.0
        moved = shapely.set_coordinates(shapes.copy(), pixels)
        moved[lost] = None
        return np.asarray(moved, object)

    def _turns(
        self, x: NDArray[np.float64], index: NDArray[np.intp]
    ) -> NDArray[np.float64]:
        """Return the whole turns of longitude that bring geometries near the grid."""
        n = int(index[-1]) + 1
        low, high = np.full(n, np.inf), np.full(n, -np.inf)
        np.minimum.at(low, index, x)
        np.maximum.at(high, index, x)
        centre = (self.bounds[0] + self.bounds[2]) / 2
        with np.errstate(invalid="ignore"):
            turns = 360.0 * np.round((centre - (low + high) / 2) / 360.0)
        return np.asarray(np.nan_to_num(turns)[index])

    def widen(
        self, lines: Shapes, widths_m: NDArray[np.float64], least: float
    ) -> Shapes:
        """Return lines as polygons of their width on the ground.

        Args:
            lines: in pixels.
            widths_m: (n,) metres.
            least: SR pixels that no line is narrower than; a line below one pixel
                would come out in dashes.
        """
        if not len(lines):
            return np.empty(0, object)
        places, scales = self._ground
        x0, y0, x1, y1 = shapely.bounds(lines).T
        left, top, right, bottom = self.box
        cols = _nearest((x0 + x1) / 2, left, right)
        rows = _nearest((y0 + y1) / 2, top, bottom)
        origin, metres = places[rows, cols], scales[rows, cols]  # (n, 2), (n, 2, 2)
        xy, index = shapely.get_coordinates(lines, return_index=True)
        ground = np.einsum("nij,nj->ni", metres[index], xy - origin[index])
        pixel_m = np.sqrt(np.abs(np.linalg.det(metres)))
        half_m = np.maximum(widths_m, least * pixel_m) / 2
        bands = shapely.buffer(
            shapely.set_coordinates(lines.copy(), ground),
            half_m,
            quad_segs=QUAD_SEGMENTS,
        )
        xy, index = shapely.get_coordinates(bands, return_index=True)
        back = np.linalg.inv(metres)[index]
        pixels = np.einsum("nij,nj->ni", back, xy) + origin[index]
        return np.asarray(shapely.set_coordinates(bands, pixels), object)

    @property
    def metres_per_pixel(self) -> float:
        """The smallest ground size of a pixel's side in the frame, metres."""
        _, scales = self._ground
        return float(np.linalg.norm(scales, axis=2).min())

    @cached_property
    def _ground(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return nodes (rows, cols, 2) and metres east and north along (col, row)."""
        left, top, right, bottom = self.box
        x, y = np.meshgrid(
            np.linspace(left, right, NODES), np.linspace(top, bottom, NODES)
        )
        transform = self.grid.transform
        geodetic = self.crs.geodetic_crs
        if geodetic is None:  # an engineering CRS: metres or feet, nowhere on Earth
            unit = self.crs.axis_info[0].unit_conversion_factor
            metres = unit * np.array(
                [[transform.a, transform.b], [transform.d, transform.e]]
            )
            scales = np.broadcast_to(metres, (NODES, NODES, 2, 2))
            return np.stack([x, y], axis=-1), scales
        to_degrees = _transformer(self.crs, geodetic)
        geod = geodetic.get_geod()
        assert geod is not None
        lon, lat = to_degrees.transform(*_ground(transform, x, y))
        columns = []
        for dx, dy in ((1.0, 0.0), (0.0, 1.0)):
            beside = to_degrees.transform(*_ground(transform, x + dx, y + dy))
            azimuth, _, length = geod.inv(lon, lat, *beside)
            angle = np.deg2rad(azimuth)
            columns.append(
                np.stack([np.sin(angle), np.cos(angle)], -1) * length[..., None]
            )
        return np.stack([x, y], axis=-1), np.stack(columns, axis=-1)


def split_kinds(
    shapes: Shapes,
) -> tuple[Shapes, NDArray[np.intp], Shapes, NDArray[np.intp]]:
    """Return (areas, their indices, lines, their indices); points are left out."""
    parts, index = shapely.get_parts(shapes, return_index=True)
    while (shapely.get_type_id(parts) >= 4).any():  # collections in collections
        parts, inner = shapely.get_parts(parts, return_index=True)
        index = index[inner]
    kinds = shapely.get_type_id(parts)
    is_area, is_line = np.isin(kinds, _AREAS), np.isin(kinds, _LINES)
    return parts[is_area], index[is_area], parts[is_line], index[is_line]


def clip(shapes: Shapes, box: Box) -> Shapes:
    """Return what lies in a box; geometries inside it as they are."""
    x0, y0, x1, y1 = shapely.bounds(shapes).T
    left, bottom, right, top = box
    with np.errstate(invalid="ignore"):
        inside = (x0 >= left) & (y0 >= bottom) & (x1 <= right) & (y1 <= top)
    clipped = shapes.copy()
    for index in np.flatnonzero(~inside & ~shapely.is_missing(shapes)):
        clipped[index] = _clip_one(shapes[index], box)
    return clipped


def cut(polygons: Shapes) -> tuple[Shapes, NDArray[np.intp]]:
    """Cut polygons of many vertices into pieces, along borders of whole pixels.

    No pixel centre lies on a cut, so the pieces fill the same pixels.

    Args:
        polygons: in pixels; single polygons.

    Returns:
        Pieces and the index of each one's polygon, in order.
    """
    pieces: list[BaseGeometry] = []
    index: list[int] = []
    large = shapely.get_num_coordinates(polygons) > MANY_VERTICES
    for number, polygon in enumerate(polygons):
        parts = _cut_one(polygon) if large[number] else [polygon]
        pieces += parts
        index += [number] * len(parts)
    result = np.empty(len(pieces), object)
    result[:] = pieces
    return result, np.asarray(index, np.intp)


def snap(polygons: Shapes) -> Shapes:
    """Return polygons with vertices on the lattice."""
    xy = shapely.get_coordinates(polygons)
    return np.asarray(
        shapely.set_coordinates(polygons.copy(), np.round(xy * LATTICE) / LATTICE),
        object,
    )


def grown(box: Box) -> Box:
    """Return a box three times as large: cutting there shows nowhere."""
    west, south, east, north = box
    width, height = east - west, north - south
    return west - width, south - height, east + width, north + height


def _cut_one(polygon: BaseGeometry) -> list[BaseGeometry]:
    x0, y0, x1, y1 = polygon.bounds
    width, height = x1 - x0, y1 - y0
    few = shapely.get_num_coordinates(polygon) <= MANY_VERTICES
    if few or max(width, height) <= SMALL_PIECE:
        return [polygon]
    low, high = np.floor((x0, y0)) - 1, np.ceil((x1, y1)) + 1
    if width >= height:
        middle = float(np.floor((x0 + x1) / 2))
        halves = ((low[0], low[1], middle, high[1]), (middle, low[1], high[0], high[1]))
    else:
        middle = float(np.floor((y0 + y1) / 2))
        halves = ((low[0], low[1], high[0], middle), (low[0], middle, high[0], high[1]))
    pieces: list[BaseGeometry] = []
    for half in halves:
        part = _clip_one(polygon, half)
        if part is not None:
            whole = np.array([part], object)
            for area in split_kinds(whole)[0]:
                pieces += _cut_one(area)
    return pieces


def _clip_one(shape: BaseGeometry, box: Box) -> BaseGeometry | None:
    try:
        part = shapely.clip_by_rect(shape, *box)
    except GEOSException:
        try:
            part = shapely.intersection(shapely.make_valid(shape), shapely.box(*box))
        except GEOSException:
            return None
    return None if part.is_empty else part


def _ground(
    transform: Affine, cols: NDArray[np.float64], rows: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the ground coordinates of many pixels."""
    a, b, c, d, e, f = transform[:6]
    return a * cols + b * rows + c, d * cols + e * rows + f


def _nearest(x: NDArray[np.float64], low: float, high: float) -> NDArray[np.intp]:
    place = np.rint((np.nan_to_num(x) - low) / (high - low) * (NODES - 1))
    return np.clip(place, 0, NODES - 1).astype(np.intp)


@lru_cache(maxsize=32)
def _transformer(source: pyproj.CRS, target: pyproj.CRS) -> pyproj.Transformer:
    return pyproj.Transformer.from_crs(source, target, always_xy=True)


def _salvage(wkb: bytes) -> BaseGeometry | None:
    """Return what can be used of a geometry that GEOS refuses to read."""
    try:
        shape, _ = _read_wkb(memoryview(wkb), 0)
    except (struct.error, ValueError, IndexError):
        return None
    return shape


def _read_wkb(wkb: memoryview, at: int) -> tuple[BaseGeometry | None, int]:
    """Read one geometry; rings of under three points are left out, others closed."""
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
    parts: list[BaseGeometry] = []
    if kind == 3:
        for _ in range(count):
            (length,) = struct.unpack_from(f"{order}I", wkb, at)
            points, at = _read_points(wkb, at + 4, length, n_axes, order)
            if len(np.unique(points, axis=0)) > 2:
                closed = np.vstack([points, points[:1]])
                parts.append(shapely.make_valid(Polygon(closed)))
        # The even-odd rule: holes are what a ring has in common with the others.
        whole: BaseGeometry | None = None
        for part in parts:
            whole = part if whole is None else whole.symmetric_difference(part)
        return whole, at
    for _ in range(count):
        part_read, at = _read_wkb(wkb, at)
        if part_read is not None:
            parts.append(part_read)
    return (GeometryCollection(parts) if parts else None), at


def _read_points(
    wkb: memoryview, at: int, count: int, n_axes: int, order: str
) -> tuple[NDArray[np.float64], int]:
    size = 8 * n_axes * count
    if at + size > len(wkb):
        raise ValueError("WKB ends early")
    values = np.frombuffer(wkb[at : at + size], f"{order}f8").reshape(count, n_axes)
    return values[:, :2].astype(np.float64), at + size
