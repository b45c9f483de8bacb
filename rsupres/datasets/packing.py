"""From image files to packs of training crops, split by place.

Places, not files, are split: a regular expression on the file name says which place an
image shows, and whole places go to training or validation. Images of different splits
that show the same ground are refused. The format of a pack belongs to
`rsupres.training.batches`.
"""

from __future__ import annotations

import fnmatch
import hashlib
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from rsupres.datasets.chips import Chip, coarsen, cut, read_chip
from rsupres.datasets.layouts import tile_folder
from rsupres.datasets.packs import (
    HR_MULTIPLE,
    STORED,
    CropOrigin,
    Pack,
    PackMeta,
    write_pack,
)
from rsupres.datasets.sidecars import Sidecars, renamed
from rsupres.degradations.registry import make_degradation
from rsupres.errors import InputError
from rsupres.grid import Grid, PixelWindow
from rsupres.tile_grid import lr_step

TRAIN, VALIDATION = "train", "validation"
MIN_SIDE = 24  # HR pixels; smaller crops hold no patch

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PackOptions:
    """How crops are made.

    Attributes:
        gsds_m: metres per pixel that HR images are brought to; empty = as they are.
        side: largest crop side, HR pixels.
        max_bytes: largest size of the HR crops of one pack; None = no limit.
        degradation: a name of `rsupres.degradations.registry`, or "stored".
        parameters: of the degradation, as JSON.
        licence: licence and attribution of the images.
        seed: seed of the choice of crops and of stored LR crops.
        scale: store LR crops of this scale too; None = LR is made while training.
        lr_from: rules "OLD=NEW" for the LR image of another sensor, of that scale.
        companions: where references, maps and change masks are found.
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
    companions: Sidecars = field(default_factory=Sidecars)


@dataclass(frozen=True)
class PackReport:
    """What a pack holds, for a table.

    Attributes:
        path: the pack.
        split: "train" or "validation".
        n_crops: number of HR crops.
        n_bytes: size of the HR crops.
        places: number of places.
        by_gsd: number of crops by metres per pixel.
        sides: smallest and largest side of a crop, HR pixels.
        repeats: number of crops whose pixels an earlier crop of the pack holds too.
        mean: mean value of all bands, 0..255.
        layers: what belongs to every crop.
    """

    path: str
    split: str
    n_crops: int
    n_bytes: int
    places: int
    by_gsd: Mapping[float, int]
    sides: tuple[int, int]
    repeats: int
    mean: float
    layers: tuple[str, ...] = ()

    def to_json(self) -> dict[str, object]:
        """Return JSON-able values."""
        return {
            "pack": self.path,
            "split": self.split,
            "crops": self.n_crops,
            "bytes": self.n_bytes,
            "places": self.places,
            "by_gsd": {f"{gsd:g}": n for gsd, n in self.by_gsd.items()},
            "sides": list(self.sides),
            "repeats": self.repeats,
            "mean": round(self.mean, 3),
            "layers": list(self.layers),
        }


def place_of(path: Path, pattern: re.Pattern[str] | None) -> str:
    """Return the place that a file shows.

    A tile of `rsupres tile` shows the place of its folder, so that tiles of one scene
    are never parted.

    Args:
        path: the image file.
        pattern: searched in the file name, of a tile in its folder's; its groups,
            joined by "_", are the place, or the whole match when it has none. None: the
            file name without suffix, of a tile its folder's name.

    Raises:
        InputError: the pattern does not match the name.
    """
    folder = tile_folder(path)
    name = path.name if folder is None else folder.name
    if pattern is None:
        return path.stem if folder is None else name
    match = pattern.search(name)
    if match is None:
        raise InputError(
            f"{path}: --split-by {pattern.pattern!r} does not match the name, so its "
            "place is unknown; widen the pattern or exclude the file."
        )
    return "_".join(g for g in match.groups() if g is not None) or match.group(0)


def split_by_place(
    images: Sequence[Path], pattern: re.Pattern[str] | None, validation: Sequence[str]
) -> dict[str, list[Path]]:
    """Part images into training and validation, whole places at a time.

    Args:
        images: the files.
        pattern: see `place_of`.
        validation: names of validation places, or wildcard patterns of them.

    Raises:
        InputError: a validation name matches no place, or all of them.
    """
    splits: dict[str, list[Path]] = {TRAIN: [], VALIDATION: []}
    used: set[str] = set()
    for path in images:
        place = place_of(path, pattern)
        matching = {name for name in validation if fnmatch.fnmatchcase(place, name)}
        splits[VALIDATION if matching else TRAIN].append(path)
        used |= matching
    if missing := sorted(set(validation) - used):
        places = sorted({place_of(path, pattern) for path in images})
        raise InputError(
            f"--validation {missing[0]!r} names no place; places are "
            f"{', '.join(places[:8])}{' ...' if len(places) > 8 else ''}."
        )
    if not splits[TRAIN]:
        raise InputError("Every place is a validation place; nothing is left to train.")
    return splits


def build_pack(
    path: Path,
    images: Sequence[Path],
    pattern: re.Pattern[str] | None,
    split: str,
    plan: PackOptions,
    on_image: Callable[[int], None] | None = None,
) -> list[tuple[Path, Grid]]:
    """Make crops of images and write them as one pack.

    With a size limit, images are taken in an order drawn from the seed until the pack
    is full, so all places and GSDs keep their shares on average.

    Args:
        path: the pack to write.
        images: files of one split.
        pattern: see `place_of`.
        split: "train" or "validation".
        plan: how crops are made.
        on_image: called with the number of images done.

    Returns:
        Each file that was used and has a CRS, with its frame; for `check_apart`.

    Raises:
        InputError: an image cannot be read, or no crop is large enough.
    """
    plan = replace(plan, companions=plan.companions.as_told(images))
    rng = np.random.default_rng(plan.seed)
    order = rng.permutation(len(images)) if plan.max_bytes else range(len(images))
    crops: list[_Crop] = []
    origins: list[CropOrigin] = []
    frames: list[tuple[Path, Grid]] = []
    room = plan.max_bytes
    for done, index in enumerate(order):
        chip = plan.companions.attach(read_chip(images[index]), images[index])
        if chip.grid is not None:
            frames.append((images[index], chip.grid))
        for crop in _make_crops(chip, images[index], plan):
            if room is not None and (room := room - crop.chip.pixels.nbytes) < 0:
                break
            crops.append(crop)
            place = place_of(images[index], pattern)
            origins.append(CropOrigin(place, crop.chip.name, crop.chip.gsd_m))
        if on_image:
            on_image(done + 1)
        if room is not None and room < 0:
            break
    if not crops:
        raise InputError(
            f"{path}: no crop of at least {MIN_SIDE} pixels came out of "
            f"{len(images)} images; check --gsd and --max-bytes."
        )
    _write(path, crops, tuple(origins), split, plan)
    return frames


def check_apart(
    train: Iterable[tuple[Path, Grid]], validation: Iterable[tuple[Path, Grid]]
) -> None:
    """Refuse images of both splits that show the same ground.

    Bounding boxes in longitude and latitude are compared.

    Raises:
        InputError: two boxes overlap; the message names the files.
    """
    first, second = list(train), list(validation)
    if not first or not second:
        return
    boxes = [np.array([_bounds(grid) for _, grid in part]) for part in (first, second)]
    a, b = boxes[0][:, None], boxes[1][None]
    overlap = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    slack = 0.01 * (b[..., 2:] - b[..., :2])  # neighbours that merely touch
    pairs = np.argwhere((overlap > slack).all(-1))
    if len(pairs):
        i, j = pairs[0]
        raise InputError(
            f"{first[i][0].name} (training) and {second[j][0].name} (validation) show "
            f"the same ground, as do {len(pairs) - 1} more pairs; split by a larger "
            "place with --split-by."
        )


def inspect_pack(path: Path) -> tuple[PackReport, frozenset[str], frozenset[str]]:
    """Check a pack's header and crops.

    Returns:
        `(report, places, hashes)`, hashes being sha256 of shape and pixels.

    Raises:
        InputError: unreadable; a crop of wrong type or shape, or of one colour; LR
            crops that do not fit; an unknown split.
    """
    pack = Pack.load(path)
    if pack.meta.split not in (TRAIN, VALIDATION) or not pack.crops:
        raise InputError(f"{path}: split {pack.meta.split!r}, {len(pack.crops)} crops.")
    if pack.meta.degradation != STORED:
        make_degradation(pack.meta.degradation, pack.meta.parameters)
    hashes: set[str] = set()
    by_gsd: dict[float, int] = {}
    for crop, origin in zip(pack.crops, pack.meta.crops, strict=True):
        _check_crop(path, crop, origin)
        by_gsd[origin.gsd_m] = by_gsd.get(origin.gsd_m, 0) + 1
        hashes.add(_digest(crop))
    _check_lr(path, pack)
    places = frozenset(origin.place for origin in pack.meta.crops)
    sides = [side for crop in pack.crops for side in crop.shape[1:]]
    n_bytes = sum(crop.nbytes for crop in pack.crops)
    total = sum(int(crop.sum(dtype=np.int64)) for crop in pack.crops)
    report = PackReport(
        path=str(path),
        split=pack.meta.split,
        n_crops=len(pack.crops),
        n_bytes=n_bytes,
        places=len(places),
        by_gsd=dict(sorted(by_gsd.items())),
        sides=(min(sides), max(sides)),
        repeats=len(pack.crops) - len(hashes),
        mean=total / n_bytes,
        layers=pack.meta.layers,
    )
    return report, places, frozenset(hashes)


def check_packs(paths: Sequence[Path]) -> list[PackReport]:
    """Check packs, each alone and training against validation.

    Raises:
        InputError: see `inspect_pack`; or a place or a crop is in both splits.
    """
    reports: list[PackReport] = []
    seen: list[tuple[PackReport, frozenset[str], frozenset[str]]] = []
    for path in paths:
        report, places, hashes = inspect_pack(path)
        for other, other_places, other_hashes in seen:
            if other.split == report.split:
                continue
            if shared := sorted(places & other_places):
                raise InputError(
                    f"{path} and {other.path}: place {shared[0]!r} is in both splits "
                    f"({len(shared)} places are)."
                )
            if hashes & other_hashes:
                raise InputError(
                    f"{path} and {other.path}: {len(hashes & other_hashes)} crops are "
                    "in both splits."
                )
        seen.append((report, places, hashes))
        reports.append(report)
    return reports


class _Crop(NamedTuple):
    """A crop with its layers, and its LR if another sensor saw it."""

    chip: Chip
    lr: NDArray[np.uint8] | None = None


def _write(
    path: Path,
    crops: Sequence[_Crop],
    origins: tuple[CropOrigin, ...],
    split: str,
    plan: PackOptions,
) -> None:
    names = plan.companions.names
    meta = PackMeta(
        split=split,
        degradation=plan.degradation,
        crops=origins,
        parameters=plan.parameters,
        licence=plan.licence,
        seed=plan.seed,
        lr_scale=str(plan.scale) if plan.scale else None,
        layers=names,
        legend=plan.companions.legend if "vector_map" in names else "",
        classes=plan.companions.class_table or "",
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
        for part in cut(chip if same else coarsen(chip, gsd_m), plan.side):
            n = 1 if plan.scale is None else plan.scale.numerator  # whole LR pixels
            height, width = (side // n * n for side in part.valid.shape)
            if min(height, width) >= MIN_SIDE:
                yield _Crop(_window(part, PixelWindow(0, 0, height, width)))


def _cut_pair(chip: Chip, path: Path, plan: PackOptions) -> Iterator[_Crop]:
    """Yield crops of an image and of another sensor's LR image of the same ground.

    Crops are nearly squares of `plan.side` at whole LR pixels; those with an invalid
    pixel in either image, of one colour, or too small for a patch are left out.

    Raises:
        InputError: the LR image is not the HR image's size divided by the scale.
    """
    assert plan.scale is not None
    scale, step = plan.scale, lr_step(plan.scale, HR_MULTIPLE)
    other = renamed(path, plan.lr_from, "--lr-from")
    lr = read_chip(other)
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
    """Return a part of a chip, with its layers."""
    rows, cols = window.slices()
    return replace(
        chip,
        pixels=chip.pixels[:, rows, cols],
        valid=chip.valid[rows, cols],
        layers={key: layer[:, rows, cols] for key, layer in chip.layers.items()},
    )


def _make_lr(
    crops: Sequence[NDArray[np.uint8]], plan: PackOptions
) -> list[NDArray[np.uint8]]:
    """Return the LR crops to store, rounded to 8 bits; none without a fixed scale."""
    if plan.scale is None:
        return []
    generator = torch.Generator().manual_seed(plan.seed)
    degradation = make_degradation(plan.degradation, plan.parameters)
    stored = []
    for crop in crops:
        hr = torch.from_numpy(crop)[None].float() / 255
        height, width = (int(side / plan.scale) for side in crop.shape[1:])
        lr = degradation.degrade(hr, (height, width), generator)
        stored.append((lr[0] * 255).round().to(torch.uint8).numpy())
    return stored


def _bounds(grid: Grid) -> tuple[float, float, float, float]:
    from rasterio.transform import array_bounds
    from rasterio.warp import transform_bounds

    box = array_bounds(grid.height, grid.width, grid.transform)
    west, south, east, north = transform_bounds(grid.crs, "EPSG:4326", *box)
    return west, south, east, north


def _digest(crop: NDArray[np.uint8]) -> str:
    head = repr(crop.shape).encode()
    return hashlib.sha256(head + np.ascontiguousarray(crop).tobytes()).hexdigest()


def _check_crop(path: Path, crop: np.ndarray, origin: CropOrigin) -> None:
    problem = ""
    if crop.dtype != np.uint8 or crop.ndim != 3 or crop.shape[0] != 3:
        problem = f"is {crop.dtype} {crop.shape}, not uint8 (3, H, W)"
    elif min(crop.shape[1:]) < MIN_SIDE:
        problem = f"has {crop.shape[1]} x {crop.shape[2]} pixels, too few for a patch"
    elif (crop == crop[:, :1, :1]).all():
        problem = "has one single colour"
    elif not origin.place:
        problem = "names no place"
    if problem:
        raise InputError(f"{path}: crop {origin.source} {problem}.")


def _check_lr(path: Path, pack: Pack) -> None:
    if pack.meta.lr_scale is None:
        return
    scale = Fraction(pack.meta.lr_scale)
    for crop, lr, origin in zip(pack.crops, pack.lr, pack.meta.crops, strict=True):
        size = [side * scale for side in lr.shape[1:]]
        hr_mean, lr_mean = crop.mean((1, 2)), lr.mean((1, 2))
        far = 255 if pack.meta.degradation == STORED else 8  # sensors differ in tone
        if size != list(crop.shape[1:]) or np.abs(hr_mean - lr_mean).max() > far:
            raise InputError(
                f"{path}: the LR crop of {origin.source} does not fit its HR crop at "
                f"scale {scale}."
            )
