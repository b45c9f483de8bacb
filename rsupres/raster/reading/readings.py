"""Other readings of the same open file: other units, nodata, masks, sharpening."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import Self

from rsupres.grid import Grid
from rsupres.products.model import Product, Radiometry
from rsupres.raster.product.describe import Refinement, Sharpener
from rsupres.raster.product.mask import Mask
from rsupres.raster.reading.header import Header
from rsupres.raster.reading.source import Source


class Readings(Header):
    """A raster of which there are views that share the open file."""

    _source: Source

    @abstractmethod
    def _view(self, **changes: object) -> Self:
        """Return a view of the same file with other fields of its `Source`."""

    def with_missing(self, value: float) -> Self:
        """Return a view whose pixels are invalid where all bands have `value`."""
        return self._view(missing=value)

    def with_units(self, units: Radiometry) -> Self:
        """Return a view with another scale and offset of its digital numbers."""
        return self._view(units=units, undecided=())

    def with_nodata(self, value: float) -> Self:
        """Return a view with a nodata value that the file does not declare."""
        return self._view(nodata=value)

    def with_sharpener(self, sharpener: Sharpener) -> Self:
        """Return a view that brings coarse bands to the fine grid in another way."""
        refinement = replace(self._source.refinement, sharpener=sharpener)
        return self._view(refinement=refinement)

    def with_mask(self, mask: Mask | None) -> Self:
        """Return a view in which a mask hides pixels; None = none does."""
        files = self._source.files + (mask.files if mask is not None else ())
        return self._view(mask=mask, files=files)

    @property
    def has_hidden(self) -> bool:
        """Whether a mask hides pixels of this view."""
        return self._source.mask is not None

    @property
    def refinement(self) -> Refinement:
        """Bands that were stored with coarser pixels than the scene has."""
        return self._source.refinement

    @property
    def file_grid(self) -> Grid:
        """Frame of the whole file."""
        dataset = self._source.dataset
        return Grid(dataset.crs, dataset.transform, dataset.height, dataset.width)

    @property
    def product(self) -> Product | None:
        """The product that this is, None for other rasters."""
        return self._source.product

    @property
    def undecided(self) -> tuple[str, ...]:
        """Bands of a product whose scale and offset are unknown."""
        return self._source.undecided
