"""Figures and pictures on held-out crops while training.

PSNR of bicubic, of DEPSR with the true latent, with the latent at zero and with the
sampled latent: the three that tell whether the latent carries what LR can predict.
These are for watching; `rsupres evaluate` measures what is published.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from rsupres.families.e2diffsr import sample_latent
from rsupres.families.e2diffsr_network import (
    E2DiffSRConfig,
    E2DiffSRNetworks,
    enlarge_to_working_grid,
)
from rsupres.training.data import Pack, PatchPlan, PatchSource
from rsupres.training.objectives import encode

_LOG = logging.getLogger(__name__)
_SCALES = (Fraction(4), Fraction(2))
_CROPS = 12


@torch.no_grad()
def validate(
    networks: E2DiffSRNetworks,
    architecture: E2DiffSRConfig,
    packs: Sequence[Pack],
    stage: str,
    picture: Path,
    device: torch.device,
) -> Mapping[str, float]:
    """Return mean PSNR in dB by name and scale, and write one comparison picture.

    Args:
        networks: the networks as they would be shipped.
        architecture: their configuration.
        packs: held-out crops.
        stage: the stage being trained; decides which latents make sense.
        picture: PNG to write: bicubic, result, truth, side by side, at scale 4.
        device: where to compute.
    """
    figures: dict[str, float] = {}
    for scale in _SCALES:
        side = 48 if scale < 4 else 32
        plan = PatchPlan(side, _CROPS, float(scale), float(scale))
        batch = PatchSource(packs, plan, seed=1).batch(0)
        hr, lr = batch.hr.to(device) * 2 - 1, batch.lr.to(device) * 2 - 1
        size = (hr.shape[2], hr.shape[3])
        bicubic = functional.interpolate(lr, size, mode="bicubic", antialias=False)
        enlarged = enlarge_to_working_grid(lr, size)
        images = {"bicubic": bicubic}
        detail = networks.depsr_detail if stage == "detail" else None
        depsr = detail or networks.depsr
        true = encode(networks, hr, enlarged) / networks.latent_scale
        images["z_true"] = depsr(lr, true, size)
        images["z_zero"] = depsr(lr, torch.zeros_like(true), size)
        if stage != "autoencoder":
            cond = networks.condnet(enlarged)
            generator = torch.Generator().manual_seed(0)
            start = torch.randn(cond.shape, generator=generator).to(device)
            z = sample_latent(networks.unet, cond, start, batch.scale, architecture)
            images["z_hat"] = depsr(lr, z / networks.latent_scale, size)
        for name, image in images.items():
            figures[f"psnr_{name}_x{scale}"] = _psnr(image, hr)
        if scale == 4:
            _write_picture(picture, [bicubic, list(images.values())[-1], hr])
    return figures


def _psnr(image: Tensor, truth: Tensor) -> float:
    """Return mean PSNR in dB of pictures in [-1, 1], after rounding to 8 bits."""
    a, b = (((x.float() + 1) * 127.5).round().clamp(0, 255) for x in (image, truth))
    error = (a - b).square().flatten(1).mean(1).clamp_min(1e-3)
    return float((10 * torch.log10(255.0**2 / error)).mean())


def _write_picture(path: Path, columns: Sequence[Tensor]) -> None:
    """Write the first pictures of each column, a row per picture."""
    try:
        from PIL import Image
    except ImportError:
        _LOG.warning("Pillow is not installed: no validation picture written.")
        return
    rows = min(4, len(columns[0]))
    wide = torch.cat([c[:rows].float().cpu() for c in columns], dim=3)  # (r, 3, H, nW)
    tall = torch.cat(list(wide), dim=1)
    pixels = ((tall + 1) * 127.5).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
    factor = max(1, math.floor(256 / columns[0].shape[3]))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.repeat(np.repeat(pixels, factor, 0), factor, 1)).save(path)
