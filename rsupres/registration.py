"""By how much one picture is displaced against another, to a hundredth of a pixel.

Plain numpy on band-first arrays that lie on one grid. Nothing is opened or moved here.
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
# Windows whose displacements agree to this many pixels speak of one displacement.
AGREEMENT = 1.0


class Shift(NamedTuple):
    """Where the content of the first picture lies relative to the second, in pixels.

    Positive is towards larger rows and columns.
    """

    row: float
    col: float


def find_shift(
    sr: np.ndarray, hr: np.ndarray, valid: np.ndarray | None = None
) -> Shift:
    """Find by how much one picture is displaced against another.

    Phase correlation (Kuglin and Hines 1975) of the band means under a Hann window, its
    peak refined to 1/100 pixel by a matrix Fourier transform around it
    (Guizar-Sicairos, Thurman, Fienup 2008). Frequencies with little power in common
    weigh little, so a blurred picture does not fill the sum with noise.

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
    window = np.outer(np.hanning(mask.shape[0] + 2), np.hanning(mask.shape[1] + 2))
    spectra = [_spectrum(image, mask, window[1:-1, 1:-1]) for image in (sr, hr)]
    cross = spectra[0] * np.conj(spectra[1])
    power = np.abs(cross)
    if not power.max() > 1e-12 * mask.size:
        return Shift(math.nan, math.nan)
    phase = cross / (power + 1e-3 * power.max())
    surface = np.fft.ifft2(phase).real
    peak = np.unravel_index(int(surface.argmax()), surface.shape)
    coarse = [
        float(p if p <= n // 2 else p - n)
        for p, n in zip(peak, surface.shape, strict=True)
    ]
    for step in (0.1, 1 / _SHIFT_STEPS):
        coarse = _refine(phase, coarse, step)
    return Shift(*coarse)


class CommonShift(NamedTuple):
    """A displacement that several windows agree on.

    Attributes:
        shift: median over the windows that agree, pixels; NaN when they do not.
        spread: median distance of those windows from it, pixels.
        n_agree: windows within `AGREEMENT` of it.
        n_windows: windows that could be measured.
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

    Each window is measured by `find_shift` after smoothing, because the finest waves of
    a picture made by averaging are aliases, which pull towards whole pixels. One window
    is believed when moving the picture by what was found makes the two more alike;
    several when more than half of them agree with their median.

    Args:
        windows: (picture, other picture, valid), as `find_shift` takes them.
    """
    found: list[Shift] = []
    for picture, other, valid in windows:
        smooth = (_smoothed(image, valid) for image in (picture, other))
        shift = find_shift(*smooth, valid)
        if math.isfinite(shift.row) and _is_better(picture, other, valid, shift):
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


def _smoothed(image: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Return (1, h, w): the mean of the bands, weighted 1 4 6 4 1 along both axes."""
    mask = valid.reshape(image.shape[1:])
    grey = image.mean(0, dtype=np.float64)
    grey = np.where(mask, grey, grey[mask].mean() if mask.any() else 0.0)
    for _ in range(2):
        padded = np.pad(grey, 1, mode="edge")
        rows = (padded[:-2] + 2 * padded[1:-1] + padded[2:]) / 4
        grey = (rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:]) / 4
    return np.asarray(grey[np.newaxis])


def _is_better(
    picture: np.ndarray, other: np.ndarray, valid: np.ndarray, shift: Shift
) -> bool:
    """Return whether moving a picture back by whole pixels makes it no less alike."""
    step = round(shift.row), round(shift.col)
    mask = valid.reshape(valid.shape[-2:])
    before = _likeness(picture.mean(0), other.mean(0), mask)
    if step == (0, 0):
        return before > 0
    moved = np.roll(picture.mean(0), (-step[0], -step[1]), (0, 1))
    inside = mask & np.roll(mask, (-step[0], -step[1]), (0, 1))
    for axis, n in enumerate(step):
        edge = [slice(None), slice(None)]
        edge[axis] = slice(-n, None) if n > 0 else slice(0, -n)
        if n:
            inside[tuple(edge)] = False
    return _likeness(moved, other.mean(0), inside) > max(before, 0.0)


def _likeness(one: np.ndarray, other: np.ndarray, mask: NDArray[np.bool_]) -> float:
    """Return the correlation of two planes over a mask; 0 where there is none."""
    if np.count_nonzero(mask) < 16:
        return 0.0
    a, b = (plane[mask] - plane[mask].mean(dtype=np.float64) for plane in (one, other))
    norm = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / norm if norm > 0 else 0.0


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
