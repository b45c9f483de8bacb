"""Compile functions with numba, and run one piece of work on all torch threads.

Compiled functions release Python's global interpreter lock, so that several threads of
the process run them at the same time.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, cast

import torch
from numba import njit


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function on its first call, and cache the result on disk.

    numba keeps the result in ``__pycache__`` beside the module, else in the user's
    cache, and not at all where neither can be written. It compiles again when the
    module of the function changes; after a change in a module that the function only
    calls, touch the module of the function.
    """
    options: Any = {"nogil": True, "error_model": "numpy", "fastmath": {"contract"}}
    try:
        made = njit(cache=_has_cache(), **options)(function)
    except RuntimeError:  # no folder that can be written
        made = njit(**options)(function)
    return cast(Callable[..., Any], made)


def _has_cache() -> bool:
    """Return whether there is a place for a cache.

    For a user without a home folder numba would make a folder named `~`.
    """
    has_home = os.path.expanduser("~") != "~"
    named = "NUMBA_CACHE_DIR" in os.environ
    return has_home or named or os.access(os.path.dirname(__file__), os.W_OK)


def share(work: Callable[[int, int], None]) -> None:
    """Run all parts of a piece of work, one part a torch thread; wait for the end.

    Args:
        work: called with the number of a part and the number of parts.
    """
    parts = torch.get_num_threads()
    others = [_threads().submit(work, part, parts) for part in range(1, parts)]
    work(0, parts)
    for other in others:
        other.result()


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="rsupres")
