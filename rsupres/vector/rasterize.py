"""`rsupres rasterize` as a function: a vector map becomes a raster on the SR grid.

Memory does not grow with the output's height, and the same call goes on with what an
interrupted one wrote: see `rsupres.output.strips`.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Unpack

from rsupres.errors import InputError
from rsupres.execution import OnProgress, progress_bar
from rsupres.grid import Grid, Scale, as_scale
from rsupres.legends.legend import DEFAULT_CLASS_LEGEND, LEGEND_TAG, Legend
from rsupres.legends.legend_file import load_legend
from rsupres.output.geotiff import check_format
from rsupres.output.profile import OutputMeta
from rsupres.output.strips import (
    Destination,
    StripRaster,
    WritingOptions,
    frame_identity,
    make_destination,
    write_strips,
)
from rsupres.raster.dataset import Raster
from rsupres.raster.files import StrPath, as_names
from rsupres.raster.open import bounded_cache
from rsupres.vector.map import VectorMap
from rsupres.vector.overpass import bbox_area, download, place_area
from rsupres.version import __version__

# Values of one strip; they are read and burned at once.
_STRIP_VALUES = 1 << 24
_RGB = ("red", "green", "blue")


@dataclass(frozen=True)
class RasterizeJob:
    """What to burn, and where to.

    Attributes:
        maps: vector files; `overpass` for OpenStreetMap live in the scene's footprint.
        into: where the raster goes.
        like: the scene whose grid, refined by `scale`, is the output's.
        scale: SR pixels along one LR pixel.
        legend: name or file.
        layers: keys or groups of the legend, None = all.
        place: download this place, None = none.
        bbox: download this box, degrees, None = none.
        antialias: blend the edges of an RGB legend.
    """

    maps: tuple[str, ...]
    into: Destination
    like: str
    scale: Fraction = Fraction(4)
    legend: str = DEFAULT_CLASS_LEGEND
    layers: tuple[str, ...] | None = None
    place: str | None = None
    bbox: tuple[float, float, float, float] | None = None
    antialias: bool = False

    @property
    def folder(self) -> Path:
        """Where copies of downloaded maps are kept: beside the output."""
        return self.into.output.absolute().parent


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


def rasterize(
    maps: StrPath | Sequence[StrPath],
    output: StrPath,
    *,
    like: StrPath,
    scale: Scale = 4,
    legend: StrPath = DEFAULT_CLASS_LEGEND,
    layers: Sequence[str] | None = None,
    place: str | None = None,
    bbox: tuple[float, float, float, float] | None = None,
    antialias: bool = False,
    progress: bool = False,
    on_progress: OnProgress | None = None,
    **writing: Unpack[WritingOptions],
) -> RasterizeSummary:
    """Burn a vector map on the grid of a scene, as `rsupres rasterize` does.

    Args:
        maps: vector files, or "overpass" for OpenStreetMap of the scene's ground; empty
            with `place` or `bbox`.
        output: the raster to write.
        like: the scene whose grid, `scale` times finer, is the output's.
        scale: how many times finer: 4, 2.5, "10/3".
        legend: "classes" (one band of codes), "maptiler", "osm-carto" (RGB), or a file.
        layers: classes of the legend; None = all.
        place: download this place.
        bbox: download this box, degrees.
        antialias: blend the edges of an RGB legend.
        progress: show a progress bar on stderr.
        on_progress: called after each strip, instead of a bar.
        **writing: see `rsupres.output.strips.WritingOptions`.

    Returns:
        What was burned and what was left out.

    Raises:
        RsupresError: as `rasterize_map`.

    Examples:
        >>> import rsupres
        >>> made = rsupres.rasterize(
        ...     "town.osm.pbf", "classes.tif", like="scene.tif", scale=8
        ... )  # doctest: +SKIP
        >>> made.counts["building"]  # doctest: +SKIP
        123
    """
    job = RasterizeJob(
        maps=as_names(maps),
        into=make_destination(output, writing),
        like=os.fspath(like),
        scale=as_scale(scale),
        legend=os.fspath(legend),
        layers=None if layers is None else tuple(layers),
        place=place,
        bbox=bbox,
        antialias=antialias,
    )
    with progress_bar(progress) as show:
        return rasterize_map(job, on_progress=on_progress or show)


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
    job.into.check()
    check_format(job.into.format("uint8", None), legend.n_bands)
    with Raster.open(job.like) as scene:
        grid = scene.grid.refine(job.scale)
    maps = _maps(job, legend.only(job.layers), grid)
    with (
        bounded_cache(),
        VectorMap.open(maps, grid, legend, job.layers, job.folder) as opened,
    ):
        _burn(job, opened, grid, show)
        return RasterizeSummary(
            output=job.into.output,
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
    copies = [str(download(area, legend, job.folder).path) for area in areas]
    if not (job.maps or copies):
        raise InputError("No map is given; name a file, overpass, --place or --bbox.")
    return (*job.maps, *copies)


def _burn(job: RasterizeJob, opened: VectorMap, grid: Grid, show: OnProgress) -> None:
    raster = StripRaster(
        grid=grid,
        form=job.into.format("uint8", None),
        n_bands=opened.legend.n_bands,
        strip_values=_STRIP_VALUES,
        identity={"rasterize": opened.fingerprint(), **frame_identity(grid)},
        phase="Burning",
        make=lambda window: (opened.burn(window), None),
        meta=lambda: _meta(job, opened, grid),
    )
    write_strips(raster, job.into, show)


def _meta(job: RasterizeJob, opened: VectorMap, grid: Grid) -> OutputMeta:
    legend = opened.legend
    fingerprint = opened.fingerprint()
    tags = {
        "RSUPRES_VERSION": __version__,
        "RSUPRES_SCALE": str(job.scale),
        LEGEND_TAG: legend.name,
        "RSUPRES_LEGEND_SHA256": legend.sha256,
        "RSUPRES_VECTOR_MAP": json.dumps(fingerprint["files"]),
        "RSUPRES_FEATURES": json.dumps(dict(opened.counts)),
    }
    if legend.kind == "rgb":
        return OutputMeta(grid, _RGB, (1.0,) * 3, (0.0,) * 3, _RGB, tags)
    coded = legend.palette()
    names = {code: name for code, (name, _) in coded.items()}
    palette = {code: colour for code, (_, colour) in coded.items()}
    tags["RSUPRES_CLASSES"] = json.dumps(names)
    return OutputMeta.of_classes("class", grid, palette, tags)
