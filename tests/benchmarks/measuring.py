"""Run a command and measure it: seconds of wall and CPU, memory and disk."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

_EVERY_S = 0.02


class Measured(NamedTuple):
    """What a command took: seconds, and bytes at the most."""

    wall_s: float
    cpu_s: float
    memory: int
    disk: int


def measure(
    command: Sequence[object],
    folder: Path | None = None,
    *,
    code: int = 0,
    meanwhile: Callable[[subprocess.Popen[bytes]], None] = lambda process: None,
) -> Measured:
    """Run a command in a process of its own, and look at a folder meanwhile.

    Args:
        command: with its arguments.
        folder: whose bytes are noted; None = none.
        code: the exit code that it must have.
        meanwhile: called with the process.
    """
    words = [str(word) for word in command]
    started = time.perf_counter()
    with _watched(folder) as peak:
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
        meanwhile(process)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    wall_s = time.perf_counter() - started
    if process.returncode != code:
        raise SystemExit(f"{' '.join(words)}: exit code {process.returncode}")
    cpu_s = usage.ru_utime + usage.ru_stime
    return Measured(wall_s, cpu_s, usage.ru_maxrss * 1024, peak[0])


@contextmanager
def _watched(folder: Path | None) -> Iterator[list[int]]:
    """Note the most bytes under a folder, looked at again and again."""
    peak, stop = [0], threading.Event()

    def watch() -> None:
        while folder is not None and not stop.wait(_EVERY_S):
            peak[0] = max(peak[0], _bytes_under(folder))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        stop.set()
        thread.join()


def _bytes_under(folder: Path) -> int:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                total += os.stat(os.path.join(parent, name)).st_blocks * 512
    return total
