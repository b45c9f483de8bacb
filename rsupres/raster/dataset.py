"""Read windows of a raster as float32 DN with a valid mask.

`Raster` opens anything that GDAL reads: scenes, references, maps, masks. What DN mean
is the subject of `rsupres.raster.stretch`; which pixels are valid is decided by
`rsupres.raster.nodata` and the masks of the file.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.enums import Resampling

from rsupres.errors import InputError
from rsupres.grid import Grid, PixelWindow, reflected_positions
from rsupres.raster.nodata import FILL_REACH, as_floats, fill_bands, join_valid
from rsupres.raster.open import (
    check_complete,
    check_kind,
    find_alpha,
    find_grid,
    first_line,
    locate,
    open_dataset,
)
from rsupres.raster.product.describe import ProductRaster, Refinement, open_product
from rsupres.raster.product.find import find_product, undecided_file
from rsupres.raster.reading.fingerprint import fingerprint
from rsupres.raster.reading.names import local_name
from rsupres.raster.reading.readings import Readings
from rsupres.raster.reading.source import Source
from rsupres.raster.virtual import is_inside, with_nested

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

FloatArray = NDArray[np.float32]
BoolArray = NDArray[np.bool_]


class Raster(Readings, AbstractContextManager["Raster"]):
    """An open raster, or a window of one, from which windows of pixels are read.

    A context manager; leaving it closes the file. Several threads may read; they take
    turns.

    Attributes:
        path: as the user gave it.
        grid: frame of the scene: the whole file, or the crop.
        window: where the scene lies in the file, LR pixels.
    """

    def __init__(
        self,
        path: str,
        grid: Grid,
        window: PixelWindow,
        source: Source,
        aoi: BaseGeometry | None = None,
    ) -> None:
        super().__init__(
            path,
            grid,
            source.dataset,
            source.alpha,
            source.refinement.hidden,
            source.units,
            source.nodata,
        )
        self.window = window
        self._source = source
        self._aoi = aoi

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        needs_crs: bool = True,
        is_classes: bool = False,
    ) -> Raster:
        """Open anything that GDAL reads, or a Sentinel-2 product; return the raster.

        A Sentinel-2 product or a STAC item opens as its finest bands.

        Args:
            path: file, folder, URL or GDAL name.
            needs_crs: refuse a raster without CRS or transform.
            is_classes: the pixels are codes of classes, so a palette is allowed.

        Raises:
            InputError: missing, unreadable, not a raster, truncated, without bands,
                with a palette or complex numbers, without CRS or transform.
        """
        name = os.fspath(path)
        if (product := find_product(name)) is not None:
            return cls.open_product(open_product(product))
        dataset = open_dataset(locate(local_name(name)), name)
        try:
            check_kind(dataset, name, is_classes=is_classes)
            grid = find_grid(dataset, name, needs_crs)
            check_complete(dataset, name)
            source = Source(
                dataset,
                find_alpha(dataset, name),
                undecided=undecided_file(dataset, name),
            )
        except CPLE_BaseError as error:
            dataset.close()
            raise InputError(
                f"{name}: truncated or damaged ({first_line(error)})."
            ) from error
        except BaseException:
            dataset.close()
            raise
        return cls(name, grid, grid.window, source)

    @classmethod
    def open_product(cls, product: ProductRaster) -> Raster:
        """Open a product whose bands are chosen."""
        name = product.product.path
        dataset = open_dataset(product.xml, name)
        source = Source(
            dataset,
            product=product.product,
            refinement=product.refinement,
            undecided=product.undecided,
            files=product.product.sources,
        )
        grid = find_grid(dataset, name, needs_crs=True)
        return cls(name, grid, grid.window, source)

    def _view(self, **changes: object) -> Raster:
        """Return a view of the same file that is read in another way."""
        source = replace(self._source, **changes)  # type: ignore[arg-type]
        return Raster(self.path, self.grid, self.window, source, self._aoi)

    def joining(self, parts: Sequence[Raster], refinement: Refinement) -> Raster:
        """Return a view of files joined as one scene, which knows its files.

        Args:
            parts: the files, open.
            refinement: which bands have coarser pixels.
        """
        sources = [part._source for part in parts]
        return self._view(
            refinement=refinement,
            undecided=tuple(name for item in sources for name in item.undecided),
            files=tuple(name for item in sources for name in item.files),
        )

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; crops of this scene can no longer be read either."""
        self._dataset.close()

    def crop(self, window: PixelWindow, aoi: BaseGeometry | None = None) -> Raster:
        """Return a view of a part of this scene; it shares the open file.

        Args:
            window: LR pixels of this scene, inside it.
            aoi: geometry in the scene's CRS; pixels whose centre is outside are
                invalid. None = no such limit.

        Raises:
            InputError: the window is empty or leaves the scene.
        """
        inside = window.intersection(PixelWindow(0, 0, *self._shape))
        if inside != window:
            raise InputError(f"{self.path}: window {window} leaves the scene.")
        moved = PixelWindow(
            self.window.row + window.row,
            self.window.col + window.col,
            window.height,
            window.width,
        )
        return Raster(self.path, self.grid.crop(window), moved, self._source, aoi)

    @property
    def _shape(self) -> tuple[int, int]:
        return self.grid.height, self.grid.width

    @cached_property
    def has_mask(self) -> bool:
        """Whether validity needs a mask, as a nodata value cannot express it."""
        return self._aoi is not None or self.has_file_mask

    def fingerprint(self) -> dict[str, str]:
        """Return JSON-able values that differ when the bytes of the files differ."""
        files = [*with_nested(self._dataset.files), *self._source.files]
        if os.path.isfile(self.path):
            files.append(self.path)
        return fingerprint(files, self._digest_pixels)

    def _digest_pixels(self, digest: hashlib._Hash) -> None:
        dataset = self._dataset
        digest.update(repr((dataset.shape, dataset.transform, dataset.dtypes)).encode())
        height, width = dataset.shape
        whole = Raster(
            self.path, self.grid, PixelWindow(0, 0, height, width), self._source
        )
        for place in range(4):
            row, col = (height * place) // 4, (width * place) // 4
            window = PixelWindow(row, col, min(16, height), min(16, width))
            pixels, _ = whole._read_native(
                window.intersection(whole.window) or whole.window, (1,), None
            )
            digest.update(pixels.tobytes())

    def read(
        self, window: PixelWindow, bands: Sequence[int], joint: int | None = None
    ) -> tuple[FloatArray, BoolArray]:
        """Read a window, which may leave the scene on any side.

        Pixels beyond are reflected (numpy's "symmetric", repeated as often as needed),
        so a value depends on its position alone.

        Args:
            window: LR pixels of this scene, half-open.
            bands: bands of the file, from 1, in the order wanted.
            joint: how many bands, from the first, are invalid where one of them is;
                the others count each for itself. None = all.

        Returns:
            `(dn, valid)`: (c, h, w) as stored, in float32 or, where it does not hold
            all numbers of the file's type, float64; bool: not nodata, not NaN or
            infinite, not masked. `valid` is (1, h, w) where all bands are joint, else
            (c, h, w).

        Raises:
            InputError: the file cannot be read there: truncated or damaged.
        """
        native, apart = self._read_reflected(window, bands)
        return as_floats(native), join_valid(apart, joint)

    def read_reflected(
        self, window: PixelWindow, bands: Sequence[int]
    ) -> NDArray[np.generic]:
        """Return a window (c, h, w) as `read`, but in the file's type; without a mask.

        Args:
            window: in pixels of the raster; what lies outside is reflected.
            bands: of the file, from 1.
        """
        return self._read_reflected(window, bands)[0]

    def _read_reflected(
        self, window: PixelWindow, bands: Sequence[int]
    ) -> tuple[NDArray[np.generic], BoolArray]:
        """Read a window, which may leave the scene, with masks (c, h, w)."""
        rows = reflected_positions(window.row, window.height, self.grid.height)
        cols = reflected_positions(window.col, window.width, self.grid.width)
        top, left = int(rows.min()), int(cols.min())
        inner = PixelWindow(
            top, left, int(rows.max()) + 1 - top, int(cols.max()) + 1 - left
        )
        native, apart = self._read_native(inner, bands, None)
        if inner == window:
            return native, apart
        down, right = (rows - top)[:, np.newaxis], cols - left
        return native[:, down, right], apart[:, down, right]

    def read_filled(
        self, window: PixelWindow, bands: Sequence[int], joint: int | None = None
    ) -> tuple[FloatArray, BoolArray]:
        """Return `(dn, valid)`, invalid pixels filled, the same from every tile.

        Where something is invalid, the surroundings within `FILL_REACH` are read too,
        so that a filled value depends on its position alone, not on the window.

        Args:
            window: LR pixels of this scene, half-open; may leave the scene.
            bands: bands of the file, from 1, in the order wanted.
            joint: as in `read`.

        Raises:
            InputError: as `read`.
        """
        dn, valid = self.read(window, bands, joint)
        if valid.all():
            return dn, valid
        filled = fill_bands(*self.read(window.grown(FILL_REACH), bands, joint))
        inner = slice(FILL_REACH, -FILL_REACH)
        return np.ascontiguousarray(filled[:, inner, inner]), valid

    def read_stored(
        self, window: PixelWindow, bands: Sequence[int], joint: int | None = None
    ) -> tuple[NDArray[np.generic], BoolArray]:
        """Read a window as the file stores it; for copies that must be exact.

        Args:
            window: LR pixels inside this scene, half-open.
            bands: bands of the file, from 1, in the order wanted.
            joint: as in `read`.

        Returns:
            `(dn, valid)`: (c, h, w) in the file's type, invalid pixels with the values
            that the file holds there, and `valid` as `read` gives it.

        Raises:
            InputError: the file cannot be read there, or the window leaves the scene.
        """
        if window.intersection(PixelWindow(0, 0, *self._shape)) != window:
            raise InputError(f"{self.path}: window {tuple(window)} leaves the scene.")
        native, apart = self._read_native(window, bands, None)
        return native, join_valid(apart, joint)

    def read_decimated(
        self, bands: Sequence[int], max_pixels: int, joint: int | None = None
    ) -> tuple[FloatArray, BoolArray]:
        """Return `(dn, valid)`, thinned (nearest pixel) to about `max_pixels` at most.

        Args:
            bands: bands of the file, from 1, in the order wanted.
            max_pixels: per band.
            joint: as in `read`.
        """
        height, width = self._shape
        step = max(1, math.ceil(math.sqrt(height * width / max_pixels)))
        shape = math.ceil(height / step), math.ceil(width / step)
        native, apart = self._read_native(
            PixelWindow(0, 0, height, width), bands, shape
        )
        return as_floats(native), join_valid(apart, joint)

    def read_averaged(
        self, window: PixelWindow, bands: Sequence[int], step: int
    ) -> tuple[FloatArray, BoolArray]:
        """Read means of `step` x `step` pixels; overviews make this quick.

        Args:
            window: LR pixels inside this scene; its sides are multiples of `step`.
            bands: bands of the file, from 1, in the order wanted.
            step: pixels along a side of what is averaged.

        Returns:
            `(dn, valid)` as `read` gives them, of the reduced shape; a mean is that of
            the valid pixels, rounded to the file's type.
        """
        shape = window.height // step, window.width // step
        native, apart = self._read_native(window, bands, shape, Resampling.average)
        return as_floats(native), join_valid(apart, None)

    def _read_native(
        self,
        window: PixelWindow,
        bands: Sequence[int],
        shape: tuple[int, int] | None,
        resampling: Resampling = Resampling.nearest,
    ) -> tuple[NDArray[np.generic], BoolArray]:
        """Read a window inside the scene in the file's type, with masks (c, h, w)."""
        shape = shape or (window.height, window.width)
        place = window._replace(
            row=self.window.row + window.row, col=self.window.col + window.col
        )
        native, valid = self._source.read(self, place, bands, shape, resampling)
        if self._aoi is not None:
            valid &= self._inside(self._aoi, window, shape)
        return native, valid

    def _inside(
        self, aoi: BaseGeometry, window: PixelWindow, shape: tuple[int, int]
    ) -> BoolArray:
        frame = self.grid.crop(window)
        zoom = rasterio.Affine.scale(frame.width / shape[1], frame.height / shape[0])
        return is_inside(aoi, shape, frame.transform @ zoom)
