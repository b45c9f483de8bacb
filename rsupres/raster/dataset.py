"""Read windows of a raster as float32 DN with a valid mask.

`Raster` opens anything that GDAL reads: scenes, references, maps, masks. What DN mean
is the subject of `rsupres.raster.stretch`; which pixels are valid is decided by
`rsupres.raster.nodata` and the masks of the file.
"""

from __future__ import annotations

import hashlib
import math
import os
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.windows import Window

from rsupres.errors import InputError
from rsupres.grid import Grid, PixelWindow, reflected_positions
from rsupres.raster.header import Header
from rsupres.raster.nodata import FILL_REACH, fill_invalid, is_measured
from rsupres.raster.open import (
    check_complete,
    check_kind,
    find_alpha,
    find_grid,
    first_line,
    locate,
    main_subdataset,
    open_dataset,
)
from rsupres.raster.virtual import is_inside, with_nested

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

FloatArray = NDArray[np.float32]
BoolArray = NDArray[np.bool_]

FINGERPRINT_SAMPLES = 16  # places of a file that its fingerprint reads
FINGERPRINT_BYTES = 65_536  # at each of them


@dataclass(frozen=True)
class _Source:
    """The open file that a scene and its crops share."""

    dataset: rasterio.DatasetReader
    alpha: int | None  # band of the file that is a mask, not a picture
    lock: threading.Lock  # GDAL reads a dataset from one thread at a time
    missing: float | None = None  # in all bands: no measurement, though undeclared


class Raster(Header, AbstractContextManager["Raster"]):
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
        source: _Source,
        aoi: BaseGeometry | None = None,
    ) -> None:
        super().__init__(path, grid, source.dataset, source.alpha)
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
        """Open anything that GDAL reads, or a Sentinel-2 product.

        A `.SAFE` folder, its zip or its `MTD_MSIL*.xml` opens as the 10 m bands.

        Args:
            path: file, folder, URL or GDAL name.
            needs_crs: refuse a raster without CRS or transform.
            is_classes: the pixels are codes of classes, so a palette is allowed.

        Raises:
            InputError: missing, unreadable, not a raster, truncated, without bands,
                with a palette or complex numbers, without CRS or transform.
        """
        name = os.fspath(path)
        dataset = open_dataset(locate(name), name)
        try:
            part = main_subdataset(name, dataset.subdatasets)
            if part is not None:
                dataset.close()
                dataset = open_dataset(part, name)
            check_kind(dataset, name, is_classes=is_classes)
            grid = find_grid(dataset, name, needs_crs)
            check_complete(dataset, name)
            source = _Source(dataset, find_alpha(dataset, name), threading.Lock())
        except BaseException:
            dataset.close()
            raise
        return cls(name, grid, PixelWindow(0, 0, grid.height, grid.width), source)

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

    def with_missing(self, value: float) -> Raster:
        """Return a view whose pixels are invalid where all bands have a value.

        Args:
            value: that the file does not declare as nodata.
        """
        source = replace(self._source, missing=value)
        return Raster(self.path, self.grid, self.window, source, self._aoi)

    @property
    def _shape(self) -> tuple[int, int]:
        return self.grid.height, self.grid.width

    @cached_property
    def has_mask(self) -> bool:
        """Whether validity needs a mask, as a nodata value cannot express it."""
        return self._aoi is not None or self.has_file_mask

    def fingerprint(self) -> dict[str, str]:
        """Return JSON-able values that differ when the bytes of the file differ.

        The hash covers name, size and bytes at up to 16 places of every local file of
        the dataset; of a remote one, its frame and some pixels.
        """
        files = with_nested(self._dataset.files)
        local = [name for name in {*files, self.path} if os.path.isfile(name)]
        local.sort()
        digest = hashlib.sha256()
        for name in local:
            _digest_file(digest, name)
        if not local or not all(os.path.isfile(name) for name in files):
            self._digest_pixels(digest)
        size = sum(os.path.getsize(name) for name in local)
        mtime_ns = max((os.stat(name).st_mtime_ns for name in local), default=0)
        return {
            "size": str(size),
            "mtime_ns": str(mtime_ns),
            "sha256": digest.hexdigest(),
        }

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
        self, window: PixelWindow, bands: Sequence[int]
    ) -> tuple[FloatArray, BoolArray]:
        """Read a window, which may leave the scene on any side.

        Pixels beyond are reflected (numpy's "symmetric", repeated as often as needed),
        so a value depends on its position alone. float32 holds whole numbers up to
        2**24 exactly.

        Args:
            window: LR pixels of this scene, half-open.
            bands: bands of the file, from 1, in the order wanted.

        Returns:
            `(dn, valid)`: (c, h, w) float32 as stored, (1, h, w) bool: not nodata, not
            NaN or infinite, not masked, in every band read.

        Raises:
            InputError: the file cannot be read there: truncated or damaged.
        """
        rows = reflected_positions(window.row, window.height, self.grid.height)
        cols = reflected_positions(window.col, window.width, self.grid.width)
        top, left = int(rows.min()), int(cols.min())
        inner = PixelWindow(
            top, left, int(rows.max()) + 1 - top, int(cols.max()) + 1 - left
        )
        native, valid = self._read_native(inner, bands, None)
        dn = native.astype(np.float32)
        if (inner.height, inner.width) != (window.height, window.width) or (
            inner.row,
            inner.col,
        ) != (window.row, window.col):
            down, right = (rows - top)[:, np.newaxis], cols - left
            dn, valid = dn[:, down, right], valid[:, down, right]
        return dn, valid

    def read_filled(
        self, window: PixelWindow, bands: Sequence[int]
    ) -> tuple[FloatArray, BoolArray]:
        """Read a window with its invalid pixels filled, the same from every tile.

        Where something is invalid, the surroundings within `FILL_REACH` are read too,
        so that a filled value depends on its position alone, not on the window.

        Args:
            window: LR pixels of this scene, half-open; may leave the scene.
            bands: bands of the file, from 1, in the order wanted.

        Returns:
            `(dn, valid)` as `read` gives them, with `dn` finite everywhere.

        Raises:
            InputError: as `read`.
        """
        dn, valid = self.read(window, bands)
        if valid.all():
            return dn, valid
        filled = fill_invalid(*self.read(window.grown(FILL_REACH), bands))
        inner = slice(FILL_REACH, -FILL_REACH)
        return np.ascontiguousarray(filled[:, inner, inner]), valid

    def read_stored(
        self, window: PixelWindow, bands: Sequence[int]
    ) -> tuple[NDArray[np.generic], BoolArray]:
        """Read a window as the file stores it; for copies that must be exact.

        Args:
            window: LR pixels inside this scene, half-open.
            bands: bands of the file, from 1, in the order wanted.

        Returns:
            `(dn, valid)`: (c, h, w) in the file's type, invalid pixels with the values
            that the file holds there, and (1, h, w) bool as `read` gives it.

        Raises:
            InputError: the file cannot be read there, or the window leaves the scene.
        """
        if window.intersection(PixelWindow(0, 0, *self._shape)) != window:
            raise InputError(f"{self.path}: window {tuple(window)} leaves the scene.")
        return self._read_native(window, bands, None)

    def read_decimated(
        self, bands: Sequence[int], max_pixels: int
    ) -> tuple[FloatArray, BoolArray]:
        """Read the scene thinned (nearest pixel) to about `max_pixels` pixels at most.

        Args:
            bands: bands of the file, from 1, in the order wanted.
            max_pixels: per band.

        Returns:
            `(dn, valid)` as `read` gives them, of the thinned shape.
        """
        height, width = self._shape
        step = max(1, math.ceil(math.sqrt(height * width / max_pixels)))
        shape = math.ceil(height / step), math.ceil(width / step)
        native, valid = self._read_native(
            PixelWindow(0, 0, height, width), bands, shape
        )
        return native.astype(np.float32), valid

    def _read_native(
        self, window: PixelWindow, bands: Sequence[int], shape: tuple[int, int] | None
    ) -> tuple[NDArray[np.generic], BoolArray]:
        """Read a window inside the scene in the file's type, with its valid mask."""
        shape = shape or (window.height, window.width)
        place = Window(
            self.window.col + window.col,
            self.window.row + window.row,
            window.width,
            window.height,
        )
        dataset = self._dataset
        try:
            with self._source.lock:
                native = dataset.read(
                    list(bands), window=place, out_shape=(len(bands), *shape)
                )
                valid = self._read_mask(place, shape, bands)
        except (RasterioError, OSError) as error:
            raise InputError(
                f"{self.path}: cannot be read at rows {place.row_off} to "
                f"{place.row_off + place.height} ({first_line(error)}); the file is "
                "truncated or damaged."
            ) from error
        for plane, band in zip(native, bands, strict=True):
            valid &= is_measured(plane, self.nodata_of(band))
        if self._source.missing is not None:
            valid &= (native != self._source.missing).any(axis=0)
        if self._aoi is not None:
            valid &= self._inside(self._aoi, window, shape)
        return native, valid[np.newaxis]

    def _read_mask(
        self, place: Window, shape: tuple[int, int], bands: Sequence[int]
    ) -> BoolArray:
        """Return the file's alpha or masks of bands as (h, w) bool; nodata aside."""
        dataset = self._dataset
        if self._alpha is not None:
            alpha = dataset.read(self._alpha, window=place, out_shape=shape)
            return np.asarray(alpha > 0)
        if self.has_file_mask:
            masked = list(bands) if self.has_band_masks else [1]
            mask = dataset.read_masks(
                masked, window=place, out_shape=(len(masked), *shape)
            )
            return np.asarray((mask > 0).all(axis=0))
        return np.ones(shape, bool)

    def _inside(
        self, aoi: BaseGeometry, window: PixelWindow, shape: tuple[int, int]
    ) -> BoolArray:
        frame = self.grid.crop(window)
        zoom = rasterio.Affine.scale(frame.width / shape[1], frame.height / shape[0])
        return is_inside(aoi, shape, frame.transform @ zoom)


def _digest_file(digest: hashlib._Hash, name: str) -> None:
    size = os.path.getsize(name)
    digest.update(f"{os.path.basename(name)}:{size}:".encode())
    with open(name, "rb") as stream:
        last = max(0, size - FINGERPRINT_BYTES)
        for place in range(FINGERPRINT_SAMPLES):
            stream.seek(last * place // (FINGERPRINT_SAMPLES - 1))
            digest.update(stream.read(FINGERPRINT_BYTES))
