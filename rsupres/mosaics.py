"""A folder of georeferenced tiles becomes one raster.

Tiles may overlap in any way and come in any order, as long as they lie on one pixel
grid. Where a side faces other tiles, its weight rises as a raised cosine over the
overlap; the sum is divided by the summed weights, pixel by pixel, and invalid pixels
weigh nothing. Memory holds one band of rows of the result, whatever its height.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import rsupres
from rsupres.assembly import OutputFormat, OutputMeta, write_strip
from rsupres.errors import InputError
from rsupres.execution import Interrupted, OnProgress, Progress
from rsupres.grid import Grid, PixelWindow
from rsupres.jobs import UpscaleJob, check_vacant, check_writable
from rsupres.outputs import write_output
from rsupres.pipeline import RunSummary
from rsupres.radiometry import to_dtype
from rsupres.raster import Scene, bounded_cache
from rsupres.runs import Run
from rsupres.scenes import covers, union_grid

logger = logging.getLogger(__name__)

# Values of one strip; 16 Mi float32 are 64 MB, and there are a few such arrays.
_STRIP_VALUES = 1 << 24
_RASTER_SUFFIXES = frozenset({".tif", ".tiff", ".vrt", ".jp2", ".img", ".png"})


@dataclass(frozen=True)
class _PlacedTile:
    """A tile and its weights along both axes.

    Attributes:
        scene: open.
        place: in the mosaic.
        rows: (h,) float32 in (0, 1].
        cols: (w,) float32 in (0, 1].
    """

    scene: Scene
    place: PixelWindow
    rows: np.ndarray
    cols: np.ndarray


def mosaic_tiles(
    folder: Path,
    output: Path,
    *,
    driver: str = "COG",
    creation: Sequence[tuple[str, str]] = (),
    dtype: str | None = None,
    nodata: float | None = None,
    overwrite: bool = False,
    run_dir: Path | str | None = None,
    keep_run: bool = False,
    on_progress: OnProgress | None = None,
) -> RunSummary:
    """Blend the rasters in a folder into one.

    Args:
        folder: holds the tiles; its subfolders are not searched.
        output: the file to write.
        driver: COG or GTiff.
        creation: creation options.
        dtype: numpy name, None = the tiles'.
        nodata: None = the tiles'; needed when tiles leave gaps.
        overwrite: replace an output that exists.
        run_dir: where finished strips wait; None = the output's name with `.run`.
        keep_run: keep it after success.
        on_progress: called after each strip.

    Raises:
        InputError: no folder, no tiles, or tiles that do not fit together.
        RunConflictError: the output exists.
    """
    started = time.monotonic()
    names = _find_tiles(folder)
    job = UpscaleJob(
        scenes=tuple(names),
        output=output,
        driver=driver,
        creation=tuple(creation),
        overwrite=overwrite,
        run_dir=None if run_dir is None else Path(run_dir),
        keep_run=keep_run,
    )
    check_writable(output, "output")
    check_vacant(job)
    show = on_progress or (lambda step: None)
    with bounded_cache(), ExitStack() as stack:
        scenes = [stack.enter_context(Scene.open(name)) for name in names]
        _check_alike(scenes)
        form = _format(job, scenes[0], dtype, nodata)
        tiles, grid = _place(scenes, form, folder)
        _run(job, tiles, grid, form, show)
    return RunSummary(
        output=output,
        status="written",
        figures={},
        tiles=len(names),
        skipped=0,
        duration_s=time.monotonic() - started,
        model="mosaic",
    )


def _place(
    scenes: Sequence[Scene], form: OutputFormat, folder: Path
) -> tuple[list[_PlacedTile], Grid]:
    """Return the tiles with their weights, and the frame of the result."""
    grid, places = union_grid(scenes)
    if form.nodata is None and not covers(grid, places):
        raise InputError(
            f"{folder}: the tiles leave gaps and have no nodata value; give --nodata."
        )
    tiles = [
        _PlacedTile(scene, place, *_weights(place, places))
        for scene, place in zip(scenes, places, strict=True)
    ]
    return tiles, grid


def _run(
    job: UpscaleJob,
    tiles: Sequence[_PlacedTile],
    grid: Grid,
    form: OutputFormat,
    show: OnProgress,
) -> None:
    windows = _strip_windows(grid, len(tiles[0].scene.data_bands))
    manifest = {
        "job": {
            "mosaic": [tile.scene.fingerprint() for tile in tiles],
            "version": rsupres.__version__,
            "dtype": form.dtype,
            "nodata": None if form.nodata is None else repr(form.nodata),
        },
        "n_strips": len(windows),
    }
    with Run.open(job.run_path, manifest) as run:
        try:
            done = run.done_strips()
            for index, window in enumerate(windows):
                if index not in done:
                    pixels, valid = _blend(tiles, window, form)
                    with Run.publishing(run.strip_path(index)) as part:
                        write_strip(part, pixels, grid.crop(window), valid, form.nodata)
                show(Progress("Mosaic", index + 1, len(windows), "strips"))
            strips = [run.strip_path(index) for index in range(len(windows))]
            write_output(strips, _meta(tiles, grid), form, job.output)
        except Interrupted as stop:
            stop.advise("The same command continues.")
            raise
        if not job.keep_run:
            run.remove()


def _blend(
    tiles: Sequence[_PlacedTile], window: PixelWindow, form: OutputFormat
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the rows of one strip in the output's type, and its valid mask."""
    bands = tiles[0].scene.data_bands
    total = np.zeros((len(bands), window.height, window.width))
    weight = np.zeros((window.height, window.width))
    for tile in tiles:
        shared = tile.place.intersection(window)
        if shared is None:
            continue
        inside = shared.relative_to(tile.place)
        dn, valid = tile.scene.read(inside, bands)
        rows, cols = inside.slices()
        weights = tile.rows[rows][:, None] * tile.cols[cols] * valid[0]
        target = shared.relative_to(window).slices()
        total[:, *target] += np.where(valid, dn, 0) * weights
        weight[target] += weights
    valid = weight[None] > 0
    np.divide(total, weight, out=total, where=valid)
    pixels = to_dtype(total.astype(np.float32), form.dtype, form.nodata, valid)
    return pixels, None if valid.all() else valid


def _weights(
    place: PixelWindow, places: Sequence[PixelWindow]
) -> tuple[np.ndarray, np.ndarray]:
    """Return a tile's weights along rows and columns.

    A side that other tiles cross gets a ramp over the deepest such overlap, at most
    half the tile; other sides none. Weights stay above 0, so every pixel is covered.
    """
    others = [other for other in places if other != place and other.intersection(place)]
    rows = _axis_weights(
        place.height,
        [_depth(o.row, o.row_stop, place.row, place.row_stop) for o in others],
    )
    cols = _axis_weights(
        place.width,
        [_depth(o.col, o.col_stop, place.col, place.col_stop) for o in others],
    )
    return rows, cols


def _depth(start: int, stop: int, own_start: int, own_stop: int) -> tuple[int, int]:
    """Return how deep a neighbour reaches in over the first and the last side.

    A neighbour faces a side when it begins before it and ends inside the tile.
    """
    first = stop - own_start if start < own_start and stop < own_stop else 0
    last = own_stop - start if start > own_start and stop > own_stop else 0
    return first, last


def _axis_weights(length: int, depths: Sequence[tuple[int, int]]) -> np.ndarray:
    weights = np.ones(length)
    for side in (0, 1):
        ramp = min(max((depth[side] for depth in depths), default=0), length)
        if ramp:
            centre = (np.arange(ramp) + 0.5) / ramp
            rise = 0.5 - 0.5 * np.cos(np.pi * centre)
            if side == 0:
                weights[:ramp] *= rise
            else:
                weights[-ramp:] *= rise[::-1]
    return weights.astype(np.float32)


def _find_tiles(folder: Path) -> list[str]:
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder.")
    names = sorted(
        str(path)
        for path in folder.iterdir()
        if path.suffix.lower() in _RASTER_SUFFIXES and path.is_file()
    )
    if not names:
        raise InputError(f"{folder}: holds no rasters to blend.")
    return names


def _check_alike(scenes: Sequence[Scene]) -> None:
    first = scenes[0]
    for scene in scenes[1:]:
        if len(scene.data_bands) != len(first.data_bands):
            raise InputError(
                f"{scene.path}: {len(scene.data_bands)} bands, but {first.path} has "
                f"{len(first.data_bands)}."
            )
        if scene.dtype != first.dtype:
            raise InputError(
                f"{scene.path}: type {scene.dtype} differs from {first.dtype} of "
                f"{first.path}."
            )


def _format(
    job: UpscaleJob, first: Scene, dtype: str | None, nodata: float | None
) -> OutputFormat:
    return OutputFormat(
        driver="COG" if job.driver.upper() == "COG" else "GTiff",
        creation=dict(job.creation),
        dtype=dtype or first.dtype,
        nodata=first.nodata if nodata is None else nodata,
    )


def _meta(tiles: Sequence[_PlacedTile], grid: Grid) -> OutputMeta:
    scene = tiles[0].scene
    bands = [band - 1 for band in scene.data_bands]
    return OutputMeta(
        grid=grid,
        descriptions=tuple(scene.descriptions[band] for band in bands),
        scales=tuple(scene.scales[band] for band in bands),
        offsets=tuple(scene.offsets[band] for band in bands),
        colorinterp=tuple(scene.colorinterp[band] for band in bands),
        tags={**scene.tags, "RSUPRES_VERSION": rsupres.__version__},
    )


def _strip_windows(grid: Grid, n_bands: int) -> list[PixelWindow]:
    height = max(1, _STRIP_VALUES // (grid.width * n_bands))
    return [
        PixelWindow(row, 0, min(height, grid.height - row), grid.width)
        for row in range(0, grid.height, height)
    ]
