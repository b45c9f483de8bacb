"""A town of two images with their sidecar files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from rasterio.crs import CRS

from rsupres.datasets.sidecars import Sidecars
from tests.helpers import write_image


def picture(height: int, width: int, seed: int, bands: int = 3) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(1, 255, (bands, height, width), dtype=np.uint8)


def write(
    path: Path,
    pixels: np.ndarray,
    origin: tuple[float, float] = (5e5, 5e6),
    nodata: int | None = None,
    gsd_m: float = 1.0,
) -> Path:
    path.parent.mkdir(exist_ok=True)
    return write_image(path, pixels, gsd_m, origin, CRS.from_epsg(32631), nodata)


ALL = Sidecars(
    reference=("2020=2018",),
    vector_map=("town/=drawn/", ".tif=.png"),
    change_mask=("town/=mask/",),
)
ALL_OPTIONS = (
    *("--reference-from", "2020=2018", "--change-mask-from", "town/=mask/"),
    *("--vector-map-from", "town/=drawn/", "--vector-map-from", ".tif=.png"),
)
