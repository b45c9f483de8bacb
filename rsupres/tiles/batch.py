"""Run a batch: upscale many scenes, or the tiles of a folder, one after the other.

Every input becomes one output in a folder, through the same function as a single scene.
Outputs that exist are left alone, a bad input does not stop the others, and the journal
says at any time how far the work is.
"""

from __future__ import annotations

import fcntl
import logging
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from rsupres.errors import RsupresError, RunConflictError
from rsupres.execution import Interrupted, OnProgress
from rsupres.output.atomic import check_writable, publishing, translate_os_errors
from rsupres.output.locks import Lock
from rsupres.tiles.batch_jobs import check_batch, expand_inputs
from rsupres.tiles.index import INDEX, read_index
from rsupres.tiles.journal import (
    FAILED,
    JOURNAL,
    LOCK,
    RUNNING,
    SHARD_LOCKS,
    BatchItem,
    Journal,
    now,
)
from rsupres.upscaling.job import UpscaleJob
from rsupres.upscaling.model import keeping_model
from rsupres.upscaling.pipeline import upscale_scene

logger = logging.getLogger(__name__)

OnItem = Callable[[BatchItem], None]


def run_batch(
    inputs: Sequence[str],
    folder: Path,
    job: UpscaleJob,
    *,
    scale_is_given: bool = True,
    recursive: bool = False,
    on_item: OnItem | None = None,
    on_progress: OnProgress | None = None,
    word_error: Callable[[RsupresError], str] = str,
) -> list[BatchItem]:
    """Upscale every input into a folder; consecutive ones of a model load it once.

    Args:
        inputs: rasters, products, folders of rasters, and folders of `rsupres tile`.
        folder: of the outputs; made if it is missing.
        job: options for all; its scenes and output are ignored, and `uncertainty`,
            `reference_coverage` and `run_dir` name folders. With `overwrite` outputs
            that exist are made anew.
        scale_is_given: the scale was asked for; else tile folders have their own.
        recursive: search subfolders of folders, too.
        on_item: called with each item when it is done.
        on_progress: as for `upscale_scene`.
        word_error: words the failure of an item for its reader.

    Returns:
        All items with their final status, in the order of the inputs.

    Raises:
        ArgumentError: an output is an input of any item.
        InputError: an input cannot be found, two have the same output, or the folder
            cannot be written.
        RunConflictError: another batch works on the folder.
    """
    work = expand_inputs(
        inputs, folder, job, scale_is_given=scale_is_given, recursive=recursive
    )
    check_batch([own for _, own in work], folder)
    beside = (job.uncertainty, job.interval_low, job.interval_high)
    for path in (folder, *beside, job.reference_coverage, job.run_dir):
        if path is not None:
            _make(path)

    def attempt(item: BatchItem, own: UpscaleJob) -> BatchItem:
        done = _attempt(item, own, on_progress, word_error)
        if on_item is not None:
            on_item(done)
        return done

    with _alone(folder, job.shard), keeping_model():
        try:
            _copy_indices([item for item, _ in work])
            journal = Journal.begin(folder, job.to_json(), job.shard)
            return _run_all(work, journal, attempt)
        except Interrupted as stop:
            stop.advise("The same command continues.")
            raise


@contextmanager
def _alone(folder: Path, shard: tuple[int, int] | None) -> Iterator[None]:
    """Keep other batches out of a folder, but for those of other shards.

    Raises:
        RunConflictError: one works there.
    """
    if shard is None:
        names = {LOCK: fcntl.LOCK_EX}
    else:
        names = {
            LOCK: fcntl.LOCK_SH,
            SHARD_LOCKS.replace("*", "{}").format(*shard): fcntl.LOCK_EX,
        }
    held: list[Lock] = []
    try:
        for name, operation in names.items():
            held.append(Lock.take(folder / name, [operation], 0.5))
        yield
    finally:
        for lock, name in zip(held, names, strict=False):
            if lock.is_exclusive:
                (folder / name).unlink(missing_ok=True)
            lock.release()


def _run_all(
    work: Sequence[tuple[BatchItem, UpscaleJob]],
    journal: Journal,
    attempt: Callable[[BatchItem, UpscaleJob], BatchItem],
) -> list[BatchItem]:
    """Attempt every item; keep the journal up to date meanwhile."""
    state = [journal.known(item) for item, _ in work]
    journal.save(state)
    for index, (_, own) in enumerate(work):
        state[index] = replace(state[index], status=RUNNING)
        journal.save(state)
        state[index] = attempt(state[index], own)
        journal.save(state)
    return state


def _attempt(
    item: BatchItem,
    job: UpscaleJob,
    on_progress: OnProgress | None,
    word_error: Callable[[RsupresError], str],
) -> BatchItem:
    """Upscale one item; a failure becomes part of the result."""
    started = time.monotonic()
    try:
        _make(item.output.parent)
        summary = upscale_scene(job, on_progress=on_progress)
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
            finished=(summary.status == "existed" and item.finished) or now(),
        )
    line = " ".join(text.split())
    duration_s = time.monotonic() - started
    return replace(
        item,
        status=FAILED,
        exit_code=code,
        error=line,
        duration_s=duration_s,
        finished=now(),
    )


def _copy_indices(items: Sequence[BatchItem]) -> None:
    """Copy the indices of tiles beside their outputs, for `rsupres mosaic`.

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


def _make(folder: Path) -> None:
    with translate_os_errors(folder / JOURNAL):
        folder.mkdir(parents=True, exist_ok=True)
    check_writable(folder / JOURNAL, "folder")
