"""Group files that hold one band each to scenes, by their names.

Names that differ in a band alone, such as `T32TQM_B02.tif` and `T32TQM_B03.tif`, are of
one scene. Only headers are read: files of several bands stay scenes of their own, and
of files with several pixel sizes the finest are joined.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from affine import Affine

from rsupres.errors import InputError
from rsupres.raster.open import open_dataset
from rsupres.tiles.batch_inputs import Found

logger = logging.getLogger(__name__)

_BAND = re.compile(
    r"(?:^|(?<=[_.-]))(?:(?:SR_|ST_)?B(?:\d\d|8A|\d)|QA_(?:PIXEL|RADSAT)|SCL|FMASK"
    r"|RED|GREEN|BLUE|NIR\d*|REDEDGE\d?|SWIR\d*|COASTAL)(?=[_.-]|$)",
    re.IGNORECASE,
)
_SHOWN = 5


class _Frame(NamedTuple):
    """Where the pixels of a file are."""

    transform: Affine
    height: int
    width: int


def group_bands(found: Sequence[Found]) -> list[Found]:
    """Return inputs of a batch with band files joined, in the order of the first.

    Args:
        found: inputs, of which files alone are looked at.
    """
    groups: dict[tuple[str, str], list[Found]] = {}
    for one in found:
        if (key := _key(one)) is not None:
            groups.setdefault(key, []).append(one)
    joined: dict[str, Found | None] = {}
    for members in groups.values():
        if len(members) > 1:
            joined |= _join(members)
    kept = (joined.get(one.name, one) for one in found)
    return [one for one in kept if one is not None]


def _key(one: Found) -> tuple[str, str] | None:
    """Return folder and name without band, None where the name has none."""
    path = Path(one.name)
    if one.is_tiles or one.files or not path.is_file():
        return None
    if _BAND.search(path.stem) is None:
        return None
    return str(path.parent), _BAND.sub("*", path.stem, count=1) + path.suffix


def _join(members: Sequence[Found]) -> dict[str, Found | None]:
    """Return what stands for each member: the scene, nothing, or itself if left out."""
    frames = {one: frame for one in members if (frame := _frame(one.name)) is not None}
    if len(frames) < 2:
        return {}
    finest = max(frames.values(), key=lambda frame: frame.height * frame.width)
    files = sorted(one.name for one, frame in frames.items() if frame == finest)
    others = [one.name for one, frame in frames.items() if frame != finest]
    if len(files) < 2:
        return {}
    first, *rest = files
    path = Path(first)
    stem = re.sub(r"([_.-])[_.-]+", r"\1", _BAND.sub("", path.stem, count=1))
    stem = stem.strip("_.-") or path.resolve().parent.name
    scene = replace(
        next(one for one in members if one.name == first),
        name=str(path.with_name(stem + path.suffix)),
        files=tuple(files),
    )
    logger.info("%s: %d band files are one scene.", scene.name, len(files))
    if others:
        logger.warning(
            "%s: files with larger pixels are left out: %s.",
            scene.name,
            ", ".join(others[:_SHOWN]),
        )
    return {first: scene, **dict.fromkeys(rest), **dict.fromkeys(others)}


def _frame(name: str) -> _Frame | None:
    """Return where the pixels of a file with one band are, None for other files."""
    try:
        with open_dataset(name, name) as opened:
            if opened.count != 1:
                return None
            return _Frame(opened.transform, opened.height, opened.width)
    except InputError:  # opening it later says why
        return None
