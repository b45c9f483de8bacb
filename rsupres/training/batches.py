"""Batches of LR and HR patches drawn from packs, with the conditions of each patch.

LR is computed from HR while training, because the scale is continuous, unless a pack
holds LR of another sensor. Batch k depends on (seed, k) only, so a resumed run draws
the same batches as an uninterrupted one. All rasters of a crop are cut at the same
ground.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from rsupres.datasets.layers import as_conditions
from rsupres.datasets.packs import HR_MULTIPLE, STORED, Pack, to_floats
from rsupres.degradations.base import Degradation
from rsupres.degradations.registry import make_degradation
from rsupres.degradations.tones import ToneParams, tone
from rsupres.errors import InputError
from rsupres.families.base import Conditions
from rsupres.grid import ceil_div
from rsupres.tile_grid import lr_step
from rsupres.training.config import PatchOptions

_MIN_LR = 12  # LR pixels; a smaller patch is mostly border
_FIXED = 2 * HR_MULTIPLE  # HR sides at fixed scales, as SlimDiffSR halves LR twice


@dataclass(frozen=True)
class Batch:
    """Patches of one scale.

    Attributes:
        hr: (b, 3, H, W) float32 in [0, 1].
        lr: (b, 3, h, w) float32 in [0, 1].
        scale: H / h.
        conditions: on the HR pixels, see `Conditions`; `style`, where a pack has it,
            is one image per patch, (b, 3, H, W).
    """

    hr: Tensor
    lr: Tensor
    scale: Fraction
    conditions: Conditions = field(default_factory=Conditions)

    def to(self, device: torch.device) -> Batch:
        """Return the batch on a device."""
        return replace(
            self,
            hr=self.hr.to(device),
            lr=self.lr.to(device),
            conditions=self.conditions.to(device),
        )


class PatchSource:
    """Random batches from packs; batch k depends on the seed and k alone.

    Crops are grouped by size, so that patches stack. A batch draws from one group,
    with a probability proportional to its number of crops times its weight.

    Args:
        packs: with at least one crop.
        plan: sizes and scales.
        seed: of all batches.
        weights: weight of the crops of a GSD, by metres per pixel; default 1.

    Raises:
        InputError: no crop is large enough, or a pack does not fit the plan.
    """

    def __init__(
        self,
        packs: Sequence[Pack],
        plan: PatchOptions,
        seed: int,
        weights: Mapping[float, float] | None = None,
    ) -> None:
        if not packs or not any(pack.crops for pack in packs):
            raise InputError("No crops to train on: the packs are empty.")
        self.plan = plan
        self.seed = seed
        self.groups = _group(packs, plan, weights or {})

    def batch(self, k: int) -> Batch:
        """Return batch `k`."""
        rng = np.random.default_rng([self.seed, k])
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        share = np.array([group.weight for group in self.groups])
        group = self.groups[rng.choice(len(self.groups), p=share / share.sum())]
        side_hr, side_lr = self._sides(rng, group)
        chosen = rng.integers(len(group.crops), size=self.plan.batch)
        patches = [group.crops[c].cut(side_hr, side_lr, rng) for c in chosen]
        hr = _unit([patch.hr for patch in patches])
        if self.plan.tone:
            hr = tone(hr, generator, ToneParams())
        if group.degradation is None:
            lr = _unit([patch.lr for patch in patches if patch.lr is not None])
        else:
            lr = group.degradation.degrade(hr, (side_lr, side_lr), generator)
        conditions = as_conditions([patch.layers for patch in patches])
        return Batch(hr, lr, Fraction(side_hr, side_lr), conditions)

    def _sides(self, rng: np.random.Generator, group: _Group) -> tuple[int, int]:
        """Draw the sides of the HR patch, a multiple of 8, and of the LR patch."""
        plan = self.plan
        room = min(group.side, plan.hr_side or group.side)
        if group.scale is not None:
            step = lr_step(group.scale, HR_MULTIPLE)
            side_lr = min(plan.lr_side, int(room / group.scale)) // step * step
            return int(side_lr * group.scale), side_lr
        if plan.fixed_scales:
            low = high = drawn = plan.fixed_scales[rng.integers(len(plan.fixed_scales))]
        else:
            low, high = plan.scales
            high = max(min(high, room / _MIN_LR), low)
            power = plan.scale_power + 1.0
            u = rng.random()
            drawn = (low**power + u * (high**power - low**power)) ** (1.0 / power)
        side_lr = min(plan.lr_side, int(room / drawn))
        if plan.fixed_scales and side_lr < plan.lr_side:  # keep to the scale exactly
            step = lr_step(Fraction(drawn).limit_denominator(100), _FIXED)
            side_lr = side_lr // step * step or side_lr
        side_hr = max(
            HR_MULTIPLE * round(side_lr * drawn / HR_MULTIPLE),
            HR_MULTIPLE * ceil_div(side_lr, HR_MULTIPLE),
        )
        side_hr = min(
            side_hr,
            room // HR_MULTIPLE * HR_MULTIPLE,
            int(side_lr * high) // HR_MULTIPLE * HR_MULTIPLE,
        )
        return side_hr, min(side_lr, side_hr)


@dataclass(frozen=True)
class _Crop:
    """All rasters of a crop or patch: (c, H, W), and (3, h, w) for stored LR."""

    hr: np.ndarray
    lr: np.ndarray | None
    layers: Mapping[str, np.ndarray]

    def cut(self, side: int, side_lr: int, rng: np.random.Generator) -> _Crop:
        """Cut a random square; flip, mirror and turn it, each with probability 1/2."""
        step, step_lr = 1, 0
        if self.lr is not None:
            scale = Fraction(side, side_lr)
            step, step_lr = scale.numerator, scale.denominator
        row, col = (
            int(rng.integers((length - side) // step + 1))
            for length in self.hr.shape[1:]
        )
        flip, mirror, turn = rng.random(3) < 0.5

        def window(raster: np.ndarray, first: int, n: int) -> np.ndarray:
            top, left = row * first, col * first
            patch = raster[:, top : top + n, left : left + n]
            patch = patch[:, ::-1] if flip else patch
            patch = patch[:, :, ::-1] if mirror else patch
            return patch.transpose(0, 2, 1) if turn else patch

        return _Crop(
            window(self.hr, step, side),
            None if self.lr is None else window(self.lr, step_lr, side_lr),
            {name: window(layer, step, side) for name, layer in self.layers.items()},
        )


@dataclass(frozen=True)
class _Group:
    """Crops with equal shorter side, degradation (None = stored LR) and layers."""

    side: int
    crops: tuple[_Crop, ...]
    weight: float
    degradation: Degradation | None
    scale: Fraction | None


def _group(
    packs: Sequence[Pack], plan: PatchOptions, weights: Mapping[float, float]
) -> list[_Group]:
    groups = []
    for pack in packs:
        degradation, scale = _lr_of(pack, plan)
        by_kind: dict[tuple[int, float], list[_Crop]] = {}
        for k, origin in enumerate(pack.meta.crops):
            crop = _Crop(
                pack.crops[k],
                pack.lr[k] if scale is not None else None,
                {name: arrays[k] for name, arrays in pack.layers.items()},
            )
            kind = (min(crop.hr.shape[1:]), origin.gsd_m)
            by_kind.setdefault(kind, []).append(crop)
        for (side, gsd_m), crops in by_kind.items():
            weight = len(crops) * weights.get(gsd_m, 1.0)
            smallest = (
                2 * _MIN_LR if scale is None else lr_step(scale, HR_MULTIPLE) * scale
            )
            if side >= smallest and weight > 0:
                groups.append(_Group(side, tuple(crops), weight, degradation, scale))
    if not groups:
        raise InputError("No crop is large enough for a patch; build larger crops.")
    return groups


def _lr_of(
    pack: Pack, plan: PatchOptions
) -> tuple[Degradation | None, Fraction | None]:
    """Return the degradation of a pack, or the scale of its stored LR."""
    meta = pack.meta
    if meta.degradation != STORED:
        return make_degradation(meta.degradation, meta.parameters), None
    if meta.scale is None:
        raise InputError("A pack declares stored LR but holds none.")
    if not plan.offers(meta.scale):
        raise InputError(
            f"A pack holds LR of scale {meta.scale}, which data.scales leaves out."
        )
    if plan.lr_side < lr_step(meta.scale, HR_MULTIPLE):
        raise InputError(
            f"data.lr_side is {plan.lr_side}; a pack with LR of scale {meta.scale}"
            f" needs at least {lr_step(meta.scale, HR_MULTIPLE)}."
        )
    if plan.tone:
        raise InputError(
            "data.tone changes HR and the LR computed from it, but a pack holds LR of"
            " another sensor; set tone = false."
        )
    return None, meta.scale


def _unit(patches: Sequence[np.ndarray]) -> Tensor:
    return torch.from_numpy(to_floats(np.stack(patches)))
