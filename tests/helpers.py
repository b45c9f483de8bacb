"""Factories of small rasters and vector files, and the place of shared test data."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.enums import ColorInterp

UTM = CRS.from_epsg(32633)
# Origin and pixel size that binary floats do not hold exactly, so that copies show.
NORTH_UP = Affine(10.0, 0.0, 399960.1, 0.0, -10.0, 5200020.3)
_CHECKOUT = Path(__file__).resolve().parents[1]


def find_shared(kind: str) -> Path | None:
    """Return a folder of files that are too large to commit, or None without it.

    This is the only place of the tests that looks outside the checkout.

    Args:
        kind: "data" (images, maps, LPIPS weights), "golden" (all golden cases),
            "specs" (names and shapes of released weights) or "schemas" (of STAC
            extensions). `RSUPRES_DATA`, `RSUPRES_GOLDEN`, `RSUPRES_SPECS` and
            `RSUPRES_SCHEMAS` name the folders; without the variable it is
            `../shared/KIND` beside the checkout, if that is there.
    """
    if named := os.environ.get(f"RSUPRES_{kind.upper()}"):
        return Path(named)
    beside = _CHECKOUT.parent / "shared" / kind
    return beside if beside.is_dir() else None


def shared_data(*parts: str, kind: str = "data") -> Path:
    """Return a file or folder of the shared data; skip the calling test without it.

    Args:
        *parts: path below the folder.
        kind: which folder, see `find_shared`.
    """
    if reason := why_not_shared(*parts, kind=kind):
        pytest.skip(reason)
    folder = find_shared(kind)
    assert folder is not None
    return folder.joinpath(*parts)


def why_not_shared(*parts: str, kind: str = "data") -> str:
    """Return why a file or folder of the shared data is not there, "" where it is."""
    folder, needed = find_shared(kind), f"needs {'/'.join(parts)} of the shared {kind}"
    if folder is None:
        return f"{needed}: set RSUPRES_{kind.upper()}"
    return "" if folder.joinpath(*parts).exists() else f"{needed}, which {folder} lacks"


def read(path: Path) -> NDArray[np.generic]:
    """Return the stored pixels of a raster, (c, h, w)."""
    with rasterio.open(path) as dataset:
        pixels: NDArray[np.generic] = dataset.read()
    return pixels


def ramp(
    height: int, width: int, bands: int = 3, dtype: str = "uint16"
) -> NDArray[np.generic]:
    """Return (bands, height, width) numbers that all differ, as far as `dtype` goes.

    They rise along rows, then columns, then bands, so that any shift shows; none is 0.
    """
    numbers = np.arange(1, bands * height * width + 1, dtype=np.float64)
    if np.dtype(dtype).kind in "iu":
        numbers = (numbers - 1) % (np.iinfo(dtype).max - 1) + 1
    return numbers.reshape(bands, height, width).astype(dtype)


def make_scene(
    path: Path,
    height: int = 24,
    width: int = 32,
    bands: int = 3,
    dtype: str = "uint16",
    *,
    pixels: NDArray[np.generic] | None = None,
    nodata: float | None = None,
    crs: CRS | None = UTM,
    transform: Affine | None = NORTH_UP,
    descriptions: Sequence[str | None] | None = None,
    scales: Sequence[float] | None = None,
    offsets: Sequence[float] | None = None,
    colorinterp: Sequence[str] | None = None,
    tags: dict[str, str] | None = None,
    mask: NDArray[np.bool_] | None = None,
    driver: str = "GTiff",
    **creation: object,
) -> Path:
    """Write a raster; by default a ramp that holds no zero. Returns `path`.

    `pixels`, (bands, height, width), decide sizes and type where they are given. Where
    `mask`, (height, width), is False, an internal mask hides pixels. All other names
    are those of rasterio.
    """
    if pixels is None:
        pixels = ramp(height, width, bands, dtype)
    profile = dict(zip(("count", "height", "width"), pixels.shape, strict=True))
    profile |= {} if transform is None else {"transform": transform}
    profile |= {"dtype": pixels.dtype.name, "nodata": nodata, "crs": crs, **creation}
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(path, "w", driver=driver, **profile) as dataset,
    ):
        dataset.write(pixels)
        named = {"descriptions": descriptions, "scales": scales, "offsets": offsets}
        for name, values in named.items():
            if values is not None:
                setattr(dataset, name, tuple(values))
        if colorinterp is not None:
            dataset.colorinterp = [ColorInterp[name] for name in colorinterp]
        if tags is not None:
            dataset.update_tags(**tags)
        if mask is not None:
            dataset.write_mask(mask)
    return path


def write_image(
    path: Path,
    pixels: NDArray[np.generic],
    gsd_m: float = 5.0,
    origin: tuple[float, float] = (5e5, 5e6),
    crs: CRS | None = UTM,
    nodata: float | None = None,
) -> Path:
    """Write a picture north up, in colours when it has three bands. Returns `path`.

    Args:
        path: the file.
        pixels: (bands, height, width).
        gsd_m: side of a pixel, metres.
        origin: of its upper-left corner, (x, y).
        crs: None for none.
        nodata: declared value.
    """
    return make_scene(
        path,
        pixels=pixels,
        crs=crs,
        transform=Affine(gsd_m, 0, origin[0], 0, -gsd_m, origin[1]),
        nodata=nodata,
        photometric="RGB" if len(pixels) == 3 else "MINISBLACK",
    )


def write_vector(path: Path, *shapes: object, crs: CRS | str | None = UTM) -> str:
    """Write geometries as a vector file; return its name."""
    geopandas.GeoSeries(list(shapes), crs=crs).to_file(path, engine="pyogrio")
    return str(path)
