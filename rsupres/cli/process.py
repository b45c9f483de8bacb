"""Set how this process uses its processor's threads and its memory.

With the defaults of OpenMP and glibc a run on a CPU takes a sixth longer, or more.
The settings hold for the whole process, so the command line makes them, before torch is
loaded; settings of the user's environment stay.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # of glibc's mallopt
_KEPT = 1 << 30  # bytes
_SPINS = "1000"  # some microseconds
# Objects made between two searches for cycles. Importing torch makes a million, and
# none of them goes away; at 700, Python's own value, the searches take a tenth of it.
_ALLOCATIONS = 50_000


def tune() -> None:
    """Let waiting threads sleep, use freed memory again, and load libraries sooner."""
    wait_quietly()
    keep_freed_memory()
    gc.set_threshold(_ALLOCATIONS)


def wait_quietly() -> None:
    """Let OpenMP's threads sleep soon after each of torch's loops.

    By default they spin for milliseconds, on cores that our other threads need.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", _SPINS)


def keep_freed_memory() -> None:
    """Let glibc keep freed blocks of up to 1 GiB, and 1 GiB of free memory.

    By default it returns each large block to the system, which fills the next one with
    zeros, page by page. All threads share what is kept, because reading, computing and
    writing would each keep blocks of their own. With another C library nothing is done.
    """
    if any(name.startswith("MALLOC_") for name in os.environ):
        return
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:
        set_option(_MMAP_THRESHOLD, _KEPT)
        set_option(_TRIM_THRESHOLD, _KEPT)
        set_option(_ARENA_MAX, 1)


@contextmanager
def leave_at_once(*, is_whole: bool) -> Iterator[None]:
    """Let the process end without taking its modules apart, half a second with torch.

    Threads are joined and functions of `atexit` run before, as always. Under coverage,
    after an uncaught error, and unless `is_whole` says that the process ends after the
    block, it ends in the usual way.
    """
    codes: list[int] = []
    if is_whole and "coverage" not in sys.modules:
        atexit.register(_leave, codes)  # first, so that it runs last
    try:
        yield
    except SystemExit as stop:
        if stop.code is None or isinstance(stop.code, int):
            codes.append(stop.code or 0)
        raise


def _leave(codes: list[int]) -> None:
    if not codes:
        return
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(codes[0])
