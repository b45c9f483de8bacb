"""A known ground, as reference images on grids of several kinds show it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import numpy as np
from affine import Affine
from rasterio.crs import CRS
from rasterio.warp import transform

from rsupres.conditions.base import TargetScene
from rsupres.conditions.references import References, open_references
from rsupres.grid import Grid
from rsupres.raster.dataset import Raster
from rsupres.raster.stretch import Stretch
from tests.helpers import NORTH_UP, UTM, make_scene

LR = Grid(UTM, NORTH_UP, 40, 48)  # 10 m
SCALE = Fraction(4)
RGB = ("red", "green", "blue")
WGS84 = CRS.from_epsg(4326)
FRAMES = {
    "same grid": Grid(UTM, NORTH_UP @ Affine.scale(0.25), 160, 192),
    "other zone": Grid(
        CRS.from_epsg(32632), Affine(2.1, 0.3, 856254.0, 0.3, -2.1, 5210037.0), 420, 460
    ),
    "degrees": Grid(WGS84, Affine(3e-5, 0, 13.6845, 0, -2e-5, 46.9466), 220, 280),
    "finer": Grid(UTM, Affine(1.0, 0, 399900.0, 0, -1.0, 5200100.0), 620, 640),
    "coarser": Grid(UTM, Affine(7.0, 0, 399907.0, 0, -7.0, 5200091.0), 90, 90),
}


def ground(grid: Grid, waves_m: float = 120.0) -> np.ndarray:
    """A smooth picture in [0.1, 0.9] that is a function of UTM metres: (3, H, W)."""
    cols, rows = np.meshgrid(np.arange(grid.width) + 0.5, np.arange(grid.height) + 0.5)
    x, y = grid.transform @ (cols.ravel(), rows.ravel())
    if grid.crs != UTM:
        x, y = (np.array(v) for v in transform(grid.crs, UTM, x, y))
    x, y = ((v.reshape(grid.height, grid.width) / waves_m * 2 * np.pi) for v in (x, y))
    return 0.5 + 0.4 * np.stack([np.sin(x), np.cos(y), np.sin(0.7 * x + 0.6 * y)])


def write(path: Path, grid: Grid, unit: np.ndarray, **options: object) -> Path:
    """Write values in [0, 1] as uint8, or as `dtype` with 10,000 as 1."""
    dtype = options.pop("dtype", "uint8")
    dn = unit * 255 if dtype == "uint8" else unit * 10000
    return make_scene(
        path,
        pixels=np.round(dn).astype(dtype),
        crs=grid.crs,
        transform=grid.transform,
        **options,
    )


@contextmanager
def opened(
    lr: Path,
    *names: Path,
    scale: Fraction = SCALE,
    coregister: bool = False,
    fill: bool = False,
) -> Iterator[References]:
    with Raster.open(lr) as scene:
        stretch = Stretch((0.0,) * 3, (10000.0,) * 3)
        frame = TargetScene(scene, (1, 2, 3), RGB, stretch, scale)
        texts = [str(name) for name in names]
        with open_references(texts, frame, coregister=coregister, fill=fill) as found:
            yield found


def whole(reference: References) -> np.ndarray:
    return reference.read(reference.frame.sr.window)


def flat(path: Path, grid: Grid, level: int, **options: object) -> Path:
    unit = np.full((3, grid.height, grid.width), level / 255)
    return write(path, grid, unit, **options)
