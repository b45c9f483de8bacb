"""`rsupres change` as a function: a change mask becomes a raster on the SR grid.

Memory does not grow with the output's height, and the same call goes on with what an
interrupted one wrote: see `rsupres.output.strips`.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Unpack

import numpy as np
from numpy.typing import NDArray

from rsupres.change.detection import Method
from rsupres.change.mask import MUCH, ChangeMask, ChangeOptions, changed_share
from rsupres.change.options import CompareBy, choose_options
from rsupres.execution import OnProgress, Progress, progress_bar
from rsupres.grid import Grid, PixelWindow, Scale, as_scale
from rsupres.legends.class_table import NODATA, TABLE_TAG, UNCHANGED
from rsupres.output.geotiff import check_format
from rsupres.output.profile import OutputMeta
from rsupres.output.strips import (
    Destination,
    Rows,
    StripRaster,
    WritingOptions,
    frame_identity,
    make_destination,
    write_strips,
)
from rsupres.raster.dataset import Raster
from rsupres.raster.files import StrPath, as_names
from rsupres.raster.open import bounded_cache
from rsupres.version import __version__

logger = logging.getLogger(__name__)

# Pixels of one strip.
_STRIP_PIXELS = 1 << 24


@dataclass(frozen=True)
class ChangeJob:
    """What to read, and where to write it.

    Attributes:
        sources: polygons or a class raster; or the earlier and the later raster.
        into: where the mask goes.
        like: the scene whose grid, refined by `scale`, is the output's.
        scale: SR pixels along one LR pixel.
        options: how the sources are read.
    """

    sources: tuple[str, ...]
    into: Destination
    like: str
    scale: Fraction = Fraction(4)
    options: ChangeOptions = field(default_factory=ChangeOptions)


@dataclass(frozen=True)
class ClassArea:
    """How much ground became one class.

    Attributes:
        value: in the mask.
        name: of the class.
        n_pixels: of the output.
        area_m2: on the ground.
    """

    value: int
    name: str
    n_pixels: int
    area_m2: float


@dataclass(frozen=True)
class ChangeSummary:
    """What was written.

    Attributes:
        output: the file.
        grid: its frame.
        kind: of the sources: polygons, classes, land cover or detected.
        method: irmad or cva where change was detected, else None.
        table: name of the class table, None without.
        areas: of the values that occur, most ground first.
        unchanged_m2: ground where nothing changed.
        unknown_m2: ground of which nobody knows.
        share: changed ground among that known, 0 to 1.
        duration_s: wall time.
    """

    output: Path
    grid: Grid
    kind: str
    method: Method | None
    table: str | None
    areas: tuple[ClassArea, ...]
    unchanged_m2: float
    unknown_m2: float
    share: float
    duration_s: float

    def to_json(self) -> dict[str, object]:
        """Return JSON-able values."""
        return {
            "output": str(self.output),
            "height": self.grid.height,
            "width": self.grid.width,
            "kind": self.kind,
            "method": self.method,
            "class_table": self.table,
            "changed": [
                {
                    "value": area.value,
                    "class": area.name,
                    "pixels": area.n_pixels,
                    "area_m2": round(area.area_m2, 2),
                }
                for area in self.areas
            ],
            "unchanged_m2": round(self.unchanged_m2, 2),
            "unknown_m2": round(self.unknown_m2, 2),
            "share": round(self.share, 6),
            "duration_s": round(self.duration_s, 3),
        }


@dataclass
class _Tally:
    """Pixels and ground by mask value."""

    pixels: NDArray[np.int64] = field(default_factory=lambda: np.zeros(256, np.int64))
    area_m2: NDArray[np.float64] = field(default_factory=lambda: np.zeros(256))

    def add(self, values: NDArray[np.uint8], grid: Grid) -> None:
        """Count rows; in degrees, a pixel's ground depends on the row."""
        counts = np.bincount(values.ravel(), minlength=256)
        self.pixels += counts
        self.area_m2 += counts * grid.gsd_m**2


def change_mask(
    sources: StrPath | Sequence[StrPath],
    output: StrPath,
    *,
    like: StrPath,
    scale: Scale = 4,
    progress: bool = False,
    on_progress: OnProgress | None = None,
    method: CompareBy = "auto",
    significance: float | None = None,
    threshold: float | None = None,
    minimum_area: float | None = None,
    land_cover: StrPath | None = None,
    class_attribute: str | None = None,
    class_table: StrPath | None = None,
    output_table: StrPath | None = None,
    **writing: Unpack[WritingOptions],
) -> ChangeSummary:
    """Write where the land changed, and into what, as `rsupres change` does.

    Args:
        sources: one source, polygons or a raster of classes in which 0 is unchanged; or
            two, the earlier and the later land cover or image.
        output: the mask to write: 0 = unchanged, 255 = not known, 1 = changed into
            something not known, else the class that is there now.
        like: the scene whose grid, `scale` times finer, is the output's.
        scale: how many times finer: 4, 2.5, "10/3".
        progress: show a progress bar on stderr.
        on_progress: called after each strip, instead of a bar.
        method: "irmad", "cva", "land-cover", or "auto": as the sources look.
        significance: share of unchanged pixels that may be marked in images.
        threshold: mark what differs by more standard deviations than this instead.
        minimum_area: smallest part that counts, square metres.
        land_cover: class raster of the later date, for what is detected.
        class_attribute: attribute of polygons that holds their class.
        class_table: what the codes mean: a name or a file; None = by the file.
        output_table: translate the classes into this table.
        **writing: see `rsupres.output.strips.WritingOptions`.

    Returns:
        How much ground became which class.

    Raises:
        InputError: an option that means nothing for these sources.
        RsupresError: as `write_change_mask`.

    Examples:
        >>> import rsupres
        >>> made = rsupres.change_mask(
        ...     ["2018.tif", "2024.tif"], "mask.tif", like="2024.tif", scale=4
        ... )  # doctest: +SKIP
        >>> f"{made.share:.1%} changed"  # doctest: +SKIP
        '3.2% changed'
    """
    names = as_names(sources)
    job = ChangeJob(
        sources=names,
        into=make_destination(output, writing),
        like=os.fspath(like),
        scale=as_scale(scale),
        options=choose_options(
            len(names),
            method=method,
            significance=significance,
            threshold=threshold,
            minimum_area=minimum_area,
            land_cover=land_cover,
            class_attribute=class_attribute,
            class_table=class_table,
            output_table=output_table,
        ),
    )
    with progress_bar(progress) as show:
        return write_change_mask(job, on_progress=on_progress or show)


def write_change_mask(
    job: ChangeJob, *, on_progress: OnProgress | None = None
) -> ChangeSummary:
    """Write a change mask on a scene's SR grid; go on where an earlier call stopped.

    Args:
        job: what to do.
        on_progress: called after each strip.

    Raises:
        ConditionError: the sources do not fit the scene or each other.
        InputError: a file, a class table or the scene cannot be used.
        RunConflictError: the output exists.
        ResourceError: the disk is full.
    """
    started = time.monotonic()
    show = on_progress or (lambda step: None)
    job.into.check()
    check_format(job.into.format("uint8", NODATA), 1)
    with Raster.open(job.like) as scene:
        grid = scene.grid.refine(job.scale)
    show(Progress("Comparing" if len(job.sources) > 1 else "Reading", 0, 1, "masks"))
    with bounded_cache(), ChangeMask.open(job.sources, grid, job.options) as mask:
        tally = _write(job, mask, show)
        return _summary(job, mask, tally, time.monotonic() - started)


def _write(job: ChangeJob, mask: ChangeMask, show: OnProgress) -> _Tally:
    """Write the mask; return how much of everything it holds."""
    grid, tally = mask.grid, _Tally()

    def make(window: PixelWindow) -> Rows:
        values = mask.read(window)
        tally.add(values, grid.crop(window))
        return values, None

    raster = StripRaster(
        grid=grid,
        form=job.into.format("uint8", NODATA),
        n_bands=1,
        strip_values=_STRIP_PIXELS,
        identity={"change": mask.fingerprint(), **frame_identity(grid)},
        phase="Writing",
        make=make,
        meta=lambda: _meta(job, mask, tally),
        skip=lambda window, path: tally.add(_stored(path), grid.crop(window)),
    )
    write_strips(raster, job.into, show)
    return tally


def _stored(path: Path) -> NDArray[np.uint8]:
    """Return the rows that an earlier call wrote."""
    with Raster.open(path, needs_crs=False, is_classes=True) as strip:
        dn, _ = strip.read(strip.grid.window, (1,))
    return dn.astype(np.uint8)


def _summary(
    job: ChangeJob, mask: ChangeMask, tally: _Tally, duration_s: float
) -> ChangeSummary:
    names = mask.names()
    areas = [
        ClassArea(
            int(value),
            names.get(int(value), f"class {value}"),
            int(tally.pixels[value]),
            float(tally.area_m2[value]),
        )
        for value in np.flatnonzero(tally.pixels[1:NODATA]) + 1
    ]
    output, share = job.into.output, changed_share(tally.pixels)
    if share > MUCH or not areas:
        logger.warning(
            "%s: %.0f %% of the ground changed; is that so?", output, 100 * share
        )
    return ChangeSummary(
        output=output,
        grid=mask.grid,
        kind=mask.kind,
        method=mask.method,
        table=None if mask.table is None else mask.table.name,
        areas=tuple(sorted(areas, key=lambda area: -area.area_m2)),
        unchanged_m2=float(tally.area_m2[UNCHANGED]),
        unknown_m2=float(tally.area_m2[NODATA]),
        share=share,
        duration_s=duration_s,
    )


def _meta(job: ChangeJob, mask: ChangeMask, tally: _Tally) -> OutputMeta:
    present = np.flatnonzero(tally.pixels[:NODATA])
    names = {UNCHANGED: "unchanged"} | mask.names()
    named = {int(v): names.get(int(v), f"class {v}") for v in present} | names
    marks: Mapping[str, object] = mask.fingerprint()
    tags = {
        "RSUPRES_VERSION": __version__,
        "RSUPRES_SCALE": str(job.scale),
        "RSUPRES_CHANGE": json.dumps(marks),
        "RSUPRES_CLASSES": json.dumps(dict(sorted(named.items()))),
    }
    if mask.table is not None:
        tags[TABLE_TAG] = mask.table.name
    return OutputMeta.of_classes("change", mask.grid, mask.palette(), tags)
