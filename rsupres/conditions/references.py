"""Earlier high-resolution images of any CRS and pixel size as one on the SR grid.

Several files make a mosaic, the latest date on top. A reference goes through its own
stretch, found once by the rules of `rsupres.raster.stretch` (0 to 255 for uint8,
reflectance where the file tells, else percentiles), and is not matched to the scene in
any way. It is warped in blocks that are fixed on the SR frame, so every window is a cut
of the same picture. Where nothing is known, the picture holds NaN.
"""

from __future__ import annotations

import logging
import math
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import cast

import numpy as np
from numpy.typing import NDArray

from rsupres.conditions.base import ConditionFrame
from rsupres.conditions.reference_files import (
    ReferenceFile,
    coverage_of,
    open_file,
    scene_as_file,
    share_stretch,
)
from rsupres.errors import ConditionError
from rsupres.grid import Grid, PixelWindow
from rsupres.raster.registration import CommonShift, Shift, find_common_shift
from rsupres.raster.stretch import Stretch
from rsupres.raster.warp import Source, warp

logger = logging.getLogger(__name__)

FloatArray = NDArray[np.float32]

BLOCK = 256  # SR pixels of a block's side, halved where the reference is far finer
SOURCE_SIDE = 2048  # pixels of a reference that one block takes at most, along a side
CACHE_BYTES = 64 * 2**20  # blocks kept for the neighbouring tiles
SHIFT_WINDOWS = 3  # along each axis, where the displacement is measured
SHIFT_SIDE = 256  # LR pixels of such a window
MIN_SIDE = 24  # LR pixels; no displacement is measured on less
WARN_SHIFT = 0.5  # LR pixels
PARTIAL = 0.995  # share of the scene; less is worth a warning


@dataclass(frozen=True)
class Settings:
    """What is found once per run, and kept in it.

    Attributes:
        stretches: of each file, the latest first, then of the scene as filling.
        shift: by how many LR pixels (down, right) the reference lies off the scene;
            None when it could not be measured.
    """

    stretches: tuple[Stretch, ...]
    shift: Shift | None

    def to_json(self) -> dict[str, object]:
        """Return what `from_json` reads back exactly."""
        return {
            "stretches": [stretch.to_json() for stretch in self.stretches],
            "shift": None if self.shift is None else list(self.shift),
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, object]) -> Settings:
        """Return the settings that `to_json` stored."""
        stretches = cast(Sequence[Mapping[str, Sequence[float]]], stored["stretches"])
        shift = cast("Sequence[float] | None", stored["shift"])
        return cls(
            tuple(Stretch.from_json(stretch) for stretch in stretches),
            None if shift is None else Shift(*shift),
        )


@dataclass
class _Cache:
    """Blocks that were warped last."""

    n_blocks: int
    blocks: OrderedDict[tuple[int, int], FloatArray] = field(
        default_factory=OrderedDict
    )
    lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass(frozen=True)
class References:
    """A reference on the SR grid: a `ConditionSource`.

    Attributes:
        frame: the scene.
        files: the latest first.
        settings: found once.
        coregister: whether the displacement is taken out.
        fill: whether the enlarged scene fills what is missing.
        coverage: share of the scene that the files cover with valid pixels.
    """

    frame: ConditionFrame
    files: tuple[ReferenceFile, ...]
    settings: Settings
    coregister: bool
    fill: bool
    coverage: float
    _cache: _Cache

    def read(self, window: PixelWindow) -> FloatArray:
        """Return (c, H, W) float32 in [0, 1], NaN where nothing is known.

        Args:
            window: SR pixels inside the scene's SR frame.
        """
        side = self.block_side
        out = np.empty((self._n_bands, window.height, window.width), np.float32)
        for row in range(window.row // side, -(-window.row_stop // side)):
            for col in range(window.col // side, -(-window.col_stop // side)):
                place = self._place(row, col)
                part = place.intersection(window)
                if part is None:
                    continue
                block = self._block(row, col, place)
                rows, cols = part.relative_to(window).slices()
                out[:, rows, cols] = block[:, *part.relative_to(place).slices()]
        return out

    def fingerprint(self) -> Mapping[str, object]:
        """Return names, dates and hashes of the files, and what is done to them."""
        return {
            "files": [file.marks() for file in self.files],
            "coregister": self.coregister,
            "fill": self.fill,
        }

    def describe(self) -> str:
        """Return names, dates, coverage and displacement."""
        names = ", ".join(
            f"{file.name} ({file.marks()['date'] or 'undated'})" for file in self.files
        )
        shift = self.settings.shift
        if shift is None:
            place = "displacement unknown"
        else:
            place = (
                f"lies {shift.row:+.2f}, {shift.col:+.2f} LR pixels (down, right) off"
            )
            place += ", corrected" if self.coregister else ""
        rest = ", the rest filled from the scene" if self.fill else ""
        return f"{names}; covers {100 * self.coverage:.1f} %{rest}; {place}"

    def with_settings(self, settings: Settings) -> References:
        """Return the same files with settings that an earlier process found."""
        return replace(self, settings=settings, _cache=_Cache(self._cache.n_blocks))

    def unfilled(self) -> References:
        """Return the same reference without what the enlarged scene fills."""
        if not self.fill:
            return self
        return replace(self, fill=False, _cache=_Cache(self._cache.n_blocks))

    @property
    def block_side(self) -> int:
        """SR pixels of a block: a power of two."""
        finest = max(file.ratio for file in self.files)
        side = BLOCK
        while side > 8 and side * finest > SOURCE_SIDE:
            side //= 2
        return side

    @property
    def _n_bands(self) -> int:
        return len(self.frame.bands)

    @property
    def _moved_by(self) -> tuple[float, float]:
        """SR pixels (down, right) by which the reference lies off."""
        if not self.coregister or self.settings.shift is None:
            return 0.0, 0.0
        row, col = self.settings.shift
        return row * float(self.frame.scale), col * float(self.frame.scale)

    def _place(self, row: int, col: int) -> PixelWindow:
        """Return where a block lies in the SR frame; those at its edge are cut."""
        side, frame = self.block_side, self.frame.sr
        return PixelWindow(
            row * side,
            col * side,
            min(side, frame.height - row * side),
            min(side, frame.width - col * side),
        )

    def _block(self, row: int, col: int, place: PixelWindow) -> FloatArray:
        cache = self._cache
        with cache.lock:
            if (row, col) in cache.blocks:
                cache.blocks.move_to_end((row, col))
                return cache.blocks[row, col]
            block = self._warp(self.frame.sr.crop(place))
            cache.blocks[row, col] = block
            while len(cache.blocks) > cache.n_blocks:
                cache.blocks.popitem(last=False)
        return block

    def on_scene(self, window: PixelWindow) -> FloatArray:
        """Return (c, h, w) on LR pixels of the scene, as `read` does on SR pixels."""
        return self._warp(self.frame.scene.grid.crop(window), self.frame.scale)

    def _warp(self, grid: Grid, coarser: Fraction = Fraction(1)) -> FloatArray:
        """Return all files on a frame, the latest on top.

        Args:
            grid: a part of the SR frame or of one that is `coarser` times coarser.
            coarser: SR pixels along one of its pixels.
        """
        row, col = self._moved_by
        moved = _moved(grid, (row / float(coarser), col / float(coarser)))
        layers = [(self._source(index), moved) for index in range(len(self.files))]
        if self.fill:
            layers.append((self._filling, grid))
        picture = np.full((self._n_bands, grid.height, grid.width), np.nan, np.float32)
        for source, place in layers:
            missing = np.isnan(picture[0])
            if not missing.any():
                break
            layer = warp(source, place, source.ratio * float(coarser))
            if layer is not None:
                np.copyto(picture, layer, where=missing)
        return picture

    def _source(self, index: int) -> Source:
        file = self.files[index]
        return Source(
            file.scene, file.bands, self.settings.stretches[index], file.ratio
        )

    @property
    def _filling(self) -> Source:
        return scene_as_file(self.frame, self.settings.stretches[-1])


@contextmanager
def open_references(
    names: Sequence[str], frame: ConditionFrame, *, coregister: bool, fill: bool
) -> Iterator[References]:
    """Open reference images on the SR frame of a scene; close them on leaving.

    Coverage, stretch and displacement are found here, once.

    Args:
        names: anything that GDAL opens; by date they lie one over the other.
        frame: the scene.
        coregister: take the displacement out.
        fill: let the enlarged scene, its contrast matched to that of the reference,
            fill what the files miss.

    Raises:
        InputError: a file cannot be used as a raster.
        BandError: a file lacks the model's bands.
        ConditionError: of another place, without a valid pixel over the scene, coarser
            than the scene, or the displacement cannot be measured though it is wanted.
    """
    with ExitStack() as stack:
        files = [open_file(stack, name, frame) for name in names]
        files.sort(key=lambda file: file.date, reverse=True)  # stable: ties as given
        _report_dates(files)
        coverage = _check_coverage(files, frame)
        stretches = share_stretch(files, frame)
        block_bytes = BLOCK**2 * len(frame.bands) * 4
        opened = References(
            frame=frame,
            files=tuple(files),
            settings=Settings(tuple(stretches), None),
            coregister=False,
            fill=False,
            coverage=coverage,
            _cache=_Cache(max(4, CACHE_BYTES // block_bytes)),
        )
        windows = list(_common_windows(opened))
        shift = _measure_shift(windows, frame, coregister)
        if fill:
            stretches.append(_matched(windows, frame.stretch))
        settings = Settings(tuple(stretches), shift)
        yield replace(opened, settings=settings, coregister=coregister, fill=fill)


_Window = tuple[FloatArray, FloatArray, NDArray[np.bool_]]


def _report_dates(files: Sequence[ReferenceFile]) -> None:
    for file in files:
        logger.info(
            "%s: reference of %s, by its %s.",
            file.name,
            f"{file.date:%Y-%m-%d}",
            file.date_source,
        )


def _check_coverage(files: Sequence[ReferenceFile], frame: ConditionFrame) -> float:
    """Return the share of the scene that is covered; warn where it is not all."""
    share = coverage_of(files, frame)
    names = ", ".join(file.name for file in files)
    if share == 0:
        raise ConditionError(
            f"--reference {names}: no valid pixel over {frame.scene.path}; is the "
            "nodata value right?"
        )
    if share < PARTIAL:
        logger.warning(
            "%s: covers %.1f %% of the scene; elsewhere the model has no reference.",
            names,
            100 * share,
        )
    return share


def _common_windows(opened: References) -> Iterator[_Window]:
    """Yield (reference, scene, valid) on windows of the LR grid, spread evenly."""
    frame = opened.frame
    ratio = max(file.ratio for file in opened.files) * float(frame.scale)
    most = max(MIN_SIDE, min(SHIFT_SIDE, int(SOURCE_SIDE / ratio)))
    height, width = frame.scene.grid.height, frame.scene.grid.width
    n_rows, n_cols = (
        min(SHIFT_WINDOWS, -(-length // most)) for length in (height, width)
    )
    if min(height, width) < MIN_SIDE:
        return
    window = PixelWindow(0, 0, min(most, height), min(most, width))
    for row in range(n_rows):
        for col in range(n_cols):
            place = window._replace(
                row=(height - window.height) * row // max(1, n_rows - 1),
                col=(width - window.width) * col // max(1, n_cols - 1),
            )
            dn, valid = frame.scene.read(place, frame.bands)
            lr = np.clip(frame.stretch.to_unit(dn), 0, 1)
            reference = opened.on_scene(place)
            both = valid[0] & np.isfinite(reference).all(axis=0)
            if np.count_nonzero(both) >= both.size // 4:
                yield np.where(both, reference, 0), np.where(both, lr, 0), both


def _measure_shift(
    windows: Sequence[_Window], frame: ConditionFrame, coregister: bool
) -> Shift | None:
    common: CommonShift = find_common_shift(windows)
    if not common.is_known:
        if coregister:
            raise ConditionError(
                "--coregister: the displacement of the reference cannot be measured "
                f"({common.n_windows} places, no agreement); leave it out."
            )
        logger.info("The displacement of the reference could not be measured.")
        return None
    shift = common.shift
    length = math.hypot(*shift)
    gsd_m = frame.scene.grid.gsd_m
    level = logging.WARNING if length > WARN_SHIFT and not coregister else logging.INFO
    logger.log(
        level,
        "The reference lies %+.2f LR pixels down and %+.2f right of the scene (%.2g m; "
        "%d of %d places agree)%s",
        shift.row,
        shift.col,
        length * gsd_m,
        common.n_agree,
        common.n_windows,
        "; taken out." if coregister else _advice(length),
    )
    return shift


def _advice(length: float) -> str:
    return "; --coregister takes it out." if length > WARN_SHIFT else "."


def _matched(windows: Sequence[_Window], stretch: Stretch) -> Stretch:
    """Return the stretch that gives the scene mean and contrast of the reference."""
    if not windows:
        return stretch
    reference, lr = (
        np.concatenate([window[which][:, window[2]] for window in windows], axis=1)
        for which in (0, 1)
    )
    low, high = [], []
    for a, b, bottom, top in zip(reference, lr, stretch.low, stretch.high, strict=True):
        spread = float(b.std(dtype=np.float64))
        gain = float(a.std(dtype=np.float64)) / spread if spread > 0 else 1.0
        gain = gain if gain > 0 else 1.0
        bias = float(a.mean(dtype=np.float64)) - gain * float(b.mean(dtype=np.float64))
        span = top - bottom
        # gain * (dn - bottom) / span + bias is 0 and 1 at these two.
        low.append(bottom - bias * span / gain)
        high.append(bottom + (1 - bias) * span / gain)
    return Stretch(tuple(low), tuple(high))


def _moved(grid: Grid, by: tuple[float, float]) -> Grid:
    """Return a frame moved by (down, right) of its own pixels."""
    if by == (0.0, 0.0):
        return grid
    moved = grid.transform @ type(grid.transform).translation(by[1], by[0])
    return Grid(grid.crs, moved, grid.height, grid.width)
