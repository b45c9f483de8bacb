"""Optics and detectors: how a coarser sensor samples the ground, one matrix an axis.

A sensor's point spread function is taken as separable, so that an image of one band is
``rows @ hr @ columns.T`` with two matrices of weights. That covers everything between
an ideal telescope and a file that was subsampled without any filter, at any ratio of
pixels, whole or not.

====================  =========================================================
kernel                meaning
====================  =========================================================
``gaussian``          Gaussian point spread function, detector included
``sensor``            Gaussian optics before a square detector of one LR pixel
``area``              mean over the LR pixel, as GDAL's ``average``
``bicubic``           Pillow's antialiased bicubic (a = -1/2)
``bilinear``          Pillow's antialiased bilinear
``lanczos``           Pillow's antialiased Lanczos, three lobes
``nearest``           one HR pixel, as Pillow's and GDAL's ``nearest``
``point``             linear interpolation at the centre, no antialias
``point_cubic``       cubic interpolation (a = -3/4) at the centre, no antialias
====================  =========================================================
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from rsupres.errors import InputError

Floats = NDArray[np.float64]
KernelKind = Literal[
    "gaussian",
    "sensor",
    "area",
    "bicubic",
    "bilinear",
    "lanczos",
    "nearest",
    "point",
    "point_cubic",
]
KINDS: tuple[KernelKind, ...] = get_args(KernelKind)
# Of the LR grid, cycles per pixel; 0.5 is Nyquist, higher frequencies alias.
FREQUENCIES = (0.25, 0.5, 0.75, 1.0)
_DETECTOR = 2.0 / math.pi  # MTF of a square detector at Nyquist
_MARGIN = 4  # of a sensor's pixels beyond the ends of a picture
_MIN_WEIGHT = 1e-12


@dataclass(frozen=True)
class Kernel:
    """A point spread function on the LR grid.

    Attributes:
        kind: see the table above.
        sigma: standard deviation of the Gaussian, LR pixels; 0 for the other kinds.
    """

    kind: KernelKind
    sigma: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(
                f"Kernel '{self.kind}' is unknown; known: {', '.join(KINDS)}."
            )
        if (self.kind in ("gaussian", "sensor")) != (self.sigma > 0):
            raise InputError(f"Kernel '{self.kind}' with sigma {self.sigma}.")


def gaussian_of(mtf: float) -> Kernel:
    """Return the Gaussian with this MTF at the Nyquist frequency of the LR grid."""
    return Kernel("gaussian", _sigma_of(mtf))


def sensor_of(mtf: float) -> Kernel:
    """Return optics and detector with this MTF at Nyquist; the detector has 0.64."""
    return Kernel("sensor", _sigma_of(min(mtf / _DETECTOR, 0.98)))


def sampling_matrix(n_lr: int, n_hr: int, kernel: Kernel, shift: float = 0.0) -> Floats:
    """Return the weights (n_lr, n_hr) of HR pixels in LR pixels; rows sum to 1.

    LR and HR pixels cover the same ground. Weights of HR pixels beyond the ends are
    shared by those inside.

    Args:
        n_lr: LR pixels.
        n_hr: HR pixels.
        kernel: the point spread function.
        shift: of all LR pixels, LR pixels.
    """
    return _sampled((np.arange(n_lr) + 0.5 + shift) * n_hr / n_lr, n_lr, n_hr, kernel)


def interpolated_matrix(
    n_lr: int, n_hr: int, kernel: Kernel, step: float, *, phase: float, cubic: bool
) -> Floats:
    """Return the weights of a sensor whose pixels were then warped onto the LR grid.

    Products on a map grid were often interpolated like that; it blurs some pixels much
    and others not at all.

    Args:
        n_lr: LR pixels.
        n_hr: HR pixels.
        kernel: of the sensor, on its own grid.
        step: LR pixels from one of the sensor's pixels to the next, about 1.
        phase: of the sensor's pixels, 0 to 1.
        cubic: interpolate by cubic convolution (a = -1/2), else linearly.
    """
    n = math.ceil(n_lr / step) + 2 * _MARGIN
    places = (np.arange(n) - _MARGIN + 0.5 + phase) * step  # LR pixels
    ratio = n_hr / n_lr
    seen = _sampled(places * ratio, n_lr / step, n_hr, kernel)
    distance = (np.arange(n_lr)[:, None] + 0.5 - places[None]) / step
    taps = _cubic(distance, -0.5) if cubic else np.clip(1 - np.abs(distance), 0, None)
    return np.asarray(taps / taps.sum(1, keepdims=True) @ seen)


def _sampled(
    centres: NDArray[np.floating], n_lr: float, n_hr: int, kernel: Kernel
) -> Floats:
    """Return weights (n, n_hr) of pixels at `centres` among the HR pixels."""
    ratio = n_hr / n_lr
    if kernel.kind == "nearest":
        hit = np.clip(np.floor(centres), 0, n_hr - 1)
        return np.asarray(np.arange(n_hr)[None] == hit[:, None], np.float64)
    distance = np.arange(n_hr)[None] + 0.5 - centres[:, None]
    weights = _weights(distance, ratio, kernel)
    # Pixels beyond the picture see its last one.
    nearest = np.abs(distance).argmin(1)
    weights[np.arange(len(weights)), nearest] += _MIN_WEIGHT
    return np.asarray(weights / weights.sum(1, keepdims=True))


def sample(image: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return (c, h, w) of an image (c, H, W) by two matrices of weights.

    Args:
        image: (c, H, W).
        rows: (h, H) weights.
        columns: (w, W) weights.
    """
    small: np.ndarray = rows.astype(image.dtype) @ image @ columns.T.astype(image.dtype)
    return small


def response(matrix: np.ndarray) -> Floats:
    """Return the transfer of the middle row of (n_lr, n_hr), at `FREQUENCIES`."""
    n_lr, n_hr = matrix.shape
    position = np.arange(n_hr) * n_lr / n_hr
    waves = np.exp(-2j * np.pi * np.outer(FREQUENCIES, position))
    return np.asarray(np.abs(waves @ matrix[n_lr // 2]))


def _sigma_of(mtf: float) -> float:
    """Return the deviation, LR pixels, of the Gaussian with this MTF at Nyquist."""
    if not 0 < mtf < 1:
        raise InputError(f"An MTF lies between 0 and 1, not at {mtf}.")
    return math.sqrt(2.0 * math.log(1.0 / mtf)) / math.pi


def _weights(distance: Floats, ratio: float, kernel: Kernel) -> Floats:
    """Return weights, not normalised, of HR pixels at distances in HR pixels."""
    x, deviation = distance / ratio, kernel.sigma * ratio
    if kernel.kind == "gaussian":
        return np.asarray(np.exp(-0.5 * np.square(distance / deviation)))
    if kernel.kind == "sensor":
        ends = [(distance + side * ratio / 2) / deviation for side in (1.0, -1.0)]
        return np.asarray(_normal_below(ends[0]) - _normal_below(ends[1]))
    if kernel.kind == "area":
        upper = np.minimum(distance + 0.5, ratio / 2)
        lower = np.maximum(distance - 0.5, -ratio / 2)
        return np.asarray(np.clip(upper - lower, 0.0, None))
    if kernel.kind == "lanczos":
        return np.asarray(np.where(np.abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0.0))
    if kernel.kind in ("bicubic", "point_cubic"):
        return _cubic(x, -0.5) if kernel.kind == "bicubic" else _cubic(distance, -0.75)
    reach = x if kernel.kind == "bilinear" else distance
    return np.asarray(np.clip(1.0 - np.abs(reach), 0.0, None))


def _cubic(x: Floats, a: float) -> Floats:
    """Return Keys' cubic convolution."""
    x = np.abs(x)
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * (x**3 - 5 * x**2 + 8 * x - 4)
    return np.asarray(np.where(x <= 1, near, np.where(x < 2, far, 0.0)))


def _normal_below(x: Floats) -> Floats:
    """Return the normal distribution function."""
    halves = np.vectorize(math.erf, otypes=[np.float64])(x / math.sqrt(2.0))
    return np.asarray(0.5 * (1.0 + halves))
