"""Do predicted errors hold? Spread over skill, coverage and correlation, wide set.

``python tests/benchmarks/bench_calibration.py DATA [--model NAME] [--scale S]`` makes
LR images of the wide validation set (`wide_set`), lets the model enlarge them and
predict its own error, and compares the prediction with the real error, pixel by pixel,
all images together. ``--gradient`` adds a prediction from the gradient of the result
alone, ``a + b g + c g^2`` fitted on every second image and measured on the others. The
last column is the correlation that these predictions would have if they were exact:
each with another pixel's error, scaled to its size.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
import wide_set

from rsupres.checkpoints.catalogue import load_model
from rsupres.evaluation.measures.calibration import NORMAL_TAILS, Calibration, calibrate
from rsupres.families.base import (
    SamplerOptions,
)
from rsupres.upscaling.array import upscale_with_deviation

CPU = torch.device("cpu")


def main() -> None:
    """Print a row a degradation."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="optical-small")
    parser.add_argument("--scale", type=int, default=4)
    parser.add_argument("--gradient", action="store_true")
    parser.add_argument("--degradation", action="append", choices=wide_set.KERNELS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    model = load_model(given.model, CPU, SamplerOptions())
    places = wide_set.load(given.data)
    heads = "spread/skill | in 50, 90, 99 % | correlation | if exact"
    print(f"| LR made by | prediction | {heads} |")
    print("|---|---|---|---|---|---|")
    for degradation in given.degradation or wide_set.KERNELS:
        made = []
        for number, place in enumerate(places):
            lr = wide_set.degrade(place.pixels, degradation, given.scale, number)
            sr, deviation = upscale_with_deviation(
                model, lr.astype(np.float32) / 255, Fraction(given.scale), CPU
            )
            inner = np.s_[:, given.scale : -given.scale, given.scale : -given.scale]
            truth = place.pixels.astype(np.float32) / 255
            made.append((sr[inner] - truth[inner], deviation[inner], sr[inner]))
        error, deviation = joined([(m[0], m[1]) for m in made])
        found = calibrate(error, deviation, model.spec.tails)
        show(degradation, "model", found, if_exact(error, deviation))
        if given.gradient:
            errors, predicted = by_gradient(made)
            found = calibrate(errors, predicted, NORMAL_TAILS)
            show(degradation, "gradient", found, if_exact(errors, predicted))


def joined(
    parts: Sequence[tuple[np.ndarray, np.ndarray]],
) -> tuple[np.ndarray, np.ndarray]:
    """Return the two arrays of all parts as flat ones."""
    first, second = zip(*parts, strict=True)
    return (
        np.concatenate([x.ravel() for x in first]),
        np.concatenate([x.ravel() for x in second]),
    )


def by_gradient(
    made: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]],
) -> tuple[np.ndarray, np.ndarray]:
    """Return errors and deviations by a fit on the gradient, each half by the other."""
    errors, gradients = [], []
    for error, _, sr in made:
        down, right = (np.gradient(sr, axis=axis) for axis in (1, 2))
        gradients.append(np.hypot(down, right).ravel())
        errors.append(error.ravel())
    parts = []
    for half in (0, 1):
        g, e = (np.concatenate(x[half::2]) for x in (gradients, errors))
        fit = np.linalg.lstsq(_powers(g), np.square(e), rcond=None)[0]
        g, e = (np.concatenate(x[1 - half :: 2]) for x in (gradients, errors))
        parts.append((e, np.sqrt(np.maximum(_powers(g) @ fit, 1e-8))))
    return joined(parts)


def _powers(gradient: np.ndarray) -> np.ndarray:
    return np.stack([np.ones_like(gradient), gradient, np.square(gradient)], 1)


def if_exact(error: np.ndarray, deviation: np.ndarray) -> float:
    """Return the correlation of deviations with errors that have just their sizes."""
    relative = np.abs(error) / deviation
    drawn = deviation * np.random.default_rng(0).permutation(relative)
    return float(np.corrcoef(deviation, drawn)[0, 1])


def show(degradation: str, name: str, found: Calibration, exact: float) -> None:
    """Print a row of the table."""
    held = ", ".join(f"{100 * found.coverage[k]:.1f}" for k in (0, 2, 4))
    print(
        f"| {degradation} | {name} | {found.spread_skill:.2f} | {held} | "
        f"{found.correlation:.2f} | {exact:.2f} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
