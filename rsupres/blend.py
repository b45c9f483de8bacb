"""Blend overlapping tiles into finished rows.

`Mosaic` takes SR tiles in row-major order and yields strips, piece by piece, each piece
as soon as no later tile can change it. It holds about one tile, and of a row of tiles
what overlaps with the next row; it reads no files. A strip has the same bits whether it
is computed in one go or after a restart at any strip.

The weight of a tile is the product of a row and a column profile, and the tiles of a
grid are a product of rows and columns too. So the sum of all weights is a product as
well, and each profile is divided by the sum along its own axis beforehand: the mosaic
is then a plain sum, and where one tile stands alone, a copy.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from rsupres.errors import ModelOutputError
from rsupres.grid import PixelWindow
from rsupres.tile_grid import Tile, TileGrid


@dataclass(frozen=True)
class Piece:
    """Finished SR rows of a strip, from the left side of one tile to that of the next.

    Attributes:
        index: of the strip, counted from the top of the scene.
        window: SR pixels of the padded frame; all rows of `TileGrid.strip(index)`.
        pixels: float32 (c, H, W).
        is_last: no piece of the strip lies further right.
    """

    index: int
    window: PixelWindow
    pixels: np.ndarray
    is_last: bool


class Mosaic:
    """The weighted sum of overlapping tiles, yielded piece by piece.

    To go on with strip k after an interruption, build a new mosaic with
    `first_row = grid.rows_touching(k).start`. Strips that would lack a tile row are not
    yielded.
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
        self._rows = _row_spans(grid)
        self._edges = [*(t.sr.col for t in grid.tile_row(0)), grid.sr.width]
        self._cols = _col_spans(grid, self._edges)
        rows = range(first_row, stop)
        self._due = (tile for row in rows for tile in grid.tile_row(row))
        self._wanted = {
            strip for strip in rows if grid.rows_touching(strip).start >= first_row
        }
        self._pixels: dict[tuple[int, int], np.ndarray] = {}  # by strip and piece
        self._skipped: dict[int, set[int]] = {}
        self._finished: list[Piece] = []

    def add(self, tile: Tile, sr: np.ndarray) -> None:
        """Blend one tile in.

        Args:
            tile: the next one of the grid, row-major.
            sr: float32 (c, H, W), the tile's SR pixels; not kept, not changed.

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
        for rows, cols, target in self._patches(tile):
            source = sr[:, rows.cut, cols.cut]
            weights = _product(rows, cols)
            if not (rows.opens and cols.opens):
                _add_weighted(target, source, weights)
            elif weights is None:
                target[...] = source
            else:
                np.multiply(source, weights, out=target)
        self._close(tile)

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
        for rows, cols, target in self._patches(tile):
            if rows.opens and cols.opens:
                target[...] = 0
        self._close(tile)

    def finished(self) -> Iterator[Piece]:
        """Yield the pieces that are final by now, each once, row-major."""
        while self._finished:
            yield self._finished.pop(0)

    def _take(self, tile: Tile) -> None:
        due = next(self._due, None)
        if tile != due:
            wanted = "none is" if due is None else f"tile {due.row}, {due.col} is"
            raise ValueError(f"tile {tile.row}, {tile.col} came, {wanted} due.")

    def _patches(self, tile: Tile) -> Iterator[tuple[_Span, _Span, np.ndarray]]:
        """Yield row span, column span and the (c, h, w) part of the mosaic for both."""
        for rows in self._rows[tile.row]:
            if rows.part not in self._wanted:
                continue
            height = self._grid.strip(rows.part).height
            if rows.part != tile.row:  # a later strip: only what the tile reaches yet
                height = max(
                    span.place.stop
                    for span in self._rows[tile.row]
                    if span.part == rows.part
                )
            for cols in self._cols[tile.col]:
                pixels = self._pixels_of(rows.part, cols.part, height)
                yield rows, cols, pixels[:, rows.place, cols.place]

    def _pixels_of(self, strip: int, piece: int, height: int) -> np.ndarray:
        """Return the first rows of a piece; those that are there stay what they are."""
        pixels = self._pixels.get((strip, piece))
        if pixels is None or pixels.shape[1] < height:
            width = self._edges[piece + 1] - self._edges[piece]
            grown = np.empty((self._n_channels, height, width), np.float32)
            if pixels is not None:
                grown[:, : pixels.shape[1]] = pixels
            self._pixels[strip, piece] = pixels = grown
        return pixels

    def _close(self, tile: Tile) -> None:
        """Give out the columns up to the next tile's: no other tile reaches them."""
        if tile.row not in self._wanted:
            return
        strip = self._grid.strip(tile.row)
        left, right = self._edges[tile.col], self._edges[tile.col + 1]
        pixels = self._pixels.pop((tile.row, tile.col))
        self._share_skipped(tile.row, tile.col, pixels)
        window = strip._replace(col=left, width=right - left)
        is_last = tile.col == self._grid.shape[1] - 1
        self._finished.append(Piece(tile.row, window, pixels, is_last))

    def _share_skipped(self, strip: int, piece: int, pixels: np.ndarray) -> None:
        """Divide by the weight that is there where a tile was left out."""
        height, width = pixels.shape[1:]
        touching = self._grid.rows_touching(strip)
        touched = np.zeros(width, bool)
        for row in touching:
            for col in self._skipped.get(row, ()):
                for span in self._cols[col]:
                    if span.part == piece:
                        touched[span.place] = True
        for cols in _runs(touched):
            weight = np.zeros((height, cols.stop - cols.start), np.float32)
            for row in touching:
                present = self._present(row, piece, width)[cols]
                for span in self._rows[row]:
                    if span.part == strip:
                        weight[span.place] += span.weights[:, None] * present
            for channel in pixels[:, :, cols]:
                np.divide(channel, weight, out=channel, where=weight > 0)

    def _present(self, row: int, piece: int, width: int) -> np.ndarray:
        """Return the summed weights of the tiles of a row that came, float32 (W,)."""
        present = np.zeros(width, np.float32)
        skipped = self._skipped.get(row, set())
        for col, spans in enumerate(self._cols[: piece + 1]):
            for span in spans:
                if span.part == piece and col not in skipped:
                    present[span.place] += span.weights
        return present


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


class _Span(NamedTuple):
    """A run of rows or columns of one tile that are treated alike.

    Attributes:
        part: the strip that the rows lie in, or the piece that the columns lie in.
        place: in that strip or piece.
        cut: in the tile.
        weights: float32 in (0, 1]; over all tiles of the axis they sum to 1.
        is_plain: whether all weights are 1.
        opens: whether no earlier tile of the axis weighs anything here.
    """

    part: int
    place: slice
    cut: slice
    weights: np.ndarray
    is_plain: bool
    opens: bool


def _row_spans(grid: TileGrid) -> list[list[_Span]]:
    """Return for each tile row the spans of its rows, cut where strips meet."""
    n_rows, n_cols = grid.shape
    starts = [grid[row * n_cols].sr.row for row in range(n_rows)]
    strips = [grid.strip(row).row for row in range(n_rows)]
    return _spans(grid, starts, grid.sr.height, strips)


def _col_spans(grid: TileGrid, edges: Sequence[int]) -> list[list[_Span]]:
    """Return for each tile column the spans of its columns, cut where pieces meet."""
    return _spans(grid, edges[:-1], grid.sr.width, edges[:-1])


def _spans(
    grid: TileGrid, starts: Sequence[int], length: int, parts: Sequence[int]
) -> list[list[_Span]]:
    """Return the spans of every tile of one axis.

    Args:
        grid: gives the weights.
        starts: first SR pixel of each tile.
        length: SR pixels of the axis; the last tile ends there.
        parts: first SR pixel of each strip, or of each piece.
    """
    side, last = length - starts[-1], len(starts) - 1
    profiles = [edge_weights(grid, side, (i > 0, i < last)) for i in range(last + 1)]
    total, first = np.zeros(length), np.full(length, last)
    for i in range(last, -1, -1):
        place = slice(starts[i], starts[i] + side)
        total[place] += profiles[i]
        first[place][profiles[i] > 0] = i
    part_of = np.searchsorted(parts, np.arange(length), side="right") - 1
    spans = []
    for i, start in enumerate(starts):
        place = slice(start, start + side)
        weights = (profiles[i] / total[place]).astype(np.float32)
        spans.append(_cut(weights, first[place] == i, part_of[place], start, parts))
    return spans


def _cut(
    weights: np.ndarray,
    opens: np.ndarray,
    part_of: np.ndarray,
    start: int,
    parts: Sequence[int],
) -> list[_Span]:
    """Cut one tile's axis into spans; pixels that weigh nothing are in none."""
    kind = np.stack([weights > 0, weights == 1, opens, part_of])
    changes = np.flatnonzero((kind[:, 1:] != kind[:, :-1]).any(axis=0)) + 1
    edges = [0, *changes.tolist(), len(weights)]
    spans = []
    for low, high in itertools.pairwise(edges):
        if weights[low] > 0:
            part = int(part_of[low])
            offset = start - parts[part]
            place = slice(low + offset, high + offset)
            plain = bool(weights[low] == 1)
            spans.append(
                _Span(
                    *(part, place, slice(low, high), weights[low:high]),
                    *(plain, bool(opens[low])),
                )
            )
    return spans


def _product(rows: _Span, cols: _Span) -> np.ndarray | None:
    """Return weights that broadcast to (h, w), None where all are 1."""
    if rows.is_plain:
        return None if cols.is_plain else cols.weights
    upright = rows.weights[:, None]
    return upright if cols.is_plain else upright * cols.weights


def _add_weighted(
    target: np.ndarray, source: np.ndarray, weights: np.ndarray | None
) -> None:
    """Add `source * weights` (c, h, w) to `target`, one channel at a time."""
    if weights is None:
        target += source
        return
    for channel, pixels in zip(target, source, strict=True):
        channel += pixels * weights


def _runs(mask: np.ndarray) -> list[slice]:
    """Return the runs of true values."""
    edges = np.flatnonzero(np.diff(mask, prepend=False, append=False))
    return [slice(*pair) for pair in edges.reshape(-1, 2).tolist()]
