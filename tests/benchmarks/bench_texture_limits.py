"""How high can the PSNR of a picture with the ground's texture be?

``python tests/benchmarks/bench_texture_limits.py DATA [--model NAME]`` makes LR images
of the wide validation set (`wide_set`), four times coarser, and prints PSNR minus that
of bicubic, dB, mean over the images:

- of the model's picture, which shows less texture than the ground has;
- the most that a picture can have which shows a given share of the truth's power in
  every ring of the spectrum from 0.125 to 0.5 cycles per pixel, and knows no more of
  the truth: its coherence with the truth is that of the model's picture;
- of a draw from the distribution of all pictures that are as likely as the truth. Its
  error is that of their mean and as much again: 3.01 dB.

With truth T, picture P of power q T and coherence c, the power of P - T is at least
T (1 + q - 2 c sqrt(q)), which is smallest at q = c^2, the power of the best mean.
"""

from __future__ import annotations

import argparse
import itertools
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
import wide_set
from bench_texture import CPU, SCALE, load
from numpy.typing import NDArray

from rsupres.evaluation.resize import resize_bicubic
from rsupres.upscaling.array import upscale_whole

RINGS = (*np.linspace(0.0, 0.5, 17), 0.75)  # cycles per pixel; the last are the corners
FROM, TO = 0.125, 0.5  # where power is asked for
SHARES = (0.7, 1.0)


def main() -> None:
    """Print a row a degradation."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="optical-small")
    parser.add_argument("--degradation", action="append", choices=wide_set.KERNELS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    model = load(given.model)
    places = wide_set.load(given.data)
    shares = " | ".join(f"at {share:g} of the power" for share in SHARES)
    print(f"| LR made by | {given.model} | {shares} | a draw |")
    print("|---" * (len(SHARES) + 3) + "|")
    for degradation in given.degradation or ("bicubic", "MTF 0.2"):
        rows = []
        for number, place in enumerate(places):
            lr = wide_set.degrade(place.pixels, degradation, SCALE, number)
            unit = lr.astype(np.float32) / 255
            picture = upscale_whole(model, unit, Fraction(SCALE), CPU, seed=0)
            truth = place.pixels.astype(np.float64) / 255
            plain = resize_bicubic(lr, truth.shape[1:]).astype(np.float64) / 255
            rows.append(gains(picture.clip(0, 1), plain, truth))
        mean = np.mean(rows, axis=0)
        draw = mean[0] - 10 * np.log10(2)
        figures = " | ".join(f"{value:+.2f}" for value in (*mean, draw))
        print(f"| {degradation} | {figures} |", flush=True)


def gains(
    picture: NDArray[np.floating],
    plain: NDArray[np.floating],
    truth: NDArray[np.floating],
) -> list[float]:
    """Return dB over `plain` of a picture, and the most at each of `SHARES`.

    Args:
        picture: (c, H, W) in [0, 1].
        plain: the bicubic enlargement.
        truth: HR.
    """
    spectra = [_spectrum(image) for image in (picture, plain, truth)]
    radius = np.hypot(*np.meshgrid(*(np.fft.fftfreq(n) for n in truth.shape[1:])))
    base, error, least = 0.0, 0.0, np.zeros(len(SHARES))
    for low, high in itertools.pairwise(RINGS):
        ring = np.digitize(radius.T, (low, high)) == 1
        for p, b, t in zip(*(s[:, ring] for s in spectra), strict=True):
            power = _power(t)
            base += _power(b - t)
            error += _power(p - t)
            coherence = np.vdot(p, t).real / np.sqrt(power * _power(p) + 1e-12)
            best = max(float(coherence), 0.0)
            asked = FROM <= low < TO
            for k, share in enumerate(SHARES):
                q = max(share, best**2) if asked else best**2
                least[k] += power * (1 + q - 2 * best * np.sqrt(q))
    return [float(10 * np.log10(base / x)) for x in (error, *least)]


def _spectrum(image: NDArray[np.floating]) -> NDArray[np.complexfloating]:
    taper = np.hanning(image.shape[1])[:, None] * np.hanning(image.shape[2])
    return np.fft.fft2((image - image.mean((1, 2), keepdims=True)) * taper)


def _power(values: NDArray[np.complexfloating]) -> float:
    return float(np.square(np.abs(values)).sum())


if __name__ == "__main__":
    main()
