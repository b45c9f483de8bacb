"""PSNR and comparison pictures for the validation of every family.

They show how a run goes; `rsupres.evaluation` measures what is published.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

_LOG = logging.getLogger(__name__)


def mean_psnr(image: Tensor, truth: Tensor) -> float:
    """Return mean PSNR in dB after rounding to 8 bits.

    Args:
        image: (b, c, H, W) in [-1, 1].
        truth: of the same shape and range.
    """
    a, b = (((x.float() + 1) * 127.5).round().clamp(0, 255) for x in (image, truth))
    error = (a - b).square().flatten(1).mean(1).clamp_min(1e-3)
    return float((10 * torch.log10(255.0**2 / error)).mean())


def write_picture(path: Path, columns: Sequence[Tensor]) -> None:
    """Write the first four pictures of each column as one PNG, a row per picture.

    Args:
        path: PNG to write.
        columns: each (b, 3, H, W) in [-1, 1].
    """
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
