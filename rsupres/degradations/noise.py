"""Gaussian and Poisson noise of blind degradations."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rsupres.degradations.base import draw_uniform, round_levels

_GREY = (0.2989, 0.587, 0.114)  # weights of red, green and blue


def gaussian_noise(
    x: Tensor, levels: tuple[float, float], grey: Tensor, generator: torch.Generator
) -> Tensor:
    """Return normal noise.

    Args:
        x: (b, c, h, w), for its shape.
        levels: range of the standard deviation, of 255.
        grey: (b, 1, 1, 1) bool, images with the same noise in all bands.
        generator: of all draws.
    """
    device = generator.device
    sigma = draw_uniform((len(x), 1, 1, 1), levels, generator) / 255.0
    noise = torch.randn(x.shape, generator=generator, device=device)
    noise = torch.where(grey.to(device), noise[:, :1], noise)
    return (sigma * noise).to(x.device)


def poisson_noise(
    x: Tensor, factors: tuple[float, float], grey: Tensor, generator: torch.Generator
) -> Tensor:
    """Return shot noise, as Real-ESRGAN draws it.

    The counts of an image are its values times its number of different levels, rounded
    up to a power of two.

    Args:
        x: (b, c, h, w) in [0, 1].
        factors: range of the factor that the noise is multiplied by.
        grey: (b, 1, 1, 1) bool, images with the same noise in all bands.
        generator: of all draws.
    """
    device = generator.device
    weights = torch.tensor(_GREY if x.shape[1] == 3 else [1 / x.shape[1]] * x.shape[1])
    coloured = round_levels(x).to(device)
    greyed = (coloured * weights.to(device)[:, None, None]).sum(1, keepdim=True)
    source = torch.where(grey.to(device), round_levels(greyed), coloured)
    n_levels = torch.tensor(
        [2.0 ** math.ceil(math.log2(len(torch.unique(image)))) for image in source]
    ).to(device)[:, None, None, None]
    counts = torch.poisson(source * n_levels, generator=generator)
    # One draw for all bands of a grey image.
    counts = torch.where(grey.to(device), counts[:, :1], counts)
    factor = draw_uniform((len(x), 1, 1, 1), factors, generator)
    return (factor * (counts / n_levels - source)).to(x.device)
