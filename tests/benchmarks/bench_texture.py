"""Does drawn texture look like the ground's? Spectrum, lattice, LPIPS, seeds.

``python tests/benchmarks/bench_texture.py DATA --model NAME[:DETAIL] ...`` makes LR
images of the wide validation set (`wide_set`), four times coarser, and prints for each
model, mean over the images:

- PSNR minus that of bicubic, dB;
- with ``--lpips FOLDER``, LPIPS (squeeze) as a share of bicubic's;
- power over the truth's in rings of the spectrum and in its corner, where a
  checkerboard would be; the geometric mean over the images;
- lattice: how far the mean of the high-pass depends on the position in the LR pixel,
  as a share of its deviation;
- seeds: root mean square difference of two draws over that of the error.
"""

from __future__ import annotations

import argparse
import itertools
import logging
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
import wide_set
from scipy import ndimage

from rsupres.checkpoints.catalogue import load_model
from rsupres.evaluation.measures.metrics import psnr
from rsupres.evaluation.perceptual.lpips import LpipsSqueeze
from rsupres.evaluation.resize import resize_bicubic
from rsupres.families.base import SamplerOptions, SuperResolver
from rsupres.upscaling.array import upscale_whole

CPU = torch.device("cpu")
SCALE = 4
RINGS = (0.125, 0.1875, 0.25, 0.3125, 0.375, 0.4375, 0.5)  # cycles per SR pixel
CORNER = 0.4  # both frequencies above it


def main() -> None:
    """Print a row a model and degradation."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", action="append", default=[])
    parser.add_argument("--degradation", action="append", choices=wide_set.KERNELS)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--lpips", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    places = wide_set.load(given.data)[:: given.every]
    lpips = LpipsSqueeze.load(given.lpips).eval() if given.lpips else None
    rings = " | ".join(f"to {ring:g}" for ring in RINGS[1:])
    print(f"| LR made by | model | dB | LPIPS | {rings} | corner | lattice | seeds |")
    print("|---" * (len(RINGS) + 6) + "|")
    for degradation in given.degradation or ("bicubic", "MTF 0.2"):
        pairs = [
            (wide_set.degrade(place.pixels, degradation, SCALE, k), place.pixels)
            for k, place in enumerate(places)
        ]
        for name in given.model:
            model = load(name)
            rows = [figures(model, lr, hr, lpips) for lr, hr in pairs]
            show(degradation, name, np.array(rows))


def load(name: str) -> SuperResolver:
    """Return a model, ``NAME`` or ``NAME:DETAIL``."""
    name, _, detail = name.partition(":")
    return load_model(name, CPU, SamplerOptions(detail=float(detail or 0)))


def figures(
    model: SuperResolver, lr: np.ndarray, hr: np.ndarray, lpips: LpipsSqueeze | None
) -> list[float]:
    """Return dB, LPIPS share, logarithms of power, lattice and seeds of one image."""
    unit = lr.astype(np.float32) / 255
    draws = [
        upscale_whole(model, unit, Fraction(SCALE), CPU, seed=seed).clip(0, 1)
        for seed in (0, 1)
    ]
    plain = resize_bicubic(lr, (hr.shape[1], hr.shape[2])).astype(np.float64) / 255
    truth = hr.astype(np.float64) / 255
    inner = np.s_[:, SCALE:-SCALE, SCALE:-SCALE]
    sr = draws[0].astype(np.float64)
    found = [psnr(sr[inner], truth[inner]) - psnr(plain[inner], truth[inner])]
    found.append(share_of_lpips(sr, plain, truth, lpips))
    found += list(np.log(spectrum(sr) / spectrum(truth)))
    found.append(lattice(sr))
    error = np.sqrt(np.mean(np.square(sr - truth)))
    found.append(float(np.sqrt(np.mean(np.square(draws[0] - draws[1]))) / error))
    return found


def share_of_lpips(
    sr: np.ndarray, plain: np.ndarray, truth: np.ndarray, lpips: LpipsSqueeze | None
) -> float:
    """Return LPIPS of SR over that of bicubic; NaN without weights."""
    if lpips is None:
        return float("nan")
    images = [torch.from_numpy(x).float()[None] * 2 - 1 for x in (sr, plain, truth)]
    with torch.inference_mode():
        ours, base = (float(lpips(x, images[2]).mean()) for x in images[:2])
    return ours / base


def spectrum(image: np.ndarray) -> np.ndarray:
    """Return the mean power in each ring, and in the corner."""
    grey = image.mean(0)
    taper = np.hanning(grey.shape[0])[:, None] * np.hanning(grey.shape[1])
    power = np.abs(np.fft.fft2((grey - grey.mean()) * taper)) ** 2
    rows, cols = (np.abs(np.fft.fftfreq(n)) for n in grey.shape)
    radius = np.hypot(rows[:, None], cols)
    rings = [
        power[(radius >= low) & (radius < high)].mean()
        for low, high in itertools.pairwise(RINGS)
    ]
    corner = power[(rows[:, None] > CORNER) & (cols > CORNER)].mean()
    return np.array([*rings, corner])


def lattice(image: np.ndarray) -> float:
    """Return how far the high-pass depends on the place in the LR pixel."""
    grey = image.mean(0)
    high = grey - ndimage.gaussian_filter(grey, 2.0)
    phases = high.reshape(high.shape[0] // SCALE, SCALE, -1, SCALE).mean((0, 2))
    return float(np.abs(phases).max() / high.std())


def show(degradation: str, name: str, rows: np.ndarray) -> None:
    """Print the means over the images."""
    mean = rows.mean(0)
    power = " | ".join(f"{np.exp(value):.2f}" for value in mean[2:-2])
    print(
        f"| {degradation} | {name} | {mean[0]:+.2f} | {mean[1]:.2f} | {power} | "
        f"{mean[-2]:.3f} | {mean[-1]:.2f} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
