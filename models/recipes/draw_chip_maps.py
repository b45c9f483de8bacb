"""Draw maps of real chips from their own colours: training data for map-guided models.

`draw_chip_maps.py CHIPS OUT` writes for every GeoTIFF of CHIPS a raster OUT/<name> of
the same pixels in the colours of the legend `maptiler`: vegetation where green exceeds
the other bands, water where blue does, roofs where the picture is bright or red, and
roads where it is grey. Specks are removed and outlines simplified, as in a map; the
rest stays background. The maps are no land-cover truth: they show a model where the
borders of objects lie in a real picture.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import rasterio
import torch
from numpy.typing import NDArray
from rasterio.features import rasterize, shapes, sieve
from shapely.geometry import shape
from shapely.geometry.base import BaseGeometry
from tqdm import tqdm

from rsupres.legends.legend_file import load_legend

MIN_AREA_M2 = 40.0
TOLERANCE_M = 1.2
BUILDING = 4
MAX_BUILDING_M2 = 8000.0
MIN_FILLED = 0.42  # share of its smallest rectangle that a building fills
KINDS = ("grass", "wood", "road", "building", "water")


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw the maps that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("chips", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--glob", default="*.tif")
    given = parser.parse_args(arguments)
    given.out.mkdir(parents=True, exist_ok=True)
    palette = load_palette()
    for path in tqdm(sorted(given.chips.glob(given.glob))):
        with rasterio.open(path) as chip:
            profile = chip.profile | {"driver": "GTiff", "compress": "deflate"}
            profile.pop("photometric", None)
            drawn = palette[outlines(kinds(chip.read()), chip.res[0])]
        with rasterio.open(given.out / path.name, "w", **profile) as out:
            out.write(drawn.transpose(2, 0, 1))


def load_palette() -> NDArray[np.uint8]:
    """Return the colour of the background and of each kind, (1 + kinds, 3)."""
    legend = load_legend("maptiler")
    colours = {kind.key: kind.colour for kind in legend.classes}
    return np.array([legend.background, *(colours[k] for k in KINDS)], dtype=np.uint8)


def kinds(chip: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return 0 or the number of a kind for each pixel of (3, H, W), smoothed."""
    smooth = torch.from_numpy(chip.astype(np.float32) / 255.0)[None]
    windows = torch.nn.functional.unfold(
        torch.nn.functional.pad(smooth, (2, 2, 2, 2), mode="reflect"), 5
    )
    red, green, blue = windows.view(3, 25, *chip.shape[1:]).median(dim=1).values.numpy()
    value = (red + green + blue) / 3.0
    lightest, darkest = (f([red, green, blue], axis=0) for f in (np.max, np.min))
    grey = (lightest - darkest) / (lightest + 1e-3) < 0.16
    excess = (2 * green - red - blue) / (red + green + blue + 1e-3)
    usual = float(np.median(value))
    bright = (value > max(usual + 0.14, 0.5)) & (lightest - darkest < 0.3)
    tiled = (red - blue > 0.13) & (red - green > 0.06) & (value < usual + 0.1)
    found = np.zeros(chip.shape[1:], dtype=np.uint8)
    found[grey & (value > 0.25) & (value < usual + 0.12)] = 3
    found[bright | tiled] = 4
    found[(excess > 0.05) & (value >= 0.32)] = 1
    found[(excess > 0.03) & (value < 0.32)] = 2
    found[(blue - red > 0.1) & ((lightest - darkest) / (lightest + 1e-3) > 0.28)] = 5
    return found


def outlines(found: NDArray[np.uint8], pixel_m: float) -> NDArray[np.uint8]:
    """Return the kinds without specks, their outlines simplified."""
    smallest = int(MIN_AREA_M2 / pixel_m**2)
    clean = sieve(found, smallest)
    parts = [
        (shape(outline).simplify(TOLERANCE_M / pixel_m), int(kind))
        for outline, kind in shapes(clean, mask=clean > 0)
    ]
    kept = [
        part for part in parts if part[1] != BUILDING or is_compact(part[0], pixel_m)
    ]
    if not kept:
        return np.zeros_like(clean)
    kept.sort(key=lambda part: -part[0].area)
    return rasterize(kept, clean.shape, dtype=np.uint8)


def is_compact(outline: BaseGeometry, pixel_m: float) -> bool:
    """Return whether a bright or red part may be a roof, not bare ground."""
    if outline.area * pixel_m**2 > MAX_BUILDING_M2:
        return False
    box = outline.minimum_rotated_rectangle
    return bool(outline.area > MIN_FILLED * box.area)


if __name__ == "__main__":
    main()
