"""Fit NIQE's model of sharp pictures to aerial images: `fit_niqe.py DATA OUT.npz`.

The images are those that models of this project train on, by the table of
models/recipes/README.md: every fifth chip of `aerial/naip_ca` without Riverside, the
forest plots reduced three times, and the images of North America. No image of the
validation places is among them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import rasterio

from rsupres.evaluation.measures.niqe import fit
from rsupres.evaluation.resize import resize_bicubic


def pictures(data: Path) -> Iterator[np.ndarray]:
    """Yield pictures (3, H, W) in [0, 1]."""
    chips = sorted((data / "aerial" / "naip_ca").glob("*.tif"))
    chips = [chip for chip in chips if not chip.name.startswith("riverside")][::5]
    others = [
        path
        for folder in ("neon_forest", "north_america")
        for path in sorted((data / "aerial" / folder).glob("*.tif"))
    ]
    for path in [*chips, *others]:
        with rasterio.open(path) as file:
            pixels = file.read((1, 2, 3))
        if path.parent.name == "neon_forest":
            size = (pixels.shape[1] // 3, pixels.shape[2] // 3)
            pixels = resize_bicubic(pixels, size)
        yield pixels / 255.0


def main() -> None:
    """Fit and write the mean and the covariance."""
    data, out = (Path(text) for text in sys.argv[1:])
    model = fit(pictures(data))
    np.savez_compressed(out, mean=model.mean, covariance=model.covariance)
    print(np.round(model.mean, 3))


if __name__ == "__main__":
    main()
