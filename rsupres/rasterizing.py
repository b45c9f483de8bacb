"""`rsupres rasterize` as a function: a vector map becomes a raster on the SR grid.

Strip by strip, so memory does not grow with the output's height; strips wait in a run
directory like those of `rsupres.pipeline`, and the same call goes on with them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

import rsupres
from rsupres.assembly import OutputFormat, OutputMeta, check_format, write_strip
from rsupres.errors import InputError, RunConflictError
from rsupres.execution import Interrupted, OnProgress, Progress
from rsupres.grid import Grid, PixelWindow
from rsupres.jobs import check_writable
from rsupres.legend import DEFAULT_LEGEND, Legend, load_legend
from rsupres.outputs import write_output
from rsupres.overpass import bbox_area, download, place_area
from rsupres.raster import Scene, bounded_cache
from rsupres.runs import Run
from rsupres.vectors import VectorMap

# Values of one strip; they are read and burned at once.
_STRIP_VALUES = 1 << 24
_RGB = ("red", "green", "blue")


@dataclass(frozen=True)
class RasterizeJob:
    """What to burn, and where to.

    Attributes:
        maps: vector files; `overpass` for OpenStreetMap live in the scene's footprint.
        output: the file to write.
        like: the scene whose grid, refined by `scale`, is the output's.
        scale: SR pixels along one LR pixel.
        legend: name or file.
        layers: keys or groups of the legend, None = all.
        place: download this place, None = none.
        bbox: download this box, degrees, None = none.
        antialias: blend the edges of an RGB legend.
        driver: COG or GTiff.
        creation: creation options of the driver.
        overwrite: replace an output that exists.
        run_dir: where finished strips wait; None = the output's name with `.run`.
        keep_run: keep it after success.
    """

    maps: tuple[str, ...]
    output: Path
    like: str
    scale: Fraction = Fraction(4)
    legend: str = DEFAULT_LEGEND
    layers: tuple[str, ...] | None = None
    place: str | None = None
    bbox: tuple[float, float, float, float] | None = None
    antialias: bool = False
    driver: Literal["COG", "GTiff"] = "COG"
    creation: tuple[tuple[str, str], ...] = ()
    overwrite: bool = False
    run_dir: Path | None = None
    keep_run: bool = False

    @property
    def run_path(self) -> Path:
        """Where the unfinished run lives."""
        return self.run_dir or self.output.with_name(self.output.name + ".run")


@dataclass(frozen=True)
class RasterizeSummary:
    """What was burned.

    Attributes:
        output: the file.
        grid: its frame.
        legend: name.
        maps: the files that were read.
        counts: class key -> features that touch the output.
        ignored: features nearby that no class takes.
        ignored_tags: the same by tag, most frequent first.
        hidden: features in tunnels or underground.
        repaired: broken geometries that were repaired.
        dropped: geometries that could not be.
        coverage: share of the output inside the maps' bounds.
        duration_s: wall time.
    """

    output: Path
    grid: Grid
    legend: str
    maps: tuple[str, ...]
    counts: Mapping[str, int]
    ignored: int
    ignored_tags: Mapping[str, int]
    hidden: int
    repaired: int
    dropped: int
    coverage: float
    duration_s: float

    def to_json(self) -> dict[str, object]:
        """Return JSON-able values."""
        return {
            "output": str(self.output),
            "height": self.grid.height,
            "width": self.grid.width,
            "legend": self.legend,
            "maps": list(self.maps),
            "features": dict(self.counts),
            "ignored": self.ignored,
            "ignored_tags": dict(self.ignored_tags),
            "hidden": self.hidden,
            "repaired": self.repaired,
            "dropped": self.dropped,
            "coverage": round(self.coverage, 4),
            "duration_s": round(self.duration_s, 3),
        }


def rasterize_map(
    job: RasterizeJob, *, on_progress: OnProgress | None = None
) -> RasterizeSummary:
    """Burn vector maps on a scene's SR grid; go on where an earlier call stopped.

    Args:
        job: what to do.
        on_progress: called after each strip.

    Raises:
        InputError: a file, the legend, a layer or the scene cannot be used.
        ConditionError: the maps do not touch the scene, or no download is possible.
        RunConflictError: the output exists.
        ResourceError: the disk is full.
    """
    started = time.monotonic()
    show = on_progress or (lambda step: None)
    legend = load_legend(job.legend)
    if job.antialias:
        legend = legend.antialiased()
    check_writable(job.output, "output")
    if job.output.exists() and not job.overwrite:
        raise RunConflictError(f"{job.output} exists; give --overwrite to replace it.")
    form = OutputFormat(job.driver, dict(job.creation), "uint8", None)
    check_format(form, legend.n_bands)
    with Scene.open(job.like) as scene:
        grid = scene.grid.refine(job.scale)
    maps = _maps(job, legend.only(job.layers), grid)
    folder = job.output.absolute().parent
    with (
        bounded_cache(),
        VectorMap.open(maps, grid, legend, job.layers, folder) as opened,
    ):
        _burn(job, opened, grid, form, show)
        return RasterizeSummary(
            output=job.output,
            grid=grid,
            legend=legend.name,
            maps=opened.paths,
            counts=opened.counts,
            ignored=opened.ignored,
            ignored_tags=opened.ignored_tags,
            hidden=opened.hidden,
            repaired=opened.repaired,
            dropped=opened.dropped,
            coverage=opened.coverage,
            duration_s=time.monotonic() - started,
        )


def _maps(job: RasterizeJob, legend: Legend, grid: Grid) -> tuple[str, ...]:
    """Return the files to read, with downloads of a place or a box."""
    areas = []
    if job.place is not None:
        areas.append(place_area(job.place, grid))
    if job.bbox is not None:
        areas.append(bbox_area(job.bbox, grid))
    folder = job.output.absolute().parent
    copies = [str(download(area, legend, folder).path) for area in areas]
    if not (job.maps or copies):
        raise InputError("No map is given; name a file, overpass, --place or --bbox.")
    return (*job.maps, *copies)


def _burn(
    job: RasterizeJob,
    opened: VectorMap,
    grid: Grid,
    form: OutputFormat,
    show: OnProgress,
) -> None:
    windows = _strip_windows(grid, opened.legend.n_bands)
    manifest = {
        "job": {
            "rasterize": opened.fingerprint(),
            "crs": grid.crs.to_wkt() if grid.crs else None,
            "transform": [repr(value) for value in grid.transform[:6]],
            "shape": [grid.height, grid.width],
            "version": rsupres.__version__,
        },
        "n_strips": len(windows),
    }
    with Run.open(job.run_path, manifest) as run:
        try:
            done = run.done_strips()
            for index, window in enumerate(windows):
                if index not in done:
                    pixels = opened.burn(window)
                    with Run.publishing(run.strip_path(index)) as part:
                        write_strip(part, pixels, grid.crop(window))
                show(Progress("Burning", index + 1, len(windows), "strips"))
            strips = [run.strip_path(index) for index in range(len(windows))]
            write_output(strips, _meta(job, opened, grid), form, job.output)
        except Interrupted as stop:
            stop.advise("The same command continues.")
            raise
        if not job.keep_run:
            run.remove()


def _meta(job: RasterizeJob, opened: VectorMap, grid: Grid) -> OutputMeta:
    legend = opened.legend
    fingerprint = opened.fingerprint()
    tags = {
        "RSUPRES_VERSION": rsupres.__version__,
        "RSUPRES_SCALE": str(job.scale),
        "RSUPRES_LEGEND": legend.name,
        "RSUPRES_LEGEND_SHA256": legend.sha256,
        "RSUPRES_VECTOR_MAP": json.dumps(fingerprint["files"]),
        "RSUPRES_FEATURES": json.dumps(dict(opened.counts)),
    }
    if legend.kind == "rgb":
        names: tuple[str, ...] = _RGB
        palette = None
    else:
        names = ("class",)
        coded = legend.palette()
        palette = {code: colour for code, (_, colour) in coded.items()}
        tags["RSUPRES_CLASSES"] = json.dumps(
            {c: name for c, (name, _) in coded.items()}
        )
    return OutputMeta(
        grid=grid,
        descriptions=names,
        scales=(1.0,) * len(names),
        offsets=(0.0,) * len(names),
        colorinterp=names if legend.kind == "rgb" else ("palette",),
        tags=tags,
        palette=palette,
    )


def _strip_windows(grid: Grid, n_bands: int) -> list[PixelWindow]:
    height = max(1, _STRIP_VALUES // (grid.width * n_bands))
    return [
        PixelWindow(row, 0, min(height, grid.height - row), grid.width)
        for row in range(0, grid.height, height)
    ]
