"""Try on a few pixels whether an output can be written as asked, before the work."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import rasterio
import rasterio.shutil
from rasterio.errors import RasterioError
from rasterio.io import MemoryFile
from rasterio.warp import transform as transform_points

from rsupres.errors import InputError
from rsupres.grid import Grid, PixelWindow
from rsupres.output.tiff.creation import output_options
from rsupres.output.tiff.gdal_errors import GDAL_ERRORS, gdal_messages
from rsupres.output.tiff.profile import OutputFormat
from rsupres.raster.open import first_line

_SIDE = 16  # pixels of the file that is tried
_MISPLACED = 0.01  # pixels by which a CRS may move when it is stored


def check_format(form: OutputFormat, n_bands: int, grid: Grid) -> None:
    """Refuse what a file cannot hold: creation options, types, values, the CRS.

    Writes a few pixels in memory.

    Args:
        form: how the output is stored.
        n_bands: bands of the output.
        grid: its frame.

    Raises:
        InputError: the driver refuses, ignores or changes something.
    """
    sides = min(_SIDE, grid.height), min(_SIDE, grid.width)
    tried = grid.crop(PixelWindow(0, 0, *sides))
    for problem in _problems(form, n_bands, tried):
        raise InputError(
            f"{form.driver} cannot be written as asked ({problem}); change the "
            "creation options, the driver or the type.",
            remedies=("co", "driver", "dtype"),
        )


def _problems(form: OutputFormat, n_bands: int, grid: Grid) -> Iterator[str]:
    """Yield the faults of a file of a few pixels, in order."""
    # GDAL does not report errors of other threads.
    options = output_options(form) | {"NUM_THREADS": "1"}
    pixels = np.zeros((n_bands, grid.height, grid.width), form.dtype)
    kind = {
        "driver": "GTiff",
        "count": n_bands,
        "height": grid.height,
        "width": grid.width,
        "dtype": form.dtype,
        "nodata": form.nodata,
        "crs": grid.crs,
        "transform": grid.transform,
    }
    with MemoryFile(ext=".tif") as source, MemoryFile(ext=".tif") as target:
        with rasterio.open(source.name, "w", **kind) as tiny:
            tiny.write(pixels)
        with rasterio.Env(), gdal_messages() as messages:
            try:
                rasterio.shutil.copy(
                    source.name, target.name, driver=form.driver, **options
                )
            except GDAL_ERRORS as error:
                messages.append(first_line(error))
        yield from messages
        # Under another name, so that no .aux.xml says what the file does not.
        with MemoryFile(bytes(target.getbuffer()), ext=".tif") as alone:
            _check_frame(alone, form, grid)


def _check_frame(file: MemoryFile, form: OutputFormat, grid: Grid) -> None:
    """Refuse a file that lies elsewhere than the frame.

    Raises:
        InputError: its pixels or its CRS are others.
    """
    with file.open() as dataset:
        found = Grid(dataset.crs, dataset.transform, dataset.height, dataset.width)
    size = (grid.height, grid.width)
    if (found.height, found.width) != size or found.transform != grid.transform:
        chosen = ", ".join("=".join(pair) for pair in form.creation.items())
        raise InputError(
            f"resamples the output to {found.crs} ({chosen}); leave this out and warp "
            "the output, for example with gdalwarp.",
            argument="co",
        )
    if not _is_same_place(grid, found):
        name = grid.crs.to_string() if grid.crs else "none"
        raise InputError(
            f"GeoTIFF cannot hold the CRS of the scene, {name[:80]}; "
            "reproject the scene first, for example with gdalwarp -t_srs EPSG:4326 "
            "FILE WARPED.tif."
        )


def _is_same_place(grid: Grid, other: Grid) -> bool:
    """Return whether the corner of a frame is where that of another one is."""
    if grid.crs == other.crs:
        return True
    if grid.crs is None or other.crs is None:
        return False
    x, y = grid.transform @ (grid.width, grid.height)
    try:
        there_x, there_y = transform_points(grid.crs, other.crs, [x], [y])
    except RasterioError:
        return False
    side = math.hypot(grid.transform.a, grid.transform.d)
    return math.dist((x, y), (there_x[0], there_y[0])) < _MISPLACED * side
