"""Embeddings of scalars: diffusion steps, scales.

Plain functions and the two-layer projection that follows them; no conditioning logic.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


def sinusoidal_embedding(values: Tensor, dim: int) -> Tensor:
    """Return (b, dim) float32: [sin | cos] of `values` at geometric frequencies.

    Frequencies are ``10000 ** (-k / (dim / 2 - 1))`` for k = 0 .. dim/2 - 1 (Ho et al.
    2020, as laid out in latent diffusion).

    Args:
        values: (b,) numbers, whole or not.
        dim: length of an embedding, even and at least 4.
    """
    half = dim // 2
    exponents = torch.arange(half, dtype=torch.float32, device=values.device)
    frequencies = torch.exp(exponents * (-math.log(10000.0) / (half - 1)))
    angles = values.float()[:, None] * frequencies[None]  # (b, dim / 2)
    return torch.cat([angles.sin(), angles.cos()], dim=1)  # (b, dim)


class ScalarEmbedding(nn.Module):
    """Sinusoidal embedding of a scalar and a two-layer projection (SiLU between)."""

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.dim = dim
        self.dense = nn.ModuleList([nn.Linear(dim, width), nn.Linear(width, width)])

    def forward(self, values: Tensor) -> Tensor:
        """Map (b,) to (b, width)."""
        hidden = self.dense[0](sinusoidal_embedding(values, self.dim))
        projected: Tensor = self.dense[1](functional.silu(hidden))
        return projected
