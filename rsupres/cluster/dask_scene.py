"""Compute the strips of one scene on the workers of a Dask cluster, a task a shard.

The process that calls assembles the output. It holds the run's lock, so that nothing
but the workers writes there. A worker that is lost costs its shard another attempt on
another worker, which begins after the last strip that the lost one finished.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from rsupres.cluster.scheduler import Scheduler, check_connected, wait_for_workers
from rsupres.cluster.shards import StripCounter, shard_jobs, wait_for_earlier
from rsupres.cluster.token import token_in
from rsupres.errors import ResourceError
from rsupres.execution import OnProgress
from rsupres.output.run_dir import Run
from rsupres.tiles.batches.attempts import Outcome
from rsupres.upscaling.inference import Counts
from rsupres.upscaling.job import UpscaleJob
from rsupres.upscaling.preparation.work import Work
from rsupres.upscaling.summary import RunSummary

if TYPE_CHECKING:
    from distributed import Client, Future

    from rsupres.cluster.workers import Demands, Report

    Task = Future[Outcome]

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

POLL_S = 0.1


@dataclass(frozen=True)
class OnDask:
    """Computes the strips of a run on a Dask cluster; `upscale_scene` calls it.

    Attributes:
        scheduler: to reach, or to start.
        device: on which workers compute; that of the job is of this process.
    """

    scheduler: Scheduler
    device: str = "auto"

    def __call__(self, work: Work, run: Run, show: OnProgress, counts: Counts) -> None:
        """Have the missing strips computed.

        Raises:
            RsupresError: of a shard, or no worker can be used.
            ResourceError: the scheduler is gone, or workers died of one shard.
        """
        counter = StripCounter(run, work.grid.shape[0], show)
        if len(run.done_strips()) == work.grid.shape[0]:
            return
        wait_for_earlier(run)
        with self.scheduler.connected() as client, token_in(run.path) as token:
            from rsupres.cluster.workers import Demands

            n_workers = wait_for_workers(client)
            jobs = [
                replace(job, device=self.device)
                for job in shard_jobs(work, run, n_workers)
            ]
            weights = {str(jobs[0].model): work.model.sha256}
            demands = Demands(weights, token, self.device)
            check_workers(client, demands, self.scheduler.resources)
            counter.show()
            with keeping_models(client, demands) as plugin:
                tasks = _submit(client, jobs, plugin, self.scheduler.resources)
                for summary in _results(client, tasks, counter):
                    counts.tiles += summary.tiles
                    counts.skipped += summary.skipped
            counter.show()


def check_workers(
    client: Client, demands: Demands, resources: Mapping[str, float]
) -> None:
    """Check all workers before work.

    Args:
        client: connected.
        demands: on each worker.
        resources: that each task takes.

    Raises:
        RsupresError: the fault of the first worker that has one.
        ResourceError: workers differ in their devices, or have not the resources.
    """
    from rsupres.cluster.workers import report

    answers: dict[str, Report | Exception] = client.run(
        report, demands, on_error="return"
    )
    for address, answer in sorted(answers.items()):
        if isinstance(answer, Exception):
            raise ResourceError(
                f"Worker {address} cannot run rsupres ({type(answer).__name__}: "
                f"{answer}); install the same version everywhere."
            ) from answer
        if answer.fault is not None:
            raise answer.fault
    reports = [
        answer for answer in answers.values() if not isinstance(answer, Exception)
    ]
    _check_alike(reports)
    for name, amount in resources.items():
        if all(one.resources.get(name, 0) < amount for one in reports):
            raise ResourceError(
                f"No worker offers {name}={amount:g}; start workers with --resources "
                f"'{name}={amount:g}'.",
                argument="dask_resources",
            )
    logger.info("%d workers can be used.", len(reports))


def _check_alike(reports: Sequence[Report]) -> None:
    kinds = sorted({report.device for report in reports})
    if len(kinds) > 1:
        raise ResourceError(
            f"Workers compute on {' and '.join(kinds)}, whose results differ by "
            "rounding; choose one kind.",
            remedies=("device",),
        )
    if any(report.n_threads > 1 for report in reports):
        logger.warning(
            "Workers with several threads take several shards and compute them one "
            "after the other; start them with --nthreads 1."
        )


@contextmanager
def keeping_models(client: Client, demands: Demands) -> Iterator[str]:
    """Let workers keep a model between tasks; the value names the plugin.

    Args:
        client: of the scheduler.
        demands: what every worker must have.

    Yields:
        The name of the plugin, while workers have it.
    """
    from rsupres.cluster.workers import ModelKeeper

    name = f"rsupres-{secrets.token_hex(4)}"
    client.register_plugin(ModelKeeper(name, demands), name=name)
    try:
        yield name
    finally:
        if client.status == "running":
            client.unregister_worker_plugin(name)


def task_key(group: str, rest: str) -> str:
    """Return the name of a task; the dashboard puts the tasks of a group together.

    Args:
        group: words with hyphens between them.
        rest: makes the name unique.
    """
    return f"{group}-_{rest}"


def _submit(
    client: Client,
    jobs: Sequence[UpscaleJob],
    plugin: str,
    resources: Mapping[str, float],
) -> list[Task]:
    """Hand out the shards; the first strips first."""
    from rsupres.cluster.workers import run_shard

    tasks = []
    for place, job in enumerate(jobs):
        assert job.shard is not None
        index, count = job.shard
        group = f"{Path(job.output).stem.replace('-', '_')}-shard"
        key = task_key(group, f"{index:04d}-of-{count:04d}-{plugin}")
        tasks.append(
            client.submit(
                run_shard,
                job.to_json(),
                plugin,
                key=key,
                resources=dict(resources) or None,
                priority=-place,
                pure=False,
            )
        )
    return tasks


def _results(
    client: Client, tasks: Sequence[Task], counter: StripCounter
) -> Iterator[RunSummary]:
    """Yield the results of tasks as they end; drop the other tasks on an error.

    Args:
        client: connected.
        tasks: of `run_shard`.
        counter: shows how far the run is.

    Raises:
        RsupresError: of a task.
        ResourceError: the scheduler is gone, or workers died of one task.
    """
    pending = set(tasks)
    try:
        while pending:
            time.sleep(POLL_S)
            check_connected(client)
            for task in [task for task in pending if task.done()]:
                outcome = result_of(task)
                if isinstance(outcome, Exception):
                    raise outcome
                yield outcome
                pending.remove(task)
            counter.update()
    finally:
        if pending and client.status == "running":
            client.cancel(list(pending), force=True)


def result_of(task: Future[Result]) -> Result:
    """Return the result of a task that ended.

    Raises:
        RsupresError: of the task.
        ResourceError: workers died of it, or another process cancelled it.
    """
    from distributed import CancelledError, KilledWorker

    try:
        return task.result()
    except KilledWorker as error:
        raise ResourceError(
            f"{task.key}: the workers that computed it died, the last one at "
            f"{error.last_worker.address}; perhaps their memory is short."
        ) from error
    except CancelledError as error:
        raise ResourceError(
            f"{task.key}: the task was cancelled, not by this process; the same "
            "command continues."
        ) from error
