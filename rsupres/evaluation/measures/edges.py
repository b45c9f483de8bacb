"""Score how many edges of a picture lie where the truth has edges.

Edges are found as Canny 1986 does ("A computational approach to edge detection"):
Gaussian smoothing, then the crests of the gradient where it is steep. Steep means
`STEEP` times the picture's own root mean square gradient, so that the score compares
where edges lie, not how strong they are. An edge pixel is right when the other picture
has one at most `TOLERANCE` pixels away, as in the boundary scores of Martin, Fowlkes,
Malik 2004 and Csurka et al. 2013. Two unrelated photographs score about 0.2, noise 0.1.

Functions of numpy arrays, band first, in [0, 1]; NaN where no edge is left to score.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation

from rsupres.evaluation.measures.metrics import checked_mask, luma

Mask = NDArray[np.bool_]

SIGMA = 1.0  # pixels, of the smoothing
TOLERANCE = 1  # pixels, diagonal steps too
STEEP = 2.0  # times the root mean square gradient
MAP_REACH = 2  # pixels from the border of a map's colours
_RADIUS = 3  # pixels, of the smoothing's kernel
# Steps to one neighbour across an edge whose gradient points down the rows or along
# the columns at 0, 45, 90, 135 degrees; the other neighbour lies opposite.
_ACROSS = ((0, 1), (1, 1), (1, 0), (1, -1))


class Edges(NamedTuple):
    """The edges of a picture and of the truth.

    Attributes:
        found: (H, W) edge pixels of the picture.
        true: (H, W) those of the truth.
        counted: (H, W) pixels that count, far enough from invalid ones.
    """

    found: Mask
    true: Mask
    counted: Mask

    def f1(self, near: Mask | None = None) -> float:
        """Return the F1 of the picture's edges against the truth's.

        Precision is the share of the picture's edge pixels that are right, recall the
        share of the truth's that were found; F1 is their harmonic mean.

        Args:
            near: (H, W), such as of `map_borders`: only edge pixels there count; None
                = all.

        Returns:
            In [0, 1]; 1 for equal pictures, NaN where the truth has no edge.
        """
        counted = self.counted if near is None else self.counted & near
        found, true = self.found & counted, self.true & counted
        n_found, n_true = int(found.sum()), int(true.sum())
        if n_true == 0:
            return math.nan
        right = int((found & _grown(self.true, TOLERANCE)).sum())
        hit = int((true & _grown(self.found, TOLERANCE)).sum())
        precision, recall = right / max(n_found, 1), hit / n_true
        return 2 * precision * recall / (precision + recall) if right and hit else 0.0


def find_edges(
    sr: np.ndarray, hr: np.ndarray, valid: NDArray[np.bool_] | None = None
) -> Edges:
    """Return the edges of a picture and of the truth, and which pixels count.

    Args:
        sr: (c, H, W) in [0, 1]; of three or more bands, Y of the first three counts,
            else their mean.
        hr: the same shape and range.
        valid: (H, W) or (1, H, W) bool; None = all.

    Raises:
        InputError: the shapes differ.
    """
    mask = checked_mask(sr, hr, valid)
    counted = mask if mask.all() else ~_grown(~mask, _RADIUS + 1)
    if min(counted.shape) < 2 or not counted.any():
        nothing = np.zeros_like(counted)
        return Edges(nothing, nothing, counted)
    found, true = (_edges(np.nan_to_num(picture), counted) for picture in (sr, hr))
    return Edges(found, true, counted)


def map_borders(chart: NDArray[np.uint8]) -> Mask:
    """Return (H, W): which pixels lie near a border of colours of a map (3, H, W).

    Near is at most `MAP_REACH` pixels away, diagonal steps too.
    """
    border = np.zeros(chart.shape[1:], bool)
    down = (chart[:, 1:] != chart[:, :-1]).any(0)
    right = (chart[:, :, 1:] != chart[:, :, :-1]).any(0)
    for part in (np.s_[1:], np.s_[:-1]):
        border[part] |= down
        border[:, part] |= right
    return _grown(border, MAP_REACH - 1)


def _edges(picture: np.ndarray, counted: Mask) -> Mask:
    """Return the edge pixels (H, W) among those that count."""
    down, along = _slopes(picture)
    size = np.hypot(down, along)
    steep = STEEP * math.sqrt(np.square(size[counted]).mean())
    crests = _crests(down, along)
    crests &= counted & (size >= max(steep, 1e-6))  # flat but for rounding has none
    return crests


def _slopes(picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the smoothed gradient down the rows and along the columns, each (H, W)."""
    grey = luma(picture[:3])[0] if len(picture) >= 3 else picture.mean(0, np.float64)
    x = np.arange(-_RADIUS, _RADIUS + 1)
    kernel = np.exp(-(x**2) / (2 * SIGMA**2))
    kernel /= kernel.sum()
    height, width = grey.shape
    padded = np.pad(grey, _RADIUS, mode="edge")
    rows = sum(k * padded[i : i + height] for i, k in enumerate(kernel))
    smooth = sum(k * rows[:, i : i + width] for i, k in enumerate(kernel))
    down, along = np.gradient(np.asarray(smooth))
    return down, along


def _crests(down: np.ndarray, along: np.ndarray) -> Mask:
    """Return which pixels are no less steep than both neighbours across."""
    size = np.hypot(down, along)
    sector = np.round(np.arctan2(down, along) / (np.pi / 4)).astype(int) % 4
    height, width = size.shape
    padded = np.pad(size, 1)
    crest = np.zeros(size.shape, bool)
    for k, (row, col) in enumerate(_ACROSS):
        ahead = padded[1 + row : 1 + row + height, 1 + col : 1 + col + width]
        behind = padded[1 - row : 1 - row + height, 1 - col : 1 - col + width]
        crest |= (sector == k) & (size > behind) & (size >= ahead)
    return crest


def _grown(mask: Mask, radius: int) -> Mask:
    """Return which pixels have one of the mask at most `radius` away, both axes."""
    side = 2 * radius + 1
    return np.asarray(binary_dilation(mask, np.ones((side, side), bool)))
