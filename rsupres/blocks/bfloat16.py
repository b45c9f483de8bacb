"""Conversions between float32 and bfloat16 around products, and a gate, on a CPU.

Each function uses a compiled kernel where there is one, else torch; both round to the
nearest bfloat16.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from rsupres.kernels import door


def subtract_to_bfloat16(x: Tensor, mean: Tensor) -> Tensor:
    """Return ``x - mean``, computed in float32 and rounded to bfloat16.

    Args:
        x: (n, c) float32.
        mean: (c,) float32.

    Returns:
        (n, c) bfloat16.
    """
    y = door.subtract_to_bfloat16(x, mean)
    return (x - mean).bfloat16() if y is None else y


def add_from_bfloat16(x: Tensor, mean: Tensor) -> Tensor:
    """Return ``x + mean`` in float32.

    Args:
        x: (n, c) bfloat16.
        mean: (c,) float32.

    Returns:
        (n, c) float32.
    """
    y = door.add_from_bfloat16(x, mean)
    return x.float() + mean if y is None else y


def gate_by_gelu(x: Tensor) -> Tensor:
    """Return ``a * gelu(b)``, computed in float32.

    Args:
        x: (n, 2 c) bfloat16: a in the first c columns, b in the rest.

    Returns:
        (n, c) bfloat16.
    """
    y = door.gate_by_gelu(x)
    if y is not None:
        return y
    a, b = x.float().chunk(2, 1)
    return (a * functional.gelu(b)).to(torch.bfloat16)
