"""Keep the state of a run in a directory, so that an interrupted run can be resumed.

`run.json` says which job this is (`rsupres.output.manifest`); `strips/*.tif` are the
finished strips, `strips/*.packed` stand for those whose rows are in `packets/`
(`rsupres.output.tiff.packets`); `context/` holds the arrays that the model computed
once for the whole scene; `run.lock` is locked while a process works here. Everything
appears under its name only when it is complete and on disk. This module computes no
pixels, and it removes nothing that it did not make.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import math
import os
import re
import secrets
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
from numpy.lib.format import open_memmap

from rsupres.errors import InputError, RunConflictError
from rsupres.families.base import SceneContext
from rsupres.output.atomic import translate_os_errors
from rsupres.output.damage.context import read_context
from rsupres.output.damage.seals import is_sealed, json_with_checksum, seal
from rsupres.output.locks import Lock, is_held
from rsupres.output.manifest import is_manifest_of, keep_manifest, read_manifest
from rsupres.output.temporary import sync

_STRIP_NAME = re.compile(r"(\d{4,})\.(tif|packed)")
_FOLDERS = ("strips", "context")
# Folders beside them that others make: `rsupres.upscaling.outputs`, `rsupres.tiles`,
# `rsupres.output.tiff.packets`, `rsupres.output.strip_parts`.
_CONTENT = (
    *("sums", "deviation", "coverage", "rows", "tiles", "replaced", "packets"),
    *("interval_low", "interval_high", "parts"),
)
# Temporary files, those of GDAL beside them (x.tmp.aux.xml), and locks.
_PASSING = re.compile(
    r".+\.[0-9a-f]+\.tmp(\..+)?|(run|assembly|context|shard-\d+-of-\d+|strip-\d+)\.lock"
)
# The first of several shards holds the lock while it writes the manifest.
_PATIENCE_WITH_SHARDS_S = 15.0


class Run(AbstractContextManager["Run"]):
    """A run directory that this process works in; a context manager.

    The lock is held from `Run.open` until `close` or the end of the `with` block.
    """

    def __init__(self, path: Path, manifest: Mapping[str, object], lock: Lock) -> None:
        self.path = path
        self.manifest = manifest
        self.context_dir = path / "context"
        self._locks = [lock]
        self._staging = path / f"context.{secrets.token_hex(4)}.tmp"
        self._allocated: dict[str, np.memmap] = {}

    @classmethod
    def open(
        cls,
        path: Path,
        manifest: Mapping[str, object],
        *,
        exclusive: bool = True,
        restart: bool = False,
    ) -> Self:
        """Return a run that begins, or one resumed after an interruption.

        Temporary files of an interrupted process are removed. The `manifest` of the
        result is the one on disk: the first that was given for this run.

        Args:
            path: of the run directory; its parent exists.
            manifest: JSON-able; `manifest["job"]` is the identity of the run, the rest
                is kept but not compared. `read_state` returns
                `manifest["n_strips"]`.
            exclusive: False when several shards work in the directory at once; each
                then calls `lock_shard`.
            restart: drop what another job left here, and begin anew.

        Raises:
            RunConflictError: if another process works here, or the directory belongs to
                another job or is no run directory.
            InputError: if the directory cannot be made or written.
            ResourceError: if the disk is full.
        """
        wanted = [fcntl.LOCK_EX] if exclusive else [fcntl.LOCK_EX, fcntl.LOCK_SH]
        patience_s = None if exclusive else _PATIENCE_WITH_SHARDS_S
        with translate_os_errors(path):
            lock = _lock_run(path, wanted, patience_s)
            try:
                if lock.is_exclusive:
                    _remove_leftovers(path)
                    if restart and not is_manifest_of(path, manifest):
                        _remove_content(path)
                kept = keep_manifest(path, manifest)
                if not exclusive:
                    lock.share()
            except BaseException:
                lock.release()
                raise
        return cls(path, kept, lock)

    @staticmethod
    def load(path: Path) -> Mapping[str, object]:
        """Return the manifest of a run directory without locking it.

        Raises:
            InputError: if the directory is missing or is no run directory.
            RunConflictError: if the manifest is damaged.
        """
        manifest = read_manifest(path)
        if manifest is None:
            raise InputError(f"{path}: no run directory, run.json is missing.")
        return manifest

    @cached_property
    def is_unsealed(self) -> bool:
        """Whether files may lack checksums: an earlier version began the run."""
        return not is_sealed(self.path / "run.json")

    def strip_path(self, strip: int) -> Path:
        """Return where a finished strip lies, whether it is there or not."""
        return self.path / strip_name(strip)

    def done_strips(self) -> frozenset[int]:
        """Return the strips that are complete on disk."""
        return done_strips(self.path)

    def drop_strip(self, strip: int) -> None:
        """Remove a finished strip, so that it counts as missing."""
        for suffix in (".tif", ".packed"):
            self.strip_path(strip).with_suffix(suffix).unlink(missing_ok=True)

    def empty_strip(self, strip: int) -> None:
        """Give back the space of a finished strip, whose rows lie elsewhere by now."""
        path = self.strip_path(strip)
        if path.exists():
            finished_ns = path.stat().st_mtime_ns
            emptied = path.rename(path.with_suffix(".packed"))
            os.truncate(emptied, 0)
            os.utime(emptied, ns=(finished_ns, finished_ns))

    def allocate(self, name: str, shape: Sequence[int], dtype: str) -> np.memmap:
        """Return a zeroed array on disk; `save_context` keeps it if it is passed there.

        The space is reserved at once, so that writing to the array cannot fail.

        Args:
            name: of the array in the scene context; an identifier.
            shape: of the array, no side 0.
            dtype: of the array.

        Raises:
            ResourceError: if the disk cannot hold the array.
        """
        n_bytes = math.prod(shape) * np.dtype(dtype).itemsize
        with translate_os_errors(self.path, n_bytes):
            file = self._staged(name)
            file.unlink(missing_ok=True)
            try:
                array = open_memmap(file, "w+", np.dtype(dtype), tuple(shape))
                with file.open("r+b") as opened:
                    whole = os.fstat(opened.fileno()).st_size
                    os.posix_fallocate(opened.fileno(), 0, whole)
            except OSError:
                file.unlink(missing_ok=True)
                raise
        self._allocated[name] = array
        return array

    def save_context(self, context: SceneContext) -> SceneContext:
        """Store the context of the scene at once, and return it as stored.

        The first context of a run is kept: if another shard has stored one already,
        that one is returned. Allocated arrays that are not in `context` are dropped.

        Raises:
            ResourceError: if the disk is full.
        """
        with translate_os_errors(self.path):
            for name, array in context.arrays.items():
                self._stage(name, array)
            for file in set(self._staging.glob("*.npy")):
                if file.stem not in context.arrays:
                    file.unlink()
            numbers = {name: float(value) for name, value in context.numbers.items()}
            for file in self._staging.glob("*.npy"):
                seal(file)
            content = {"arrays": [*context.arrays], "numbers": numbers}
            text = json_with_checksum(content)
            self._staged("context", ".json").write_text(text)
            for file in self._staging.iterdir():
                sync(file)
            sync(self._staging)
            self._publish_staging()
        stored = self.load_context()
        assert stored is not None
        return stored

    def share_context(self, prepare: Callable[[], SceneContext]) -> SceneContext:
        """Return the stored context; without one, store what `prepare` returns.

        One of several shards prepares, and the others wait for it.

        Raises:
            ResourceError: if the disk is full.
        """
        with translate_os_errors(self.path):
            lock = Lock.take(self.path / "context.lock", [fcntl.LOCK_EX], math.inf)
        try:
            return self.load_context() or self.save_context(prepare())
        finally:
            lock.release()

    def load_context(self) -> SceneContext | None:
        """Return the stored context, its arrays read-only; None if there is none.

        One that is damaged is removed.
        """
        return read_context(self.context_dir, unsealed=self.is_unsealed)

    def lock_shard(
        self, shard: int, n_shards: int, *, patience_s: float | None = None
    ) -> None:
        """Lock one shard until the run is closed.

        Args:
            shard: from 1 to `n_shards`.
            n_shards: how many there are.
            patience_s: how long to wait for a process that works on it; None =
                `locks.PATIENCE_S`.

        Raises:
            RunConflictError: if a process works on it, or on one of another number.
        """
        if not 1 <= shard <= n_shards:
            raise ValueError(f"shard {shard} of {n_shards}")
        file = self.path / f"shard-{shard}-of-{n_shards}.lock"
        with translate_os_errors(self.path):
            for other in self.held_shards():
                if not other.match(f"*-of-{n_shards}.lock"):
                    raise RunConflictError(
                        f"{self.path}: {other.stem} is being computed, so {file.stem} "
                        "cannot begin; use one number of shards for a run."
                    )
            self._locks.append(Lock.take(file, [fcntl.LOCK_EX], patience_s))

    def held_shards(self) -> list[Path]:
        """Return the lock files of the shards that processes work on."""
        return [file for file in self.path.glob("shard-*.lock") if is_held(file)]

    def claim_assembly(self) -> bool:
        """Return whether this process may assemble the output.

        The right is held until `close`; of several shards that end at once, one gets
        it.
        """
        with translate_os_errors(self.path):
            try:
                lock = Lock.take(self.path / "assembly.lock", [fcntl.LOCK_EX], 0)
            except (FileNotFoundError, RunConflictError):
                return False
        self._locks.append(lock)
        return (self.path / "run.json").exists()

    def remove(self) -> None:
        """Remove the files of the run, and the directory unless it holds other files.

        Raises:
            InputError: if the directory cannot be written.
        """
        with translate_os_errors(self.path):
            _remove_leftovers(self.path)
            # Without run.json a directory that still holds a lock counts as new.
            _remove_content(self.path)
            for file in self.path.glob("*.lock"):
                file.unlink()
            with contextlib.suppress(OSError):
                self.path.rmdir()
        self.close()

    def close(self) -> None:
        """Release the locks; finished strips stay."""
        shutil.rmtree(self._staging, ignore_errors=True)
        while self._locks:
            self._locks.pop().release()

    def __exit__(self, *error: object) -> None:
        self.close()

    def _staged(self, name: str, suffix: str = ".npy") -> Path:
        if not name.isidentifier():
            raise ValueError(f"context array {name!r} must be named by an identifier.")
        self._staging.mkdir(exist_ok=True)
        return self._staging / f"{name}{suffix}"

    def _stage(self, name: str, array: np.ndarray) -> None:
        """Put one array into the staging folder, unless it was allocated there."""
        allocated = self._allocated.get(name)
        if allocated is not None and _is_same_memory(allocated, array):
            allocated.flush()
            return
        # By another name first: `array` may be mapped from the very file.
        part = self._staged(name, ".part")
        with part.open("wb") as opened:
            np.save(opened, array, allow_pickle=False)
        os.replace(part, self._staged(name))

    def _publish_staging(self) -> None:
        try:
            os.rename(self._staging, self.context_dir)
            sync(self.path)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
            shutil.rmtree(self._staging)
        self._allocated.clear()


def _lock_run(path: Path, operations: Sequence[int], patience_s: float | None) -> Lock:
    """Make the directory if it is not there, and lock it."""
    while True:
        path.mkdir(exist_ok=True)
        _check_ours(path)
        with contextlib.suppress(
            FileNotFoundError
        ):  # a finished run was removed just now
            return Lock.take(path / "run.lock", operations, patience_s)


def _check_ours(path: Path) -> None:
    """Refuse a directory that holds other files."""
    ours = {"run.json", "run.lock", *_FOLDERS}
    names = {entry.name for entry in path.iterdir()}
    if not names & {"run.json", "run.lock"}:
        # Runs fill their folders while these are there, so here the files are
        # another's. A run that is killed while it is removed leaves its lock.
        ours -= {name for name in _FOLDERS if any(path.glob(f"{name}/*"))}
    foreign = sorted(name for name in names - ours if not _PASSING.fullmatch(name))
    if foreign and "run.json" not in names:
        remedy = "remove it, or choose" if "run.lock" in names else "choose"
        raise RunConflictError(
            f"{path}: exists and is no run directory (it holds {foreign[0]} and no "
            f"run.json); {remedy} another one.",
            remedies=("run_dir",),
        )


def _remove_content(path: Path) -> None:
    """Remove the files of a run; the directory, its locks and files of others stay."""
    for name in (*_FOLDERS, *_CONTENT):
        if (path / name).is_dir():
            shutil.rmtree(path / name)
    # Last, so that a process that is killed here leaves a run that the next one clears.
    for name in ("output.part", "run.json"):
        (path / name).unlink(missing_ok=True)


def _remove_leftovers(path: Path) -> None:
    for leftover in (*path.glob("*.tmp*"), *path.glob("*/*.tmp*")):
        if not _PASSING.fullmatch(leftover.name):
            continue
        if leftover.is_dir():
            shutil.rmtree(leftover)
        else:
            leftover.unlink()


def strip_name(strip: int) -> str:
    """Return the name of a strip's file in its run directory."""
    return f"strips/{strip:04d}.tif"


def done_strips(path: Path) -> frozenset[int]:
    """Return the numbers of the strips that the run directory `path` holds."""
    matches = (_STRIP_NAME.fullmatch(file.name) for file in path.glob("strips/*"))
    return frozenset(int(match[1]) for match in matches if match)


def _is_same_memory(one: np.ndarray, other: np.ndarray) -> bool:
    return one.__array_interface__["data"][0] == other.__array_interface__["data"][
        0
    ] and (one.shape, one.dtype, one.strides) == (
        other.shape,
        other.dtype,
        other.strides,
    )
