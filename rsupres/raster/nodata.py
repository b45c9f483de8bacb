"""Decide which pixels are measured, and fill the others from their surroundings.

A pixel is valid when every band read is measured (`is_measured`: not the declared
nodata value, not NaN, not infinite), the file's alpha or mask band shows it, and the
area of interest holds its centre; `Raster.read` combines the three. The model sees
invalid pixels filled (`fill_invalid`); the output marks them as invalid again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
BoolArray = NDArray[np.bool_]

FILL_REACH = 32  # LR pixels


def is_measured(plane: NDArray[np.generic], nodata: float | None) -> BoolArray:
    """Return which pixels hold a measurement: finite, and not the nodata value.

    Args:
        plane: (h, w) of one band, in the file's type.
        nodata: value that the file declares for the band, None for none.

    Returns:
        (h, w) bool.
    """
    measured = (
        np.isfinite(plane) if plane.dtype.kind == "f" else np.ones(plane.shape, bool)
    )
    if nodata is None or math.isnan(nodata):
        return np.asarray(measured)
    if plane.dtype.kind == "f":
        with np.errstate(over="ignore"):  # a float64 limit may be infinite in float32
            measured &= plane != plane.dtype.type(nodata)
    elif nodata.is_integer():
        measured &= plane != int(nodata)
    return np.asarray(measured)


def fill_invalid(
    lr: FloatArray, valid: BoolArray, background: Sequence[float] | None = None
) -> FloatArray:
    """Continue valid pixels into invalid ones, ring by ring.

    Each ring takes the mean of its valid or already filled neighbours (3 x 3). A
    filled value depends on pixels within `FILL_REACH` of it and on nothing else; over
    the second half of that reach it fades into the background, which is the value of
    everything farther away.

    Args:
        lr: (c, h, w) float32; invalid pixels may be NaN.
        valid: (1, h, w) bool.
        background: one value per channel; None = 0.

    Returns:
        (c, h, w) float32, finite; valid pixels unchanged.
    """
    if valid.all():
        return lr
    far = np.zeros(lr.shape[0]) if background is None else np.asarray(background)
    far = far.astype(np.float32).reshape(-1, 1, 1)
    known = np.pad(valid[0], 1)
    filled = np.pad(np.where(valid, lr, np.float32(0)), ((0, 0), (1, 1), (1, 1)))
    inner = (slice(1, -1), slice(1, -1))
    faded = np.where(valid, lr, far)
    for ring in range(1, FILL_REACH + 1):
        counts = _sum3(known.astype(np.float32))
        fresh = (counts > 0) & ~known[inner]
        rows, cols = np.nonzero(fresh)
        if not rows.size:
            break
        sums = _sum3_at(filled, rows, cols)
        means = sums / counts[rows, cols]
        weight = np.float32(_fade(ring))
        faded[:, rows, cols] = weight * means + (1 - weight) * far[:, :, 0]
        filled[:, rows + 1, cols + 1] = means
        known[rows + 1, cols + 1] = True
    return faded


def _fade(ring: int) -> float:
    """Return 1 up to half the reach, then a raised cosine to 0 just beyond it."""
    half = FILL_REACH // 2
    over = max(0, ring - half) / (FILL_REACH + 1 - half)
    return 0.5 + 0.5 * math.cos(math.pi * over)


def _sum3(padded: FloatArray) -> FloatArray:
    """Return the sums over 3 x 3 of a plane padded by one pixel."""
    rows = padded[:-2] + padded[1:-1] + padded[2:]
    return np.asarray(rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:])


def _sum3_at(
    padded: FloatArray, rows: NDArray[np.intp], cols: NDArray[np.intp]
) -> FloatArray:
    """Return the sums (c, n) over 3 x 3 around n pixels, in one fixed order."""
    total = np.zeros((padded.shape[0], rows.size), np.float32)
    for down in range(3):
        for right in range(3):
            total += padded[:, rows + down, cols + right]
    return total
