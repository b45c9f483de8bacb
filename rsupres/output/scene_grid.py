"""Write a raster of uint8 values on the SR grid of a scene, strip by strip.

Maps (`rsupres.vector.rasterize`) and change masks (`rsupres.change.write`) are written
this way. Memory does not grow with the raster's height, and the same job continues
after an interruption, see `rsupres.output.strips`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import ClassVar

from rsupres.execution import OnProgress
from rsupres.grid import Grid, PixelWindow
from rsupres.output.strips import (
    Destination,
    Rows,
    StripRaster,
    frame_identity,
    write_strips,
)
from rsupres.output.tiff.profile import OutputMeta
from rsupres.output.tiff.trial import check_format
from rsupres.raster.dataset import Raster
from rsupres.version import __version__

STRIP_VALUES = 1 << 24  # values of one strip, which are computed together


@dataclass(frozen=True, kw_only=True)
class SceneGridJob:
    """Place and format of a raster on the SR grid of a scene; commands add the rest.

    Attributes:
        into: where the raster goes.
        like: the scene whose grid, refined by `scale`, is the output's.
        scale: SR pixels along one LR pixel.
    """

    nodata: ClassVar[int | None] = None

    into: Destination
    like: str
    scale: Fraction = Fraction(4)

    @property
    def inputs(self) -> Mapping[str, Sequence[str]]:
        """Names of the files that are read, by argument; commands add theirs."""
        return {"like": (self.like,)}

    def open_grid(self, n_bands: int) -> Grid:
        """Check the destination, and return the SR grid of the scene.

        Args:
            n_bands: of the output.

        Raises:
            ArgumentError: the output is a file that is read.
            InputError: the scene cannot be used, or the output cannot be written.
            RunConflictError: the output exists.
        """
        self.into.check(self.inputs)
        with Raster.open(self.like) as scene:
            grid = scene.grid.refine(self.scale)
        check_format(self.into.format("uint8", self.nodata), n_bands, grid)
        return grid

    def tags(self) -> dict[str, str]:
        """Return the tags that every output has."""
        return {"RSUPRES_VERSION": __version__, "RSUPRES_SCALE": str(self.scale)}


@dataclass(frozen=True, kw_only=True)
class SceneGridSummary:
    """The result of writing.

    Attributes:
        output: the file.
        grid: its frame.
        duration_s: wall time.
    """

    output: Path
    grid: Grid
    duration_s: float

    def to_json(self) -> dict[str, object]:
        """Return JSON-able values."""
        return {
            "output": str(self.output),
            "height": self.grid.height,
            "width": self.grid.width,
            **self.content_to_json(),
            "duration_s": round(self.duration_s, 3),
        }

    def content_to_json(self) -> dict[str, object]:
        """Return JSON-able values of the fields that a subclass adds."""
        return {}


def write_on_scene_grid(
    job: SceneGridJob,
    grid: Grid,
    n_bands: int,
    *,
    identity: Mapping[str, object],
    phase: str,
    make: Callable[[PixelWindow], Rows],
    meta: Callable[[], OutputMeta],
    show: OnProgress,
    skip: Callable[[PixelWindow, Path], None] = lambda window, path: None,
) -> None:
    """Write a raster; continue where an earlier call stopped.

    Args:
        job: where the raster goes; its destination was checked.
        grid: of the output.
        n_bands: of the output.
        identity: JSON-able; equal when the same raster is written again.
        phase: name of the work in the progress, such as "Burning".
        make: returns the rows of a window, (n_bands, h, w) uint8, and None or (1, h, w)
            bool, where they are valid.
        meta: returns the file's metadata; called when all rows are written.
        show: called after each strip.
        skip: called with each window that an earlier call wrote, and its file.

    Raises:
        RunConflictError: another process or another job works in the run directory.
        ResourceError: the disk is full.
    """
    raster = StripRaster(
        grid=grid,
        form=job.into.format("uint8", job.nodata),
        n_bands=n_bands,
        strip_values=STRIP_VALUES,
        identity={**identity, **frame_identity(grid)},
        phase=phase,
        make=make,
        meta=meta,
        skip=skip,
    )
    write_strips(raster, job.into, show)
