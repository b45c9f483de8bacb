"""Read pixels of an open file as it stores them, with the mask of valid ones.

A `Source` is what a scene and its crops share: the open file, and how its pixels are
meant to be read.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.windows import Window

from rsupres.errors import InputError
from rsupres.grid import PixelWindow
from rsupres.products.masks import is_class_name
from rsupres.products.model import Product, Radiometry
from rsupres.raster.nodata import is_measured
from rsupres.raster.open import CACHE_BYTES, first_line, read_bands
from rsupres.raster.product.describe import Refinement
from rsupres.raster.product.mask import Mask
from rsupres.raster.product.refine import refine
from rsupres.raster.reading.header import Header

BoolArray = NDArray[np.bool_]
Native = NDArray[np.generic]


@dataclass(frozen=True)
class Source:
    """The open file that a scene and its crops share.

    Attributes:
        dataset: open.
        alpha: band of the file that is a mask, not a picture; None without one.
        lock: GDAL reads a dataset from one thread at a time.
        missing: value that stands for no measurement in all bands, though undeclared.
        product: that the file describes; None for other files.
        refinement: which bands have coarser pixels.
        undecided: bands that should state scale and offset, but do not.
        files: read beside those of the dataset.
        units: of all bands, instead of what the file says.
        nodata: of all bands, instead of what the file says.
        mask: pixels that count as not measured in all bands but those of classes.
    """

    dataset: rasterio.DatasetReader
    alpha: int | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)
    missing: float | None = None
    product: Product | None = None
    refinement: Refinement = field(default_factory=Refinement)
    undecided: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    units: Radiometry | None = None
    nodata: float | None = None
    mask: Mask | None = None

    def read(
        self,
        header: Header,
        place: PixelWindow,
        bands: Sequence[int],
        shape: tuple[int, int],
        resampling: Resampling = Resampling.nearest,
    ) -> tuple[Native, BoolArray]:
        """Read a window of the file.

        Args:
            header: what the file says about nodata and masks.
            place: pixels of the file, inside it.
            bands: of the file, from 1, in the order wanted.
            shape: (h, w) of the result.
            resampling: of numbers where the shape is smaller than the window; masks
                are thinned.

        Returns:
            `(dn, valid)`: (c, h, w) in the file's type, and (c, h, w) bool.

        Raises:
            InputError: the file is truncated or damaged.
        """
        try:
            native, valid = self._read(header, place, bands, shape, resampling)
            if shape == (place.height, place.width) and self.refinement.coarse:
                self._refine(header, native, place, bands)
        except (RasterioError, OSError) as error:
            raise InputError(
                f"{header.path}: cannot be read at rows {place.row} to "
                f"{place.row_stop} ({first_line(error)}); the file is truncated or "
                "damaged."
            ) from error
        if self.missing is not None:
            valid &= (native != self.missing).any(axis=0)
        return native, valid

    def _read(
        self,
        header: Header,
        place: PixelWindow,
        bands: Sequence[int],
        shape: tuple[int, int],
        resampling: Resampling = Resampling.nearest,
    ) -> tuple[Native, BoolArray]:
        """Read as `read`, with coarse pixels repeated."""
        window = Window(place.col, place.row, place.width, place.height)
        with self.lock:
            if resampling is Resampling.nearest and shape[0] < place.height:
                native = _read_thinned(self.dataset, bands, window, shape)
            else:
                native = read_bands(
                    self.dataset,
                    bands,
                    window=window,
                    out_shape=shape,
                    resampling=resampling,
                )
            shown = self._read_mask(header, window, shape, bands)
        valid = np.empty(native.shape, bool)
        for index, band in enumerate(bands):
            valid[index] = is_measured(native[index], header.nodata_of(band))
        valid &= shown
        if self.mask is not None:
            measured = [
                index
                for index, band in enumerate(bands)
                if not is_class_name(header.descriptions[band - 1] or "")
            ]
            hidden = self.mask.hidden(place, shape)
            if self.mask.saturated is not None:
                hidden |= (native[measured] == self.mask.saturated).any(axis=0)
            valid[measured] &= ~hidden
        return native, valid

    def _read_mask(
        self,
        header: Header,
        window: Window,
        shape: tuple[int, int],
        bands: Sequence[int],
    ) -> BoolArray:
        """Return the file's alpha, (h, w) bool, or masks, (n, h, w); nodata aside."""
        if self.alpha is not None:
            alpha = self.dataset.read(self.alpha, window=window, out_shape=shape)
            return np.asarray(alpha > 0)
        if header.has_file_mask:
            masked = list(bands) if header.has_band_masks else [1]
            mask = self.dataset.read_masks(
                masked, window=window, out_shape=(len(masked), *shape)
            )
            return np.asarray(mask > 0)
        return np.ones(shape, bool)

    def _refine(
        self, header: Header, native: Native, place: PixelWindow, bands: Sequence[int]
    ) -> None:
        """Replace coarse pixels that are repeated by sharpened ones, in place."""

        def read(
            window: PixelWindow, wanted: Sequence[int]
        ) -> tuple[Native, BoolArray]:
            return self._read(header, window, wanted, (window.height, window.width))

        frame = PixelWindow(0, 0, *self.dataset.shape)
        refine(native, place, bands, self.refinement, read, frame)


def _read_thinned(
    dataset: rasterio.DatasetReader,
    bands: Sequence[int],
    window: Window,
    shape: tuple[int, int],
) -> NDArray[np.generic]:
    """Read bands thinned to the nearest pixels, in parts that GDAL's cache can hold."""
    step = window.height / shape[0]
    row_bytes = dataset.width * sum(np.dtype(name).itemsize for name in dataset.dtypes)
    block = dataset.block_shapes[0][0]
    span = max(1, CACHE_BYTES // 2 // row_bytes // block) * block
    rows = window.row_off + (np.arange(shape[0]) + 0.5) * step
    edges = [0, *(np.flatnonzero(np.diff(rows // span)) + 1).tolist(), shape[0]]
    parts = []
    for first, stop in itertools.pairwise(edges):
        top, height = window.row_off + first * step, (stop - first) * step
        part = Window(window.col_off, top, window.width, height)
        out_shape = (stop - first, shape[1])
        parts.append(read_bands(dataset, bands, window=part, out_shape=out_shape))
    return np.concatenate(parts, axis=1)
