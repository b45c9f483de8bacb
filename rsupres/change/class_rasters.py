"""Read change masks from class rasters: labels of change, or two land covers.

A class raster keeps its own pixels; `rsupres.change.on_grid` brings them onto the SR
grid. Two land covers are compared on the coarser of their grids.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rsupres.change.class_palettes import Entries, guessed_table, palette_entries
from rsupres.change.components import drop_small, drop_thin
from rsupres.change.on_grid import Codes, OnGrid
from rsupres.errors import ConditionError
from rsupres.grid import Grid, PixelWindow
from rsupres.legends.class_table import (
    NODATA,
    TABLE_TAG,
    UNCHANGED,
    ClassTable,
    load_class_table,
    shipped_class_tables,
)
from rsupres.raster.blocks import Blocks
from rsupres.raster.dataset import Raster
from rsupres.raster.files import date_of, footprint
from rsupres.raster.place.warp import source_pixels_per_pixel, source_window

logger = logging.getLogger(__name__)

BLOCK_SIDE = 256  # pixels of a block of the comparison
SCAN_SIDE = 1024  # pixels of the blocks in which codes are searched
MAX_MIN_PIXELS = 1024  # upper limit of the minimum size of a part
MIN_COVER_PIXELS = 4  # default minimum size of a part, for land covers
_RGB_BANDS = 3


@dataclass(frozen=True)
class ClassRaster:
    """An open class raster, read as values of a change mask: a `MaskPixels`.

    Attributes:
        scene: the open file.
        table: of its codes, None when the codes are mask values.
        as_labels: the codes say what changed; else they are the land cover of a date.
        entries: code of each entry of its palette, None where pixels are codes.
    """

    scene: Raster
    table: ClassTable | None
    as_labels: bool
    entries: Entries | None = None

    @property
    def grid(self) -> Grid:
        """The grid of the file."""
        return self.scene.grid

    def read(self, window: PixelWindow) -> Codes:
        """Return (1, h, w) mask values, 255 where nothing is known."""
        codes, valid = read_codes(self.scene, window, self.table, self.entries)
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


class CoverPair:
    """Differences of two land covers with their later classes: a `MaskPixels`.

    They are compared on the coarser of the two grids, cropped to the SR grid.
    Differences one pixel wide and small parts are dropped, unless the rasters are
    labels of change.

    Attributes:
        grid: of the comparison.
        min_pixels: smaller parts are dropped.
    """

    def __init__(
        self,
        before: ClassRaster,
        after: ClassRaster,
        target: Grid,
        minimum_area_m2: float | None,
    ) -> None:
        check_overlap(before.scene, after.scene)
        grid = coarser_grid(before.grid, after.grid)
        needed = source_window(grid, target)
        assert needed is not None
        self.grid = grid.crop(needed)
        table = after.table
        self._is_labels = table is not None and table.kind == "change"
        default = 1 if self._is_labels else MIN_COVER_PIXELS
        self.min_pixels = minimum_pixels(self.grid, minimum_area_m2, default)
        self._before = OnGrid(before, self.grid)
        self._after = OnGrid(after, self.grid)
        self._blocks = Blocks(self.grid.window, BLOCK_SIDE, self._make)

    def read(self, window: PixelWindow) -> Codes:
        """Return (1, h, w): 0 where the cover stayed, else the later class."""
        return np.asarray(self._blocks.read(window))

    def _make(self, window: PixelWindow) -> Codes:
        wide = window.grown(self.min_pixels, self.grid.window)
        before, after = self._before.read(wide), self._after.read(wide)
        unknown = (before == NODATA) | (after == NODATA)
        if self._is_labels:
            changed = ~unknown & (before != UNCHANGED)
        else:
            changed = ~unknown & (before != after)
        if self.min_pixels > 1:
            changed = drop_small(drop_thin(changed[0]), self.min_pixels)[np.newaxis]
        values = np.where(changed, after, np.uint8(UNCHANGED))
        values[unknown] = NODATA
        return values[:, *window.relative_to(wide).slices()]


def open_class_raster(
    scene: Raster, table_name: str | None, target: Grid, *, is_mask: bool
) -> ClassRaster:
    """Check an open class raster and return it with its table.

    Args:
        scene: opened with `is_classes`.
        table_name: name or file, None = by the file's tag or its codes.
        target: SR grid; only codes over it are looked at.
        is_mask: the codes say what changed; else they are the land cover of a date.

    Raises:
        ConditionError: of another place, codes that the table does not have, no whole
            numbers, or only 0 and 255, where 255 may mean changed or unknown.
    """
    window = needed_window(scene, target)
    is_whole = np.dtype(scene.dtype).kind in "iu"
    if len(scene.data_bands) not in (1, _RGB_BANDS) or not is_whole:
        raise ConditionError(
            f"{scene.path}: {len(scene.data_bands)} bands of {scene.dtype} are not "
            "classes; give one band of whole numbers, or RGB in the colours of a class "
            "table."
        )
    tag = scene.any_tag(TABLE_TAG)
    name = table_name or (tag if tag in shipped_class_tables() else None)
    if name is None and len(scene.data_bands) == _RGB_BANDS:
        raise ConditionError(
            f"{scene.path}: three bands are classes only in the colours of a class "
            "table; name it.",
            remedies=("class_table",),
        )
    table = load_class_table(name) if name else None
    present = codes_present(scene, window, table)
    if table is None and not is_mask and (guess := guessed_table(scene, present)):
        table = load_class_table(guess)
        logger.info("%s: the codes are those of %s.", scene.path, table.title)
    entries = palette_entries(scene, table, present)
    if table is None:
        check_plain(scene, present, is_mask=is_mask)
    else:
        found = present if entries is None else entries[present]
        table.to_mask(found, scene.path, as_labels=is_mask)
    return ClassRaster(scene, table, as_labels=is_mask, entries=entries)


def read_codes(
    scene: Raster,
    window: PixelWindow,
    table: ClassTable | None,
    entries: Entries | None = None,
) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """Return (h, w) codes and bool validity of a window of a class raster.

    Args:
        scene: one band of codes, or three of a table's colours.
        window: pixels of the raster.
        table: needed for three bands.
        entries: code of each entry of its palette, None where pixels are codes.
    """
    dn, valid = scene.read(window, scene.data_bands)
    if len(dn) == 1:
        codes = np.where(valid, dn, 0)[0].astype(np.int32)
        return codes if entries is None else entries[codes], valid[0]
    assert table is not None
    blank = np.array(table.classes[0].colour, np.float32)[:, np.newaxis, np.newaxis]
    rgb = np.where(valid, dn, blank).astype(np.int32)
    return table.from_rgb(rgb, scene.path), valid[0]


def codes_present(
    scene: Raster, window: PixelWindow, table: ClassTable | None
) -> NDArray[np.int32]:
    """Return the codes inside a window in rising order, read in blocks.

    Args:
        scene: one band of codes, or three of a table's colours.
        window: pixels of the raster.
        table: needed for three bands.
    """
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

    Args:
        before: the earlier raster.
        after: the later raster.

    Raises:
        ConditionError: they do not touch; both footprints are named.
    """
    if source_window(before.grid, after.grid) is None:
        raise ConditionError(
            f"{before.path} covers {footprint(before.grid)} and {after.path} "
            f"{footprint(after.grid)} (longitude, latitude); they do not touch."
        )


def needed_window(scene: Raster, target: Grid) -> PixelWindow:
    """Return the window of a raster that covers a grid.

    Args:
        scene: open raster.
        target: SR grid.

    Raises:
        ConditionError: they do not touch; both footprints are named.
    """
    window = source_window(scene.grid, target)
    if window is None:
        raise ConditionError(
            f"{scene.path}: covers {footprint(scene.grid)}, the scene "
            f"{footprint(target)} (longitude, latitude); they do not touch."
        )
    return window


def coarser_grid(one: Grid, other: Grid) -> Grid:
    """Return the grid with the larger pixels, `other` where they are alike.

    Args:
        one: a grid.
        other: a grid; of any CRS, as the first.
    """
    return other if source_pixels_per_pixel(one, other) >= 1 / 1.001 else one


def minimum_pixels(grid: Grid, minimum_area_m2: float | None, default: int) -> int:
    """Return how many pixels a part must have to stay in the mask.

    Args:
        grid: of the mask.
        minimum_area_m2: minimum size of a part on the ground, None = `default`.
        default: pixels.

    Raises:
        ConditionError: more than `MAX_MIN_PIXELS`.
    """
    if minimum_area_m2 is None:
        return default
    n_pixels = max(1, math.ceil(minimum_area_m2 / grid.gsd_m**2 - 1e-6))
    if n_pixels > MAX_MIN_PIXELS:
        raise ConditionError(
            f"{minimum_area_m2:g}: that is {n_pixels} pixels of {grid.gsd_m:.3g} m, "
            f"above {MAX_MIN_PIXELS}; give at most "
            f"{MAX_MIN_PIXELS * grid.gsd_m**2:.4g} m2, or coarser files.",
            argument="minimum_area",
        )
    return n_pixels


def check_plain(scene: Raster, present: NDArray[np.int32], *, is_mask: bool) -> None:
    """Refuse codes that cannot be read without a class table.

    Args:
        scene: the file.
        present: the codes in it.
        is_mask: the codes say what changed.

    Raises:
        ConditionError: codes of a land cover, only 0 and 255, or not 0 to 255.
    """
    known = ", ".join(shipped_class_tables())
    if not is_mask:
        raise ConditionError(
            f"{scene.path}: its codes {_few(present)} could be of several class "
            f"tables; name theirs ({known}).",
            remedies=("class_table",),
        )
    found = set(present.tolist())
    if scene.nodata is None and NODATA in found <= {UNCHANGED, NODATA}:
        raise ConditionError(
            f"{scene.path}: holds only {_few(present)}; if 255 means changed, its "
            "class table is binary; if it means unknown, declare it as nodata.",
            remedies=("class_table=binary",),
        )
    if len(present) and not 0 <= present[0] <= present[-1] <= NODATA:
        raise ConditionError(
            f"{scene.path}: classes {_few(present)} do not fit into a mask of 0 to "
            f"255; name their class table ({known}).",
            remedies=("class_table",),
        )


def _few(codes: NDArray[np.int32]) -> str:
    shown = ", ".join(str(code) for code in codes[:8]) or "none"
    return f"{shown}, ..." if len(codes) > 8 else shown


def fingerprint_of(scene: Raster) -> Mapping[str, object]:
    """Return name, date and hash of an open raster, as a mask's fingerprint has it."""
    date, source = date_of(scene)
    name = scene.path.replace("\\", "/").rsplit("/", 1)[-1]
    return {
        "file": name,
        "date": f"{date:%Y-%m-%d}" if source != "file time" else None,
        "sha256": scene.fingerprint()["sha256"],
    }
