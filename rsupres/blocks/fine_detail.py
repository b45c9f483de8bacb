"""Detail of a picture finer than its LR image can tell: measure it, and limit it.

Networks that learn from LPIPS leave dots and steps along edges, because LPIPS rewards
them. They are finer than anything that follows from the LR image.
"""

from __future__ import annotations

from fractions import Fraction

import torch
from torch import Tensor
from torch.nn import functional

from rsupres.blocks.separable import enlarge

_REACH = 3.0  # deviations after which the Gaussian of the finest detail ends


def blurred(image: Tensor, deviation: float, reach: int | None = None) -> Tensor:
    """Return (b, c, h, w), filtered with a Gaussian that ends `reach` pixels away.

    Args:
        image: (b, c, h, w); its border is repeated.
        deviation: of the Gaussian, in pixels.
        reach: pixels on each side; None = three deviations.
    """
    reach = round(_REACH * deviation) if reach is None else reach
    at = torch.arange(-reach, reach + 1, device=image.device)
    kernel = torch.exp(-(at**2) / (2 * deviation**2))
    kernel = (kernel / kernel.sum()).to(image.dtype)
    flat = image.flatten(0, 1)[:, None]
    flat = functional.pad(flat, (reach,) * 4, mode="replicate")
    flat = functional.conv2d(flat, kernel[None, None, :, None])
    return functional.conv2d(flat, kernel[None, None, None]).reshape(image.shape)


def finest_contrast(lr: Tensor, scale: Fraction) -> Tensor:
    """Return the deviation (b, 1, H, W) of LR's own finest detail, all bands together.

    Args:
        lr: (b, c, h, w).
        scale: H / h.
    """
    fine = (lr.float() - blurred(lr.float(), 1.0, 2)).square().mean(1, keepdim=True)
    return enlarge(blurred(fine, 1.5, 4), scale).clamp_min(0.0).sqrt()


def limit_finest(image: Tensor, limit: Tensor, deviation: float) -> Tensor:
    """Return a picture (b, c, H, W) whose finest detail is no larger than a limit.

    Args:
        image: (b, c, H, W).
        limit: (b, 1 or c, H, W), at least 0, in the unit of `image`.
        deviation: pixels, of the Gaussian that takes out the finest detail.
    """
    smooth = blurred(image, deviation)
    return smooth + torch.clamp(image - smooth, -limit, limit)
