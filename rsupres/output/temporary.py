"""Temporary files beside the files that they become, and what killed processes left.

A temporary file of `a.tif` is `a.tif.01234567.tmp`; libraries write more beside it,
such as `a.tif.01234567.tmp.aux.xml`. The process that writes it holds a lock on it,
which the kernel frees when the process ends. So the next writer of `a.tif` can tell
leftovers from files that another process, perhaps on another machine, is writing.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rsupres.output.locks import try_lock

# What follows the name of a file in those of its temporary files.
_ENDING = re.compile(r"(?P<name>.+?)\.(?P<number>[0-9a-f]{8})\.tmp(\..+)?")


@contextmanager
def temporary(path: Path) -> Iterator[Path]:
    """Yield the name of an empty file beside `path`; remove it at the end.

    Those that killed processes left beside `path` are removed before, and, when the
    block raises, what libraries made beside this one.

    Args:
        path: the file that the temporary one is to become.

    Raises:
        OSError: the folder is missing, full or cannot be written.
    """
    clear([path])
    part, descriptor = _make(path)
    try:
        yield part
    except BaseException:
        with suppress(OSError):
            _remove(part, os.listdir(part.parent))
        raise
    finally:
        part.unlink(missing_ok=True)
        os.close(descriptor)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield the name of a temporary file that becomes `path` when the block ends well.

    Args:
        path: a file that is there is replaced.

    Raises:
        OSError: the folder is missing, full or cannot be written.
    """
    with temporary(path) as part:
        mode = stat.S_IMODE(part.stat().st_mode)
        part.chmod(mode | stat.S_IRUSR | stat.S_IWUSR)  # whatever the umask says
        yield part
        # Some libraries write through private temporary files of their own, which
        # others cannot read and which are not locked.
        descriptor = os.open(part, os.O_RDWR | os.O_CLOEXEC)
        try:
            with suppress(OSError):
                try_lock(descriptor, fcntl.LOCK_EX)
            part.chmod(mode)
            os.fsync(descriptor)
            os.replace(part, path)
        finally:
            os.close(descriptor)
        sync(path.parent)


def clear(paths: Iterable[Path], *, all_of_them: bool = False) -> None:
    """Remove the temporary files that killed processes left beside files.

    Those that cannot be removed stay, and so do those that a process writes.

    Args:
        paths: the files that the temporary ones were to become.
        all_of_them: also those of live processes; the caller knows that there are none
            but its own, abandoned ones.
    """
    by_folder: dict[Path, set[str]] = {}
    for path in paths:
        by_folder.setdefault(path.absolute().parent, set()).add(path.name)
    for folder, names in by_folder.items():
        try:
            found = os.listdir(folder)
        except OSError:
            continue
        matches = (match for name in found if (match := _ENDING.fullmatch(name)))
        parts = {
            folder / f"{match['name']}.{match['number']}.tmp"
            for match in matches
            if match["name"] in names
        }
        for part in parts:
            with suppress(OSError), _unless_written(part) as is_free:
                if is_free or all_of_them:
                    _remove(part, found)


def sync(path: Path) -> None:
    """Wait until a file or a folder is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _make(path: Path) -> tuple[Path, int]:
    """Make an empty temporary file, and lock it where the file system has locks."""
    while True:
        part = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
        flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC
        descriptor = os.open(part, flags, 0o666)
        with suppress(OSError):  # no locks there, so no process removes it
            # Before it was locked, another process may have taken it for a leftover.
            if not try_lock(descriptor, fcntl.LOCK_EX) or not part.exists():
                os.close(descriptor)
                part.unlink(missing_ok=True)
                continue
        return part, descriptor


@contextmanager
def _unless_written(part: Path) -> Iterator[bool]:
    """Yield whether no process writes a temporary file, and keep others from it.

    Raises:
        OSError: the file system has no locks, or the file cannot be opened.
    """
    try:
        descriptor = os.open(part, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:  # libraries left other files beside it
        yield True
        return
    try:
        yield try_lock(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def _remove(part: Path, names: Iterable[str]) -> None:
    """Remove a temporary file and, before it, those that libraries made beside it."""
    for name in names:
        if name.startswith(part.name + "."):
            part.with_name(name).unlink(missing_ok=True)
    part.unlink(missing_ok=True)
