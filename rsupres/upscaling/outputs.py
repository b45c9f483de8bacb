"""The rasters that a run writes: where each goes, its format, its bands, its strips.

A run writes the upscaled scene and, if asked for, the standard deviation of its error
or over its samples, the limits of an interval around it, and the coverage of its
reference. In the coverage, pixels that were filled with the enlarged scene count as
without a reference, because they hold no texture.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from rsupres.execution import write_behind
from rsupres.families.base import TAILS
from rsupres.grid import PixelWindow
from rsupres.output.atomic import abandon
from rsupres.output.damage.seals import sealed, write_json
from rsupres.output.run_dir import Run
from rsupres.output.tiff.packed_strip import PackedStrip
from rsupres.output.tiff.packets import Packets
from rsupres.output.tiff.profile import OutputFormat, OutputMeta
from rsupres.output.tiff.strip import StripWriter
from rsupres.upscaling.finishing import FinishedStrip
from rsupres.upscaling.gates import StripSums
from rsupres.upscaling.preparation.work import Work

if TYPE_CHECKING:
    from rsupres.conditions.references import References

# Folders in a run directory that hold strips of these.
DEVIATION, COVERAGE = "deviation", "coverage"
SUMS = "sums"  # folder in a run directory: what each strip adds to the figures
INTERVAL = ("interval_low", "interval_high")  # also fields of `UpscaleJob`
FALLBACK, COVERED, COVERAGE_NODATA = 0, 1, 255
NAMES = {FALLBACK: "no reference", COVERED: "reference"}
_COLOURS = {FALLBACK: (215, 48, 39), COVERED: (26, 152, 80), COVERAGE_NODATA: (0, 0, 0)}
_SIDE = 2048  # SR columns that are looked at together


@dataclass(frozen=True)
class SideOutput:
    """A raster beside the upscaled scene.

    Attributes:
        name: folder of its strips in the run directory.
        path: file to write.
        form: how it is stored.
        pixels: returns a strip of it, (c, H, W).
        meta: returns what the file says besides pixels, given the run's tags.
    """

    name: str
    path: Path
    form: OutputFormat
    pixels: Callable[[FinishedStrip], np.ndarray]
    meta: Callable[[Mapping[str, str]], OutputMeta]


def side_outputs(work: Work) -> list[SideOutput]:
    """Return the rasters that a run writes beside the upscaled scene."""
    found: list[SideOutput] = []
    if work.job.uncertainty is not None:
        found.append(
            SideOutput(
                name=DEVIATION,
                path=work.job.uncertainty,
                form=replace(work.format, dtype="float32", nodata=math.nan),
                pixels=_deviation,
                meta=lambda tags: _deviation_meta(work, tags),
            )
        )
    for name in INTERVAL if work.job.interval is not None else ():
        found.append(
            SideOutput(
                name=name,
                path=cast(Path, getattr(work.job, name)),
                form=replace(work.format, dtype="float32", nodata=math.nan),
                pixels=partial(_limit, work, name),
                meta=partial(_limit_meta, work, name),
            )
        )
    if work.job.reference_coverage is not None:
        found.append(
            SideOutput(
                name=COVERAGE,
                path=work.job.reference_coverage,
                # Without the creation options of the output, which may lose values.
                form=OutputFormat(
                    work.format.driver, {}, "uint8", float(COVERAGE_NODATA)
                ),
                pixels=lambda strip: _coverage(work, strip.window, strip.valid),
                meta=lambda tags: _coverage_meta(work, tags),
            )
        )
    return found


def main_meta(work: Work, tags: Mapping[str, str]) -> OutputMeta:
    """Return band names, tags and colours of the upscaled scene.

    Args:
        work: what is settled.
        tags: of the file.
    """
    bands = [work.file_bands[place] for place in work.order]
    return OutputMeta.like(work.scene, bands, work.sr_grid, tags)


def _deviation(strip: FinishedStrip) -> np.ndarray:
    assert strip.deviation is not None
    return strip.deviation


def _deviation_meta(work: Work, tags: Mapping[str, str]) -> OutputMeta:
    """Return names and tags of the standard deviations; bands of the model."""
    bands = work.bands.roles
    kind = "of the error" if work.model.spec.tails else "over the samples"
    return replace(
        OutputMeta.like(work.scene, bands, work.sr_grid, {}),
        offsets=(0.0,) * len(bands),
        colorinterp=("undefined",) * len(bands),
        tags={
            **tags,
            "RSUPRES_CONTENT": f"standard deviation {kind}",
            "RSUPRES_TAILS": json.dumps(work.model.spec.tails),
        },
    )


def interval_reach(share: float, tails: Sequence[float]) -> float:
    """Return how many standard deviations hold a share of the errors.

    Args:
        share: 0 to the largest of `TAILS`.
        tails: see `ModelSpec`.
    """
    axis = -np.log1p(-np.array([share, 0.0, *TAILS]))  # straight for Laplace's law
    return float(np.interp(axis[0], axis[1:], (0.0, *tails)))


def _limit(work: Work, name: str, strip: FinishedStrip) -> np.ndarray:
    """Return the lower or upper limit of a strip's model bands, (c, H, W) float32."""
    assert work.job.interval is not None
    assert strip.deviation is not None
    places = [work.order.index(k) for k in range(len(work.bands.roles))]
    reach = interval_reach(work.job.interval, work.model.spec.tails)
    sign = 1.0 if name == INTERVAL[1] else -1.0
    return strip.pixels[places].astype(np.float32) + sign * reach * strip.deviation


def _limit_meta(work: Work, name: str, tags: Mapping[str, str]) -> OutputMeta:
    """Return names and tags of a limit; bands of the model."""
    bands = work.bands.roles
    side = "upper" if name == INTERVAL[1] else "lower"
    content = f"{side} limit of the {100 * (work.job.interval or 0):g} % interval"
    return replace(
        OutputMeta.like(work.scene, bands, work.sr_grid, {}),
        tags={**tags, "RSUPRES_CONTENT": content},
    )


def _coverage(
    work: Work, window: PixelWindow, valid: NDArray[np.bool_] | None
) -> NDArray[np.uint8]:
    """Return (1, H, W): `COVERED`, `FALLBACK`, or `COVERAGE_NODATA` outside the scene.

    Args:
        work: a settled job with a reference.
        window: SR pixels of the output.
        valid: (1, H, W), of the scene there; None = everywhere.
    """
    reference = cast("References", work.conditions.sources["reference"]).unfilled()
    coverage = np.full((1, window.height, window.width), FALLBACK, np.uint8)
    for left in range(0, window.width, _SIDE):
        width = min(_SIDE, window.width - left)
        part = window._replace(col=window.col + left, width=width)
        known = np.isfinite(reference.read(part)).all(axis=0)
        coverage[0, :, left : left + width][known] = COVERED
    if valid is not None:
        coverage[~valid] = COVERAGE_NODATA
    return coverage


def _coverage_meta(work: Work, tags: Mapping[str, str]) -> OutputMeta:
    """Return names, colours and tags of the coverage."""
    content = {
        "RSUPRES_CONTENT": "where the model had a reference",
        "RSUPRES_CLASSES": json.dumps(NAMES),
    }
    return OutputMeta.of_classes(
        "reference coverage", work.sr_grid, _COLOURS, {**tags, **content}
    )


class _Part(NamedTuple):
    """Columns of one file of a strip."""

    path: Path
    pixels: np.ndarray
    nodata: float | None


class StripSaver:
    """Writes the files of strips; the strip itself last, as it is the journal.

    A context manager: a thread of its own packs strips that are written, and files of a
    strip that is not complete at the end are removed.
    """

    def __init__(self, work: Work, run: Run, packets: Packets, strips: range) -> None:
        """Store what to do.

        Args:
            work: the settled job.
            run: its directory.
            packets: of the run. A strip is packed when the next one begins, and all
                before the last one is there, as then another process may make the
                output.
            strips: those that will come, consecutive.
        """
        self._work = work
        self._run = run
        self._strips = strips
        self._packets = packets
        self._packing = write_behind(packets.pack)
        self._open = ExitStack()  # files of the strip that has begun
        self._strip: PackedStrip | None = None
        self._writers: list[StripWriter] = []  # of the files beside it
        self._sums = StripSums()

    def __enter__(self) -> StripSaver:
        self._packing.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: object
    ) -> None:
        self._discard()
        self._packing.__exit__(kind, error, trace)

    def take(self, piece: FinishedStrip) -> None:
        """Write the next piece; publish its strip's files with the last one.

        Raises:
            ResourceError: the disk is full, or writing fails otherwise.
        """
        try:
            sides = self._sides(piece)
            strip = self._strip = self._strip or self._begin(piece, sides)
            strip.write(piece.pixels, piece.valid)
            for writer, part in zip(self._writers, sides, strict=True):
                writer.write(part.pixels)
            self._sums = self._sums.plus(piece.sums)
            if piece.is_last:
                self._end(piece.index)
        except BaseException:
            self._discard()
            raise

    def _sides(self, piece: FinishedStrip) -> list[_Part]:
        """Return the parts of a piece that go beside its strip, one a file."""
        return [
            _Part(
                beside(self._run, side.name, piece.index),
                side.pixels(piece),
                side.form.nodata,
            )
            for side in side_outputs(self._work)
        ]

    def _begin(self, piece: FinishedStrip, sides: list[_Part]) -> PackedStrip:
        """Create the files of a strip, and have those before it packed."""
        if written := range(self._strips.start, piece.index):
            self._packing.drain()  # or strips, which are not compressed, fill the disk
            self._packing.put(written)
        # Published in the opposite order: the strip comes last.
        begun = self._strips.start
        strip = PackedStrip(self._packets, piece.index, self._open, begun)
        whole = piece.window._replace(col=0, width=self._work.sr_grid.width)
        grid = self._work.sr_grid.crop(whole)
        for part in sides:
            path = self._open.enter_context(sealed(part.path))
            n_bands, kind = len(part.pixels), part.pixels.dtype.name
            writer = StripWriter(path, grid, n_bands, kind, part.nodata)
            self._open.callback(writer.close)
            self._writers.append(writer)
        return strip

    def _end(self, strip: int) -> None:
        assert self._strip is not None
        (self._run.path / SUMS).mkdir(exist_ok=True)
        path = self._run.path / SUMS / f"{strip:04d}.json"
        write_json(path, self._sums.to_json())
        self._strip.finish()
        for writer in self._writers:
            writer.finish()
        if strip == self._strips[-1]:
            self._packing.drain()
        self._open.close()
        self._forget()

    def _discard(self) -> None:
        """Remove the files of a strip that is not complete."""
        abandon(self._open)
        self._forget()

    def _forget(self) -> None:
        self._strip, self._writers, self._sums = None, [], StripSums()


def beside(run: Run, kind: str, strip: int) -> Path:
    """Return the path of a file that accompanies a strip; make its folder.

    Args:
        run: whose directory holds the file.
        kind: of the file, names its folder.
        strip: number of the strip, from 0.
    """
    (run.path / kind).mkdir(exist_ok=True)
    return run.path / kind / f"{strip:04d}.tif"
