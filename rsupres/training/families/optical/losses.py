"""Losses of optical models: a robust distance, and scores of two draws.

The score is strictly proper: the expected value is smallest when draws have the
distribution of the truth, so that they may neither agree where the ground is uncertain
nor scatter where it is not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

_ROUNDING = 0.01  # differences below it count by their squares
_LEVELS = (1.0, 0.5, 0.5)  # weights of the picture's scales, each half the last
_PATCH = 4  # pixels of the patches that are scored as wholes
_PATCH_WEIGHT = 0.5
_STRIDE = 3  # of the squares whose waves are scored: every phase of an LR pixel occurs
_WAVE_WEIGHT = 0.04  # of the waves, whose usual size is 1
_MIN_WAVE = 2e-3  # smaller ones are rounding
_LOG_SCALES = (-9.0, 2.0)  # limits, so that a wild value cannot end the training
_MIN_SCALE = 5e-4  # errors below it are rounding


def mean_loss(image: Tensor, truth: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted Charbonnier distance of pictures in [0, 1].

    Args:
        image: (b, c, H, W) in [0, 1].
        truth: HR, of the same shape.
        weights: (b, 1, 1, 1).
    """
    difference = image - truth
    distance = (difference.square() + _ROUNDING**2).sqrt() - _ROUNDING
    return (weights * distance).mean()


def draw_loss(first: Tensor, second: Tensor, truth: Tensor, weights: Tensor) -> Tensor:
    """Return the score of two draws: CRPS at three scales, of waves, of patches.

    The waves are the cosines of squares of 4 x 4 pixels, each divided by its usual size
    in the image, so that fine texture counts as much as coarse.

    Args:
        first: one draw, (b, c, H, W) in [0, 1].
        second: another draw.
        truth: HR, of the same shape.
        weights: (b, 1, 1, 1).
    """
    a, b, y = first, second, truth
    total = _PATCH_WEIGHT * (weights * _score(_norm, a, b, y)).mean()
    waves = [_waves(x) for x in (a, b, y)]
    usual = waves[2].abs().mean((2, 3), keepdim=True)
    score = _score(torch.abs, waves[0], waves[1], waves[2]) / (usual + _MIN_WAVE)
    total = total + _WAVE_WEIGHT * score.mean()
    for level, weight in enumerate(_LEVELS):
        if level:
            a, b, y = (functional.avg_pool2d(x, 2, ceil_mode=True) for x in (a, b, y))
        total = total + weight * (weights * _score(torch.abs, a, b, y)).mean()
    return total


def feature_loss(
    first: Sequence[Tensor],
    second: Sequence[Tensor],
    truth: Sequence[Tensor],
    weights: Tensor,
) -> Tensor:
    """Return the energy score of two draws in the feature maps of LPIPS.

    Args:
        first: maps (b, c, h, w) of a draw.
        second: of another one of the same image.
        truth: of the truth.
        weights: (b, 1, 1, 1).
    """
    scores = [
        (weights * _score(_length, a, b, y)).mean()
        for a, b, y in zip(first, second, truth, strict=True)
    ]
    return torch.stack(scores).sum()


def spread_loss(error: Tensor, logs: Tensor) -> Tensor:
    """Return the misfit of predicted scales to sizes of errors, lowest at their mean.

    The negative log likelihood of Laplace's law weighs small and large errors alike;
    squares are added, as a share of all, so that large ones are found.

    Args:
        error: of pictures in [0, 1].
        logs: logarithms of the scales, of the same shape.
    """
    logs = logs.clamp(*_LOG_SCALES)
    sizes, scales = error.abs(), torch.exp(logs)
    likelihood = ((sizes + _MIN_SCALE) / scales + logs).mean()
    return likelihood + (sizes - scales).square().mean() / sizes.square().mean()


def _score(size: Callable[[Tensor], Tensor], a: Tensor, b: Tensor, y: Tensor) -> Tensor:
    """Return the fair score for two members: distance to the truth less spread."""
    return 0.5 * (size(a - y) + size(b - y)) - 0.5 * size(a - b)


def _waves(image: Tensor) -> Tensor:
    """Return the cosine coefficients but the mean, (b c, 15, h, w), of (b, c, H, W)."""
    place = torch.arange(_PATCH, device=image.device, dtype=image.dtype) + 0.5
    order = torch.arange(_PATCH, device=image.device, dtype=image.dtype)
    rows = torch.cos(torch.pi * order[:, None] * place / _PATCH)
    rows = functional.normalize(rows, dim=1)
    kernels = torch.einsum("uy,vx->uvyx", rows, rows).reshape(-1, 1, _PATCH, _PATCH)
    return functional.conv2d(image.flatten(0, 1)[:, None], kernels[1:], stride=_STRIDE)


def _length(difference: Tensor) -> Tensor:
    """Return the lengths (b, 1, h, w) of vectors (b, c, h, w)."""
    return (difference.square().sum(1, keepdim=True) + 1e-6).sqrt()


def _norm(difference: Tensor) -> Tensor:
    """Return root mean squares over overlapping patches, all bands together."""
    squares = difference.square().mean(1, keepdim=True)
    return (functional.avg_pool2d(squares, _PATCH, _PATCH // 2) + 1e-8).sqrt()
