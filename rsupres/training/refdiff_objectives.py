"""What Ref-Diff minimises: EDM's weighted squared error of a denoised image.

Karras et al. 2022, Eq. 8 and Table 1, as the released Ref-Diff code has it. No batches
are drawn and no networks built here.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from rsupres.diffusion.precondition import edm_weight
from rsupres.families.refdiff import EdmDenoiser
from rsupres.families.refdiff_network import Guidance, RefDiffUNet

RELEASED_DIVISOR = 256.0


def released_loss(
    network: RefDiffUNet,
    clean: Tensor,
    guidance: Guidance,
    sigma: Tensor,
    noise: Tensor,
) -> Tensor:
    """Return the weighted squared error summed over each sample, (b,).

    The released objective is the sum over the batch divided by `RELEASED_DIVISOR`.

    Args:
        network: F.
        clean: the true image, (b, 3, H, W) in [-1, 1].
        guidance: conditions of the same samples.
        sigma: one noise level a sample, (b,).
        noise: standard normals, (b, 3, H, W).
    """
    noisy = clean + sigma[:, None, None, None] * noise
    denoised = EdmDenoiser(network, network.maps(guidance)).at(noisy, sigma)
    squares = (denoised - clean).square().flatten(1)
    return edm_weight(sigma) * squares.sum(1)


def enlarge_as_released(lr: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the LR image as the released training enlarges it, uint8.

    Bilinear at half-pixel centres, truncated to whole levels.

    Args:
        lr: (b, c, h, w) uint8.
        size: rows and columns of the HR image.
    """
    enlarged = functional.interpolate(lr.float(), size, mode="bilinear")
    return enlarged.to(torch.uint8)
