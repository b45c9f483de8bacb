"""Folder layouts in which the sidecars of each image are found without rules.

They are the folders that `rsupres tile` writes, and the data sets of Ref-Diff: SECOND
and CNAM-CD as its authors arrange them (`HR_512`, `Ref`, `CD_mask` and LR folders by
scale, all with the same file names). A layout is turned into the rules of
`rsupres.datasets.sidecars`; no pixel is read here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from rsupres.errors import InputError
from rsupres.tiles.index import FOLDERS, HR, INDEX, LR, read_index

_HR_512, _REF, _MASK, _MASK_RGB = "HR_512", "Ref", "CD_mask", "CD_mask_RGB"


@dataclass(frozen=True)
class Layout:
    """Images, rules and scale that follow from folders.

    Attributes:
        inputs: folders of HR images, instead of those given.
        lr_from: rules "OLD=NEW" for LR of another sensor; empty without such LR.
        rules: such rules by field of `Sidecars`.
        scale: of the LR images, None without LR images.
        needs_classes: the masks have no meaning without a class table.
    """

    inputs: tuple[Path, ...]
    lr_from: tuple[str, ...]
    rules: Mapping[str, tuple[str, ...]]
    scale: Fraction | None
    needs_classes: bool = False


def tile_folder(path: Path) -> Path | None:
    """Return the folder of tiles that an image belongs to; None = it is no tile."""
    folder = path.absolute().parent.parent
    is_tile = path.absolute().parent.name == HR and (folder / INDEX).is_file()
    return folder if is_tile else None


def find_layout(inputs: Sequence[Path], scale: Fraction | None) -> Layout | None:
    """Return the layout of folders; None for folders of plain images.

    Args:
        inputs: folders and files, all of the same layout or all without.
        scale: of the wanted LR. None = that of tiles; no LR of Ref-Diff's data sets.

    Raises:
        InputError: layouts are mixed, tiles differ in scale or kinds, there is no HR,
            or no LR of the scale.
    """
    tiles = [path for path in inputs if (path / INDEX).is_file()]
    arranged = [path for path in inputs if (path / _HR_512).is_dir()]
    for found in (tiles, arranged):
        if found and len(found) < len(inputs):
            other = next(path for path in inputs if path not in found)
            raise InputError(
                f"{found[0]} and {other}: folders of different layouts; make a pack of "
                "each."
            )
    if tiles:
        return _of_tiles(tiles, scale)
    return _of_refdiff(arranged, scale) if arranged else None


def _of_tiles(folders: Sequence[Path], scale: Fraction | None) -> Layout:
    indices = [read_index(folder / INDEX) for folder in folders]
    first = indices[0]
    for folder, index in zip(folders, indices, strict=True):
        if HR not in index.kinds:
            raise InputError(
                f"{folder}: holds no HR tiles; cut the scene together with HR images."
            )
        if index.kinds != first.kinds or index.plan.scale != first.plan.scale:
            raise InputError(
                f"{folder}: scale {index.plan.scale} and {', '.join(index.kinds)} "
                f"differ from scale {first.plan.scale} and {', '.join(first.kinds)} of "
                f"{folders[0]}; cut both in the same way."
            )
    if scale not in (None, first.plan.scale):
        raise InputError(
            f"{folders[0]}: its tiles were cut for scale {first.plan.scale}, not "
            f"{scale}."
        )
    rules = {kind: (f"/{HR}/=/{FOLDERS[kind]}/",) for kind in first.kinds if kind != HR}
    inputs = tuple(folder.absolute() / HR for folder in folders)
    return Layout(inputs, (f"/{HR}/=/{LR}/",), rules, first.plan.scale)


def _of_refdiff(folders: Sequence[Path], scale: Fraction | None) -> Layout:
    first = folders[0]
    mask = _MASK if (first / _MASK).is_dir() else _MASK_RGB
    for folder in folders:
        for name in (_REF, mask):
            if not (folder / name).is_dir():
                raise InputError(f"{folder}: has {_HR_512} and no folder {name}.")
    lr_from: tuple[str, ...] = ()
    if scale is not None:
        names = [
            {p.name for p in folder.glob(f"*_LR_D{scale}_*") if p.is_dir()}
            for folder in folders
        ]
        common = sorted(set.intersection(*names))
        if len(common) != 1:
            raise InputError(
                f"{scale}: {first} needs exactly one folder *_LR_D{scale}_*; without a "
                "scale LR is made by a degradation.",
                argument="scale",
            )
        lr_from = (f"/{_HR_512}/=/{common[0]}/",)
    rules = {
        "reference": (f"/{_HR_512}/=/{_REF}/",),
        "change_mask": (f"/{_HR_512}/=/{mask}/",),
    }
    inputs = tuple(folder.absolute() / _HR_512 for folder in folders)
    return Layout(inputs, lr_from, rules, scale, needs_classes=True)
