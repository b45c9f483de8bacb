"""Attempt scenes of a batch in processes of their own, several at a time.

A process takes one scene after another, so that it loads a model once. Its log and its
progress reach the parent, which writes the journal. A process that dies costs its scene
an attempt, not the batch.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

from rsupres.errors import ResourceError
from rsupres.execution import Interrupted, Progress, stop_signals
from rsupres.tiles.batches.attempts import Attempts, Effort, OnScene, Task, attempt
from rsupres.upscaling.preparation.model import keeping_model
from rsupres.upscaling.summary import RunSummary

_STOP_S = 120.0  # for a process to finish the strip that it writes
_PROGRESS_S = 0.1  # between two messages about one phase


@dataclass
class _Worker:
    """A process, and the task that it has."""

    process: SpawnProcess
    connection: Connection
    device: str = ""  # that it computes on; "" = that of each job
    index: int | None = None  # of the item it works on; None = it waits
    started: float = 0.0  # `time.monotonic`

    @classmethod
    def start(cls, effort: Effort, place: int) -> _Worker:
        """Start a process; `place` is its number."""
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        level = logging.getLogger().getEffectiveLevel()
        process = context.Process(
            target=_serve,
            args=(theirs, effort.set_up, effort.work, effort.jobs, level),
            daemon=True,
        )
        process.start()
        theirs.close()
        devices = effort.devices
        return cls(process, ours, devices[place % len(devices)] if devices else "")

    def give(self, task: Task) -> None:
        """Hand over a task."""
        self.index, self.started = task[0], time.monotonic()
        if self.device:
            task = (task[0], replace(task[1], device=self.device))
        with suppress(OSError):  # a process that died meanwhile is found by its end
            self.connection.send(task)

    def ask_to_stop(self) -> None:
        """Stop the scene at work; a second signal would end the process at once."""
        if self.index is not None:
            self.process.terminate()

    def end(self) -> None:
        """End the process once it has stopped."""
        self.connection.close()
        self.process.join(_STOP_S)
        if self.process.is_alive():
            self.process.kill()


def run_workers(tasks: Iterator[Task], effort: Effort, show: OnScene) -> Attempts:
    """Attempt tasks in `effort.jobs` processes; yield each attempt when it ends.

    Args:
        tasks: taken one by one, whenever a process has nothing to do.
        effort: how many processes, and what sets them up.
        show: called with the progress of each scene.
    """
    workers: list[_Worker] = []
    try:
        while True:
            _hand_out(tasks, workers, effort)
            busy = {w.connection: w for w in workers if w.index is not None}
            if not busy:
                return
            for ready in wait(list(busy)):
                worker = busy[ready]  # type: ignore[index]  # wait returns what it got
                assert worker.index is not None
                index, duration_s = worker.index, time.monotonic() - worker.started
                try:
                    kind, content = worker.connection.recv()
                except (EOFError, OSError):
                    workers.remove(worker)
                    yield index, _lost(worker), duration_s
                    continue
                if kind == "progress":
                    show(index, content)
                elif kind == "log":
                    logging.getLogger(content.name).handle(content)
                else:
                    worker.index = None
                    yield index, content, duration_s
    finally:
        for worker in workers:
            worker.ask_to_stop()
        for worker in workers:
            worker.end()


def _hand_out(tasks: Iterator[Task], workers: list[_Worker], effort: Effort) -> None:
    """Give tasks to the processes that wait; start processes as far as needed."""
    for place in range(effort.jobs):
        worker = workers[place] if place < len(workers) else None
        if worker is not None and worker.index is not None:
            continue
        task = next(tasks, None)
        if task is None:
            return
        if worker is None:
            worker = _Worker.start(effort, place)
            workers.append(worker)
        worker.give(task)


def _lost(worker: _Worker) -> ResourceError:
    worker.process.join(1.0)
    code = worker.process.exitcode
    how = f"by {signal.Signals(-code).name}" if code and code < 0 else f"with {code}"
    return ResourceError(
        f"The process that worked on this scene ended {how}; perhaps memory was short."
    )


class _Sender(logging.Handler):
    """Send records to the parent, formatted, so that they can be pickled."""

    def __init__(self, send: Callable[[str, object], None], level: int) -> None:
        super().__init__(level)
        self._send = send

    scene = ""

    def emit(self, record: logging.LogRecord) -> None:
        record.msg, record.args = record.getMessage(), ()
        record.exc_info = record.exc_text = record.stack_info = None
        record.scene = self.scene
        with suppress(Interrupted):
            self._send("log", record)


def _serve(
    connection: Connection,
    set_up: Callable[[], None] | None,
    work: Callable[..., RunSummary],
    n_jobs: int,
    level: int,
) -> None:
    """Attempt the tasks that arrive, until the parent closes the connection."""
    if set_up is not None:
        set_up()
    _share_processors(n_jobs)
    lock = threading.Lock()

    def send(kind: str, content: object) -> None:
        try:
            with lock:
                connection.send((kind, content))
        except OSError as error:  # the parent is gone
            raise Interrupted(signal.SIGTERM) from error

    sender = _Sender(send, level)
    root = logging.getLogger()
    root.addHandler(sender)
    root.setLevel(level)
    logging.captureWarnings(True)
    with suppress(Interrupted, EOFError), stop_signals(), keeping_model():
        while True:
            _, job = connection.recv()
            sender.scene = job.scenes[0]
            send("outcome", attempt(job, _thinned(send), work))


def _thinned(send: Callable[[str, object], None]) -> Callable[[Progress], None]:
    """Return a function that sends progress a few times a second at the most."""
    last = ("", 0.0)

    def show(step: Progress) -> None:
        nonlocal last
        now = time.monotonic()
        is_new = step.phase != last[0] or step.done == step.total
        if is_new or now - last[1] >= _PROGRESS_S:
            last = (step.phase, now)
            send("progress", step)

    return show


def _share_processors(n_jobs: int) -> None:
    """Let several processes have a part of the processor cores each."""
    import torch

    if "OMP_NUM_THREADS" not in os.environ:
        cores = len(os.sched_getaffinity(0))
        torch.set_num_threads(max(1, cores // n_jobs))
