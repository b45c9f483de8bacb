"""Describe a picture's sharpness, noise and JPEG traces by some fifty numbers.

A picture's power spectrum falls off with its blur, flattens out at its noise, and stays
high at its end where nothing kept it from aliasing; JPEG leaves steps at every eighth
pixel. numpy alone finds that, so that plans need no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy import fft

Floats = NDArray[np.float32]
BLOCK = 32  # pixels of the blocks whose spectra are taken
_STEP = 16
_RINGS = 12  # of the spectrum, from 0 to the corner
_AXIS_BINS = 4  # along each axis
_QUIET = 0.25  # share of the blocks with the least contrast
_GRID = 8  # pixels of a JPEG block
_TINY = 1e-9
N_FEATURES = 3 * _RINGS + 2 * _AXIS_BINS + 4


def describe(windows: Sequence[NDArray[np.floating]]) -> Floats:
    """Return the features (`N_FEATURES`,) of windows (3, h, w), sides 32 or more.

    Values are in levels near [0, 1]. JPEG's grid is looked for at multiples of 8 pixels
    from each window's corner.
    """
    pictures = [np.asarray(window, np.float32) for window in windows]
    power, colour = _spectra(pictures)
    order = power.sum((1, 2)).argsort()
    quiet = power[order[: max(1, int(len(order) * _QUIET))]].mean(0)
    rings, axes = _bins()
    whole = power.mean(0)
    spectra = [_log_means(part, rings) for part in (whole, quiet, colour)]
    steps = _steps([picture.mean(0) for picture in pictures])
    parts = [*spectra, _log_means(whole, axes), steps]
    return np.concatenate(parts).astype(np.float32)


def _spectra(pictures: Sequence[Floats]) -> tuple[Floats, Floats]:
    """Return power spectra (n, 32, 17) of grey blocks, and the mean of differences."""
    greys, differences = [], []
    for picture in pictures:
        views = sliding_window_view(picture, (BLOCK, BLOCK), axis=(1, 2))
        blocks = views[:, ::_STEP, ::_STEP].reshape(len(picture), -1, BLOCK, BLOCK)
        grey = blocks.mean(0)
        greys.append(grey)
        differences.append((blocks - grey).reshape(-1, BLOCK, BLOCK))
    power = _power(np.concatenate(greys))
    mean: Floats = _power(np.concatenate(differences)).mean(0)
    return power, mean


def _power(blocks: Floats) -> Floats:
    """Return the power spectra (n, 32, 17) of (n, 32, 32), without their means."""
    taper = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(BLOCK) / (BLOCK - 1))
    window = np.outer(taper, taper).astype(np.float32)
    centred = blocks - blocks.mean((1, 2), keepdims=True)
    spectrum = fft.rfft2(centred * window)
    power: Floats = np.square(np.abs(spectrum)) / np.float32((taper @ taper) ** 2)
    return power


def _log_means(power: Floats, bins: Floats) -> Floats:
    """Return the log of the mean power in each bin; `bins` is (n, 32, 17)."""
    sums = (power * bins).sum((1, 2)) / bins.sum((1, 2))
    return np.asarray(np.log10(sums + _TINY))


@cache
def _bins() -> tuple[Floats, Floats]:
    """Return the masks of rings, and of stretches along the axes."""
    y, x = np.abs(fft.fftfreq(BLOCK))[:, None], fft.rfftfreq(BLOCK)[None]
    ring = (np.hypot(y, x) / 0.7072 * _RINGS).astype(int)
    rings = np.stack([ring == k for k in range(_RINGS)])
    axes = []
    for along, across in ((y, x), (x, y)):
        place = (along / 0.5001 * _AXIS_BINS).astype(int) + 0 * across
        near = (across < 0.1) & (along >= 0)
        axes += [(place == k) & near for k in range(_AXIS_BINS)]
    return rings.astype(np.float32), np.stack(axes).astype(np.float32)


def _steps(greys: Sequence[Floats]) -> Floats:
    """Return how steps at every eighth pixel exceed others, (4,), as logarithms.

    For each axis: at JPEG's own grid, and at the strongest of the eight.
    """
    found = []
    for axis in (0, 1):
        sums, counts = np.zeros(_GRID), np.zeros(_GRID)
        for grey in greys:
            steps = np.abs(np.diff(grey, 3, axis=axis)).mean(1 - axis)
            place = (np.arange(len(steps)) + 2) % _GRID  # of the right pixel
            sums += np.bincount(place, steps, _GRID)
            counts += np.bincount(place, minlength=_GRID)
        means = sums / np.maximum(counts, 1)
        share = np.log10(means / max(means.mean(), _TINY) + _TINY)
        found += [share[0], share.max()]
    return np.array(found, np.float32)
