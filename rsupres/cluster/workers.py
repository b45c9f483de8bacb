"""The part of rsupres that runs on Dask workers: their examination, and shards.

Functions here are called by name on every worker, where rsupres is installed too.
Workers send no pixels; they write strips into the run directory.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from distributed import Status, Worker, WorkerPlugin, get_worker

from rsupres.checkpoints.catalogue import read_card
from rsupres.cluster.token import Token
from rsupres.errors import CheckpointError, ResourceError, RsupresError
from rsupres.execution import Progress
from rsupres.raster.files import file_sha256
from rsupres.tiles.batches.attempts import Outcome, attempt
from rsupres.upscaling.job import UpscaleJob
from rsupres.upscaling.pipeline import compute_shard, upscale_scene
from rsupres.upscaling.preparation.devices import find_device
from rsupres.upscaling.preparation.model import Models, keeping_model
from rsupres.upscaling.summary import RunSummary
from rsupres.version import __version__

_LEAVING = (Status.closing, Status.closed, Status.failed)


class Unwanted(Exception):
    """The result of a task is no longer wanted."""


@dataclass(frozen=True)
class Demands:
    """Properties that a worker must share with the process that assembles.

    Attributes:
        weights: SHA-256 by name or path of a model; None = it has no weights.
        token: in the folder that all write to.
        device: on which workers compute.
        version: of rsupres.
    """

    weights: Mapping[str, str | None]
    token: Token
    device: str
    version: str = __version__


@dataclass(frozen=True)
class Report:
    """Properties of a worker.

    Attributes:
        fault: why it cannot be used; None = it can.
        device: kind of its device, such as "cuda".
        n_threads: tasks that it takes at a time.
        resources: that it offers.
    """

    fault: RsupresError | None
    device: str = ""
    n_threads: int = 1
    resources: Mapping[str, float] = field(default_factory=dict)


async def report(demands: Demands, dask_worker: Worker) -> Report:
    """Return the properties of a worker; `Client.run` gives the worker.

    Args:
        demands: what the worker must have.
        dask_worker: the worker, as Dask passes it.
    """
    state = dask_worker.state
    try:
        name = f"Worker {dask_worker.address}"
        device = await asyncio.to_thread(examine, demands, name)
    except RsupresError as fault:
        _bare(fault)
        return Report(fault)
    return Report(None, device, state.nthreads, dict(state.total_resources))


def examine(demands: Demands, name: str) -> str:
    """Check this process; return the kind of its device.

    Args:
        demands: what it must have.
        name: what errors call it.

    Raises:
        CheckpointError: it has other weights.
        ResourceError: it has another version, no such device, or another disk.
    """
    if demands.version != __version__:
        raise ResourceError(
            f"{name} has rsupres {__version__} and not {demands.version}; install one "
            "version everywhere."
        )
    for model, wanted in demands.weights.items():
        try:
            card = read_card(model)
        except RsupresError as error:
            raise type(error)(f"{name}: {error.problem}") from error
        there = None if card.file is None else file_sha256(card.file)
        if there != wanted:
            raise CheckpointError(
                f"{name} has other weights of model {model} ({_short(there)}) than "
                f"this process ({_short(wanted)}); install the same everywhere."
            )
    if fault := demands.token.fault():
        raise ResourceError(
            f"{name} {fault}; the run directory must lie in a folder that all workers "
            "see and may write to.",
            remedies=("run_dir",),
        )
    try:
        return find_device(demands.device).partition(":")[0]
    except RsupresError as error:
        raise type(error)(f"{name}: {error.problem}", argument="device") from error


def _short(sha256: str | None) -> str:
    return "none" if sha256 is None else sha256[:12]


class ModelKeeper(WorkerPlugin):
    """Keeps a model in a worker from one shard to the next, and examines the worker.

    A worker that joined late is examined when it gets its first shard.

    Args:
        name: of the plugin; one a command, so that commands share a cluster.
        demands: on the worker.
    """

    def __init__(self, name: str, demands: Demands) -> None:
        self.name = name
        self._demands = demands

    def setup(self, worker: Worker) -> None:
        """Begin without a model; called on the worker."""
        self._models: Models = {}
        self._turn = threading.Lock()
        self._is_examined = False
        self._address = worker.address

    def teardown(self, worker: Worker) -> None:
        """Give the model's memory back; called on the worker."""
        self._models.clear()

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Keep the model, and one task at a time, whatever threads the worker has.

        Raises:
            RsupresError: the worker does not meet the demands.
        """
        with self._turn:
            if not self._is_examined:
                examine(self._demands, f"Worker {self._address}")
                self._is_examined = True
            with keeping_model(self._models):
                yield


def run_shard(stored: Mapping[str, object], plugin: str) -> Outcome:
    """Compute a shard, as a task of a Dask worker.

    Args:
        stored: its `UpscaleJob` as JSON.
        plugin: name of the `ModelKeeper`.

    Returns:
        How it went, with the error if it failed.
    """
    return _run(stored, plugin, compute_shard)


def run_scene(stored: Mapping[str, object], plugin: str) -> Outcome:
    """Upscale a scene of a batch, as a task of a Dask worker.

    Arguments and result are those of `run_shard`.
    """
    return _run(stored, plugin, upscale_scene)


def _run(
    stored: Mapping[str, object], plugin: str, work: Callable[..., RunSummary]
) -> Outcome:
    check = stop_when_unwanted()
    try:
        with _keeper(plugin).at_work():
            check(None)
            outcome = attempt(UpscaleJob.from_json(stored), check, work)
    except RsupresError as error:
        outcome = error
    return _bare(outcome) if isinstance(outcome, Exception) else outcome


def _bare(error: Exception) -> Exception:
    """Return an error without its causes, as those of GDAL cannot be sent."""
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)


def _keeper(plugin: str) -> ModelKeeper:
    keeper = get_worker().plugins[plugin]
    assert isinstance(keeper, ModelKeeper)
    return keeper


def stop_when_unwanted() -> Callable[[Progress | None], None]:
    """Return a function that raises `Unwanted` when the task that calls it is dropped.

    A task is dropped when its command is stopped or gone. Dask cannot stop a thread.
    """
    worker = get_worker()
    key = worker.get_current_task()

    def check(step: Progress | None) -> None:
        task = worker.state.tasks.get(key)
        is_dropped = task is None or task.state == "cancelled"
        if is_dropped or worker.status in _LEAVING:
            raise Unwanted

    return check
