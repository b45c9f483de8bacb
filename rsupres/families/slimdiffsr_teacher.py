"""The teacher of SlimDiffSR: which step of the noise schedule fits an image's doubt.

Reconstructed (no code was released): see the specification, section 6.
"""

from __future__ import annotations

import torch
from torch import Tensor

_TINY = 1e-8


def invert_variance(variance: Tensor, alpha_bar: Tensor) -> Tensor:
    """Return the step at which the schedule's noise equals a latent's variance.

    Signal to noise 1 / v means alpha_bar = 1 / (1 + v); the step is the nearest of the
    schedule plus the fraction towards the next one (which may be negative), except at
    both ends.

    Args:
        variance: (b, ..., h, w), positive; its mean over all but b counts.
        alpha_bar: (T,) falling, of the schedule.

    Returns:
        (b,) fractional steps in the type of `alpha_bar`.
    """
    v = variance.to(alpha_bar.dtype).flatten(1).mean(1)
    snr = 1.0 / (v + _TINY)
    target = (snr / (1.0 + snr)).clamp(_TINY, 1.0 - _TINY)
    nearest = (alpha_bar[None] - target[:, None]).abs().argmin(1)
    inside = (nearest > 0) & (nearest < len(alpha_bar) - 1)
    here = alpha_bar[nearest]
    after = alpha_bar[(nearest + 1).clamp_max(len(alpha_bar) - 1)]
    fraction = (here - target) / (here - after + _TINY)
    return nearest + torch.where(inside, fraction, 0.0)
