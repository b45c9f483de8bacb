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

_POWER = 0.7  # images count by their bicubic error to minus this power
_MIN_ERROR = 0.008  # of bicubic, for that
_ROUNDING = 0.01  # differences below it count by their squares
_LEVELS = (1.0, 0.5, 0.5)  # weights of the picture's scales, each half the last
_PATCH = 4  # pixels of the patches that are scored as wholes
_PATCH_WEIGHT = 0.5
_STEP_WEIGHT = 0.5  # of the steps between neighbouring pixels, along each axis
_LOG_SCALES = (-9.0, 2.0)  # limits, so that a wild value cannot end the training
_MIN_SCALE = 5e-4  # errors below it are rounding


def image_weights(bicubic: Tensor, truth: Tensor) -> Tensor:
    """Return weights (b, 1, 1, 1), mean 1: flat images count as much as rich ones.

    Args:
        bicubic: enlarged LR, (b, c, H, W) in [0, 1].
        truth: HR, of the same shape.
    """
    error = (bicubic - truth).abs().mean((1, 2, 3))
    weights = (error + _MIN_ERROR) ** -_POWER
    return (weights / weights.mean())[:, None, None, None]


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
    """Return the score of two draws: CRPS at three scales, of steps, of patches.

    Args:
        first: one draw, (b, c, H, W) in [0, 1].
        second: another draw.
        truth: HR, of the same shape.
        weights: (b, 1, 1, 1).
    """
    a, b, y = first, second, truth
    total = _PATCH_WEIGHT * (weights * _score(_norm, a, b, y)).mean()
    for axis in (2, 3):
        steps = [torch.diff(x, dim=axis) for x in (a, b, y)]
        score = _score(torch.abs, steps[0], steps[1], steps[2])
        total = total + _STEP_WEIGHT * (weights * score).mean()
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
    """Return the negative log likelihood of errors by Laplace's law, per pixel.

    Args:
        error: of pictures in [0, 1].
        logs: logarithms of the scales, of the same shape.
    """
    logs = logs.clamp(*_LOG_SCALES)
    return ((error.abs() + _MIN_SCALE) * torch.exp(-logs) + logs).mean()


def _score(size: Callable[[Tensor], Tensor], a: Tensor, b: Tensor, y: Tensor) -> Tensor:
    """Return the fair score for two members: distance to the truth less spread."""
    return 0.5 * (size(a - y) + size(b - y)) - 0.5 * size(a - b)


def _length(difference: Tensor) -> Tensor:
    """Return the lengths (b, 1, h, w) of vectors (b, c, h, w)."""
    return (difference.square().sum(1, keepdim=True) + 1e-6).sqrt()


def _norm(difference: Tensor) -> Tensor:
    """Return root mean squares over overlapping patches, all bands together."""
    squares = difference.square().mean(1, keepdim=True)
    return (functional.avg_pool2d(squares, _PATCH, _PATCH // 2) + 1e-8).sqrt()
