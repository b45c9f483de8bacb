"""Choose GDAL's creation options of outputs and of the files that lead to them.

Default of outputs: DEFLATE level 1 with a predictor (level 6 makes the file no smaller
and takes three times the time), blocks of 512, all cores, and for COG overviews by
average, of classes by nearest. The user's options override these.
"""

from __future__ import annotations

import numpy as np
import rasterio
import rasterio.shutil
from rasterio.io import MemoryFile

from rsupres.errors import InputError
from rsupres.grid import round_up
from rsupres.output.gdal_errors import GDAL_ERRORS, gdal_messages
from rsupres.output.profile import BLOCK, OutputFormat, OutputMeta
from rsupres.raster.open import first_line

PREDICTABLE = ("DEFLATE", "LZW", "ZSTD")


def check_format(form: OutputFormat, n_bands: int) -> None:
    """Refuse creation options that the driver does not take, before the work starts.

    Writes a few pixels in memory.

    Args:
        form: how the output is stored.
        n_bands: bands of the output.

    Raises:
        InputError: the driver refuses or ignores an option, type or value.
    """
    options = output_options(form) | {
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


def raw_options(width: int) -> dict[str, object]:
    """Return creation options of files with raw pixels, which are read once, by blocks.

    The blocks are as wide as those of the output, so that making one of these reads no
    more of a file than it takes.

    Args:
        width: of the file.
    """
    return {
        "photometric": "MINISBLACK",
        "tiled": True,
        "blockxsize": min(BLOCK, round_up(width, 16)),
        "blockysize": 64,
        "interleave": "band",
        "BIGTIFF": "IF_SAFER",
    }


def cog_options(meta: OutputMeta, form: OutputFormat) -> dict[str, str]:
    """Return the creation options of GDAL's COG driver for an output.

    Args:
        meta: description of the output.
        form: how it is stored.
    """
    options = output_options(form)
    given = {key.upper() for key in form.creation}
    if meta.palette and not given & {"OVERVIEW_RESAMPLING", "RESAMPLING"}:
        options["OVERVIEW_RESAMPLING"] = "NEAREST"
    return options


def packet_options(form: OutputFormat) -> dict[str, object]:
    """Return creation options of a GeoTIFF that has the blocks of a COG.

    Args:
        form: of the COG; of another driver, the options are left out.
    """
    given = {key.upper(): str(value) for key, value in form.creation.items()}
    given = given if form.driver == "COG" else {}
    if level := given.pop("LEVEL", None):
        by_zstd = given.get("COMPRESS", "").upper() == "ZSTD"
        given["ZSTD_LEVEL" if by_zstd else "ZLEVEL"] = level
    options = output_options(OutputFormat("GTiff", given, form.dtype))
    return {**options, "INTERLEAVE": "PIXEL"}


def output_options(form: OutputFormat) -> dict[str, str]:
    """Return our creation options of an output, overridden by the user's.

    Args:
        form: how it is stored.
    """
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
