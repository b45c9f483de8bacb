"""Write a change mask on the SR grid of a scene: the work of `rsupres change`.

Memory does not grow with the output's height, and the same call continues after an
interruption, see `rsupres.output.strips`.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Unpack, cast

import numpy as np
from numpy.typing import NDArray

from rsupres.change.detection import Method
from rsupres.change.mask import ChangeMask, changed_share
from rsupres.change.options import ChangeChoices, ChangeOptions, choose_options
from rsupres.execution import OnProgress, Progress, progress_bar
from rsupres.grid import Grid, PixelWindow, Scale, as_scale
from rsupres.legends.class_table import NODATA, TABLE_TAG, UNCHANGED
from rsupres.output import scene_grid
from rsupres.output.scene_grid import SceneGridJob, SceneGridSummary
from rsupres.output.strips import (
    Rows,
    StripRaster,
    WritingOptions,
    frame_identity,
    make_destination,
    write_strips,
)
from rsupres.output.tiff.profile import OutputMeta
from rsupres.raster.dataset import Raster
from rsupres.raster.files import StrPath, as_names
from rsupres.raster.open import bounded_cache

logger = logging.getLogger(__name__)

WARN_SHARE = 0.6  # changed share of the ground; more is worth a warning


@dataclass(frozen=True, kw_only=True)
class ChangeJob(SceneGridJob):
    """The sources of a mask, and the file to write.

    Attributes:
        sources: polygons or a class raster; or the earlier and the later raster.
        options: how the sources are read.
    """

    nodata: ClassVar[int | None] = NODATA

    sources: tuple[str, ...]
    options: ChangeOptions = field(default_factory=ChangeOptions)

    @property
    def inputs(self) -> Mapping[str, Sequence[str]]:
        """Names of the files that are read, by argument."""
        chosen = self.options
        tables = {
            "class_table": chosen.class_table or "",
            "output_table": chosen.output_table or "",
        }
        return {
            **super().inputs,
            "sources": self.sources,
            "land_cover": [chosen.land_cover] if chosen.land_cover else [],
            **{
                key: [name]
                for key, name in tables.items()
                if name and os.path.isfile(name)
            },
        }


@dataclass(frozen=True)
class ClassArea:
    """Area of the ground that changed into one class.

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


@dataclass(frozen=True, kw_only=True)
class ChangeSummary(SceneGridSummary):
    """The result of writing.

    Attributes:
        kind: of the sources: polygons, classes, land cover or detected.
        method: irmad or cva where change was detected, else None.
        table: name of the class table, None without.
        areas: of the values that occur, most ground first.
        unchanged_m2: ground where nothing changed.
        unknown_m2: ground of which nothing is known.
        share: changed ground among the known ground, 0 to 1.
    """

    kind: str
    method: Method | None
    table: str | None
    areas: tuple[ClassArea, ...]
    unchanged_m2: float
    unknown_m2: float
    share: float

    def content_to_json(self) -> dict[str, object]:
        """Return JSON-able values of the mask."""
        return {
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
        }


@dataclass
class _Tally:
    """Pixels and ground by mask value."""

    pixels: NDArray[np.int64] = field(default_factory=lambda: np.zeros(256, np.int64))
    area_m2: NDArray[np.float64] = field(default_factory=lambda: np.zeros(256))

    def add(self, values: NDArray[np.uint8], grid: Grid) -> None:
        """Count rows; in degrees, the ground size of a pixel depends on the row."""
        counts = np.bincount(values.ravel(), minlength=256)
        self.pixels += counts
        self.area_m2 += counts * grid.gsd_m**2


class ChangeMaskOptions(ChangeChoices, WritingOptions, total=False):
    """Options of `change_mask`: of its sources, and of writing."""


def change_mask(
    sources: StrPath | Sequence[StrPath],
    output: StrPath,
    *,
    like: StrPath,
    scale: Scale = 4,
    progress: bool = False,
    on_progress: OnProgress | None = None,
    **options: Unpack[ChangeMaskOptions],
) -> ChangeSummary:
    """Write where the land changed, and into what, as `rsupres change` does.

    Args:
        sources: one source, polygons or a raster of classes in which 0 is unchanged; or
            two, the earlier and the later land cover or image.
        output: the mask to write: 0 = unchanged, 255 = unknown, 1 = changed into an
            unknown class, else the class that is there now.
        like: the scene whose grid, `scale` times finer, is the output's.
        scale: how many times finer: 4, 2.5, "10/3".
        progress: show a progress bar on stderr.
        on_progress: called after each strip, instead of a bar.
        **options: see `rsupres.change.options.ChangeChoices` and
            `rsupres.output.strips.WritingOptions`.

    Returns:
        How much ground changed into each class.

    Raises:
        InputError: an option has no effect for these sources.
        RsupresError: as `write_change_mask`.

    Examples:
        >>> import rsupres
        >>> made = rsupres.change_mask(
        ...     ["2018.tif", "2024.tif"], "mask.tif", like="2024.tif", scale=4
        ... )  # doctest: +SKIP
    """
    names = as_names(sources)
    kinds = ChangeChoices.__annotations__
    choices = {name: value for name, value in options.items() if name in kinds}
    writing = {name: value for name, value in options.items() if name not in kinds}
    job = ChangeJob(
        sources=names,
        into=make_destination(output, cast("WritingOptions", writing)),
        like=os.fspath(like),
        scale=as_scale(scale),
        options=choose_options(len(names), **cast("ChangeChoices", choices)),
    )
    with progress_bar(progress) as show:
        return write_change_mask(job, on_progress=on_progress or show)


def write_change_mask(
    job: ChangeJob, *, on_progress: OnProgress | None = None
) -> ChangeSummary:
    """Write a mask, or continue to; return what was written, with ground by class.

    Args:
        job: the sources, and the file to write.
        on_progress: called after each strip.

    Raises:
        ConditionError: the sources do not fit the scene or each other.
        InputError: a file, a class table or the scene cannot be used.
        RunConflictError: the output exists.
        ResourceError: the disk is full.
    """
    started = time.monotonic()
    show = on_progress or (lambda step: None)
    grid = job.open_grid(n_bands=1)
    show(Progress("Comparing" if len(job.sources) > 1 else "Reading", 0, 1, "masks"))
    with bounded_cache(), ChangeMask.open(job.sources, grid, job.options) as mask:
        tally = _write(job, mask, show)
        return _summary(job, mask, tally, time.monotonic() - started)


def _write(job: ChangeJob, mask: ChangeMask, show: OnProgress) -> _Tally:
    """Write the mask; return the pixels and ground of its values."""
    grid, tally = mask.grid, _Tally()

    def make(window: PixelWindow) -> Rows:
        values = mask.read(window)
        tally.add(values, grid.crop(window))
        return values, None

    raster = StripRaster(
        grid=grid,
        form=job.form,
        n_bands=1,
        strip_values=scene_grid.STRIP_VALUES,
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
    if share > WARN_SHARE or not areas:
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
    tags = {
        **job.tags(),
        "RSUPRES_CHANGE": json.dumps(mask.fingerprint()),
        "RSUPRES_CLASSES": json.dumps(dict(sorted(named.items()))),
    }
    if mask.table is not None:
        tags[TABLE_TAG] = mask.table.name
    return OutputMeta.of_classes("change", mask.grid, mask.palette(), tags)
