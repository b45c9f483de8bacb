"""Resample a window of one raster onto the pixels of another.

Pixels are read through `Raster`, so masks, nodata and NaN count alike. The kernel and
its width depend on the ratio of pixel sizes only, not on the window, so that windows of
one picture fit together.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.warp import transform as transform_points

from rsupres.errors import GridError
from rsupres.grid import Grid, PixelWindow
from rsupres.raster.dataset import Raster
from rsupres.raster.stretch import Stretch
from rsupres.raster.virtual import warp_array

FINER = 1.5  # pixels of the source along one of the target; above, they are averaged
TOLERANCE = (
    0.01  # source pixels; error that GDAL may make when it interpolates coordinates
)
EDGE_POINTS = 17  # per axis of the grid of points that is transformed for a window
KERNEL_REACH = 3  # pixels that a kernel reads beyond the window


@dataclass(frozen=True)
class Source:
    """A raster to be warped.

    Attributes:
        scene: open.
        bands: of its file.
        stretch: of those bands.
        ratio: pixels of it along one SR pixel.
    """

    scene: Raster
    bands: tuple[int, ...]
    stretch: Stretch
    ratio: float


def source_window(source: Grid, target: Grid) -> PixelWindow | None:
    """Return the window of a source, cut at its frame, that a target needs, or None.

    Args:
        source: frame of the file.
        target: frame wanted, any CRS.
    """
    steps = np.linspace(0.0, 1.0, EDGE_POINTS)
    cols, rows = (grid.ravel() for grid in np.meshgrid(steps, steps))
    col, row = places(source, target, cols * target.width, rows * target.height)
    seen = np.isfinite(col) & np.isfinite(row)
    if not seen.any():
        return None
    ratio = max(
        1.0,
        *(np.ptp(x[seen]) / n for x, n in ((row, target.height), (col, target.width))),
    )
    margin = math.ceil(KERNEL_REACH * ratio) + 1
    top, left = (math.floor(float(x[seen].min())) - margin for x in (row, col))
    bottom, right = (math.ceil(float(x[seen].max())) + margin for x in (row, col))
    wanted = PixelWindow(top, left, bottom - top, right - left)
    return wanted.intersection(source.window)


def places(
    source: Grid,
    target: Grid,
    cols: NDArray[np.float64],
    rows: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the (columns, rows) of a source that lie on places of a target.

    NaN where a place has no coordinates in the source's CRS.

    Args:
        source: frame of the file.
        target: another frame.
        cols: of the target, pixels from its left edge.
        rows: of the target, pixels from its top.
    """
    x, y = _apply(target.transform, cols, rows)
    if source.crs != target.crs:
        try:
            x, y = (
                np.asarray(values, np.float64)
                for values in transform_points(target.crs, source.crs, x, y)
            )
        except RasterioError:
            return np.full(cols.shape, np.nan), np.full(rows.shape, np.nan)
    col, row = _apply(~source.transform, x, y)
    lost = ~(np.isfinite(col) & np.isfinite(row))
    return np.where(lost, np.nan, col), np.where(lost, np.nan, row)


def source_pixels_per_pixel(source: Grid, target: Grid) -> float:
    """Return how many pixels of a source lie along one of a target, at its middle.

    Measured between neighbouring pixels, so the two CRS may be any.

    Args:
        source: frame of the file.
        target: another frame.

    Raises:
        GridError: the middle of the target has no coordinates in the source's CRS.
    """
    middle_col, middle_row = target.width / 2, target.height / 2
    cols = np.array([middle_col, middle_col + 1, middle_col])
    rows = np.array([middle_row, middle_row, middle_row + 1])
    col, row = places(source, target, cols, rows)
    area = (col[1] - col[0]) * (row[2] - row[0]) - (col[2] - col[0]) * (row[1] - row[0])
    if not math.isfinite(area) or area == 0:
        raise GridError("the two rasters have no common place on the ground.")
    return math.sqrt(abs(area))


def warp(source: Source, target: Grid, ratio: float) -> NDArray[np.float32] | None:
    """Resample a source onto a target's pixels.

    By area where the source is finer by more than `FINER`, else by cubic convolution. A
    pixel is NaN where the source has no valid pixel: under its centre for the cubic,
    anywhere in it for the mean by area.

    Args:
        source: the raster.
        target: frame wanted, any CRS.
        ratio: the source's pixels along one of the target's; the same for all windows
            of one picture, as it decides on the kernel.

    Returns:
        (c, H, W) float32 in [0, 1], NaN in all bands or in none; None where the source
        does not touch the target.
    """
    frame = source.scene.grid
    window = source_window(frame, target)
    if window is None:
        return None
    dn, valid = source.scene.read(window, source.bands)
    if not valid.any():
        return None
    unit = source.stretch.to_unit(dn)
    unit[:, ~valid[0]] = np.nan
    kernel, options = Resampling.average, {}
    if ratio <= FINER:  # GDAL would find the kernel's width from the window
        kernel, options = Resampling.cubic, {"XSCALE": "1", "YSCALE": "1"}
    out = warp_array(
        unit, frame.crop(window), target, kernel, tolerance=TOLERANCE, **options
    )
    np.clip(out, 0, 1, out=out)
    out[:, np.isnan(out).any(axis=0)] = np.nan
    return out


def _apply(
    transform: Affine, x: NDArray[np.float64], y: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return points moved by a transform."""
    a, b, c, d, e, f = transform[:6]
    return np.asarray(a * x + b * y + c), np.asarray(d * x + e * y + f)
