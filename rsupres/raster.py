"""Rasters into numbers: scenes, windows, masks and bands.

This module and its three neighbours are the only ones that open rasters:
`rsupres.products` (which file of a product folder to open), `rsupres.assembly` (strips
and the final output) and this one. Pixels leave here as float32 DN with a valid mask;
what DN mean is the subject of `rsupres.radiometry`. No other module sees a rasterio
dataset.
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, Interleaving, MaskFlags
from rasterio.env import get_gdal_config, set_gdal_config
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.features import geometry_mask
from rasterio.windows import Window

from rsupres.bands import BandChoice, choose_bands
from rsupres.errors import InputError
from rsupres.grid import Grid, PixelWindow
from rsupres.products import Product, find_product
from rsupres.radiometry import to_dtype

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

__all__ = [
    "BandChoice",
    "Scene",
    "bounded_cache",
    "choose_bands",
    "fill_invalid",
    "read_filled",
    "to_dtype",
]

FloatArray = NDArray[np.float32]
BoolArray = NDArray[np.bool_]

CACHE_BYTES = 64 * 2**20  # GDAL blocks in memory
FILL_REACH = 32  # LR pixels
FINGERPRINT_SAMPLES = 16  # places of a file that its fingerprint reads
FINGERPRINT_BYTES = 65_536  # at each of them
ALPHA_SAMPLE_PIXELS = 250_000
TAGS_NOT_KEPT = ("AREA_OR_POINT", "STATISTICS_", "OVR_RESAMPLING", "RSUPRES_")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Source:
    """What a scene and its crops share."""

    dataset: rasterio.DatasetReader
    product: Product
    alpha: int | None  # band of the file that is a mask, not a picture
    lock: threading.Lock  # GDAL datasets are not thread-safe


class Scene:
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
    def open(cls, path: str | os.PathLike[str], *, needs_crs: bool = True) -> Scene:
        """Open anything that GDAL reads, or a Sentinel-2 product.

        A `.SAFE` folder, its zip or its `MTD_MSIL*.xml` opens as the 10 m bands.

        Args:
            path: file, folder, URL or GDAL name.
            needs_crs: refuse a raster that does not say where it lies.

        Raises:
            InputError: missing, unreadable, not a raster, truncated, without bands,
                with a palette or complex numbers, without CRS or transform.
        """
        name = os.fspath(path)
        product = find_product(name)
        dataset = _open_dataset(product.gdal_name, name)
        try:
            _check_kind(dataset, name)
            grid = _find_grid(dataset, name, needs_crs)
            _check_complete(dataset, name)
            source = _Source(
                dataset, product, _find_alpha(dataset, name), threading.Lock()
            )
        except BaseException:
            dataset.close()
            raise
        return cls(name, grid, PixelWindow(0, 0, grid.height, grid.width), source)

    def __enter__(self) -> Scene:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file, also for every crop of this scene."""
        self._source.dataset.close()

    def crop(self, window: PixelWindow, aoi: BaseGeometry | None = None) -> Scene:
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
        return Scene(self.path, self.grid.crop(window), moved, self._source, aoi)

    @property
    def _shape(self) -> tuple[int, int]:
        return self.grid.height, self.grid.width

    @property
    def count(self) -> int:
        """Number of bands in the file, alpha included."""
        return int(self._source.dataset.count)

    @property
    def data_bands(self) -> tuple[int, ...]:
        """The bands of the file, from 1, that hold a picture (all but alpha)."""
        return tuple(i for i in range(1, self.count + 1) if i != self._source.alpha)

    @cached_property
    def dtype(self) -> str:
        """The numpy name of a type that holds every band."""
        kinds = [np.dtype(kind) for kind in self._source.dataset.dtypes]
        return str(np.result_type(*kinds))

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
        """Band names as the file gives them; B02 style for Sentinel-2 products."""
        return self._source.product.descriptions or tuple(
            self._source.dataset.descriptions
        )

    @property
    def scales(self) -> tuple[float, ...]:
        """What DN are multiplied with, per band; 1 where the file says nothing."""
        return tuple(float(value) for value in self._source.dataset.scales)

    @property
    def offsets(self) -> tuple[float, ...]:
        """What is added after that, per band; 0 where the file says nothing."""
        return tuple(float(value) for value in self._source.dataset.offsets)

    @cached_property
    def colorinterp(self) -> tuple[str, ...]:
        """Names of rasterio's ColorInterp, per band."""
        dataset = self._source.dataset
        names = [_color_name(dataset, band) for band in range(1, self.count + 1)]
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

    def product_number(self, name: str) -> float | None:
        """Return a number that the product's metadata or the tags hold, else None.

        Args:
            name: such as QUANTIFICATION_VALUE or BOA_ADD_OFFSET; matches tags that
                end so.
        """
        for source in (self._source.product.numbers, self.tags):
            for key, value in source.items():
                if key == name or key.endswith("_" + name):
                    try:
                        return float(value)
                    except ValueError:
                        continue
        return None

    def fingerprint(self) -> dict[str, str]:
        """Return JSON-able marks of the scene's content, for the run manifest.

        Every local file of the dataset counts with name, size, mtime and bytes sampled
        at up to 16 places; a remote one with its frame and its sampled pixels.
        """
        files = sorted(name for name in self._source.dataset.files)
        local = [name for name in files if os.path.isfile(name)]
        digest = hashlib.sha256()
        for name in local:
            _digest_file(digest, name)
        if len(local) < len(files) or not local:
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
        whole = Scene(
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
        rows = _reflect(window.row, window.height, self.grid.height)
        cols = _reflect(window.col, window.width, self.grid.width)
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
                f"{place.row_off + place.height} ({_first_line(error)}); the file is "
                "truncated or damaged."
            ) from error
        for plane, band in zip(native, bands, strict=True):
            valid &= _is_measured(plane, self._nodata_of(band))
        if self._aoi is not None:
            valid &= self._inside_aoi(window, shape)
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

    def _inside_aoi(self, window: PixelWindow, shape: tuple[int, int]) -> BoolArray:
        frame = self.grid.crop(window)
        zoom = rasterio.Affine.scale(frame.width / shape[1], frame.height / shape[0])
        inside = geometry_mask([self._aoi], shape, frame.transform * zoom, invert=True)
        return np.asarray(inside)

    def _nodata_of(self, band: int) -> float | None:
        declared = self._source.dataset.nodatavals[band - 1]
        if declared is None:
            return self._source.product.nodata
        return float(declared)


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


def read_filled(
    scene: Scene, window: PixelWindow, bands: Sequence[int]
) -> tuple[FloatArray, BoolArray]:
    """Read a window with its invalid pixels filled, the same from every tile.

    As `Scene.read` and `fill_invalid`, but where something is invalid the
    surroundings within `FILL_REACH` are read too, so that a filled value depends on
    its position alone, not on the window.
    """
    dn, valid = scene.read(window, bands)
    if valid.all():
        return dn, valid
    grown = PixelWindow(
        window.row - FILL_REACH,
        window.col - FILL_REACH,
        window.height + 2 * FILL_REACH,
        window.width + 2 * FILL_REACH,
    )
    filled = fill_invalid(*scene.read(grown, bands))
    inner = slice(FILL_REACH, -FILL_REACH)
    return np.ascontiguousarray(filled[:, inner, inner]), valid


def fill_invalid(
    lr: FloatArray, valid: BoolArray, background: Sequence[float] | None = None
) -> FloatArray:
    """Continue valid pixels into invalid ones, ring by ring.

    Each ring takes the mean of its valid or already filled neighbours (3 x 3). A
    filled value depends on pixels within `FILL_REACH` of it and on nothing else; over
    the second half of that reach it fades into the background, which is the value of
    everything farther away.

    Args:
        lr: (c, h, w) float32; invalid pixels may be NaN.
        valid: (1, h, w) bool.
        background: one value per channel; 0 when not given.

    Returns:
        (c, h, w) float32, finite; valid pixels unchanged.
    """
    if valid.all():
        return lr
    far = np.zeros(lr.shape[0]) if background is None else np.asarray(background)
    far = far.astype(np.float32).reshape(-1, 1, 1)
    known = np.pad(valid[0], 1)
    filled = np.pad(np.where(valid, lr, np.float32(0)), ((0, 0), (1, 1), (1, 1)))
    inner = (slice(1, -1), slice(1, -1))
    faded = np.where(valid, lr, far)
    for ring in range(1, FILL_REACH + 1):
        counts = _sum3(known.astype(np.float32))
        fresh = (counts > 0) & ~known[inner]
        rows, cols = np.nonzero(fresh)
        if not rows.size:
            break
        sums = _sum3_at(filled, rows, cols)
        means = sums / counts[rows, cols]
        weight = np.float32(_fade(ring))
        faded[:, rows, cols] = weight * means + (1 - weight) * far[:, :, 0]
        filled[:, rows + 1, cols + 1] = means
        known[rows + 1, cols + 1] = True
    return faded


def _fade(ring: int) -> float:
    """Return 1 up to half the reach, then a raised cosine to 0 just beyond it."""
    half = FILL_REACH // 2
    over = max(0, ring - half) / (FILL_REACH + 1 - half)
    return 0.5 + 0.5 * math.cos(math.pi * over)


def _sum3(padded: FloatArray) -> FloatArray:
    """Return the sums over 3 x 3 of a plane padded by one pixel."""
    rows = padded[:-2] + padded[1:-1] + padded[2:]
    return np.asarray(rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:])


def _sum3_at(
    padded: FloatArray, rows: NDArray[np.intp], cols: NDArray[np.intp]
) -> FloatArray:
    """Return the sums (c, n) over 3 x 3 around n pixels, in one fixed order."""
    total = np.zeros((padded.shape[0], rows.size), np.float32)
    for down in range(3):
        for right in range(3):
            total += padded[:, rows + down, cols + right]
    return total


def _reflect(start: int, length: int, size: int) -> NDArray[np.intp]:
    """Return the positions in [0, size) that show at start, start + 1, ..."""
    turn = np.arange(start, start + length) % (2 * size)
    return np.where(turn < size, turn, 2 * size - 1 - turn)


def _is_measured(plane: NDArray[np.generic], nodata: float | None) -> BoolArray:
    measured = (
        np.isfinite(plane) if plane.dtype.kind == "f" else np.ones(plane.shape, bool)
    )
    if nodata is not None and not math.isnan(nodata):
        limit = plane.dtype.type(nodata) if plane.dtype.kind == "f" else nodata
        measured &= plane != limit
    return np.asarray(measured)


def _open_dataset(gdal_name: str, name: str) -> rasterio.DatasetReader:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            return rasterio.open(gdal_name)
    except RasterioError as error:
        reason = _first_line(error)
        if "not recognized as being in a supported file format" in reason:
            reason = "not a raster that GDAL can read"
        raise InputError(f"{name}: {reason}.") from error


def _check_kind(dataset: rasterio.DatasetReader, name: str) -> None:
    if dataset.count == 0:
        parts = ", ".join(dataset.subdatasets[:3])
        hint = f"; name one of its subdatasets: {parts}" if parts else ""
        raise InputError(f"{name}: the raster has no bands{hint}.")
    if any(kind.startswith("complex") for kind in dataset.dtypes):
        raise InputError(
            f"{name}: complex numbers ({dataset.dtypes[0]}) cannot be sharpened; "
            "give the amplitude."
        )
    if ColorInterp.palette in _colors(dataset):
        raise InputError(
            f"{name}: the pixels are palette entries, not colours; expand them first: "
            "gdal_translate -expand rgb IN OUT."
        )


def _find_grid(dataset: rasterio.DatasetReader, name: str, needs_crs: bool) -> Grid:
    transform = dataset.transform
    if needs_crs and not dataset.crs:
        raise InputError(
            f"{name}: no CRS, so nobody knows where it lies; set it, for example with "
            "rio edit-info --crs EPSG:32633 FILE."
        )
    if needs_crs and transform == rasterio.Affine.identity():
        points = " but ground control points" if dataset.gcps[0] else ""
        raise InputError(
            f"{name}: no transform{points}; georeference it first, for example with "
            "gdalwarp."
        )
    if transform.determinant == 0:
        raise InputError(f"{name}: transform {tuple(transform)[:6]} has no area.")
    return Grid(dataset.crs, transform, dataset.height, dataset.width)


def _check_complete(dataset: rasterio.DatasetReader, name: str) -> None:
    """Refuse a file whose last pixels are missing, before hours go into it."""
    last = Window(dataset.width - 1, dataset.height - 1, 1, 1)
    try:
        dataset.read(window=last)
    except (RasterioError, OSError) as error:
        raise InputError(
            f"{name}: truncated or damaged: its last pixels cannot be read "
            f"({_first_line(error)})."
        ) from error
    if dataset.driver == "GTiff" and os.path.isfile(dataset.name):
        size = os.path.getsize(dataset.name)
        blocks = (block for block in stored_blocks(dataset, 4096) if block)
        end = max((offset + length for offset, length in blocks), default=0)
        if end > size:
            raise InputError(
                f"{name}: truncated: {size} bytes, but pixels are stored up to byte "
                f"{end}; copy or download it again."
            )


def stored_blocks(
    dataset: rasterio.DatasetReader, most: int | None = None
) -> Iterator[tuple[int, int] | None]:
    """Yield where a TIFF stores its blocks: (offset, length) in bytes.

    None stands for a block that is not stored, which reads as nodata.

    Args:
        dataset: an open GeoTIFF.
        most: about how many blocks of a band to look at, evenly spread; None = all.
    """
    is_one_plane = dataset.interleaving is Interleaving.pixel
    for band in range(1, 2 if is_one_plane else dataset.count + 1):
        block_height, block_width = dataset.block_shapes[band - 1]
        n_cols = math.ceil(dataset.width / block_width)
        n_blocks = math.ceil(dataset.height / block_height) * n_cols
        for index in range(0, n_blocks, max(1, n_blocks // (most or n_blocks))):
            row, col = divmod(index, n_cols)
            offset, length = (
                dataset.get_tag_item(f"BLOCK_{part}_{col}_{row}", "TIFF", bidx=band)
                for part in ("OFFSET", "SIZE")
            )
            yield (int(offset), int(length)) if offset and length else None


def _find_alpha(dataset: rasterio.DatasetReader, name: str) -> int | None:
    """Return the band that is a mask; not a fourth band that only calls itself so.

    Four-band aerial images are often stored as RGBA though the fourth band is near
    infrared; its name or its many values tell.
    """
    colors = _colors(dataset)
    if ColorInterp.alpha not in colors:
        return None
    band = colors.index(ColorInterp.alpha) + 1
    label = (dataset.descriptions[band - 1] or "").strip().lower()
    if label and label not in ("alpha", "a", "mask"):
        return None
    step = max(1, int(math.sqrt(dataset.width * dataset.height / ALPHA_SAMPLE_PIXELS)))
    shape = (math.ceil(dataset.height / step), math.ceil(dataset.width / step))
    sample = dataset.read(band, out_shape=shape)
    between = (sample != 0) & (sample != sample.max())
    if np.count_nonzero(between) > sample.size // 2:
        logger.warning(
            "%s: band %d calls itself alpha but holds a picture; used as a band.",
            name,
            band,
        )
        return None
    return band


def _colors(dataset: rasterio.DatasetReader) -> tuple[ColorInterp, ...]:
    return tuple(
        ColorInterp[_color_name(dataset, band)] for band in range(1, dataset.count + 1)
    )


def _color_name(dataset: rasterio.DatasetReader, band: int) -> str:
    """Return one band's colour; "undefined" for those that rasterio does not know."""
    try:
        return str(dataset.colorinterp[band - 1].name)
    except ValueError:
        return "undefined"


def _digest_file(digest: hashlib._Hash, name: str) -> None:
    size = os.path.getsize(name)
    digest.update(f"{os.path.basename(name)}:{size}:".encode())
    with open(name, "rb") as stream:
        last = max(0, size - FINGERPRINT_BYTES)
        for place in range(FINGERPRINT_SAMPLES):
            stream.seek(last * place // (FINGERPRINT_SAMPLES - 1))
            digest.update(stream.read(FINGERPRINT_BYTES))


def _first_line(error: BaseException) -> str:
    text = str(error.__cause__ or error).strip() or type(error).__name__
    return text.splitlines()[0].rstrip(".")
