"""Drop the parts of a mask that are too small or too thin to count as change.

Whether a pixel stays depends only on pixels nearer than the minimum size, so a window
that is read with that margin gives the same answer as the whole mask would.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
_WITH_CORNERS = np.ones((3, 3), bool)  # pixels that touch at a corner are connected


def drop_small(mask: Mask, min_pixels: int) -> Mask:
    """Return a mask without its connected parts of fewer than `min_pixels` pixels.

    Pixels that touch at a corner are connected. A pixel of a part with at least
    `min_pixels` pixels has that many within `min_pixels - 1` steps, so a cut through
    the mask at that distance does not change the result for the pixel.

    Args:
        mask: (h, w).
        min_pixels: 1 or less keeps everything.
    """
    if min_pixels <= 1 or not mask.any():
        return mask.copy()
    from scipy import ndimage

    labels, _ = ndimage.label(mask, _WITH_CORNERS)
    is_large = np.bincount(labels.ravel()) >= min_pixels
    is_large[0] = False  # label 0 is outside the mask
    return np.asarray(is_large[labels])


def drop_thin(mask: Mask) -> Mask:
    """Return the pixels of a mask that belong to a 2 x 2 square inside the mask.

    Lines that are one pixel wide vanish. Such lines are the edges of two maps that
    disagree by one pixel.
    """
    from scipy import ndimage

    return np.asarray(ndimage.binary_opening(mask, np.ones((2, 2), bool)))
