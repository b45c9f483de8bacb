"""Loops around products in bfloat16 on a CPU, each one pass over its memory.

bfloat16 numbers are the upper halves of float32 ones, here as uint16. Rows of channels
are the unit of work; threads share them as `part` of `parts`.
"""

from __future__ import annotations

import numpy as np

from rsupres.blocks.compiling import compiled

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
_MOST = np.float32(10.0)  # beyond, the power overflows and erf is 1


@compiled
def _round(numbers, halves, n):  # type: ignore[no-untyped-def]  # compiled
    """Write float32, given as uint32, to the nearest bfloat16; ties to even."""
    for k in range(n):
        bits = numbers[k]
        odd = (bits >> np.uint32(16)) & np.uint32(1)
        halves[k] = np.uint16((bits + np.uint32(0x7FFF) + odd) >> np.uint32(16))


@compiled
def round_deviations(x, usual, halves, part, parts):  # type: ignore[no-untyped-def]  # compiled
    """Write ``x - usual`` as bfloat16.

    Args:
        x: (n, c) float32.
        usual: (c,).
        halves: (n, c) uint16.
        part: of the work.
        parts: in all.
    """
    n = len(usual)
    row = np.empty(n, np.float32)
    bits = row.view(np.uint32)
    for i in range(part * len(x) // parts, (part + 1) * len(x) // parts):
        given = x[i]
        for k in range(n):
            row[k] = given[k] - usual[k]
        _round(bits, halves[i], n)


@compiled
def give_back(halves, back, out, part, parts):  # type: ignore[no-untyped-def]  # compiled
    """Write bfloat16 plus a constant as float32.

    Args:
        halves: (n, c) uint16.
        back: (c,) float32.
        out: (n, c) float32.
        part: of the work.
        parts: in all.
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
def gate_by_gelu(halves, out, part, parts):  # type: ignore[no-untyped-def]  # compiled
    """Write ``a * gelu(b)``.

    Args:
        halves: (n, 2 c) uint16, a beside b.
        out: (n, c) uint16.
        part: of the work.
        parts: in all.
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
            y = size if size < _MOST else _MOST
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
