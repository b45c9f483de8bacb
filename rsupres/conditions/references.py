"""Show earlier high-resolution images of any CRS and pixel size on the SR grid.

Several files make a mosaic, the latest date on top. Each file goes through its own
stretch, found once by the rules of `rsupres.raster.stretch` (0 to 255 for uint8,
reflectance where the file says so, else percentiles), and is not matched to the scene.
Files are warped in blocks that are fixed on the SR frame, so every window is a cut of
the same picture. Where nothing is known, the picture holds NaN.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from typing import cast

import numpy as np
from numpy.typing import NDArray

from rsupres.conditions.base import TargetScene
from rsupres.conditions.comparison import (
    match_contrast,
    measure_displacement,
    read_common_windows,
)
from rsupres.conditions.reference_files import (
    ReferenceFile,
    coverage_of,
    open_file,
    scene_as_source,
    shared_stretches,
)
from rsupres.errors import ConditionError
from rsupres.grid import Grid, PixelWindow
from rsupres.raster.blocks import Blocks
from rsupres.raster.place.registration import Shift
from rsupres.raster.place.warp import Source, warp
from rsupres.raster.stretch import Stretch

logger = logging.getLogger(__name__)

FloatArray = NDArray[np.float32]

CACHE_BYTES = 64 * 2**20  # blocks kept for the neighbouring tiles
BLOCK_SIDE = 256  # SR pixels, halved where the reference is far finer
MIN_BLOCK_SIDE = 8
MAX_SOURCE_SIDE = 2048  # reference pixels that one block takes, along a side
WARN_COVERAGE = 0.995  # share of the scene; less is worth a warning


@dataclass(frozen=True)
class Settings:
    """Measurements made once per run, and kept in the run directory.

    Attributes:
        stretches: of each file, the latest first, then of the scene as filling.
        shift: by how many LR pixels (down, right) the reference lies off the scene;
            None when it could not be measured.
    """

    stretches: tuple[Stretch, ...]
    shift: Shift | None

    def to_json(self) -> dict[str, object]:
        """Return JSON-able values that `from_json` reads back exactly."""
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


@dataclass(frozen=True)
class References:
    """A reference on the SR grid: a `ConditionSource`.

    Attributes:
        frame: the scene.
        files: the latest first.
        settings: measured once per run.
        coregister: the displacement is corrected.
        fill: the enlarged scene fills what is missing.
        coverage: share of the scene that the files cover with valid pixels.
    """

    frame: TargetScene
    files: tuple[ReferenceFile, ...]
    settings: Settings
    coregister: bool
    fill: bool
    coverage: float

    def read(self, window: PixelWindow) -> FloatArray:
        """Return (c, H, W) float32 in [0, 1] of SR pixels, NaN where nothing is known.

        Raises:
            GridError: the window leaves the frame.
        """
        return self._blocks.read(window)

    def read_on_scene(self, window: PixelWindow) -> FloatArray:
        """Return (c, h, w) on LR pixels of the scene, as `read` does on SR pixels."""
        return self._warp(self.frame.scene.grid.crop(window), self.frame.scale)

    def fingerprint(self) -> Mapping[str, object]:
        """Return names, dates and hashes of the files, and how they are used."""
        return {
            "files": [file.fingerprint() for file in self.files],
            "coregister": self.coregister,
            "fill": self.fill,
        }

    def describe(self) -> str:
        """Return names, dates, coverage and displacement."""
        names = ", ".join(
            f"{file.name} ({file.recorded_date or 'undated'})" for file in self.files
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
        """Return the same files with settings that an earlier process measured."""
        return replace(self, settings=settings)

    def unfilled(self) -> References:
        """Return the same reference without the filling from the scene."""
        return replace(self, fill=False) if self.fill else self

    @property
    def block_side(self) -> int:
        """SR pixels of a block's side: a power of two."""
        finest = max(file.ratio for file in self.files)
        side = BLOCK_SIDE
        while side > MIN_BLOCK_SIDE and side * finest > MAX_SOURCE_SIDE:
            side //= 2
        return side

    @cached_property
    def _blocks(self) -> Blocks[np.float32]:
        sr = self.frame.sr
        return Blocks(
            sr.window,
            self.block_side,
            lambda place: self._warp(sr.crop(place)),
            CACHE_BYTES,
        )

    @property
    def _displacement(self) -> tuple[float, float]:
        """SR pixels (down, right) by which the files are to be moved back."""
        if not self.coregister or self.settings.shift is None:
            return 0.0, 0.0
        row, col = self.settings.shift
        return row * float(self.frame.scale), col * float(self.frame.scale)

    def _warp(self, grid: Grid, coarser: Fraction = Fraction(1)) -> FloatArray:
        """Return all files on a frame of pixels `coarser` times SR's, latest on top."""
        row, col = self._displacement
        moved = _moved(grid, (row / float(coarser), col / float(coarser)))
        layers = [
            (Source(file.scene, file.bands, stretch, file.ratio), moved)
            for file, stretch in zip(self.files, self.settings.stretches, strict=False)
        ]
        if self.fill:
            filling = scene_as_source(self.frame, self.settings.stretches[-1])
            layers.append((filling, grid))
        n_bands = len(self.frame.bands)
        picture = np.full((n_bands, grid.height, grid.width), np.nan, np.float32)
        for source, place in layers:
            missing = np.isnan(picture[0])
            if not missing.any():
                break
            layer = warp(source, place, source.ratio * float(coarser))
            if layer is not None:
                np.copyto(picture, layer, where=missing)
        return picture


@contextmanager
def open_references(
    names: Sequence[str], frame: TargetScene, *, coregister: bool, fill: bool
) -> Iterator[References]:
    """Yield reference images, open on the SR frame of a scene.

    Coverage, stretch and displacement are measured here, once.

    Args:
        names: any rasters that GDAL opens, in any order.
        frame: the scene.
        coregister: correct the displacement.
        fill: let the enlarged scene, its contrast matched to that of the reference,
            fill what the files miss.

    Raises:
        InputError: a file cannot be used as a raster.
        BandError: a file lacks the model's bands.
        ConditionError: of another place, without a valid pixel over the scene, coarser
            than the scene, or the displacement cannot be measured but shall be
            corrected.
    """
    with ExitStack() as stack:
        files = [open_file(stack, name, frame) for name in names]
        files.sort(key=lambda file: file.date, reverse=True)  # stable: ties as given
        _report_dates(files)
        coverage = _check_coverage(files, frame)
        stretches = shared_stretches(files)
        opened = References(
            frame=frame,
            files=tuple(files),
            settings=Settings(tuple(stretches), None),
            coregister=False,
            fill=False,
            coverage=coverage,
        )
        ratio = max(file.ratio for file in files) * float(frame.scale)
        windows = list(read_common_windows(frame, ratio, opened.read_on_scene))
        shift = measure_displacement(windows, frame, coregister=coregister)
        if fill:
            stretches.append(match_contrast(windows, frame.stretch))
        settings = Settings(tuple(stretches), shift)
        yield replace(opened, settings=settings, coregister=coregister, fill=fill)


def _report_dates(files: Sequence[ReferenceFile]) -> None:
    for file in files:
        logger.info(
            "%s: reference of %s, by its %s.",
            file.name,
            f"{file.date:%Y-%m-%d}",
            file.date_source,
        )


def _check_coverage(files: Sequence[ReferenceFile], frame: TargetScene) -> float:
    """Return the share of the scene that is covered; warn when it is not all."""
    share = coverage_of(files, frame)
    names = ", ".join(file.name for file in files)
    if share == 0:
        raise ConditionError(
            f"{names}: no valid pixel over {frame.scene.path}; is the nodata value "
            "right?",
            argument="reference",
        )
    if share < WARN_COVERAGE:
        logger.warning(
            "%s: covers %.1f %% of the scene; elsewhere the model has no reference.",
            names,
            100 * share,
        )
    return share


def _moved(grid: Grid, by: tuple[float, float]) -> Grid:
    """Return a frame moved by (down, right) of its own pixels."""
    if by == (0.0, 0.0):
        return grid
    moved = grid.transform @ type(grid.transform).translation(by[1], by[0])
    return Grid(grid.crs, moved, grid.height, grid.width)
