"""The files of a reference: where they lie, of which date, and through which stretch.

Decides whether a file can be a reference of a scene at all. Pixels are read thinned
here; `rsupres.conditions.references` makes the picture.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.enums import Resampling

from rsupres.conditions.base import ConditionFrame
from rsupres.errors import BandError, ConditionError, GridError
from rsupres.grid import Grid, PixelWindow
from rsupres.raster.bands import choose_bands
from rsupres.raster.dataset import Raster
from rsupres.raster.files import date_of, footprint
from rsupres.raster.stretch import Stretch, find_stretch, parse_stretch
from rsupres.raster.virtual import warp_array
from rsupres.raster.warp import Source, source_pixels_per_pixel, source_window

COARSER = 1.01  # pixels of the scene; a reference's may not be larger than that
COVERAGE_SIDE = 256  # pixels of the picture on which coverage is counted
SAMPLE_PIXELS = 1_000_000


@dataclass(frozen=True)
class ReferenceFile:
    """One file of a reference.

    Attributes:
        scene: open, the whole file.
        bands: that fill the model's roles.
        date: of the picture, UTC.
        date_source: how that is known: "tag NAME", "name" or "file time".
        ratio: its pixels along one SR pixel, at the scene's middle.
        part: its pixels over the scene.
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

    def marks(self) -> dict[str, object]:
        """Return name, date and hash; the file's own time is no mark of its content."""
        is_told = self.date_source != "file time"
        return {
            "file": self.name,
            "date": f"{self.date:%Y-%m-%d}" if is_told else None,
            "sha256": self.scene.fingerprint()["sha256"],
            "bands": list(self.bands),
        }


def open_file(stack: ExitStack, name: str, frame: ConditionFrame) -> ReferenceFile:
    """Open one file of a reference and check that it can be one.

    Raises:
        InputError: no raster, or without CRS.
        BandError: it lacks the model's bands.
        ConditionError: of another place, or coarser than the scene.
    """
    scene = stack.enter_context(Raster.open(name))
    part = source_window(scene.grid, frame.scene.grid)
    if part is None:
        raise ConditionError(
            f"--reference {name}: covers {footprint(scene.grid)} and the scene "
            f"{frame.scene.path} {footprint(frame.scene.grid)} (longitude, latitude); "
            "they do not touch."
        )
    try:
        ratio = source_pixels_per_pixel(scene.grid, frame.sr)
    except GridError as error:
        raise ConditionError(
            f"--reference {name}: cannot be laid over the scene: {error}"
        ) from error
    if ratio * float(frame.scale) * COARSER < 1:
        gsd_m = frame.scene.grid.gsd_m
        own_m = gsd_m / float(frame.scale) / ratio
        raise ConditionError(
            f"--reference {name}: its pixels of {own_m:.3g} m are coarser than those "
            f"of the scene {frame.scene.path} ({gsd_m:.3g} m); are "
            "the two swapped?"
        )
    bands = _bands(scene, frame)
    date, source = date_of(scene)
    return ReferenceFile(scene, bands, date, source, ratio, part)


def share_stretch(
    files: Sequence[ReferenceFile], frame: ConditionFrame
) -> list[Stretch]:
    """Find one stretch per file; files of one data type share the widest limits.

    The part over the scene decides, so another scene may find other limits where a file
    is stretched by percentiles.
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


def coverage_of(files: Sequence[ReferenceFile], frame: ConditionFrame) -> float:
    """Return the share of the scene that the files cover with valid pixels, 0 to 1.

    Counted on a thinned picture of up to `COVERAGE_SIDE` pixels a side; 0 only when no
    sampled pixel over the scene is valid.
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


def scene_as_file(frame: ConditionFrame, stretch: Stretch) -> Source:
    """Return the scene itself as what is warped last, where all files miss."""
    return Source(frame.scene, frame.bands, stretch, 1 / float(frame.scale))


def _bands(scene: Raster, frame: ConditionFrame) -> tuple[int, ...]:
    bands = choose_bands(scene, frame.roles).roles
    if len(bands) != len(frame.bands):
        raise BandError(
            f"--reference {scene.path}: {len(bands)} bands, but {len(frame.bands)} of "
            "the scene are used; give files with the same bands."
        )
    return bands


def _project(valid: NDArray[np.bool_], grid: Grid, target: Grid) -> NDArray[np.bool_]:
    """Return a thinned mask on a target's pixels, by the nearest."""
    zoom = Affine.scale(grid.width / valid.shape[1], grid.height / valid.shape[0])
    thinned = Grid(grid.crs, grid.transform @ zoom, *valid.shape)
    mask = valid.astype(np.uint8)[None]
    return np.asarray(warp_array(mask, thinned, target, Resampling.nearest)[0] > 0)
