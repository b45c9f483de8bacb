"""How this process uses its processor's threads and memory.

Both are settings of libraries below torch which, as they stand, cost a run on a CPU a
sixth of its time and more. They hold for the whole process, so it is the command line
that asks for them, before torch is loaded; what the user has set stays.
"""

from __future__ import annotations

import ctypes
import os

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of glibc's mallopt
_KEPT = 1 << 30  # bytes
_SPINS = "1000"  # some microseconds


def tune() -> None:
    """Let threads wait quietly and freed memory be used again."""
    wait_quietly()
    keep_freed_memory()


def wait_quietly() -> None:
    """Let OpenMP's threads sleep soon after each of torch's loops.

    They would spin for milliseconds, on cores that other threads of ours need.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", _SPINS)


def keep_freed_memory() -> None:
    """Let glibc keep freed blocks up to 1 GiB, and as much of what is free.

    It would return each large block to the system, which fills the next one with zeros,
    page by page. Elsewhere than on glibc nothing is done.
    """
    if any(name.startswith("MALLOC_") for name in os.environ):
        return
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:
        set_option(_MMAP_THRESHOLD, _KEPT)
        set_option(_TRIM_THRESHOLD, _KEPT)
