"""Where a pixel is: windows, frames and the tiling of a scene, in whole pixels.

All arithmetic is in integers and `Fraction`; nothing is rounded on the way. Ground
coordinates appear only inside `Grid`. This module does no I/O, holds no pixels and
imports neither rasterio nor torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple, overload

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


class PixelWindow(NamedTuple):
    """A half-open rectangle of whole pixels: rows [row, row + height), columns alike.

    `row` and `col` may be negative; whether the window lies inside a frame is a
    question for the frame.
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

    def relative_to(self, origin: PixelWindow) -> PixelWindow:
        """Return the window as seen from the upper-left corner of `origin`."""
        return self._replace(row=self.row - origin.row, col=self.col - origin.col)


class Border(NamedTuple):
    """Which sides of a tile lie on the edge of the frame; no ramp is there."""

    top: bool
    bottom: bool
    left: bool
    right: bool


@dataclass(frozen=True)
class Grid:
    """A raster's frame, without its pixels.

    Attributes:
        crs: coordinate reference system, None for a frame that lies nowhere on the
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
                f"{self.height} x {self.width} pixels."
            )
        a, b, c, d, e, f = (Fraction(number) for number in self.transform[:6])
        moved = (
            *(a, b, c + a * window.col + b * window.row),
            *(d, e, f + d * window.col + e * window.row),
        )
        return self._reframed(moved, window.height, window.width)

    def refine(self, scale: Fraction) -> Grid:
        """Return the frame with pixels `1 / scale` as large, upper-left corner kept.

        Height and width are rounded down: a rest narrower than one new pixel is lost.

        Args:
            scale: how many new pixels lie along one old pixel; greater than 0.

        Raises:
            GridError: if `scale` is not positive, or not a pixel would be left.
        """
        if scale <= 0:
            raise GridError(f"scale {scale} is not positive.")
        height, width = math.floor(self.height * scale), math.floor(self.width * scale)
        if not height or not width:
            raise GridError(
                f"{self.height} x {self.width} pixels times {scale} leave no pixel."
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
        # Rounded once from the exact value, so that a chain of crops drifts least.
        exact = type(self.transform)(*(float(number) for number in transform))
        return Grid(self.crs, exact, height, width)


@dataclass(frozen=True)
class Tile:
    """One unit of work.

    Attributes:
        row: index among the tile rows.
        col: index among the tile columns.
        lr: LR window, in pixels of the padded frame.
        sr: SR window of the same ground.
        border: sides that lie on the edge of the padded frame.
    """

    row: int
    col: int
    lr: PixelWindow
    sr: PixelWindow
    border: Border


@dataclass(frozen=True)
class TileGrid(Sequence[Tile]):
    """How a scene is cut into overlapping tiles of one size; row-major.

    Per axis, with `stride = size - overlap`: starts[0] == 0, starts[-1] + side ==
    padded length, no step exceeds the stride, and every start, side and padded length
    is a multiple of `lr_step(scale, multiple)`. The padded frame does not depend on
    the tile size, so neither does what a network sees beyond the scene's edge.

    Attributes:
        lr: LR frame, padded at the bottom and the right up to a multiple of the step.
        sr: SR frame, exactly `lr` times `scale`.
        scene: LR frame as given; the output is `scene.refine(scale)`.
        scale: SR pixels along one LR pixel.
        size: LR pixels along a tile side; an axis shorter than that has one tile.
        overlap: LR pixels that neighbouring tiles share; the last ones share more.
        halo: LR pixels at a tile's inner sides that weigh nothing.
    """

    lr: Grid
    sr: Grid
    scene: Grid
    scale: Fraction
    size: int
    overlap: int
    halo: int

    @classmethod
    def plan(
        cls,
        scene: Grid,
        scale: Fraction,
        size: int,
        overlap: int,
        halo: int,
        multiple: int = 1,
    ) -> TileGrid:
        """Cut a scene into tiles.

        Args:
            scene: LR frame of the scene.
            scale: SR pixels along one LR pixel, at least 1.
            size: LR pixels along a tile side.
            overlap: LR pixels that neighbouring tiles share.
            halo: LR pixels at a tile's inner sides that weigh nothing.
            multiple: SR tile sides and starts shall be multiples of this.

        Raises:
            GridError: if the scale is below 1; size or overlap is not a multiple of
                `lr_step(scale, multiple)`; the overlap is not below the size; or
                neither `overlap > 2 * halo` nor both are zero.
        """
        if scale < 1:
            raise GridError(f"scale {scale} is below 1; rsupres only makes finer.")
        if multiple < 1:
            raise GridError(f"multiple {multiple} is below 1.")
        step = lr_step(scale, multiple)
        _check_sides(size, overlap, halo, step, scale)
        height, width = (
            ceil_div(side, step) * step for side in (scene.height, scene.width)
        )
        lr = Grid(scene.crs, scene.transform, height, width)
        return cls(lr, lr.refine(scale), scene, scale, size, overlap, halo)

    @property
    def shape(self) -> tuple[int, int]:
        """Number of tile rows and of tile columns."""
        return len(self._row_starts), len(self._col_starts)

    @property
    def tile_shape(self) -> tuple[int, int]:
        """Height and width of every tile, in LR pixels."""
        return min(self.size, self.lr.height), min(self.size, self.lr.width)

    def tile_row(self, row: int) -> Sequence[Tile]:
        """Return the tiles of one row, left to right.

        Raises:
            IndexError: if there is no such row.
        """
        n_rows, n_cols = self.shape
        if not 0 <= row < n_rows:
            raise IndexError(f"tile row {row} of {n_rows}")
        return [self._tile(row, col) for col in range(n_cols)]

    def strip(self, row: int) -> PixelWindow:
        """Return the full-width SR rows that are final once tile row `row` is in.

        Strips follow one another without gap or overlap and cover the padded frame.

        Raises:
            IndexError: if there is no such tile row.
        """
        n_rows, _ = self.shape
        if not 0 <= row < n_rows:
            raise IndexError(f"strip {row} of {n_rows}")
        start = self._row_starts[row]
        stop = self._row_starts[row + 1] if row + 1 < n_rows else self.lr.height
        window = PixelWindow(start, 0, stop - start, self.lr.width)
        return window.scaled(self.scale)

    def rows_touching(self, strip: int) -> range:
        """Return the tile rows whose windows meet a strip: what to run to get it.

        Raises:
            IndexError: if there is no such strip.
        """
        n_rows, _ = self.shape
        if not 0 <= strip < n_rows:
            raise IndexError(f"strip {strip} of {n_rows}")
        top, height = self._row_starts[strip], self.tile_shape[0]
        first = next(
            row for row, start in enumerate(self._row_starts) if start + height > top
        )
        return range(first, strip + 1)

    def __len__(self) -> int:
        n_rows, n_cols = self.shape
        return n_rows * n_cols

    @overload
    def __getitem__(self, index: int) -> Tile: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Tile]: ...
    def __getitem__(self, index: int | slice) -> Tile | Sequence[Tile]:
        places = range(len(self))[index]
        _, n_cols = self.shape
        if isinstance(places, range):
            return [self._tile(*divmod(place, n_cols)) for place in places]
        return self._tile(*divmod(places, n_cols))

    @cached_property
    def _row_starts(self) -> tuple[int, ...]:
        return _starts(self.lr.height, self.size, self.overlap)

    @cached_property
    def _col_starts(self) -> tuple[int, ...]:
        return _starts(self.lr.width, self.size, self.overlap)

    def _tile(self, row: int, col: int) -> Tile:
        n_rows, n_cols = self.shape
        lr = PixelWindow(self._row_starts[row], self._col_starts[col], *self.tile_shape)
        border = Border(row == 0, row == n_rows - 1, col == 0, col == n_cols - 1)
        return Tile(row, col, lr, lr.scaled(self.scale), border)


def as_scale(value: Fraction | float | str) -> Fraction:
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


def lr_step(scale: Fraction, multiple: int = 1) -> int:
    """Return the smallest LR length whose SR length is whole and fits the network.

    Tile sizes, overlaps, starts and padded sides are multiples of it.

    Args:
        scale: SR pixels along one LR pixel.
        multiple: the SR length must be a multiple of this.

    >>> lr_step(Fraction(10, 3)), lr_step(Fraction(10, 3), 8), lr_step(Fraction(4), 8)
    (3, 12, 2)
    """
    return scale.denominator * (multiple // math.gcd(multiple, scale.numerator))


def ceil_div(number: int, divisor: int) -> int:
    """Return `number / divisor` rounded up to a whole number.

    >>> ceil_div(6, 3), ceil_div(7, 3)
    (2, 3)
    """
    return -(-number // divisor)


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


def _starts(length: int, size: int, overlap: int) -> tuple[int, ...]:
    if length <= size:
        return (0,)
    regular = range(0, length - size, size - overlap)
    # The last window is pulled back: real context beats invented context.
    return (*regular, length - size)


def _check_sides(
    size: int, overlap: int, halo: int, step: int, scale: Fraction
) -> None:
    if size < 1 or overlap < 0 or halo < 0:
        raise GridError(
            f"tile size {size} must be positive, overlap {overlap} and halo {halo} "
            "must not be negative."
        )
    for name, value, least in (("tile size", size, step), ("overlap", overlap, 0)):
        if value % step:
            nearest = max(least, round(value / step) * step)
            raise GridError(
                f"{name} {value} is not a multiple of {step}, which scale {scale} "
                f"asks of this model; the nearest legal value is {nearest}."
            )
    if overlap >= size:
        raise GridError(f"overlap {overlap} is not below the tile size {size}.")
    if overlap <= 2 * halo and (overlap or halo):
        enough = (2 * halo // step + 1) * step
        raise GridError(
            f"overlap {overlap} must exceed twice the halo of {halo} pixels; "
            f"use at least {enough}."
        )


def _radii_m(latitude: float) -> tuple[float, float]:
    """Return metres per radian eastwards and northwards at a latitude in radians."""
    bulge = 1 - _ECCENTRICITY_SQUARED * math.sin(latitude) ** 2
    east_m = _SEMI_MAJOR_AXIS_M * abs(math.cos(latitude)) / math.sqrt(bulge)
    north_m = _SEMI_MAJOR_AXIS_M * (1 - _ECCENTRICITY_SQUARED) / bulge**1.5
    return east_m, north_m
