"""Write a vector map on the SR grid of a scene: the work of `rsupres rasterize`.

Memory does not grow with the output's height, and the same call continues after an
interruption, see `rsupres.output.strips`.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Unpack

from rsupres.errors import InputError
from rsupres.execution import OnProgress, progress_bar
from rsupres.grid import Grid, Scale, as_scale
from rsupres.legends.legend import DEFAULT_CLASS_LEGEND, LEGEND_TAG, Legend
from rsupres.legends.legend_file import load_legend
from rsupres.output import scene_grid
from rsupres.output.scene_grid import SceneGridJob, SceneGridSummary
from rsupres.output.strips import (
    StripRaster,
    WritingOptions,
    frame_identity,
    make_destination,
    write_strips,
)
from rsupres.output.tiff.profile import OutputMeta
from rsupres.raster.files import StrPath, as_names
from rsupres.raster.open import bounded_cache
from rsupres.vector import LIVE
from rsupres.vector.map import VectorMap
from rsupres.vector.osm.overpass import bbox_area, download, place_area

_RGB = ("red", "green", "blue")


@dataclass(frozen=True, kw_only=True)
class RasterizeJob(SceneGridJob):
    """A map to burn, and the raster to write.

    Attributes:
        maps: vector files; `overpass` downloads OpenStreetMap of the scene's footprint.
    """

    maps: tuple[str, ...]
    legend: str = DEFAULT_CLASS_LEGEND
    layers: tuple[str, ...] | None = None
    place: str | None = None
    bounds: tuple[float, float, float, float] | None = None
    antialias: bool = False

    @property
    def inputs(self) -> Mapping[str, Sequence[str]]:
        """Names of the files that are read, by argument."""
        legend = [self.legend] if os.path.isfile(self.legend) else []
        maps = [name for name in self.maps if name != LIVE]
        return {**super().inputs, "maps": maps, "legend": legend}

    @property
    def folder(self) -> Path:
        """Where copies of downloaded maps are kept: beside the output."""
        return self.into.output.absolute().parent


@dataclass(frozen=True, kw_only=True)
class RasterizeSummary(SceneGridSummary):
    """The result of burning a map.

    Attributes:
        legend: name.
        maps: the files that were read.
        counts: class key -> features that touch the output.
        ignored: features nearby that are in no class.
        ignored_tags: the same by tag, most frequent first.
        hidden: features in tunnels or underground.
        repaired: broken geometries that were repaired.
        dropped: geometries that could not be repaired.
        unread_widths: `width` tags that could not be read -> lines that have them.
        coverage: share of the output inside the maps' bounds, 0 to 1.
    """

    legend: str
    maps: tuple[str, ...]
    counts: Mapping[str, int]
    ignored: int
    ignored_tags: Mapping[str, int]
    hidden: int
    repaired: int
    dropped: int
    unread_widths: Mapping[str, int]
    coverage: float

    def content_to_json(self) -> dict[str, object]:
        """Return JSON-able values of the map."""
        return {
            "legend": self.legend,
            "maps": list(self.maps),
            "features": dict(self.counts),
            "ignored": self.ignored,
            "ignored_tags": dict(self.ignored_tags),
            "hidden": self.hidden,
            "repaired": self.repaired,
            "dropped": self.dropped,
            "unread_widths": dict(self.unread_widths),
            "coverage": round(self.coverage, 4),
        }


class RasterizeOptions(WritingOptions, total=False):
    """Options of `rasterize`, by the command's names.

    Attributes:
        legend: "classes" (one band of codes), "maptiler", "osm-carto" (RGB), or a file.
        layers: classes of the legend; None = all.
        place: download this place.
        bounds: download this box: west, south, east, north in degrees.
        antialias: blend the edges of an RGB legend.
    """

    legend: StrPath
    layers: Sequence[str] | None
    place: str | None
    bounds: tuple[float, float, float, float] | None
    antialias: bool


def rasterize(
    maps: StrPath | Sequence[StrPath],
    output: StrPath,
    *,
    like: StrPath,
    scale: Scale = 4,
    progress: bool = False,
    on_progress: OnProgress | None = None,
    **options: Unpack[RasterizeOptions],
) -> RasterizeSummary:
    """Burn a vector map on the grid of a scene, as `rsupres rasterize` does.

    Args:
        maps: vector files, or "overpass"; none with `place` or `bounds`.
        output: the raster to write.
        like: the scene whose grid, `scale` times finer, is the output's.
        scale: how many times finer: 4, 2.5, "10/3".
        progress: show a progress bar on stderr.
        on_progress: called after each strip, instead of a bar.
        **options: see `RasterizeOptions` and `rsupres.output.strips.WritingOptions`.

    Returns:
        What was burned, and counts of what was left out.

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
    legend = options.pop("legend", DEFAULT_CLASS_LEGEND)
    layers = options.pop("layers", None)
    job = RasterizeJob(
        maps=as_names(maps),
        like=os.fspath(like),
        scale=as_scale(scale),
        legend=os.fspath(legend),
        layers=None if layers is None else tuple(layers),
        place=options.pop("place", None),
        bounds=options.pop("bounds", None),
        antialias=options.pop("antialias", False),
        into=make_destination(output, options),
    )
    with progress_bar(progress) as show:
        return rasterize_map(job, on_progress=on_progress or show)


def rasterize_map(
    job: RasterizeJob, *, on_progress: OnProgress | None = None
) -> RasterizeSummary:
    """Burn vector maps on a scene's SR grid, or continue; return counts of features.

    Args:
        job: the map, and the raster to write.
        on_progress: called after each strip.

    Raises:
        InputError: a file, the legend, a layer or the scene cannot be used.
        ConditionError: the maps do not touch the scene, or no download is possible.
        RunConflictError: the output exists.
        ResourceError: the disk is full.
    """
    started = time.monotonic()
    legend = load_legend(job.legend)
    if job.antialias:
        legend = legend.antialiased()
    grid = job.open_grid(legend.n_bands)
    maps = _maps(job, legend.only(job.layers), grid)
    with (
        bounded_cache(),
        VectorMap.open(maps, grid, legend, job.layers, job.folder) as opened,
    ):
        raster = StripRaster(
            grid=grid,
            form=job.form,
            n_bands=opened.legend.n_bands,
            strip_values=scene_grid.STRIP_VALUES,
            identity={"rasterize": opened.fingerprint(), **frame_identity(grid)},
            phase="Burning",
            make=lambda window: (opened.burn(window), None),
            meta=lambda: _meta(job, opened, grid),
        )
        write_strips(raster, job.into, on_progress or (lambda step: None))
        return _summary(job, opened, grid, time.monotonic() - started)


def _summary(
    job: RasterizeJob, opened: VectorMap, grid: Grid, duration_s: float
) -> RasterizeSummary:
    return RasterizeSummary(
        output=job.into.output,
        grid=grid,
        legend=opened.legend.name,
        maps=opened.paths,
        counts=opened.counts,
        ignored=opened.ignored,
        ignored_tags=opened.ignored_tags,
        hidden=opened.hidden,
        repaired=opened.repaired,
        dropped=opened.dropped,
        unread_widths=opened.unread_widths,
        coverage=opened.coverage,
        duration_s=duration_s,
    )


def _maps(job: RasterizeJob, legend: Legend, grid: Grid) -> tuple[str, ...]:
    """Return the files to read, with downloads of a place or a box."""
    areas = []
    if job.place is not None:
        areas.append(place_area(job.place, grid))
    if job.bounds is not None:
        areas.append(bbox_area(job.bounds, grid))
    copies = [str(download(area, legend, job.folder).path) for area in areas]
    if not (job.maps or copies):
        raise InputError(
            "No map is given; name a file, overpass, a place or a box.",
            remedies=("place", "bounds"),
        )
    return (*job.maps, *copies)


def _meta(job: RasterizeJob, opened: VectorMap, grid: Grid) -> OutputMeta:
    legend = opened.legend
    tags = {
        **job.tags(),
        LEGEND_TAG: legend.name,
        "RSUPRES_LEGEND_SHA256": legend.sha256,
        "RSUPRES_VECTOR_MAP": json.dumps(opened.fingerprint()["files"]),
        "RSUPRES_FEATURES": json.dumps(dict(opened.counts)),
    }
    if legend.kind == "rgb":
        return OutputMeta(grid, _RGB, (1.0,) * 3, (0.0,) * 3, _RGB, tags)
    coded = legend.palette()
    names = {code: name for code, (name, _) in coded.items()}
    palette = {code: colour for code, (_, colour) in coded.items()}
    tags["RSUPRES_CLASSES"] = json.dumps(names)
    return OutputMeta.of_classes("class", grid, palette, tags)
