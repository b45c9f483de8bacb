"""Measure the displacement between two pictures, to a hundredth of a pixel.

Both are band-first arrays on one grid. This module opens no file and moves no pixel.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rsupres.errors import InputError

Floats = NDArray[np.float64]

_SHIFT_STEPS = 100  # parts of a pixel
# Windows whose displacements agree to this many pixels show the same displacement.
AGREEMENT = 1.0
# A peak counts when it is this many deviations above the rest of the correlation.
CLEAR_PEAK = 9.0
_PEAK_REACH = 3  # pixels around a peak that belong to it
_SOFT_EDGE = 4  # pixels beside invalid ones that weigh less


class Shift(NamedTuple):
    """Displacement of the first picture relative to the second, in pixels.

    Positive is towards larger rows and columns.
    """

    row: float
    col: float


def find_shift(
    sr: np.ndarray, hr: np.ndarray, valid: np.ndarray | None = None
) -> Shift:
    """Measure the displacement of one picture against another.

    Phase correlation (Kuglin and Hines 1975) of the band means under a Hann window, its
    peak refined to 1/100 pixel by a matrix Fourier transform around it
    (Guizar-Sicairos, Thurman, Fienup 2008). Frequencies with little power in common
    weigh little, as those of a blurred picture hold mostly noise.

    Args:
        sr: (c, H, W).
        hr: the same shape.
        valid: (H, W) or (1, H, W) bool; None = all. Invalid pixels become the mean.

    Returns:
        The displacement of `sr` against `hr`; NaN where either picture is flat.

    Raises:
        InputError: the shapes differ.
    """
    if sr.shape != hr.shape or sr.ndim != 3:
        raise InputError(f"Pictures of {sr.shape} and {hr.shape} cannot be compared.")
    mask = np.ones(sr.shape[1:], bool)
    if valid is not None:
        if valid.size != mask.size or valid.shape[-2:] != mask.shape:
            raise InputError(f"A mask of {valid.shape} does not fit {sr.shape}.")
        mask = valid.reshape(mask.shape).astype(bool)
    if not mask.any():
        return Shift(math.nan, math.nan)
    phase = _phase(sr, hr, mask)
    if phase is None:
        return Shift(math.nan, math.nan)
    return _peak(phase)[0]


class CommonShift(NamedTuple):
    """A displacement that several windows agree on.

    Attributes:
        shift: median over the windows that agree, pixels; NaN when they do not.
        spread: median distance of those windows from it, pixels.
        n_agree: windows within `AGREEMENT` of it.
        n_windows: windows with a clear displacement of their own.
    """

    shift: Shift
    spread: float
    n_agree: int
    n_windows: int

    @property
    def is_known(self) -> bool:
        """Whether more than half of the windows agree."""
        return math.isfinite(self.shift.row)


def find_common_shift(
    windows: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]],
) -> CommonShift:
    """Find one displacement from several windows of two pictures.

    Each window is measured as by `find_shift`, but the finest waves weigh little: in a
    picture made by averaging they are aliases, which pull towards whole pixels. Windows
    without a clear peak (unrelated pictures reach 7 deviations, the same ground under
    noise more than 12) do not count; the result is known when more than half of the
    others agree with their median.

    Args:
        windows: (picture, other picture, valid), as `find_shift` takes them.
    """
    found: list[Shift] = []
    for picture, other, valid in windows:
        mask = valid.reshape(picture.shape[1:])
        if not mask.any():
            continue
        phase = _phase(picture, other, mask, _inside(mask))
        if phase is not None:
            shift, strength = _peak(phase * _low_waves(mask.shape))
            if strength >= CLEAR_PEAK:
                found.append(shift)
    nowhere = CommonShift(Shift(math.nan, math.nan), math.nan, 0, len(found))
    if not found:
        return nowhere
    places = np.array(found)
    for _ in range(2):  # the median of those near the median of all
        distances = np.hypot(*(places - np.median(places, axis=0)).T)
        near = places[distances <= AGREEMENT]
        if 2 * len(near) <= len(found):
            return nowhere
        places = near
    middle = np.median(places, axis=0)
    spread = float(np.median(np.hypot(*(places - middle).T)))
    row, col = (round(float(value), 4) for value in middle)
    return CommonShift(Shift(row, col), spread, len(places), len(found))


def _inside(mask: NDArray[np.bool_]) -> Floats:
    """Return weights that fall to 0 over the last pixels before invalid ones."""
    weights = mask.astype(np.float64)
    if mask.all():
        return weights
    for _ in range(_SOFT_EDGE):
        padded = np.pad(weights, 1, mode="edge")
        rows = (padded[:-2] + 2 * padded[1:-1] + padded[2:]) / 4
        weights = (rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:]) / 4
    return np.asarray(np.clip(2 * weights - 1, 0, 1) * mask)


def _low_waves(shape: tuple[int, ...]) -> Floats:
    """Return cos^2 along both axes of a spectrum: 1 for the longest waves, 0 at 1/2."""
    rows, cols = (np.cos(np.pi * np.fft.fftfreq(n)) ** 2 for n in shape)
    return np.asarray(np.outer(rows, cols))


def _phase(
    sr: np.ndarray,
    hr: np.ndarray,
    mask: NDArray[np.bool_],
    weights: Floats | None = None,
) -> NDArray[np.complex128] | None:
    """Return the cross spectrum, nearly whitened; None where a picture is flat."""
    window = np.outer(np.hanning(mask.shape[0] + 2), np.hanning(mask.shape[1] + 2))
    window = window[1:-1, 1:-1] if weights is None else window[1:-1, 1:-1] * weights
    spectra = [_spectrum(image, mask, window) for image in (sr, hr)]
    cross = spectra[0] * np.conj(spectra[1])
    power = np.abs(cross)
    if not power.max() > 1e-12 * mask.size:
        return None
    return np.asarray(cross / (power + 1e-3 * power.max()))


def _peak(phase: NDArray[np.complex128]) -> tuple[Shift, float]:
    """Return where the correlation peaks, and by how many deviations of the rest."""
    surface = np.fft.ifft2(phase).real
    peak = np.unravel_index(int(surface.argmax()), surface.shape)
    coarse = [
        float(p if p <= n // 2 else p - n)
        for p, n in zip(peak, surface.shape, strict=True)
    ]
    for step in (0.1, 1 / _SHIFT_STEPS):
        coarse = _refine(phase, coarse, step)
    height = float(surface.max())
    rows, cols = (
        (place + np.arange(-_PEAK_REACH, _PEAK_REACH + 1)) % n
        for place, n in zip(peak, surface.shape, strict=True)
    )
    surface[np.ix_(rows, cols)] = 0
    rest = math.sqrt(float(np.mean(surface * surface)))
    return Shift(*coarse), height / rest if rest > 0 else math.inf


def _spectrum(
    image: np.ndarray, mask: NDArray[np.bool_], window: Floats
) -> NDArray[np.complex128]:
    grey = image.mean(0, dtype=np.float64)
    centred = np.where(mask, grey - grey[mask].mean(), 0.0)
    return np.asarray(np.fft.fft2(centred * window))


def _refine(
    phase: NDArray[np.complex128], around: Sequence[float], step: float
) -> list[float]:
    """Return the peak of the correlation on a grid of `step` around a place."""
    offsets = np.arange(-12, 13) * step
    rows, cols = (place + offsets for place in around)
    f_rows, f_cols = (np.fft.fftfreq(n) for n in phase.shape)
    left = np.exp(2j * np.pi * np.outer(rows, f_rows))
    right = np.exp(2j * np.pi * np.outer(f_cols, cols))
    surface = (left @ phase @ right).real
    row, col = np.unravel_index(int(surface.argmax()), surface.shape)
    return [round(float(rows[row]), 6), round(float(cols[col]), 6)]
