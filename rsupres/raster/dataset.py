"""Rasters into numbers: scenes, windows, masks and bands.

Rasters are opened by `rsupres.raster.open` for this module, and by
`rsupres.output.geotiff`, which writes strips and outputs; by nobody else. Pixels leave
here as float32 DN with a valid mask; what DN mean is the subject of
`rsupres.raster.stretch`.
"""

from __future__ import annotations

import hashlib
import math
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import MaskFlags
from rasterio.env import get_gdal_config, set_gdal_config
from rasterio.errors import RasterioError
from rasterio.windows import Window

from rsupres.errors import InputError
from rsupres.grid import Grid, PixelWindow, reflected_positions
from rsupres.raster.arrays import is_inside
from rsupres.raster.open import (
    check_complete,
    check_kind,
    color_name,
    find_alpha,
    find_grid,
    first_line,
    open_dataset,
)
from rsupres.raster.products import locate, main_subdataset, usual_band_name

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

FloatArray = NDArray[np.float32]
BoolArray = NDArray[np.bool_]

CACHE_BYTES = 64 * 2**20  # GDAL blocks in memory
FINGERPRINT_SAMPLES = 16  # places of a file that its fingerprint reads
FINGERPRINT_BYTES = 65_536  # at each of them
TAGS_NOT_KEPT = ("AREA_OR_POINT", "STATISTICS_", "OVR_RESAMPLING", "RSUPRES_")


@dataclass(frozen=True)
class _Source:
    """What a scene and its crops share."""

    dataset: rasterio.DatasetReader
    alpha: int | None  # band of the file that is a mask, not a picture
    lock: threading.Lock  # GDAL datasets are not thread-safe


class Raster(AbstractContextManager["Raster"]):
    """An open raster, or a window of one, as a source of whole-pixel windows.

    A context manager; leaving it closes the file. Reading is safe from several
    threads, one at a time.

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
        self.path = path
        self.grid = grid
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
            needs_crs: refuse a raster that does not say where it lies.
            is_classes: the pixels are codes of classes, so a palette is welcome.

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
        """Close the file, also for every crop of this scene."""
        self._source.dataset.close()

    def crop(self, window: PixelWindow, aoi: BaseGeometry | None = None) -> Raster:
        """Return a view of a part of this scene; it shares the open file.

        Args:
            window: LR pixels of this scene, inside it.
            aoi: geometry in the scene's CRS; pixels whose centre is outside are
                invalid.
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

    @property
    def count(self) -> int:
        """Number of bands in the file, alpha included."""
        return int(self._source.dataset.count)

    @cached_property
    def data_bands(self) -> tuple[int, ...]:
        """The bands of the file, from 1, that hold a picture.

        All but alpha, and but the aerosol and water vapour of Sentinel-2 products.
        """
        bands = [i for i in range(1, self.count + 1) if i != self._source.alpha]
        if self._is_product:
            bands = [i for i in bands if self._band_tag(i, "BANDNAME")[:1] == "B"]
        return tuple(bands)

    @property
    def _is_product(self) -> bool:
        return bool(self._source.dataset.driver == "SENTINEL2")

    def _band_tag(self, band: int, name: str) -> str:
        return str(self._source.dataset.tags(band).get(name, ""))

    @cached_property
    def dtype(self) -> str:
        """The numpy name of a type that holds every band."""
        kinds = [np.dtype(kind) for kind in self._source.dataset.dtypes]
        return str(np.result_type(*kinds))

    @cached_property
    def has_palette(self) -> bool:
        """Whether the pixels are entries of a palette; only class rasters may be."""
        dataset = self._source.dataset
        return color_name(dataset, 1) == "palette"

    @property
    def nodata(self) -> float | None:
        """The nodata value of the first band, None without one."""
        return self._nodata_of(self.data_bands[0] if self.data_bands else 1)

    @cached_property
    def has_mask(self) -> bool:
        """Whether validity needs more than a nodata value to be written down."""
        return self._aoi is not None or self._has_file_mask

    @cached_property
    def _has_file_mask(self) -> bool:
        """Whether the file holds an alpha band or a mask band."""
        if self._source.alpha is not None:
            return True
        dataset = self._source.dataset
        real = {MaskFlags.per_dataset}
        return any(
            set(flags) & real and MaskFlags.alpha not in flags
            for flags in dataset.mask_flag_enums
        )

    @cached_property
    def descriptions(self) -> tuple[str | None, ...]:
        """Band names as the file gives them; B04 style for Sentinel-2 products."""
        names = tuple(self._source.dataset.descriptions)
        if not self._is_product:
            return names
        codes = [self._band_tag(i + 1, "BANDNAME") for i in range(self.count)]
        return tuple(usual_band_name(c) or n for c, n in zip(codes, names, strict=True))

    @cached_property
    def scales(self) -> tuple[float, ...]:
        """What DN are multiplied with, per band; 1 where the file says nothing."""
        if self._is_product:
            return (1.0 / self._quantification,) * self.count
        return tuple(float(value) for value in self._source.dataset.scales)

    @cached_property
    def offsets(self) -> tuple[float, ...]:
        """What is added after that, per band; 0 where the file says nothing.

        Sentinel-2 products since baseline 04.00 hold it in DN, usually -1000.
        """
        if self._is_product:
            return tuple(
                self._add_offset_dn(band) / self._quantification
                for band in range(1, self.count + 1)
            )
        return tuple(float(value) for value in self._source.dataset.offsets)

    @property
    def _quantification(self) -> float:
        names = ("QUANTIFICATION_VALUE", "BOA_QUANTIFICATION_VALUE")
        return next(
            (float(self.tags[name]) for name in names if self.tags.get(name)), 10_000.0
        )

    def _add_offset_dn(self, band: int) -> float:
        names = ("RADIO_ADD_OFFSET", "BOA_ADD_OFFSET")
        return next((float(t) for n in names if (t := self._band_tag(band, n))), 0.0)

    @cached_property
    def colorinterp(self) -> tuple[str, ...]:
        """Names of rasterio's ColorInterp, per band."""
        dataset = self._source.dataset
        names = [color_name(dataset, band) for band in range(1, self.count + 1)]
        if self._source.alpha is None:  # an alpha band that is none
            names = ["undefined" if name == "alpha" else name for name in names]
        return tuple(names)

    @cached_property
    def tags(self) -> Mapping[str, str]:
        """The file's tags, without those about its encoding and statistics."""
        kept = self._source.dataset.tags()
        return {
            key: value
            for key, value in kept.items()
            if not key.startswith(TAGS_NOT_KEPT)
        }

    def any_tag(self, name: str) -> str:
        """Return a tag of the file, also one of ours; empty when it has none."""
        return str(self._source.dataset.tags().get(name, ""))

    def fingerprint(self) -> dict[str, str]:
        """Return JSON-able marks of the scene's content, for the run manifest.

        Every local file of the dataset counts with name, size, mtime and bytes sampled
        at up to 16 places; a remote one with its frame and its sampled pixels.
        """
        files = self._source.dataset.files
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
        dataset = self._source.dataset
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

        What lies beyond is reflected (numpy's "symmetric", repeated if need be), so a
        value depends on its position alone. float32 holds whole numbers up to 2**24.

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

    def read_stored(
        self, window: PixelWindow, bands: Sequence[int]
    ) -> tuple[NDArray[np.generic], BoolArray]:
        """Read a window as the file stores it; for copies that must be exact.

        Args:
            window: LR pixels inside this scene, half-open.
            bands: bands of the file, from 1, in the order wanted.

        Returns:
            `(dn, valid)`: (c, h, w) in the file's type, invalid pixels with whatever
            the file holds there, and (1, h, w) bool as `read` gives it.

        Raises:
            InputError: the file cannot be read there, or the window leaves the scene.
        """
        if window.intersection(PixelWindow(0, 0, *self._shape)) != window:
            raise InputError(f"{self.path}: window {tuple(window)} leaves the scene.")
        return self._read_native(window, bands, None)

    def read_decimated(
        self, bands: Sequence[int], max_pixels: int
    ) -> tuple[FloatArray, BoolArray]:
        """Read the scene thinned (nearest) to at most about `max_pixels` pixels.

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
        dataset = self._source.dataset
        try:
            with self._source.lock:
                native = dataset.read(
                    list(bands), window=place, out_shape=(len(bands), *shape)
                )
                valid = self._read_mask(place, shape)
        except (RasterioError, OSError) as error:
            raise InputError(
                f"{self.path}: cannot be read at rows {place.row_off} to "
                f"{place.row_off + place.height} ({first_line(error)}); the file is "
                "truncated or damaged."
            ) from error
        for plane, band in zip(native, bands, strict=True):
            valid &= _is_measured(plane, self._nodata_of(band))
        if self._aoi is not None:
            valid &= self._inside(self._aoi, window, shape)
        return native, valid[np.newaxis]

    def _read_mask(self, place: Window, shape: tuple[int, int]) -> BoolArray:
        """Return the file's alpha or mask band as (h, w) bool; nodata not counted."""
        dataset = self._source.dataset
        if self._source.alpha is not None:
            alpha = dataset.read(self._source.alpha, window=place, out_shape=shape)
            return np.asarray(alpha > 0)
        if self._has_file_mask:
            mask = dataset.read_masks(1, window=place, out_shape=shape)
            return np.asarray(mask > 0)
        return np.ones(shape, bool)

    def _inside(
        self, aoi: BaseGeometry, window: PixelWindow, shape: tuple[int, int]
    ) -> BoolArray:
        frame = self.grid.crop(window)
        zoom = rasterio.Affine.scale(frame.width / shape[1], frame.height / shape[0])
        return is_inside(aoi, shape, frame.transform @ zoom)

    def _nodata_of(self, band: int) -> float | None:
        declared = self._source.dataset.nodatavals[band - 1]
        if declared is None and self._is_product:
            declared = self.tags.get("SPECIAL_VALUE_NODATA")
        return None if declared is None else float(declared)


@contextmanager
def bounded_cache(size: int = CACHE_BYTES) -> Iterator[None]:
    """Bound GDAL's block cache (bytes) inside, and put the old bound back after.

    The bound belongs to the process, not to a thread: enter it once, outermost.
    """
    before = get_gdal_config("GDAL_CACHEMAX")
    with rasterio.Env():
        set_gdal_config("GDAL_CACHEMAX", size)
        try:
            yield
        finally:
            set_gdal_config("GDAL_CACHEMAX", before)


def _is_measured(plane: NDArray[np.generic], nodata: float | None) -> BoolArray:
    measured = (
        np.isfinite(plane) if plane.dtype.kind == "f" else np.ones(plane.shape, bool)
    )
    if nodata is None or math.isnan(nodata):
        return np.asarray(measured)
    if plane.dtype.kind == "f":
        with np.errstate(over="ignore"):  # a float64 limit may be infinite in float32
            measured &= plane != plane.dtype.type(nodata)
    elif nodata.is_integer():
        measured &= plane != int(nodata)
    return np.asarray(measured)


def _digest_file(digest: hashlib._Hash, name: str) -> None:
    size = os.path.getsize(name)
    digest.update(f"{os.path.basename(name)}:{size}:".encode())
    with open(name, "rb") as stream:
        last = max(0, size - FINGERPRINT_BYTES)
        for place in range(FINGERPRINT_SAMPLES):
            stream.seek(last * place // (FINGERPRINT_SAMPLES - 1))
            digest.update(stream.read(FINGERPRINT_BYTES))
