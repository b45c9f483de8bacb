"""Functions compiled by numba, and the threads that share their work.

What torch does not have in one pass is written as plain loops. They hold no lock of the
interpreter's, so that threads of it run them beside one another.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, cast

import torch


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile on the first call; keep the result on disk where there is a place.

    numba takes what it kept for current as long as the file of the function is: touch
    that file after changes here.
    """
    from numba import njit  # late, as a machine that only trains may lack it

    options: Any = {"nogil": True, "error_model": "numpy", "fastmath": {"contract"}}
    try:
        made = njit(cache=True, **options)(function)
    except RuntimeError:  # no folder that can be written
        made = njit(**options)(function)
    return cast(Callable[..., Any], made)


def share(work: Callable[[int, int], None]) -> None:
    """Run all parts of a work, as many as torch uses threads.

    Args:
        work: takes the number of its part and that of all parts.
    """
    parts = torch.get_num_threads()
    waiting = [_threads().submit(work, part, parts) for part in range(1, parts)]
    work(0, parts)  # beside them
    for part in waiting:
        part.result()


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="rsupres")
