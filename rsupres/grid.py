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
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rsupres.errors import GridError

if TYPE_CHECKING:
    from affine import Affine
    from rasterio.crs import CRS

# WGS 84; the gsd of a geographic grid is an estimate for warnings and reports.
_SEMI_MAJOR_AXIS_M = 6378137.0
_ECCENTRICITY_SQUARED = 0.0066943799901413165
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

        Args:
            scale: how many new pixels lie along one old pixel.

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
        """Return the frame of a part of this one.

        Args:
            window: in pixels of this grid.

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

        Args:
            scale: how many new pixels lie along one old pixel; greater than 0.

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

    @property
    def gsd_m(self) -> float:
        """Ground sample distance in metres: geometric mean of both pixel axes.

        Degrees (or grads) become metres at the centre of the frame on the WGS 84
        ellipsoid; the distortion of a projection is not undone.

        Raises:
            GridError: if there is no CRS.
        """
        if self.crs is None:
            raise GridError("a grid without CRS has no ground sample distance.")
        a, b, _, d, e, f = self.transform[:6]
        _, factor = self.crs.units_factor
        east_m = north_m = float(factor)
        if self.crs.is_geographic:
            centre = f + d * self.width / 2 + e * self.height / 2
            east_m, north_m = (
                float(factor) * radius for radius in _radii_m(centre * float(factor))
            )
        col_m = math.hypot(a * east_m, d * north_m)
        row_m = math.hypot(b * east_m, e * north_m)
        return math.sqrt(col_m * row_m)

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

    >>> ceil_div(6, 3), ceil_div(7, 3)
    (2, 3)
    """
    return -(-number // divisor)


def round_up(length: int, step: int) -> int:
    """Return the smallest multiple of `step` that is at least `length`.

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


def _radii_m(latitude: float) -> tuple[float, float]:
    """Return metres per radian eastwards and northwards at a latitude in radians."""
    bulge = 1 - _ECCENTRICITY_SQUARED * math.sin(latitude) ** 2
    east_m = _SEMI_MAJOR_AXIS_M * abs(math.cos(latitude)) / math.sqrt(bulge)
    north_m = _SEMI_MAJOR_AXIS_M * (1 - _ECCENTRICITY_SQUARED) / bulge**1.5
    return east_m, north_m
