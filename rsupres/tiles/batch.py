"""`rsupres batch` as a function: many scenes, or the tiles of a folder, one by one.

Every input becomes one output in a folder, by the same path as `rsupres upscale`. What
is there already is left alone, a bad input does not stop the others, and `batch.json`
says at any time how far the work is. Every tile of a tile folder is a scene of its own,
with the map, reference and change mask tiles beside it as its conditions.
"""

from __future__ import annotations

import fcntl
import json
import logging
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rsupres.errors import InputError, QualityGateError, RsupresError, RunConflictError
from rsupres.execution import Interrupted, OnProgress
from rsupres.output.atomic import check_writable, publishing, translate_os_errors
from rsupres.output.geotiff import read_tags
from rsupres.output.locks import Lock
from rsupres.raster.files import find_images
from rsupres.tiles.index import FOLDERS, HR, INDEX, LR, read_index
from rsupres.upscaling.job import UpscaleJob

logger = logging.getLogger(__name__)

JOURNAL = "batch.json"
_LOCK = "batch.lock"
DONE = ("written", "existed")
FAILED, WAITING, RUNNING = "failed", "waiting", "running"


@dataclass(frozen=True)
class BatchItem:
    """One input and its output.

    Attributes:
        scene: what is opened.
        output: the file to write.
        conditions: by option of `UpscaleJob`, the tiles beside the scene.
        status: waiting, running, written, existed, computed (a shard) or failed.
        exit_code: 0, or the one that `rsupres upscale` would have ended with.
        error: what failed, in one line.
        model: its name, once known.
        duration_s: wall time.
        figures: quality figures.
    """

    scene: str
    output: Path
    conditions: Mapping[str, str]
    status: str = WAITING
    exit_code: int = 0
    error: str = ""
    model: str = ""
    duration_s: float = 0.0
    figures: Mapping[str, float] | None = None

    @property
    def is_tile(self) -> bool:
        """Whether the scene is a tile of a folder of `rsupres tile`."""
        path = Path(self.scene)
        return path.parent.name == LR and (path.parent.parent / INDEX).is_file()

    def to_json(self) -> dict[str, object]:
        """Return JSON-able values."""
        return {
            "scene": self.scene,
            "output": str(self.output),
            "status": self.status,
            "exit_code": self.exit_code,
            "error": self.error,
            "model": self.model,
            "duration_s": round(self.duration_s, 3),
            "figures": dict(self.figures or {}),
            "conditions": dict(self.conditions),
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, object]) -> BatchItem:
        """Return the item that `to_json` stored."""
        values = {**stored, "output": Path(str(stored["output"]))}
        return cls(**values)  # type: ignore[arg-type]  # the batch's own record


OnItem = Callable[[BatchItem], None]


def run_batch(
    inputs: Sequence[str],
    folder: Path,
    job: UpscaleJob,
    *,
    scale_is_given: bool = True,
    on_item: OnItem | None = None,
    on_progress: OnProgress | None = None,
    word_error: Callable[[RsupresError], str] = str,
) -> list[BatchItem]:
    """Upscale every input into a folder; what shares a model shares its loading.

    Args:
        inputs: rasters, products, folders of rasters, and folders of `rsupres tile`.
        folder: of the outputs; made if it is missing.
        job: options for all; its scenes and output are ignored, and `uncertainty`,
            `reference_coverage` and `run_dir` name folders. With `overwrite` outputs
            that exist are made anew.
        scale_is_given: the scale was asked for; else tile folders have their own.
        on_item: called with each item when it is done.
        on_progress: as for `upscale_scene`.
        word_error: words the failure of an item for its reader.

    Returns:
        All items with their final status, in the order of the inputs.

    Raises:
        InputError: an input cannot be found, two have the same output, or the folder
            cannot be written.
        RunConflictError: another batch works on the folder.
    """
    from rsupres.upscaling.model import keeping_model

    work = [
        pair
        for name in inputs
        for pair in _expand(name, folder, job, scale_is_given=scale_is_given)
    ]
    state = [item for item, _ in work]
    _check_apart(state)
    _make(folder)
    for path in (job.uncertainty, job.reference_coverage, job.run_dir):
        if path is not None:
            _make(path)
    lock = None
    if job.shard is None:
        lock = Lock.take(folder / _LOCK, [fcntl.LOCK_EX], 0.5)
    try:
        _copy_indices(state)
        _save(folder, state)
        with keeping_model():
            for index, (item, own) in enumerate(work):
                state[index] = replace(item, status=RUNNING)
                _save(folder, state)
                state[index] = _attempt(item, own, on_progress, word_error)
                _save(folder, state)
                if on_item is not None:
                    on_item(state[index])
    except Interrupted as stop:
        stop.advise("The same command continues.")
        raise
    finally:
        if lock is not None:
            (folder / _LOCK).unlink(missing_ok=True)
            lock.release()
    return state


def read_batch(folder: Path) -> list[BatchItem]:
    """Return how far a batch is: its items, with what is on disk by now.

    Of one that nobody works on, the item that was running is waiting again.

    Raises:
        InputError: the folder holds no batch, or its journal is damaged.
    """
    from rsupres.output.locks import is_held

    path = folder / JOURNAL
    try:
        stored = json.loads(path.read_text())
        items = [BatchItem.from_json(item) for item in stored["items"]]
    except FileNotFoundError as error:
        raise InputError(f"{folder}: holds no batch.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: damaged ({error}); remove it.") from error
    if (folder / _LOCK).exists() and is_held(folder / _LOCK):
        return items
    return [
        replace(item, status=WAITING) if item.status == RUNNING else item
        for item in items
    ]


def summarise(items: Sequence[BatchItem]) -> dict[str, object]:
    """Return how many items have which status, and the exit code of the whole.

    It is the code of the first failure in the order of the inputs, 0 without one.
    """
    counts = Counter(item.status for item in items)
    return {
        "items": len(items),
        **{status: counts[status] for status in sorted(counts)},
        "duration_s": round(sum(item.duration_s for item in items), 3),
        "exit_code": next((i.exit_code for i in items if i.status == FAILED), 0),
    }


def _expand(
    name: str, folder: Path, job: UpscaleJob, *, scale_is_given: bool
) -> Iterator[tuple[BatchItem, UpscaleJob]]:
    """Yield the items of one input with their jobs."""
    path = Path(name)
    index = path / INDEX
    if index.is_file():
        if not (path / LR).is_dir():
            raise InputError(f"{name}: has an index of tiles and no folder {LR}.")
        found = _expand_tiles(path, folder / path.resolve().name, job, scale_is_given)
    else:
        is_product = path.suffix.lower() == ".safe" or not path.is_dir()
        scenes = [name] if is_product else [str(p) for p in find_images([path])]
        found = (
            [BatchItem(scene, folder / f"{_stem(scene)}.tif", {}) for scene in scenes],
            job,
        )
    items, chosen = found
    for item in items:
        yield item, _job_of(item, chosen)


def _expand_tiles(
    path: Path, folder: Path, job: UpscaleJob, scale_is_given: bool
) -> tuple[list[BatchItem], UpscaleJob]:
    """Return the tiles of a folder, and the job with its scale and model.

    Tiles without a valid pixel are left out; a condition without any on a tile is not
    given with it.
    """
    index = read_index(path / INDEX)
    scale = index.plan.scale
    if scale_is_given and job.scale != scale:
        raise InputError(
            f"{path}: its tiles were cut for scale {scale}, not {job.scale}; give no "
            "scale, or cut them again.",
            remedies=(f"scale={scale}",),
        )
    job = replace(job, scale=scale)
    kinds = [kind for kind in index.kinds if kind != HR and not getattr(job, kind)]
    job, kinds = _choose_model(path, index.tiles[0].name, job, kinds)
    items = [
        BatchItem(
            str(path / LR / tile.name),
            folder / tile.name,
            {
                kind: str(path / FOLDERS[kind] / tile.name)
                for kind in kinds
                if tile.shares[kind] > 0 or kind == "vector_map"
            },
        )
        for tile in index.tiles
        if tile.valid > 0
    ]
    return items, job


def _choose_model(
    path: Path, tile: str, job: UpscaleJob, kinds: Sequence[str]
) -> tuple[UpscaleJob, list[str]]:
    """Return the job with one model for all tiles, and the conditions it looks at."""
    from rsupres.checkpoints.catalogue import default_model, read_card
    from rsupres.conditions.base import CONDITIONS
    from rsupres.raster.dataset import Raster

    name = job.model
    if name is None:
        with Raster.open(path / LR / tile) as scene:
            given = {*kinds, *(name for name in CONDITIONS if getattr(job, name))}
            given |= {"style"} if job.style_sample else set()
            n_bands, gsd_m = len(scene.data_bands), scene.grid.gsd_m
        name = default_model(n_bands, job.scale, gsd_m, given)
    spec = read_card(name).spec
    used = [kind for kind in kinds if kind in spec.accepts | spec.needs]
    if left := [FOLDERS[kind] for kind in kinds if kind not in used]:
        logger.info("%s: model %s does not look at %s.", path, name, ", ".join(left))
    return replace(job, model=name), used


def _job_of(item: BatchItem, job: UpscaleJob) -> UpscaleJob:
    """Return the job of one item."""
    tuples = ("vector_map", "reference")
    given: dict[str, object] = {
        kind: (path,) if kind in tuples else path
        for kind, path in item.conditions.items()
    }
    if job.uncertainty is not None:
        given["uncertainty"] = job.uncertainty / item.output.name
    if job.reference_coverage is not None:
        covered = given.get("reference") or job.reference
        path = job.reference_coverage / item.output.name
        given["reference_coverage"] = path if covered else None
    if job.run_dir is not None:
        given["run_dir"] = job.run_dir / f"{item.output.name}.run"
    return replace(
        job,
        scenes=(item.scene,),
        output=item.output,
        skip_existing=not job.overwrite,
        **given,  # type: ignore[arg-type]  # names and types of UpscaleJob's fields
    )


def _attempt(
    item: BatchItem,
    job: UpscaleJob,
    on_progress: OnProgress | None,
    word_error: Callable[[RsupresError], str],
) -> BatchItem:
    """Upscale one item; a failure becomes part of the result."""
    from rsupres.upscaling.pipeline import upscale_scene

    started = time.monotonic()
    try:
        _make(item.output.parent)
        summary = upscale_scene(job, on_progress=on_progress)
        _check_old_gate(summary.status, job)
    except RsupresError as error:
        code, text = error.exit_code, word_error(error)
    except Exception as error:  # a defect in one must not cost the others
        logger.debug("%s failed.", item.scene, exc_info=True)
        code, text = 1, f"{type(error).__name__}: {error} This is a defect of rsupres."
    else:
        return replace(
            item,
            status=summary.status,
            model=summary.model,
            duration_s=time.monotonic() - started,
            figures=summary.figures,
        )
    line = " ".join(text.split())
    duration_s = time.monotonic() - started
    return replace(
        item, status=FAILED, exit_code=code, error=line, duration_s=duration_s
    )


def _copy_indices(items: Sequence[BatchItem]) -> None:
    """Lay the indices of tiles beside their outputs, so that they find their place.

    Raises:
        RunConflictError: outputs of tiles that were cut otherwise are there.
    """
    folders = {Path(i.scene).parent.parent: i.output.parent for i in items if i.is_tile}
    for source, folder in folders.items():
        _make(folder)
        target = folder / INDEX
        if target.exists() and any(folder.glob("*.tif")):
            if read_index(target) != read_index(source / INDEX):
                raise RunConflictError(
                    f"{folder}: holds tiles that were cut otherwise; choose another "
                    "folder, or remove it.",
                    remedies=("folder",),
                )
            continue
        with publishing(target) as part:
            shutil.copyfile(source / INDEX, part)


def _check_old_gate(status: str, job: UpscaleJob) -> None:
    """Refuse an output that an earlier call wrote and a gate found wanting."""
    if status != "existed" or not job.fail_if:
        return
    if read_tags(job.output).get("RSUPRES_GATE") == "failed":
        raise QualityGateError(
            f"{job.output} exists and did not meet its quality gates; it can be "
            "replaced.",
            remedies=("overwrite", "fail_if"),
        )


def _check_apart(items: Sequence[BatchItem]) -> None:
    seen: dict[Path, str] = {}
    for item in items:
        if item.output in seen:
            raise InputError(
                f"{seen[item.output]} and {item.scene} would both become {item.output};"
                " use a folder for each.",
                remedies=("folder",),
            )
        seen[item.output] = item.scene


def _stem(scene: str) -> str:
    name = scene.rstrip("/").rsplit("/", 1)[-1]
    for suffix in (".zip", ".SAFE", ".safe"):
        name = name.removesuffix(suffix)
    return Path(name).stem if Path(name).suffix else name


def _make(folder: Path) -> None:
    with translate_os_errors(folder / JOURNAL):
        folder.mkdir(parents=True, exist_ok=True)
    check_writable(folder / JOURNAL, "folder")


def _save(folder: Path, items: Sequence[BatchItem]) -> None:
    text = json.dumps({"items": [item.to_json() for item in items]})
    with publishing(folder / JOURNAL) as part:
        part.write_text(text)
