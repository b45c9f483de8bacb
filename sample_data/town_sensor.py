"""See a town with a Sentinel-2-like sensor, and as digital numbers of an aerial camera.

The satellite's blur is a Gaussian for each band, followed by the mean over the pixel;
together they leave the stated contrast at the Nyquist frequency. Noise grows with the
signal, and numbers are rounded to 12 bits before they become reflectance x 10000.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from town_canvas import Floats, blurred, shrunk

GSD_M = 10.0
# Contrast left at Nyquist (20 m period), of the order that ESA reports for these bands.
MTF_AT_NYQUIST = {"B04": 0.25, "B03": 0.27, "B02": 0.29, "B08": 0.23}
# What the mean over a square pixel leaves there: sin(pi / 2) / (pi / 2).
PIXEL_MTF = 2 / math.pi
FULL_SCALE = 1.6
READ_NOISE_DN = 4.0
SHOT_NOISE_DN = 0.2


def sentinel2(reflectance: Floats, gsd_m: float, seed: int) -> NDArray[np.uint16]:
    """Return the 10 m scene that a Sentinel-2-like sensor makes of a place.

    Args:
        reflectance: (4, H, W), bands B04, B03, B02, B08.
        gsd_m: metres per pixel of it; 10 must be a multiple.
        seed: of the noise.

    Returns:
        (4, h, w) reflectance x 10000, 1 or more: 0 is left for nodata.

    Raises:
        ValueError: when 10 m is no whole number of pixels.
    """
    factor = GSD_M / gsd_m
    if factor != int(factor):
        raise ValueError(f"10 m is no multiple of gsd_m {gsd_m:g}")
    # Half of the averaging before the blur: the same result, fewer pixels to blur.
    first = 2 if int(factor) % 2 == 0 and factor >= 8 else 1
    fine = shrunk(reflectance, first)
    sharp = [
        blurred(band, _sigma_m(mtf) / (gsd_m * first))
        for band, mtf in zip(fine, MTF_AT_NYQUIST.values(), strict=True)
    ]
    clean = shrunk(np.stack(sharp), int(factor) // first) * np.float32(10000)
    noise = _gaussian(clean.shape, seed)
    noise *= np.sqrt(READ_NOISE_DN**2 + SHOT_NOISE_DN**2 * clean)
    step = 10000 * FULL_SCALE / 4096
    counts = np.rint((clean + noise) / step)
    numbers: NDArray[np.uint16] = np.maximum(np.rint(counts * step), 1).astype("uint16")
    return numbers


def _sigma_m(mtf: float) -> float:
    """Return the Gaussian that leaves `mtf` at Nyquist together with the pixel."""
    return GSD_M / math.pi * math.sqrt(-2 * math.log(mtf / PIXEL_MTF))


def _gaussian(shape: tuple[int, ...], seed: int) -> Floats:
    """Return nearly normal noise: twelve uniform numbers, exact on every machine."""
    rng = np.random.default_rng([seed, 12])
    total = np.full(shape, -6, np.float32)
    for _ in range(12):
        total += rng.random(shape, dtype=np.float32)
    return total


def aerial_numbers(reflectance: Floats, step_dn: int) -> NDArray[np.uint16]:
    """Return reflectance x 10000 rounded to multiples of `step_dn`, never 0."""
    steps = np.rint(reflectance * np.float32(10000 / step_dn))
    numbers: NDArray[np.uint16] = (np.maximum(steps, 1) * step_dn).astype("uint16")
    return numbers


def display_tones(reflectance: Floats, white: float, haze: float) -> NDArray[np.uint8]:
    """Return an 8-bit photograph of bands: square-root tone curve, a veil of haze."""
    seen = np.clip(
        reflectance * np.float32(1 - haze) + np.float32(haze * white), 0, white
    )
    tones: NDArray[np.uint8] = np.rint(255 * np.sqrt(seen / white)).astype("uint8")
    return tones
