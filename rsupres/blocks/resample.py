"""Separable resampling at absolute positions.

`torch.nn.functional.interpolate` knows whole pictures only: cut a picture into tiles
and the sample positions of a fractional scale no longer fall where they fell. Here the
positions are given, so a tile reads what the whole picture would have read. The kernels
and the edge rule (coordinates clamped) are torch's own: cubic with a = -0.75, linear,
`align_corners=False`, no antialiasing.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

Kernel = Literal["cubic", "linear"]
_CUBIC_A = -0.75


class Taps(NamedTuple):
    """For each output sample along one axis: which inputs, with which weights."""

    source: Tensor  # (taps, n) int64
    weight: Tensor  # (taps, n) float32


def centre_positions(start: int, count: int, ratio: float, origin: float) -> np.ndarray:
    """Return (count,) float64: where centres of output pixels lie, 0 = the first input.

    Output pixel i covers ``[i * ratio, (i + 1) * ratio)`` in input pixels.

    Args:
        start: first output pixel, absolute.
        count: number of output pixels.
        ratio: input pixels per output pixel.
        origin: absolute position of the first input pixel given.
    """
    return (np.arange(start, start + count) + 0.5) * ratio - 0.5 - origin


def make_taps(
    positions: np.ndarray, length: int, kernel: Kernel, device: torch.device
) -> Taps:
    """Return the taps that read `positions` from an axis of `length` samples.

    Args:
        positions: (n,) places on the axis in input samples; 0 is the centre of the
            first.
        length: samples of the axis.
        kernel: of the interpolation.
        device: where the taps are used.
    """
    base = np.floor(positions).astype(np.int64)
    part = positions - base
    if kernel == "linear":
        offsets = np.array([0, 1])
        weights = np.stack([1.0 - part, part])
    else:
        offsets = np.array([-1, 0, 1, 2])
        weights = _cubic_weights(part)
    index = np.clip(base[None] + offsets[:, None], 0, length - 1)
    return Taps(
        torch.from_numpy(index).to(device),
        torch.from_numpy(weights.astype(np.float32)).to(device),
    )


def resample(x: Tensor, rows: Taps, cols: Taps) -> Tensor:
    """Resample (..., h, w), rows first; return (..., len(rows), len(cols)).

    Computes in float32, also under autocast; the result has the type of `x`.

    Args:
        x: (..., h, w).
        rows: taps that read the h rows.
        cols: taps that read the w columns.
    """
    source = x.float()
    tall = sum(
        source.index_select(-2, index) * weight[:, None]
        for index, weight in zip(rows.source, rows.weight, strict=True)
    )
    assert isinstance(tall, Tensor)
    wide = sum(
        tall.index_select(-1, index) * weight
        for index, weight in zip(cols.source, cols.weight, strict=True)
    )
    assert isinstance(wide, Tensor)
    return wide.to(x.dtype)


def _cubic_weights(part: np.ndarray) -> np.ndarray:
    """Return Keys' four cubic convolution weights (4, n) for a = -0.75."""
    a = _CUBIC_A
    distance = np.stack([part + 1.0, part, 1.0 - part, 2.0 - part])
    inner = ((a + 2.0) * distance - (a + 3.0)) * distance**2 + 1.0
    outer = ((distance - 5.0) * distance + 8.0) * distance * a - 4.0 * a
    weights: np.ndarray = np.where(distance <= 1.0, inner, outer)
    return weights
