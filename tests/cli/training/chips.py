"""Small image files, and the command that packs them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from click.testing import CliRunner, Result
from rasterio.crs import CRS

from rsupres.cli import main
from tests.helpers import write_image

GSD_M = 0.5


def write_noise(
    path: Path, seed: int, *, side: int = 64, east: float = 5e5, nodata: bool = False
) -> np.ndarray:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(1, 256, (3, side, side), dtype=np.uint8)
    if nodata:
        pixels[:, :5, :5] = 0
    utm, blank = CRS.from_epsg(32631), 0 if nodata else None
    write_image(path, pixels, GSD_M, (east, 5e6), utm, blank)
    return pixels


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["dataset", *map(str, arguments)])


def build(out: Path, chips: Path, *options: object) -> Result:
    return run("build", out, "--hr", chips, *options)


def crop(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (3, 32, 32), dtype=np.uint8)
