"""Stages overlap, errors arrive, signals stop."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsupres.execution import (
    Interrupted,
    abandoned,
    read_ahead,
    run_interruptible,
    stop_signals,
    write_behind,
)
from rsupres.tile_grid import split_strips


@given(n_strips=st.integers(0, 60), n_shards=st.integers(1, 20))
def test_shards_share_all_strips_once_in_order_and_evenly(n_strips, n_shards):
    shards = split_strips(n_strips, n_shards)
    assert [i for shard in shards for i in shard.strips] == list(range(n_strips))
    sizes = [len(shard.strips) for shard in shards]
    assert max(sizes) - min(sizes) <= 1
    assert [shard.index for shard in shards] == list(range(1, n_shards + 1))
    assert sizes[-1] > 0 or n_strips == 0


def test_reading_keeps_order_and_stays_at_most_depth_ahead():
    begun: list[int] = []
    is_ahead = threading.Event()

    def source():
        for i in range(20):
            begun.append(i)
            if i == 3:
                is_ahead.set()
            yield i

    with read_ahead(source(), depth=2) as items:
        assert next(items) == 0
        is_ahead.wait()
        # One taken, two in the queue, one that waits for room there.
        assert begun == [0, 1, 2, 3]
        assert list(items) == list(range(1, 20))


def test_an_error_while_reading_arrives_after_what_came_before_it():
    def source():
        yield 1
        raise ValueError("broken file")

    with read_ahead(source()) as items:
        assert next(items) == 1
        with pytest.raises(ValueError, match="broken file"):
            next(items)


def test_leaving_stops_an_endless_reader():
    def source():
        while True:
            yield 0

    with read_ahead(source()) as items:
        next(items)
    assert "rsupres-read-ahead" not in {thread.name for thread in threading.enumerate()}


def test_writing_keeps_order_and_is_done_on_leaving():
    written: list[int] = []
    with write_behind(written.append) as behind:
        for i in range(10):
            behind.put(i)
    assert written == list(range(10))


def test_draining_waits_for_all_and_more_may_come():
    written: list[int] = []

    def sink(item: int) -> None:
        time.sleep(0.02)
        written.append(item)

    with write_behind(sink) as behind:
        for item in (1, 2):
            behind.put(item)
        behind.drain()
        assert written == [1, 2]
        behind.put(3)
    assert written == [1, 2, 3]


def test_draining_raises_what_the_sink_raised():
    def sink(item: int) -> None:
        raise OSError("disk full")

    def write() -> None:
        with write_behind(sink) as behind:
            behind.put(1)
            with pytest.raises(OSError, match="disk full"):
                behind.drain()
            raise KeyError("after")

    with pytest.raises(KeyError, match="after"):
        write()


@pytest.mark.parametrize("moment", ["stopping", "ended"])
@pytest.mark.parametrize("make", [write_behind, read_ahead])
def test_a_signal_while_leaving_waits_for_the_thread(make, moment):
    """What the thread uses is closed next; GDAL crashes if it is used meanwhile."""
    has_begun, may_end, is_done = (threading.Event() for _ in range(3))
    signals: list[int] = []

    def work(item: int = 0) -> None:
        has_begun.set()
        may_end.wait()
        is_done.set()

    def source():
        yield work()

    context = write_behind(work) if make is write_behind else read_ahead(source())
    ask, wait = context._thread.stopping.set, context._thread.ended.wait

    def interrupt_at(here: str) -> None:
        if moment == here and not signals:
            signals.append(signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)

    def wait_for_the_end(timeout: float | None = None) -> bool:
        interrupt_at("ended")
        if signals:  # the thread ends after the signal only
            may_end.set()
        return wait(timeout)

    context._thread.stopping.set = lambda: (interrupt_at("stopping"), ask())
    context._thread.ended.wait = wait_for_the_end

    def leave() -> None:
        with context as behind:
            if make is write_behind:
                behind.put(1)
            has_begun.wait()
            if moment == "stopping":  # at once, as after an error
                raise KeyError

    with pytest.raises(Interrupted), stop_signals():
        leave()
    is_waited_for = is_done.is_set()
    may_end.set()  # or the thread would wait for ever
    assert is_waited_for
    assert not abandoned()


def test_an_error_while_writing_arrives_at_the_next_put_or_on_leaving():
    def sink(item: int) -> None:
        raise OSError(f"disk full at {item}")

    def write(*items: int) -> None:
        with write_behind(sink) as behind:
            for item in items:
                behind.put(item)

    with pytest.raises(OSError, match="disk full at 0"):
        write(*range(100))
    with pytest.raises(OSError, match="disk full at 7"):
        write(7)


def test_an_error_of_the_caller_drops_queued_items_and_is_raised():
    written: list[int] = []
    behind = write_behind(written.append)
    is_taken = threading.Event()

    def sink(item: int) -> None:
        is_taken.set()
        behind._thread.stopping.wait()  # until the caller leaves
        written.append(item)

    behind._sink = sink

    def write() -> None:
        with behind:
            behind.put(0)
            is_taken.wait()
            behind.put(1)
            raise KeyError("model")

    with pytest.raises(KeyError, match="model"):
        write()
    assert written == [0]
    assert "rsupres-write-behind" not in {t.name for t in threading.enumerate()}


def test_reading_working_and_writing_overlap_in_time():
    # Item i is written while i + 1 is computed and i + 2 is read: the three meet.
    meeting = threading.Barrier(3)
    written: list[int] = []

    def source():
        for i in range(6):
            if i >= 2:
                meeting.wait()
            yield i

    def sink(item: int) -> None:
        if item <= 3:
            meeting.wait()
        written.append(item)

    with read_ahead(source()) as items, write_behind(sink) as behind:
        for item in items:
            if 1 <= item <= 4:
                meeting.wait()
            behind.put(item)
    assert written == list(range(6))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_interrupt_while_waiting_for_the_reader(number):
    release = threading.Event()

    def source():
        os.kill(os.getpid(), number)
        release.wait()  # the interruption does not wait for this
        yield 0

    before = signal.getsignal(number)

    reader = read_ahead(source())

    def wait() -> None:
        with stop_signals():
            next(reader.__enter__())

    with pytest.raises(Interrupted) as stopped:
        wait()
    assert not release.is_set()
    release.set()
    reader.__exit__(None, None, None)
    assert stopped.value.signum == number
    assert signal.getsignal(number) == before


def test_advice_follows_the_name_of_the_signal():
    stop = Interrupted(signal.SIGTERM)
    stop.advise("The same command continues.")
    assert str(stop) == "Stopped by SIGTERM. The same command continues."


def test_uninterruptible_work_goes_on_alone_when_a_signal_comes():
    release = threading.Event()
    workers: list[threading.Thread] = []

    def work() -> None:
        workers.append(threading.current_thread())
        os.kill(os.getpid(), signal.SIGTERM)
        release.wait()

    with pytest.raises(Interrupted), stop_signals():
        run_interruptible(work)
    assert abandoned()
    release.set()
    workers[0].join()
    assert not abandoned()


def test_a_writer_that_is_left_behind_is_known(monkeypatch):
    """A thread that ends inside of GDAL when Python does aborts the process."""
    monkeypatch.setattr("rsupres.execution._JOIN_S", 0.01)
    release, working = threading.Event(), threading.Event()

    def sink(item):
        working.set()
        release.wait()

    def interrupted() -> None:
        with write_behind(sink) as writer:
            writer.put(1)
            working.wait()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert abandoned()
    release.set()
    while abandoned():
        time.sleep(0.01)


def test_errors_of_uninterruptible_work_reach_the_caller():
    def work() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        run_interruptible(work)
