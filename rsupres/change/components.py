"""Connected parts of a mask, and which of them are too small to count.

Whether a pixel stays depends on pixels nearer than the least size alone, so a window
read with that margin gives what the whole picture would. Plain numpy.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
# (row, col) of the neighbours that come later in reading order.
_LATER = ((0, 1), (1, -1), (1, 0), (1, 1))


def drop_small(mask: Mask, n_least: int) -> Mask:
    """Return a mask without its parts of fewer than `n_least` pixels.

    Pixels that touch at a corner belong together. A pixel of a part with at least
    `n_least` pixels has that many within `n_least - 1` steps, so cutting the mask at
    that distance does not change what becomes of the pixel.

    Args:
        mask: (h, w).
        n_least: 1 or less keeps everything.
    """
    if n_least <= 1 or not mask.any():
        return mask.copy()
    labels = _label(mask)
    sizes = np.bincount(labels)
    kept = np.zeros(mask.shape, bool)
    kept[mask] = sizes[labels] >= n_least
    return kept


def drop_thin(mask: Mask) -> Mask:
    """Return the pixels of a mask that belong to 2 x 2 pixels that are all in it.

    Lines of one pixel vanish: such are the edges of two maps that disagree by a pixel.
    """
    square = mask[:-1, :-1] & mask[1:, :-1] & mask[:-1, 1:] & mask[1:, 1:]
    kept = np.zeros(mask.shape, bool)
    for row in (0, 1):
        for col in (0, 1):
            height, width = square.shape
            kept[row : row + height, col : col + width] |= square
    return kept


def _label(mask: Mask) -> NDArray[np.intp]:
    """Return the number of the part that each pixel of the mask is in.

    Parts are joined by their smallest number and paths shortened until nothing moves
    (Shiloach and Vishkin 1982).
    """
    n_pixels = int(np.count_nonzero(mask))
    numbers = np.full((mask.shape[0] + 2, mask.shape[1] + 2), -1, np.intp)
    inner = numbers[1:-1, 1:-1]
    inner[mask] = np.arange(n_pixels)
    pairs = []
    for row, col in _LATER:
        height, width = mask.shape
        there = numbers[1 + row : 1 + row + height, 1 + col : 1 + col + width]
        both = (inner >= 0) & (there >= 0)
        pairs.append(np.stack([inner[both], there[both]]))
    one, other = np.concatenate(pairs, axis=1)
    labels = np.arange(n_pixels)
    while True:
        left, right = labels[one], labels[other]
        if np.array_equal(left, right):
            return labels
        low = np.minimum(left, right)
        np.minimum.at(labels, left, low)
        np.minimum.at(labels, right, low)
        while not np.array_equal(labels, shorter := labels[labels]):
            labels = shorter
