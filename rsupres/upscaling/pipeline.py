"""Run a job from its scene to its outputs, and finish runs that were interrupted.

`upscale_scene` runs a whole job or one shard of it, `compute_shard` a shard of a run
that another process assembles, `finish_run` ends a run that another process began. The
order of the steps is here; what each does is in the modules that are called. Nothing is
printed.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from rsupres.companions.write import beside
from rsupres.errors import (
    InputError,
    QualityGateError,
    ResourceError,
    RsupresError,
    RunConflictError,
)
from rsupres.execution import Interrupted, OnProgress, Progress
from rsupres.output.manifest import damaged_manifest, is_manifest_of
from rsupres.output.run_dir import Run
from rsupres.output.run_state import is_ended
from rsupres.output.store import place
from rsupres.output.strips import write_finished, write_output
from rsupres.output.tiff.geotiff import read_tags
from rsupres.raster.open import bounded_cache
from rsupres.raster.stretch import Stretch
from rsupres.upscaling.gates import check_finite, read_sums, total_figures
from rsupres.upscaling.inference import Counts
from rsupres.upscaling.job import UpscaleJob
from rsupres.upscaling.outputs import SUMS, main_meta, side_outputs
from rsupres.upscaling.outputs import beside as beside_strip
from rsupres.upscaling.preparation.context import context_of
from rsupres.upscaling.preparation.existing import (
    check_existing,
    check_stored_gates,
    stored_figures,
)
from rsupres.upscaling.preparation.validity import without_warnings
from rsupres.upscaling.preparation.work import Work, open_work
from rsupres.upscaling.shards.compute import (
    compute_strips,
    drop_damage,
    join_parts,
    packets_of,
    shared_context,
)
from rsupres.upscaling.storing import upscale_into_store
from rsupres.upscaling.summary import RunSummary as RunSummary
from rsupres.upscaling.summary import summarise
from rsupres.upscaling.tags import job_tags

logger = logging.getLogger(__name__)

# How long a shard waits for a process that still has its lock: one whose machine lost
# the network, or died; file servers keep such locks for a minute or two.
_PATIENCE_WITH_LOST_S = 180.0


# Computes the strips of a run that are missing: all, or those of the job's shard.
Compute = Callable[[Work, Run, OnProgress, Counts], None]


def upscale_scene(
    job: UpscaleJob,
    *,
    on_progress: OnProgress | None = None,
    elsewhere: Compute | None = None,
) -> RunSummary:
    """Upscale a scene or a shard, or go on where a run stopped; return the summary.

    Args:
        job: the job.
        on_progress: called often, from this thread.
        elsewhere: has other processes compute the strips, such as
            `rsupres.cluster.dask_scene.OnDask`; None = this one computes them.

    Raises:
        RsupresError: any of them; without output under its name, except
            `QualityGateError`, which comes after writing.
    """
    started = time.monotonic()
    show = on_progress or (lambda step: None)
    if job.store is not None:
        return upscale_into_store(job, upscale_scene, show, elsewhere)
    is_compared = job.compares and job.output.exists()
    job.check_before(is_kept=is_compared)
    with beside(job.companions), bounded_cache(), torch.inference_mode():
        if is_compared:
            return _compared(job, show, started, elsewhere)
        is_left = job.output.exists() and not job.overwrite and job.run_path.exists()
        if is_left and (finished := _finish_removal(job, started)) is not None:
            return finished
        job.check_vacant()
        with open_work(job) as work:
            return _run(work, show, started, elsewhere)


def compute_shard(
    job: UpscaleJob, *, on_progress: OnProgress | None = None
) -> RunSummary:
    """Compute one shard of a run that another process began; return the summary.

    Nothing is assembled, and warnings about the scene are left to that process.

    Args:
        job: that of the run, with `shard`.
        on_progress: called often, from this thread; what it raises stops the work.

    Raises:
        InputError: the run directory is missing.
        RsupresError: as `upscale_scene`.
    """
    assert job.shard is not None
    started = time.monotonic()
    show = on_progress or (lambda step: None)
    Run.load(job.run_path)
    with ExitStack() as stack:
        stack.enter_context(bounded_cache())
        stack.enter_context(torch.inference_mode())
        with without_warnings():
            work = stack.enter_context(open_work(job, is_checked=False))
        opened = Run.open(job.run_path, _manifest(work), exclusive=False)
        run = stack.enter_context(opened)
        run.lock_shard(*job.shard, patience_s=_PATIENCE_WITH_LOST_S)
        counts = Counts(batch_size=work.batch_size)
        compute_strips(_restored(work, run), run, show, counts)
        missing = work.grid.shape[0] - len(run.done_strips())
        return summarise(work, "computed", {}, counts, started, missing)


def finish_run(
    run_dir: Path,
    output: Path | None = None,
    *,
    overwrite: bool = False,
    keep_run: bool = False,
    on_progress: OnProgress | None = None,
) -> RunSummary:
    """Finish a run and write its output; return the summary.

    Args:
        run_dir: of an interrupted or sharded run.
        output: where to write; None = where the run's job says.
        overwrite: replace an output that exists.
        keep_run: keep the run directory after success.
        on_progress: as for `upscale_scene`.

    Raises:
        InputError: the directory is no run directory.
        RsupresError: as `upscale_scene`.
    """
    stored = Run.load(run_dir).get("options")
    if not isinstance(stored, Mapping):
        raise InputError(f"{run_dir}: not the run of a scene being upscaled.")
    job = UpscaleJob.from_json(stored)
    path, store = place(output or job.output, run_dir)
    job = replace(
        job,
        output=path,
        store=store,
        run_dir=run_dir,
        shard=None,
        overwrite=overwrite,
        skip_existing=False,
        update=False,
        restart=False,
        keep_run=keep_run,
    )
    return upscale_scene(job, on_progress=on_progress)


def _run(
    work: Work, show: OnProgress, started: float, elsewhere: Compute | None
) -> RunSummary:
    job = work.job
    alone = job.shard is None
    exclusive = alone and elsewhere is None
    compute = elsewhere or compute_strips
    with Run.open(
        job.run_path, _manifest(work), exclusive=exclusive, restart=job.takes_over
    ) as run:
        work = _restored(work, run)
        counts = Counts(batch_size=1 if elsewhere else work.batch_size)
        try:
            if exclusive:
                drop_damage(work, run)
            with _left_only_if_begun(run, alone=alone):
                if job.shard is not None:
                    run.lock_shard(*job.shard)
                compute(work, run, show, counts)
                if elsewhere is not None:  # where two workers missed one another's part
                    join_parts(work, run, range(work.grid.shape[0]))
            missing = work.grid.shape[0] - len(run.done_strips())
            if missing:
                return summarise(work, "computed", {}, counts, started, missing)
            if not run.claim_assembly():  # another shard that ended now does it
                return summarise(work, "computed", {}, counts, started, 0)
            if not exclusive and drop_damage(work, run):  # what other processes wrote
                compute(replace(work, job=replace(job, shard=None)), run, show, counts)
            return _publish(work, run, show, counts, started)
        except Interrupted as stop:
            stop.advise(
                f"{len(run.done_strips())} of {work.grid.shape[0]} strips are done; "
                "the same command continues."
            )
            raise


def _manifest(work: Work) -> Mapping[str, object]:
    """Return the manifest of a job's run."""
    return {
        "job": work.identity,
        "options": work.job.to_json(),
        "n_strips": work.grid.shape[0],
        "stretch": work.stretch.to_json(),
        "gains": list(work.gains),
        "conditions": work.conditions.settings(),
    }


def _restored(work: Work, run: Run) -> Work:
    """Return the work with what the first process of the run found.

    Raises:
        RunConflictError: the manifest is damaged.
    """
    kept: Mapping[str, Any] = run.manifest
    try:
        stretch = Stretch.from_json(kept["stretch"])
        gains = tuple(map(float, kept["gains"]))
        conditions = work.conditions.restored(kept.get("conditions", {}))
        n_bands, n_gains = len(work.file_bands), len(work.gains)
        is_sound = (len(stretch.low), len(gains)) == (n_bands, n_gains)
    except (AttributeError, KeyError, TypeError, ValueError):
        is_sound = False
    if not is_sound:
        raise damaged_manifest(run.path)
    return replace(work, stretch=stretch, gains=gains, conditions=conditions)


def _publish(
    work: Work, run: Run, show: OnProgress, counts: Counts, started: float
) -> RunSummary:
    """Make the output of strips that are all there, and remove the run directory."""
    job = work.job
    n_strips = work.grid.shape[0]
    sums = [read_sums(run.path / SUMS / f"{n:04d}.json") for n in range(n_strips)]
    if not any(part.valid for part in sums):
        run.remove()
        cause = f"mask {job.mask}" if job.mask else f"nodata value {work.scene.nodata}"
        raise InputError(f"{work.scene.path}: no valid pixel; is the {cause} right?")
    figures = total_figures(sums)
    check_finite(figures, work.scene.path)
    failed = [gate for gate in work.gates if gate.fails(figures)]
    not_met = "; ".join(gate.describe(figures) for gate in failed)
    context = shared_context(work, run, show, work.model.load)
    tags = job_tags(work, figures, not_met, context_of(context, 0).numbers)
    job.check_vacant()
    show(Progress("Write", 0, 1, "files"))
    for side in side_outputs(work):
        parts = [beside_strip(run, side.name, strip) for strip in range(n_strips)]
        write_output(parts, side.meta(tags), side.form, side.path)
    write_finished(packets_of(work, run), main_meta(work, tags), job)
    show(Progress("Write", 1, 1, "files"))
    if not job.keep_run:
        run.remove()
    if failed:
        raise QualityGateError(
            f"{job.output} is written and marked, but {not_met}.", figures=figures
        )
    return summarise(work, "written", figures, counts, started, 0)


@contextmanager
def _left_only_if_begun(run: Run, *, alone: bool) -> Iterator[None]:
    """Remove the directory of a run that failed before its first strip.

    It would stand in the way of another attempt with other options. Where memory or
    disk were short, the same command may go on with what was prepared. A run shared by
    several processes is not `alone` and stays.
    """
    try:
        yield
    except ResourceError:
        raise
    except RsupresError:
        if alone and not run.done_strips():
            run.remove()
        raise


def _finish_removal(job: UpscaleJob, started: float) -> RunSummary | None:
    """Clean up after a run that was killed between writing its output and the end.

    The output then carries the job's hash, and the run directory is still there.
    """
    if job.keep_run:
        return None
    with open_work(job) as work:
        stamp = {"RSUPRES_JOB": work.identity_sha256}.items()
        if not all(
            path.exists() and stamp <= read_tags(path).items()
            for path in job.outputs.values()
        ):
            return None
        if not _end_run(work):
            return None
        return summarise(work, "written", {}, Counts(), started, 0)


def _compared(
    job: UpscaleJob, show: OnProgress, started: float, elsewhere: Compute | None
) -> RunSummary:
    """Leave an output alone when it is that of the job; else make it anew."""
    with open_work(job) as work:
        if differences := check_existing(work):
            job.check_before(is_kept=False)
            logger.info("%s is made anew: %s.", job.output, "; ".join(differences))
            return _run(work, show, started, elsewhere)
        logger.info("%s exists and is up to date; skipped.", job.output)
        _drop_finished(work)
        figures = stored_figures(job.output)
        check_stored_gates(work, figures)
        return summarise(work, "existed", figures, Counts(), started, 0)


def _drop_finished(work: Work) -> None:
    """Remove the rest of the run that wrote an output."""
    job, manifest = work.job, {"job": work.identity}
    is_there = (job.run_path / "run.json").exists() or is_ended(job.run_path)
    if job.keep_run or not is_there:
        return
    if not is_manifest_of(job.run_path, manifest):
        return
    try:
        _end_run(work)
    except InputError as error:  # a read-only disk
        logger.info("The rest of the run stays: %s", error)


def _end_run(work: Work) -> bool:
    """Remove the directory of a run; return False when other shards still work there.

    Raises:
        RunConflictError: another process works there, and this is no shard.
    """
    try:
        with Run.open(work.job.run_path, {"job": work.identity}) as run:
            run.remove()
    except RunConflictError:
        if work.job.shard is None:
            raise
        return False
    return True
