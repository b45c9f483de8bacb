"""Choose GDAL's creation options of outputs and of the files that lead to them.

Default of outputs: DEFLATE level 1 with a predictor (level 6 makes the file no smaller
and takes three times the time), blocks of 512, all cores, and for COG overviews by
average, of classes by nearest. The user's options override these.
"""

from __future__ import annotations

import os

import numpy as np

from rsupres.grid import round_up
from rsupres.output.tiff.profile import BLOCK, OutputFormat, OutputMeta
from rsupres.products.masks import is_class_name

PREDICTABLE = ("DEFLATE", "LZW", "ZSTD")


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
        "blockxsize": raw_block(width)[1],
        "blockysize": raw_block(width)[0],
        "interleave": "band",
        "BIGTIFF": "IF_SAFER",
    }


def raw_block(width: int) -> tuple[int, int]:
    """Return height and width of the blocks of files with raw pixels.

    Args:
        width: of the file.
    """
    return 64, min(BLOCK, round_up(width, 16))


def cog_options(meta: OutputMeta, form: OutputFormat) -> dict[str, str]:
    """Return the creation options of GDAL's COG driver for an output.

    Args:
        meta: description of the output.
        form: how it is stored.
    """
    options = output_options(form)
    given = {key.upper() for key in form.creation}
    has_codes = meta.palette or any(is_class_name(n or "") for n in meta.descriptions)
    if has_codes and not given & {"OVERVIEW_RESAMPLING", "RESAMPLING"}:
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
    # GDAL takes the fourth band of bytes for alpha, thus for a mask, unless told.
    return {**options, "INTERLEAVE": "PIXEL", "PHOTOMETRIC": "MINISBLACK"}


def gdal_threads() -> str:
    """Return GDAL's number of threads: that of the environment, else one a core."""
    return os.environ.get("GDAL_NUM_THREADS", "ALL_CPUS")


def output_options(form: OutputFormat) -> dict[str, str]:
    """Return our creation options of an output, overridden by the user's.

    Args:
        form: how it is stored.
    """
    given = {key.upper(): str(value) for key, value in form.creation.items()}
    compress = given.get("COMPRESS", "DEFLATE").upper()
    is_cog = form.driver == "COG"
    threads = gdal_threads()
    options = {"COMPRESS": compress, "NUM_THREADS": threads, "BIGTIFF": "IF_SAFER"}
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
