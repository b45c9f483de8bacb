"""Models on the degradation that opensr-degradation learned for Sentinel-2.

``python tests/benchmarks/bench_learned_degradation.py DATA NOISE --model NAME ...``
makes LR images of the wide validation set (`wide_set`), four times coarser, as the
package opensr-degradation 1.0.1 (Aybar et al. 2024, MIT) makes Sentinel-2 of NAIP of
2.5 m: Gaussian blur of 3.0, 2.9 and 2.9 pixels, every fourth pixel by bilinear
interpolation, and noise by reflectance. NOISE is `naipd/models/model_noise.pt` of its
wheel on PyPI; 255 levels count as reflectance 0.3. Tones are left as they are. Prints
PSNR minus that of bicubic in dB with its standard error, and on how many images
it is positive: with and without the noise, the sensor read from the image or told.
"""

from __future__ import annotations

import argparse
import logging
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
import wide_set
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch.nn import functional

from rsupres.checkpoints.catalogue import load_model
from rsupres.evaluation.measures.metrics import psnr
from rsupres.families.base import SamplerOptions
from rsupres.upscaling.array import upscale_whole

CPU = torch.device("cpu")
SCALE = 4
SIGMAS = (3.0, 2.9, 2.9)  # HR pixels, of red, green and blue
_RADIUS = 6  # of the kernel of 13 pixels
_REFLECTANCE = 0.3  # of 255 levels
# Of their table: lower ends of the noise's values, upper ends of reflectance.
_NOISE = np.arange(-0.0101, 0.0101, 0.0002)
_BINS = np.arange(0, 0.5, 0.005)
Floats = NDArray[np.float32]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("noise", type=Path)
    parser.add_argument("--model", action="append", default=[])
    given = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    table = torch.load(given.noise, map_location="cpu", weights_only=True).numpy()
    places = wide_set.load(given.data)
    bicubic = load_model("bicubic", CPU, SamplerOptions())
    told = SamplerOptions(sensor_mtf=_mtf())
    print(f"MTF of the blur at Nyquist: {_mtf():.3f}")
    print("| model | noise | sensor | dB | positive on |\n|---|---|---|---|---|")
    for is_noisy in (False, True):
        for name in given.model:
            for options, how in ((SamplerOptions(), "read"), (told, "told")):
                model = load_model(name, CPU, options)
                gains = []
                for number, place in enumerate(places):
                    truth = place.pixels.astype(np.float32) / 255
                    lr = degrade(truth, table if is_noisy else None, number)
                    plain, made = (
                        upscale_whole(m, lr, Fraction(SCALE), CPU, seed=0)
                        for m in (bicubic, model)
                    )
                    gains.append(_inner_psnr(made, truth) - _inner_psnr(plain, truth))
                error = np.std(gains, ddof=1) / len(gains) ** 0.5
                row = f"{name} | {'yes' if is_noisy else 'no'} | {how}"
                n = sum(gain > 0 for gain in gains)
                print(
                    f"| {row} | {np.mean(gains):+.2f} ± {error:.2f} | {n} |", flush=True
                )


def degrade(truth: Floats, table: Floats | None, seed: int) -> Floats:
    """Return the LR image.

    Args:
        truth: (3, H, W) in [0, 1].
        table: probabilities of the noise by reflectance; None = no noise.
        seed: of the noise.
    """
    blurred = np.stack(
        [
            gaussian_filter(band, sigma, radius=_RADIUS, mode="reflect")
            for band, sigma in zip(truth, SIGMAS, strict=True)
        ]
    )
    batch = torch.from_numpy(blurred)[None]
    lr = functional.interpolate(batch, scale_factor=1 / SCALE, mode="bilinear")[0]
    found: Floats = lr.numpy()
    if table is None:
        return found
    random = np.random.default_rng(seed)
    rows = np.digitize(found * _REFLECTANCE, _BINS)
    cumulative = table.cumsum(1)
    drawn = (random.random((*rows.shape, 1)) > cumulative[rows]).sum(-1)
    noise = _NOISE[drawn.clip(0, len(_NOISE) - 1)]
    return np.asarray(found + noise / _REFLECTANCE, np.float32).clip(0, 1)


def _mtf() -> float:
    """Return the response of the green band's blur at Nyquist of the LR grid."""
    frequency = 0.5 / SCALE
    gaussian = np.exp(-2 * (np.pi * SIGMAS[1] * frequency) ** 2)
    return float(gaussian * np.cos(np.pi * frequency))  # mean of two pixels


def _inner_psnr(sr: np.ndarray, truth: np.ndarray) -> float:
    inner = (slice(None), slice(SCALE, -SCALE), slice(SCALE, -SCALE))
    return psnr(sr[inner].clip(0, 1), truth[inner])


if __name__ == "__main__":
    main()
