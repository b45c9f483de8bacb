"""Ways to enlarge an LR image that a test compares: bicubic, and loaded models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rsupres.datasets.chips import to_uint8
from rsupres.datasets.layers import Layers, as_conditions
from rsupres.evaluation.resize import resize_bicubic
from rsupres.families.base import Conditions, SamplerOptions
from rsupres.upscaling.array import upscale_whole

if TYPE_CHECKING:
    import torch

    from rsupres.families.base import ModelSpec, SuperResolver

Pixels = NDArray[np.uint8]
BICUBIC = "bicubic"


@dataclass(frozen=True)
class Candidate:
    """A way to enlarge an 8-bit LR image.

    Attributes:
        name: as the table shows it.
        enlarge: (LR pixels, scale, HR size, layers on the HR pixels) to 8-bit pixels.
        looks_at: names of the layers that change its result.
    """

    name: str
    enlarge: Callable[[Pixels, Fraction, tuple[int, int], Layers], Pixels]
    looks_at: frozenset[str] = frozenset()


def bicubic_candidate() -> Candidate:
    """Return the baseline: Pillow's bicubic (a = -0.5) of the 8-bit LR image."""
    return Candidate(BICUBIC, lambda lr, scale, size, _: resize_bicubic(lr, size))


def model_candidate(
    name: str,
    model: SuperResolver,
    device: torch.device,
    seed: int,
    style: NDArray[np.float32] | None = None,
) -> Candidate:
    """Return a loaded model as a candidate; its result is clipped and rounded.

    Args:
        name: as the table shows it.
        model: on its device.
        device: that device.
        seed: of the noise.
        style: (3, Hs, Ws) in [0, 1] that all images follow; None = their own layer.
    """

    def enlarge(
        lr: Pixels, scale: Fraction, size: tuple[int, int], layers: Layers
    ) -> Pixels:
        unit = lr.astype(np.float32) / np.float32(255)
        conditions = _conditions(layers, style)
        return to_uint8(upscale_whole(model, unit, scale, device, seed, conditions))

    return Candidate(name, enlarge, model.spec.needs | model.spec.accepts)


def without(candidate: Candidate, condition: str) -> Candidate:
    """Return a candidate that runs without one of its conditions.

    Args:
        candidate: that accepts the condition.
        condition: such as "reference".
    """

    def enlarge(
        lr: Pixels, scale: Fraction, size: tuple[int, int], layers: Layers
    ) -> Pixels:
        hidden = (condition, f"{condition}_valid")
        kept = {name: part for name, part in layers.items() if name not in hidden}
        return candidate.enlarge(lr, scale, size, kept)

    name = f"{candidate.name} without {condition.replace('_', ' ')}"
    return Candidate(name, enlarge, candidate.looks_at - {condition})


def load_candidates(
    names: Sequence[str],
    samplings: Sequence[SamplerOptions],
    device: torch.device,
    seed: int,
    *,
    style: NDArray[np.float32] | None = None,
    hidden: Sequence[str] = (),
) -> tuple[list[Candidate], list[ModelSpec]]:
    """Return candidates, each model with every sampling, and the models' specs.

    Args:
        names: of cards or checkpoint files; a repeated name counts once, and "bicubic"
            is Pillow's, without a choice.
        samplings: how the models draw; one candidate each.
        device: where the models compute.
        seed: of the noise.
        style: (3, Hs, Ws) in [0, 1] that all images follow; None = their own layer.
        hidden: conditions; a model that accepts one runs once more without it.

    Raises:
        CheckpointError: an unknown model, or its weights are missing or damaged.
        InputError: a model does not offer the sampling.
    """
    from rsupres.checkpoints.catalogue import load_model

    candidates, specs = [], []
    for name in dict.fromkeys(names):
        if name == BICUBIC:
            candidates.append(bicubic_candidate())
            continue
        for sampling in samplings:
            model = load_model(name, device, sampling)
            label = Path(name).stem if name.endswith(".safetensors") else name
            label += f" detail {sampling.detail:g}" if model.spec.detail else ""
            made = model_candidate(label, model, device, seed, style)
            candidates.append(made)
            candidates += [without(made, h) for h in hidden if h in model.spec.accepts]
            specs.append(model.spec)
    return candidates, specs


def _conditions(layers: Layers, style: NDArray[np.float32] | None) -> Conditions:
    """Return the layers of an image as a model gets them for a scene."""
    import torch

    conditions = as_conditions([layers])
    if style is not None:
        return replace(conditions, style=torch.from_numpy(style))
    if conditions.style is not None:
        return replace(conditions, style=conditions.style[0])
    return conditions
