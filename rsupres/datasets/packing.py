"""Build packs: cut image files into crops, attach their layers, make or cut LR.

`rsupres.datasets.splits` chooses the images of a split, `rsupres.datasets.packs` knows
the file format, and `rsupres.datasets.inspection` checks the result.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from rsupres.datasets.chips import (
    Chip,
    ChipOptions,
    Pixels,
    coarsen,
    cut,
    read_chip,
    to_levels,
)
from rsupres.datasets.packs import (
    HR_MULTIPLE,
    MIN_SIDE,
    CropOrigin,
    PackMeta,
    to_floats,
    write_pack,
)
from rsupres.datasets.sidecars import Sidecars, renamed
from rsupres.datasets.splits import place_of
from rsupres.degradations.registry import make_degradation
from rsupres.errors import InputError
from rsupres.grid import Grid, PixelWindow
from rsupres.tile_grid import lr_step

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PackOptions:
    """Settings by which crops are cut and their LR is made.

    Attributes:
        gsds_m: metres per pixel to which HR images are coarsened; empty = unchanged.
        side: largest crop side, HR pixels.
        max_bytes: largest size of the HR crops of one pack; None = no limit.
        degradation: a name of `rsupres.degradations.registry`, or "stored".
        parameters: of the degradation, plain JSON values.
        licence: licence and attribution of the images.
        seed: seed of the choice of crops and of stored LR crops.
        scale: store LR crops of this scale too; None = LR is computed while training.
        lr_from: rules "OLD=NEW" that name the LR image of another sensor, of that
            scale.
        sidecars: where references, maps and change masks are found.
        readings: bands, stretch and bits of the crops; each makes crops of its own.
    """

    gsds_m: tuple[float, ...] = ()
    side: int = 256
    max_bytes: int | None = None
    degradation: str = "bicubic"
    parameters: Mapping[str, object] = field(default_factory=dict)
    licence: str = ""
    seed: int = 0
    scale: Fraction | None = None
    lr_from: tuple[str, ...] = ()
    sidecars: Sidecars = field(default_factory=Sidecars)
    readings: tuple[ChipOptions, ...] = (ChipOptions(),)


def build_pack(
    path: Path,
    images: Sequence[Path],
    pattern: re.Pattern[str] | None,
    split: str,
    plan: PackOptions,
    on_image: Callable[[int], None] | None = None,
) -> list[tuple[Path, Grid]]:
    """Write crops of images as one pack; return used files with a CRS, and their grids.

    With a size limit, images are taken in a random order until the pack is full, so all
    places and GSDs keep their shares on average.

    Args:
        path: the pack to write.
        images: files of one split.
        pattern: see `place_of`.
        split: "train" or "validation".
        plan: how crops are cut and their LR is made.
        on_image: called with the number of images done.

    Raises:
        InputError: an image cannot be read, or no crop is large enough.
    """
    plan = replace(plan, sidecars=plan.sidecars.with_names_from_files(images))
    if plan.max_bytes:
        order = np.random.default_rng(plan.seed).permutation(len(images))
        images = [images[index] for index in order]
    crops: list[_Crop] = []
    frames: list[tuple[Path, Grid]] = []
    for done, image in enumerate(images, start=1):
        is_full, grid = _add_image(crops, image, place_of(image, pattern), plan)
        if grid is not None:
            frames.append((image, grid))
        if on_image:
            on_image(done)
        if is_full:
            break
    if not crops:
        raise InputError(
            f"{path}: {len(images)} images give no crop of at least {MIN_SIDE} pixels.",
            remedies=("gsds_m", "max_bytes"),
        )
    _write(path, crops, split, plan)
    return frames


class _Crop(NamedTuple):
    """A crop with its layers, and its LR when that comes from another sensor."""

    chip: Chip
    lr: Pixels | None = None
    place: str = ""


def _add_image(
    crops: list[_Crop], image: Path, place: str, plan: PackOptions
) -> tuple[bool, Grid | None]:
    """Add an image's crops; return whether the pack is full, and the image's grid."""
    first: Chip | None = None
    for reading in plan.readings:
        chip = read_chip(image, reading)
        if first is None:
            first = chip = plan.sidecars.attach(chip, image)
        chip = replace(chip, layers=first.layers, lr=first.lr)
        if _add_crops(crops, chip, image, place, plan):
            return True, chip.grid
    return False, None if first is None else first.grid


def _add_crops(
    crops: list[_Crop], chip: Chip, image: Path, place: str, plan: PackOptions
) -> bool:
    """Add the crops of an image to a list; return whether the pack is full."""
    n_bytes = sum(crop.chip.pixels.nbytes for crop in crops)
    for crop in _make_crops(chip, image, plan):
        n_bytes += crop.chip.pixels.nbytes
        if plan.max_bytes is not None and n_bytes > plan.max_bytes:
            return True
        crops.append(crop._replace(place=place))
    return False


def _write(
    path: Path,
    crops: Sequence[_Crop],
    split: str,
    plan: PackOptions,
) -> None:
    names = plan.sidecars.names
    meta = PackMeta(
        split=split,
        degradation=plan.degradation,
        crops=tuple(
            CropOrigin(crop.place, crop.chip.name, crop.chip.gsd_m) for crop in crops
        ),
        parameters=plan.parameters,
        licence=plan.licence,
        seed=plan.seed,
        lr_scale=str(plan.scale) if plan.scale else None,
        layers=names,
        legend=plan.sidecars.legend if "vector_map" in names else "",
        classes=plan.sidecars.class_table or "",
    )
    pixels = [crop.chip.pixels for crop in crops]
    lr = [crop.lr for crop in crops if crop.lr is not None] or _make_lr(pixels, plan)
    layers = {name: [crop.chip.layers[name] for crop in crops] for name in names}
    write_pack(path, pixels, meta, lr, layers)


def _make_crops(chip: Chip, path: Path, plan: PackOptions) -> Iterator[_Crop]:
    if plan.lr_from:
        yield from _cut_pair(chip, path, plan)
        return
    for gsd_m in plan.gsds_m or (chip.gsd_m,):
        if chip.gsd_m and gsd_m < chip.gsd_m * 0.98:
            logger.info("%s: %g m is finer than the image.", chip.name, gsd_m)
            continue
        same = not plan.gsds_m or gsd_m <= chip.gsd_m * 1.02
        # A size within 2 % is the one asked for, by which weights find the crops.
        sized = replace(chip, gsd_m=gsd_m) if same else coarsen(chip, gsd_m)
        for part in cut(sized, plan.side):
            n = 1 if plan.scale is None else plan.scale.numerator  # whole LR pixels
            height, width = (side // n * n for side in part.valid.shape)
            if min(height, width) >= MIN_SIDE:
                yield _Crop(_window(part, PixelWindow(0, 0, height, width)))


def _cut_pair(chip: Chip, path: Path, plan: PackOptions) -> Iterator[_Crop]:
    """Yield crops of an image and of another sensor's LR image, at whole LR pixels."""
    assert plan.scale is not None
    scale, step = plan.scale, lr_step(plan.scale, HR_MULTIPLE)
    other = renamed(path, plan.lr_from, "lr_from")
    lr = read_chip(other, plan.readings[0])
    if tuple(side * scale for side in lr.valid.shape) != chip.valid.shape:
        raise InputError(
            f"{other}: {lr.valid.shape} pixels times {scale} are not those of {path},"
            f" {chip.valid.shape}."
        )
    side = max(int(plan.side / scale) // step * step, step)
    for row in range(0, lr.valid.shape[0], side):
        for col in range(0, lr.valid.shape[1], side):
            height, width = (
                min(side, length - start) // step * step
                for start, length in zip((row, col), lr.valid.shape, strict=True)
            )
            window = PixelWindow(row, col, height, width)
            if min(height, width) * scale < MIN_SIDE:
                continue
            small, large = _window(lr, window), _window(chip, window.scaled(scale))
            is_flat = (large.pixels == large.pixels[:, :1, :1]).all()
            if small.valid.all() and large.valid.all() and not is_flat:
                name = f"{chip.name}@{int(row * scale)},{int(col * scale)}"
                yield _Crop(replace(large, name=name), small.pixels)


def _window(chip: Chip, window: PixelWindow) -> Chip:
    """Return a window of a chip, with its layers."""
    rows, cols = window.slices()
    return replace(
        chip,
        pixels=chip.pixels[:, rows, cols],
        valid=chip.valid[rows, cols],
        layers={key: layer[:, rows, cols] for key, layer in chip.layers.items()},
    )


def _make_lr(crops: Sequence[Pixels], plan: PackOptions) -> list[Pixels]:
    """Return the LR crops to store; none when the plan has no scale."""
    if plan.scale is None:
        return []
    generator = torch.Generator().manual_seed(plan.seed)
    degradation = make_degradation(plan.degradation, plan.parameters)
    stored: list[Pixels] = []
    for crop in crops:
        hr = torch.from_numpy(to_floats(crop))[None]
        height, width = (int(side / plan.scale) for side in crop.shape[1:])
        lr = degradation.degrade(hr, (height, width), generator)
        stored.append(to_levels(lr[0].numpy(), crop.dtype))
    return stored
