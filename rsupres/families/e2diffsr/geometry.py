"""Positions of LR frame, SR frame and latent of a whole scene in E2DiffSR.

Windows, spans and sampling positions; no network and no pixel. The latent belongs to
the scene, so every position is absolute: a tile reads what the whole scene would.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch

from rsupres.blocks.resample import Taps, centre_positions, make_taps
from rsupres.families.e2diffsr.config import CELL, latent_size
from rsupres.grid import Grid, PixelWindow, round_up
from rsupres.tile_grid import TileGrid, fit_side

CELL_MARGIN = 2  # cells beyond a tile; its halo lies inside the tile already
# LR pixels that a cubic kernel looks beyond a cell's edge, rounding included.
_REACH = 3
# Latent tiles of a scene, in cells of 8 SR pixels: the least side of large ones, and
# what neighbours share and what weighs nothing, in wide and in local context.
_TILE = 160
_WIDE, _LOCAL = (48, 16), (12, 3)
_MAX_TILE = 800  # less than 15 % is computed twice, in wide context from 714 on
# Bytes that the networks hold for one cell, in float32 and in half precision, and the
# share of the machine's memory that a latent tile may take.
_CELL_BYTES, _HALF_CELL_BYTES = 37_000, 10_500
_MEMORY_SHARE = 3
Span = tuple[Fraction, Fraction]  # first and number, in pixels of a map


@dataclass(frozen=True)
class Geometry:
    """Positions of LR frame, SR frame and latent grid of a whole scene.

    The working grid (8 x the latent cells) covers exactly the extent of the SR frame;
    if the SR sides are no multiples of 8 it is a little denser than the SR grid.
    """

    lr: tuple[int, int]
    sr: tuple[int, int]

    @classmethod
    def of(cls, height: int, width: int, scale: Fraction) -> Geometry:
        """Return the geometry of an LR frame at a scale that keeps it whole.

        Args:
            height: LR rows of the scene.
            width: LR columns of the scene.
            scale: SR pixels along one LR pixel.
        """
        return cls((height, width), (int(height * scale), int(width * scale)))

    @property
    def cells(self) -> tuple[int, int]:
        """Rows and columns of the latent."""
        return latent_size(*self.sr)

    def cells_per_lr(self, axis: int) -> Fraction:
        """Return latent cells per LR pixel along an axis."""
        return Fraction(self.cells[axis], self.lr[axis])

    def lr_window(self, cells: PixelWindow) -> PixelWindow:
        """Return the LR pixels that cells need, with a cubic kernel's reach."""
        spans = []
        for axis, (start, count) in enumerate(_axes(cells)):
            per_cell = float(1 / self.cells_per_lr(axis))
            first = max(int(start * per_cell) - _REACH, 0)
            last = min(int((start + count) * per_cell) + _REACH + 1, self.lr[axis])
            spans.append((first, last - first))
        return _window(spans)

    def cell_window(self, window: PixelWindow) -> PixelWindow:
        """Return the latent cells that an LR tile looks at: its own and a margin.

        The size depends on the tile's size alone, so the windows of a batch stack.
        """
        spans = []
        for axis, (start, count) in enumerate(_axes(window)):
            per_lr, length = self.cells_per_lr(axis), self.cells[axis]
            n = min(math.ceil(count * per_lr) + 1 + 2 * CELL_MARGIN, length)
            first = int(start * per_lr) - CELL_MARGIN
            spans.append((min(max(first, 0), length - n), n))
        return _window(spans)

    def map_spans(
        self, window: PixelWindow, crop: PixelWindow, per_cell: int
    ) -> list[Span]:
        """Return where an LR window lies on a map of a crop of the latent.

        Args:
            window: LR pixels.
            crop: the cells that the map covers.
            per_cell: pixels of the map along a cell.
        """
        return [
            (
                start * per_cell * self.cells_per_lr(axis) - first * per_cell,
                count * per_cell * self.cells_per_lr(axis),
            )
            for axis, ((start, count), (first, _)) in enumerate(
                zip(_axes(window), _axes(crop), strict=True)
            )
        ]

    def enlarging_taps(
        self, cells: PixelWindow, window: PixelWindow, device: torch.device
    ) -> tuple[Taps, Taps]:
        """Return the taps that read the working grid of cells from an LR window.

        Args:
            cells: of the latent.
            window: LR pixels that are there.
            device: where the taps are used.
        """
        positions = [
            centre_positions(
                CELL * start,
                CELL * count,
                float(1 / (CELL * self.cells_per_lr(axis))),
                first,
            )
            for axis, ((start, count), (first, _)) in enumerate(
                zip(_axes(cells), _axes(window), strict=True)
            )
        ]
        return _cubic_taps(positions, (window.height, window.width), device)


def span_taps(
    spans: Sequence[Span],
    counts: Sequence[int],
    lengths: Sequence[int],
    device: torch.device,
) -> tuple[Taps, Taps]:
    """Return the taps that read `counts` pixels from spans of a map's axes.

    Args:
        spans: first and last edge along rows and columns, in samples of the map.
        counts: pixels wanted along both.
        lengths: samples of the map along both.
        device: where the taps are used.
    """
    positions = [
        float(start) + centre_positions(0, count, float(n) / count, 0.0)
        for (start, n), count in zip(spans, counts, strict=True)
    ]
    return _cubic_taps(positions, lengths, device)


def _cubic_taps(
    positions: Sequence[np.ndarray], lengths: Sequence[int], device: torch.device
) -> tuple[Taps, Taps]:
    rows, cols = (
        make_taps(at, length, "cubic", device)
        for at, length in zip(positions, lengths, strict=True)
    )
    return rows, cols


def latent_tiles(
    geometry: Geometry, precision: str, memory: int, multiple: int, *, is_local: bool
) -> TileGrid:
    """Return the tiles in which the latent of a scene is made, fitted to the scene.

    They begin at multiples of cells, so that strided layers see all tiles alike. The
    last ones may reach beyond the scene.

    Args:
        geometry: of the scene.
        precision: of the networks, such as "bf16".
        memory: of the machine, bytes.
        multiple: cells that the networks halve to one, at most 16, a power of 2.
        is_local: no network sees all of a tile at once.
    """
    from affine import Affine  # a machine that only trains may lack it

    cell_bytes = _CELL_BYTES if precision == "fp32" else _HALF_CELL_BYTES
    side = math.isqrt(memory // _MEMORY_SHARE // cell_bytes)
    largest = max(_TILE, min(_MAX_TILE, side // multiple * multiple))
    frame = Grid(None, Affine.identity(), *geometry.cells)
    overlap, halo = _LOCAL if is_local else _WIDE
    height, width = (
        fit_side(round_up(n, multiple), largest, overlap, multiple)
        for n in geometry.cells
    )
    return TileGrid.plan(frame, Fraction(1), height, overlap, halo, multiple, width)


def _axes(window: PixelWindow) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return first and number along rows and along columns."""
    return (window.row, window.height), (window.col, window.width)


def _window(spans: Sequence[tuple[int, int]]) -> PixelWindow:
    (row, height), (col, width) = spans
    return PixelWindow(row, col, height, width)
