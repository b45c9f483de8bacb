"""Find the part of a scene that covers bounds or the polygons of a vector file.

The part is a window of whole pixels. This module reads vector files and no rasters.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rasterio.crs import CRS
from rasterio.errors import CRSError, RasterioError
from rasterio.warp import transform_bounds

from rsupres.errors import InputError
from rsupres.grid import PixelWindow
from rsupres.raster.place.polygons import DENSIFY, read_polygons

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

    from rsupres.raster.dataset import Raster

ROUNDING = 1e-6  # LR pixels by which bounds may miss a pixel's edge


def window_from_bounds(
    scene: Raster, bounds: Sequence[float], bounds_crs: str | CRS | None = None
) -> PixelWindow:
    """Return the LR pixels of a scene that touch a rectangle on the ground.

    Args:
        scene: an open scene.
        bounds: west, south, east, north in units of `bounds_crs`.
        bounds_crs: None for the scene's CRS; longitude comes before latitude.

    Raises:
        InputError: the bounds do not rise, their CRS is unknown, or they lie outside.
    """
    west, south, east, north = bounds
    text = _text(bounds)
    if not (west < east and south < north):
        raise InputError(
            f"{text}: give west, south, east, north, rising.", argument="bounds"
        )
    try:
        crs = scene.grid.crs if bounds_crs is None else CRS.from_user_input(bounds_crs)
        placed = transform_bounds(
            crs, scene.grid.crs, west, south, east, north, densify_pts=DENSIFY
        )
    except CRSError as error:
        raise InputError(
            f"{bounds_crs!r} is unknown; give for example EPSG:4326.",
            argument="bounds_crs",
        ) from error
    except RasterioError as error:
        raise InputError(
            f"{text} cannot be brought to the scene's CRS ({error}).",
            argument="bounds",
            remedies=("bounds_crs",),
        ) from error
    if not all(math.isfinite(value) for value in placed):
        raise InputError(
            f"{text} cannot be brought to the scene's CRS.",
            argument="bounds",
            remedies=("bounds_crs",),
        )
    return _window(scene, placed, f"bounds {text}")


def window_from_aoi(scene: Raster, path: str) -> tuple[PixelWindow, BaseGeometry]:
    """Return the pixels that touch the polygons of a vector file, and the polygons.

    Args:
        scene: an open scene.
        path: anything that GDAL's vector drivers read; without a CRS it is taken to
            be in the scene's.

    Returns:
        The window, LR pixels of the scene, cut at its edges, and the union of the
        polygons in the scene's CRS, for `Raster.crop`.

    Raises:
        InputError: no such file, not a vector file, no polygons in it, or outside.
    """
    area = read_polygons(path, scene.grid)
    return _window(scene, area.bounds, path), area


def _window(scene: Raster, bounds: Sequence[float], name: str) -> PixelWindow:
    """Return the window over bounds (left, bottom, right, top) in the scene's CRS."""
    left, bottom, right, top = bounds
    corners = ((left, bottom), (left, top), (right, bottom), (right, top))
    places = [~scene.grid.transform @ corner for corner in corners]
    cols, rows = zip(*places, strict=True)
    low_col, low_row = (math.floor(min(side) + ROUNDING) for side in (cols, rows))
    high_col, high_row = (math.ceil(max(side) - ROUNDING) for side in (cols, rows))
    wanted = PixelWindow(
        low_row, low_col, max(1, high_row - low_row), max(1, high_col - low_col)
    )
    inside = wanted.intersection(scene.grid.window)
    if inside is None:
        raise InputError(
            f"{name}: {_text(bounds)} in the scene's CRS lies outside {scene.path}, "
            f"which covers {_text(scene.grid.bounds)} ({scene.grid.crs})."
        )
    return inside


def _text(bounds: Sequence[float]) -> str:
    return " ".join(f"{value:.10g}" for value in bounds)
