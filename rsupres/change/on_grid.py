"""Look up mask values of one grid on another grid, by the nearest pixel.

Change masks keep the grid of their source. For each SR pixel, the source pixel that
holds its centre is read.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rsupres.grid import Grid, PixelWindow, ceil_div
from rsupres.legends.class_table import NODATA
from rsupres.raster.blocks import Blocks
from rsupres.raster.place.warp import places, source_pixels_per_pixel

Codes = NDArray[np.uint8]

BLOCK_SIDE = 256  # pixels, halved where the source is far finer
MAX_SOURCE_SIDE = 4096  # source pixels that one block takes, along a side
LATTICE = 16  # SR pixels between places whose ground is looked up exactly
NUDGE = 1e-6  # source pixels; a centre on an edge falls right and down of it


class MaskPixels(Protocol):
    """Values of a change mask on a grid of their own."""

    @property
    def grid(self) -> Grid:
        """The grid of the pixels."""
        ...

    def read(self, window: PixelWindow) -> Codes:
        """Return (1, h, w) for a window inside the grid."""
        ...


class OnGrid:
    """Mask values of one grid on another, by the nearest pixel: a `MaskPixels`.

    Attributes:
        grid: of the pixels that are read.
    """

    def __init__(self, source: MaskPixels, grid: Grid) -> None:
        self.grid = grid
        self._source = source
        self._is_same = _is_same(source.grid, grid)
        ratio = source_pixels_per_pixel(source.grid, grid)
        side = BLOCK_SIDE
        while side > LATTICE and side * ratio > MAX_SOURCE_SIDE:
            side //= 2
        self._blocks = Blocks(grid.window, side, self._make)

    def read(self, window: PixelWindow) -> Codes:
        """Return (1, h, w), 255 outside the source."""
        if self._is_same:
            return self._source.read(window)
        return self._blocks.read(window)

    def _make(self, window: PixelWindow) -> Codes:
        cols, rows = self._lookup(window)
        frame = self._source.grid
        inside = (
            (cols >= 0) & (rows >= 0) & (cols < frame.width) & (rows < frame.height)
        )
        out = np.full((1, window.height, window.width), NODATA, np.uint8)
        if not inside.any():
            return out
        cols, rows = cols[inside].astype(np.intp), rows[inside].astype(np.intp)
        top, left = int(rows.min()), int(cols.min())
        needed = PixelWindow(
            top, left, int(rows.max()) + 1 - top, int(cols.max()) + 1 - left
        )
        values = self._source.read(needed)
        out[0, inside] = values[0, rows - top, cols - left]
        return out

    def _lookup(
        self, window: PixelWindow
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return (h, w) columns and rows of the source at the pixels' centres."""
        source, target = self._source.grid, self.grid
        height, width = window.height, window.width
        if source.crs == target.crs:
            col, row = np.meshgrid(
                np.arange(width) + window.col + 0.5,
                np.arange(height) + window.row + 0.5,
            )
            col, row = places(source, target, col, row)
        else:
            nodes = [
                np.arange(0, ceil_div(side, LATTICE) + 1) * float(LATTICE)
                for side in (height, width)
            ]
            col, row = np.meshgrid(nodes[1] + window.col, nodes[0] + window.row)
            sparse = places(source, target, col.ravel(), row.ravel())
            col, row = (
                _between(part.reshape(col.shape), height, width) for part in sparse
            )
        with np.errstate(invalid="ignore"):
            found = np.floor(col + NUDGE), np.floor(row + NUDGE)
        return np.nan_to_num(found[0], nan=-1), np.nan_to_num(found[1], nan=-1)


def _is_same(one: Grid, other: Grid) -> bool:
    frame = one.crs, one.transform, one.height, one.width
    return frame == (other.crs, other.transform, other.height, other.width)


def _between(
    nodes: NDArray[np.float64], height: int, width: int
) -> NDArray[np.float64]:
    """Return values at pixel centres between nodes `LATTICE` pixels apart."""
    rows, cols = ((np.arange(side) + 0.5) / LATTICE for side in (height, width))
    top, left = rows.astype(np.intp), cols.astype(np.intp)
    down, right = (rows - top)[:, np.newaxis], cols - left
    upper = nodes[top][:, left] * (1 - right) + nodes[top][:, left + 1] * right
    lower = nodes[top + 1][:, left] * (1 - right) + nodes[top + 1][:, left + 1] * right
    return np.asarray(upper * (1 - down) + lower * down)
