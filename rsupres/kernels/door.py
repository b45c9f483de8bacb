"""The only entrance to the compiled kernels: is there one, and call it.

Each kernel function returns None where the kernels are off or do not pay, and the
caller then computes the same with torch. Nothing here imports numba until a kernel
runs, so that the package works without the extra ``fast``.
"""

from __future__ import annotations

import os
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

VARIABLE = "RSUPRES_KERNELS"  # environment variable; "off" leaves all work to torch


def available() -> bool:
    """Return whether the kernels can be used: numba is installed and not turned off."""
    return _is_installed() and os.environ.get(VARIABLE) != "off"


def describe() -> str:
    """Return "on", or "off" with the reason, for reports about the machine."""
    if available():
        return "on"
    if _is_installed():
        return f"off ({VARIABLE}=off)"
    return "off (numba is not installed; pip install 'rsupres[fast]')"


def convolve3x3(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    groups: int = 1,
    slope: float = 1.0,
    skip: Tensor | None = None,
) -> Tensor | None:
    """Return ``f(x * weight + bias + skip)``, or None where torch is to compute it.

    f(y) = y where y >= 0, else slope * y.

    Args:
        x: (b, c, h, w); padded with one row or column of zeros on each side.
        weight: (o, c / groups, 3, 3).
        bias: (o,).
        groups: number of channel groups that are convolved separately.
        slope: of f below zero, 0 to 1; 1 makes f the identity.
        skip: (b, o, h, w), added before f.

    Returns:
        (b, o, h, w) float32 in channels-last order, or None: the kernels are off, a
        gradient may be wanted, the types or the memory order do not fit, or torch is
        faster.
    """
    if not available():
        return None
    from rsupres.kernels import conv3x3

    return conv3x3.convolve(x, weight, bias, groups=groups, slope=slope, skip=skip)


def subtract_to_bfloat16(x: Tensor, mean: Tensor) -> Tensor | None:
    """Return ``x - mean`` rounded to bfloat16, or None where the kernels are off.

    Args:
        x: (n, c) float32 on the CPU.
        mean: (c,) float32.
    """
    if not available():
        return None
    from rsupres.kernels import bfloat16

    return bfloat16.subtract(x, mean)


def add_from_bfloat16(x: Tensor, mean: Tensor) -> Tensor | None:
    """Return ``x + mean`` in float32, or None where the kernels are off.

    Args:
        x: (n, c) bfloat16 on the CPU.
        mean: (c,) float32.
    """
    if not available():
        return None
    from rsupres.kernels import bfloat16

    return bfloat16.add(x, mean)


def gate_by_gelu(x: Tensor) -> Tensor | None:
    """Return ``a * gelu(b)`` in bfloat16, or None where the kernels are off.

    Args:
        x: (n, 2 c) bfloat16 on the CPU: a in the first c columns, b in the rest.

    Returns:
        (n, c), or None.
    """
    if not available():
        return None
    from rsupres.kernels import bfloat16

    return bfloat16.gate(x)


@cache
def _is_installed() -> bool:
    return find_spec("numba") is not None
