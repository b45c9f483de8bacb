"""Write rows of an output, some columns at a time, as they come, and read them again.

`StripWriter` writes them as they are, `PacketWriter` as the blocks of a COG together
with their rows of the next overview.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.windows import Window

from rsupres.grid import Grid, PixelWindow
from rsupres.output.atomic import publishing
from rsupres.output.damage.seals import sealed
from rsupres.output.tiff.creation import packet_options, raw_options
from rsupres.output.tiff.gdal_errors import check_room, translate_gdal_errors
from rsupres.output.tiff.geotiff import StripFile, open_new, unreadable
from rsupres.output.tiff.profile import BLOCK, OutputFormat
from rsupres.output.tiff.verify import check_blocks
from rsupres.raster.open import first_line
from rsupres.raster.virtual import as_dataset

_ANYWHERE = Affine.scale(1, -1)
COLS = 4 * BLOCK  # columns that are packed together, which bounds the memory


class StripWriter:
    """An open file that takes columns from left to right.

    What it writes is read as if `rsupres.output.tiff.geotiff.write_strip` had written
    it. Any thread may close it.
    """

    def __init__(
        self,
        path: Path,
        grid: Grid,
        n_bands: int,
        dtype: str,
        nodata: float | None,
        options: Mapping[str, object] | None = None,
    ) -> None:
        """Create the file.

        Args:
            path: with any suffix; replaced if it exists.
            grid: frame of its rows.
            n_bands: how many bands it has.
            dtype: of the pixels, a numpy name.
            nodata: value of invalid pixels, None for none.
            options: creation options; None = those of `write_strip`.

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
            chosen = raw_options(grid.width) if options is None else options
            self._dataset = open_new(path, grid, n_bands, dtype, nodata, chosen)

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


class PacketWriter:
    """Two open files: rows as blocks of a COG, and the same rows of the next overview.

    They take columns from left to right, an even number of them each time.
    """

    def __init__(
        self,
        path: Path,
        half_path: Path,
        grid: Grid,
        n_bands: int,
        form: OutputFormat,
        stack: ExitStack,
    ) -> None:
        """Create the files.

        Args:
            path: of the packet.
            half_path: of the rows of the overview, which are not compressed.
            grid: frame of the rows; height and width are even.
            n_bands: how many bands they have.
            form: how the output is stored.
            stack: publishes the overview and then the packet when it ends.

        Raises:
            ResourceError: the disk is full, or writing fails otherwise.
        """
        window = PixelWindow(0, 0, grid.height // 2, grid.width // 2)
        self._nodata = form.nodata
        self._writers = []
        for file, frame, options in (
            (path, grid, packet_options(form)),
            (half_path, grid.crop(window), None),
        ):
            into = publishing if options is None else sealed
            part = stack.enter_context(into(file))
            writer = StripWriter(part, frame, n_bands, form.dtype, form.nodata, options)
            stack.callback(writer.close)
            self._writers.append(writer)

    def write(
        self, pixels: NDArray[np.generic], valid: NDArray[np.bool_] | None
    ) -> None:
        """Write the next columns.

        Args:
            pixels: (c, H, W) in the type of the output, W even.
            valid: (1, H, W) bool; None when all are valid.

        Raises:
            ResourceError: the disk is full, or writing fails otherwise.
        """
        whole, half = self._writers
        whole.write(pixels, valid)
        half.write(halved(pixels, self._nodata))

    def finish(self) -> None:
        """Close the files, and check that all of them is on disk.

        Raises:
            ResourceError: the disk is full, or writing fails otherwise.
        """
        for writer in self._writers:
            writer.finish()


def halved(pixels: NDArray[np.generic], nodata: float | None) -> NDArray[np.generic]:
    """Return the next overview, as GDAL averages it.

    Args:
        pixels: (c, H, W), H and W even.
        nodata: value of pixels that count for no mean; None = there is none.
    """
    n_bands, height, width = pixels.shape
    if nodata is not None and (pixels.min() > nodata or pixels.max() < nodata):
        nodata = None  # nor can a mean be, and GDAL is four times as fast
    with as_dataset(pixels, _ANYWHERE, None, nodata) as dataset:
        dataset.build_overviews([2], Resampling.average)
        half: NDArray[np.generic] = dataset.read(
            out_shape=(n_bands, height // 2, width // 2)
        )
    return half


def write_half(
    packet: StripFile, path: Path, grid: Grid, n_bands: int, form: OutputFormat
) -> None:
    """Write the rows of the next overview of a packet, not compressed.

    Args:
        packet: a file of rows.
        path: to write.
        grid: frame of the rows of the overview.
        n_bands: how many bands they have.
        form: how the output is stored.

    Raises:
        InputError: the packet is damaged.
        ResourceError: the disk is full.
    """
    n_cols = 2 * grid.width
    with ExitStack() as stack:
        part = stack.enter_context(publishing(path))
        rows = StripWriter(part, grid, n_bands, form.dtype, form.nodata)
        stack.callback(rows.close)
        for left in range(0, n_cols, COLS):
            width = min(COLS, n_cols - left)
            place = PixelWindow(packet.top, left, packet.height, width)
            rows.write(halved(read_rows([packet], place)[0], form.nodata))
        rows.finish()


def read_rows(
    files: Sequence[StripFile], window: PixelWindow
) -> tuple[NDArray[np.generic], NDArray[np.bool_] | None]:
    """Read a window of files that lie one below the other.

    Args:
        files: one or more, which hold all rows of the window.
        window: of pixels.

    Returns:
        Pixels (c, H, W), and the valid mask (1, H, W), None where no file has one.

    Raises:
        InputError: a file is damaged.
    """
    pixels = valid = None
    for path, top, height, _, has_mask in files:
        first, last = max(window.row, top), min(window.row_stop, top + height)
        place = Window(window.col, first - top, window.width, last - first)
        rows = slice(first - window.row, last - window.row)
        with rasterio.open(path) as dataset:
            if pixels is None:
                shape = (dataset.count, window.height, window.width)
                pixels = np.empty(shape, dataset.dtypes[0])
            try:
                dataset.read(window=place, out=pixels[:, rows])
                mask = dataset.dataset_mask(window=place) > 0 if has_mask else None
            except RasterioError as error:
                raise unreadable(path, first_line(error)) from error
            if mask is not None:
                if valid is None:
                    valid = np.ones((1, window.height, window.width), bool)
                valid[0, rows] = mask
    assert pixels is not None
    return pixels, valid
