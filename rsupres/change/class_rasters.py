"""Change masks out of class rasters: one that says where and into what, or two dates.

A class raster keeps its own pixels; `OnGrid` looks up, for each SR pixel, the one that
its centre lies in. Two land covers are compared on the coarser of their grids.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rsupres.change.components import drop_small, drop_thin
from rsupres.errors import ConditionError
from rsupres.grid import Grid, PixelWindow
from rsupres.legends.class_table import (
    NODATA,
    TABLE_TAG,
    UNCHANGED,
    ClassTable,
    guess_table,
    load_class_table,
    shipped_class_tables,
)
from rsupres.raster.blocks import Blocks
from rsupres.raster.dataset import Raster
from rsupres.raster.files import footprint
from rsupres.raster.warp import places, source_pixels_per_pixel, source_window

logger = logging.getLogger(__name__)

Codes = NDArray[np.uint8]

BLOCK = 256  # pixels of a block's side ...
SOURCE_SIDE = 4096  # ... unless that takes more pixels of the source than this
LATTICE = 16  # SR pixels between places whose ground is looked up exactly
NUDGE = 1e-6  # source pixels; a centre on an edge falls right and down of it
SCAN_SIDE = 1024
MAX_PART = 1024  # pixels of the least part that a mask may be cleaned of
COVER_PART = 4  # pixels of the least part, of land cover
_RGB_BANDS = 3


class MaskPixels(Protocol):
    """Values of a change mask on a grid of their own."""

    grid: Grid

    def read(self, window: PixelWindow) -> Codes:
        """Return (1, h, w) for a window inside the grid."""
        ...


class ClassRaster:
    """An open class raster as values of a change mask: a `MaskPixels`.

    Attributes:
        scene: the file.
        table: of its codes, None when it has none.
        as_labels: the codes are values of a change mask already.
        grid: of the file.
    """

    def __init__(
        self, scene: Raster, table: ClassTable | None, *, as_labels: bool
    ) -> None:
        self.scene = scene
        self.table = table
        self.as_labels = as_labels
        self.grid = scene.grid

    def read(self, window: PixelWindow) -> Codes:
        """Return (1, h, w) mask values, 255 where nothing is known."""
        codes, valid = read_codes(self.scene, window, self.table)
        if self.table is None:
            values = codes.astype(np.uint8)
        else:
            seen = codes[valid]
            values = np.full(codes.shape, NODATA, np.uint8)
            values[valid] = self.table.to_mask(
                seen, self.scene.path, as_labels=self.as_labels
            )
        values[~valid] = NODATA
        return values[np.newaxis]


class OnGrid:
    """Mask values of one grid seen on another, each pixel the nearest: `MaskPixels`.

    Attributes:
        grid: the pixels that are read.
    """

    def __init__(self, source: MaskPixels, grid: Grid) -> None:
        self.grid = grid
        self._source = source
        self._is_same = _is_same(source.grid, grid)
        ratio = source_pixels_per_pixel(source.grid, grid)
        side = BLOCK
        while side > LATTICE and side * ratio > SOURCE_SIDE:
            side //= 2
        self._blocks = Blocks(grid.window, side, self._make)

    def read(self, window: PixelWindow) -> Codes:
        """Return (1, h, w), 255 outside the source."""
        if self._is_same:
            return self._source.read(window)
        return self._blocks.read(window)

    def _make(self, window: PixelWindow) -> Codes:
        cols, rows = self._lookup(window)
        frame = self._source.grid
        inside = (
            (cols >= 0) & (rows >= 0) & (cols < frame.width) & (rows < frame.height)
        )
        out = np.full((1, window.height, window.width), NODATA, np.uint8)
        if not inside.any():
            return out
        cols, rows = cols[inside].astype(np.intp), rows[inside].astype(np.intp)
        top, left = int(rows.min()), int(cols.min())
        needed = PixelWindow(
            top, left, int(rows.max()) + 1 - top, int(cols.max()) + 1 - left
        )
        values = self._source.read(needed)
        out[0, inside] = values[0, rows - top, cols - left]
        return out

    def _lookup(
        self, window: PixelWindow
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return (h, w) columns and rows of the source at the pixels' centres."""
        source, target = self._source.grid, self.grid
        height, width = window.height, window.width
        if source.crs == target.crs:
            col, row = np.meshgrid(
                np.arange(width) + window.col + 0.5,
                np.arange(height) + window.row + 0.5,
            )
            col, row = places(source, target, col, row)
        else:
            nodes = [
                np.arange(0, math.ceil(side / LATTICE) + 1) * float(LATTICE)
                for side in (height, width)
            ]
            col, row = np.meshgrid(nodes[1] + window.col, nodes[0] + window.row)
            sparse = places(source, target, col.ravel(), row.ravel())
            col, row = (
                _between(part.reshape(col.shape), height, width) for part in sparse
            )
        with np.errstate(invalid="ignore"):
            found = np.floor(col + NUDGE), np.floor(row + NUDGE)
        return np.nan_to_num(found[0], nan=-1), np.nan_to_num(found[1], nan=-1)


class CoverPair:
    """Where two land covers differ, and what is there later: a `MaskPixels`.

    On the coarser of the two grids, cut to what is asked for. Differences one pixel
    wide and small parts are dropped, unless the rasters are labels of change.

    Attributes:
        grid: of the comparison.
        n_least: pixels; smaller parts are dropped.
    """

    def __init__(
        self,
        before: ClassRaster,
        after: ClassRaster,
        target: Grid,
        least_m2: float | None,
    ) -> None:
        check_overlap(before.scene, after.scene)
        grid = coarser_grid(before.grid, after.grid)
        needed = source_window(grid, target)
        assert needed is not None
        self.grid = grid.crop(needed)
        table = after.table
        self._is_labels = table is not None and table.kind == "change"
        default = 1 if self._is_labels else COVER_PART
        self.n_least = least_pixels(self.grid, least_m2, default)
        self._before = OnGrid(before, self.grid)
        self._after = OnGrid(after, self.grid)
        self._blocks = Blocks(self.grid.window, BLOCK, self._make)

    def read(self, window: PixelWindow) -> Codes:
        """Return (1, h, w): 0 where the cover stayed, else what it is later."""
        return np.asarray(self._blocks.read(window))

    def _make(self, window: PixelWindow) -> Codes:
        wide = window.grown(self.n_least, self.grid.window)
        before, after = self._before.read(wide), self._after.read(wide)
        unknown = (before == NODATA) | (after == NODATA)
        if self._is_labels:
            changed = ~unknown & (before != UNCHANGED)
        else:
            changed = ~unknown & (before != after)
        if self.n_least > 1:
            changed = drop_small(drop_thin(changed[0]), self.n_least)[np.newaxis]
        values = np.where(changed, after, np.uint8(UNCHANGED))
        values[unknown] = NODATA
        return values[:, *window.relative_to(wide).slices()]


def open_class_raster(
    scene: Raster, table_name: str | None, target: Grid, *, is_mask: bool
) -> ClassRaster:
    """Check an open class raster and find its table.

    Args:
        scene: opened with `is_classes`.
        table_name: name or file, None = by the file's tag or its codes.
        target: grid that is asked for; only codes over it are looked at.
        is_mask: it says what changed; else it is the land cover of a date.

    Raises:
        ConditionError: of another place, codes that the table does not have, no whole
            numbers, or 0 and 255 of which nobody knows what they mean.
    """
    window = needed_window(scene, target)
    if len(scene.data_bands) not in (1, _RGB_BANDS) or not _is_whole(scene.dtype):
        raise ConditionError(
            f"{scene.path}: {len(scene.data_bands)} bands of {scene.dtype} are no "
            "classes; one band of whole numbers, or RGB in the colours of "
            "--class-table, is."
        )
    tag = scene.any_tag(TABLE_TAG)
    name = table_name or (tag if tag in shipped_class_tables() else None)
    if name is None and len(scene.data_bands) == _RGB_BANDS:
        raise ConditionError(
            f"{scene.path}: three bands are classes only in the colours of a table; "
            "name it with --class-table."
        )
    table = load_class_table(name) if name else None
    present = codes_present(scene, window, table)
    if table is None and not is_mask and (guess := guess_table(present)):
        table = load_class_table(guess)
        logger.info("%s: the codes are those of %s.", scene.path, table.title)
    if table is None:
        _check_plain(scene, present, is_mask=is_mask)
    else:
        table.to_mask(present, scene.path, as_labels=is_mask)
    return ClassRaster(scene, table, as_labels=is_mask)


def read_codes(
    scene: Raster, window: PixelWindow, table: ClassTable | None
) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """Return (h, w) codes of a class raster, and where it has any."""
    dn, valid = scene.read(window, scene.data_bands)
    if len(dn) == 1:
        return np.where(valid, dn, 0)[0].astype(np.int32), valid[0]
    assert table is not None
    blank = np.array(table.classes[0].colour, np.float32)[:, np.newaxis, np.newaxis]
    rgb = np.where(valid, dn, blank).astype(np.int32)
    return table.from_rgb(rgb, scene.path), valid[0]


def codes_present(
    scene: Raster, window: PixelWindow, table: ClassTable | None
) -> NDArray[np.int32]:
    """Return the codes inside a window, rising, read in blocks."""
    found: set[int] = set()
    for row in range(window.row, window.row_stop, SCAN_SIDE):
        for col in range(window.col, window.col_stop, SCAN_SIDE):
            part = PixelWindow(row, col, SCAN_SIDE, SCAN_SIDE).intersection(window)
            assert part is not None
            codes, valid = read_codes(scene, part, table)
            found.update(np.unique(codes[valid]).tolist())
    return np.array(sorted(found), np.int32)


def check_overlap(before: Raster, after: Raster) -> None:
    """Refuse two rasters of different places.

    Raises:
        ConditionError: they do not touch, naming both footprints.
    """
    if source_window(before.grid, after.grid) is None:
        raise ConditionError(
            f"{before.path} covers {footprint(before.grid)} and {after.path} "
            f"{footprint(after.grid)} (longitude, latitude); they do not touch."
        )


def needed_window(scene: Raster, target: Grid) -> PixelWindow:
    """Return the pixels of a raster over a grid.

    Raises:
        ConditionError: none, naming both footprints.
    """
    window = source_window(scene.grid, target)
    if window is None:
        raise ConditionError(
            f"{scene.path}: covers {footprint(scene.grid)}, the scene "
            f"{footprint(target)} (longitude, latitude); they do not touch."
        )
    return window


def coarser_grid(one: Grid, other: Grid) -> Grid:
    """Return the grid with the larger pixels, the second where they are alike."""
    return other if source_pixels_per_pixel(one, other) >= 1 / 1.001 else one


def least_pixels(grid: Grid, least_m2: float | None, default: int) -> int:
    """Return how many pixels a part must have.

    Raises:
        ConditionError: more than `MAX_PART`.
    """
    if least_m2 is None:
        return default
    n_pixels = max(1, math.ceil(least_m2 / grid.gsd_m**2 - 1e-6))
    if n_pixels > MAX_PART:
        raise ConditionError(
            f"--minimum-area {least_m2:g}: that is {n_pixels} pixels of "
            f"{grid.gsd_m:.3g} m, above {MAX_PART}; give at most "
            f"{MAX_PART * grid.gsd_m**2:.4g}, or coarser files."
        )
    return n_pixels


def _check_plain(scene: Raster, present: NDArray[np.int32], *, is_mask: bool) -> None:
    """Refuse what cannot be read without a class table."""
    known = ", ".join(shipped_class_tables())
    if not is_mask:
        raise ConditionError(
            f"{scene.path}: its codes {_few(present)} could be of several class "
            f"tables; name theirs with --class-table ({known})."
        )
    found = set(present.tolist())
    if scene.nodata is None and NODATA in found <= {UNCHANGED, NODATA}:
        raise ConditionError(
            f"{scene.path}: holds only {_few(present)}; if 255 means changed, say "
            "--class-table binary; if it means unknown, declare it as nodata."
        )
    if len(present) and not 0 <= present[0] <= present[-1] <= NODATA:
        raise ConditionError(
            f"{scene.path}: classes {_few(present)} do not fit into a mask of 0 to "
            f"255; name their table with --class-table ({known})."
        )


def _few(codes: NDArray[np.int32]) -> str:
    shown = ", ".join(str(code) for code in codes[:8]) or "none"
    return f"{shown}, ..." if len(codes) > 8 else shown


def _is_whole(dtype: str) -> bool:
    return np.dtype(dtype).kind in "iu"


def _is_same(one: Grid, other: Grid) -> bool:
    frame = one.crs, one.transform, one.height, one.width
    return frame == (other.crs, other.transform, other.height, other.width)


def _between(
    nodes: NDArray[np.float64], height: int, width: int
) -> NDArray[np.float64]:
    """Return values at pixel centres between nodes `LATTICE` pixels apart."""
    rows, cols = ((np.arange(side) + 0.5) / LATTICE for side in (height, width))
    top, left = rows.astype(np.intp), cols.astype(np.intp)
    down, right = (rows - top)[:, np.newaxis], cols - left
    upper = nodes[top][:, left] * (1 - right) + nodes[top][:, left + 1] * right
    lower = nodes[top + 1][:, left] * (1 - right) + nodes[top + 1][:, left + 1] * right
    return np.asarray(upper * (1 - down) + lower * down)


def marks(scene: Raster) -> Mapping[str, object]:
    """Return name, date and hash of a file."""
    from rsupres.raster.files import date_of

    date, source = date_of(scene)
    name = scene.path.replace("\\", "/").rsplit("/", 1)[-1]
    return {
        "file": name,
        "date": f"{date:%Y-%m-%d}" if source != "file time" else None,
        "sha256": scene.fingerprint()["sha256"],
    }
