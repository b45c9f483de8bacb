"""Cut the missing strips of a run into shards for other processes, and follow them.

The processes write into the run directory; only jobs, counts and errors pass between
them and the process that assembles. How the processes are started does not matter here.
"""

from __future__ import annotations

import os
import time
from dataclasses import replace

from rsupres.errors import RunConflictError
from rsupres.execution import OnProgress, Progress
from rsupres.output.run_dir import Run
from rsupres.tile_grid import split_strips
from rsupres.upscaling.job import UpscaleJob
from rsupres.upscaling.preparation.work import Work

# Several shards a process, so that a slow one or a late one does not hold up the end.
_SHARDS_A_PROCESS = 4
# Processes of an earlier command that was stopped end after their batch of tiles.
_STOPPING_S = 60.0
_SHOWN_EVERY_S = 1.0  # the strips are counted in a folder that may be remote


def cut(n_strips: int, done: frozenset[int], n_processes: int) -> list[tuple[int, int]]:
    """Return the shards (I, N) that hold the missing strips of a run.

    Args:
        n_strips: of the whole run.
        done: strips that are done.
        n_processes: that compute shards at a time.

    >>> cut(8, frozenset(range(4)), 1)
    [(5, 8), (6, 8), (7, 8), (8, 8)]
    """
    n_missing = n_strips - len(done)
    if n_missing <= 0:
        return []
    wanted = -(-_SHARDS_A_PROCESS * n_processes * n_strips // n_missing)
    shards = split_strips(n_strips, min(n_strips, wanted))
    return [(s.index, s.count) for s in shards if not done.issuperset(s.strips)]


def shard_jobs(work: Work, run: Run, n_processes: int) -> list[UpscaleJob]:
    """Return the jobs of the shards that a run lacks, for processes anywhere.

    Their paths are absolute, and the model is named.

    Args:
        work: the settled job.
        run: open.
        n_processes: that compute shards at a time.
    """
    name = work.model.name
    whole = replace(
        work.job,
        model=os.path.abspath(name) if os.path.isfile(name) else name,
        run_dir=run.path,
        overwrite=False,
        restart=False,
    )
    whole = UpscaleJob.from_json(whole.to_json())
    n_strips = work.grid.shape[0]
    shards = cut(n_strips, run.done_strips(), n_processes)
    return [replace(whole, shard=shard) for shard in shards]


def wait_for_earlier(run: Run) -> None:
    """Wait until no process works on a shard of the run.

    Raises:
        RunConflictError: one still does after a minute.
    """
    until = time.monotonic() + _STOPPING_S
    while held := run.held_shards():
        if time.monotonic() > until:
            raise RunConflictError(
                f"{run.path}: {held[0].stem} is being computed by another process; "
                "wait for it, or choose another run directory.",
                remedies=("run_dir",),
            )
        time.sleep(0.1)


class StripCounter:
    """Shows how many strips of a run are done.

    Args:
        run: open.
        n_strips: in all.
        show: called with the progress.
    """

    def __init__(self, run: Run, n_strips: int, show: OnProgress) -> None:
        self._run, self._n_strips, self._show = run, n_strips, show
        self._next = 0.0

    def update(self) -> None:
        """Count and show, unless that was done just now."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + _SHOWN_EVERY_S
            self.show()

    def show(self) -> None:
        """Count and show."""
        done = len(self._run.done_strips())
        self._show(Progress("Strips", done, self._n_strips, "strips"))
