"""Open the sources of a change mask and decide what they are.

There are four kinds: polygons, a class raster that says what changed, the land cover of
two dates, and two images between which change is detected. Pixels are computed by the
modules of the kinds; here their inputs are checked and brought together.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rsupres.change.class_palettes import guessed_table
from rsupres.change.class_rasters import (
    ClassRaster,
    CoverPair,
    codes_present,
    fingerprint_of,
    needed_window,
    open_class_raster,
)
from rsupres.change.detection import Method
from rsupres.change.images import DetectedChange
from rsupres.change.on_grid import MaskPixels, OnGrid
from rsupres.change.options import ChangeOptions, DetectionOptions
from rsupres.change.polygons import PolygonMask, is_vector
from rsupres.errors import ConditionError, InputError
from rsupres.grid import Grid, PixelWindow
from rsupres.legends.class_table import (
    CHANGED,
    NODATA,
    TABLE_TAG,
    ClassTable,
    load_class_table,
    shipped_class_tables,
)
from rsupres.raster.dataset import Raster
from rsupres.raster.files import date_of

logger = logging.getLogger(__name__)

MAX_CLASSES = 40  # different values; an image of one band has more

Kind = Literal["polygons", "classes", "land cover", "detected"]


class OpenSources(NamedTuple):
    """The open sources of a change mask.

    Attributes:
        kind: polygons, classes, land cover or images.
        pixels: mask values on the SR grid.
        table: class table of the values, None when no class is known.
        files: name, date and hash of each file.
        method: that detected change, None where nothing was detected.
    """

    kind: Kind
    pixels: MaskPixels
    table: ClassTable | None
    files: tuple[Mapping[str, object], ...]
    method: Method | None = None


def open_sources(
    sources: Sequence[str | Raster],
    grid: Grid,
    options: ChangeOptions,
    stack: ExitStack,
) -> OpenSources:
    """Return one source or two, open on an SR grid.

    Args:
        sources: polygons or a class raster; or the earlier and the later raster.
        grid: SR grid.
        options: how the sources are read.
        stack: closes the files that are opened here.

    Raises:
        ConditionError: of another place, codes of another table, dates in the wrong
            order, images that cannot be compared, or an option without effect.
        InputError: a file is missing, damaged, without CRS, or not of its kind.
    """
    if len(sources) == 2:
        return _open_two(sources, grid, options, stack)
    (source,) = sources
    if isinstance(source, str) and is_vector(source):
        return _open_polygons(source, grid, options)
    raster = _open_raster(source, stack)
    return _open_labels(raster, grid, options)


def _open_polygons(path: str, grid: Grid, options: ChangeOptions) -> OpenSources:
    if options.class_table and not options.class_attribute:
        raise ConditionError(
            f"{options.class_table}: has no effect without the attribute of the "
            f"polygons in {path} that holds their class.",
            argument="class_table",
            remedies=("class_attribute",),
        )
    table = None
    if options.class_table is not None:
        table = load_class_table(options.class_table)
        if options.output_table is not None:
            table = table.as_table(load_class_table(options.output_table))
    polygons = PolygonMask(path, grid, table, options.class_attribute)
    return OpenSources("polygons", polygons, table, (polygons.fingerprint(),))


def _open_labels(scene: Raster, grid: Grid, options: ChangeOptions) -> OpenSources:
    """Return a class raster whose codes say what changed."""
    raster = open_class_raster(scene, options.class_table, grid, is_mask=True)
    if options.output_table and raster.table is None:
        raise ConditionError(
            f"{scene.path}: the class table of its codes is not known; name it.",
            remedies=("class_table",),
        )
    raster = _converted(raster, options)
    files = (fingerprint_of(scene),)
    return OpenSources("classes", OnGrid(raster, grid), raster.table, files)


def _open_two(
    sources: Sequence[str | Raster],
    grid: Grid,
    options: ChangeOptions,
    stack: ExitStack,
) -> OpenSources:
    for source in sources:
        if isinstance(source, str) and is_vector(source):
            raise InputError(
                f"{source}: polygons say what changed by themselves; give them alone, "
                "or two rasters."
            )
    before, after = (_open_raster(source, stack) for source in sources)
    _check_dates(before, after)
    covers = options.covers
    if covers is None:
        covers = _are_covers(before, after, grid, options)
    if covers:
        _refuse_options_of_images(before, after, options)
        pair, table = _cover_pair(before, after, grid, options)
        files = (fingerprint_of(before), fingerprint_of(after))
        return OpenSources("land cover", OnGrid(pair, grid), table, files)
    _refuse_options_of_covers(before, after, options)
    return _open_images(before, after, grid, options, stack)


def _open_images(
    before: Raster,
    after: Raster,
    grid: Grid,
    options: ChangeOptions,
    stack: ExitStack,
) -> OpenSources:
    """Detect change between two images; a land cover gives it classes."""
    for scene in (before, after):
        if scene.has_palette:
            raise InputError(
                f"{scene.path}: has a palette, so its pixels are classes, not an "
                "image; to compare land covers, both must have classes."
            )
    files: tuple[Mapping[str, object], ...] = (
        fingerprint_of(before),
        fingerprint_of(after),
    )
    detected = DetectedChange(before, after, grid, options.detection)
    on_grid = OnGrid(detected, grid)
    if options.land_cover is None:
        return OpenSources("detected", on_grid, None, files, detected.method)
    scene = _open_raster(options.land_cover, stack)
    cover = _converted(
        open_class_raster(scene, options.class_table, grid, is_mask=False), options
    )
    assert cover.table is not None
    pixels = _Classified(on_grid, OnGrid(cover, grid), cover.table.unknown)
    files = (*files, fingerprint_of(scene))
    return OpenSources("detected", pixels, cover.table, files, detected.method)


class _Classified:
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


def _refuse_options_of_images(
    before: Raster, after: Raster, options: ChangeOptions
) -> None:
    detection, default = options.detection, DetectionOptions()
    useless = {
        "land_cover": options.land_cover is not None,
        "significance": detection.significance != default.significance,
        "threshold": detection.threshold is not None,
        "method": detection.method != default.method,
    }
    _refuse(useless, before, after, "land covers")


def _refuse_options_of_covers(
    before: Raster, after: Raster, options: ChangeOptions
) -> None:
    if options.land_cover is None:
        useless = {
            "class_table": options.class_table is not None,
            "output_table": options.output_table is not None,
        }
        _refuse(useless, before, after, "images, and no land cover of them is given")


def _refuse(
    useless: Mapping[str, bool], before: Raster, after: Raster, kind: str
) -> None:
    for name, is_given in useless.items():
        if is_given:
            raise ConditionError(
                f"has no effect: {before.path} and {after.path} are read as {kind}.",
                argument=name,
                remedies=() if name == "method" else ("method",),
            )


def _cover_pair(
    before: Raster, after: Raster, grid: Grid, options: ChangeOptions
) -> tuple[CoverPair, ClassTable]:
    """Return two land covers of one table; refuse different tables."""
    if options.class_table is None:
        names = [_own_table(scene, grid) or "unknown" for scene in (before, after)]
        if names[0] != names[1]:
            raise ConditionError(
                f"{before.path} and {after.path} have different class tables "
                f"({names[0]} and {names[1]}); bring both to one, or name the table of "
                "both.",
                remedies=("class_table",),
            )
    one, other = (
        _converted(
            open_class_raster(scene, options.class_table, grid, is_mask=False), options
        )
        for scene in (before, after)
    )
    assert other.table is not None
    pair = CoverPair(one, other, grid, options.detection.minimum_area_m2)
    return pair, other.table


def _own_table(scene: Raster, grid: Grid) -> str | None:
    """Return the class table that a raster names or that fits its codes alone."""
    tag = scene.any_tag(TABLE_TAG)
    guess = guessed_table(scene, _codes_over(scene, grid))
    return tag if tag in shipped_class_tables() else guess


def _codes_over(scene: Raster, grid: Grid) -> NDArray[np.int32]:
    """Return the codes of a one-band raster over a grid; none of any other raster."""
    if len(scene.data_bands) != 1 or np.dtype(scene.dtype).kind not in "iu":
        return np.empty(0, np.int32)
    return codes_present(scene, needed_window(scene, grid), None)


def _converted(raster: ClassRaster, options: ChangeOptions) -> ClassRaster:
    """Return a raster with values of the output table, when one is asked for."""
    if options.output_table is None or raster.table is None:
        return raster
    target = load_class_table(options.output_table)
    if raster.as_labels and raster.table.kind == "cover":
        raise ConditionError(
            f"{raster.scene.path}: a mask of {raster.table.name} cannot be converted "
            f"to {target.name}; make it again from the land covers."
        )
    return replace(raster, table=raster.table.as_table(target))


def _are_covers(
    before: Raster, after: Raster, grid: Grid, options: ChangeOptions
) -> bool:
    """Return whether two rasters look like land covers: one band of few codes."""
    for scene in (before, after):
        if len(scene.data_bands) != 1 or np.dtype(scene.dtype).kind not in "iu":
            return False
    if options.class_table and not options.land_cover:
        return True
    return any(
        scene.has_palette
        or bool(scene.any_tag(TABLE_TAG))
        or 0 < len(_codes_over(scene, grid)) <= MAX_CLASSES
        for scene in (before, after)
    )


def _open_raster(source: str | Raster, stack: ExitStack) -> Raster:
    if isinstance(source, Raster):
        return source
    return stack.enter_context(Raster.open(source, is_classes=True))


def _check_dates(before: Raster, after: Raster) -> None:
    """Refuse two rasters whose tags say that the earlier one is given second."""
    (one, one_by), (other, other_by) = date_of(before), date_of(after)
    if one <= other or "file time" in (one_by, other_by):
        return
    dates = (
        f"{before.path} is of {one:%Y-%m-%d} (by its {one_by}) and {after.path} of "
        f"{other:%Y-%m-%d} (by its {other_by})"
    )
    if one_by.startswith("tag") and other_by.startswith("tag"):
        raise ConditionError(f"{dates}; the earlier one comes first, swap them.")
    logger.warning("%s; the earlier one comes first. Are they swapped?", dates)
