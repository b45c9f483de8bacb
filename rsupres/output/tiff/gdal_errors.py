"""Translate GDAL write errors into our exceptions.

A full disk shows late and in many ways: as an error of GDAL, of libtiff or of a worker
thread, or not at all. This module checks the room on the disk before, collects GDAL's
messages during the writing, and names the cause. It writes and opens no file.
"""

from __future__ import annotations

import logging
import shutil
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError

from rsupres.errors import ResourceError
from rsupres.raster.open import first_line

# rasterio.shutil raises GDAL's errors as they are, unknown ones as SystemError.
GDAL_ERRORS = (RasterioError, CPLE_BaseError, SystemError, OSError)
FULL = ("no space left", "file too large", "quota exceeded", "disk full")


def check_room(path: Path, n_bytes: int) -> None:
    """Refuse to begin a file that the disk or a size limit cannot hold.

    GDAL notices too, but only after libtiff has written to stderr.

    Args:
        path: of the file.
        n_bytes: its size.

    Raises:
        ResourceError: there is not enough room.
    """
    if n_bytes > room_left(path):
        raise ResourceError(write_failure(path, n_bytes, []))


def room_left(path: Path) -> int:
    """Return the largest size in bytes that a file can have: free disk, size limits."""
    return min(_free_bytes(path), _size_limit())


def _free_bytes(path: Path) -> int:
    try:
        return shutil.disk_usage(path.parent).free
    except OSError:
        return sys.maxsize


def _size_limit() -> int:
    """Return the largest file that this process may write, bytes."""
    if sys.platform == "win32":
        return sys.maxsize
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft


@contextmanager
def translate_gdal_errors(path: Path, n_bytes: int) -> Iterator[None]:
    """Turn errors of GDAL during the writing of a file into a `ResourceError`.

    Errors that GDAL only logs, such as those of its worker threads, count too.

    Args:
        path: of the file.
        n_bytes: its size at most.

    Raises:
        ResourceError: the writing failed.
    """
    with gdal_messages(logging.ERROR) as messages:
        try:
            yield
        except GDAL_ERRORS as error:
            reasons = [first_line(error), *messages]
            raise ResourceError(write_failure(path, n_bytes, reasons)) from error
    if messages:
        raise ResourceError(write_failure(path, n_bytes, messages))


@contextmanager
def gdal_messages(level: int = logging.WARNING) -> Iterator[list[str]]:
    """Collect the messages that GDAL logs from this thread and its own threads."""
    collector = _Collector(level)
    source = logging.getLogger("rasterio._env")
    source.addHandler(collector)
    try:
        yield collector.messages
    finally:
        source.removeHandler(collector)


def write_failure(path: Path, n_bytes: int, reasons: Sequence[str]) -> str:
    """Return the message for a file that could not be written.

    Args:
        path: of the file.
        n_bytes: its size at most.
        reasons: messages of GDAL, the main one first.
    """
    free = room_left(path)
    is_full = any(word in reason.lower() for word in FULL for reason in reasons)
    if is_full or free < n_bytes:
        return (
            f"{path}: the disk is full or a size limit is reached: "
            f"{free / 1e6:.1f} MB are left, up to {n_bytes / 1e6:.1f} MB are needed. "
            "Make room and run the same command again."
        )
    return (
        f"{path}: cannot be written ({reasons[0]}). Check the disk and run the same "
        "command again."
    )


class _Collector(logging.Handler):
    """Keeps messages of the thread that made it and of the threads of GDAL."""

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self.messages: list[str] = []
        self._thread = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the message, unless it is about the database of PROJ."""
        is_gdal_thread = (record.threadName or "").startswith("Dummy")
        message = record.getMessage()
        if (record.thread == self._thread or is_gdal_thread) and "PROJ:" not in message:
            self.messages.append(message)
