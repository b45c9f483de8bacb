"""Open a change mask on the SR grid and read it by window.

    with ChangeMask.open(["before.tif", "after.tif"], sr_grid) as mask:
        values = mask.read(window)

A mask holds 0 where nothing changed and 255 where nothing is known. Elsewhere it holds
the class that is there now, or 1 where no class is known. The kind of the sources is
decided by `rsupres.change.sources`; nothing is written here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack

import numpy as np
from numpy.typing import NDArray

from rsupres.change.detection import TITLES
from rsupres.change.options import ChangeOptions
from rsupres.change.sources import OpenSources, open_sources
from rsupres.errors import InputError
from rsupres.grid import Grid, PixelWindow, ceil_div
from rsupres.legends.class_table import CHANGED, NODATA, UNCHANGED
from rsupres.legends.toml_table import Colour
from rsupres.raster.dataset import Raster

SAMPLE_SIDE = 64  # SR pixels of the windows from which shares are estimated
SAMPLE_WINDOWS = 8  # along each axis
DEFAULT_COLOURS: Mapping[int, Colour] = {
    UNCHANGED: (255, 255, 255),
    CHANGED: (255, 0, 255),
    NODATA: (0, 0, 0),
}


class ChangeMask(AbstractContextManager["ChangeMask"]):
    """An open change mask: a `conditions.ConditionSource`, and a context manager.

    Attributes:
        kind: of source: polygons, classes, land cover or detected.
        grid: SR grid.
        table: class table of the mask's values, None when no class is known.
        paths: names of the files.
        method: "irmad", "cva" or "built" where change was detected, else None.
    """

    def __init__(
        self, sources: OpenSources, options: ChangeOptions, stack: ExitStack
    ) -> None:
        self.kind = sources.kind
        self.grid = sources.pixels.grid
        self.table = sources.table
        self.method = sources.method
        self.paths = tuple(str(file["file"]) for file in sources.files)
        self._pixels = sources.pixels
        self._files = sources.files
        self._options = options
        self._stack = stack

    @classmethod
    def open(
        cls,
        sources: Sequence[str | Raster],
        grid: Grid,
        options: ChangeOptions | None = None,
    ) -> ChangeMask:
        """Return an open change mask on an SR grid; change is detected here, once.

        Args:
            sources: polygons or a class raster; or the earlier and the later raster,
                both land covers or both images. Open rasters are left open.
            grid: SR grid.
            options: None for the defaults.

        Raises:
            ConditionError: of another place, codes of another table, dates in the
                wrong order, or images that cannot be compared.
            InputError: a file is missing, damaged, without CRS, or not of its kind.
        """
        options = options or ChangeOptions()
        if len(sources) not in (1, 2):
            raise InputError(
                f"A change mask has one source or two, not {len(sources)}."
            )
        if grid.crs is None:
            raise InputError("The scene has no CRS, so no mask can be laid over it.")
        with ExitStack() as stack:
            found = open_sources(sources, grid, options, stack)
            return cls(found, options, stack.pop_all())

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the files that were opened here."""
        self._stack.close()

    def read(self, window: PixelWindow) -> NDArray[np.uint8]:
        """Return (1, H, W) uint8 of SR pixels, each by its position alone."""
        return self._pixels.read(window)

    def fingerprint(self) -> dict[str, object]:
        """Return the inputs of the mask: files with dates and hashes, and options."""
        return {
            "kind": self.kind,
            "files": [dict(file) for file in self._files],
            "method": self.method,
            "table": None if self.table is None else self.table.name,
            "table_sha256": None if self.table is None else self.table.sha256,
            **self._options.fingerprint(),
        }

    def describe(self) -> str:
        """Return one line for a person: files, kind, and about how much changed."""
        changed, unknown = self.sample_shares()
        table = "no classes" if self.table is None else self.table.title
        method = f" by {TITLES[self.method]}" if self.method else ""
        rest = f", {100 * unknown:.0f} % unknown" if unknown >= 0.005 else ""
        return (
            f"{' and '.join(self.paths)}: {self.kind}{method}, {table}; about "
            f"{100 * changed:.1f} % changed{rest}"
        )

    def names(self) -> dict[int, str]:
        """Return the names of the values above 0 that the mask may hold."""
        return {CHANGED: "changed"} if self.table is None else self.table.names()

    def palette(self) -> dict[int, Colour]:
        """Return the colours of the values that the mask may hold."""
        return dict(DEFAULT_COLOURS) if self.table is None else self.table.palette()

    def sample_shares(self) -> tuple[float, float]:
        """Return the estimated shares that changed and that are unknown, 0 to 1."""
        counts = np.zeros(256, np.int64)
        for row in _sample_starts(self.grid.height):
            for col in _sample_starts(self.grid.width):
                window = PixelWindow(row, col, SAMPLE_SIDE, SAMPLE_SIDE)
                inside = window.intersection(self.grid.window)
                assert inside is not None
                values = self.read(inside)
                counts += np.bincount(values.ravel(), minlength=256)
        return changed_share(counts), counts[NODATA] / counts.sum()


def changed_share(counts: NDArray[np.int64]) -> float:
    """Return the share changed of known pixels, 0 of none; `counts` (256,) by value."""
    n_known = int(counts[:NODATA].sum())
    return float(counts[1:NODATA].sum() / n_known) if n_known else 0.0


def _sample_starts(length: int) -> list[int]:
    """Return where the sampled windows begin: all side by side, or spread evenly."""
    n_windows = min(SAMPLE_WINDOWS, ceil_div(length, SAMPLE_SIDE))
    if n_windows * SAMPLE_SIDE >= length:
        return [SAMPLE_SIDE * i for i in range(n_windows)]
    return [(length - SAMPLE_SIDE) * i // (n_windows - 1) for i in range(n_windows)]
