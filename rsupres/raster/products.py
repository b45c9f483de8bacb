"""Paths to what GDAL shall open: files, folders and zips of Sentinel-2 products.

Names only; the pixels and the metadata are read by `rsupres.raster.dataset`.
"""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Sequence
from fnmatch import fnmatch

from rsupres.errors import InputError

_METADATA = ("MTD_MSIL*.xml", "S2?_OPER_MTD_SAFL*.xml")  # since 2016, before
_RASTERS = (".tif", ".tiff", ".jp2", ".vrt", ".img")


def locate(path: str) -> str:
    """Return the name that GDAL shall open for a path.

    Files, URLs and GDAL's own names (`/vsi...`, `DRIVER:...`) stay as they are; of a
    `.SAFE` folder or a zip it is the metadata file, of another zip its only raster.

    Raises:
        InputError: a local path does not exist, or is a folder or zip without a
            Sentinel-2 product in it.
    """
    if os.path.isdir(path):
        found = [name for name in sorted(os.listdir(path)) if _is_metadata(name)]
        if not found:
            raise InputError(
                f"{path}: a folder without a Sentinel-2 product (MTD_MSIL1C.xml or "
                "MTD_MSIL2A.xml); name a file in it."
            )
        return os.path.join(path, found[0])
    if os.path.exists(path):
        if not os.access(path, os.R_OK):
            raise InputError(f"{path}: cannot be read; check its permissions.")
        return _locate_in_zip(path) if path.lower().endswith(".zip") else path
    if path.startswith("/vsi") or ":" in path.lstrip("/"):
        return path
    raise InputError(f"{path}: no such file.")


def main_subdataset(path: str, subdatasets: Sequence[str]) -> str | None:
    """Return the 10 m bands of a Sentinel-2 product, None for anything else.

    Raises:
        InputError: the product has no 10 m bands, or lies in several UTM zones.
    """
    products = [name for name in subdatasets if name.startswith("SENTINEL2_L")]
    if not products:
        return None
    finest = [name for name in products if ":10m:" in name]
    if not finest:
        raise InputError(
            f"{path}: the product has no 10 m bands; name one of its parts: "
            f"{', '.join(products[:3])}."
        )
    if len(finest) > 1:
        raise InputError(
            f"{path}: the product lies in {len(finest)} UTM zones; name one part: "
            f"{', '.join(finest)}."
        )
    return finest[0]


def usual_band_name(name: str) -> str:
    """Return B04 for B4 and so on; other names unchanged."""
    code = re.fullmatch(r"B(\d)", name)
    return f"B0{code.group(1)}" if code else name


def _is_metadata(name: str) -> bool:
    return any(fnmatch(name, pattern) for pattern in _METADATA)


def _locate_in_zip(path: str) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = sorted(archive.namelist())
    except (zipfile.BadZipFile, OSError) as error:
        raise InputError(f"{path}: damaged or no zip file ({error}).") from error
    inside = f"/vsizip/{os.path.abspath(path)}/"
    for name in names:
        if _is_metadata(name.rsplit("/", 1)[-1]):
            return inside + name
    rasters = [name for name in names if name.lower().endswith(_RASTERS)]
    if len(rasters) == 1:
        return inside + rasters[0]
    raise InputError(
        f"{path}: a zip without a Sentinel-2 product and with {len(rasters)} rasters; "
        f"name one as {inside}FILE."
    )
