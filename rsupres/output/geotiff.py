"""Write strips, and assemble them into the final GeoTIFF or COG with its tags.

A strip is written fast and uncompressed, as it is read once and deleted. At the end, a
virtual raster over the strips is copied once into the output, which compresses on all
cores. Nothing is renamed here: callers give a temporary name and publish the file.
`rsupres.output.verify` checks what was written.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
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
from rsupres.output.gdal_errors import (
    GDAL_ERRORS,
    check_room,
    gdal_messages,
    translate_gdal_errors,
)
from rsupres.output.profile import BLOCK, OutputFormat, OutputMeta
from rsupres.output.verify import check_blocks, check_output, written_bytes
from rsupres.raster.open import first_line
from rsupres.raster.virtual import VirtualBand, VirtualSource, virtual_raster

STRIP_ROWS = 64  # SR rows of a block of a strip
PREDICTABLE = ("DEFLATE", "LZW", "ZSTD")
LEFTOVERS = (".ovr.tmp", ".msk.tmp", ".msk.ovr.tmp", ".msk", ".aux.xml")

logger = logging.getLogger(__name__)


class _Strip(NamedTuple):
    """Where a strip lies in the output; rows."""

    path: Path
    top: int
    height: int
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
    options = {
        "photometric": "MINISBLACK",
        "tiled": False,
        "blockysize": STRIP_ROWS,
        "interleave": "band",
        "BIGTIFF": "IF_SAFER",
    }
    with _created(path, pixels, grid, nodata, options) as dataset:
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
    with _created(path, pixels, meta.grid, form.nodata, options) as dataset:
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
def _created(
    path: Path,
    pixels: NDArray[np.generic],
    grid: Grid,
    nodata: float | None,
    options: Mapping[str, object],
) -> Iterator[rasterio.io.DatasetWriter]:
    """Create a GeoTIFF for pixels; check at the end that all of it is on disk."""
    with (
        translate_gdal_errors(path, pixels.nbytes),
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(
            path,
            "w",
            driver="GTiff",
            count=pixels.shape[0],
            height=grid.height,
            width=grid.width,
            dtype=pixels.dtype.name,
            nodata=nodata,
            crs=grid.crs,
            transform=grid.transform,
            **options,
        ) as dataset,
    ):
        yield dataset
    check_blocks(path, pixels.nbytes)


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

    Default: DEFLATE level 1 with a predictor (level 6 makes the file no smaller and
    takes three times the time), blocks of 512, all cores, and for COG overviews by
    average (by nearest for the mask). Invalid pixels are nodata or, without a nodata
    value, an internal mask. The file is checked after writing.

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
    options = _creation(form)
    if meta.palette and form.driver == "COG":
        given = {key.upper() for key in form.creation}
        if not given & {"OVERVIEW_RESAMPLING", "RESAMPLING"}:
            options["OVERVIEW_RESAMPLING"] = "NEAREST"
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


def check_format(form: OutputFormat, n_bands: int) -> None:
    """Refuse creation options that the driver does not take, before the work starts.

    Writes a few pixels in memory.

    Args:
        form: how the output is stored.
        n_bands: bands of the output.

    Raises:
        InputError: the driver refuses or ignores an option, type or value.
    """
    options = _creation(form) | {
        "NUM_THREADS": "1"
    }  # GDAL does not report errors of other threads
    shape = {"count": n_bands, "height": 16, "width": 16}
    kind = {"driver": "GTiff", "dtype": form.dtype, "nodata": form.nodata}
    place = rasterio.Affine(1, 0, 0, 0, -1, 16)
    with MemoryFile() as source, MemoryFile(ext=".tif") as target:
        with rasterio.open(source.name, "w", transform=place, **kind, **shape) as tiny:
            tiny.write(np.zeros((n_bands, 16, 16), form.dtype))
        with rasterio.Env(), gdal_messages() as messages:
            try:
                rasterio.shutil.copy(
                    source.name, target.name, driver=form.driver, **options
                )
            except GDAL_ERRORS as error:
                messages.append(first_line(error))
    for message in messages:
        raise InputError(
            f"{form.driver} cannot be written as asked ({message}); change the "
            "creation options, the driver or the type.",
            remedies=("co", "driver", "dtype"),
        )


def read_tags(path: Path) -> dict[str, str]:
    """Return a raster's tags; none when it cannot be opened."""
    try:
        with rasterio.open(path) as dataset:
            return dict(dataset.tags())
    except RasterioError:
        return {}


def _creation(form: OutputFormat) -> dict[str, str]:
    """Return our creation options, overridden by the user's."""
    given = {key.upper(): str(value) for key, value in form.creation.items()}
    compress = given.get("COMPRESS", "DEFLATE").upper()
    is_cog = form.driver == "COG"
    options = {"COMPRESS": compress, "NUM_THREADS": "ALL_CPUS", "BIGTIFF": "IF_SAFER"}
    if is_cog:
        options |= {"BLOCKSIZE": str(BLOCK), "OVERVIEW_RESAMPLING": "AVERAGE"}
    else:
        options |= {"TILED": "YES", "BLOCKXSIZE": str(BLOCK), "BLOCKYSIZE": str(BLOCK)}
    if compress == "DEFLATE":
        options["LEVEL" if is_cog else "ZLEVEL"] = "1"
    kind = np.dtype(form.dtype)
    if compress in PREDICTABLE and kind.itemsize <= 8:
        by_type = "3" if kind.kind == "f" else "2"
        options["PREDICTOR"] = "YES" if is_cog else by_type
    if not is_cog and given.get("TILED", "").upper() in ("NO", "FALSE", "OFF"):
        del options["BLOCKXSIZE"], options["BLOCKYSIZE"]
    return options | given


def _open_strips(
    strips: Sequence[Path], meta: OutputMeta, form: OutputFormat
) -> list[_Strip]:
    """Check every strip's frame and return where each lies."""
    found: list[_Strip] = []
    top = 0
    for path in strips:
        try:
            with rasterio.open(path) as dataset:
                frame = dataset.count, dataset.width, dataset.dtypes[0]
                flags = dataset.mask_flag_enums[0]
                found.append(
                    _Strip(path, top, dataset.height, MaskFlags.per_dataset in flags)
                )
        except RasterioError as error:
            raise InputError(
                f"{path}: this strip cannot be read ({first_line(error)}); delete it "
                "and run the same command again."
            ) from error
        if frame != (len(meta.descriptions), meta.grid.width, form.dtype):
            raise InputError(
                f"{path}: this strip holds {frame[0]} bands of {frame[1]} columns, "
                f"{frame[2]}, not {len(meta.descriptions)} of {meta.grid.width}, "
                f"{form.dtype}; delete it and run the same command again."
            )
        top += found[-1].height
    if top != meta.grid.height:
        raise InputError(
            f"The {len(strips)} strips hold {top} rows, the output has "
            f"{meta.grid.height}; run the same command again."
        )
    return found


def _join(strips: Sequence[_Strip], meta: OutputMeta, form: OutputFormat) -> str:
    """Return a virtual raster over the strips."""
    width = meta.grid.width

    def sources(band: int | str) -> list[VirtualSource]:
        return [
            VirtualSource(
                str(strip.path),
                band,
                PixelWindow(strip.top, 0, strip.height, width),
                (STRIP_ROWS, width),
            )
            for strip in strips
        ]

    bands = [
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
    is_masked = form.nodata is None and any(strip.has_mask for strip in strips)
    mask = sources("mask,1") if is_masked else []
    return virtual_raster(meta.grid, meta.tags, bands, mask)
