"""Upscale into a store of objects: make the output here, then copy it there."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import cast

from rsupres.errors import QualityGateError
from rsupres.execution import Interrupted, OnProgress, run_interruptible
from rsupres.output.atomic import make_folder
from rsupres.output.store import send
from rsupres.upscaling.inference import Counts
from rsupres.upscaling.job import UpscaleJob
from rsupres.upscaling.preparation.existing import (
    check_stored_gates,
    check_stored_output,
    figures_in,
)
from rsupres.upscaling.preparation.work import open_work
from rsupres.upscaling.summary import RunSummary, summarise

logger = logging.getLogger(__name__)


def upscale_into_store(
    job: UpscaleJob,
    upscale: Callable[..., RunSummary],
    show: OnProgress,
    elsewhere: object,
) -> RunSummary:
    """Upscale a scene, or one shard of it, and copy the output into a store.

    The output is first a local file, which the same job finds after an interruption.

    Args:
        job: with `store`.
        upscale: `rsupres.upscaling.pipeline.upscale_scene`, which is called with a job,
            and the two below.
        show: called often with the progress.
        elsewhere: has other processes compute; None = this one does.

    Returns:
        What was done.

    Raises:
        ArgumentError: the job asks for files beside the output.
        RunConflictError: the object exists.
        ResourceError: the store does not answer, or the output cannot be copied.
        RsupresError: as `upscale`.
    """
    store = cast(str, job.store)
    tags = job.check_store()
    if tags is not None and job.compares and (known := _known(job, store, tags)):
        return known
    make_folder(job.output.parent, "output")
    # What an earlier process finished here but could not copy is used.
    local = replace(job, store=None, update=not job.overwrite, skip_existing=False)
    try:
        summary = upscale(local, on_progress=show, elsewhere=elsewhere)
    except QualityGateError:
        _send(job.output, store)
        raise
    if summary.status != "computed":
        _send(job.output, store)
        summary = replace(summary, output=Path(store), status="written")
    return summary


def _known(job: UpscaleJob, store: str, tags: Mapping[str, str]) -> RunSummary | None:
    """Return a summary of an object that is that of the job; None when it is not.

    Raises:
        RunConflictError: it is another, and the job does not update it.
    """
    started, there = time.monotonic(), Path(store)
    with open_work(replace(job, store=None)) as work:
        if differences := check_stored_output(work, there, tags):
            logger.info("%s is made anew: %s.", store, "; ".join(differences))
            return None
        logger.info("%s exists and is up to date; skipped.", store)
        figures = figures_in(tags)
        check_stored_gates(work, figures)
        found = summarise(work, "existed", figures, Counts(), started, 0)
        return replace(found, output=there)


def _send(path: Path, store: str) -> None:
    try:
        run_interruptible(lambda: send(path, store))
    except Interrupted as stop:
        stop.advise(f"{path} is whole; the same command copies it.")
        raise
