"""Save finished strips of a run, piece by piece, with what stands beside them."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rsupres.output.atomic import publishing
from rsupres.output.run_dir import Run
from rsupres.output.tiff.packets import Packets
from rsupres.output.tiff.strip import StripWriter
from rsupres.upscaling.finishing import FinishedStrip
from rsupres.upscaling.gates import StripSums
from rsupres.upscaling.outputs import side_outputs
from rsupres.upscaling.preparation.work import Work

SUMS = "sums"  # folder in a run directory: what each strip adds to the figures


class _Part(NamedTuple):
    """Columns of one file of a strip."""

    path: Path
    pixels: np.ndarray
    valid: np.ndarray | None
    nodata: float | None


class StripSaver:
    """Writes the files of strips; the strip itself last, as it is the journal.

    A context manager: files of a strip that is not complete at the end are removed.
    """

    def __init__(self, work: Work, run: Run, packets: Packets, first: int) -> None:
        """Store what to do.

        Args:
            work: the settled job.
            run: its directory.
            packets: of the run. Strips from `first` on that were written before, by
                this process, are packed when the next one begins, as another process
                may make the output once the last strip is there.
            first: strip of this process.
        """
        self._work = work
        self._run = run
        self._packets = packets
        self._first = first
        self._open = ExitStack()  # files of the strip that has begun
        self._writers: list[StripWriter] = []
        self._sums = StripSums()

    def __enter__(self) -> StripSaver:
        return self

    def __exit__(self, *error: object) -> None:
        self._discard()

    def take(self, piece: FinishedStrip) -> None:
        """Write the next piece; publish its strip's files with the last one.

        Raises:
            ResourceError: the disk is full, or writing fails otherwise.
        """
        try:
            if not self._writers:
                self._packets.pack(range(self._first, piece.index))
            parts = self._parts(piece)
            if not self._writers:
                self._begin(piece, parts)
            for writer, part in zip(self._writers, parts, strict=True):
                writer.write(part.pixels, part.valid)
            self._sums = self._sums.plus(piece.sums)
            if piece.is_last:
                self._end(piece.index)
        except BaseException:
            self._discard()
            raise

    def _parts(self, piece: FinishedStrip) -> list[_Part]:
        """Return what a piece adds to each file of its strip, the strip first."""
        strip = self._run.strip_path(piece.index)
        parts = [_Part(strip, piece.pixels, piece.valid, self._work.nodata)]
        for side in side_outputs(self._work):
            path = beside(self._run, side.name, piece.index)
            parts.append(_Part(path, side.pixels(piece), None, side.form.nodata))
        return parts

    def _begin(self, piece: FinishedStrip, parts: list[_Part]) -> None:
        whole = piece.window._replace(col=0, width=self._work.sr_grid.width)
        grid = self._work.sr_grid.crop(whole)
        for part in parts:  # published in the opposite order: the strip comes last
            path = self._open.enter_context(publishing(part.path))
            n_bands, kind = len(part.pixels), part.pixels.dtype.name
            writer = StripWriter(path, grid, n_bands, kind, part.nodata)
            self._open.callback(writer.close)
            self._writers.append(writer)

    def _end(self, strip: int) -> None:
        (self._run.path / SUMS).mkdir(exist_ok=True)
        with publishing(self._run.path / SUMS / f"{strip:04d}.json") as part:
            part.write_text(json.dumps(self._sums.to_json()))
        for writer in self._writers:
            writer.finish()
        self._open.close()
        self._writers, self._sums = [], StripSums()

    def _discard(self) -> None:
        """Remove the files of a strip that is not complete."""
        abandoned = _AbandonedError()
        self._open.__exit__(type(abandoned), abandoned, None)
        self._writers, self._sums = [], StripSums()


class _AbandonedError(Exception):
    """A strip was not completed."""


def beside(run: Run, kind: str, strip: int) -> Path:
    """Return the path of a file that accompanies a strip; make its folder.

    Args:
        run: whose directory holds the file.
        kind: of the file, names its folder.
        strip: number of the strip, from 0.
    """
    (run.path / kind).mkdir(exist_ok=True)
    return run.path / kind / f"{strip:04d}.tif"
