"""Cut a scene into overlapping tiles of one size, and share out its strips.

All arithmetic is in integers and `Fraction`. This module does no I/O and holds no
pixels; `rsupres.blend` puts the computed tiles together again.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import NamedTuple, overload

from rsupres.errors import GridError
from rsupres.grid import Grid, PixelWindow, ceil_div, round_up

_MANY = 20  # tiles of an axis, of which two processes have half within 5 %


class Border(NamedTuple):
    """Which sides of a tile lie on the edge of the frame, where it is not blended."""

    top: bool
    bottom: bool
    left: bool
    right: bool


@dataclass(frozen=True)
class Tile:
    """One tile of a scene, as a model computes it at once.

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
    """Overlapping tiles of one size that cover a scene, row by row.

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
        width: LR pixels along a tile's rows where tiles are no squares.
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
    width: int | None = None

    @classmethod
    def plan(
        cls,
        scene: Grid,
        scale: Fraction,
        size: int,
        overlap: int,
        halo: int,
        multiple: int = 1,
        width: int | None = None,
    ) -> TileGrid:
        """Cut a scene into tiles.

        Args:
            scene: LR frame of the scene.
            scale: SR pixels along one LR pixel, at least 1.
            size: LR pixels along a tile side.
            overlap: LR pixels that neighbouring tiles share.
            halo: LR pixels at a tile's inner sides that weigh nothing.
            multiple: SR tile sides and starts must be multiples of this.
            width: LR pixels along a tile's rows; None = `size`.

        Returns:
            The tiles.

        Raises:
            GridError: if the scale is below 1; size or overlap is not a multiple of
                `lr_step(scale, multiple)`; the overlap is not below the size; or
                neither `overlap > 2 * halo` nor both are zero.
        """
        if scale < 1:
            raise GridError(
                f"scale {scale} is below 1; rsupres only makes pixels smaller."
            )
        if multiple < 1:
            raise GridError(f"multiple {multiple} is below 1.")
        step = lr_step(scale, multiple)
        for side in (size, size if width is None else width):
            _check_sides(side, overlap, halo, step, scale)
        sides = (round_up(side, step) for side in (scene.height, scene.width))
        lr = Grid(scene.crs, scene.transform, *sides)
        wide = None if width == size else width
        return cls(lr, lr.refine(scale), scene, scale, size, overlap, halo, wide)

    @property
    def shape(self) -> tuple[int, int]:
        """Number of tile rows and of tile columns."""
        return len(self._row_starts), len(self._col_starts)

    @property
    def tile_shape(self) -> tuple[int, int]:
        """Height and width of every tile, in LR pixels."""
        width = self.width or self.size
        return min(self.size, self.lr.height), min(width, self.lr.width)

    @property
    def sides(self) -> list[int]:
        """Size, overlap and, where tiles are no squares, width; for tags and hashes."""
        return [self.size, self.overlap, *([self.width] if self.width else [])]

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
        """Return the full-width SR rows that are final once tile row `row` is computed.

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
        """Return the tile rows that must be computed for a strip.

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

    def parts_at(self, strip: int) -> bool:
        """Return whether a strip can be made of two parts, one for rows above it.

        That is where its own tile row and the one above it touch it, and no tile row
        above touches the strips below.

        Raises:
            IndexError: if there is no such strip.
        """
        is_last = strip + 1 == self.shape[0]
        return self.rows_touching(strip).start == strip - 1 and (
            is_last or self.rows_touching(strip + 1).start >= strip
        )

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
        return _starts(self.lr.width, self.width or self.size, self.overlap)

    def _tile(self, row: int, col: int) -> Tile:
        n_rows, n_cols = self.shape
        lr = PixelWindow(self._row_starts[row], self._col_starts[col], *self.tile_shape)
        border = Border(row == 0, row == n_rows - 1, col == 0, col == n_cols - 1)
        return Tile(row, col, lr, lr.scaled(self.scale), border)


def lr_step(scale: Fraction, multiple: int = 1) -> int:
    """Return the smallest LR length with a whole SR length that the network accepts.

    Tile sizes, overlaps, starts and padded sides are multiples of it.

    Args:
        scale: SR pixels along one LR pixel.
        multiple: the SR length must be a multiple of this.

    >>> lr_step(Fraction(10, 3)), lr_step(Fraction(10, 3), 8), lr_step(Fraction(4), 8)
    (3, 12, 2)
    """
    return scale.denominator * (multiple // math.gcd(multiple, scale.numerator))


def fit_side(length: int, largest: int, overlap: int, step: int) -> int:
    """Return the tile side that cuts a length into few tiles with little to spare.

    As many tiles as those of the largest side need are made as small as they can be.

    Args:
        length: of the axis, a multiple of `step`.
        largest: side that is allowed, a multiple of `step` above the overlap.
        overlap: that neighbours share, a multiple of `step`.
        step: of all sides.

    >>> fit_side(512, 256, 40, 1), fit_side(200, 256, 40, 1), fit_side(7, 256, 40, 1)
    (198, 200, 41)
    """
    if length <= largest:
        return max(length, overlap + step)  # one tile, of the length
    n_tiles = ceil_div(length - overlap, largest - overlap)
    return _side_of(n_tiles, length, overlap, step)


def even_side(length: int, side: int, largest: int, overlap: int, step: int) -> int:
    """Return the side of one tile more or less, so that two processes have as many.

    One tile stays one, many stay as many, as one more of them is little, and so do
    those whose number becomes even neither by sides that are allowed nor by the step.

    Args:
        length: of the axis, a multiple of `step`.
        side: of an odd or even number of tiles, a multiple of `step`.
        largest: side that is allowed.
        overlap: that neighbours share, a multiple of `step`.
        step: of all sides.

    >>> even_side(512, 230, 400, 40, 1), even_side(512, 230, 250, 40, 1)
    (276, 158)
    """
    n_tiles = len(_starts(length, side, overlap))
    if n_tiles == 1 or n_tiles > _MANY:
        return side
    for n in (n_tiles, n_tiles - 1, n_tiles + 1):
        other = side if n == n_tiles else _side_of(n, length, overlap, step)
        if other <= largest and len(_starts(length, other, overlap)) % 2 == 0:
            return other
    return side


def _side_of(n_tiles: int, length: int, overlap: int, step: int) -> int:
    return round_up(ceil_div(length + (n_tiles - 1) * overlap, n_tiles), step)


def machine_memory() -> int:
    """Return the memory of this machine, bytes, by which tiles are chosen."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _starts(length: int, size: int, overlap: int) -> tuple[int, ...]:
    if length <= size:
        return (0,)
    regular = range(0, length - size, size - overlap)
    # The last window is pulled back, so that it sees real pixels instead of padding.
    return (*regular, length - size)


def _check_sides(
    size: int, overlap: int, halo: int, step: int, scale: Fraction
) -> None:
    if size < 1 or overlap < 0 or halo < 0:
        raise GridError(
            f"tile size {size} must be positive, overlap {overlap} and halo {halo} "
            "must not be negative."
        )
    for name, value, minimum in (("tile size", size, step), ("overlap", overlap, 0)):
        if value % step:
            nearest = max(minimum, round(value / step) * step)
            raise GridError(
                f"{name} {value} is not a multiple of {step}, as this model needs at "
                f"scale {scale}; the nearest allowed value is {nearest}."
            )
    if overlap >= size:
        raise GridError(f"overlap {overlap} is not below the tile size {size}.")
    if overlap <= 2 * halo and (overlap or halo):
        enough = (2 * halo // step + 1) * step
        raise GridError(
            f"overlap {overlap} must exceed twice the halo of {halo} pixels; "
            f"use at least {enough}."
        )


@dataclass(frozen=True)
class Shard:
    """Consecutive strips that one process computes.

    Attributes:
        index: from 1, as the user counts.
        count: number of shards.
        strips: the strips of this shard; may be empty.
    """

    index: int
    count: int
    strips: range


def split_strips(n_strips: int, n_shards: int) -> tuple[Shard, ...]:
    """Return shares of the strips that take about as long; order is kept.

    Args:
        n_strips: strips in all.
        n_shards: shards wanted; with fewer strips, some are empty, but not the last
            one: a shard after it would find the output finished.

    >>> [list(shard.strips) for shard in split_strips(5, 2)]
    [[0, 1], [2, 3, 4]]
    """
    edges = [n_strips * i // n_shards for i in range(n_shards + 1)]
    shares = map(range, edges[:-1], edges[1:])
    return tuple(Shard(i, n_shards, share) for i, share in enumerate(shares, 1))


def missing_spans(shard: Shard, done: frozenset[int]) -> Iterator[range]:
    """Yield the runs of consecutive strips of a shard that are not done.

    Args:
        shard: with its strips.
        done: strips that are done.

    >>> [list(span) for span in missing_spans(Shard(1, 1, range(6)), frozenset({2}))]
    [[0, 1], [3, 4, 5]]
    """
    start: int | None = None
    for strip in shard.strips:
        if strip in done:
            if start is not None:
                yield range(start, strip)
            start = None
        elif start is None:
            start = strip
    if start is not None:
        yield range(start, shard.strips.stop)
