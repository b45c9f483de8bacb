"""Report how far a run is, from its directory, without disturbing it.

`drop_ended` and `drop_published` remove what a killed process left of a run that had
ended.
"""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from rsupres.errors import RsupresError
from rsupres.output.atomic import translate_os_errors
from rsupres.output.locks import Lock, Owner, live_owner
from rsupres.output.run_dir import Run, done_strips, strip_name


@dataclass(frozen=True)
class RunState:
    """State of a run, as another process sees it.

    Attributes:
        n_strips: strips of the whole scene, None when the manifest has no number.
        done: strips that are complete on disk.
        owner: a process that works on the run right now, None when there is none.
        started: when the run began, UTC.
        updated: when the last strip was finished, or else `started`, UTC.
        left_s: estimate of the time that the missing strips take; None = unknown.
    """

    n_strips: int | None
    done: frozenset[int]
    owner: Owner | None
    started: datetime
    updated: datetime
    left_s: float | None = None

    @property
    def percent(self) -> float | None:
        """Share of the strips that are done, None when their number is unknown."""
        return 100 * len(self.done) / self.n_strips if self.n_strips else None


def read_state(path: Path) -> RunState:
    """Return how far a run is, without disturbing it.

    Args:
        path: of the run directory.

    Raises:
        InputError: if the directory is missing or is no run directory.
        RunConflictError: if the manifest is damaged.
    """
    n_strips = Run.load(path).get("n_strips")
    times_s = [(path / "run.json").stat().st_mtime]
    done = done_strips(path)
    for strip in done:
        with contextlib.suppress(FileNotFoundError):  # removed meanwhile
            times_s.append(_finished_s(path, strip))
    n_strips = n_strips if isinstance(n_strips, int) else None
    return RunState(
        n_strips=n_strips,
        left_s=_time_left_s(times_s, n_strips),
        done=done,
        owner=live_owner(path),
        started=datetime.fromtimestamp(times_s[0], UTC),
        updated=datetime.fromtimestamp(max(times_s), UTC),
    )


def is_ended(path: Path) -> bool:
    """Return whether a folder holds the locks of a run and nothing else.

    A run's files are removed first, then `run.json`, then its locks; so a process that
    was killed meanwhile had ended its run, or given it up.
    """
    names = [file.name for file in path.glob("*")]
    return "run.lock" in names and all(name.endswith(".lock") for name in names)


def drop_ended(path: Path) -> None:
    """Remove a folder of which `is_ended` is true.

    Raises:
        RunConflictError: a process begins a run there at this moment.
        InputError: the folder cannot be written.
    """
    with translate_os_errors(path):
        lock = Lock.take(path / "run.lock", [fcntl.LOCK_EX], 0)
        try:
            if is_ended(path):
                for file in path.glob("*.lock"):
                    file.unlink()
                path.rmdir()
        finally:
            lock.release()


def drop_published(path: Path, output: Path) -> None:
    """Remove a run whose process was killed when its output had appeared.

    Nothing in such a run is newer than the output. Any other run stays, and so does one
    that cannot be removed or that a process works on.

    Args:
        path: of the run directory, which may be missing.
        output: a raster that exists.
    """
    with contextlib.suppress(RsupresError):
        if is_ended(path):
            drop_ended(path)
        elif read_state(path).updated.timestamp() <= output.stat().st_mtime:
            with Run.open(path, Run.load(path)) as run:
                run.remove()


def _finished_s(path: Path, strip: int) -> float:
    """Return when a strip of the run directory `path` was finished, seconds."""
    file = path / strip_name(strip)
    emptied = file.with_suffix(".packed")
    return (emptied if emptied.exists() else file).stat().st_mtime


def _time_left_s(times_s: Sequence[float], n_strips: int | None) -> float | None:
    """Return the median time of a strip, times the strips that are missing.

    Args:
        times_s: when the run began and when each strip was finished.
        n_strips: of the run.
    """
    ordered = sorted(times_s)
    if n_strips is None or len(ordered) < 2:
        return None
    # The median leaves out the pause between an interruption and the next start.
    return float(np.median(np.diff(ordered))) * (n_strips - len(ordered) + 1)
