"""Sizes of a test at a scale, and Pillow's bicubic in both directions."""

from __future__ import annotations

from fractions import Fraction
from math import floor

import numpy as np
from numpy.typing import NDArray

from rsupres.errors import InputError

Size = tuple[int, int]


def sizes_at(height: int, width: int, scale: Fraction) -> tuple[Size, Size]:
    """Return the LR size and the HR size that a test at a scale uses of an HR image.

    LR sides are the largest multiples of the scale's denominator that fit, so that
    HR = LR * scale is whole and both pictures cover exactly the same ground. For whole
    scales this is the usual floor(side / scale).

    Args:
        height: rows of the HR image.
        width: its columns.
        scale: HR pixels along one LR pixel.

    Raises:
        InputError: the image is too small for the scale.
    """
    step = scale.denominator
    lr = (floor(height / scale) // step * step, floor(width / scale) // step * step)
    if min(lr) < 1:
        raise InputError(f"An image of {width} x {height} is too small for x{scale}.")
    return lr, (int(lr[0] * scale), int(lr[1] * scale))


def resize_bicubic(image: NDArray[np.uint8], size: Size) -> NDArray[np.uint8]:
    """Return (3, height, width) uint8 by Pillow's BICUBIC: a = -0.5, antialiased.

    Args:
        image: (3, h, w) uint8.
        size: height and width wanted.
    """
    from PIL import Image

    picture = Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0)))
    small = picture.resize(size[::-1], Image.Resampling.BICUBIC)
    return np.asarray(small).transpose(2, 0, 1)


def resize_bicubic_float(image: np.ndarray, size: Size) -> NDArray[np.float32]:
    """Return (c, height, width) float32 by Pillow's BICUBIC, not rounded or clipped.

    Args:
        image: (c, h, w).
        size: height and width wanted.
    """
    from PIL import Image

    bands = [
        Image.fromarray(np.ascontiguousarray(band, np.float32)).resize(
            size[::-1], Image.Resampling.BICUBIC
        )
        for band in image
    ]
    return np.stack([np.asarray(band) for band in bands])
