"""Check that a written TIFF is whole, and compute how many bytes it can take.

On a full disk GDAL reports most failures, but not all, so every file is opened again
after writing. This module writes nothing.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import rasterio
from rasterio.errors import RasterioError
from rasterio.windows import Window

from rsupres.errors import ResourceError
from rsupres.output.tiff.gdal_errors import (
    room_left,
    translate_gdal_errors,
    write_failure,
)
from rsupres.output.tiff.profile import BLOCK, OutputFormat, OutputMeta
from rsupres.raster.open import first_line, stored_blocks

_DECODED = 64  # blocks of a file that are decoded to find damage, about


def written_bytes(meta: OutputMeta, form: OutputFormat) -> int:
    """Return how many bytes the writing takes at most, if pixels do not compress.

    A COG holds a third more in overviews, and as much again in temporary files.

    Args:
        meta: description of the output.
        form: how it is stored.
    """
    n_pixels = meta.grid.height * meta.grid.width * len(meta.descriptions)
    n_bytes = n_pixels * np.dtype(form.dtype).itemsize
    return n_bytes * 5 // 3 if form.driver == "COG" else n_bytes


def check_output(part: Path, meta: OutputMeta, form: OutputFormat) -> None:
    """Check that an output can be read back and is whole.

    Args:
        part: the file.
        meta: the description by which it was written.
        form: how it was stored.

    Raises:
        ResourceError: it is not whole, or differs from the description.
    """
    n_bytes = written_bytes(meta, form)
    given = {key.upper(): value.upper() for key, value in form.creation.items()}
    is_sparse = given.get("SPARSE_OK") in ("TRUE", "YES", "ON", "1")
    check_blocks(part, n_bytes, is_sparse)
    with translate_gdal_errors(part, n_bytes), rasterio.open(part) as dataset:
        frame = dataset.height, dataset.width, dataset.count, dataset.dtypes[0]
        wanted = meta.grid.height, meta.grid.width, len(meta.descriptions), form.dtype
        transform = dataset.transform
        n_overviews = len(dataset.overviews(1))
        last = Window(dataset.width - 1, dataset.height - 1, 1, 1)
        dataset.read(window=last)
    if frame != wanted or transform != meta.grid.transform:
        raise ResourceError(
            f"{part}: the file written is {frame}, {transform[:6]}, and should be "
            f"{wanted}, {meta.grid.transform[:6]}; check the creation options.",
            remedies=("co",),
        )
    if room_left(part) < n_bytes:
        with translate_gdal_errors(part, n_bytes):
            _read_through(part, n_overviews)


def find_damage(path: Path) -> str | None:
    """Return why an output that exists cannot be used, None when it is whole.

    Every block must lie inside the file; some of them, and of each overview, are
    decoded.

    Args:
        path: of a GeoTIFF.
    """
    size = path.stat().st_size
    try:
        with rasterio.open(path) as dataset:
            blocks = list(stored_blocks(dataset)) if dataset.driver == "GTiff" else []
            if any(block and block[0] + block[1] > size for block in blocks):
                return "it is truncated"
            n_overviews = len(dataset.overviews(1))
        for level in (None, *range(n_overviews)):
            chosen = {} if level is None else {"overview_level": level}
            with rasterio.open(path, **chosen) as dataset:
                windows = [window for _, window in dataset.block_windows(1)]
                step = math.ceil(len(windows) / _DECODED)
                for window in (*windows[::step], windows[-1]):
                    dataset.read(window=window)
    except (RasterioError, OSError) as error:
        return f"it cannot be read: {first_line(error)}"
    return None


def _read_through(part: Path, n_overviews: int) -> None:
    """Decode every block of a file, where the disk is nearly full.

    GDAL buffers its writes; when the disk fills up, any block can be damaged, which
    shows when it is decoded.
    """
    for level in (None, *range(n_overviews)):
        chosen = {} if level is None else {"overview_level": level}
        with rasterio.open(part, **chosen) as dataset:
            for row in range(0, dataset.height, BLOCK):
                n_rows = min(BLOCK, dataset.height - row)
                dataset.read(window=Window(0, row, dataset.width, n_rows))


def check_blocks(path: Path, n_bytes: int, is_sparse: bool = False) -> None:
    """Check that every block of a TIFF is stored, and inside the file.

    Args:
        path: the file.
        n_bytes: its size at most, for the message.
        is_sparse: blocks of nodata may be left out.

    Raises:
        ResourceError: a block is missing.
    """
    size = path.stat().st_size
    with translate_gdal_errors(path, n_bytes), rasterio.open(path) as dataset:
        for block in stored_blocks(dataset):
            if block is None and is_sparse:
                continue
            if block is None or block[0] + block[1] > size:
                raise ResourceError(
                    write_failure(path, n_bytes, ["the file is not whole"])
                )
