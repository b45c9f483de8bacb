"""Write strips, and assemble them into the final GeoTIFF or COG with its tags.

A strip is written fast and uncompressed, as it is read once and deleted. At the end, a
virtual raster over the strips is copied once into the output, which compresses on all
cores; `rsupres.output.tiff.packets` makes large COGs. Nothing is renamed here: callers
give a temporary name and publish the file. `rsupres.output.tiff.verify` checks what was
written.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import rasterio
import rasterio.shutil
from numpy.typing import NDArray
from rasterio.enums import MaskFlags
from rasterio.errors import RasterioError
from rasterio.io import MemoryFile

from rsupres.errors import InputError
from rsupres.grid import Grid, PixelWindow
from rsupres.output.tiff.creation import (
    PREDICTABLE,
    cog_options,
    output_options,
    raw_options,
)
from rsupres.output.tiff.gdal_errors import check_room, translate_gdal_errors
from rsupres.output.tiff.profile import OutputFormat, OutputMeta
from rsupres.output.tiff.verify import check_blocks, check_output, written_bytes
from rsupres.raster.open import first_line
from rsupres.raster.virtual import VirtualBand, VirtualSource, virtual_raster

LEFTOVERS = (".ovr.tmp", ".msk.tmp", ".msk.ovr.tmp", ".msk", ".aux.xml")

logger = logging.getLogger(__name__)


class StripFile(NamedTuple):
    """Rows of the output that a strip covers, and the shape of its blocks."""

    path: Path
    top: int
    height: int
    block: tuple[int, int]
    has_mask: bool


def write_strip(
    path: Path,
    pixels: NDArray[np.generic],
    grid: Grid,
    valid: NDArray[np.bool_] | None = None,
    nodata: float | None = None,
) -> None:
    """Write rows of the output as a plain GeoTIFF, quickly.

    Uncompressed: measured on 16000 x 16000 x 4 uint16, ZSTD level 1 saves a quarter
    of the space but costs three times the time, here and again on assembling.

    Args:
        path: with any suffix; replaced if it exists.
        pixels: (c, H, W) in the output's type.
        grid: frame of these rows.
        valid: (1, H, W) bool; None when all are valid. Stored only without nodata.
        nodata: value of invalid pixels, None for none.

    Raises:
        ResourceError: the disk is full, or writing fails otherwise.
    """
    check_room(path, pixels.nbytes)
    kind = pixels.dtype.name
    with created(
        path, grid, len(pixels), kind, nodata, raw_options(grid.width)
    ) as dataset:
        _write_pixels(dataset, pixels, valid)


def write_whole(
    path: Path,
    pixels: NDArray[np.generic],
    meta: OutputMeta,
    form: OutputFormat,
    valid: NDArray[np.bool_] | None = None,
) -> None:
    """Write a small raster at once, as a GeoTIFF.

    Args:
        path: replaced if it exists; not synced.
        pixels: (c, H, W) in the type of `form`.
        meta: description of the file.
        form: how it is stored; DEFLATE unless it says otherwise.
        valid: (1, H, W) bool; stored as an internal mask without a nodata value.

    Raises:
        ResourceError: the disk is full, or writing fails otherwise.
    """
    # Blocks of a few rows: half the size on pictures, and quicker to read in part.
    options: dict[str, object] = {"zlevel": "1", "bigtiff": "IF_SAFER", "alpha": "NO"}
    options |= {key.lower(): value for key, value in form.creation.items()}
    compress = str(options.setdefault("compress", "DEFLATE"))
    if compress.upper() in PREDICTABLE and pixels.dtype.itemsize <= 8:
        options.setdefault("predictor", "3" if pixels.dtype.kind == "f" else "2")
    options["photometric"] = "PALETTE" if meta.palette else "MINISBLACK"
    if tuple(meta.colorinterp[:3]) == ("red", "green", "blue"):
        options["photometric"] = "RGB"
    kind, grid = pixels.dtype.name, meta.grid
    with created(path, grid, len(pixels), kind, form.nodata, options) as dataset:
        if meta.palette:
            dataset.write_colormap(1, dict(meta.palette))
        _write_pixels(dataset, pixels, valid)
        dataset.descriptions = tuple(meta.descriptions)
        pairs = zip(meta.scales, meta.offsets, strict=True)
        if any(pair != (1.0, 0.0) for pair in pairs):
            dataset.scales, dataset.offsets = tuple(meta.scales), tuple(meta.offsets)
        dataset.update_tags(**meta.tags)
        if meta.units:
            dataset.units = tuple(unit or "" for unit in meta.units)
        for band, domains in enumerate(meta.band_tags, 1):
            for domain, tags in domains.items():
                dataset.update_tags(band, ns=domain or None, **tags)


@contextmanager
def created(
    path: Path,
    grid: Grid,
    n_bands: int,
    dtype: str,
    nodata: float | None,
    options: Mapping[str, object],
) -> Iterator[rasterio.io.DatasetWriter]:
    """Create a GeoTIFF for pixels; check at the end that all of it is on disk.

    Args:
        path: replaced if it exists.
        grid: its frame.
        n_bands: how many bands it has.
        dtype: numpy name of their type.
        nodata: value of invalid pixels, None for none.
        options: creation options.

    Yields:
        The file, open for writing.

    Raises:
        ResourceError: the disk is full, or writing fails otherwise.
    """
    n_bytes = grid.height * grid.width * n_bands * np.dtype(dtype).itemsize
    with (
        translate_gdal_errors(path, n_bytes),
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        open_new(path, grid, n_bands, dtype, nodata, options) as dataset,
    ):
        yield dataset
    check_blocks(path, n_bytes)


def open_new(
    path: Path,
    grid: Grid,
    n_bands: int,
    dtype: str,
    nodata: float | None,
    options: Mapping[str, object],
) -> rasterio.io.DatasetWriter:
    """Return a new GeoTIFF, open for writing.

    Arguments and result are those of `created`.

    Raises:
        RasterioError: it cannot be created.
    """
    dataset: rasterio.io.DatasetWriter = rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=n_bands,
        height=grid.height,
        width=grid.width,
        dtype=dtype,
        nodata=nodata,
        crs=grid.crs,
        transform=grid.transform,
        **options,
    )
    return dataset


def _write_pixels(
    dataset: rasterio.io.DatasetWriter,
    pixels: NDArray[np.generic],
    valid: NDArray[np.bool_] | None,
) -> None:
    """Write pixels, and a mask of the valid ones if the file has no nodata value."""
    dataset.write(pixels)
    if dataset.nodata is None and valid is not None and not valid.all():
        dataset.write_mask(valid[0])


def assemble(
    strips: Sequence[Path], meta: OutputMeta, form: OutputFormat, part: Path
) -> None:
    """Put strips, top to bottom, into one tiled GeoTIFF or COG.

    Invalid pixels are nodata or, without a nodata value, an internal mask, whose
    overviews take the nearest pixel. The file is checked after writing.

    Args:
        strips: files of `write_strip`, which together have the output's rows.
        meta: description of the file.
        form: how it is stored.
        part: temporary name of the output; removed on failure.

    Raises:
        InputError: a strip is missing, damaged or does not fit; a creation option is
            unknown to the driver.
        ResourceError: the disk is full, or writing fails otherwise.
    """
    sources = _open_strips(strips, meta, form)
    xml = _join(sources, meta, form)
    options = cog_options(meta, form) if form.driver == "COG" else output_options(form)
    n_bytes = written_bytes(meta, form)
    if form.driver == "COG":
        check_room(part, n_bytes // 5)  # its overviews, uncompressed, before all else
    try:
        with (
            translate_gdal_errors(part, n_bytes),
            rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True, COG_TMP_COMPRESSION="NONE"),
            MemoryFile(xml.encode(), filename="strips.vrt") as memory,
        ):
            rasterio.shutil.copy(memory.name, part, driver=form.driver, **options)
        check_output(part, meta, form)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    finally:  # such as an .aux.xml that says what TIFF cannot: gray in every band
        for suffix in LEFTOVERS:
            part.with_name(part.name + suffix).unlink(missing_ok=True)


def read_tags(path: Path) -> dict[str, str]:
    """Return a raster's tags; none when it cannot be opened."""
    try:
        with rasterio.open(path) as dataset:
            return dict(dataset.tags())
    except RasterioError:
        return {}


def is_cog(path: Path) -> bool:
    """Return whether a raster says that it is a Cloud Optimized GeoTIFF.

    Args:
        path: of a raster that can be opened.
    """
    with rasterio.open(path) as dataset:
        tags: dict[str, str] = dataset.tags(ns="IMAGE_STRUCTURE")
        return tags.get("LAYOUT") == "COG"


def open_strip(path: Path, top: int, n_bands: int, width: int, dtype: str) -> StripFile:
    """Check the frame of a strip and return where it lies.

    Args:
        path: of a file of `write_strip`.
        top: its first row in the output.
        n_bands: that it should have.
        width: that it should have.
        dtype: that it should have.

    Returns:
        The strip, checked.

    Raises:
        InputError: it is missing, damaged or does not fit.
    """
    try:
        with rasterio.open(path) as dataset:
            frame = dataset.count, dataset.width, dataset.dtypes[0]
            is_masked = MaskFlags.per_dataset in dataset.mask_flag_enums[0]
            block = dataset.block_shapes[0]
            strip = StripFile(path, top, dataset.height, block, is_masked)
            n_bytes = 0  # that the pixels of a file like `write_strip`'s take
            if dataset.compression is None:
                n_values = dataset.height * dataset.width * dataset.count
                n_bytes = n_values * np.dtype(dataset.dtypes[0]).itemsize
    except RasterioError as error:
        raise unreadable(path, first_line(error)) from error
    if path.stat().st_size < n_bytes:
        raise unreadable(path, "it is truncated")
    if frame != (n_bands, width, dtype):
        raise InputError(
            f"{path}: this strip holds {frame[0]} bands of {frame[1]} columns, "
            f"{frame[2]}, not {n_bands} of {width}, {dtype}; delete it and run the "
            "same command again."
        )
    return strip


def unreadable(path: Path, why: str) -> InputError:
    """Return the error of a strip, or of rows of an overview, that cannot be read.

    Args:
        path: of its file.
        why: for the message.
    """
    return InputError(
        f"{path}: this strip cannot be read ({why}); delete it and run the same "
        "command again."
    )


def _open_strips(
    strips: Sequence[Path], meta: OutputMeta, form: OutputFormat
) -> list[StripFile]:
    """Check every strip's frame and return where each lies."""
    found: list[StripFile] = []
    top = 0
    for path in strips:
        n_bands, width = len(meta.descriptions), meta.grid.width
        found.append(open_strip(path, top, n_bands, width, form.dtype))
        top += found[-1].height
    if top != meta.grid.height:
        raise InputError(
            f"The {len(strips)} strips hold {top} rows, the output has "
            f"{meta.grid.height}; run the same command again."
        )
    return found


def _join(strips: Sequence[StripFile], meta: OutputMeta, form: OutputFormat) -> str:
    """Return a virtual raster over the strips."""
    width = meta.grid.width

    def sources(band: int | str) -> list[VirtualSource]:
        return [
            VirtualSource(
                str(strip.path),
                band,
                PixelWindow(strip.top, 0, strip.height, width),
                strip.block,
            )
            for strip in strips
        ]

    bands = describe_bands(meta, form, sources)
    is_masked = form.nodata is None and any(strip.has_mask for strip in strips)
    mask = sources("mask,1") if is_masked else []
    return virtual_raster(meta.grid, meta.tags, bands, mask)


def describe_bands(
    meta: OutputMeta,
    form: OutputFormat,
    sources: Callable[[int], Sequence[VirtualSource]],
) -> list[VirtualBand]:
    """Return the bands of an output as those of a virtual raster.

    Args:
        meta: description of the output.
        form: how it is stored.
        sources: returns the files of a band, by its number from 1.
    """
    return [
        VirtualBand(
            dtype=form.dtype,
            sources=sources(number),
            name=name,
            nodata=form.nodata,
            colour=meta.colorinterp[number - 1],
            palette=meta.palette,
            scale=float(meta.scales[number - 1]),
            offset=float(meta.offsets[number - 1]),
            tags=meta.band_tags[number - 1] if meta.band_tags else {},
            unit=meta.units[number - 1] if meta.units else None,
        )
        for number, name in enumerate(meta.descriptions, 1)
    ]
