"""Corrections of SGDM's pictures: colours of the LR image, no pattern of cells.

Corrections of colours are off in the released scripts. On scenes only the one by
wavelets may be chosen: it is local, while the other would take its statistics from a
tile.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from rsupres.families.sgdm.config import SgdmConfig

_LEVELS = 5
_VARIANCE_EPS = 1e-5
_AROUND = 9  # cells along the square in which a lattice is measured
REACH = 2**_LEVELS - 1  # pixels on each side that `correct_by_wavelets` looks at


def correct_colour(config: SgdmConfig, image: Tensor, enlarged: Tensor) -> Tensor:
    """Return a decoded picture after the correction that the model has, if any.

    Args:
        config: names the correction.
        image: (b, 3, H, W).
        enlarged: LR on the same pixels and in the same range.
    """
    if config.colour == "wavelet":
        return correct_by_wavelets(image, enlarged)
    return image


def correct_by_wavelets(content: Tensor, style: Tensor) -> Tensor:
    """Return the high frequencies of `content` on the low ones of `style`.

    An undecimated wavelet of `_LEVELS` levels with the kernel (1, 2, 1) / 4.

    Args:
        content: (b, c, H, W), the sharp picture.
        style: (b, c, H, W), the one whose colours are right.
    """
    return content - _low(content) + _low(style)


def correct_by_statistics(content: Tensor, style: Tensor) -> Tensor:
    """Return `content` with mean and deviation per channel of `style` (b, c, H, W).

    Args:
        content: (b, c, H, W), the sharp picture.
        style: (b, c, H, W), the one whose colours are right.
    """
    mean, std = _statistics(content)
    wanted_mean, wanted_std = _statistics(style)
    return (content - mean) / std * wanted_std + wanted_mean


def without_lattice(cells: Tensor, cell: int) -> Tensor:
    """Return `cells` without the pattern that repeats from cell to cell.

    LPIPS rewards small offsets between the pixels of a cell, seen as a lattice. The
    mean of each over the cells around becomes the mean of all.

    Args:
        cells: (b, 3 cell², h, w), differences of pictures folded by pixel-unshuffle.
        cell: pixels along one cell.
    """
    around = functional.avg_pool2d(
        cells, _AROUND, 1, _AROUND // 2, count_include_pad=False
    )
    batch, _, height, width = around.shape
    apart = around.reshape(batch, -1, cell * cell, height, width)
    offset = apart - apart.mean(dim=2, keepdim=True)
    return cells - offset.reshape(cells.shape)


def _low(image: Tensor) -> Tensor:
    """Return the picture without the high frequencies of every level."""
    line = torch.tensor([0.25, 0.5, 0.25], dtype=image.dtype, device=image.device)
    channels = image.shape[1]
    kernel = line.outer(line).expand(channels, 1, 3, 3)
    for level in range(_LEVELS):
        reach = 2**level
        padded = functional.pad(image, (reach,) * 4, mode="replicate")
        image = functional.conv2d(padded, kernel, groups=channels, dilation=reach)
    return image


def _statistics(image: Tensor) -> tuple[Tensor, Tensor]:
    flat = image.flatten(2)
    mean, variance = flat.mean(2), flat.var(2) + _VARIANCE_EPS
    return mean[:, :, None, None], variance.sqrt()[:, :, None, None]
