"""Measure how visible the borders of tiles are in a super-resolved picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rsupres.errors import InputError
from rsupres.evaluation.measures.metrics import checked_mask

if TYPE_CHECKING:
    from rsupres.tile_grid import TileGrid


def seam_ratio(
    sr: np.ndarray,
    rows: Sequence[int],
    cols: Sequence[int],
    valid: np.ndarray | None = None,
) -> float:
    """Return the mean gradient across tile borders divided by that elsewhere.

    1 means that borders do not differ from the rest. Each axis is compared with itself;
    the two are averaged with the number of border pixels as weights.

    Args:
        sr: (c, H, W).
        rows: SR rows that begin a new tile: the border lies between row - 1 and row.
        cols: the same for columns.
        valid: (H, W) or (1, H, W) bool; None = all.

    Returns:
        The ratio; NaN without borders, or in a flat picture.

    Raises:
        InputError: a border outside the picture.
    """
    mask = checked_mask(sr, sr, valid)
    total, n_total = 0.0, 0
    for axis, borders in ((0, rows), (1, cols)):
        if any(not 0 < border < mask.shape[axis] for border in borders):
            raise InputError(f"Tile borders {list(borders)} leave the picture.")
        at, n_at, elsewhere = _gradients(sr, mask, axis, sorted(set(borders)))
        if n_at and elsewhere > 0:
            total += n_at * at / elsewhere
            n_total += n_at
    return total / n_total if n_total else math.nan


def tile_borders(grid: TileGrid) -> tuple[list[int], list[int]]:
    """Return sorted SR rows and columns where the weight of a tile starts or stops."""
    scene = grid.scene.refine(grid.scale)
    halo = grid.halo * grid.scale
    rows: set[int] = set()
    cols: set[int] = set()
    for tile in grid:
        window, border = tile.sr, tile.border
        ends = ((window.row, border.top, 1), (window.row_stop, border.bottom, -1))
        rows |= {math.ceil(p + sign * halo) for p, edge, sign in ends if not edge}
        ends = ((window.col, border.left, 1), (window.col_stop, border.right, -1))
        cols |= {math.ceil(p + sign * halo) for p, edge, sign in ends if not edge}
    return (
        sorted(row for row in rows if 0 < row < scene.height),
        sorted(col for col in cols if 0 < col < scene.width),
    )


def _gradients(
    sr: np.ndarray, mask: NDArray[np.bool_], axis: int, borders: Sequence[int]
) -> tuple[float, int, float]:
    """Return the mean gradient at borders, their pixels, and the mean elsewhere."""
    image = sr if axis == 0 else sr.transpose(0, 2, 1)
    both = mask if axis == 0 else mask.T
    pairs = both[1:] & both[:-1]  # (H - 1, W)
    size = np.abs(np.diff(image.astype(np.float64), axis=1)).mean(0)
    is_border = np.zeros(len(pairs), bool)
    is_border[[border - 1 for border in borders]] = True
    at, elsewhere = pairs & is_border[:, None], pairs & ~is_border[:, None]
    if not at.any() or not elsewhere.any():
        return math.nan, 0, math.nan
    return float(size[at].mean()), int(at.sum()), float(size[elsewhere].mean())
