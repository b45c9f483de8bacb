"""Limit the finest detail of a result that the reference does not show.

Not in the paper; see docs/families/refdiff.md#dots. The network draws dots along edges,
which stand out in scenes of little contrast. At scale 8 or 16 only a reference shows
what is finer than a few SR pixels. So the part of the finest detail that follows the
reference, by local regression, is kept. The rest is clipped at a share of the LR
image's own finest detail; where the LR image confirms a reference, a part of the larger
values is kept too, the more the higher the contrast. Works on tensors; opens no file.
"""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple

import torch
from torch import Tensor

from rsupres.blocks.fine_detail import blurred, finest_contrast

_WIDE, _WIDE_REACH = 3.0, 6  # SR pixels, the neighbourhood of the regression
_MIN_ENERGY = 1e-7  # of the reference's detail, squares of [0, 1]; less is noise
_USUAL = 0.05  # deviation of that detail in photographs, of [0, 1]


class Allowance(NamedTuple):
    """Limits of finest detail that the reference does not show, (b, 1, H, W) each.

    Attributes:
        small: detail up to this stays, in [0, 1]'s unit.
        part: share of any detail that stays, 0 to 1.
    """

    small: Tensor
    part: Tensor


def find_allowance(
    lr: Tensor, share: Tensor, scale: Fraction, unexplained: float
) -> Allowance:
    """Return how much finest detail may stay that the reference does not show.

    Args:
        lr: (b, c, h, w) in [0, 1].
        share: (b, 1, H, W), part of the reference's detail that is shown, 0 to 1.
        scale: H / h.
        unexplained: share of the LR image's finest detail that stays anywhere.
    """
    nearby = finest_contrast(lr, scale)
    return Allowance(unexplained * nearby, share * (nearby / _USUAL).clamp_max(1.0))


def keep_explained(
    made: Tensor, shown: Tensor, allowed: Allowance, deviation: float
) -> Tensor:
    """Return detail (b, c, H, W), its finest limited where no reference shows it.

    Args:
        made: (b, c, H, W), what was added to the base, in [0, 1]'s unit.
        shown: (b, c, H, W), the reference's detail as it was shown, 0 where none was.
        allowed: what stays without an explanation.
        deviation: SR pixels, of the Gaussian that takes out the finest detail.
    """
    smooth = blurred(made, deviation)
    fine = shown - blurred(shown, deviation)
    common = ((made - smooth) * fine).mean(1, keepdim=True)
    energy = fine.square().mean(1, keepdim=True)
    energy = blurred(energy, _WIDE, _WIDE_REACH) + _MIN_ENERGY
    explained = blurred(common, _WIDE, _WIDE_REACH) / energy * fine
    rest = made - smooth - explained
    limit = torch.maximum(allowed.small, allowed.part * rest.abs())
    return smooth + explained + torch.clamp(rest, -limit, limit)
