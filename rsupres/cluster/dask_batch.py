"""Upscale the scenes of a batch on the workers of a Dask cluster, a task a scene.

A worker assembles the output of its scene itself. The process that calls keeps the
journal, and hands out a few scenes more than there are workers.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rsupres.checkpoints.catalogue import list_cards, read_card
from rsupres.cluster.dask_scene import (
    POLL_S,
    check_workers,
    keeping_models,
    result_of,
    task_key,
)
from rsupres.cluster.scheduler import Scheduler, check_connected, wait_for_workers
from rsupres.cluster.token import token_in
from rsupres.errors import ResourceError, RsupresError
from rsupres.raster.files import file_sha256
from rsupres.tiles.batches.attempts import Attempts, OnScene, Outcome, Task
from rsupres.upscaling.job import UpscaleJob

if TYPE_CHECKING:
    from distributed import Client, Future

_WAITING_A_WORKER = 1  # scenes that wait at a worker beside the one it computes


@dataclass(frozen=True)
class BatchOnDask:
    """Attempts the scenes of a batch on a Dask cluster; `Effort.elsewhere`.

    Attributes:
        scheduler: to reach, or to start.
        folder: of the outputs.
        device: on which workers compute.
    """

    scheduler: Scheduler
    folder: Path
    device: str = "auto"

    def __call__(
        self, jobs: Sequence[UpscaleJob], tasks: Iterator[Task], show: OnScene
    ) -> Attempts:
        """Attempt tasks; yield each attempt when it ends.

        Args:
            jobs: of the whole batch.
            tasks: taken one by one, when a worker will soon have nothing to do.
            show: not called; a scene is one task.

        Raises:
            RsupresError: no worker can be used, or the scheduler is gone.
        """
        from rsupres.cluster.workers import Demands

        resources = self.scheduler.resources
        with self.scheduler.connected() as client, token_in(self.folder) as token:
            n_workers = wait_for_workers(client)
            demands = Demands(_weights(jobs), token, self.device)
            check_workers(client, demands, resources)
            with keeping_models(client, demands) as plugin:
                pending: dict[Future[Outcome], tuple[int, float]] = {}
                try:
                    while True:
                        room = n_workers * (1 + _WAITING_A_WORKER) - len(pending)
                        for _, (index, job) in zip(range(room), tasks, strict=False):
                            started = time.monotonic()
                            task = self._submit(client, job, plugin, resources)
                            pending[task] = (index, started)
                        if not pending:
                            return
                        time.sleep(POLL_S)
                        check_connected(client)
                        for task in [task for task in pending if task.done()]:
                            index, started = pending.pop(task)
                            yield index, _outcome(task), time.monotonic() - started
                        n_workers = len(client.nthreads()) or n_workers
                finally:
                    if pending and client.status == "running":
                        client.cancel(list(pending), force=True)

    def _submit(
        self,
        client: Client,
        job: UpscaleJob,
        plugin: str,
        resources: Mapping[str, float],
    ) -> Future[Outcome]:
        from rsupres.cluster.workers import run_scene

        name = job.model
        if name is not None and os.path.isfile(name):
            job = replace(job, model=os.path.abspath(name))
        return client.submit(
            run_scene,
            replace(job, device=self.device).to_json(),
            plugin,
            key=task_key("scene", f"{job.output.stem}-{plugin}"),
            resources=dict(resources) or None,
            pure=False,
        )


def _outcome(task: Future[Outcome]) -> Outcome:
    """Return the outcome of a scene; it failed if the worker died during its task."""
    try:
        return result_of(task)
    except ResourceError as error:
        return error


def _weights(jobs: Sequence[UpscaleJob]) -> dict[str, str | None]:
    """Return the weights that the scenes of a batch may need, by name of the model.

    A model that does not exist here is left to the scenes that name it.
    """
    names = {job.model for job in jobs}
    known = {name for name in names if name is not None}
    if None in names:
        known |= {c.name for c in list_cards() if c.text.get("default") is True}
    weights: dict[str, str | None] = {}
    for name in sorted(known):
        place = os.path.abspath(name) if os.path.isfile(name) else name
        try:
            file = read_card(place).file
            weights[place] = None if file is None else file_sha256(file)
        except (RsupresError, OSError):
            continue
    return weights
