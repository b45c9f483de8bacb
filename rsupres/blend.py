"""Blend overlapping tiles into finished rows.

`Mosaic` takes SR tiles in row-major order and yields strips, piece by piece, each piece
as soon as no later tile can change it. It holds about one tile, and of a row of tiles
what overlaps with the next row; it reads no files. A strip has the same bits whether it
is computed in one go, after a restart at any strip, or of parts that two mosaics made.

The weight of a tile is the product of a row and a column profile, and the tiles of a
grid are a product of rows and columns too. So the sum of all weights is a product as
well, and each profile is divided by the sum along its own axis beforehand: the mosaic
is then a plain sum, first over the tiles of a row, then over rows. Where one tile
stands alone, its own pixels become the piece, without a copy.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeVar

import numpy as np

from rsupres.errors import ModelOutputError
from rsupres.grid import PixelWindow
from rsupres.tile_grid import Tile, TileGrid

Key = TypeVar("Key")
Content = Literal["all", "own", "above"]


@dataclass(frozen=True)
class Piece:
    """SR rows of a strip, from the left side of one tile to that of the next.

    Attributes:
        index: of the strip, counted from the top of the scene.
        window: SR pixels of the padded frame; all rows of `TileGrid.strip(index)`, of
            the content "above" the first ones.
        pixels: float32 (c, H, W).
        is_last: no piece of the strip lies further right.
        content: "all" = the finished pixels; else an addend of these: "own" = what the
            tile row of the strip's number gives, "above" = what rows above it give.
        skipped: of an addend, whether the lowest row's tile that begins here was left
            out.
    """

    index: int
    window: PixelWindow
    pixels: np.ndarray
    is_last: bool
    content: Content = "all"
    skipped: bool = False


class Mosaic:
    """The weighted sum of overlapping tiles, yielded piece by piece.

    To go on with strip k after an interruption, build a new mosaic with
    `first_row = grid.rows_touching(k).start`. Or, where `grid.parts_at(k)`, with
    `first_row = k`: of strip k come the pieces "own" then. The "above" for it come from
    the mosaic that ends before row k, and `put` takes both. Strips below k that would
    lack a tile row are not yielded.
    """

    def __init__(
        self,
        grid: TileGrid,
        n_channels: int,
        first_row: int = 0,
        last_row: int | None = None,
    ) -> None:
        """Make an empty mosaic.

        Args:
            grid: the tiling of the whole scene.
            n_channels: channels of every tile.
            first_row: the first tile row that will come.
            last_row: the row after the last one that will come; None = to the end.

        Raises:
            ValueError: if these are no rows of the grid.
        """
        n_rows, _ = grid.shape
        stop = n_rows if last_row is None else last_row
        if not 0 <= first_row < stop <= n_rows:
            raise ValueError(f"tile rows {first_row} to {stop} of {n_rows}")
        self._grid = grid
        self._n_channels = n_channels
        self._starts = [grid.strip(row).row for row in range(n_rows)]
        self._edges = [*(t.sr.col for t in grid.tile_row(0)), grid.sr.width]
        self._rows = _profiles(grid, self._starts, grid.sr.height)
        self._cols = _profiles(grid, self._edges[:-1], grid.sr.width)
        self._range = range(first_row, stop)
        self._due = (tile for row in self._range for tile in grid.tile_row(row))
        # Sums of what came, for pieces to the right in this row, and for strips below.
        self._right: dict[int, np.ndarray] = {}
        self._above: dict[tuple[int, int], np.ndarray] = {}
        self._skipped: dict[int, set[int]] = {}
        self._has_above = False  # of the first strip, from another mosaic
        self._finished: list[Piece] = []

    def add(self, tile: Tile, sr: np.ndarray) -> None:
        """Blend one tile in.

        Args:
            tile: the next one of the grid, row-major.
            sr: float32 (c, H, W), the tile's SR pixels; given away: they are changed,
                and pieces are parts of them.

        Raises:
            ModelOutputError: if `sr` has another shape or type than the tile asks for.
            ValueError: if another tile is due.
        """
        shape = (self._n_channels, tile.sr.height, tile.sr.width)
        if sr.shape != shape or sr.dtype != np.float32:
            raise ModelOutputError(
                f"tile {tile.row}, {tile.col}: the model returned {sr.dtype} "
                f"{sr.shape}, expected float32 {shape}."
            )
        self._take(tile)
        self._add(tile, sr)

    def skip(self, tile: Tile) -> None:
        """Leave one tile out; pixels that it shares are those of its neighbours alone.

        Pixels that no tile covers are 0.

        Args:
            tile: the next one of the grid, row-major.

        Raises:
            ValueError: if another tile is due.
        """
        self._take(tile)
        self._skipped.setdefault(tile.row, set()).add(tile.col)
        shape = (self._n_channels, tile.sr.height, tile.sr.width)
        self._add(tile, np.zeros(shape, np.float32))

    def put(self, piece: Piece) -> None:
        """Take a piece that another mosaic made, instead of the tiles for it.

        Args:
            piece: "above" = of the first row's strip, before the tile that begins where
                it does; or "own" = in the place of that tile. Its pixels are given
                away.

        Raises:
            ValueError: if another tile is due.
        """
        col = self._edges.index(piece.window.col)
        row = piece.index if piece.content == "own" else piece.index - 1
        if piece.skipped:
            self._skipped.setdefault(row, set()).add(col)
        if piece.content == "above":
            self._above[piece.index, col] = piece.pixels
            self._has_above = True
        else:
            self._take(self._grid.tile_row(row)[col])
            self._finish(row, col, piece.pixels)

    def finished(self) -> Iterator[Piece]:
        """Yield the pieces that are final by now, each once, row-major."""
        while self._finished:
            yield self._finished.pop(0)

    def _take(self, tile: Tile) -> None:
        due = next(self._due, None)
        if tile != due:
            wanted = "none is" if due is None else f"tile {due.row}, {due.col} is"
            raise ValueError(f"tile {tile.row}, {tile.col} came, {wanted} due.")

    def _add(self, tile: Tile, sr: np.ndarray) -> None:
        """Sum up along the row; then the columns up to the next tile's are final."""
        profile = self._cols[tile.col]
        _weigh(sr.swapaxes(1, 2), profile)
        own, *others = _cuts(profile, tile.sr.col, self._edges, tile.col)
        for piece, cols in others:
            _collect(self._right, piece, sr[:, :, cols].copy())
        pixels = sr[:, :, own[1]]
        if (left := self._right.pop(tile.col, None)) is not None:
            pixels[:, :, : left.shape[2]] += left
        self._sum_rows(tile.row, tile.col, pixels)

    def _sum_rows(self, row: int, col: int, pixels: np.ndarray) -> None:
        """Share out a piece of a row (c, H, W) to its strip and those below."""
        profile = self._rows[row]
        ends = [*self._starts, self._grid.sr.height]
        own, *others = _cuts(profile, self._starts[row], ends, row)
        _weigh(pixels, profile)
        for strip, rows in others:
            _collect(self._above, (strip, col), pixels[:, rows].copy())
        if row + 1 == self._range.stop < len(self._starts):
            self._hand_over(row + 1, col)
        self._finish(row, col, pixels[:, own[1]])

    def _hand_over(self, strip: int, col: int) -> None:
        """Give out what the rows so far add to the strip after the last one."""
        pixels = self._above.pop((strip, col), None)
        if pixels is not None and self._grid.parts_at(strip):
            self._give(strip, col, pixels, "above")

    def _finish(self, row: int, col: int, pixels: np.ndarray) -> None:
        """Add the rows above to a piece of a row's own strip, and give it out."""
        above = self._above.pop((row, col), None)
        is_first = row == self._range.start
        touching = self._grid.rows_touching(row)
        if touching.start < self._range.start and not (is_first and self._has_above):
            if is_first and self._grid.parts_at(row):
                self._give(row, col, pixels, "own")
            return
        if above is not None:
            pixels[:, : above.shape[1]] += above
        self._share_skipped(row, col, pixels)
        self._give(row, col, pixels, "all")

    def _give(self, strip: int, col: int, pixels: np.ndarray, content: Content) -> None:
        """Give out a piece of a strip, which begins where a tile column does."""
        left, right = self._edges[col], self._edges[col + 1]
        height = pixels.shape[1]
        window = PixelWindow(self._starts[strip], left, height, right - left)
        is_last = col == self._grid.shape[1] - 1
        row = strip - 1 if content == "above" else strip
        skipped = content != "all" and col in self._skipped.get(row, ())
        self._finished.append(Piece(strip, window, pixels, is_last, content, skipped))

    def _share_skipped(self, strip: int, piece: int, pixels: np.ndarray) -> None:
        """Divide by the weight that is there where a tile was left out."""
        touching = self._grid.rows_touching(strip)
        if not any(self._skipped.get(row) for row in touching):
            return
        top, height = self._starts[strip], pixels.shape[1]
        left, width = self._edges[piece], pixels.shape[2]
        weight = np.zeros((height, width), np.float32)
        touched = np.zeros(width, bool)
        for row in touching:
            present = np.zeros(width, np.float32)
            skipped = self._skipped.get(row, set())
            for col in range(piece + 1):
                weights = self._cols[col].on(left - self._edges[col], width)
                if col in skipped:
                    touched |= weights > 0
                else:
                    present += weights
            rows = self._rows[row].on(top - self._starts[row], height)
            weight += rows[:, None] * present
        for cols in _runs(touched):
            part = weight[:, cols]
            for channel in pixels[:, :, cols]:
                np.divide(channel, part, out=channel, where=part > 0)


def join(pieces: Iterable[Piece]) -> np.ndarray:
    """Return the pixels of pieces of whole strips as one array (c, H, W).

    Args:
        pieces: row-major, one or more.
    """
    by_strip = itertools.groupby(pieces, lambda piece: piece.index)
    strips = [[piece.pixels for piece in strip] for _, strip in by_strip]
    return np.concatenate([np.concatenate(strip, axis=2) for strip in strips], axis=1)


def edge_weights(grid: TileGrid, n_pixels: int, ramps: tuple[bool, bool]) -> np.ndarray:
    """Return the weights of a tile along one axis, float64 (n_pixels,) in [0, 1].

    On sides with a ramp: 0 over the halo, a raised cosine over `overlap - 2 * halo`,
    sampled at the centres of SR pixels, then 1. Two neighbours at the regular distance
    sum to 1.

    Args:
        grid: gives scale, overlap and halo.
        n_pixels: SR pixels along the tile's side.
        ramps: whether the first and the last side face a neighbour.
    """
    weights = np.ones(n_pixels)
    if not grid.overlap:
        return weights
    finer, coarser = grid.scale.as_integer_ratio()
    # LR distance from the tile's side to the centre of SR pixel i, in whole numbers:
    # (2 i + 1) / 2 / scale, less the halo, over the length of the ramp.
    centres = (2 * np.arange(n_pixels) + 1) * coarser - 2 * finer * grid.halo
    way = np.clip(centres / (2 * finer * (grid.overlap - 2 * grid.halo)), 0, 1)
    ramp = 0.5 - 0.5 * np.cos(np.pi * way)
    if ramps[0]:
        weights *= ramp
    if ramps[1]:
        weights *= ramp[::-1]
    return weights


class _Profile(NamedTuple):
    """The weights of one tile along one axis; over all tiles of it they sum to 1.

    Attributes:
        weights: float32 in [0, 1].
        reach: pixels up to the last one that weighs anything.
        ramps: runs of pixels before it whose weights are not 1, each with its weights
            as a column; None = all are 0.
    """

    weights: np.ndarray
    reach: int
    ramps: list[tuple[slice, np.ndarray | None]]

    def on(self, start: int, length: int) -> np.ndarray:
        """Return the weights from a pixel of the tile on, 0 where it ends before."""
        part = self.weights[start : start + length]
        return np.pad(part, (0, length - len(part)))


def _profiles(grid: TileGrid, starts: Sequence[int], length: int) -> list[_Profile]:
    """Return the profile of every tile of one axis.

    Args:
        grid: gives the weights.
        starts: first SR pixel of each tile.
        length: SR pixels of the axis; the last tile ends there.
    """
    side, last = length - starts[-1], len(starts) - 1
    shapes = [edge_weights(grid, side, (i > 0, i < last)) for i in range(last + 1)]
    total = np.zeros(length)
    for start, shape in zip(reversed(starts), reversed(shapes), strict=True):
        total[start : start + side] += shape
    profiles = []
    for start, shape in zip(starts, shapes, strict=True):
        weights = (shape / total[start : start + side]).astype(np.float32)
        reach = int(np.flatnonzero(weights)[-1]) + 1
        known = weights[:reach]
        ramps: list[tuple[slice, np.ndarray | None]]
        ramps = [(run, known[run, None]) for run in _runs((known > 0) & (known < 1))]
        ramps += [(run, None) for run in _runs(known == 0)]
        profiles.append(_Profile(weights, reach, ramps))
    return profiles


def _cuts(
    profile: _Profile, start: int, edges: Sequence[int], index: int
) -> list[tuple[int, slice]]:
    """Return the parts of an axis that a tile reaches, each with its pixels there.

    Args:
        profile: of the tile.
        start: first pixel of the tile.
        edges: of the parts; the last is the end of the axis.
        index: of the part that the tile begins.
    """
    cuts = []
    for part in range(index, len(edges) - 1):
        first, stop = edges[part] - start, edges[part + 1] - start
        if first >= profile.reach:
            break
        cuts.append((part, slice(first, min(stop, profile.reach))))
    return cuts


def _weigh(pixels: np.ndarray, profile: _Profile) -> None:
    """Multiply (c, n, m) by the weights along n, in place, as far as they reach."""
    for run, weights in profile.ramps:
        part = pixels[:, run]
        if weights is None:
            part[...] = 0  # whatever is there, NaN included
        else:
            part *= weights


def _collect(sums: dict[Key, np.ndarray], key: Key, part: np.ndarray) -> None:
    """Add a part (c, n, m), which reaches at least as far as those before it."""
    before = sums.get(key)
    if before is not None:
        part[:, : before.shape[1], : before.shape[2]] += before
    sums[key] = part


def _runs(mask: np.ndarray) -> list[slice]:
    """Return the runs of true values."""
    edges = np.flatnonzero(np.diff(mask, prepend=False, append=False))
    return [slice(*pair) for pair in edges.reshape(-1, 2).tolist()]
