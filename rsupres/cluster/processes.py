"""Compute the strips of a scene in processes of this machine, one a device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass

from rsupres.cluster.shards import StripCounter, shard_jobs, wait_for_earlier
from rsupres.execution import OnProgress
from rsupres.output.run_dir import Run
from rsupres.tiles.batches.attempts import Effort
from rsupres.tiles.batches.workers import run_workers
from rsupres.upscaling.inference import Counts
from rsupres.upscaling.pipeline import compute_shard
from rsupres.upscaling.preparation.work import Work


@dataclass(frozen=True)
class OnDevices:
    """Computes the strips of a run on several devices; `upscale_scene` calls it.

    Attributes:
        devices: of the processes; a device that is named twice gets two.
        set_up: called first in each process; a function of a module.
    """

    devices: Sequence[str]
    set_up: Callable[[], None] | None = None

    def __call__(self, work: Work, run: Run, show: OnProgress, counts: Counts) -> None:
        """Have the missing strips computed.

        Raises:
            RsupresError: of a shard.
            ResourceError: a process died.
        """
        jobs = shard_jobs(work, run, len(self.devices))
        if not jobs:
            return
        wait_for_earlier(run)
        counter = StripCounter(run, work.grid.shape[0], show)
        counter.show()
        effort = Effort(
            jobs=len(self.devices),
            set_up=self.set_up,
            work=compute_shard,
            devices=tuple(self.devices),
        )
        tasks = iter(enumerate(jobs))
        with closing(
            run_workers(tasks, effort, lambda index, step: counter.update())
        ) as attempts:
            for _, outcome, _ in attempts:
                if isinstance(outcome, Exception):
                    raise outcome
                counts.tiles += outcome.tiles
                counts.skipped += outcome.skipped
        counter.show()
