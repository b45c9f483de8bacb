"""Do edges lie where the truth has them? Canny's edges, scored with a tolerance.

Canny 1986, "A computational approach to edge detection": Gaussian smoothing, gradient,
only the crest of a gradient counts, and only where it is steep. Steep is `STEEP` times
the picture's own root mean square gradient, the customary cut of gradient detectors,
so the figure asks where edges lie, not how strong they are. An edge pixel is right when
the other picture has one at most `TOLERANCE` pixels away, as in the boundary scores of
Martin, Fowlkes, Malik 2004 and Csurka et al. 2013. Two unrelated photographs reach some
0.2, noise 0.1.

Like `rsupres.evaluation.metrics`: plain numpy on band-first arrays in [0, 1], NaN where
nothing is left to measure.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rsupres.errors import InputError
from rsupres.evaluation.metrics import luma

Mask = NDArray[np.bool_]

SIGMA = 1.0  # pixels, of the smoothing
TOLERANCE = 1  # pixels, diagonal steps too
STEEP = 2.0  # times the root mean square gradient
MAP_REACH = 2  # pixels from the border of a map's colours
_RADIUS = 3  # pixels, of the smoothing's kernel
# Steps to one neighbour across an edge whose gradient points down the rows or along
# the columns at 0, 45, 90, 135 degrees; the other neighbour lies opposite.
_ACROSS = ((0, 1), (1, 1), (1, 0), (1, -1))


def edge_f1(
    sr: np.ndarray,
    hr: np.ndarray,
    valid: NDArray[np.bool_] | None = None,
    near: NDArray[np.bool_] | None = None,
) -> float:
    """Return the F1 of a picture's edges against the truth's.

    Precision is the share of the picture's edge pixels that are right, recall the share
    of the truth's that were found; F1 is their harmonic mean.

    Args:
        sr: (c, H, W) in [0, 1]; of three or more bands, Y of the first three counts,
            else their mean.
        hr: the same shape and range.
        valid: (H, W) or (1, H, W) bool; None = all.
        near: (H, W) bool: only edge pixels there are asked about, as of `map_borders`;
            None = all.

    Returns:
        In [0, 1]; 1 for equal pictures, NaN where the truth has no edge.

    Raises:
        InputError: the shapes differ.
    """
    return find_edges(sr, hr, valid).f1(near)


class Edges(NamedTuple):
    """The edges of a picture and of the truth, each (H, W), where they are asked."""

    found: Mask
    true: Mask
    asked: Mask

    def f1(self, near: Mask | None = None) -> float:
        """Return F1, NaN where the truth has no edge; see `edge_f1`."""
        asked = self.asked if near is None else self.asked & near
        found, true = self.found & asked, self.true & asked
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
    """Find the edges that `edge_f1` compares, to ask about several parts of them."""
    if sr.shape != hr.shape or sr.ndim != 3:
        raise InputError(
            f"Edges of two pictures of one shape (c, H, W) are compared, not {sr.shape}"
            f" and {hr.shape}."
        )
    asked = np.ones(hr.shape[1:], bool)
    if valid is not None:
        asked = ~_grown(~valid.reshape(hr.shape[1:]).astype(bool), _RADIUS + 1)
    if min(asked.shape) < 2 or not asked.any():
        nothing = np.zeros_like(asked)
        return Edges(nothing, nothing, asked)
    found, true = (_edges(np.nan_to_num(picture), asked) for picture in (sr, hr))
    return Edges(found, true, asked)


def map_borders(chart: NDArray[np.uint8]) -> Mask:
    """Return which pixels lie near a border of two colours of a map.

    Args:
        chart: (3, H, W), drawn in a legend's colours.

    Returns:
        (H, W): at most `MAP_REACH` pixels away, diagonal steps too.
    """
    border = np.zeros(chart.shape[1:], bool)
    down = (chart[:, 1:] != chart[:, :-1]).any(0)
    right = (chart[:, :, 1:] != chart[:, :, :-1]).any(0)
    for part in (np.s_[1:], np.s_[:-1]):
        border[part] |= down
        border[:, part] |= right
    return _grown(border, MAP_REACH - 1)


def _edges(picture: np.ndarray, asked: Mask) -> Mask:
    """Return the edge pixels (H, W) among those that are asked about."""
    down, along = _slopes(picture)
    size = np.hypot(down, along)
    steep = STEEP * math.sqrt(np.square(size[asked]).mean())
    crests = _crests(down, along)
    crests &= asked & (size >= max(steep, 1e-6))  # flat but for rounding has none
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
    height, width = mask.shape
    padded = np.pad(mask, radius)
    rows = np.zeros((height, width + 2 * radius), bool)
    for step in range(2 * radius + 1):
        rows |= padded[step : step + height]
    grown = np.zeros(mask.shape, bool)
    for step in range(2 * radius + 1):
        grown |= rows[:, step : step + width]
    return grown
