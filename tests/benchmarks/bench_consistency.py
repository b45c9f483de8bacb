"""Measure how well results agree with their LR image through the sensor's blur.

``python tests/benchmarks/bench_consistency.py DATA [--model NAME] [--scale S]``
enlarges LR images of the wide validation set (`wide_set`) as they come and with the
lock of low frequencies, takes each result back to the LR grid through the kernel that
made the LR image, and prints the RMS difference as a share of the LR image's mean,
beside PSNR minus that of bicubic interpolation. ``told`` rows give the model the true
MTF.
"""

from __future__ import annotations

import argparse
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
import wide_set

from rsupres.checkpoints.catalogue import load_model
from rsupres.degradations.optics import sample, sampling_matrix
from rsupres.evaluation.resize import resize_bicubic
from rsupres.families.base import SamplerOptions
from rsupres.upscaling.array import Model, upscale_array

CPU = torch.device("cpu")
MTF = {"MTF 0.4": 0.4, "MTF 0.2": 0.2, "MTF 0.1": 0.1}
ROWS = ("bicubic", "area mean", *MTF)


def main() -> None:
    """Print a row a degradation and choice."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="optical-small")
    parser.add_argument("--scale", type=int, default=4)
    given = parser.parse_args()
    torch.set_num_threads(1)
    places = wide_set.load(given.data)
    print("| LR made by | result | consistency, % of the mean | PSNR - bicubic, dB |")
    print("|---|---|---|---|")
    for row in ROWS:
        choices = {"bicubic interpolation": None}
        choices |= {"as it comes": {}, "locked": {"lock": True}}
        if row in MTF:
            told = {"sensor_mtf": MTF[row]}
            choices |= {"told": told, "told, locked": {**told, "lock": True}}
        for name, choice in choices.items():
            model = None
            if choice is not None:
                options = SamplerOptions(**choice)
                resolver = load_model(given.model, CPU, options)
                model = Model(given.model, resolver, CPU)
            found = [
                measure(place.pixels, row, number, given.scale, model)
                for number, place in enumerate(places)
            ]
            share, gain = np.mean(found, axis=0)
            print(f"| {row} | {name} | {100 * share:.2f} | {gain:+.2f} |", flush=True)


def measure(
    hr: wide_set.Pixels, row: str, number: int, scale: int, model: Model | None
) -> tuple[float, float]:
    """Return the share of the mean, and PSNR minus bicubic's, of one image."""
    lr = wide_set.degrade(hr, row, scale, number)
    bicubic = resize_bicubic(lr, hr.shape[1:]).astype(np.float64) / 255
    unit = lr.astype(np.float32) / 255
    sr = bicubic
    if model is not None:
        sr = upscale_array(unit, model, Fraction(scale)).astype(np.float64)
    kernel = wide_set.KERNELS[row]
    matrices = [sampling_matrix(n // scale, n, kernel) for n in hr.shape[1:]]
    difference = sample(sr, *matrices) - unit
    share = np.sqrt(np.square(difference).mean()) / unit.mean()
    errors = [np.square(x - hr / 255)[:, 4:-4, 4:-4].mean() for x in (bicubic, sr)]
    return float(share), float(10 * np.log10(errors[0] / errors[1]))


if __name__ == "__main__":
    main()
