"""Sidecars: the files with the reference, map and change mask of a small image.

They lie on the pixels of the image and have related names: `riverside_2020_7.tif` has
the reference `riverside_2018_7.tif`. A map may also be vector files that cover all
images. A sidecar is read whole and never resampled, unlike the conditions of a scene
(`rsupres.conditions.open`), which are opened once and read by window.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rsupres.datasets.chips import Chip, read_chip
from rsupres.errors import ConditionError, InputError
from rsupres.grid import Grid
from rsupres.legends.class_table import (
    TABLE_TAG,
    load_class_table,
    shipped_class_tables,
)
from rsupres.legends.legend import DEFAULT_COLOUR_LEGEND, LEGEND_TAG
from rsupres.raster.dataset import Raster

_UNKNOWN = 255  # code of a change mask
_MAX_SHIFT = 1e-3  # pixels by which grids may differ


@dataclass(frozen=True)
class Sidecars:
    """The rules by which the sidecars of an image are found.

    Attributes:
        reference: rules "OLD=NEW". Each replaces the last OLD in the path of the image
            by NEW; the result of all rules is the path of the reference.
        vector_map: such rules for a raster of legend colours, or vector files.
        change_mask: such rules for a raster of codes or of colours of a class table.
        legend: name or file of the legend in which vector files are drawn.
        class_table: class table of the change masks; None = plain codes.
        lr: such rules for the LR image of the same ground.
    """

    reference: tuple[str, ...] = ()
    vector_map: tuple[str, ...] = ()
    change_mask: tuple[str, ...] = ()
    legend: str = DEFAULT_COLOUR_LEGEND
    class_table: str | None = None
    lr: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the layers that `attach` adds, sorted."""
        names = [n for n in ("vector_map", "change_mask") if getattr(self, n)]
        if self.reference:
            names += ["reference", "reference_valid"]
        return tuple(sorted(names))

    def with_names_from_files(self, images: Sequence[Path]) -> Sidecars:
        """Return the same rules with the legend and class table that files name.

        The commands `tile`, `rasterize` and `change` write these names as tags. Files
        without tags change nothing.

        Raises:
            InputError: files name different ones, or others than `class_table`.
        """
        legend, classes = self.legend, self.class_table
        if any("=" in text for text in self.vector_map):
            found = _read_tag(images, self.vector_map, "vector_map_from", LEGEND_TAG)
            legend = found or legend
        if self.change_mask:
            found = _read_tag(images, self.change_mask, "change_mask_from", TABLE_TAG)
            if found and classes and load_class_table(classes).name != found:
                raise InputError(
                    f"{classes}: the change masks hold classes of {found}, "
                    f"not of {classes}.",
                    argument="class_table",
                )
            if found and not classes and found not in shipped_class_tables():
                raise InputError(
                    f"The change masks hold classes of {found}, which is no shipped "
                    "class table; name its file.",
                    remedies=("class_table",),
                )
            classes = classes or found
        return replace(self, legend=legend, class_table=classes)

    def files_of(self, path: Path) -> dict[str, list[str]]:
        """Return the files that are read with an image, by argument.

        Raises:
            InputError: a rule does not fit the path, or names no file.
        """
        found: dict[str, list[str]] = {}
        for name in ("reference", "vector_map", "change_mask"):
            rules = getattr(self, name)
            if rules and all("=" in text for text in rules):
                argument = f"{name}_from"
                found[argument] = [str(renamed(path, rules, argument))]
            elif name == "vector_map":
                found["vector_map_from"] = [*rules]
        return found

    def attach(self, chip: Chip, path: Path) -> Chip:
        """Return an image with its sidecars as layers.

        Args:
            chip: the whole image.
            path: its file.

        Raises:
            InputError: a rule does not fit the path, or a sidecar is missing or does
                not lie on the pixels of the image.
            ConditionError: vector files do not touch the image.
        """
        layers: dict[str, NDArray[np.uint8]] = {}
        if self.reference:
            other = renamed(path, self.reference, "reference_from")
            reference = read_chip(other)
            _check_frame(path, chip, other, reference.valid.shape, reference.grid)
            layers["reference"] = reference.pixels
            layers["reference_valid"] = reference.valid[None].astype(np.uint8)
        if self.change_mask:
            other = renamed(path, self.change_mask, "change_mask_from")
            layers["change_mask"] = _read_codes(path, chip, other, self.class_table)
        if self.vector_map:
            layers["vector_map"] = self._read_map(path, chip)
        lr = read_chip(renamed(path, self.lr, "lr_from")).pixels if self.lr else chip.lr
        return replace(chip, layers={**chip.layers, **layers}, lr=lr)

    def _read_map(self, path: Path, chip: Chip) -> NDArray[np.uint8]:
        rules = ["=" in text for text in self.vector_map]
        if any(rules):
            if not all(rules):
                raise InputError(
                    "takes either rules OLD=NEW or vector files.",
                    argument="vector_map_from",
                )
            other = renamed(path, self.vector_map, "vector_map_from")
            drawn = read_chip(other)
            _check_frame(path, chip, other, drawn.valid.shape, drawn.grid)
            return drawn.pixels
        return _burn(path, chip, self.vector_map, self.legend)


def renamed(path: Path, rules: Sequence[str], argument: str) -> Path:
    """Return the sidecar of an image by rules "OLD=NEW".

    Args:
        path: the image.
        rules: each replaces the last OLD in the path, so the file name comes before
            the folders.
        argument: name of the argument that holds the rules, for messages.

    Raises:
        InputError: a text is no rule, OLD is not in the path, or the result does not
            exist or is the image itself.
    """
    text = str(path)
    for rule in rules:
        old, sign, new = rule.partition("=")
        if not sign or not old:
            raise InputError(
                f"{rule}: expected OLD=NEW, such as 2020=2018.", argument=argument
            )
        head, found, tail = text.rpartition(old)
        if not found:
            raise InputError(f"{rule} does not fit the name {path}.", argument=argument)
        text = head + new + tail
    other = Path(text)
    if other == path:
        raise InputError(
            f"{' '.join(rules)} names the image {path} itself.", argument=argument
        )
    if not other.is_file():
        raise InputError(
            f"{' '.join(rules)} gives {other} for {path}, which does not exist.",
            argument=argument,
        )
    return other


def _read_tag(
    images: Sequence[Path], rules: Sequence[str], argument: str, tag: str
) -> str | None:
    """Return the value of a tag of all sidecars, None when they have no such tag."""
    found: dict[str, Path] = {}
    for path in images:
        other = renamed(path, rules, argument)
        with Raster.open(other, needs_crs=False, is_classes=True) as scene:
            found.setdefault(scene.any_tag(tag), other)
    if len(found) > 1:
        (one, first), (two, second), *_ = found.items()
        raise InputError(
            f"{first} names {one or 'nothing'} as its {tag}, {second} names "
            f"{two or 'nothing'}; make a pack of each."
        )
    return next(iter(found), None) or None


def _read_codes(
    path: Path, chip: Chip, other: Path, table_name: str | None
) -> NDArray[np.uint8]:
    """Return a change mask's codes (1, H, W); invalid pixels are unknown."""
    from rsupres.change.class_palettes import palette_entries
    from rsupres.change.class_rasters import check_plain, read_codes

    table = None if table_name is None else load_class_table(table_name)
    with Raster.open(other, needs_crs=False, is_classes=True) as scene:
        grid = scene.grid
        _check_frame(path, chip, other, (grid.height, grid.width), grid)
        n_bands = len(scene.data_bands)
        if n_bands != 1 and (n_bands != 3 or table is None):
            raise InputError(
                f"{other}: a change mask has one band, not {n_bands}; colours need "
                "their class table.",
                remedies=("class_table=second",),
            )
        if table is not None:
            codes, valid = read_codes(scene, grid.window, table)
            if n_bands == 1:
                entries = palette_entries(scene, table, np.unique(codes[valid]))
                codes = codes if entries is None else entries[codes]
            # Masks that rsupres wrote hold mask values, not the codes of the table.
            is_labels = table.kind == "change" or bool(scene.any_tag(TABLE_TAG))
            known = np.full(codes.shape, _UNKNOWN, np.uint8)
            known[valid] = table.to_mask(codes[valid], str(other), as_labels=is_labels)
            return known[np.newaxis]
        plain, valid = scene.read(grid.window, (1,))
        seen = plain[valid]
        if (seen > 255).any() or (seen < 0).any() or (seen % 1 != 0).any():
            raise InputError(f"{other}: a change mask holds whole codes from 0 to 255.")
        check_plain(scene, np.unique(seen).astype(np.int32), is_mask=True)
    return np.where(valid, plain, _UNKNOWN).astype(np.uint8)


def _burn(
    path: Path, chip: Chip, files: Sequence[str], legend: str
) -> NDArray[np.uint8]:
    """Return vector files drawn in a legend's colours on an image, (3, H, W)."""
    from rsupres.legends.legend_file import load_legend
    from rsupres.vector.map import VectorMap

    drawn = load_legend(legend)
    if drawn.n_bands != 3:
        raise InputError(
            f"{legend} has codes, but models need colours.", argument="legend"
        )
    if chip.grid is None:
        raise InputError(f"{path}: has no CRS, so no vector map can be drawn on it.")
    try:
        with VectorMap.open(files, chip.grid, drawn) as opened:
            return opened.burn(chip.grid.window)
    except ConditionError as error:
        raise ConditionError(f"{path}: {error}") from error


def _check_frame(
    path: Path, chip: Chip, other: Path, size: tuple[int, ...], grid: Grid | None
) -> None:
    """Refuse a sidecar that does not lie on the pixels of the image."""
    same = size == chip.valid.shape
    if same and grid is not None and grid.crs and chip.grid is not None:
        moved = ~chip.grid.transform @ grid.transform
        corners = ((0, 0), (size[1], 0), (0, size[0]))
        same = grid.crs == chip.grid.crs and all(
            abs(a - b) < _MAX_SHIFT
            for corner in corners
            for a, b in zip(moved @ corner, corner, strict=True)
        )
    if not same:
        raise InputError(
            f"{other}: does not lie on the pixels of {path}; resample it to that grid,"
            f" for example with rio warp."
        )
