"""Compiled loops that convert and combine bfloat16 on a CPU in one pass over memory.

A bfloat16 number is the upper half of a float32 number; the loops handle it as uint16.
Threads share the rows: each call does `part` of `parts`.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from rsupres.kernels.compile import compiled, share

# erf(x) = 1 - (1 + a1 x + ... + a6 x^6)^-16 for x >= 0, off by 3e-7 at most: Abramowitz
# and Stegun 1964, "Handbook of Mathematical Functions", 7.1.28; with x = y / sqrt(2).
_POLYNOMIAL = (
    0.0705230784,
    0.0422820123,
    0.0092705272,
    0.0001520143,
    0.0002765672,
    0.0000430638,
)
_A1, _A2, _A3, _A4, _A5, _A6 = (
    np.float32(a * 0.5 ** (k / 2)) for k, a in enumerate(_POLYNOMIAL, 1)
)
_ONE, _HALF = np.float32(1.0), np.float32(0.5)
_MAX = np.float32(10.0)  # beyond it the power overflows, and erf is 1


def subtract(x: Tensor, mean: Tensor) -> Tensor:
    """Return ``x - mean`` of (n, c) and (c,) float32, rounded to bfloat16."""
    out = torch.empty(x.shape, dtype=torch.bfloat16)
    given = x.contiguous().numpy(), mean.numpy(), _bits(out)
    share(lambda *part: write_differences(*given, *part))
    return out


def add(x: Tensor, mean: Tensor) -> Tensor:
    """Return ``x + mean`` of (n, c) bfloat16 and (c,) float32, in float32."""
    out = torch.empty(x.shape)
    given = _bits(x), mean.numpy(), out.numpy()
    share(lambda *part: write_sums(*given, *part))
    return out


def gate(x: Tensor) -> Tensor:
    """Return ``a * gelu(b)``, (n, c) bfloat16, of (n, 2 c) bfloat16, a beside b."""
    out = torch.empty(len(x), x.shape[1] // 2, dtype=torch.bfloat16)
    given = _bits(x), _bits(out)
    share(lambda *part: write_gated(*given, *part))
    return out


def _bits(x: Tensor) -> np.ndarray:
    return x.contiguous().view(torch.uint16).numpy()


@compiled
def _round(numbers, halves, n):  # type: ignore[no-untyped-def]  # compiled
    """Write float32, given as uint32, to the nearest bfloat16; ties to even."""
    for k in range(n):
        bits = numbers[k]
        odd = (bits >> np.uint32(16)) & np.uint32(1)
        halves[k] = np.uint16((bits + np.uint32(0x7FFF) + odd) >> np.uint32(16))


@compiled
def write_differences(x, mean, halves, part, parts):  # type: ignore[no-untyped-def]  # compiled
    """Write ``x - mean`` as bfloat16.

    Args:
        x: (n, c) float32.
        mean: (c,).
        halves: (n, c) uint16.
        part: number of this part of the work.
        parts: number of parts.
    """
    n = len(mean)
    row = np.empty(n, np.float32)
    bits = row.view(np.uint32)
    for i in range(part * len(x) // parts, (part + 1) * len(x) // parts):
        given = x[i]
        for k in range(n):
            row[k] = given[k] - mean[k]
        _round(bits, halves[i], n)


@compiled
def write_sums(halves, back, out, part, parts):  # type: ignore[no-untyped-def]  # compiled
    """Write bfloat16 plus a constant as float32.

    Args:
        halves: (n, c) uint16.
        back: (c,) float32.
        out: (n, c) float32.
        part: number of this part of the work.
        parts: number of parts.
    """
    n = len(back)
    bits = np.empty(n, np.uint32)
    row = bits.view(np.float32)
    for i in range(part * len(out) // parts, (part + 1) * len(out) // parts):
        given, written = halves[i], out[i]
        for k in range(n):
            bits[k] = np.uint32(given[k]) << np.uint32(16)
        for k in range(n):
            written[k] = row[k] + back[k]


@compiled
def write_gated(halves, out, part, parts):  # type: ignore[no-untyped-def]  # compiled
    """Write ``a * gelu(b)``.

    Args:
        halves: (n, 2 c) uint16, a beside b.
        out: (n, c) uint16.
        part: number of this part of the work.
        parts: number of parts.
    """
    n = out.shape[1]
    bits_a, bits_b = np.empty(n, np.uint32), np.empty(n, np.uint32)
    a, b = bits_a.view(np.float32), bits_b.view(np.float32)
    for i in range(part * len(out) // parts, (part + 1) * len(out) // parts):
        left, right = halves[i, :n], halves[i, n:]
        for k in range(n):
            bits_a[k] = np.uint32(left[k]) << np.uint32(16)
            bits_b[k] = np.uint32(right[k]) << np.uint32(16)
        for k in range(n):
            size = b[k] if b[k] > 0 else -b[k]
            y = size if size < _MAX else _MAX
            power = _A6 * y + _A5
            power = ((((power * y + _A4) * y + _A3) * y + _A2) * y + _A1) * y + _ONE
            power *= power
            power *= power
            power *= power
            power *= power
            a[k] *= _HALF * (
                b[k] + size * (_ONE - _ONE / power)
            )  # |b| erf|b| = b erf b
        _round(bits_a, out[i], n)
