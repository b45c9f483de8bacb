"""Write invented towns at two dates with true change masks, to train and measure.

`make_town_pairs.py OUT FIRST COUNT` writes, for every seed from FIRST on, the pixels of
today ``OUT/town_SEED_hr.tif``, of an earlier day ``OUT/town_SEED_ref.tif`` and the
change ``OUT/town_SEED_mask.tif`` (0 = unchanged, else the land-cover code of today),
1000 x 1000 pixels of 0.6 m. `rsupres dataset build` packs them, see
models/recipes/README.md: towns to train on begin at 100, those to measure on at 900.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from make_sample_data import CRS_UTM, make_town
from numpy.typing import NDArray

SIZE_M = 600.0
GSD_M = 0.6
BRIGHTEST = 0.45  # reflectance that becomes 255


def write_pairs(out: Path, seeds: Sequence[int]) -> None:
    """Write three rasters per seed; towns lie side by side, 10 km apart."""
    out.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        town = make_town(seed, SIZE_M, GSD_M)
        parts = {
            "hr": levels(town.now),
            "ref": levels(town.earlier),
            "mask": town.change[None],
        }
        for name, pixels in parts.items():
            write(out / f"town_{seed}_{name}.tif", pixels, 400_000 + 10_000 * seed)


def levels(image: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return red, green and blue as 8-bit levels."""
    return (image[:3] * (255 / BRIGHTEST) + 0.5).clip(0, 255).astype(np.uint8)


def write(path: Path, pixels: NDArray[np.uint8], left_m: float) -> None:
    """Write a GeoTIFF."""
    count, height, width = pixels.shape
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=count,
        height=height,
        width=width,
        dtype="uint8",
        crs=CRS_UTM,
        transform=Affine(GSD_M, 0, left_m, 0, -GSD_M, 5_000_000),
        compress="deflate",
    ) as file:
        file.write(pixels)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("first", type=int)
    parser.add_argument("count", type=int)
    given = parser.parse_args()
    write_pairs(given.out, range(given.first, given.first + given.count))


if __name__ == "__main__":
    main()
