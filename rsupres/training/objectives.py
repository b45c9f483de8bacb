"""What an objective is, and the parts of losses that families share.

An objective turns a batch into named, weighted loss terms. It owns no optimiser and no
loop; those of a family live in the module that `rsupres.training.adapters` names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from rsupres.training.config import StageConfig


class Outcome(NamedTuple):
    """Weighted loss terms, and the pictures a discriminator may judge, in [-1, 1]."""

    terms: Mapping[str, Tensor]
    fake: Tensor | None = None
    real: Tensor | None = None


@dataclass(frozen=True)
class Job:
    """What an objective works with besides networks and batch.

    Attributes:
        stage: the configuration of the stage.
        options: the stage's own options, of the type that its `Stage` names.
        perceptual: LPIPS (squeeze), when the stage weighs it.
    """

    stage: StageConfig
    options: object
    perceptual: nn.Module | None


def picture_terms(image: Tensor, truth: Tensor, job: Job) -> dict[str, Tensor]:
    """Return weighted L1 and LPIPS of pictures (b, 3, H, W) in [-1, 1]."""
    terms = {"pixel": job.stage.pixel_weight * (image.float() - truth).abs().mean()}
    if job.stage.perceptual_weight and job.perceptual is not None:
        distance = job.perceptual(image, truth).mean()
        terms["perceptual"] = job.stage.perceptual_weight * distance
    return terms


def normal(like: Tensor, generator: torch.Generator) -> Tensor:
    """Return standard normal noise of the shape of `like`, drawn on the CPU."""
    return torch.randn(like.shape, generator=generator).to(like.device)


def uniform(n: int, like: Tensor, generator: torch.Generator) -> Tensor:
    """Return n uniform numbers in [0, 1), drawn on the CPU, on `like`'s device."""
    return torch.rand(n, generator=generator).to(like.device)
