"""Float32 inside of networks in bfloat16, and bfloat16 inside of those in float32.

Layers that see pixels or make them run in float32, as rounding them shows; the products
between them do not. Conversions round to the nearest bfloat16.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

_HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


def in_float32(layer: nn.Module, x: Tensor) -> Tensor:
    """Return the output of `layer` in float32, also under autocast.

    Args:
        layer: that is run.
        x: (b, c, ...), any floating type.
    """
    with torch.autocast(x.device.type, enabled=False):
        out: Tensor = layer(x.float())
    return out


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Return a context manager under which products are computed in a precision.

    Args:
        device: where they are computed.
        precision: "bf16" or "fp16"; with any other they stay as they are.
    """
    kind = _HALF.get(precision)
    return torch.autocast(device.type, kind or torch.bfloat16, enabled=kind is not None)


def working_type(x: Tensor) -> torch.dtype:
    """Return the type of products: autocast's where that is on, else that of `x`."""
    device = x.device.type
    if torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return x.dtype


def subtract_to_bfloat16(x: Tensor, mean: Tensor) -> Tensor:
    """Return ``x - mean`` (n, c), computed in float32 and rounded to bfloat16.

    Args:
        x: (n, c) float32.
        mean: (c,) float32.
    """
    return (x - mean).bfloat16()


def add_from_bfloat16(x: Tensor, mean: Tensor) -> Tensor:
    """Return ``x + mean`` (n, c) in float32.

    Args:
        x: (n, c) bfloat16.
        mean: (c,) float32.
    """
    return x.float() + mean


def gate_by_gelu(x: Tensor) -> Tensor:
    """Return (n, c) ``a * gelu(b)`` of (n, 2 c) bfloat16 = [a | b], via float32."""
    a, b = x.float().chunk(2, 1)
    return (a * functional.gelu(b)).to(torch.bfloat16)
