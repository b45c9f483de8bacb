"""Split image files into training and validation by place.

Places, not files, are split: a regular expression on the file name gives the place that
an image shows, and whole places go to training or validation. Images of both splits
that show the same ground are refused.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from rsupres.datasets.layouts import tile_folder
from rsupres.errors import InputError
from rsupres.grid import Grid

TRAIN, VALIDATION = "train", "validation"


def place_of(path: Path, pattern: re.Pattern[str] | None) -> str:
    """Return the place that a file shows.

    The place of a tile that `rsupres tile` wrote follows from its folder, so all tiles
    of a scene are in the same split.

    Args:
        path: the image file.
        pattern: searched in the file name, or in the folder name of a tile. The place
            is its groups joined by "_", or the whole match when it has no groups.
            None = the file name without suffix, or the folder name of a tile.

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
            f"{pattern.pattern!r} does not match the name of {path}, so its place is "
            "unknown; widen the pattern or exclude the file.",
            argument="split_by",
        )
    return "_".join(g for g in match.groups() if g is not None) or match.group(0)


def split_by_place(
    images: Sequence[Path], pattern: re.Pattern[str] | None, validation: Sequence[str]
) -> dict[str, list[Path]]:
    """Return images by split, "train" and "val", whole places at a time.

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
            f"{missing[0]!r} names no place; places are "
            f"{', '.join(places[:8])}{' ...' if len(places) > 8 else ''}.",
            argument="validation",
        )
    if not splits[TRAIN]:
        raise InputError("Every place is a validation place; nothing is left to train.")
    return splits


def check_apart(
    train: Iterable[tuple[Path, Grid]], validation: Iterable[tuple[Path, Grid]]
) -> None:
    """Refuse images of both splits that show the same ground.

    Compares bounding boxes in longitude and latitude.

    Args:
        train: training images and their frames.
        validation: validation images and their frames.

    Raises:
        InputError: two boxes overlap; the message names the files.
    """
    first, second = list(train), list(validation)
    if not first or not second:
        return
    boxes = [np.array([_bounds(grid) for _, grid in part]) for part in (first, second)]
    a, b = boxes[0][:, None], boxes[1][None]
    overlap = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    slack = 0.01 * (b[..., 2:] - b[..., :2])  # neighbours may touch
    pairs = np.argwhere((overlap > slack).all(-1))
    if len(pairs):
        i, j = pairs[0]
        raise InputError(
            f"{first[i][0].name} (training) and {second[j][0].name} (validation) show "
            f"the same ground, as do {len(pairs) - 1} more pairs; split by larger "
            "places.",
            remedies=("split_by",),
        )


def _bounds(grid: Grid) -> tuple[float, float, float, float]:
    from rasterio.transform import array_bounds
    from rasterio.warp import transform_bounds

    box = array_bounds(grid.height, grid.width, grid.transform)
    west, south, east, north = transform_bounds(grid.crs, "EPSG:4326", *box)
    return west, south, east, north
