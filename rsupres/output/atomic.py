"""Let files appear under their names only when they are complete and on disk.

Errors of the operating system (disk full, folder missing or read-only) become
exceptions of `rsupres.errors` here, with the path and what to do.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from rsupres.errors import InputError, ResourceError, RsupresError, RunConflictError
from rsupres.output.temporary import replacing, temporary

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_FORBIDDEN = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})
_IMPOSSIBLE = frozenset(
    {errno.ENOENT, errno.ENOTDIR, errno.EINVAL, errno.ENAMETOOLONG, errno.ELOOP}
)
_ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR})
_TEMPORARY_SUFFIX = len(".01234567.tmp.msk.ovr.tmp")  # bytes after an output's name
_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP})


@contextmanager
def publishing(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside `path`; rename the file to `path` at the end.

    The file is synced before, and removed if the block raises. A killed process leaves
    it behind, and whoever publishes `path` next removes it. Two writers of the same
    file do not disturb one another.

    Args:
        path: inside or outside of the run directory; a file there is replaced.

    Raises:
        InputError: if the folder is missing or cannot be written.
        ResourceError: if the disk is full.
    """
    with translate_os_errors(path), replacing(path) as part:
        yield part


def abandon(stack: ExitStack) -> None:
    """Close a stack as an exception does: files that it would publish are removed."""
    error = _AbandonedError()
    stack.__exit__(type(error), error, None)


class _AbandonedError(Exception):
    """The files of a stack were not completed."""


@contextmanager
def translate_os_errors(path: Path, n_bytes: int | None = None) -> Iterator[None]:
    """Turn errors of the operating system into exceptions of `rsupres.errors`.

    Args:
        path: the file or folder that is written.
        n_bytes: how much has to be written, None when that is not known.

    Raises:
        InputError: the folder is missing or cannot be written.
        ResourceError: the disk is full or fails, or the file system has no locks.
        RunConflictError: a file is where a folder should be made.
    """
    try:
        yield
    except RsupresError:
        raise
    except OSError as error:
        where = error.filename or path
        if error.errno in _FULL:
            needed = f"; {n_bytes / 1e6:.1f} MB are needed" if n_bytes else ""
            raise ResourceError(
                f"{path}: the disk is full or a size limit is reached{needed}. Make "
                "room and run the same command again."
            ) from error
        if error.errno in _FORBIDDEN:
            raise InputError(
                f"{where}: cannot be written ({error.strerror}); choose a folder that "
                "you may write to."
            ) from error
        if error.errno in _ABSENT and not path.parent.is_dir():
            raise InputError(
                f"{path.parent}: no such folder; make it first."
            ) from error
        if error.errno in _NO_LOCKS:
            raise ResourceError(
                f"{path}: the file system offers no locks ({error.strerror}); choose "
                "a run directory on another one.",
                remedies=("run_dir",),
            ) from error
        if isinstance(error, FileExistsError):
            raise RunConflictError(
                f"{where}: exists and is no run directory; choose another one.",
                remedies=("run_dir",),
            ) from error
        named = os.fspath(error.filename or path)
        if error.errno == errno.ENOENT and not named.startswith(os.fspath(path)):
            raise  # a file of the caller's own is missing
        kind = InputError if error.errno in _IMPOSSIBLE else ResourceError
        raise kind(f"{where}: cannot be written ({error.strerror}).") from error


def check_writable(path: Path, argument: str) -> None:
    """Check that a file can be made in the folder of `path`.

    Args:
        path: the file.
        argument: name of the argument that gave the path, for the message.

    Raises:
        InputError: the folder is missing, a file, or read-only; `path` is a folder, or
            its name too long.
    """
    _check_local(path, argument)
    folder = path.absolute().parent
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError as error:
        shown = str(path).encode("utf-8", "backslashreplace").decode()
        raise InputError(
            f"{shown}: the name is not UTF-8, which GDAL needs; choose another.",
            argument=argument,
        ) from error
    if not folder.is_dir():
        raise InputError(
            f"{path}: there is no folder {folder}; make it first.", argument=argument
        )
    longest = os.pathconf(folder, "PC_NAME_MAX") - _TEMPORARY_SUFFIX
    if len(os.fsencode(path.name)) > longest:
        raise InputError(
            f"{path.name[:40]}...: the name is too long; choose one of up to {longest} "
            "bytes.",
            argument=argument,
        )
    if path.is_dir():
        raise InputError(f"{path} is a folder; name a file in it.", argument=argument)
    _check_takes_files(path, folder, argument)


def _check_local(path: Path, argument: str) -> None:
    """Refuse an address, and a name that only GDAL understands."""
    # `Path` keeps one slash of the two of an address.
    found = re.match(r"(?P<scheme>[a-z][a-z0-9+.-]+):/|/vsi[a-z0-9_]+/", str(path))
    if found is None or (Path(path.parts[0]).exists() and found["scheme"]):
        return
    shown = str(path).replace(":/", "://", 1) if found["scheme"] else path
    raise InputError(
        f"{shown}: this is written to local folders only; copy it from there. Only an "
        "upscaled scene can be written to a store (s3://, gs://, az://).",
        argument=argument,
    )


def check_folder(path: Path, argument: str) -> None:
    """Check that files can be made in a folder, which may have to be made first.

    Args:
        path: the folder; where its parent is missing, nothing is checked.
        argument: name of the argument that gave the path, for the message.

    Raises:
        InputError: it is read-only, or cannot be made.
        RunConflictError: it is a file.
    """
    _check_local(path, argument)
    if path.exists() and not path.is_dir():
        raise RunConflictError(f"{path}: is a file; name a folder.", argument=argument)
    folder = path if path.is_dir() else path.absolute().parent
    if folder.is_dir():
        _check_takes_files(path, folder, argument)


def make_folder(path: Path, argument: str) -> None:
    """Make a folder and those above it, where they are missing.

    Args:
        path: the folder.
        argument: name of the argument that gave the path, for the message.

    Raises:
        InputError: it cannot be made there, or not be written.
        ResourceError: the disk is full.
        RunConflictError: it is a file.
    """
    check_folder(path, argument)
    with translate_os_errors(path):
        path.mkdir(parents=True, exist_ok=True)
    check_folder(path, argument)


def _check_takes_files(path: Path, folder: Path, argument: str) -> None:
    """Refuse a folder in which no file can be made."""
    system = os.statvfs(folder)
    is_read_only = bool(system.f_flag & os.ST_RDONLY)
    if is_read_only or not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(
            f"{path}: the folder {folder} is read-only.", argument=argument
        )
    if system.f_blocks == 0:  # no disk, such as /proc: only a trial tells
        try:
            with temporary(folder / ".rsupres"):
                pass
        except OSError as error:
            raise InputError(
                f"{path}: no file can be made in {folder} ({error.strerror}).",
                argument=argument,
            ) from error
