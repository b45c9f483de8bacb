"""Keep the two parts of a strip between shards in the run directory, until both exist.

Such a strip is the sum of two parts: "above", of the tile rows of the shard above, and
"own", of its own shard. Each shard writes its part, float32 and not yet finished; the
process that finds both makes the strip. A part appears under its name when all of it is
on disk.
"""

from __future__ import annotations

import fcntl
import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np

from rsupres.blend import Content, Piece
from rsupres.errors import InputError, RunConflictError
from rsupres.grid import PixelWindow
from rsupres.output.atomic import abandon, translate_os_errors
from rsupres.output.damage.seals import is_whole, sealed
from rsupres.output.locks import Lock

logger = logging.getLogger(__name__)

Part = tuple[int, Content]  # the number of a strip, "own" or "above"


@dataclass(frozen=True)
class StripParts:
    """The parts that a run directory holds.

    Attributes:
        run: path of the directory.
        is_unsealed: files there may lack checksums.
    """

    run: Path
    is_unsealed: bool = False

    def path(self, strip: int, content: Content) -> Path:
        """Return where a part lies, whether it is there or not.

        Args:
            strip: its number.
            content: "own" or "above".
        """
        return self.run / "parts" / f"{strip:04d}.{content}"

    def has(self, strip: int, content: Content) -> bool:
        """Return whether a part is there; a damaged one is removed.

        Args:
            strip: its number.
            content: "own" or "above".
        """
        path = self.path(strip, content)
        if not path.exists() or is_whole(path, unsealed=self.is_unsealed):
            return path.exists()
        logger.warning("%s: damaged; made again.", path)
        path.unlink(missing_ok=True)
        return False

    def read(self, strip: int, content: Content) -> Iterator[Piece]:
        """Yield the pieces of a part that is there, from left to right.

        Args:
            strip: its number.
            content: "own" or "above".

        Raises:
            InputError: the file is damaged.
        """
        path = self.path(strip, content)
        is_last = False
        with path.open("rb") as file:
            while not is_last:
                try:
                    *window, is_last, skipped = np.load(file).tolist()
                    pixels = np.load(file)
                except (ValueError, EOFError) as error:
                    raise InputError(
                        f"{path}: damaged ({error}); remove it, and run the same "
                        "command again."
                    ) from error
                place = PixelWindow(*window)
                yield Piece(strip, place, pixels, bool(is_last), content, bool(skipped))

    def drop(self, strip: int) -> None:
        """Remove the parts of a strip that is done."""
        for content in ("own", "above"):
            self.path(strip, content).unlink(missing_ok=True)

    @contextmanager
    def claimed(self, strip: int) -> Iterator[bool]:
        """Yield whether this process, and no other, may make a strip of its parts.

        Args:
            strip: its number.
        """
        try:
            with translate_os_errors(self.run):
                lock = Lock.take(self.run / f"strip-{strip}.lock", [fcntl.LOCK_EX], 0)
        except (FileNotFoundError, RunConflictError):  # a removed run; another process
            yield False
            return
        try:
            yield True
        finally:
            lock.release()


@dataclass
class PartSaver:
    """Writes parts, piece by piece; a context manager.

    Files of parts that are not complete at the end are removed.

    Attributes:
        parts: of the run.
        wanted: those that are written; pieces of others are dropped.
    """

    parts: StripParts
    wanted: frozenset[Part]
    _open: dict[Part, tuple[ExitStack, BinaryIO]] = field(default_factory=dict)

    def __enter__(self) -> PartSaver:
        return self

    def __exit__(self, *error: object) -> None:
        while self._open:
            stack, _ = self._open.popitem()[1]
            abandon(stack)

    def take(self, piece: Piece) -> None:
        """Write the next piece of a part; publish the part with the last one.

        Raises:
            ResourceError: the disk is full.
        """
        part = piece.index, piece.content
        if part not in self.wanted:
            return
        path = self.parts.path(*part)
        with translate_os_errors(path):
            if part not in self._open:
                path.parent.mkdir(exist_ok=True)
                stack = ExitStack()
                file = stack.enter_context(sealed(path)).open("wb")
                self._open[part] = stack, stack.enter_context(file)
            stack, opened = self._open[part]
            np.save(opened, [*piece.window, piece.is_last, piece.skipped])
            np.save(opened, np.ascontiguousarray(piece.pixels))
            if piece.is_last:
                del self._open[part]
                stack.close()
