"""A miniature product, and how it is opened."""

from __future__ import annotations

from pathlib import Path

from rsupres.raster.dataset import Raster
from rsupres.raster.product.describe import open_product
from rsupres.raster.product.find import find_product


def opened(path: Path | str, bands_out: str | None = None) -> Raster:
    found = find_product(str(path))
    assert found is not None
    return Raster.open_product(open_product(found, bands_out))
