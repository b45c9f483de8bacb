"""Run a batch: upscale many scenes, or the tiles of a folder.

Every input becomes one output in a folder, through the same function as a single scene.
Outputs that exist are left alone, a bad input does not stop the others, and the journal
says at any time how far the work is. `rsupres.tiles.batches.run` makes the attempts.
"""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rsupres.errors import RunConflictError
from rsupres.execution import Interrupted
from rsupres.output.atomic import (
    check_writable,
    make_folder,
    publishing,
    translate_os_errors,
)
from rsupres.output.locks import Lock
from rsupres.tiles.batches.attempts import Effort
from rsupres.tiles.batches.jobs import Choose, Selection, check_batch, expand_inputs
from rsupres.tiles.batches.journal import JOURNAL, LOCK, SHARD_LOCKS, BatchItem, Journal
from rsupres.tiles.batches.run import Batch, Watch
from rsupres.tiles.batches.summary import write_summary
from rsupres.tiles.index import INDEX, read_index
from rsupres.upscaling.job import UpscaleJob
from rsupres.upscaling.preparation.model import keeping_model


@dataclass(frozen=True)
class BatchRequest:
    """The inputs of a batch, its folder, and how to upscale.

    Attributes:
        inputs: rasters, products, patterns, folders of rasters or of `rsupres tile`.
        folder: of the outputs; made if it is missing.
        job: options for all; its scenes and output are ignored, and `uncertainty`,
            `reference_coverage` and `run_dir` name folders. With `overwrite` outputs
            that exist are made anew.
        scale_is_given: the scale was asked for; else tile folders have their own.
        selection: how folders are searched, and files grouped to scenes.
        choose: returns the options of one scene; None = those of `job`.
        effort: how many at a time, and what follows a failure.
        summary: a .csv, .json or .md file to write at the end; None = none.
    """

    inputs: Sequence[str]
    folder: Path
    job: UpscaleJob
    scale_is_given: bool = True
    selection: Selection = field(default_factory=Selection)
    choose: Choose | None = None
    effort: Effort = field(default_factory=Effort)
    summary: Path | None = None

    def expand(self) -> list[tuple[BatchItem, UpscaleJob]]:
        """Return the items with their jobs, after all checks.

        Raises:
            ArgumentError: an output is an input of any item.
            InputError: an input cannot be found, or two have the same output.
        """
        work = expand_inputs(
            self.inputs,
            self.folder,
            self.job,
            scale_is_given=self.scale_is_given,
            selection=self.selection,
            choose=self.choose,
        )
        check_batch([own for _, own in work], self.folder, self.summary)
        return work


def run_batch(request: BatchRequest, watch: Watch | None = None) -> list[BatchItem]:
    """Upscale inputs, loading a model once for consecutive ones; return all items.

    Args:
        request: the inputs, and how to upscale them.
        watch: callbacks; None = none.

    Raises:
        ArgumentError: an output is an input of any item.
        InputError: an input cannot be found, two have the same output, or the folder
            cannot be written.
        RunConflictError: another batch works on the folder.
    """
    folder, job = request.folder, request.job
    work = request.expand()
    beside = (job.uncertainty, job.interval_low, job.interval_high, job.rgb8)
    for path in (folder, *beside, job.reference_coverage, job.run_dir):
        if path is not None:
            _make(path)
    if request.summary is not None:
        check_writable(request.summary, "summary")
    with _alone(folder, job.shard), keeping_model():
        _copy_indices([item for item, _ in work])
        journal = Journal.begin(folder, job.to_json(), job.shard)
        batch = Batch(
            items=[journal.known(item) for item, _ in work],
            jobs=[own for _, own in work],
            journal=journal,
            effort=request.effort,
            watch=watch or Watch(),
        )
        try:
            batch.run()
        except Interrupted as stop:
            stop.advise("The same command continues.")
            raise
        finally:
            if request.summary is not None:
                write_summary(request.summary, [item.at_rest for item in batch.items])
    return batch.items


@contextmanager
def _alone(folder: Path, shard: tuple[int, int] | None) -> Iterator[None]:
    """Keep other batches out of a folder, but for those of other shards."""
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
            with translate_os_errors(folder):
                held.append(Lock.take(folder / name, [operation]))
        yield
    finally:
        for lock, name in zip(held, names, strict=False):
            if lock.is_exclusive:
                (folder / name).unlink(missing_ok=True)
            lock.release()


def _copy_indices(items: Sequence[BatchItem]) -> None:
    """Copy the indices of tiles beside their outputs, for `rsupres mosaic`."""
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
    make_folder(folder, "folder")
    check_writable(folder / JOURNAL, "folder")
