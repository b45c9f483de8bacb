"""Describe where pixels are: windows and frames, in whole pixels.

All arithmetic is in integers and `Fraction`; nothing is rounded on the way. Ground
coordinates appear only inside `Grid`. This module does no I/O, holds no pixels and
imports neither rasterio nor torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rsupres.errors import GridError

if TYPE_CHECKING:
    from affine import Affine
    from pyproj import Geod, Transformer
    from rasterio.crs import CRS

_EARTH_RADIUS_M = 6371008.8  # mean
_NOMINAL = 0.005  # distortion of lengths below which a pixel keeps its nominal side
_STEP = 1 / 64  # pixels, over which the ground is measured: small beside any pixel
_LOST = 1e-6  # of the nominal side: less is a place outside the CRS, or a pole
_MAX_DENOMINATOR = 64  # of a scale

Scale = Fraction | float | str  # as users give it


class PixelWindow(NamedTuple):
    """A half-open rectangle of whole pixels: rows [row, row + height), columns alike.

    `row` and `col` may be negative: a window may reach beyond the frame it is used in.
    """

    row: int
    col: int
    height: int
    width: int

    @property
    def row_stop(self) -> int:
        """First row below the window."""
        return self.row + self.height

    @property
    def col_stop(self) -> int:
        """First column right of the window."""
        return self.col + self.width

    def scaled(self, scale: Fraction) -> PixelWindow:
        """Return the same ground in pixels that are `scale` times finer.

        Raises:
            GridError: if one of the four numbers would not be whole.
        """
        if any(side * scale.numerator % scale.denominator for side in self):
            raise GridError(
                f"window {tuple(self)} times {scale} is not whole; rows, columns and "
                f"sides must be multiples of {scale.denominator}."
            )
        return PixelWindow(
            *(side * scale.numerator // scale.denominator for side in self)
        )

    def intersection(self, other: PixelWindow) -> PixelWindow | None:
        """Return the pixels that lie in both windows, None when there are none."""
        row, col = max(self.row, other.row), max(self.col, other.col)
        height = min(self.row_stop, other.row_stop) - row
        width = min(self.col_stop, other.col_stop) - col
        return PixelWindow(row, col, height, width) if height > 0 < width else None

    def slices(self) -> tuple[slice, slice]:
        """Return the (rows, columns) that cut the window out of an array.

        Raises:
            GridError: if the window begins at a negative row or column, which numpy
                would count from the far end.
        """
        if self.row < 0 or self.col < 0:
            raise GridError(f"window {tuple(self)} begins outside the array.")
        return slice(self.row, self.row_stop), slice(self.col, self.col_stop)

    def grown(self, margin: int, within: PixelWindow | None = None) -> PixelWindow:
        """Return the window with `margin` more pixels on each of its four sides.

        Args:
            margin: pixels, 0 or more.
            within: cut the result at the sides of this window; None = nowhere.

        Raises:
            GridError: if nothing of it lies in `within`.
        """
        larger = PixelWindow(
            self.row - margin,
            self.col - margin,
            self.height + 2 * margin,
            self.width + 2 * margin,
        )
        inside = larger if within is None else larger.intersection(within)
        if inside is None:
            raise GridError(f"window {tuple(self)} lies outside {within}.")
        return inside

    def relative_to(self, origin: PixelWindow) -> PixelWindow:
        """Return the window as seen from the upper-left corner of `origin`."""
        return self._replace(row=self.row - origin.row, col=self.col - origin.col)


@dataclass(frozen=True)
class Grid:
    """A raster's frame, without its pixels.

    Attributes:
        crs: coordinate reference system, None for a frame without a place on the
            ground, such as that of latent cells.
        transform: from (col, row) to ground, upper-left corner convention.
        height: rows.
        width: columns.
    """

    crs: CRS | None
    transform: Affine
    height: int
    width: int

    @property
    def window(self) -> PixelWindow:
        """The whole frame as a window."""
        return PixelWindow(0, 0, self.height, self.width)

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """West, south, east and north of the frame, in units of its CRS."""
        corners = [
            self.transform @ (col, row)
            for col in (0, self.width)
            for row in (0, self.height)
        ]
        x, y = zip(*corners, strict=True)
        return min(x), min(y), max(x), max(y)

    def crop(self, window: PixelWindow) -> Grid:
        """Return the frame of a window of this one, in its pixels.

        Raises:
            GridError: if the window is empty or reaches beyond the frame.
        """
        if window.intersection(self.window) != window:
            raise GridError(
                f"window {tuple(window)} is empty or reaches beyond the frame of "
                f"{self.width} x {self.height} pixels."
            )
        a, b, c, d, e, f = (Fraction(number) for number in self.transform[:6])
        moved = (
            *(a, b, c + a * window.col + b * window.row),
            *(d, e, f + d * window.col + e * window.row),
        )
        return self._reframed(moved, window.height, window.width)

    def refine(self, scale: Fraction) -> Grid:
        """Return the frame with pixels `1 / scale` as large, upper-left corner kept.

        Height and width are rounded down: less than one new pixel is dropped.

        Raises:
            GridError: if `scale` is not positive, or less than one pixel would be left.
        """
        if scale <= 0:
            raise GridError(f"scale {scale} is not positive.")
        height, width = math.floor(self.height * scale), math.floor(self.width * scale)
        if not height or not width:
            raise GridError(
                f"{self.width} x {self.height} pixels times {scale} leave no pixel."
            )
        a, b, c, d, e, f = (Fraction(number) for number in self.transform[:6])
        finer = (a / scale, b / scale, c, d / scale, e / scale, f)
        return self._reframed(finer, height, width)

    @cached_property
    def gsd_m(self) -> float:
        """Ground sample distance in metres: the side of a square of a pixel's area.

        Measured on the ground at the centre of the frame, so that neither degrees nor
        the distortion of a projection counts: at 60 degrees north, a pixel of 10 m in
        EPSG:3857 has 5 m. Where lengths are off by less than 0.5 %, as in a zone of
        UTM, the pixel keeps the size by which it is known: 10 m of UTM are 10 m.

        Raises:
            GridError: if there is no CRS.
        """
        if self.crs is None:
            raise GridError("a grid without CRS has no ground sample distance.")
        a, b, _, d, e, _ = self.transform[:6]
        unit_m = float(self.crs.units_factor[1])  # radians of a geographic CRS
        unit_m *= _EARTH_RADIUS_M if self.crs.is_geographic else 1.0
        nominal = math.sqrt(abs(a * e - b * d)) * unit_m
        centre = np.array([self.width / 2]), np.array([self.height / 2])
        steps = ground_steps(self.crs, self.transform, *centre, step=_STEP)
        if steps is None:
            return nominal
        (east, east_down), (north, north_down) = steps[0].tolist()
        measured = math.sqrt(abs(east * north_down - east_down * north))
        if not math.isfinite(measured) or measured < _LOST * nominal:
            return nominal
        return nominal if abs(measured / nominal - 1) < _NOMINAL else measured

    def to_json(self) -> dict[str, object]:
        """Return JSON-able values that differ where frames do."""
        return {
            "crs": self.crs.to_wkt() if self.crs else None,
            "transform": list(self.transform)[:6],
            "height": self.height,
            "width": self.width,
        }

    def _reframed(self, transform: Sequence[Fraction], height: int, width: int) -> Grid:
        # Rounded once, from the exact value, so that errors do not add up over crops.
        exact = type(self.transform)(*(float(number) for number in transform))
        return Grid(self.crs, exact, height, width)


def as_scale(value: Scale) -> Fraction:
    """Return a scale as an exact fraction.

    Args:
        value: such as 4, 2.5 or "10/3".

    Raises:
        GridError: not a positive number, or a denominator above 64.

    >>> as_scale(2.5), as_scale("10/3")
    (Fraction(5, 2), Fraction(10, 3))
    """
    try:
        scale = Fraction(str(value).strip())
    except (ValueError, ZeroDivisionError):
        scale = Fraction(0)
    if scale <= 0:
        raise GridError(f"{value!r} is not a scale such as 4, 2.5 or 10/3.")
    nearest = scale.limit_denominator(_MAX_DENOMINATOR)
    if scale != nearest:
        raise GridError(
            f"{value!r} has denominator {scale.denominator}, above {_MAX_DENOMINATOR}; "
            f"the nearest that is offered is {nearest}."
        )
    return scale


def ceil_div(number: int, divisor: int) -> int:
    """Return `number / divisor` rounded up to a whole number; `divisor` is positive.

    Args:
        number: to be divided.
        divisor: positive.

    >>> ceil_div(6, 3), ceil_div(7, 3)
    (2, 3)
    """
    return -(-number // divisor)


def round_up(length: int, step: int) -> int:
    """Return the smallest multiple of `step` that is at least `length`.

    Args:
        length: at least 0.
        step: positive.

    >>> round_up(6, 3), round_up(7, 3)
    (6, 9)
    """
    return ceil_div(length, step) * step


def reflected_positions(start: int, length: int, size: int) -> NDArray[np.intp]:
    """Return which positions of an axis show at start, start + 1, ... when reflected.

    The axis continues beyond both ends as its mirror image with the end repeated
    (numpy's "symmetric"), as often as needed.

    Args:
        start: first position wanted; may be negative.
        length: number of positions wanted.
        size: number of positions that exist, from 0.

    Returns:
        (length,) positions in [0, size).

    >>> reflected_positions(-2, 6, 3).tolist()
    [1, 0, 0, 1, 2, 2]
    """
    turn = np.arange(start, start + length) % (2 * size)
    return np.where(turn < size, turn, 2 * size - 1 - turn)


def ground_steps(
    crs: CRS,
    transform: Affine,
    cols: NDArray[np.float64],
    rows: NDArray[np.float64],
    step: float = 1.0,
) -> NDArray[np.float64] | None:
    """Return how far apart pixels are on the ground, on the ellipsoid of a CRS.

    Args:
        crs: of the coordinates that `transform` gives.
        transform: from (col, row) to coordinates.
        cols: (...) columns where it is measured.
        rows: (...) rows where it is measured.
        step: pixels over which it is measured.

    Returns:
        (..., 2, 2) metres a pixel: east and north, for a step to the next column and to
        the next row; NaN or inf where the CRS has no place. None: the CRS as a whole
        has no place on Earth, or PROJ does not know it.
    """
    known = _geodetic(crs.to_wkt())
    if known is None:
        return None
    to_degrees, geod = known
    lon, lat = to_degrees.transform(*_ground_positions(transform, cols, rows))
    columns = []
    for dx, dy in ((step, 0.0), (0.0, step)):
        beside = to_degrees.transform(
            *_ground_positions(transform, cols + dx, rows + dy)
        )
        azimuth, _, length = geod.inv(lon, lat, *beside)
        angle = np.deg2rad(azimuth)
        direction = np.stack([np.sin(angle), np.cos(angle)], axis=-1)
        columns.append(direction * (np.asarray(length) / step)[..., None])
    return np.stack(columns, axis=-1)


def _ground_positions(
    transform: Affine, cols: NDArray[np.float64], rows: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return x and y of (...) columns and rows, upper-left corner convention."""
    a, b, c, d, e, f = transform[:6]
    return a * cols + b * rows + c, d * cols + e * rows + f


@lru_cache(maxsize=64)
def _geodetic(wkt: str) -> tuple[Transformer, Geod] | None:
    """Return the way from a CRS to degrees and its ellipsoid; None = not on Earth."""
    from pyproj import CRS, Transformer
    from pyproj.exceptions import ProjError

    try:
        crs = CRS.from_wkt(wkt)
        geodetic = crs.geodetic_crs
        geod = None if geodetic is None else geodetic.get_geod()
        if geodetic is None or geod is None:
            return None
        return Transformer.from_crs(crs, geodetic, always_xy=True), geod
    except ProjError:
        return None
