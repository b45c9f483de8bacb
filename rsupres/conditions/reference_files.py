"""Open the files of a reference: check each, date it, and find its stretch.

Decides whether a file can be a reference of a scene. Only samples of the pixels are
read here; `rsupres.conditions.references` makes the picture.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.enums import Resampling

from rsupres.conditions.base import TargetScene
from rsupres.errors import BandError, ConditionError, GridError
from rsupres.grid import Grid, PixelWindow
from rsupres.raster.bands import choose_bands
from rsupres.raster.dataset import Raster
from rsupres.raster.files import date_of, footprint
from rsupres.raster.place.warp import Source, source_pixels_per_pixel, source_window
from rsupres.raster.stretch import Stretch, find_stretch, parse_stretch
from rsupres.raster.undeclared import find_undeclared
from rsupres.raster.virtual import warp_array

logger = logging.getLogger(__name__)

MAX_PIXEL_RATIO = 1.01  # pixel size of a reference over that of the scene
COVERAGE_SIDE = 256  # pixels of the thinned picture on which coverage is counted
SAMPLE_PIXELS = 1_000_000  # of a file, for its coverage


@dataclass(frozen=True)
class ReferenceFile:
    """One file of a reference.

    Attributes:
        scene: open, the whole file.
        bands: that fill the model's roles.
        date: of the picture, UTC.
        date_source: where the date comes from: "tag NAME", "name", "DateTime tag"
            or "file time".
        ratio: its pixels along one SR pixel, at the scene's middle.
        part: window of its pixels over the scene.
    """

    scene: Raster
    bands: tuple[int, ...]
    date: datetime
    date_source: str
    ratio: float
    part: PixelWindow

    @property
    def name(self) -> str:
        """The file's name without its folder."""
        return os.path.basename(self.scene.path)

    @property
    def recorded_date(self) -> str | None:
        """The date, ISO 8601; None when only the file's own time is known.

        Copying changes the file's own time, so it says nothing about the content.
        """
        is_recorded = self.date_source != "file time"
        return f"{self.date:%Y-%m-%d}" if is_recorded else None

    def fingerprint(self) -> dict[str, object]:
        """Return name, date, hash and bands."""
        return {
            "file": self.name,
            "date": self.recorded_date,
            "sha256": self.scene.fingerprint()["sha256"],
            "bands": list(self.bands),
        }


def open_file(stack: ExitStack, name: str, frame: TargetScene) -> ReferenceFile:
    """Return one file of a reference, open and checked.

    Args:
        stack: closes the file.
        name: a raster that GDAL opens.
        frame: the scene.

    Raises:
        InputError: no raster, or without CRS.
        BandError: it lacks the model's bands.
        ConditionError: of another place, or coarser than the scene.
    """
    scene = stack.enter_context(Raster.open(name))
    part = source_window(scene.grid, frame.scene.grid)
    if part is None:
        raise ConditionError(
            f"{name}: covers {footprint(scene.grid)} and the scene "
            f"{frame.scene.path} {footprint(frame.scene.grid)} (longitude, latitude); "
            "they do not touch.",
            argument="reference",
        )
    try:
        ratio = source_pixels_per_pixel(scene.grid, frame.sr)
    except GridError as error:
        raise ConditionError(
            f"{name}: cannot be laid over the scene: {error}", argument="reference"
        ) from error
    if ratio * float(frame.scale) * MAX_PIXEL_RATIO < 1:
        gsd_m = frame.scene.grid.gsd_m
        own_m = gsd_m / float(frame.scale) / ratio
        raise ConditionError(
            f"{name}: its pixels of {own_m:.3g} m are coarser than those of the scene "
            f"{frame.scene.path} ({gsd_m:.3g} m); are the two swapped?",
            argument="reference",
        )
    bands = _bands(scene, frame)
    scene = _without_undeclared(scene, bands)
    date, source = date_of(scene)
    return ReferenceFile(scene, bands, date, source, ratio, part)


def shared_stretches(files: Sequence[ReferenceFile]) -> list[Stretch]:
    """Return one stretch per file; files of one data type share the widest limits.

    Only the part over the scene is looked at, so a file that is stretched by
    percentiles may have other limits over another scene.
    """
    choice = parse_stretch("auto")
    found = [
        find_stretch(file.scene.crop(file.part), choice).for_bands(file.bands)
        for file in files
    ]
    shared = []
    for file in files:
        alike = [
            stretch
            for other, stretch in zip(files, found, strict=True)
            if other.scene.dtype == file.scene.dtype
        ]
        shared.append(
            Stretch(
                tuple(min(lows) for lows in zip(*(s.low for s in alike), strict=True)),
                tuple(max(tops) for tops in zip(*(s.high for s in alike), strict=True)),
            )
        )
    return shared


def coverage_of(files: Sequence[ReferenceFile], frame: TargetScene) -> float:
    """Return the share of the scene that the files cover with valid pixels, 0 to 1.

    Counted on a thinned picture of up to `COVERAGE_SIDE` pixels a side. The result is 0
    only when no sampled pixel over the scene is valid.

    Args:
        files: of one reference.
        frame: the scene.
    """
    scene = frame.scene.grid
    height, width = (min(COVERAGE_SIDE, side) for side in (scene.height, scene.width))
    zoom = Affine.scale(scene.width / width, scene.height / height)
    small = Grid(scene.crs, scene.transform @ zoom, height, width)
    covered = np.zeros((height, width), bool)
    any_valid = False
    for file in files:
        crop = file.scene.crop(file.part)
        _, valid = crop.read_decimated(file.bands, SAMPLE_PIXELS)
        any_valid |= bool(valid.any())
        covered |= _project(valid[0], crop.grid, small)
    share = float(covered.mean())
    return share if share > 0 or not any_valid else 1 / (height * width)


def scene_as_source(frame: TargetScene, stretch: Stretch) -> Source:
    """Return the scene as the last source, which shows where all files miss.

    Args:
        frame: the scene.
        stretch: that brings its contrast to that of the reference.
    """
    return Source(frame.scene, frame.bands, stretch, 1 / float(frame.scale))


def _without_undeclared(scene: Raster, bands: tuple[int, ...]) -> Raster:
    """Return a view without an undeclared collar, which would hide an older image."""
    found = find_undeclared(scene, bands)
    if found is None:
        return scene
    logger.warning(
        "%s: %.1f %% of its pixels are exactly %g %s, and it declares no "
        "nodata value; pixels of that value are taken as missing. To make this "
        "certain, declare it in a virtual copy, for example with "
        "gdal_translate -of VRT -a_nodata %g FILE COPY.vrt, and use that.",
        scene.path,
        100 * found.share,
        found.value,
        found.place,
        found.value,
    )
    if found.is_collar:
        return scene.with_missing(found.value)
    return scene.with_nodata(found.value)


def _bands(scene: Raster, frame: TargetScene) -> tuple[int, ...]:
    bands = choose_bands(scene, frame.roles).roles
    if len(bands) != len(frame.bands):
        raise BandError(
            f"{scene.path}: {len(bands)} bands, but {len(frame.bands)} of the scene "
            "are used; give files with the same bands.",
            argument="reference",
        )
    return bands


def _project(valid: NDArray[np.bool_], grid: Grid, target: Grid) -> NDArray[np.bool_]:
    """Return a thinned mask on the pixels of a target, by the nearest neighbour."""
    zoom = Affine.scale(grid.width / valid.shape[1], grid.height / valid.shape[0])
    thinned = Grid(grid.crs, grid.transform @ zoom, *valid.shape)
    mask = valid.astype(np.uint8)[None]
    return np.asarray(warp_array(mask, thinned, target, Resampling.nearest)[0] > 0)
