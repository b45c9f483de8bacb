"""Write a strip as a plain GeoTIFF, some columns at a time, as they come."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.windows import Window

from rsupres.grid import Grid
from rsupres.output.tiff.creation import raw_options
from rsupres.output.tiff.gdal_errors import check_room, translate_gdal_errors
from rsupres.output.tiff.geotiff import open_new
from rsupres.output.tiff.verify import check_blocks


class StripWriter:
    """An open file that takes columns from left to right.

    What it writes is read as if `rsupres.output.tiff.geotiff.write_strip` had written
    it. Any thread may close it.
    """

    def __init__(
        self, path: Path, grid: Grid, n_bands: int, dtype: str, nodata: float | None
    ) -> None:
        """Create the file.

        Args:
            path: with any suffix; replaced if it exists.
            grid: frame of its rows.
            n_bands: how many bands it has.
            dtype: of the pixels, a numpy name.
            nodata: value of invalid pixels, None for none.

        Raises:
            ResourceError: the disk is full, or writing fails otherwise.
        """
        kind = np.dtype(dtype)
        self._path = path
        self._n_bytes = grid.height * grid.width * n_bands * kind.itemsize
        self._height = grid.height
        self._col = 0
        self._is_masked = False
        check_room(path, self._n_bytes)
        with translate_gdal_errors(path, self._n_bytes):
            options = raw_options(grid.width)
            self._dataset = open_new(path, grid, n_bands, dtype, nodata, options)

    def write(
        self, pixels: NDArray[np.generic], valid: NDArray[np.bool_] | None = None
    ) -> None:
        """Write the next columns.

        Args:
            pixels: (c, H, W) in the type of the file.
            valid: (1, H, W) bool; None when all are valid. Stored only without nodata.

        Raises:
            ResourceError: the disk is full, or writing fails otherwise.
        """
        width = pixels.shape[2]
        with (
            translate_gdal_errors(self._path, self._n_bytes),
            rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        ):
            place = Window(self._col, 0, width, self._height)
            self._dataset.write(pixels, window=place)
            if self._dataset.nodata is None:
                self._write_mask(valid, place)
        self._col += width

    def _write_mask(self, valid: NDArray[np.bool_] | None, place: Window) -> None:
        is_hidden = valid is not None and not valid.all()
        if is_hidden and not self._is_masked and self._col:
            before = np.ones((self._height, self._col), bool)
            self._dataset.write_mask(before, Window(0, 0, self._col, self._height))
        self._is_masked = self._is_masked or is_hidden
        if self._is_masked:
            shown = np.ones((self._height, place.width), bool)
            self._dataset.write_mask(shown if valid is None else valid[0], place)

    def finish(self) -> None:
        """Close the file, and check that all of it is on disk.

        Raises:
            ResourceError: the disk is full, or writing fails otherwise.
        """
        with translate_gdal_errors(self._path, self._n_bytes):
            self._dataset.close()
        check_blocks(self._path, self._n_bytes)

    def close(self) -> None:
        """Close the file as it is."""
        self._dataset.close()
