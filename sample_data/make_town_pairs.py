"""Write invented towns at two dates with true change masks, to train and measure.

`make_town_pairs.py OUT FIRST COUNT` writes, for every seed from FIRST on, the pixels of
today ``OUT/town_SEED_hr.tif``, of an earlier day ``OUT/town_SEED_ref.tif`` and the
change ``OUT/town_SEED_mask.tif`` (0 = unchanged, else the land-cover code of today),
1000 x 1000 pixels of 0.6 m. With ``--parts N`` it cuts each town into 16 squares and
keeps the N that changed most, and writes each a second time with the dates exchanged:
buildings vanish. `rsupres dataset build` packs them, see models/recipes/README.md:
towns to train on begin at 100, those to measure on at 900.
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
CUTS = 4  # along each side of a town
BRIGHTEST = 0.45  # reflectance that becomes 255


def write_pairs(out: Path, seeds: Sequence[int], n_parts: int) -> None:
    """Write the rasters of every seed; towns lie side by side, 10 km apart."""
    out.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        town = make_town(seed, SIZE_M, GSD_M)
        left_m = 400_000 + 10_000 * seed
        was = np.where(town.change > 0, town.cover_earlier, 0).astype(np.uint8)
        pair = (levels(town.now), levels(town.earlier), town.change[None])
        if not n_parts:
            write_pair(out, f"town_{seed}", pair, left_m)
            continue
        for k, (rows, cols) in enumerate(most_changed(town.change, n_parts)):
            now, earlier, new = (part[:, rows, cols] for part in pair)
            gone = was[None, rows, cols]
            write_pair(out, f"town_{seed}_{k}", (now, earlier, new), left_m)
            write_pair(out, f"town_{seed}_{k}_back", (earlier, now, gone), left_m)


def most_changed(change: NDArray[np.uint8], n_parts: int) -> list[tuple[slice, slice]]:
    """Return rows and columns of the parts that changed most."""
    side = len(change) // CUTS
    shares = (change > 0).reshape(CUTS, side, CUTS, side).mean((1, 3)).ravel()
    order = np.argsort(-shares, kind="stable")[:n_parts]
    starts = [divmod(int(place), CUTS) for place in order]
    return [
        (slice(i * side, (i + 1) * side), slice(j * side, (j + 1) * side))
        for i, j in starts
    ]


def write_pair(
    out: Path, name: str, pair: Sequence[NDArray[np.uint8]], left_m: float
) -> None:
    """Write the image, its reference and the mask; parts of a town share a corner."""
    for kind, pixels in zip(("hr", "ref", "mask"), pair, strict=True):
        write(out / f"{name}_{kind}.tif", pixels, left_m)


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
    parser.add_argument("--parts", type=int, default=0)
    given = parser.parse_args()
    write_pairs(given.out, range(given.first, given.first + given.count), given.parts)


if __name__ == "__main__":
    main()
