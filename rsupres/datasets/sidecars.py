"""Which files belong to an image: its reference, its map, its change mask.

For test sets and training images, whose companions lie on the same pixels in files of
related names: `riverside_2020_7.tif` has the reference `riverside_2018_7.tif`. A map
may also be vector files that cover all images. Scenes take their conditions from
`rsupres.conditions.open` instead, which resamples.
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
_NEAR = 1e-3  # pixels by which frames may differ


@dataclass(frozen=True)
class Sidecars:
    """Where the companions of an image are found.

    Attributes:
        reference: rules "OLD=NEW": the last OLD in the image's path becomes NEW; all
            rules in order make the path of the reference.
        vector_map: such rules for a raster of legend colours, or vector files.
        change_mask: such rules for a raster of codes, or of a class table's colours.
        legend: name or file, for vector files.
        class_table: class table of the change masks, None = codes as they are.
    """

    reference: tuple[str, ...] = ()
    vector_map: tuple[str, ...] = ()
    change_mask: tuple[str, ...] = ()
    legend: str = DEFAULT_COLOUR_LEGEND
    class_table: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the layers that `attach` adds, sorted."""
        names = [n for n in ("vector_map", "change_mask") if getattr(self, n)]
        if self.reference:
            names += ["reference", "reference_valid"]
        return tuple(sorted(names))

    def as_told(self, images: Sequence[Path]) -> Sidecars:
        """Return the same with the legend and class table that the files name.

        `rsupres tile`, `rasterize` and `change` write them into what they make; other
        files say nothing, and then nothing changes.

        Args:
            images: the images whose companions are looked at.

        Raises:
            InputError: files name different ones, or others than `class_table`.
        """
        legend, classes = self.legend, self.class_table
        if any("=" in text for text in self.vector_map):
            option = "--vector-map-from"
            found = _told(images, self.vector_map, option, LEGEND_TAG)
            legend = found or legend
        if self.change_mask:
            option = "--change-mask-from"
            found = _told(images, self.change_mask, option, TABLE_TAG)
            if found and classes and load_class_table(classes).name != found:
                raise InputError(
                    f"The change masks hold classes of {found}, not of {classes}; "
                    "leave --class-table away, or name theirs."
                )
            if found and not classes and found not in shipped_class_tables():
                raise InputError(
                    f"The change masks hold classes of {found}, which is no table that"
                    " is shipped; name its file with --class-table."
                )
            classes = classes or found
        return replace(self, legend=legend, class_table=classes)

    def attach(self, chip: Chip, path: Path) -> Chip:
        """Return an image with its companions as layers.

        Args:
            chip: the whole image.
            path: its file.

        Raises:
            InputError: a rule does not fit the path, a companion is missing, or it does
                not lie on the image's pixels.
            ConditionError: vector files do not touch the image.
        """
        layers: dict[str, NDArray[np.uint8]] = {}
        if self.reference:
            other = renamed(path, self.reference, "--reference-from")
            reference = read_chip(other)
            _check_frame(path, chip, other, reference.valid.shape, reference.grid)
            layers["reference"] = reference.pixels
            layers["reference_valid"] = reference.valid[None].astype(np.uint8)
        if self.change_mask:
            other = renamed(path, self.change_mask, "--change-mask-from")
            layers["change_mask"] = _read_codes(path, chip, other, self.class_table)
        if self.vector_map:
            layers["vector_map"] = self._read_map(path, chip)
        return replace(chip, layers={**chip.layers, **layers})

    def _read_map(self, path: Path, chip: Chip) -> NDArray[np.uint8]:
        rules = ["=" in text for text in self.vector_map]
        if any(rules):
            if not all(rules):
                raise InputError(
                    "--vector-map-from takes either rules OLD=NEW or vector files."
                )
            other = renamed(path, self.vector_map, "--vector-map-from")
            drawn = read_chip(other)
            _check_frame(path, chip, other, drawn.valid.shape, drawn.grid)
            return drawn.pixels
        return _burn(path, chip, self.vector_map, self.legend)


def renamed(path: Path, rules: Sequence[str], option: str) -> Path:
    """Return the path that rules "OLD=NEW" make of an image's.

    The last OLD in the path is replaced, so that the name counts before the folders.

    Raises:
        InputError: not a rule, OLD is not in the path, or no such file; or it is the
            image itself.
    """
    text = str(path)
    for rule in rules:
        old, sign, new = rule.partition("=")
        if not sign or not old:
            raise InputError(f"{option} {rule}: expected OLD=NEW, such as 2020=2018.")
        head, found, tail = text.rpartition(old)
        if not found:
            raise InputError(f"{path}: {option} {rule} does not fit this name.")
        text = head + new + tail
    other = Path(text)
    if other == path:
        raise InputError(f"{path}: {option} {' '.join(rules)} names the image itself.")
    if not other.is_file():
        raise InputError(f"{path}: {option} asks for {other}, which does not exist.")
    return other


def _told(
    images: Sequence[Path], rules: Sequence[str], option: str, tag: str
) -> str | None:
    """Return what a tag of the companions says, None when they say nothing."""
    found: dict[str, Path] = {}
    for path in images:
        other = renamed(path, rules, option)
        with Raster.open(other, needs_crs=False, is_classes=True) as scene:
            found.setdefault(scene.any_tag(tag), other)
    if len(found) > 1:
        (one, first), (two, second), *_ = found.items()
        raise InputError(
            f"{first} is of {one or 'nothing that it tells'}, {second} of "
            f"{two or 'nothing that it tells'}; make a pack of each."
        )
    return next(iter(found), None) or None


def _read_codes(
    path: Path, chip: Chip, other: Path, table_name: str | None
) -> NDArray[np.uint8]:
    """Return (1, H, W) codes; invalid pixels are not known.

    Labels in colours need a class table: SECOND's are white where nothing changed, and
    `im2=label2` gives what is there at the later date.
    """
    from rsupres.change.class_rasters import read_codes

    table = None if table_name is None else load_class_table(table_name)
    with Raster.open(other, needs_crs=False, is_classes=True) as scene:
        grid = scene.grid
        _check_frame(path, chip, other, (grid.height, grid.width), grid)
        n_bands = len(scene.data_bands)
        if n_bands != 1 and (n_bands != 3 or table is None):
            raise InputError(
                f"{other}: a change mask has one band, not {n_bands}; colours need "
                "their class table, such as --class-table second."
            )
        if table is not None:
            codes, valid = read_codes(scene, grid.window, table)
            # Masks that we wrote hold values of masks, whatever the table's codes.
            is_labels = table.kind == "change" or bool(scene.any_tag(TABLE_TAG))
            known = np.full(codes.shape, _UNKNOWN, np.uint8)
            known[valid] = table.to_mask(codes[valid], str(other), as_labels=is_labels)
            return known[np.newaxis]
        plain, valid = scene.read(grid.window, (1,))
    if (plain[valid] > 255).any() or (plain[valid] % 1 != 0).any():
        raise InputError(f"{other}: a change mask holds codes 0 to 255, not these.")
    return np.where(valid, plain, _UNKNOWN).astype(np.uint8)


def _burn(
    path: Path, chip: Chip, files: Sequence[str], legend: str
) -> NDArray[np.uint8]:
    """Return the legend's picture (3, H, W) of vector files on an image."""
    from rsupres.legends.legend_file import load_legend
    from rsupres.vector.map import VectorMap

    drawn = load_legend(legend)
    if drawn.n_bands != 3:
        raise InputError(f"--legend {legend} has codes; models look at colours.")
    if chip.grid is None:
        raise InputError(f"{path}: has no CRS, so no vector map can be laid over it.")
    try:
        with VectorMap.open(files, chip.grid, drawn) as opened:
            return opened.burn(chip.grid.window)
    except ConditionError as error:
        raise ConditionError(f"{path}: {error}") from error


def _check_frame(
    path: Path, chip: Chip, other: Path, size: tuple[int, ...], grid: Grid | None
) -> None:
    """Refuse a companion that does not lie on the image's pixels."""
    same = size == chip.valid.shape
    if same and grid is not None and grid.crs and chip.grid is not None:
        moved = ~chip.grid.transform @ grid.transform
        corners = ((0, 0), (size[1], 0), (0, size[0]))
        same = grid.crs == chip.grid.crs and all(
            abs(a - b) < _NEAR
            for corner in corners
            for a, b in zip(moved @ corner, corner, strict=True)
        )
    if not same:
        raise InputError(
            f"{other}: does not lie on the pixels of {path}; bring it there, for"
            f" example with rio warp --like {path.name}."
        )
