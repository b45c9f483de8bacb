"""Overlap reading, computing and writing; stop when a signal says so.

One thread reads ahead, the calling thread runs the model and one thread writes behind,
with short queues between them; an exception in any of them stops all three and reaches
the caller. This module handles no pixels, files or models, and installs signal handlers
only in `stop_signals`.
"""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType
from typing import Generic, NoReturn, TypeVar
from weakref import WeakSet

Item = TypeVar("Item")

_POLL_S = 0.1
_JOIN_S = 30.0


@dataclass(frozen=True)
class Progress:
    """State of a phase of a job.

    Attributes:
        phase: what is being done, such as "Tiles".
        done: units finished.
        total: units in all.
        unit: what is counted, such as "tiles".
        scene: which one, in a batch; "" = the phase is of the whole job.
    """

    phase: str
    done: int
    total: int
    unit: str
    scene: str = ""


OnProgress = Callable[[Progress], None]


@contextmanager
def limited_threads(n: int) -> Iterator[None]:
    """Let each process compute, compress and decode with at most `n` threads.

    Processes that are started meanwhile keep to it, too. Threads that read ahead,
    finish strips and write behind wait for most of the time and come on top.

    Args:
        n: threads of torch (and other users of OpenMP) and of GDAL, from 1.
    """
    values = {"OMP_NUM_THREADS": str(n), "GDAL_NUM_THREADS": str(n)}
    former = {name: os.environ.get(name) for name in values}
    torch = sys.modules.get("torch")  # not loaded yet, it reads the variable
    n_former = torch.get_num_threads() if torch else n
    os.environ.update(values)
    if torch:
        torch.set_num_threads(n)
    try:
        yield
    finally:
        for name, value in former.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        if torch:
            torch.set_num_threads(n_former)


def threads_beside() -> int:
    """Return how many threads each step beside the model has: one for four cores.

    `limited_threads` counts as that number of cores.

    Returns:
        From 1 to 4.
    """
    cores = len(os.sched_getaffinity(0))
    given = os.environ.get("GDAL_NUM_THREADS", "")
    return min(max(1, (int(given) if given.isdecimal() else cores) // 4), 4)


@contextmanager
def progress_bar(wanted: bool) -> Iterator[OnProgress]:
    """Show the progress of library calls on stderr, one bar a phase.

    The command line has its own display; this one is for scripts and notebooks.

    Args:
        wanted: False = show nothing.
    """
    if not wanted:
        yield lambda step: None
        return
    from tqdm import tqdm

    bars: dict[str, tqdm[NoReturn]] = {}

    def show(step: Progress) -> None:
        bar = bars.get(step.phase)
        if bar is None:
            bar = tqdm(desc=step.phase, unit=f" {step.unit}")
            bars[step.phase] = bar
        bar.total = step.total
        bar.update(step.done - bar.n)

    try:
        yield show
    finally:
        for bar in bars.values():
            bar.close()


class Interrupted(KeyboardInterrupt):
    """A signal arrived, or the time is up; the same command continues the job.

    Attributes:
        signum: which signal; SIGALRM when the time is up.
    """

    def __init__(self, signum: int) -> None:
        is_time = signum == signal.SIGALRM
        name = "the time limit" if is_time else signal.Signals(signum).name
        super().__init__(f"Stopped by {name}.")
        self.signum = signum

    def advise(self, text: str) -> None:
        """Append advice for the user."""
        self.args = (f"{self.args[0]} {text}",)


def read_ahead(source: Iterable[Item], depth: int = 1) -> _ReadAhead[Item]:
    """Return a reader that takes items of `source` in a thread, `depth` ahead.

    A context manager whose value is the iterator. What `source` raises is raised by
    ``next``. Leaving the context stops the thread after its current item.

    Args:
        source: iterated in the thread.
        depth: items that may wait in the queue.
    """
    return _ReadAhead(source, depth)


def write_behind(sink: Callable[[Item], None], depth: int = 1) -> _WriteBehind[Item]:
    """Return a queue whose items `sink` takes in a thread of its own.

    A context manager whose value has ``put``, which waits while `depth` items are
    queued, and ``drain``, which waits until all are written. What `sink` raises is
    raised by the next of these or on leaving. Leaving without an exception waits until
    everything is written; leaving with one drops the items that wait.

    Args:
        sink: called in the thread, in the order of the items.
        depth: items that may wait in the queue.
    """
    return _WriteBehind(sink, depth)


@contextmanager
def stop_signals(time_limit_s: float | None = None) -> Iterator[None]:
    """Turn signals that stop, and the end of the time, into `Interrupted` here.

    SIGINT, SIGTERM and SIGUSR1 stop. A second signal has its ordinary effect. Outside
    the main thread this does nothing.

    Args:
        time_limit_s: seconds from now on; None = no limit.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    watched = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGALRM)
    before = {number: signal.getsignal(number) for number in watched}

    def stop(signum: int, frame: FrameType | None) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number in watched:
            signal.signal(number, signal.SIG_DFL)
        raise Interrupted(signum)

    for number in watched:
        signal.signal(number, stop)
    if time_limit_s is not None:
        signal.setitimer(signal.ITIMER_REAL, time_limit_s)
    try:
        yield
    finally:
        if time_limit_s is not None:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


def run_interruptible(work: Callable[[], None]) -> None:
    """Do uninterruptible work in a thread, so that a signal still stops the program.

    A long call into a C library cannot be interrupted: `Interrupted` is raised at once,
    and the thread keeps running, see `abandoned`.
    """
    thread = _Thread(work, "work")
    _start(thread)
    while not thread.ended.wait(_POLL_S):
        pass
    thread.raise_error()


def run_for(limit_s: float, work: Callable[[], None]) -> bool:
    """Do work in a thread and wait for it, but not longer than a limit.

    What the work raises is raised. After the limit the thread keeps running, see
    `abandoned`, and what it raises is lost.

    Args:
        limit_s: seconds.
        work: called once.

    Returns:
        Whether the work was done in time.
    """
    thread = _Thread(work, "work")
    _start(thread)
    if not thread.ended.wait(limit_s):
        return False
    thread.raise_error()
    return True


_STARTED: WeakSet[threading.Thread] = WeakSet()
# Called just before a program with an abandoned thread ends, as that may go on writing.
LAST_STEPS: list[Callable[[], None]] = []


def _start(thread: threading.Thread) -> None:
    _STARTED.add(thread)
    thread.start()


def abandoned() -> bool:
    """Return whether a thread that this module started still runs.

    The program then has to end with `os._exit`: an orderly end kills the thread inside
    of a C++ library, which aborts the process.
    """
    return any(thread in _STARTED for thread in threading.enumerate())


class _Stopped(Exception):
    """The consumer has stopped."""


class _Thread(threading.Thread):
    """A thread that is waited for even when a signal comes meanwhile.

    A file that is closed while GDAL reads or writes it would crash the process.
    """

    def __init__(self, target: Callable[[], None], name: str) -> None:
        super().__init__(target=target, name=f"rsupres-{name}", daemon=True)
        self.stopping = threading.Event()
        self.ended = threading.Event()
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            super().run()
        except BaseException as error:
            self.error = error
        finally:
            self.ended.set()

    def raise_error(self) -> None:
        """Raise what the thread raised, if it did."""
        if self.error is not None:
            raise self.error

    def stop(self) -> None:
        """Ask it to stop, and wait until it has."""
        try:
            self.stopping.set()
            # Not join: an exception inside it makes a live thread look dead.
            self.ended.wait(_JOIN_S)
        finally:
            self.stopping.set()
            self.ended.wait(_JOIN_S)
            self.join(_POLL_S)


class _ReadAhead(Generic[Item]):
    def __init__(self, source: Iterable[Item], depth: int) -> None:
        self._source = source
        self._queue: queue.Queue[tuple[str, object]] = queue.Queue(depth)
        self._thread = _Thread(self._run, "read-ahead")

    def __enter__(self) -> Iterator[Item]:
        _start(self._thread)
        return self._items()

    def __exit__(self, *error: object) -> None:
        self._thread.stop()

    def _items(self) -> Iterator[Item]:
        while True:
            kind, item = self._queue.get()
            if kind == "end":
                return
            if kind == "error":
                assert isinstance(item, BaseException)
                raise item
            yield item  # type: ignore[misc]  # the queue holds Items under "item"

    def _run(self) -> None:
        try:
            for item in self._source:
                self._put("item", item)
            self._put("end", None)
        except _Stopped:
            pass
        except BaseException as error:
            self._put_last(error)

    def _put(self, kind: str, item: object) -> None:
        while not self._thread.stopping.is_set():
            try:
                self._queue.put((kind, item), timeout=_POLL_S)
            except queue.Full:
                continue
            return
        raise _Stopped

    def _put_last(self, error: BaseException) -> None:
        with suppress(_Stopped):
            self._put("error", error)


class _WriteBehind(Generic[Item]):
    def __init__(self, sink: Callable[[Item], None], depth: int) -> None:
        self._sink = sink
        self._queue: queue.Queue[tuple[Item] | None] = queue.Queue(depth)
        self._thread = _Thread(self._run, "write-behind")

    def __enter__(self) -> _WriteBehind[Item]:
        _start(self._thread)
        return self

    def put(self, item: Item) -> None:
        """Hand one item over; wait while the queue is full."""
        self._send((item,))

    def drain(self) -> None:
        """Wait until everything is written."""
        while self._queue.unfinished_tasks and self._thread.error is None:
            with self._queue.all_tasks_done:
                self._queue.all_tasks_done.wait(_POLL_S)
        self._thread.raise_error()

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: object
    ) -> None:
        try:
            if kind is None:
                self._send(None)
                while not self._thread.ended.wait(_POLL_S):
                    pass
                self._thread.raise_error()
        finally:  # also when a signal ends the waiting
            self._thread.stop()

    def _send(self, message: tuple[Item] | None) -> None:
        while True:
            self._thread.raise_error()
            try:
                self._queue.put(message, timeout=_POLL_S)
            except queue.Full:
                continue
            return

    def _run(self) -> None:
        while not self._thread.stopping.is_set():
            try:
                message = self._queue.get(timeout=_POLL_S)
            except queue.Empty:
                continue
            if message is None:
                return
            self._sink(message[0])
            del message
            self._queue.task_done()
