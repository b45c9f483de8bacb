"""Fit a reference to the LR image: move it, and weigh its detail by what LR confirms.

Not in the paper; see docs/families/refdiff.md#fitting-the-reference. Two dates of one
place lie a pixel or two apart, differ in contrast, and parts of the old one are gone.
The LR image shows all three, because its finest detail must be that of the reduced
reference: the best displacement leaves the least residual, and the regression of one on
the other is the share of the reference's detail that can be believed. It is near zero
where the reference shows another place. Works on tensors of one scale; opens no file.
"""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from rsupres.blocks.fine_detail import blurred
from rsupres.blocks.separable import area_means, keys_kernel

SEARCHED = 5  # SR pixels, the largest displacement
_EXPECTED = 1.3  # SR pixels, deviation of displacements before a look at the images
_OBSERVATIONS = 0.38  # independent ones an LR pixel; fitted on the training cities
_SHARE_REACH = 4  # LR pixels that the share at a place depends on, on each side
_LARGEST_SHARE = 1.3
_DOUBTED, _BELIEVED = 0.1, 0.5  # shares of which nothing and all is shown
_TRUSTED = 0.3  # energy of the regional share, relative to the region's mean energy


class Fit(NamedTuple):
    """Fit of a reference to a region of the LR image.

    Attributes:
        rows: SR pixels that the reference lies too far down, (b, 1, 1, 1) or on pixels.
        cols: the same to the right.
        share: part of the reference's detail that the LR image confirms, 0 to 1.3; of
            the shape of `rows`, or on LR pixels.
        energy: mean square of the reduced reference's finest detail, as `share`.
    """

    rows: Tensor
    cols: Tensor
    share: Tensor
    energy: Tensor


def find_fit(lr: Tensor, reference: Tensor, use: Tensor, scale: Fraction) -> Fit:
    """Return displacement, share and energy of whole pictures, (b, 1, 1, 1) each.

    The displacement is the mean over all whole pixels up to `SEARCHED`, each weighted
    by its likelihood: the residual of the local regression of the LR image's finest
    detail on that of the reduced, displaced reference. A few pixels of evidence move
    the reference little.

    Args:
        lr: (b, c, h, w) in [0, 1].
        reference: (b, c, H, W) in [0, 1], filled where it is not known.
        use: (b, 1, H, W) bool, where the reference is known and nothing changed.
        scale: H / h.
    """
    fits = [
        _displacement(one, other, part, scale)
        for one, other, part in zip(
            lr.float(), reference.float(), _cells(use, scale), strict=True
        )
    ]
    rows, cols = (
        torch.stack(part)[:, None, None, None] for part in zip(*fits, strict=True)
    )
    moved = displace(reference, rows, cols)
    detail, part = _finest(reduce(moved, scale), 1.0), _cells(use, scale)
    energy = (part * detail.square()).mean((1, 2, 3), keepdim=True)
    common = (part * detail * _finest(lr.float(), 1.0)).mean((1, 2, 3), keepdim=True)
    known = part.mean((1, 2, 3), keepdim=True).clamp_min(1e-6)
    share = (common / energy.clamp_min(1e-10)).clamp(0.0, _LARGEST_SHARE)
    return Fit(rows, cols, share, energy / known)


def displace(image: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
    """Return an image read `rows` below and `cols` right of each pixel, bicubic.

    Args:
        image: (b, c, H, W); its border is repeated.
        rows: (b, 1, 1, 1) or (b, 1, H, W).
        cols: the same.
    """
    height, width = image.shape[2:]
    down = torch.arange(height, device=image.device)[:, None] + 0.5
    right = torch.arange(width, device=image.device)[None, :] + 0.5
    y = (down + rows[:, 0]) * (2.0 / height) - 1.0
    x = (right + cols[:, 0]) * (2.0 / width) - 1.0
    size = (len(image), height, width)
    grid = torch.stack([x.expand(size), y.expand(size)], dim=-1)
    return functional.grid_sample(
        image.float(), grid, "bicubic", "border", align_corners=False
    )


def local_share(
    lr: Tensor, reduced: Tensor, use: Tensor, region: Fit, scale: Fraction
) -> Tensor:
    """Return the share of the reference's detail on LR pixels, (b, 1, h, w).

    Where the reference has no detail that LR could show, it is the region's.

    Args:
        lr: (b, c, h, w) in [0, 1].
        reduced: the reference on the same pixels.
        use: (b, 1, H, W) bool, where the reference is known and nothing changed.
        region: share and energy of the region.
        scale: H / h.
    """
    fine, known = _finest(reduced, 1.0), _cells(use, scale)
    common = (known * fine * _finest(lr.float(), 1.0)).mean(1, keepdim=True)
    energy = (known * fine.square()).mean(1, keepdim=True)
    trusted = _TRUSTED * region.energy + 1e-8
    wide = 2.0
    top = blurred(common, wide, _SHARE_REACH) + trusted * region.share
    share = top / (blurred(energy, wide, _SHARE_REACH) + trusted)
    return share.clamp(0.0, _LARGEST_SHARE)


def shown_share(share: Tensor) -> Tensor:
    """Return the factor of the detail that is shown, of the share confirmed.

    Finer detail than LR's own agrees less, so a share says more of which parts fit than
    of how much to take: from `_BELIEVED` on all of it, more where LR has more contrast.
    """
    believed = ((share - _DOUBTED) / (_BELIEVED - _DOUBTED)).clamp(0.0, 1.0)
    return believed * share.clamp_min(1.0)


def reduce(image: Tensor, scale: Fraction) -> Tensor:
    """Return the means of an SR image over LR pixels, (b, c, h, w).

    Args:
        image: (b, c, H, W).
        scale: SR pixels along one LR pixel.
    """
    return area_means(image.float(), scale)


def _displacement(
    lr: Tensor, reference: Tensor, use: Tensor, scale: Fraction
) -> tuple[Tensor, Tensor]:
    """Return the displacement of one picture, (c, h, w) and (c, H, W), SR pixels."""
    offsets = torch.arange(-SEARCHED, SEARCHED + 1, device=lr.device)
    n = len(offsets)
    small = _reduced_at_offsets(reference, scale, (lr.shape[1], lr.shape[2]))
    fine, own = _finest(small, 0.7), _finest(lr[None], 0.7)
    energy = blurred(fine.square(), 1.0, 3).sum(1)
    common = blurred(fine * own, 1.0, 3).sum(1)
    own_energy = blurred(own.square(), 1.0, 3).sum(1)
    floor = 1e-3 * own_energy.mean() + 1e-8
    residual = own_energy - common.clamp_min(0.0).square() / (energy + floor)
    inner = torch.zeros_like(use[0])
    inner[2:-2, 2:-2] = use[0, 2:-2, 2:-2]
    unlike = (inner * residual.clamp_min(floor).log()).sum((1, 2))
    evidence = -0.5 * _OBSERVATIONS * unlike.reshape(n, n)
    expected = (offsets[:, None] ** 2 + offsets[None] ** 2) / (2 * _EXPECTED**2)
    weight = (evidence - expected).flatten().softmax(0).reshape(n, n)
    return (weight.sum(1) * offsets).sum(), (weight.sum(0) * offsets).sum()


def _reduced_at_offsets(
    image: Tensor, scale: Fraction, size: tuple[int, int]
) -> Tensor:
    """Return (n * n, c, h, w): an SR image reduced after each whole displacement."""
    step = int(scale)
    taps = keys_kernel((np.arange(4 * step) + 0.5) / step - 2.0)
    kernel = torch.from_numpy((taps / taps.sum()).astype(np.float32)).to(image.device)
    margin = SEARCHED + (len(kernel) - step) // 2
    padded = functional.pad(image[:, None], (margin,) * 4, mode="replicate")
    rows = functional.conv2d(padded, kernel[None, None, :, None])
    both = functional.conv2d(rows, kernel[None, None, None])[:, 0]
    height, width = size
    places = [
        both[:, row : row + height * step : step, col : col + width * step : step]
        for row in range(2 * SEARCHED + 1)
        for col in range(2 * SEARCHED + 1)
    ]
    return torch.stack(places)


def _cells(use: Tensor, scale: Fraction) -> Tensor:
    """Return where whole LR pixels can be used, (b, 1, h, w) of 0 and 1."""
    return (reduce(use.float(), scale) > 0.999).float()


def _finest(image: Tensor, deviation: float) -> Tensor:
    """Return an image without the frequencies that a Gaussian passes."""
    return image - blurred(image, deviation, 2)
