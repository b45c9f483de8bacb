"""Open rasters with GDAL, and refuse at once those that cannot be used.

Files, folders and zips of Sentinel-2 products are found by name (`locate`). All that
the header and a few pixels show is checked before a long job starts.
`rsupres.raster.dataset` reads the pixels.
"""

from __future__ import annotations

import logging
import math
import os
import re
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, Interleaving
from rasterio.env import get_gdal_config, set_gdal_config
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window

from rsupres.errors import InputError
from rsupres.grid import Grid
from rsupres.products.safe import is_metadata_name
from rsupres.raster.virtual import lost_sources

CACHE_BYTES = 64 * 2**20  # GDAL blocks in memory
ALPHA_SAMPLE_PIXELS = 250_000
_SHOWN_PARTS = 8  # of a container, in messages

logger = logging.getLogger(__name__)


def open_dataset(gdal_name: str, name: str) -> rasterio.DatasetReader:
    """Return an open dataset.

    Args:
        gdal_name: the name that GDAL opens, as `locate` returns it.
        name: as the user gave it, for messages.

    Raises:
        InputError: GDAL cannot open it.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            return rasterio.open(gdal_name)
    except UnicodeEncodeError as error:
        shown = name.encode("utf-8", "backslashreplace").decode()
        raise InputError(
            f"{shown}: the name is not UTF-8, which GDAL needs; rename the file."
        ) from error
    except RasterioError as error:
        reason = first_line(error)
        if "not recognized as being in a supported file format" in reason:
            reason = "not a raster that GDAL can read"
        elif os.path.isfile(gdal_name):
            reason = f"truncated or damaged ({reason})"
        raise InputError(f"{name}: {reason}.") from error


@contextmanager
def bounded_cache(size: int = CACHE_BYTES) -> Iterator[None]:
    """Limit GDAL's block cache to `size` bytes inside the context, restored after it.

    The limit holds for the whole process: enter this once, outside of all threads.
    """
    before = get_gdal_config("GDAL_CACHEMAX")
    with rasterio.Env():
        set_gdal_config("GDAL_CACHEMAX", size)
        try:
            yield
        finally:
            set_gdal_config("GDAL_CACHEMAX", before)


def check_kind(
    dataset: rasterio.DatasetReader, name: str, *, is_classes: bool = False
) -> None:
    """Refuse a raster whose pixels are not measurements.

    Args:
        dataset: open.
        name: as the user gave it, for messages.
        is_classes: codes of classes are wanted, so a palette is allowed.

    Raises:
        InputError: several rasters or no bands, complex numbers, or a palette.
    """
    parts = dataset.subdatasets
    if len(parts) > 1 or (parts and dataset.count == 0):
        shown = "; ".join(parts[:_SHOWN_PARTS])
        rest = f"; and {len(parts) - _SHOWN_PARTS} more"
        raise InputError(
            f"{name}: holds {len(parts)} rasters; name one of them: {shown}"
            f"{rest if len(parts) > _SHOWN_PARTS else ''}."
        )
    if dataset.count == 0:
        raise InputError(f"{name}: the raster has no bands.")
    if any(kind.startswith("complex") for kind in dataset.dtypes):
        raise InputError(
            f"{name}: complex numbers ({dataset.dtypes[0]}) cannot be sharpened; "
            "give the amplitude."
        )
    for band, pair in enumerate(zip(dataset.scales, dataset.offsets, strict=True), 1):
        if not all(map(math.isfinite, pair)):
            raise InputError(
                f"{name}: band {band} has scale {pair[0]:g} and offset {pair[1]:g}, "
                "by which its numbers mean nothing; give others in a virtual copy, for "
                "example with gdal_translate -of VRT -a_scale 1 -a_offset 0 FILE "
                "COPY.vrt, and use that."
            )
    if not is_classes and ColorInterp.palette in _colors(dataset):
        raise InputError(
            f"{name}: the pixels are palette entries, not colours; expand them first: "
            "gdal_translate -expand rgb IN OUT."
        )


def find_grid(dataset: rasterio.DatasetReader, name: str, needs_crs: bool) -> Grid:
    """Return the raster's frame; any affine transform is accepted.

    Args:
        dataset: open.
        name: as the user gave it, for messages.
        needs_crs: refuse a raster without CRS or transform.

    Raises:
        InputError: no CRS or no transform though they are needed, or one without area.
    """
    transform = dataset.transform
    is_placed = transform != rasterio.Affine.identity()
    if needs_crs and not is_placed and (means := _other_georeference(dataset)):
        kind, option = means
        raise InputError(
            f"{name}: no transform but {kind}; georeference it first, for example "
            f"with gdalwarp {option}FILE WARPED.tif."
        )
    if needs_crs and not dataset.crs:
        raise InputError(
            f"{name}: the file has no CRS; give one in a virtual copy, for example "
            "with gdal_translate -of VRT -a_srs EPSG:32633 FILE COPY.vrt, and use that."
        )
    if needs_crs and not is_placed:
        raise InputError(
            f"{name}: no transform; georeference it first, for example with gdalwarp."
        )
    if transform.determinant == 0:
        raise InputError(f"{name}: transform {tuple(transform)[:6]} has no area.")
    return Grid(dataset.crs, transform, dataset.height, dataset.width)


def _other_georeference(dataset: rasterio.DatasetReader) -> tuple[str, str] | None:
    """Return how a raster without a transform is placed, with gdalwarp's option."""
    if dataset.gcps[0]:
        return "ground control points", ""
    if dataset.rpcs is not None:
        return "rational polynomial coefficients (RPC)", "-rpc "
    if dataset.tags(ns="GEOLOCATION"):
        return "arrays of coordinates (geolocation)", "-geoloc "
    return None


def read_bands(
    dataset: rasterio.DatasetReader, bands: Sequence[int], **how: object
) -> NDArray[np.generic]:
    """Read bands (c, h, w), also where their types differ, which rasterio refuses.

    Args:
        dataset: open.
        bands: from 1, in the order wanted.
        how: as `rasterio` takes it, for one band: `window`, `out_shape` (h, w),
            `resampling`.

    Returns:
        In the type that holds every band of the file.
    """
    kind = np.result_type(*(np.dtype(name) for name in dataset.dtypes))
    if len(set(dataset.dtypes)) == 1:
        if (shape := how.get("out_shape")) is not None:
            how["out_shape"] = (len(bands), *shape)  # type: ignore[misc]
        return np.asarray(dataset.read(list(bands), **how))
    planes = [dataset.read(band, **how).astype(kind) for band in bands]
    return np.stack(planes)


def check_complete(dataset: rasterio.DatasetReader, name: str) -> None:
    """Refuse a file whose last pixels are missing.

    Args:
        dataset: open.
        name: as the user gave it, for messages.

    Raises:
        InputError: they cannot be read, blocks lie beyond the end of the file, or a
            virtual raster reads files that do not exist.
    """
    if lost := lost_sources(dataset.name):
        raise InputError(
            f"{name}: {lost[0]}, which it reads, does not exist"
            + (f", nor do {len(lost) - 1} more." if len(lost) > 1 else ".")
        )
    last = Window(dataset.width - 1, dataset.height - 1, 1, 1)
    try:
        read_bands(dataset, dataset.indexes, window=last)
    except (RasterioError, OSError) as error:
        raise InputError(
            f"{name}: truncated or damaged: its last pixels cannot be read "
            f"({first_line(error)})."
        ) from error
    if dataset.driver == "GTiff" and os.path.isfile(dataset.name):
        size = os.path.getsize(dataset.name)
        blocks = (block for block in stored_blocks(dataset, 4096) if block)
        end = max((offset + length for offset, length in blocks), default=0)
        if end > size:
            raise InputError(
                f"{name}: truncated: {size} bytes, but pixels are stored up to byte "
                f"{end}; copy or download it again."
            )


def stored_blocks(
    dataset: rasterio.DatasetReader, max_blocks: int | None = None
) -> Iterator[tuple[int, int] | None]:
    """Yield the place of each block in a TIFF file: (offset, length) in bytes.

    None stands for a block that is not stored, which reads as nodata.

    Args:
        dataset: an open GeoTIFF.
        max_blocks: look at about this many blocks of a band, evenly spread; None =
            at all.
    """
    is_one_plane = dataset.interleaving is Interleaving.pixel
    for band in range(1, 2 if is_one_plane else dataset.count + 1):
        block_height, block_width = dataset.block_shapes[band - 1]
        n_cols = math.ceil(dataset.width / block_width)
        n_blocks = math.ceil(dataset.height / block_height) * n_cols
        for index in range(0, n_blocks, max(1, n_blocks // (max_blocks or n_blocks))):
            row, col = divmod(index, n_cols)
            offset, length = (
                dataset.get_tag_item(f"BLOCK_{part}_{col}_{row}", "TIFF", bidx=band)
                for part in ("OFFSET", "SIZE")
            )
            yield (int(offset), int(length)) if offset and length else None


def find_alpha(dataset: rasterio.DatasetReader, name: str) -> int | None:
    """Return the alpha band, from 1, when it is a mask; None otherwise.

    Four-band aerial images are often stored as RGBA though the fourth band is near
    infrared. A mask is 0 or the largest number but for soft edges, whatever its name;
    a picture has most of its other pixels in between.

    Args:
        dataset: open.
        name: as the user gave it, for messages.
    """
    colors = _colors(dataset)
    if ColorInterp.alpha not in colors:
        return None
    band = colors.index(ColorInterp.alpha) + 1
    label = (dataset.descriptions[band - 1] or "").strip().lower()
    if "infrared" in label or re.fullmatch(r"red|green|blue|nir\d?", label):
        return None
    step = max(1, int(math.sqrt(dataset.width * dataset.height / ALPHA_SAMPLE_PIXELS)))
    shape = (math.ceil(dataset.height / step), math.ceil(dataset.width / step))
    sample = dataset.read(band, out_shape=shape)
    shown = sample != 0
    between = shown & (sample != sample.max())
    if np.count_nonzero(between) > np.count_nonzero(shown) // 2:
        logger.warning(
            "%s: band %d is declared alpha but holds a picture; it is used as a band.",
            name,
            band,
        )
        return None
    return band


def _colors(dataset: rasterio.DatasetReader) -> tuple[ColorInterp, ...]:
    return tuple(
        ColorInterp[color_name(dataset, band)] for band in range(1, dataset.count + 1)
    )


def color_name(dataset: rasterio.DatasetReader, band: int) -> str:
    """Return the name of a band's colour; "undefined" where rasterio has none.

    Args:
        dataset: open.
        band: from 1.
    """
    try:
        return str(dataset.colorinterp[band - 1].name)
    except ValueError:
        return "undefined"


def first_line(error: BaseException) -> str:
    """Return the first line of the message that GDAL gave, without its wrapping."""
    text = str(error.__cause__ or error).strip() or type(error).__name__
    return text.splitlines()[0].rstrip(".")


_FOLDERS_UP = 4  # from a folder inside a product to the product
_RASTERS = (".tif", ".tiff", ".jp2", ".vrt", ".img")


def locate(path: str) -> str:
    """Return the name that GDAL opens for a path.

    Files, URLs and GDAL's own names (`/vsi...`, `DRIVER:...`) stay as they are. For
    a `.SAFE` folder or its zip it is the metadata file, for another zip its only
    raster.

    Raises:
        InputError: a local path does not exist, or is a folder or zip without a
            Sentinel-2 product in it.
    """
    if os.path.isdir(path):
        found = [name for name in sorted(os.listdir(path)) if is_metadata_name(name)]
        if not found:
            around = _product_around(path)
            raise InputError(
                f"{path}: a folder without a Sentinel-2 product (MTD_MSIL1C.xml or "
                "MTD_MSIL2A.xml); name "
                + (f"the product around it, {around}, or " if around else "")
                + "a file in it."
            )
        return os.path.join(path, found[0])
    if os.path.exists(path):
        if not os.access(path, os.R_OK):
            raise InputError(f"{path}: cannot be read; check its permissions.")
        if not os.path.isfile(path):
            raise InputError(f"{path}: a device, a pipe or a socket; name a file.")
        return _locate_in_zip(path) if path.lower().endswith(".zip") else path
    if is_missing(path):
        raise InputError(f"{path or 'an empty name'}: no such file.")
    return path


def is_missing(path: str) -> bool:
    """Return whether a name is that of a local file, and nothing is there.

    Addresses and names that GDAL alone understands are not looked up.
    """
    is_local = not (path.startswith("/vsi") or ":" in path.lstrip("/"))
    return is_local and not os.path.exists(path)


def _product_around(path: str) -> str | None:
    """Return the product that a folder is a part of."""
    for _ in range(_FOLDERS_UP):
        path = os.path.dirname(os.path.abspath(path))
        if any(is_metadata_name(name) for name in os.listdir(path)):
            return path
    return None


def _locate_in_zip(path: str) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = sorted(archive.namelist())
    except (zipfile.BadZipFile, OSError) as error:
        raise InputError(f"{path}: damaged or no zip file ({error}).") from error
    inside = f"/vsizip/{os.path.abspath(path)}/"
    for name in names:
        if is_metadata_name(name.rsplit("/", 1)[-1]):
            return inside + name
    rasters = [name for name in names if name.lower().endswith(_RASTERS)]
    if len(rasters) == 1:
        return inside + rasters[0]
    raise InputError(
        f"{path}: a zip without a Sentinel-2 product and with {len(rasters)} rasters; "
        f"choose one by the name {inside}FILE."
    )


def usual_band_name(name: str) -> str:
    """Return B04 for B4 and so on; other names unchanged."""
    code = re.fullmatch(r"B(\d)", name)
    return f"B0{code.group(1)}" if code else name
