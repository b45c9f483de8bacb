"""Figures that are measured on request (`all_figures`), because they take longer.

MS-SSIM and UIQI by torchmetrics, NIQE, and those of opensr-test. MS-SSIM and UIQI take
no mask, so they are means over blocks without an invalid pixel.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from rsupres.errors import InputError
from rsupres.evaluation.measures.niqe import aerial_model, niqe
from rsupres.evaluation.measures.opensr import correctness, synthesis
from rsupres.evaluation.perceptual.lpips import blocks_of

Mask = NDArray[np.bool_]

MAX_BLOCK = 512  # pixels along a side
MS_SSIM_SIDE = 176  # pixels that five scales of windows of 11 need
UIQI_SIDE = 16


def similarity_figures(sr: np.ndarray, hr: np.ndarray, valid: Mask) -> dict[str, float]:
    """Return MS-SSIM, UIQI and, of RGB, NIQE by the model of aerial images.

    Wang, Simoncelli, Bovik 2003; Wang, Bovik 2002; `rsupres.evaluation.measures.niqe`.

    Args:
        sr: (c, H, W) in [0, 1].
        hr: the same shape and range.
        valid: (H, W) bool.

    Returns:
        By name of `rsupres.evaluation.report.COLUMNS`; NaN where no block is large
        enough.

    Raises:
        InputError: torchmetrics is not installed.
    """
    try:
        from torchmetrics.functional.image import (
            multiscale_structural_similarity_index_measure as ms_ssim,
        )
        from torchmetrics.functional.image import universal_image_quality_index as uiqi
    except ImportError as error:
        raise InputError(
            "MS-SSIM and UIQI need torchmetrics: pip install 'rsupres[eval]'."
        ) from error
    blind = {}
    if len(sr) >= 3:
        blind["niqe_aerial"] = niqe(sr[:3], valid, aerial_model())
    return {
        **blind,
        "ms_ssim": _mean(
            sr, hr, valid, MS_SSIM_SIDE, lambda a, b: ms_ssim(a, b, data_range=1.0)
        ),
        "uiqi": _mean(sr, hr, valid, UIQI_SIDE, lambda a, b: uiqi(a, b)),
    }


def opensr_figures(
    sr: np.ndarray, hr: np.ndarray, enlarged: np.ndarray, valid: Mask
) -> dict[str, float]:
    """Return synthesis and correctness.

    Args:
        sr: (c, H, W) in [0, 1].
        hr: the same shape and range.
        enlarged: the input, enlarged to that shape.
        valid: (H, W) bool.
    """
    found = correctness(sr, hr, enlarged, valid)
    return {"synthesis": synthesis(sr, enlarged, valid), **found._asdict()}


def enlarge(lr: np.ndarray, size: tuple[int, int]) -> NDArray[np.float32]:
    """Return an LR picture (c, h, w) enlarged bilinearly to a size.

    Args:
        lr: (c, h, w).
        size: rows and columns wanted.
    """
    import torch
    from torch.nn.functional import interpolate

    batch = torch.from_numpy(np.ascontiguousarray(lr, np.float32))[None]
    out = interpolate(batch, size=size, mode="bilinear", align_corners=False)
    return np.asarray(out[0].numpy())


def _mean(
    sr: np.ndarray,
    hr: np.ndarray,
    valid: Mask,
    min_side: int,
    measure: Callable[..., object],
) -> float:
    """Return the mean over blocks, by their pixels; NaN without any."""
    import torch

    total, n_pixels = 0.0, 0
    for block in _whole_blocks(valid, min_side):
        a, b = (
            torch.from_numpy(np.ascontiguousarray(part[:, *block], np.float32))[None]
            for part in (sr, hr)
        )
        size = a.shape[2] * a.shape[3]
        total += float(measure(a, b)) * size  # type: ignore[arg-type]  # a number
        n_pixels += size
    return total / n_pixels if n_pixels else math.nan


def _whole_blocks(valid: Mask, min_side: int) -> Iterator[tuple[slice, slice]]:
    """Yield blocks that are valid whole and large enough; smaller ones where needed."""
    for side in (MAX_BLOCK, 2 * min_side):
        blocks = [
            block
            for block in blocks_of(valid.shape, max(side, min_side))
            if valid[block].all() and min(valid[block].shape) >= min_side
        ]
        if blocks:
            yield from blocks
            return
