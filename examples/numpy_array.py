"""Upscale an array in memory.

Usage: python examples/numpy_array.py SCENE OUT.npy

Reads red, green and blue of a raster as numbers in [0, 1], upscales them four times,
and saves the result with numpy.
"""

from __future__ import annotations

import sys

import numpy as np
import rasterio

import rsupres


def main(scene: str, out: str) -> None:
    """Upscale the first three bands of `scene`; write (3, H, W) float32 to `out`."""
    with rasterio.open(scene) as file:
        dn = file.read((1, 2, 3)).astype(np.float32)
    low, high = np.percentile(dn[dn > 0], (0.5, 99.5))
    lr = np.clip((dn - low) / (high - low), 0.0, 1.0)

    model = rsupres.load_model("optical-small")
    sr = rsupres.upscale_array(lr, model, scale=4, seed=0)

    np.save(out, sr)
    print(f"{out}: {lr.shape} became {sr.shape}")


if __name__ == "__main__":
    main(*sys.argv[1:])
