"""Bring geometries into the pixels of a grid, as polygons that can be burned.

Lines are widened by their metres on the ground, large polygons cut into pieces, and
vertices rounded to a lattice of 1/256 pixel. Broken geometries are repaired before, by
`rsupres.vector.wkb`. Tags, legends and files are not known here.
"""

from __future__ import annotations

from functools import cached_property, lru_cache

import numpy as np
import pyproj
import shapely
from numpy.typing import NDArray
from shapely.errors import GEOSException
from shapely.geometry.base import BaseGeometry

from rsupres.grid import Grid, ground_steps
from rsupres.raster.place.densify import densified
from rsupres.vector.wkb import Shapes, repair

Box = tuple[float, float, float, float]

# Vertices lie on multiples of 1 / LATTICE pixel, so that moving them by whole pixels
# is exact and no edge passes so near a pixel centre that rounding errors decide.
LATTICE = 256
MAX_VERTICES = 256  # a polygon with more is cut into pieces ...
MIN_PIECE_SIDE = 128  # ... of at least this side, SR pixels
NODES = 17  # along each axis, where the ground size of a pixel is measured
QUAD_SEGMENTS = 4  # of a quarter circle at the ends and bends of lines
DENSIFY_POINTS = 21  # along each side of bounds that are projected
_AREA_TYPES, _LINE_TYPES, _COLLECTION_TYPE = (3, 6), (1, 2, 5), 4  # of shapely


class PixelPlane:
    """The pixels of a grid as a plane: x = column, y = row, with a margin around.

    Attributes:
        grid: SR grid, with a CRS.
        margin: SR pixels kept around the grid.
    """

    def __init__(self, grid: Grid, margin: int) -> None:
        self.grid = grid
        self.margin = margin
        assert grid.crs is not None
        self.crs = pyproj.CRS.from_user_input(grid.crs.to_wkt())
        inverse = ~grid.transform
        self._linear = np.array([[inverse.a, inverse.b], [inverse.d, inverse.e]])
        # Coordinates are taken from the grid's corner, so that large ones lose nothing.
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
            *self.bounds, densify_pts=DENSIFY_POINTS
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
        """Return geometries (n,) in columns and rows of the grid; None without place.

        Long edges get more vertices first, so that they stay straight in their own CRS.

        Args:
            shapes: (n,) geometries.
            crs: of the geometries; longitude or easting first.
        """
        if crs != self.crs:
            shapes = densified(shapes, lambda xy: self._placed(xy, crs))
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

    def _placed(self, xy: NDArray[np.float64], crs: pyproj.CRS) -> NDArray[np.float64]:
        """Return (n, 2) columns and rows of points in another CRS."""
        moved = _transformer(crs, self.crs).transform(xy[:, 0], xy[:, 1])
        pixels = (np.stack(moved, axis=1) - self._corner) @ self._linear.T
        return np.asarray(pixels)

    def _turns(
        self, x: NDArray[np.float64], index: NDArray[np.intp]
    ) -> NDArray[np.float64]:
        """Return multiples of 360 degrees that bring geometries near the grid."""
        n = int(index[-1]) + 1
        low, high = np.full(n, np.inf), np.full(n, -np.inf)
        np.minimum.at(low, index, x)
        np.maximum.at(high, index, x)
        centre = (self.bounds[0] + self.bounds[2]) / 2
        with np.errstate(invalid="ignore"):
            turns = 360.0 * np.round((centre - (low + high) / 2) / 360.0)
        return np.asarray(np.nan_to_num(turns)[index])

    def widen(
        self, lines: Shapes, widths_m: NDArray[np.float64], min_width: float
    ) -> Shapes:
        """Return lines as polygons (n,), in pixels, of their width on the ground.

        Args:
            lines: in pixels.
            widths_m: (n,) metres.
            min_width: SR pixels; a line narrower than one pixel would be burned with
                gaps.
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
        half_m = np.maximum(widths_m, min_width * pixel_m) / 2
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
        """The smallest ground length of a pixel's side in the frame, metres."""
        _, scales = self._ground
        return float(np.linalg.norm(scales, axis=2).min())

    @cached_property
    def _ground(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return nodes (rows, cols, 2) and metres (east, north) per (col, row) step."""
        left, top, right, bottom = self.box
        x, y = np.meshgrid(
            np.linspace(left, right, NODES), np.linspace(top, bottom, NODES)
        )
        grid = self.grid
        assert grid.crs is not None
        metres = ground_steps(grid.crs, grid.transform, x, y)
        if metres is None:  # an engineering CRS: metres or feet, no place on Earth
            unit = self.crs.axis_info[0].unit_conversion_factor
            a, b, _, d, e, _ = grid.transform[:6]
            flat = unit * np.array([[a, b], [d, e]])
            metres = np.broadcast_to(flat, (NODES, NODES, 2, 2))
        return np.stack([x, y], axis=-1), metres


def split_kinds(
    shapes: Shapes,
) -> tuple[Shapes, NDArray[np.intp], Shapes, NDArray[np.intp]]:
    """Return (areas, their indices, lines, their indices); points are left out."""
    parts, index = shapely.get_parts(shapes, return_index=True)
    while (
        shapely.get_type_id(parts) >= _COLLECTION_TYPE
    ).any():  # collections in collections
        parts, inner = shapely.get_parts(parts, return_index=True)
        index = index[inner]
    kinds = shapely.get_type_id(parts)
    is_area, is_line = np.isin(kinds, _AREA_TYPES), np.isin(kinds, _LINE_TYPES)
    return parts[is_area], index[is_area], parts[is_line], index[is_line]


def clip(shapes: Shapes, box: Box) -> Shapes:
    """Return the parts of geometries in a box, None where there are none.

    Args:
        shapes: (n,) geometries; those inside the box stay the same objects.
        box: in the coordinates of the geometries.
    """
    x0, y0, x1, y1 = shapely.bounds(shapes).T
    left, bottom, right, top = box
    with np.errstate(invalid="ignore"):
        inside = (x0 >= left) & (y0 >= bottom) & (x1 <= right) & (y1 <= top)
    clipped = shapes.copy()
    for index in np.flatnonzero(~inside & ~shapely.is_missing(shapes)):
        clipped[index] = _clip_one(shapes[index], box)
    return clipped


def cut(polygons: Shapes) -> tuple[Shapes, NDArray[np.intp]]:
    """Return pieces of single polygons of many vertices, in pixels, and whose they are.

    Cuts run along borders of whole pixels, so the pieces fill the same pixels.
    """
    pieces: list[BaseGeometry] = []
    index: list[int] = []
    large = shapely.get_num_coordinates(polygons) > MAX_VERTICES
    for number, polygon in enumerate(polygons):
        parts = _cut_one(polygon) if large[number] else [polygon]
        pieces += parts
        index += [number] * len(parts)
    result = np.empty(len(pieces), object)
    result[:] = pieces
    return result, np.asarray(index, np.intp)


def snap(polygons: Shapes) -> Shapes:
    """Return polygons with vertices rounded to the lattice."""
    xy = shapely.get_coordinates(polygons)
    return np.asarray(
        shapely.set_coordinates(polygons.copy(), np.round(xy * LATTICE) / LATTICE),
        object,
    )


def enlarged(box: Box) -> Box:
    """Return a box three times as large; a cut at its border lies out of sight."""
    west, south, east, north = box
    width, height = east - west, north - south
    return west - width, south - height, east + width, north + height


def _cut_one(polygon: BaseGeometry) -> list[BaseGeometry]:
    x0, y0, x1, y1 = polygon.bounds
    width, height = x1 - x0, y1 - y0
    few = shapely.get_num_coordinates(polygon) <= MAX_VERTICES
    if few or max(width, height) <= MIN_PIECE_SIDE:
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
            part = shapely.intersection(repair(shape), shapely.box(*box))
        except GEOSException:
            return None
    return None if part.is_empty else part


def _nearest(x: NDArray[np.float64], low: float, high: float) -> NDArray[np.intp]:
    place = np.rint((np.nan_to_num(x) - low) / (high - low) * (NODES - 1))
    return np.clip(place, 0, NODES - 1).astype(np.intp)


@lru_cache(maxsize=32)
def _transformer(source: pyproj.CRS, target: pyproj.CRS) -> pyproj.Transformer:
    return pyproj.Transformer.from_crs(source, target, always_xy=True)
