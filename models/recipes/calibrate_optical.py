"""Fit how errors lie around the predicted ones: ratio and tails of an optical model.

`calibrate_optical.py DATA IN OUT` runs the checkpoint IN on cuts of places that no
model trains on, other cuts than those of the scores, reduced in all ways of training
(`rsupres.degradations.any_sensor`), with blur and noise estimated as on any scene. OUT
is the same checkpoint with the ratio of root mean squares, as a function of the facts
(a regression over the images), and with the quantiles of the errors.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import rasterio
import torch
from numpy.typing import NDArray
from rasterio.windows import Window

from rsupres.checkpoints.catalogue import load_model
from rsupres.checkpoints.file import read_checkpoint, write_checkpoint
from rsupres.degradations.any_sensor import AnySensor
from rsupres.diffusion.noise import NoiseField
from rsupres.families.base import (
    TAILS,
    SamplerOptions,
    SuperResolver,
)
from rsupres.families.optical.config import FACTS
from rsupres.upscaling.array import upscale_with_deviation
from rsupres.upscaling.memory import ArrayReader

FloatArray = NDArray[np.float32]

CPU = torch.device("cpu")
SIDE, BORDER, THINNED = 256, 4, 3
ROUNDS = 4  # degradations of every cut
SCALES = (4, 4, 4, 2, 3)
RIDGE, ITERATIONS, SMALL_RESIDUAL = 0.01, 20, 0.1
REFLECTANCE = 3000.0  # of Sentinel-2's numbers, taken as 1
_SOUTH = "osm/swellendam_za/ngi_{}_rgb_2.8m.tif"
_S2 = "sentinel2_10band/oscd_{}_S2L1C_10m_4band.tif"
CUTS = (
    *(
        (f"aerial/naip_ca/riverside_2020_{k}.tif", 0, 0)
        for k in (2, 9, 17, 22, 34, 41, 49, 63, 70, 78, 85)
    ),
    *(
        (f"aerial/oam/banepa_{k}.tif", 256, 256)
        for k in ("r05_c06", "r07_c06", "r03_c06", "r01_c08", "r01_c09", "r05_c10")
    ),
    *(
        ("aerial/oam/banepa_r06_c08.tif", 0, 256),
        ("aerial/oam/banepa_r05_c09.tif", 0, 0),
    ),
    *(
        (_SOUTH.format("3420B_2010_328"), row, col)
        for row, col in (
            (0, 0),
            (0, 512),
            (768, 256),
            (1280, 0),
            (2560, 512),
            (2300, 256),
        )
    ),
    *(
        (_SOUTH.format("3320D_2010_315"), row, col)
        for row, col in ((0, 0), (0, 800), (800, 0))
    ),
    *(
        ("pairs/s2_ngi_southafrica/ngi_rgb_5m_2.tif", row, col)
        for row, col in ((300, 300), (700, 400), (1000, 200))
    ),
    *(
        ("aerial/naip_nd/m_4709963_se_14_1_20170827.tif", 0, col)
        for col in (0, 300, 600)
    ),
    *(
        (_S2.format(name), row, col)
        for name, row, col in (
            ("nantes_20171014", 0, 0),
            ("nantes_20171014", 256, 300),
            ("hongkong_20180323", 0, 250),
            ("hongkong_20180323", 400, 250),
            ("saclay_e_20170829", 0, 0),
            ("saclay_e_20170829", 30, 300),
        )
    ),
)


def main() -> None:
    """Calibrate a checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    model = load_model(str(given.checkpoint), CPU, SamplerOptions())
    found = list(errors(model, [read(given.data / f, r, c) for f, r, c in CUTS]))
    ratios = np.array([np.sqrt(np.mean(e**2) / np.mean(d**2)) for e, d, _ in found])
    facts = np.stack([told for *_, told in found])
    factor, by_facts = regress(np.log(ratios), facts)
    factors = factor * np.exp(facts @ by_facts)
    relative = [e / (f * d) for f, (e, d, _) in zip(factors, found, strict=True)]
    tails = tuple(
        round(float(value), 4) for value in np.quantile(np.concatenate(relative), TAILS)
    )
    print(f"deviations times {factors.min():.3f} to {factors.max():.3f}")
    print(f"by facts: {by_facts.round(3).tolist()}")
    print(f"{TAILS} of the errors within {tails} of them")
    checkpoint = read_checkpoint(given.checkpoint)
    tensors = dict(checkpoint.tensors)
    tensors["spread.ratio"] = tensors["spread.ratio"].float() * factor
    tensors["spread.by_facts"] = torch.from_numpy(by_facts).float()
    tensors["spread.tails"] = torch.tensor(tails)
    spec = replace(checkpoint.spec, tails=tails)
    origin = "rsupres, models/recipes/optical-small.toml, calibrate_optical.py"
    write_checkpoint(given.out, tensors, spec, checkpoint.architecture, origin)


def read(path: Path, row: int, col: int) -> FloatArray:
    """Return a cut (3, 256, 256) in [0, 1]."""
    with rasterio.open(path) as file:
        bands = (3, 2, 1) if "_S2L1C_" in path.name else (1, 2, 3)
        pixels = file.read(bands, window=Window(col, row, SIDE, SIDE))
        limit = 255.0 if pixels.dtype == np.uint8 else REFLECTANCE
    unit: FloatArray = (pixels.astype(np.float32) / np.float32(limit)).clip(0, 1)
    return unit


def regress(
    logs: NDArray[np.floating], facts: NDArray[np.floating]
) -> tuple[float, NDArray[np.floating]]:
    """Return the factor at facts of 0, and what to add to its logarithm for each.

    Large residuals count by their sizes: a few images would decide otherwise.
    """
    centre = facts.mean(0)
    x = facts - centre
    weights, level, by_facts = np.ones(len(logs)), 0.0, np.zeros(facts.shape[1])
    for _ in range(ITERATIONS):
        level = float(np.average(logs - x @ by_facts, weights=weights))
        root = np.sqrt(weights)[:, None]
        square = (root * x).T @ (root * x) + RIDGE * len(logs) * np.eye(x.shape[1])
        by_facts = np.linalg.solve(square, x.T @ (weights * (logs - level)))
        weights = 1 / np.maximum(np.abs(logs - level - x @ by_facts), SMALL_RESIDUAL)
        weights /= weights.mean()
    return float(np.exp(level - centre @ by_facts)), by_facts


def errors(
    model: SuperResolver, images: list[FloatArray]
) -> Iterator[tuple[FloatArray, FloatArray, NDArray[np.floating]]]:
    """Yield sizes of errors, their predicted deviations, and the facts told.

    A part of the pixels.
    """
    random = torch.Generator().manual_seed(78)
    for k, hr in enumerate(images * ROUNDS):
        scale = SCALES[k % len(SCALES)]
        side = SIDE // scale
        truth = hr[:, : side * scale, : side * scale]
        taken = AnySensor().take(torch.from_numpy(truth)[None], (side, side), random)
        lr = taken.lr[0].numpy().clip(0, 1)
        rounded = np.round(lr * np.float32(255)) / np.float32(255)
        sr, deviation = upscale_with_deviation(model, rounded, Fraction(scale), CPU)
        inner = np.s_[:, BORDER:-BORDER, BORDER:-BORDER]
        size = np.abs(sr - truth)[inner].ravel()[::THINNED]
        context = model.prepare(ArrayReader(rounded), Fraction(scale), NoiseField(0))
        told = np.array([context.numbers[f"told_0_{k}"] for k in range(FACTS)])
        yield size, deviation[inner].ravel()[::THINNED], told


if __name__ == "__main__":
    main()
