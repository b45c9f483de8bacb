"""Lock files with `flock`: the kernel frees a lock when its process ends.

The locked file names its holder, for messages only. Whether it is held is asked from
the kernel, on this machine and, on a shared file system, for other machines too.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Self

from rsupres.errors import RunConflictError

# How long a command waits for a lock, as `status` holds one for a moment.
PATIENCE_S = 0.5
# Pauses between two attempts to take a lock; many processes may wait for one.
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.02, 0.5


class Owner(NamedTuple):
    """The process that holds a lock.

    Attributes:
        pid: process number on `host`.
        host: name of the machine.
    """

    pid: int
    host: str


class Lock:
    """A locked file; the kernel frees it when the process ends."""

    def __init__(self, path: Path, descriptor: int, operation: int) -> None:
        self._path = path
        self._descriptor = descriptor
        self.is_exclusive = operation == fcntl.LOCK_EX

    @classmethod
    def take(
        cls, path: Path, operations: Sequence[int], patience_s: float | None = None
    ) -> Self:
        """Lock a file, making it if it is not there.

        Args:
            path: of the file.
            operations: LOCK_EX or LOCK_SH, tried in this order.
            patience_s: seconds to wait for other holders; None = `PATIENCE_S`.

        Returns:
            The lock, held.

        Raises:
            FileNotFoundError: if the folder is missing.
            RunConflictError: if another process keeps the lock for longer.
        """
        if patience_s is None:
            patience_s = PATIENCE_S
        deadline_s = time.monotonic() + patience_s
        pause_s = _FIRST_PAUSE_S
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            for operation in operations:
                if try_lock(descriptor, operation) and _is_open_under(path, descriptor):
                    lock = cls(path, descriptor, operation)
                    lock._write_owner()
                    return lock
            os.close(descriptor)
            if time.monotonic() > deadline_s:
                raise _conflict(path.parent)
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def share(self) -> None:
        """Make an exclusive lock a shared one.

        Raises:
            RunConflictError: another process takes it exclusively at this moment.
        """
        if self.is_exclusive:
            os.ftruncate(self._descriptor, 0)
        if not try_lock(self._descriptor, fcntl.LOCK_SH):
            raise _conflict(self._path.parent)
        self.is_exclusive = False

    def release(self) -> None:
        """Unlock; a second time does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1

    def _write_owner(self) -> None:
        if self.is_exclusive:
            owner = Owner(os.getpid(), socket.gethostname())
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, json.dumps(owner._asdict()).encode(), 0)


def try_lock(descriptor: int, operation: int) -> bool:
    """Lock an open file; return False when another one has it.

    Args:
        descriptor: of the file.
        operation: LOCK_EX or LOCK_SH.

    Raises:
        OSError: the file system has no locks.
    """
    try:
        fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_open_under(path: Path, descriptor: int) -> bool:
    """Return whether the locked file is still the one under its name."""
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    return os.path.samestat(there, os.fstat(descriptor))


def _conflict(path: Path) -> RunConflictError:
    owner = live_owner(path)
    who = f"process {owner.pid} on {owner.host}" if owner else "another process"
    return RunConflictError(
        f"{path}: {who} works on this run; wait for it, or choose another run "
        "directory.",
        remedies=("run_dir",),
    )


def live_owner(path: Path) -> Owner | None:
    """Return the holder of one of the locks in a directory, None if none is held."""
    for file in sorted(path.glob("*.lock")):
        if is_held(file):
            # Removed by now, or without the name of its holder yet: look at the next.
            with contextlib.suppress(FileNotFoundError, ValueError, TypeError):
                return Owner(**json.loads(file.read_text()))
    return None


def is_held(path: Path) -> bool:
    """Return whether a process holds the lock of a file."""
    try:
        with path.open("rb") as opened:
            return not try_lock(opened.fileno(), fcntl.LOCK_SH)
    except FileNotFoundError:
        return False
