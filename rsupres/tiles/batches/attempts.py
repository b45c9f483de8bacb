"""Attempt one scene of a batch; hold the settings of attempts: retries, limits."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass

from rsupres.errors import RsupresError
from rsupres.execution import OnProgress, Progress
from rsupres.output.atomic import translate_os_errors
from rsupres.upscaling.job import UpscaleJob
from rsupres.upscaling.pipeline import RunSummary, upscale_scene

logger = logging.getLogger(__name__)

Task = tuple[int, UpscaleJob]  # index of an item, and its job
Outcome = RunSummary | Exception  # what was done, or why not
# Index, outcome and wall time of each attempt when it ends.
Attempts = Generator[tuple[int, Outcome, float], None, None]
OnScene = Callable[[int, Progress], None]  # index of an item, and how far it is
# Makes attempts in other processes, of all jobs and those that are to be attempted.
Elsewhere = Callable[[Sequence[UpscaleJob], Iterator[Task], OnScene], Attempts]


@dataclass(frozen=True)
class Effort:
    """Settings for the attempts of a batch.

    Attributes:
        jobs: scenes at a time, each in a process of its own; 1 = in this process.
        retries: how often inputs that failed are tried again, after all others.
        max_failures: stop when so many inputs have failed; None = never.
        set_up: called first in each process; a function of a module.
        work: does a job, as `upscale_scene`; a function of a module.
        devices: of the processes, in turn; empty = those of the jobs.
        elsewhere: makes the attempts instead; None = processes of this machine do.
    """

    jobs: int = 1
    retries: int = 0
    max_failures: int | None = None
    set_up: Callable[[], None] | None = None
    work: Callable[..., RunSummary] = upscale_scene
    devices: tuple[str, ...] = ()
    elsewhere: Elsewhere | None = None


def attempt(
    job: UpscaleJob,
    on_progress: OnProgress,
    work: Callable[..., RunSummary] | None = None,
) -> Outcome:
    """Upscale one scene; return what was done, or the error.

    Args:
        job: the job.
        on_progress: as for `upscale_scene`.
        work: does it; None = `upscale_scene`.
    """
    try:
        with translate_os_errors(job.output):
            job.output.parent.mkdir(parents=True, exist_ok=True)
        return (work or upscale_scene)(job, on_progress=on_progress)
    except RsupresError as error:
        return error
    except Exception as error:  # a defect in one must not cost the others
        logger.debug("%s failed.", job.scenes[0], exc_info=True)
        return RuntimeError(f"{type(error).__name__}: {error}")


def one_by_one(tasks: Iterator[Task], show: OnScene) -> Attempts:
    """Attempt tasks in this process one after the other; yield each when it ends.

    Args:
        tasks: of the batch.
        show: called with the progress of each scene.
    """
    for index, job in tasks:
        started = time.monotonic()
        outcome = attempt(job, lambda step, index=index: show(index, step))  # type: ignore[misc]  # no named parameter
        yield index, outcome, time.monotonic() - started
