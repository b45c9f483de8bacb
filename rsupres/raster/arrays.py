"""Arrays as datasets that GDAL warps and burns, in any thread.

Given an array, rasterio makes such a dataset too, but hides a warning meanwhile, and
until Python 3.14 threads undo that for each other: `warnings.catch_warnings` changes
what the whole process shows. What is opened here has a transform, so that nothing
warns and nothing need be hidden. Knows nothing of files.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.features import rasterize
from rasterio.warp import reproject

from rsupres.grid import Grid

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

Number = TypeVar("Number", np.float32, np.uint8)

# To rasterio the identity, upright or flipped, is no transform: it would warn. In
# pixels, and too little for any kernel to notice.
_NUDGE = 2.0**-40


@contextmanager
def as_dataset(
    pixels: NDArray[Any],
    transform: Affine,
    crs: CRS | None = None,
    nodata: float | None = None,
) -> Iterator[rasterio.io.DatasetWriter]:
    """Open a copy of an array as a dataset to be read, changed or warped.

    Args:
        pixels: (c, h, w), any type that GDAL has.
        transform: of its pixels; the identity is moved by 2^-40 pixels.
        crs: of its ground, None = none.
        nodata: marks what is no pixel, None = all are.
    """
    if [abs(value) for value in transform[:6]] == [1, 0, 0, 0, 1, 0]:
        transform = transform @ Affine.translation(_NUDGE, 0)
    count, height, width = pixels.shape
    with rasterio.open(
        "array",
        "w+",
        driver="MEM",
        count=count,
        height=height,
        width=width,
        dtype=pixels.dtype,
        transform=transform,
        crs=crs,
        nodata=nodata,
    ) as dataset:
        dataset.write(pixels)
        yield dataset


def is_inside(
    geometry: BaseGeometry, shape: tuple[int, int], transform: Affine
) -> NDArray[np.bool_]:
    """Return which pixels have their centre in a geometry, (h, w).

    Args:
        geometry: in the pixels' CRS.
        shape: (h, w).
        transform: of the pixels.
    """
    with as_dataset(np.zeros((1, *shape), np.uint8), transform) as dataset:
        rasterize([(geometry, 1)], dst_path=dataset, transform=transform)
        return np.asarray(dataset.read(1) > 0)


def warp_array(
    pixels: NDArray[Number],
    frame: Grid,
    target: Grid,
    resampling: Resampling,
    **options: float | str,
) -> NDArray[Number]:
    """Resample an array from its frame onto another; NaN counts as no pixel.

    Args:
        pixels: (c, h, w).
        frame: where they lie, h x w.
        target: frame wanted, any CRS.
        resampling: the kernel.
        options: GDAL's warping options.

    Returns:
        (c, H, W); NaN, or 0 for integers, where no pixel lies.
    """
    nodata = np.nan if np.issubdtype(pixels.dtype, np.floating) else None
    blank = np.zeros((len(pixels), target.height, target.width), pixels.dtype)
    with (
        as_dataset(pixels, frame.transform, frame.crs, nodata) as source,
        as_dataset(blank, target.transform, target.crs, nodata) as warped,
    ):
        bands = list(range(1, len(pixels) + 1))
        reproject(
            rasterio.band(source, bands),
            rasterio.band(warped, bands),
            resampling=resampling,
            **options,
        )
        out: NDArray[Number] = warped.read()
    return out
