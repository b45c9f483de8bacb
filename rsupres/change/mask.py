"""Change masks on the SR grid: where and into what the land changed since a reference.

    with ChangeMask.open(["before.tif", "after.tif"], sr_grid) as mask:
        values = mask.read(window)

Four kinds of sources: polygons, a class raster, the land cover of two dates, and two
images between which change is detected. A mask holds 0 where nothing changed, 255 where
nobody knows, else the class that is there now; 1 where no class is known. Knows no
model and writes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, fields, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rsupres.change.class_rasters import (
    ClassRaster,
    CoverPair,
    MaskPixels,
    OnGrid,
    codes_present,
    marks,
    needed_window,
    open_class_raster,
)
from rsupres.change.detection import TITLES, Method
from rsupres.change.images import DetectedChange, DetectionOptions
from rsupres.change.polygons import PolygonMask, is_vector
from rsupres.errors import ConditionError, InputError
from rsupres.grid import Grid, PixelWindow
from rsupres.legends.class_table import (
    CHANGED,
    NODATA,
    TABLE_TAG,
    UNCHANGED,
    ClassTable,
    guess_table,
    load_class_table,
    shipped_class_tables,
)
from rsupres.legends.toml_table import Colour
from rsupres.raster.dataset import Raster
from rsupres.raster.files import date_of

__all__ = ["ChangeMask", "ChangeOptions", "DetectionOptions"]

logger = logging.getLogger(__name__)

Kind = Literal["polygons", "classes", "land cover", "detected"]

MUCH = 0.6  # share changed that is worth a warning
SAMPLE_SIDE = 64  # SR pixels of the windows that the share is estimated on
SAMPLE_WINDOWS = 8  # along each axis
DEFAULT_COLOURS: Mapping[int, Colour] = {
    UNCHANGED: (255, 255, 255),
    CHANGED: (255, 0, 255),
    NODATA: (0, 0, 0),
}


@dataclass(frozen=True)
class ChangeOptions:
    """How sources are read.

    Attributes:
        class_table: name or file of the table of the sources' codes; None = by tags or
            by the codes, where they can mean one thing only.
        output_table: the table whose values the mask shall have; None = the sources'.
        class_attribute: of polygons, that holds their class.
        land_cover: class raster of the later date, for what is detected.
        covers: two rasters are land covers (True), images (False), or as it looks.
        detection: how change is detected.
    """

    class_table: str | None = None
    output_table: str | None = None
    class_attribute: str | None = None
    land_cover: str | None = None
    covers: bool | None = None
    detection: DetectionOptions = field(default_factory=DetectionOptions)


class ChangeMask(AbstractContextManager["ChangeMask"]):
    """An open change mask: a `conditions.ConditionSource`, and a context manager.

    Attributes:
        kind: of source.
        grid: SR grid.
        table: whose values the mask holds, None when no class is known.
        paths: the files.
        method: "irmad" or "cva" where change was detected, else None.
    """

    def __init__(
        self,
        kind: Kind,
        pixels: MaskPixels,
        table: ClassTable | None,
        sources: Sequence[Mapping[str, object]],
        method: Method | None,
        options: ChangeOptions,
        stack: ExitStack,
    ) -> None:
        self.kind: Kind = kind
        self.grid = pixels.grid
        self.table = table
        self.method = method
        self.paths = tuple(str(source["file"]) for source in sources)
        self._pixels = pixels
        self._sources = tuple(sources)
        self._options = options
        self._stack = stack

    @classmethod
    def open(
        cls,
        sources: Sequence[str | Raster],
        grid: Grid,
        options: ChangeOptions | None = None,
    ) -> ChangeMask:
        """Open a change mask on an SR grid; detection runs here, once.

        Args:
            sources: polygons or a class raster; or the earlier and the later raster,
                both land covers or both images. Open scenes are left open.
            grid: SR grid.
            options: None for the defaults.

        Raises:
            ConditionError: of another place, codes of another table, dates the wrong
                way round, or images that cannot be compared.
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
            if len(sources) == 1:
                found = _open_one(sources[0], grid, options, stack)
            else:
                found = _open_two(sources, grid, options, stack)
            return cls(*found, options, stack.pop_all())

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the files that were opened here."""
        self._stack.close()

    def read(self, window: PixelWindow) -> NDArray[np.uint8]:
        """Return (1, H, W) uint8; a value depends on its position alone.

        Args:
            window: SR pixels inside the grid.
        """
        return self._pixels.read(window)

    def fingerprint(self) -> dict[str, object]:
        """Return what decides the mask: files with dates and hashes, and options."""
        detection = self._options.detection
        chosen = {
            item.name: getattr(self._options, item.name)
            for item in fields(self._options)
            if item.name not in ("detection", "class_table", "output_table")
        }
        chosen["detection"] = {
            item.name: getattr(detection, item.name) for item in fields(detection)
        }
        return {
            "kind": self.kind,
            "files": [dict(source) for source in self._sources],
            "method": self.method,
            "table": None if self.table is None else self.table.name,
            "table_sha256": None if self.table is None else self.table.sha256,
            **{name: value for name, value in chosen.items() if value is not None},
        }

    def describe(self) -> str:
        """Return one line for a person: sources, kind, and about how much changed."""
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
        """Return about which shares of the grid changed and are unknown, 0 to 1."""
        counts = np.zeros(256, np.int64)
        for row in _sample_starts(self.grid.height):
            for col in _sample_starts(self.grid.width):
                window = PixelWindow(row, col, SAMPLE_SIDE, SAMPLE_SIDE)
                inside = window.intersection(self.grid.window)
                assert inside is not None
                values = self.read(inside)
                counts += np.bincount(values.ravel(), minlength=256)
        return changed_share(counts), counts[NODATA] / counts.sum()


def _sample_starts(length: int) -> list[int]:
    """Return where sampled windows begin: side by side, or spread where they may."""
    n_windows = min(SAMPLE_WINDOWS, -(-length // SAMPLE_SIDE))
    if n_windows * SAMPLE_SIDE >= length:
        return [SAMPLE_SIDE * i for i in range(n_windows)]
    return [(length - SAMPLE_SIDE) * i // (n_windows - 1) for i in range(n_windows)]


def changed_share(counts: NDArray[np.int64]) -> float:
    """Return the share of changed pixels among those known, 0 when none is known.

    Args:
        counts: (256,) pixels by mask value.
    """
    n_known = int(counts[:NODATA].sum())
    return float(counts[1:NODATA].sum() / n_known) if n_known else 0.0


_Found = tuple[
    Kind, MaskPixels, ClassTable | None, list[Mapping[str, object]], Method | None
]


def _open_one(
    source: str | Raster, grid: Grid, options: ChangeOptions, stack: ExitStack
) -> _Found:
    if isinstance(source, str) and is_vector(source):
        if options.class_table and not options.class_attribute:
            raise ConditionError(
                f"{source}: a class table says nothing without the attribute that "
                "holds the classes; name it with --class-attribute."
            )
        table = _table(options)
        polygons = PolygonMask(source, grid, table, options.class_attribute)
        return "polygons", polygons, table, [polygons.marks()], None
    scene = _opened(source, stack)
    raster = open_class_raster(scene, options.class_table, grid, is_mask=True)
    if options.output_table and raster.table is None:
        raise ConditionError(
            f"{scene.path}: nobody knows what its classes are; name their table with "
            "--class-table."
        )
    raster = _converted(raster, options)
    table = raster.table
    return "classes", OnGrid(raster, grid), table, [marks(scene)], None


def _open_two(
    sources: Sequence[str | Raster],
    grid: Grid,
    options: ChangeOptions,
    stack: ExitStack,
) -> _Found:
    for source in sources:
        if isinstance(source, str) and is_vector(source):
            raise InputError(
                f"{source}: polygons say what changed by themselves; give them alone, "
                "or two rasters."
            )
    before, after = (_opened(source, stack) for source in sources)
    _check_dates(before, after)
    files = [marks(before), marks(after)]
    covers = options.covers
    if covers is None:
        covers = _are_covers(before, after, grid, options)
    _refuse_useless(before, after, options, are_covers=covers)
    if covers:
        pair, table = _cover_pair(before, after, grid, options)
        return "land cover", OnGrid(pair, grid), table, files, None
    for scene in (before, after):
        if scene.has_palette:
            raise InputError(
                f"{scene.path}: its pixels are palette entries, no image; is it a land "
                "cover? Then both must be."
            )
    detected = DetectedChange(before, after, grid, options.detection)
    on_grid = OnGrid(detected, grid)
    if options.land_cover is None:
        return "detected", on_grid, None, files, detected.method
    cover_scene = _opened(options.land_cover, stack)
    cover = _converted(
        open_class_raster(cover_scene, options.class_table, grid, is_mask=False),
        options,
    )
    assert cover.table is not None
    pixels = _Classed(on_grid, OnGrid(cover, grid), cover.table.unknown)
    files.append(marks(cover_scene))
    return "detected", pixels, cover.table, files, detected.method


def _refuse_useless(
    before: Raster, after: Raster, options: ChangeOptions, *, are_covers: bool
) -> None:
    """Refuse options that would do nothing for what the rasters are.

    Raises:
        ConditionError: there is one.
    """
    detection = replace(options.detection, least_m2=None)
    if are_covers:
        what, meaningless = (
            "land covers",
            {
                "--land-cover": options.land_cover is not None,
                "--significance and --threshold": detection != DetectionOptions(),
            },
        )
    else:
        has_cover = options.land_cover is not None
        what, meaningless = (
            "images without --land-cover",
            {
                "--class-table": options.class_table is not None and not has_cover,
                "--output-table": options.output_table is not None and not has_cover,
            },
        )
    for option, is_given in meaningless.items():
        if is_given:
            raise ConditionError(
                f"{option} means nothing here: {before.path} and {after.path} are read "
                f"as {what}. --method says what they are."
            )


class _Classed:
    """A mask of change with the classes of a land cover: a `MaskPixels`."""

    def __init__(self, changed: OnGrid, cover: OnGrid, unknown: int) -> None:
        self.grid = changed.grid
        self._changed = changed
        self._cover = cover
        self._unknown = unknown

    def read(self, window: PixelWindow) -> NDArray[np.uint8]:
        """Return (1, h, w)."""
        changed, cover = self._changed.read(window), self._cover.read(window)
        known = np.where(cover == NODATA, np.uint8(self._unknown), cover)
        return np.where(changed == CHANGED, known, changed)


def _cover_pair(
    before: Raster, after: Raster, grid: Grid, options: ChangeOptions
) -> tuple[CoverPair, ClassTable]:
    """Return two land covers of one table.

    Raises:
        ConditionError: their tables differ, or one has other codes.
    """
    rasters = []
    for scene in (before, after):
        tag = scene.any_tag(TABLE_TAG)
        guess = guess_table(codes_present_or_none(scene, grid))
        own = tag if tag in shipped_class_tables() else guess
        rasters.append((scene, own))
    names = [own for _, own in rasters]
    if options.class_table is None and names[0] != names[1]:
        told = [name or "unknown" for name in names]
        raise ConditionError(
            f"{before.path} and {after.path} have different class tables ({told[0]} "
            f"and {told[1]}); bring both to one, or name it with --class-table."
        )
    one, other = (
        _converted(
            open_class_raster(scene, options.class_table, grid, is_mask=False), options
        )
        for scene in (before, after)
    )
    assert other.table is not None
    return CoverPair(one, other, grid, options.detection.least_m2), other.table


def codes_present_or_none(scene: Raster, grid: Grid) -> NDArray[np.int32]:
    """Return the codes of a one-band raster over a grid, none of any other."""
    if len(scene.data_bands) != 1 or np.dtype(scene.dtype).kind not in "iu":
        return np.empty(0, np.int32)
    return codes_present(scene, needed_window(scene, grid), None)


def _converted(raster: ClassRaster, options: ChangeOptions) -> ClassRaster:
    """Return a raster whose values follow the table that is asked for."""
    if options.output_table is None or raster.table is None:
        return raster
    target = load_class_table(options.output_table)
    if raster.as_labels and raster.table.kind == "cover":
        raise ConditionError(
            f"{raster.scene.path}: a mask of {raster.table.name} cannot be brought to "
            f"{target.name}; make it anew from the land covers."
        )
    table = raster.table.as_table(target)
    return ClassRaster(raster.scene, table, as_labels=raster.as_labels)


def _are_covers(
    before: Raster, after: Raster, grid: Grid, options: ChangeOptions
) -> bool:
    """Return whether two rasters look like land covers: one band of few codes."""
    if any(len(scene.data_bands) != 1 for scene in (before, after)):
        return False
    if any(np.dtype(scene.dtype).kind not in "iu" for scene in (before, after)):
        return False
    if options.class_table and not options.land_cover:
        return True
    return any(
        scene.has_palette
        or bool(scene.any_tag(TABLE_TAG))
        or guess_table(codes_present_or_none(scene, grid)) is not None
        for scene in (before, after)
    )


def _table(options: ChangeOptions) -> ClassTable | None:
    if options.class_table is None:
        return None
    table = load_class_table(options.class_table)
    if options.output_table is None:
        return table
    return table.as_table(load_class_table(options.output_table))


def _opened(source: str | Raster, stack: ExitStack) -> Raster:
    if isinstance(source, Raster):
        return source
    return stack.enter_context(Raster.open(source, is_classes=True))


def _check_dates(before: Raster, after: Raster) -> None:
    """Refuse two rasters whose tags say that they are the wrong way round."""
    (one, one_by), (other, other_by) = date_of(before), date_of(after)
    if one <= other or "file time" in (one_by, other_by):
        return
    told = (
        f"{before.path} is of {one:%Y-%m-%d} (by its {one_by}) and {after.path} of "
        f"{other:%Y-%m-%d} (by its {other_by})"
    )
    if one_by.startswith("tag") and other_by.startswith("tag"):
        raise ConditionError(f"{told}; the earlier one comes first, swap them.")
    logger.warning("%s; the earlier one comes first. Are they swapped?", told)
