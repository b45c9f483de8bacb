"""Write a picture of 8 bits as a COG with statistics, or as PNG."""

from __future__ import annotations

from pathlib import Path

import rasterio
import rasterio.shutil

from rsupres.output.tiff.creation import gdal_threads
from rsupres.output.tiff.gdal_errors import translate_gdal_errors
from rsupres.raster.open import open_dataset

_OPTIONS = {
    "COG": {
        "COMPRESS": "DEFLATE",
        "STATISTICS": "YES",
        "OVERVIEW_RESAMPLING": "AVERAGE",
    },
    "PNG": {"WRITE_METADATA_AS_TEXT": "YES"},
}


def copy_picture(xml: str, part: Path, driver: str) -> None:
    """Write a virtual raster into a file.

    Args:
        xml: of `virtual_raster`, bands of uint8.
        part: file to write; the caller publishes it.
        driver: COG or PNG.

    Raises:
        ResourceError: the disk is full.
    """
    with (
        rasterio.Env(
            GDAL_PAM_ENABLED="NO",
            GDAL_NUM_THREADS=gdal_threads(),
        ),
        open_dataset(xml, part.name) as dataset,
        translate_gdal_errors(part, 4 * dataset.height * dataset.width),
    ):
        rasterio.shutil.copy(dataset, part, driver=driver, **_OPTIONS[driver])
