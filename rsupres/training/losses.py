"""Types of losses, and the loss terms that families share.

A loss of a family turns a batch into named, weighted terms. It has no optimiser and no
loop. The losses of each family are in ``training/families/<family>/losses.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from rsupres.training.config import StageConfig

_POWER = 0.7  # images count by their bicubic error to minus this power
_MIN_ERROR = 0.008  # of bicubic, for that


class Outcome(NamedTuple):
    """Weighted loss terms, and a pair of pictures for a discriminator.

    Attributes:
        terms: scalars by name; the loss is their sum.
        fake: generated pictures (b, 3, H, W) in [-1, 1], None without a pair.
        real: the true pictures.
    """

    terms: Mapping[str, Tensor]
    fake: Tensor | None = None
    real: Tensor | None = None


@dataclass(frozen=True)
class AutoencoderOptions:
    """Options of a stage "autoencoder".

    Attributes:
        kl_weight: weight of the divergence over the number of pixel values, beside
            the mean L1; latent diffusion has 1e-6.
    """

    kl_weight: float = 1e-6


@dataclass(frozen=True)
class EvenOptions:
    """Options of a stage that compares pictures.

    Attributes:
        even: weigh images so that flat ones count in L1 as much as textured ones.
    """

    even: bool = False


@dataclass(frozen=True)
class PictureOptions(EvenOptions):
    """Options of such a stage of networks that use statistics of the scene.

    Attributes:
        alone: treat each picture as a scene of its own; by default the batch is one.
    """

    alone: bool = False


@dataclass(frozen=True)
class StageSetup:
    """The inputs of a loss besides networks and batch.

    Attributes:
        stage: the configuration of the stage.
        options: the stage's own options, of the type that its `Stage` names.
        perceptual: LPIPS (squeeze); None when the stage gives it no weight.
    """

    stage: StageConfig
    options: object
    perceptual: nn.Module | None


def picture_terms(
    image: Tensor, truth: Tensor, setup: StageSetup, weights: Tensor | float = 1.0
) -> dict[str, Tensor]:
    """Return weighted L1 ("pixel") and LPIPS ("perceptual") of pictures.

    Args:
        image: (b, 3, H, W) in [-1, 1].
        truth: of the same shape and range.
        setup: the weights, and LPIPS.
        weights: of the images in L1, see `image_weights`.
    """
    distance = (weights * (image.float() - truth).abs()).mean()
    terms = {"pixel": setup.stage.pixel_weight * distance}
    if setup.stage.perceptual_weight and setup.perceptual is not None:
        distance = setup.perceptual(image, truth).mean()
        terms["perceptual"] = setup.stage.perceptual_weight * distance
    return terms


def picture_weights(lr: Tensor, hr: Tensor, options: object) -> Tensor | float:
    """Return the weights of images in L1; 1 where a stage's options ask for none.

    Args:
        lr: (b, 3, h, w) in [0, 1].
        hr: (b, 3, H, W) in [0, 1].
        options: of the stage.
    """
    if not (isinstance(options, EvenOptions) and options.even):
        return 1.0
    bicubic = functional.interpolate(lr, hr.shape[2:], mode="bicubic")
    return image_weights(bicubic, hr)


def image_weights(bicubic: Tensor, truth: Tensor) -> Tensor:
    """Return weights (b, 1, 1, 1), mean 1, larger for flat images than for textured.

    Args:
        bicubic: enlarged LR, (b, c, H, W) in [0, 1].
        truth: HR, of the same shape.
    """
    error = (bicubic - truth).abs().mean((1, 2, 3))
    weights = (error + _MIN_ERROR) ** -_POWER
    return (weights / weights.mean())[:, None, None, None]


def normal(like: Tensor, generator: torch.Generator) -> Tensor:
    """Return standard normal noise of the shape of `like`, drawn on the CPU.

    Args:
        like: gives shape and device.
        generator: of the draw, on the CPU.
    """
    return torch.randn(like.shape, generator=generator).to(like.device)


def uniform(n: int, like: Tensor, generator: torch.Generator) -> Tensor:
    """Return n uniform numbers in [0, 1), drawn on the CPU, on the device of `like`.

    Args:
        n: how many.
        like: gives the device.
        generator: of the draw, on the CPU.
    """
    return torch.rand(n, generator=generator).to(like.device)
