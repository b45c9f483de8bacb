"""EDM preconditioning: a network F between noise levels of any size.

Karras et al. 2022, "Elucidating the Design Space of Diffusion-Based Generative Models",
Table 1 and Eq. 7. Plain functions of a noise level, in float64 where it is a number.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

SIGMA_DATA = 0.5  # deviation of the pictures, which lie in [-1, 1]


class Coefficients(NamedTuple):
    """``D(x) = c_skip * x + c_out * F(c_in * x, c_noise)``; each of the shape of sigma.

    A network called with ``c_in * x`` sees unit variance at every noise level.
    """

    c_skip: Tensor
    c_out: Tensor
    c_in: Tensor
    c_noise: Tensor


def edm_coefficients(sigma: Tensor) -> Coefficients:
    """Return the coefficients of noise levels > 0, of any shape, in their own type."""
    total = sigma.square() + SIGMA_DATA**2
    return Coefficients(
        SIGMA_DATA**2 / total,
        sigma * SIGMA_DATA * total.rsqrt(),
        total.rsqrt(),
        sigma.log() / 4.0,
    )


def edm_weight(sigma: Tensor) -> Tensor:
    """Return the weight of D's squared error at noise levels: that of F gets even."""
    return (sigma.square() + SIGMA_DATA**2) / (sigma * SIGMA_DATA).square()


def draw_sigma(normal: Tensor, mean: float = -1.2, deviation: float = 1.2) -> Tensor:
    """Return noise levels for training, log-normal ones, of standard normals.

    Args:
        normal: standard normals, any shape.
        mean: of ln(sigma).
        deviation: of ln(sigma).
    """
    return torch.exp(mean + deviation * normal)
