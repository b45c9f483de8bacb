"""Describe jobs that write a raster of uint8 values on the SR grid of a scene.

They are those of maps (`rsupres.vector.rasterize`) and change masks
(`rsupres.change.write`). Memory does not grow with the raster's height, and the same
job continues after an interruption, see `rsupres.output.strips`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import ClassVar

from rsupres.grid import Grid
from rsupres.output.strips import Destination
from rsupres.output.tiff.profile import OutputFormat
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

    @property
    def form(self) -> OutputFormat:
        """How the output is stored."""
        return self.into.format("uint8", self.nodata)

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
        check_format(self.form, n_bands, grid)
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
