"""Bring coarse bands to the grid of fine ones: guided by those, or by interpolation.

`rsupres.families.sharpening` does the same for Sentinel-2 by a network; this module is
used where a band that the network needs is missing.

The method is a local regression, as in the guided filter (He et al. 2013): around each
coarse pixel, a linear combination of the fine bands, averaged to coarse pixels,
explains the coarse band. Its weights, applied to the detail of the fine bands, give the
detail that is added to the interpolated band. Weights are shrunk, so that noise and
small displacements of the fine bands do not become detail. At the end, the means over
the coarse pixels are restored to the measured values.

Every result depends on coarse pixels within `REACH` of it and on nothing else, so that
a scene may be cut anywhere.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]

REACH = 16  # coarse pixels
_SIGMA = 2.0  # of the regression's weights, coarse pixels
_RADIUS = 6  # where they end
_SHRINKAGE = 0.3  # of the mean variance of the fine bands, added to each
_GAIN = 0.8  # share of the detail found that is added
_ROUNDS = 3  # of correcting the means
_CUBIC = -0.5  # parameter of Keys's kernel


def sharpen(coarse: FloatArray, fine: FloatArray, factor: int) -> FloatArray:
    """Return coarse bands (c, H, W) on the grid of fine ones, with the detail of these.

    Args:
        coarse: (c, h, w), finite.
        fine: (g, h * factor, w * factor), finite; in the same units or others.
        factor: fine pixels along a coarse one.
    """
    reduced = area_mean(fine, factor)
    detail = fine - enlarge(reduced, factor)
    weights = _weights(coarse, reduced)
    sharp = enlarge(coarse, factor)
    for band, own in zip(sharp, weights, strict=True):
        band += np.float32(_GAIN) * (enlarge(own, factor) * detail).sum(axis=0)
    for _ in range(_ROUNDS):
        sharp += enlarge(coarse - area_mean(sharp, factor), factor)
    return sharp


def enlarge(coarse: FloatArray, factor: int) -> FloatArray:
    """Return (c, h, w) with pixels `factor` times smaller, by bicubic interpolation.

    Args:
        coarse: (c, h, w).
        factor: fine pixels along a coarse one.
    """
    from scipy import ndimage

    for axis in (1, 2):
        shape = list(coarse.shape)
        shape[axis] *= factor
        finer = np.empty(shape, np.float32)
        for phase in range(factor):
            place = (phase + 0.5) / factor - 0.5
            taps = _cubic(place - np.arange(-2, 3)).astype(np.float32)
            at = [slice(None)] * 3
            at[axis] = slice(phase, None, factor)
            finer[tuple(at)] = ndimage.correlate1d(
                coarse, taps, axis=axis, mode="nearest"
            )
        coarse = finer
    return coarse


def area_mean(fine: FloatArray, factor: int) -> FloatArray:
    """Return the means (c, h, w) over `factor` x `factor` pixels.

    Args:
        fine: (c, h factor, w factor).
        factor: fine pixels along a coarse one.
    """
    count, height, width = fine.shape
    blocks = fine.reshape(count, height // factor, factor, width // factor, factor)
    return np.asarray(blocks.mean(axis=(2, 4), dtype=np.float32))


def _weights(coarse: FloatArray, reduced: FloatArray) -> FloatArray:
    """Return the weight (c, g, h, w) of each fine band in each coarse one."""
    count, *shape = reduced.shape
    means = _smooth(reduced)
    spread = np.empty((*shape, count, count), np.float32)
    for i in range(count):
        for j in range(i, count):
            both = _smooth(reduced[i] * reduced[j]) - means[i] * means[j]
            spread[..., i, j] = spread[..., j, i] = both
    variance = np.trace(spread, axis1=-2, axis2=-1) / count
    # Where the fine bands are flat, no detail is found; the limit avoids 0 / 0.
    ridge = np.maximum(np.float32(_SHRINKAGE) * variance, np.float32(1e-12))
    spread += ridge[..., np.newaxis, np.newaxis] * np.eye(count, dtype=np.float32)
    own = _smooth(coarse)
    shared = np.empty((*shape, count, len(coarse)), np.float32)
    for i in range(count):
        shared[..., i, :] = np.moveaxis(
            _smooth(reduced[i] * coarse) - means[i] * own, 0, -1
        )
    weights = np.linalg.solve(spread, shared)
    return np.ascontiguousarray(weights.transpose(3, 2, 0, 1))


def _smooth(planes: FloatArray) -> FloatArray:
    """Return Gaussian means of (..., h, w), each from the same taps at any place."""
    from scipy import ndimage

    steps = np.arange(-_RADIUS, _RADIUS + 1)
    taps = np.exp(-0.5 * (steps / _SIGMA) ** 2)
    taps = (taps / taps.sum()).astype(np.float32)
    rows = ndimage.correlate1d(planes, taps, axis=-2, mode="nearest")
    return np.asarray(ndimage.correlate1d(rows, taps, axis=-1, mode="nearest"))


def _cubic(t: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the cubic convolution kernel of Keys (1981)."""
    t = np.abs(t)
    near = (_CUBIC + 2) * t**3 - (_CUBIC + 3) * t**2 + 1
    far = _CUBIC * (t**3 - 5 * t**2 + 8 * t - 4)
    return np.where(t < 1, near, np.where(t < 2, far, 0.0)).astype(np.float64)
