"""Cut a scene and its conditions into a folder of tiles.

The tiling is that of upscaling and the conditions are read by the same sources, so a
tile on disk holds what a model would be shown. Tiles wait in a run directory beside the
folder, tile row by tile row; the folder appears under its name when it is complete. One
tile is in memory at a time.
"""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import numpy as np

from rsupres.conditions.base import ConditionRequest, TargetScene, given_files
from rsupres.conditions.open import open_conditions
from rsupres.errors import RsupresError, RunConflictError
from rsupres.execution import Interrupted, OnProgress, Progress
from rsupres.grid import round_up
from rsupres.output.atomic import translate_os_errors
from rsupres.output.damage.seals import checksum_of, read_json, write_json
from rsupres.output.protect import Inputs
from rsupres.output.run_dir import Run
from rsupres.output.run_state import drop_ended, is_ended
from rsupres.output.temporary import sync
from rsupres.output.tiff.profile import OutputFormat
from rsupres.output.tiff.trial import check_format
from rsupres.raster.bands import choose_bands
from rsupres.raster.dataset import Raster
from rsupres.raster.nodata import is_same_nodata, join_valid, to_dtype
from rsupres.raster.open import bounded_cache
from rsupres.raster.place.extent import window_from_bounds
from rsupres.raster.stack import open_scenes
from rsupres.raster.stretch import find_stretch, parse_stretch
from rsupres.raster.undeclared import heed_undeclared
from rsupres.tile_grid import lr_step
from rsupres.tiles.files import RGB, Sources, TileWriter, as_stored, make_writers
from rsupres.tiles.folder import check_tile_folder
from rsupres.tiles.hr_image import open_hr, read_hr
from rsupres.tiles.index import (
    FOLDERS,
    HR,
    INDEX,
    LR,
    TileIndex,
    TileRecord,
    Tiling,
    records,
    write_index,
)
from rsupres.upscaling.preparation.scene import sharpened_by, with_network
from rsupres.version import __version__

logger = logging.getLogger(__name__)

DEFAULT_SIZE, DEFAULT_OVERLAP = 128, 16
_TILES = "tiles"  # in the run directory, until they appear under the folder's name


@dataclass(frozen=True)
class TileJob:
    """A scene to cut; `rsupres.tiles.request.TileOptions` explains the other fields.

    Attributes:
        scenes: what to open: one raster, or several that make one.
        folder: to make.
        scale: SR pixels along one LR pixel.
        multiple: SR sides of tiles are multiples of it.
        roles: bands that a reference is read in, such as ("red", "green", "blue");
            None = these three where a reference is given and the scene has as many,
            else all.
        conditions: what to write beside the LR tiles.
    """

    scenes: tuple[str, ...]
    folder: Path
    scale: Fraction = Fraction(4)
    tile_size: int | None = None
    overlap: int | None = None
    halo: int = 0
    multiple: int = 1
    roles: tuple[str, ...] | None = None
    input_nodata: float | None = None
    bands_out: str | None = None
    stretch: str = "auto"
    bounds: tuple[float, float, float, float] | None = None
    bounds_crs: str | None = None
    conditions: ConditionRequest = field(default_factory=ConditionRequest)
    hr: str | None = None
    overwrite: bool = False

    @property
    def run_path(self) -> Path:
        """Path of the unfinished folder."""
        return self.folder.with_name(self.folder.name + ".run")

    @property
    def inputs(self) -> Mapping[str, Sequence[str]]:
        """Names of the files that are read, by argument."""
        hr = () if self.hr is None else (self.hr,)
        return {"scenes": self.scenes, "hr": hr, **given_files(self.conditions)}


@dataclass(frozen=True)
class TileSummary:
    """The result of cutting.

    Attributes:
        folder: of the tiles.
        shape: tile rows and columns.
        tile_shape: LR pixels of a whole tile.
        overlap: LR pixels.
        kinds: folders in it.
        valid: share of valid LR pixels, mean over the tiles.
        shares: by kind, mean over the tiles; see `rsupres.tiles.index.TileRecord`.
        duration_s: wall time.
    """

    folder: Path
    shape: tuple[int, int]
    tile_shape: tuple[int, int]
    overlap: int
    kinds: tuple[str, ...]
    valid: float
    shares: Mapping[str, float]
    duration_s: float

    def to_json(self) -> dict[str, object]:
        """Return JSON-able values."""
        return {
            "folder": str(self.folder),
            "tiles": self.shape[0] * self.shape[1],
            "rows": self.shape[0],
            "cols": self.shape[1],
            "tile_shape": list(self.tile_shape),
            "overlap": self.overlap,
            "kinds": list(self.kinds),
            "valid": round(self.valid, 4),
            "shares": {name: round(value, 4) for name, value in self.shares.items()},
            "duration_s": round(self.duration_s, 3),
        }


def tile_scene(job: TileJob, *, on_progress: OnProgress | None = None) -> TileSummary:
    """Cut a scene into tiles, or go on where a call stopped; return the counts.

    Args:
        job: the scene, and how to cut it.
        on_progress: called after each tile row.

    Raises:
        ArgumentError: the folder holds a file that is read.
        GridError: tile size, overlap, halo and scale do not fit together.
        InputError: the scene, a condition or the HR image cannot be used.
        RunConflictError: the folder exists, or another job waits beside it.
        ResourceError: the disk is full.
    """
    started = time.monotonic()
    show = on_progress or (lambda step: None)
    _check_folder(job)
    with bounded_cache(), _open(job) as sources:
        plan = _plan(job, sources)
        manifest = {
            "job": {"tile": plan.to_json(), "stretch": sources.stretch.to_json()},
            "n_strips": plan.grid.shape[0],
            "conditions": sources.conditions.settings(),
        }
        with Run.open(job.run_path, manifest, restart=job.overwrite) as run:
            settings = cast(Mapping[str, object], run.manifest.get("conditions", {}))
            sources = replace(sources, conditions=sources.conditions.restored(settings))
            try:
                found = _cut(sources, plan, run, show)
                _publish(job, TileIndex(plan, tuple(found)), run)
            except Interrupted as stop:
                stop.advise("The same command continues.")
                raise
            run.remove()
    return TileSummary(
        folder=job.folder,
        shape=plan.grid.shape,
        tile_shape=plan.grid.tile_shape,
        overlap=plan.overlap,
        kinds=(LR, *(FOLDERS[kind] for kind in sources.kinds)),
        valid=float(np.mean([record.valid for record in found])),
        shares={
            kind: float(np.mean([record.shares[kind] for record in found]))
            for kind in sources.kinds
        },
        duration_s=time.monotonic() - started,
    )


def _check_folder(job: TileJob) -> None:
    """Check that the tiles may be written; remove the run of tiles that are there."""
    Inputs(job.inputs).check_folder(job.folder, "folder")
    try:
        check_tile_folder(job.folder, overwrite=job.overwrite)
    except RunConflictError:
        _drop_published(job.run_path)
        raise


@contextmanager
def _open(job: TileJob) -> Iterator[Sources]:
    choice = parse_stretch(job.stretch)
    with ExitStack() as stack:
        opened = open_scenes(job.scenes, job.input_nodata, job.bands_out)
        scene = heed_undeclared(stack.enter_context(opened), ("input_nodata",))
        if job.bounds is not None:
            scene = scene.crop(window_from_bounds(scene, job.bounds, job.bounds_crs))
        stretch = find_stretch(scene, choice)
        if sharpened_by(scene) is not None:
            scene = with_network(scene, "cpu")
        roles = job.roles
        if roles is None:
            needed = job.conditions.reference or job.conditions.change_mask == "detect"
            roles = RGB if needed and len(scene.data_bands) >= len(RGB) else ()
        bands = choose_bands(scene, roles).roles
        check_format(OutputFormat("GTiff", {}, scene.dtype), 1, scene.grid)
        frame = TargetScene(
            scene, bands, tuple(roles), stretch.for_bands(bands), job.scale
        )
        conditions = stack.enter_context(open_conditions(job.conditions, frame))
        hr = None if job.hr is None else open_hr(job.hr, frame.sr, stack)
        yield Sources(scene, conditions, hr, stretch.for_bands(scene.data_bands))


def _plan(job: TileJob, sources: Sources) -> Tiling:
    scene = sources.scene
    step = lr_step(job.scale, job.multiple)

    def rounded(chosen: int | None, default: int) -> int:
        return round_up(default, step) if chosen is None else chosen

    overlap = rounded(job.overlap, max(DEFAULT_OVERLAP, 2 * job.halo + 8))
    size = rounded(job.tile_size, max(DEFAULT_SIZE, 2 * overlap))
    fingerprints: dict[str, object] = {
        "version": __version__,
        "scene": scene.fingerprint(),
        "bands": [scene.descriptions[band - 1] for band in scene.data_bands],
        "sharpening": sharpened_by(scene),
        "dtype": scene.dtype,
        "conditions": sources.conditions.fingerprint(),
        "describe": sources.conditions.describe(),
    }
    if sources.hr is not None:
        fingerprints["hr"] = sources.hr[0].fingerprint()
    return Tiling(
        source=os.path.basename(scene.path.rstrip("/")),
        scene=scene.grid,
        scale=job.scale,
        size=size,
        overlap=overlap,
        halo=job.halo,
        multiple=job.multiple,
        fingerprints=fingerprints,
    )


def _cut(
    sources: Sources, plan: Tiling, run: Run, show: OnProgress
) -> list[TileRecord]:
    """Write the tile rows that are missing; return all records, row-major."""
    n_rows, n_cols = plan.grid.shape
    planned = records(plan)
    names = (LR, *(FOLDERS[kind] for kind in sources.kinds))
    found: list[TileRecord] = []
    if not _staged(run).exists():  # killed after the folder had appeared
        shutil.rmtree(_rows(run), ignore_errors=True)
    for folder in (_rows(run), *(_staged(run) / name for name in names)):
        folder.mkdir(parents=True, exist_ok=True)
    writers = make_writers(sources, plan)
    show(Progress("Tiles", 0, n_rows, "tile rows"))
    for row in range(n_rows):
        journal = _rows(run) / f"{row:04d}.json"
        if (stored := _stored_row(journal, run)) is not None:
            found += stored
        else:
            part = planned[row * n_cols : (row + 1) * n_cols]
            done = [_write(tile, sources, plan, writers, run) for tile in part]
            _keep_row(journal, done, names, run)
            found += done
        show(Progress("Tiles", row + 1, n_rows, "tile rows"))
    return found


def _keep_row(
    journal: Path, done: Sequence[TileRecord], names: Sequence[str], run: Run
) -> None:
    """Note the tiles of a row, with the checksums of their files."""
    files = [f"{name}/{record.name}" for name in names for record in done]
    checksums = {file: checksum_of(_staged(run) / file) for file in files}
    tiles = [record.to_json() for record in done]
    write_json(journal, {"tiles": tiles, "files": checksums})


def _stored_row(journal: Path, run: Run) -> list[TileRecord] | None:
    """Return the tiles of a row that is done; damage anywhere counts as none."""
    if not journal.exists():
        return None
    try:
        stored: Mapping[str, Any] = read_json(journal, unsealed=False)
        if all(checksum_of(_staged(run) / k) == v for k, v in stored["files"].items()):
            return [TileRecord.from_json(record) for record in stored["tiles"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    logger.warning("%s: this row of tiles is damaged; cut again.", journal)
    return None


def _write(
    tile: TileRecord,
    sources: Sources,
    plan: Tiling,
    writers: Mapping[str, TileWriter],
    run: Run,
) -> TileRecord:
    """Write one tile in all its kinds; return its record with shares."""
    scene = sources.scene
    pixels, apart = scene.read_stored(tile.lr, scene.data_bands, joint=0)
    valid = join_valid(apart, None)
    # A tile has one value for all bands, and sharpened bands have none.
    if scene.refinement.coarse or not _has_one_nodata(scene):
        exact = pixels.astype(np.float64)
        pixels = to_dtype(exact, scene.dtype, scene.nodata, apart)
    path = _staged(run) / LR / tile.name
    writers[LR].write(path, pixels, plan.scene.crop(tile.lr), valid)
    shares: dict[str, float] = {}
    grid = plan.sr.crop(tile.sr)
    for kind, read in sources.conditions.read(tile.sr).items():
        stored, share = as_stored(kind, read, sources.conditions)
        path = _staged(run) / FOLDERS[kind] / tile.name
        writers[kind].write(path, stored, grid)
        shares[kind] = share
    if sources.hr is not None:
        image, corner = sources.hr
        pixels, measured = read_hr(image, corner, tile.sr)
        path = _staged(run) / FOLDERS[HR] / tile.name
        writers[HR].write(path, pixels, grid, measured)
        shares[HR] = float(measured.mean())
    return replace(tile, valid=float(valid.mean()), shares=shares)


def _has_one_nodata(scene: Raster) -> bool:
    values = [scene.nodata_of(band) for band in scene.data_bands]
    return all(is_same_nodata(value, values[0]) for value in values)


def _publish(job: TileJob, index: TileIndex, run: Run) -> None:
    """Write the index and let the folder appear, in place of an older one."""
    staged = _staged(run)
    write_index(staged / INDEX, index)
    for folder in (*(path for path in staged.iterdir() if path.is_dir()), staged):
        sync(folder)
    check_tile_folder(job.folder, overwrite=job.overwrite)
    folder = Path(os.path.realpath(job.folder))
    with translate_os_errors(folder):
        old = run.path / "replaced"
        is_there = folder.exists()
        if is_there:
            shutil.rmtree(old, ignore_errors=True)
            os.replace(folder, old)
        try:
            os.replace(staged, folder)
        except BaseException:
            if is_there:
                os.replace(old, folder)
            raise
        sync(folder.parent)


def _drop_published(path: Path) -> None:
    """Remove a run without tiles, killed after publishing, unless it is worked on."""
    with suppress(RsupresError):
        if is_ended(path):
            drop_ended(path)
        elif not (path / _TILES).exists():
            with Run.open(path, Run.load(path)) as run:
                run.remove()


def _staged(run: Run) -> Path:
    return run.path / _TILES


def _rows(run: Run) -> Path:
    return run.path / "rows"
