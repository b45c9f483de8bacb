"""The measures of opensr-test: consistency, synthesis and correctness of a result.

Aybar et al. 2024, "A Comprehensive Benchmark for Optical Remote Sensing Image
Super-Resolution". Consistency with the input is its spectral angle and its shift (that
of reflectance is our `consistency`); synthesis is how far the result is from the
enlarged input. Correctness asks of each pixel whether the result moved towards the
truth (improvement), stayed with the input (omission), or left both (hallucination).

Three things differ from the package of the paper (1.3.3), whose scores agree: the
result is not harmonised with the truth first, the input is enlarged bilinearly without
antialiasing, and all pixels count in which input and truth differ, instead of the
quarter where they differ most. Distances are normalised differences, pixel by pixel.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rsupres.evaluation.measures.metrics import sam_deg
from rsupres.raster.place.registration import find_shift

Doubles = NDArray[np.float64]
Mask = NDArray[np.bool_]

GAMMA, GAMMA_HALLUCINATION = 0.8, 0.4  # as the package has them
MIN_REFERENCE = 0.01  # distance of input and truth below which there is nothing to add


class Correctness(NamedTuple):
    """Shares of the pixels in which input and truth differ; they sum up to 1."""

    improvement: float
    omission: float
    hallucination: float


def correctness(
    sr: np.ndarray, hr: np.ndarray, enlarged: np.ndarray, valid: Mask
) -> Correctness:
    """Return shares of pixels improved, omitted, hallucinated; NaN where none differs.

    Args:
        sr: (c, H, W) in [0, 1].
        hr: the same shape and range.
        enlarged: the input, enlarged to that shape.
        valid: (H, W) bool.
    """
    reference = normalised_difference(enlarged, hr)
    counted = valid & (reference > MIN_REFERENCE)
    if not counted.any():
        return Correctness(math.nan, math.nan, math.nan)
    d_im = normalised_difference(sr, hr)[counted] / reference[counted]
    d_om = normalised_difference(sr, enlarged)[counted] / reference[counted]
    nearest = np.argmin(scores(d_im, d_om), axis=0)
    shares = np.bincount(nearest, minlength=3) / nearest.size
    return Correctness(*(float(share) for share in shares))


def scores(d_im: Doubles, d_om: Doubles) -> Doubles:
    """Return scores of improvement, omission and hallucination; the lowest one holds.

    Args:
        d_im: distance of result and truth, over that of input and truth.
        d_om: distance of result and input, over the same.

    Returns:
        (3, ...): with H = d_im + d_om - 1, which the triangle keeps from being
        negative, d_im + d_om (1 - exp(-gamma H)), d_om + d_im (1 - exp(-gamma H)), and
        exp(-gamma' d_im d_om) with another gamma'.
    """
    excess = np.maximum(d_im + d_om - 1, 0)
    rest = 1 - np.exp(-GAMMA * excess)
    hallucination = np.exp(-GAMMA_HALLUCINATION * d_im * d_om)
    return np.stack([d_im + d_om * rest, d_om + d_im * rest, hallucination])


def normalised_difference(one: np.ndarray, other: np.ndarray) -> Doubles:
    """Return (H, W): |a - b| / (a + b), the mean of the bands; 0 where both are 0.

    Args:
        one: (c, H, W), at least 0.
        other: the same shape.
    """
    a, b = np.maximum(one, 0).astype(np.float64), np.maximum(other, 0)
    total = a + b
    ratio = np.abs(a - b) / np.where(total > 0, total, 1)
    return np.asarray(ratio.mean(axis=0))


def synthesis(sr: np.ndarray, enlarged: np.ndarray, valid: Mask) -> float:
    """Return the mean absolute difference of the result from the enlarged input.

    Args:
        sr: (c, H, W).
        enlarged: the LR input on the same pixels.
        valid: (H, W), pixels that count.
    """
    if not valid.any():
        return math.nan
    return float(np.abs(sr[:, valid] - enlarged[:, valid]).mean(dtype=np.float64))


def consistency_figures(
    shrunk: np.ndarray, lr: np.ndarray, valid: Mask
) -> dict[str, float]:
    """Return the angle and the shift between the reduced result and the input.

    Args:
        shrunk: (c, h, w), the result brought back to LR pixels.
        lr: the same shape.
        valid: (h, w) bool.
    """
    shift = find_shift(shrunk, lr, valid)
    return {
        "lr_sam": sam_deg(shrunk, lr, valid),
        "lr_shift": math.hypot(shift.row, shift.col),
    }
