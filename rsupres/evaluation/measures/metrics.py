"""Figures that compare a super-resolved picture with the truth or with its input.

Functions of numpy arrays, band first, in [0, 1]; both arrays lie on one grid. Sums run
in float64. Pixels outside the valid mask do not count; where no pixel is left, the
figure is NaN, not an error. Nothing here opens a file, resamples or rounds: the caller
chooses the border that is left out and whether pictures are in 8 bits.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion

from rsupres.errors import InputError

Floats = NDArray[np.float64]

SSIM_RADIUS = 5  # pixels; the window is 11 x 11
SSIM_SIGMA = 1.5
_SSIM_K1, _SSIM_K2 = 0.01, 0.03
_LUMA = (65.481 / 255, 128.553 / 255, 24.966 / 255)
_LUMA_OFFSET = 16 / 255


class Consistency(NamedTuple):
    """Difference of two LR pictures as a share of the range: mean absolute and RMS."""

    mean_abs: float
    rms: float


def luma(rgb: np.ndarray) -> Floats:
    """Return Y (1, H, W) float64 of RGB (3, H, W) in [0, 1], on which papers report.

    ITU-R BT.601 with studio swing, (16 + 65.481 R + 128.553 G + 24.966 B) / 255, thus
    in [16 / 255, 235 / 255].

    Raises:
        InputError: not three bands.
    """
    if rgb.ndim != 3 or rgb.shape[0] != 3:
        raise InputError(f"Luma needs (3, H, W), not {rgb.shape}.")
    weights = np.array(_LUMA)[:, None, None]
    y: Floats = (rgb * weights).sum(0, keepdims=True, dtype=np.float64)
    return y + _LUMA_OFFSET


def psnr(sr: np.ndarray, hr: np.ndarray, valid: np.ndarray | None = None) -> float:
    """Return the peak signal-to-noise ratio in dB, one mean square over all bands.

    Args:
        sr: (c, H, W) in [0, 1].
        hr: the same shape and range.
        valid: (H, W) or (1, H, W) bool; None = all.

    Returns:
        10 log10(1 / MSE), dB; infinity for equal pictures, NaN without valid pixels.

    Raises:
        InputError: the shapes differ.
    """
    error = _difference(sr, hr)[:, checked_mask(sr, hr, valid)]
    if error.size == 0:
        return math.nan
    mse = float(np.mean(error * error))
    return math.inf if mse == 0 else -10 * math.log10(mse)


def ssim(sr: np.ndarray, hr: np.ndarray, valid: np.ndarray | None = None) -> float:
    """Return the mean structural similarity of the bands, NaN when no window fits.

    Wang, Bovik, Sheikh, Simoncelli 2004: Gaussian window of 11 x 11 with sigma 1.5,
    K1 = 0.01, K2 = 0.03, range 1, weighted population moments; only windows that lie
    inside the picture and hold no invalid pixel.

    Args:
        sr: (c, H, W) in [0, 1].
        hr: the same shape and range.
        valid: (H, W) or (1, H, W) bool; None = all.

    Raises:
        InputError: the shapes differ.
    """
    mask = checked_mask(sr, hr, valid)
    if min(mask.shape) <= 2 * SSIM_RADIUS:
        return math.nan
    whole = _window_is_valid(mask)
    if not whole.any():
        return math.nan
    bands = [
        float(_ssim_map(np.where(mask, a, 0.0), np.where(mask, b, 0.0))[whole].mean())
        for a, b in zip(sr, hr, strict=True)
    ]
    return float(np.mean(bands))


def sam_deg(sr: np.ndarray, hr: np.ndarray, valid: np.ndarray | None = None) -> float:
    """Return the mean spectral angle in degrees.

    Kruse et al. 1993, "The Spectral Image Processing System": the angle between the
    band vectors of a pixel, 0 for equal hues at any brightness. Pixels that are black
    in either picture have no angle and are left out.

    Args:
        sr: (c, H, W), at least two bands.
        hr: the same shape and unit.
        valid: (H, W) or (1, H, W) bool; None = all.

    Returns:
        Degrees in [0, 90] for non-negative values; NaN for one band or no usable pixel.

    Raises:
        InputError: the shapes differ.
    """
    mask = checked_mask(sr, hr, valid)
    if sr.shape[0] < 2:
        return math.nan
    a, b = sr[:, mask].astype(np.float64), hr[:, mask].astype(np.float64)
    norm_a, norm_b = np.linalg.norm(a, axis=0), np.linalg.norm(b, axis=0)
    usable = (norm_a > 0) & (norm_b > 0)
    if not usable.any():
        return math.nan
    a, b = a[:, usable] / norm_a[usable], b[:, usable] / norm_b[usable]
    # The half-angle form keeps its digits where acos of a value near 1 has none.
    half = np.arctan2(np.linalg.norm(a - b, axis=0), np.linalg.norm(a + b, axis=0))
    return float(np.degrees(2 * half).mean())


def ergas(
    sr: np.ndarray, hr: np.ndarray, scale: float, valid: np.ndarray | None = None
) -> float:
    """Return the relative dimensionless global error in synthesis.

    Wald 2000, "Quality of high resolution synthesised images": 100 / scale times the
    root of the mean over bands of (RMSE / mean of the true band) squared; the paper's
    h / l is the ratio of pixel sizes, 1 / scale.

    Args:
        sr: (c, H, W).
        hr: the same shape and unit.
        scale: LR GSD divided by SR GSD.
        valid: (H, W) or (1, H, W) bool; None = all.

    Returns:
        0 for equal pictures; NaN without valid pixels or where a true band's mean is 0.

    Raises:
        InputError: the shapes differ.
    """
    mask = checked_mask(sr, hr, valid)
    if not mask.any():
        return math.nan
    mse = np.square(_difference(sr, hr)[:, mask]).mean(1)
    mean = hr[:, mask].mean(1, dtype=np.float64)
    if (mean == 0).any():
        return math.nan
    return float(100 / scale * np.sqrt(np.mean(mse / mean**2)))


def consistency(
    shrunk: np.ndarray, lr: np.ndarray, valid: np.ndarray | None = None
) -> Consistency:
    """Return how far SR, brought to the LR grid, is from LR, in shares of the range.

    Args:
        shrunk: (c, h, w) in [0, 1]: the SR picture after the degradation.
        lr: the same shape and range.
        valid: (h, w) or (1, h, w) bool; None = all.

    Raises:
        InputError: the shapes differ.
    """
    error = _difference(shrunk, lr)[:, checked_mask(shrunk, lr, valid)]
    if error.size == 0:
        return Consistency(math.nan, math.nan)
    rms = float(np.sqrt(np.mean(error * error)))
    return Consistency(float(np.mean(np.abs(error))), rms)


def checked_mask(
    sr: np.ndarray, hr: np.ndarray, valid: np.ndarray | None
) -> NDArray[np.bool_]:
    """Return the valid mask as (H, W).

    Args:
        sr: (c, H, W).
        hr: the same shape.
        valid: (H, W) or (1, H, W) bool; None = all.

    Raises:
        InputError: the shapes differ.
    """
    if sr.shape != hr.shape or sr.ndim != 3:
        raise InputError(
            f"Two pictures of one shape (c, H, W) are compared, not {sr.shape} and "
            f"{hr.shape}."
        )
    if valid is None:
        return np.ones(sr.shape[1:], bool)
    if valid.shape not in (sr.shape[1:], (1, *sr.shape[1:])):
        raise InputError(f"A mask of {valid.shape} does not fit {sr.shape}.")
    return valid.reshape(sr.shape[1:]).astype(bool)


def _difference(sr: np.ndarray, hr: np.ndarray) -> Floats:
    if sr.shape != hr.shape:
        raise InputError(f"The pictures differ in shape: {sr.shape} and {hr.shape}.")
    return sr.astype(np.float64) - hr.astype(np.float64)


def _ssim_map(a: np.ndarray, b: np.ndarray) -> Floats:
    """Return SSIM per window of two bands (H, W); (H - 10, W - 10)."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    mean_a, mean_b = _smooth(a), _smooth(b)
    var_a = _smooth(a * a) - mean_a**2
    var_b = _smooth(b * b) - mean_b**2
    covariance = _smooth(a * b) - mean_a * mean_b
    c1, c2 = _SSIM_K1**2, _SSIM_K2**2
    top = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    return np.asarray(top / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)))


def _smooth(image: Floats) -> Floats:
    """Average (H, W) under the SSIM window; (H - 10, W - 10)."""
    x = np.arange(-SSIM_RADIUS, SSIM_RADIUS + 1)
    kernel = np.exp(-(x**2) / (2 * SSIM_SIGMA**2))
    kernel /= kernel.sum()
    height, width = (n - 2 * SSIM_RADIUS for n in image.shape)
    rows = sum(k * image[i : i + height] for i, k in enumerate(kernel))
    return np.asarray(sum(k * rows[:, i : i + width] for i, k in enumerate(kernel)))


def _window_is_valid(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return whether the SSIM window around a pixel is all valid; (H - 10, W - 10)."""
    side, inner = 2 * SSIM_RADIUS + 1, slice(SSIM_RADIUS, -SSIM_RADIUS)
    return np.asarray(binary_erosion(mask, np.ones((side, side), bool))[inner, inner])
