"""Find the product that a path names, and describe it.

A path may name a `.SAFE` folder, its zip or metadata file, the folder of one of its
granules, one of its band files, a subdataset as GDAL names it, or a STAC item.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Sequence
from dataclasses import replace

import rasterio

from rsupres.errors import InputError
from rsupres.products.catalogs import is_stac_name
from rsupres.products.model import BandFile, Product
from rsupres.products.reading import split_zip
from rsupres.products.safe import (
    SafeMetadata,
    find_metadata,
    is_metadata_name,
    metadata_in,
    open_safe,
    read_metadata,
)
from rsupres.products.sentinel2 import (
    BANDS,
    band_code,
    code_in_file_name,
    is_esa_band_file,
)
from rsupres.products.stac import open_item, read_items
from rsupres.raster.open import locate, open_dataset
from rsupres.raster.reading.names import local_name

# The folder of a granule: that of its product, and its place there.
_GRANULE = re.compile(r"(.+)/(GRANULE/[^/]+)")
# Files that describe a product or a granule, beside the metadata that tell the bands.
_DESCRIPTION = re.compile(r"manifest\.safe|MTD_TL\.xml|S2\w+_MTD_L(1C|2A)_TL_\S+\.xml")
_SHOWN = 4  # granules that a message names
SUBDATASET = re.compile(r"SENTINEL2_L(?:1C|2A):(.+):(10|20|60)m:[^:]*")


def find_product(path: str) -> Product | None:
    """Return the product that a path names; None for anything else.

    A product is a `.SAFE` folder, its zip or its metadata file, the folder of a
    granule, a subdataset of these as GDAL names it, or a STAC item.

    Raises:
        InputError: there is a product, but it cannot be read.
    """
    if is_stac_name(path):
        return _find_item(path)
    label, path = path, local_name(path)
    found = _find(path)
    return None if found is None else replace(found, path=label)


def _find(path: str) -> Product | None:
    """Return the product of a name without a scheme."""
    path = _folder_of(path)
    subdataset = SUBDATASET.fullmatch(path)
    granule = _GRANULE.fullmatch(os.path.abspath(path))
    name = _metadata_of(subdataset.group(1) if subdataset else path)
    if name is None and granule:
        name = next(iter(metadata_in(granule.group(1))), None)
    if name is None:
        return _find_band(path)
    metadata = read_metadata(name)
    if metadata is None:
        raise InputError(f"{name}: metadata of a granule, not those of a product.")
    if granule:
        metadata = metadata.of_granule(granule.group(2))
    if not metadata.images:
        raise InputError(f"{path}: {name} lists no image of it.")
    if len(metadata.granules) > 1:
        return _join_granules(path, metadata, [path] if subdataset else None)
    found = open_safe(path, metadata)
    if subdataset is None:
        return found
    size = float(subdataset.group(2))
    return replace(found, bands=tuple(b for b in found.bands if b.gsd == size))


def _folder_of(path: str) -> str:
    """Return the folder of a product whose description is named; others as they are."""
    folder, name = os.path.split(path)
    if not os.path.isfile(path) or not _DESCRIPTION.fullmatch(name):
        return path
    is_granule = _GRANULE.fullmatch(os.path.abspath(folder))
    return folder or "." if is_granule or any(metadata_in(folder or ".")) else path


def _metadata_of(path: str) -> str | None:
    """Return the metadata file of a product, None where there is none."""
    if os.path.isdir(path):
        named = [name for name in metadata_in(path) if read_metadata(name)]
        if named or not _GRANULE.fullmatch(os.path.abspath(path)):
            return named[0] if named else locate(path)
    if split_zip(path) and (inside := list(metadata_in(path))):
        return inside[0]
    if path.lower().endswith((".zip", ".xml")):
        located = locate(path)
        return located if is_metadata_name(located.rsplit("/", 1)[-1]) else None
    return None


def _find_band(path: str) -> Product | None:
    """Return the product of one band whose file is given alone, None without one."""
    code = code_in_file_name(os.path.basename(path).rsplit(".", 1)[0])
    metadata = find_metadata(path) if code else None
    if code is None or metadata is None:
        return None
    band = BandFile(code, path, 1, metadata.radiometry(code))
    return Product(
        path,
        (band,) if code in BANDS else (),
        {} if code in BANDS else {code: band},
        metadata.nodata,
        metadata.saturated,
        metadata.tags,
        sources=(metadata.path,),
    )


def undecided_file(dataset: rasterio.DatasetReader, path: str) -> tuple[str, ...]:
    """Return the band of a file that is named as one of a product but has no scale.

    Args:
        dataset: open.
        path: as the user gave it.
    """
    stem = os.path.basename(local_name(path)).rsplit(".", 1)[0]
    code = code_in_file_name(stem)
    if code is None or not is_esa_band_file(stem) or dataset.count > 1:
        return ()
    is_told = (dataset.scales[0], dataset.offsets[0]) != (1.0, 0.0)
    return () if is_told else (code,)


def _find_item(path: str) -> Product | None:
    address, _, chosen = path.partition("#")
    items = read_items(address)
    if chosen:
        items = [item for item in items if item.id == chosen]
    if len(items) != 1:
        known = ", ".join(item.id for item in read_items(address)[:5])
        raise InputError(
            f"{path}: {len(items)} items where one is wanted; name it as "
            f"{address}#ID. The collection holds {known}."
        )
    return open_item(items[0], path)


def _join_granules(
    path: str, metadata: SafeMetadata, parts: Sequence[str] | None = None
) -> Product:
    """Describe a product of before 2016-12, some or all of its granules joined."""
    if parts is None:
        with open_dataset(metadata.path, path) as parent:
            parts = parent.subdatasets
    bands: list[BandFile] = []
    for part in parts:
        found = SUBDATASET.fullmatch(part)
        if found is None:  # a preview
            continue
        size = float(found.group(2))
        if any(band.gsd == size and band.path != part for band in bands):
            root = posixpath.dirname(metadata.path)
            granules = [f"{root}/{granule}" for granule in metadata.granules]
            raise InputError(
                f"{path}: its {len(granules)} granules lie in several UTM zones, which "
                f"cannot be joined; name one: {', '.join(granules[:_SHOWN])}"
                f"{' and more' if len(granules) > _SHOWN else ''}."
            )
        with open_dataset(part, path) as dataset:
            codes = [
                band_code(dataset.tags(band).get("BANDNAME", ""))
                for band in dataset.indexes
            ]
        bands += [
            BandFile(code, part, band, metadata.radiometry(code), size)
            for band, code in enumerate(codes, 1)
            if code
        ]
    return Product(
        path,
        tuple(bands),
        nodata=metadata.nodata,
        saturated=metadata.saturated,
        tags=metadata.tags,
        sources=(metadata.path,),
    )
