"""NIQE: how far the statistics of a picture are from those of sharp pictures.

Mittal, Soundararajan, Bovik 2013, "Making a Completely Blind Image Quality Analyzer".
No truth is needed. Luma is normalised by its local mean and deviation; generalised
Gaussians are fitted to it, and to the products of neighbours, in blocks of 96 pixels at
two scales; the figure is the distance of their means from those of a model of sharp
pictures. There are two models: that of the paper's photographs, which is read from a
file, and one of aerial images that ships with the package
(`models/recipes/fit_niqe.py` made it). Figures of the two do not compare.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.special import gamma

from rsupres.errors import CheckpointError
from rsupres.evaluation.measures.metrics import luma
from rsupres.evaluation.resize import resize_bicubic_float

Floats = NDArray[np.float64]

BLOCK = 96  # pixels along a side
N_FEATURES = 36
SHARP = 0.75  # of the sharpest block of a picture: sharper ones enter a model
_SHAPES = np.arange(0.2, 10.001, 0.001)
_RATIOS = gamma(2 / _SHAPES) ** 2 / (gamma(1 / _SHAPES) * gamma(3 / _SHAPES))
_SHIFTS = ((0, 1), (1, 0), (1, 1), (1, -1))
_TAPS = np.exp(-(np.arange(-3, 4) ** 2) / (2 * (7 / 6) ** 2))
_TAPS /= _TAPS.sum()


class Sharp(NamedTuple):
    """Mean (36,) and covariance (36, 36) of the features of sharp blocks."""

    mean: Floats
    covariance: Floats


def niqe(picture: np.ndarray, valid: np.ndarray, model: Sharp) -> float:
    """Return the distance of a picture from sharp ones; low is better.

    Args:
        picture: (3, H, W) in [0, 1].
        valid: (H, W) bool; blocks with a pixel that is not are left out.
        model: of sharp pictures.

    Returns:
        The distance; NaN with fewer than two blocks of 96 pixels.
    """
    features, _ = block_features(picture, valid)
    features = features[np.isfinite(features).all(axis=1)]
    if len(features) < 2:
        return math.nan
    away = features.mean(axis=0) - model.mean
    covariance = (np.cov(features, rowvar=False) + model.covariance) / 2
    return float(np.sqrt(max(0.0, away @ np.linalg.pinv(covariance) @ away)))


def fit(pictures: Iterable[np.ndarray]) -> Sharp:
    """Return the model of sharp pictures (3, H, W) in [0, 1]: their sharper blocks."""
    kept = []
    for picture in pictures:
        features, sharpness = block_features(picture, np.ones(picture.shape[1:], bool))
        good = np.isfinite(features).all(axis=1)
        kept.append(features[good & (sharpness > SHARP * sharpness.max(initial=0))])
    found = np.concatenate(kept)
    return Sharp(found.mean(axis=0), np.cov(found, rowvar=False))


def read_model(path: Path) -> Sharp:
    """Read the model of the paper's photographs, in the file that BasicSR has.

    Raises:
        CheckpointError: the file holds no such model.
    """
    try:
        with np.load(path) as stored:
            mean = np.asarray(stored["mu_pris_param"], np.float64).ravel()
            covariance = np.asarray(stored["cov_pris_param"], np.float64)
    except (OSError, KeyError, ValueError) as error:
        raise CheckpointError(f"{path}: holds no parameters of NIQE.") from error
    if mean.shape != (N_FEATURES,) or covariance.shape != (N_FEATURES, N_FEATURES):
        raise CheckpointError(f"{path}: holds parameters of other sizes than NIQE's.")
    return Sharp(mean, covariance)


def aerial_model() -> Sharp:
    """Return the model of aerial images that ships with the package."""
    place = files("rsupres.evaluation.measures") / "niqe_aerial.npz"
    with place.open("rb") as file, np.load(file) as stored:
        return Sharp(stored["mean"], stored["covariance"])


def block_features(picture: np.ndarray, valid: np.ndarray) -> tuple[Floats, Floats]:
    """Return features (n, 36) and sharpness (n,) of the blocks that are valid whole.

    Sharpness is the mean local deviation, of 255 levels.

    Args:
        picture: (c, H, W) in [0, 1].
        valid: (H, W) bool.
    """
    n_rows, n_cols = (n // BLOCK for n in picture.shape[1:])
    if min(n_rows, n_cols) == 0:
        return np.empty((0, N_FEATURES)), np.empty(0)
    height, width = n_rows * BLOCK, n_cols * BLOCK
    grey = np.round(luma(picture[:3, :height, :width])[0] * 255)
    half = resize_bicubic_float(grey[None] / 255, (height // 2, width // 2))[0] * 255.0
    whole = valid[:height, :width].reshape(n_rows, BLOCK, n_cols, BLOCK).all((1, 3))
    parts, sharpness = [], np.empty(0)
    for image, side in ((grey, BLOCK), (half.astype(np.float64), BLOCK // 2)):
        structure, deviation = _normalised(image)
        parts.append([_features(b) for b in _blocks(structure, side)[whole.ravel()]])
        if side == BLOCK:
            sharpness = _blocks(deviation, side).mean((1, 2))[whole.ravel()]
    return np.concatenate([np.reshape(p, (-1, 18)) for p in parts], axis=1), sharpness


def _normalised(image: Floats) -> tuple[Floats, Floats]:
    """Return (image - local mean) / (local deviation + 1), and the deviation."""
    mean, square = (
        ndimage.correlate1d(
            ndimage.correlate1d(x, _TAPS, 0, mode="nearest"), _TAPS, 1, mode="nearest"
        )
        for x in (image, image * image)
    )
    deviation = np.sqrt(np.abs(square - mean * mean))
    return (image - mean) / (deviation + 1), deviation


def _blocks(image: Floats, side: int) -> Floats:
    """Return (n, side, side), row by row."""
    n_rows, n_cols = (n // side for n in image.shape)
    cut = image.reshape(n_rows, side, n_cols, side).swapaxes(1, 2)
    return cut.reshape(-1, side, side)


def _features(block: Floats) -> list[float]:
    """Return 18 features of a block: two of it, four of each product of neighbours."""
    shape, left, right = _fit_shape(block)
    found = [shape, (left + right) / 2]
    for shift in _SHIFTS:
        shape, left, right = _fit_shape(block * np.roll(block, shift, axis=(0, 1)))
        mean = (right - left) * gamma(2 / shape) / gamma(1 / shape)
        found += [shape, mean, left, right]
    return found


def _fit_shape(values: Floats) -> tuple[float, float, float]:
    """Fit an asymmetric generalised Gaussian (Lasmar et al. 2009): shape and widths."""
    negative, positive = values[values < 0], values[values > 0]
    if not negative.size or not positive.size:
        return math.nan, math.nan, math.nan
    left, right = (math.sqrt((x * x).mean()) for x in (negative, positive))
    skew = left / right
    ratio = np.abs(values).mean() ** 2 / (values * values).mean()
    ratio *= (skew**3 + 1) * (skew + 1) / (skew**2 + 1) ** 2
    shape = float(_SHAPES[np.argmin((_RATIOS - ratio) ** 2)])
    width = math.sqrt(gamma(1 / shape) / gamma(3 / shape))
    return shape, left * width, right * width
