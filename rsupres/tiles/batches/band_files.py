"""Group files that hold one band each to scenes, by their names.

Names that differ in a band alone, such as `T32TQM_B02.tif` and `T32TQM_B03.tif`, are of
one scene, whatever the size of their pixels. Only headers are read: files of several
bands stay scenes of their own.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rsupres.errors import InputError
from rsupres.raster.open import open_dataset
from rsupres.tiles.batches.inputs import Found

logger = logging.getLogger(__name__)

_BAND = re.compile(
    r"(?:^|(?<=[_.-]))(?:(?:SR_|ST_)?B(?:\d\d|8A|\d)|QA_(?:PIXEL|RADSAT)|SCL|FMASK"
    r"|RED|GREEN|BLUE|NIR\d*|REDEDGE\d?|SWIR\d*|COASTAL)(?=[_.-]|$)",
    re.IGNORECASE,
)
_SIZE = re.compile(r"[_.-](?:10|20|60)m(?=[_.-]|$)", re.IGNORECASE)
_CLASSES = re.compile(r"QA_|SCL|FMASK", re.IGNORECASE)
_SHOWN = 5


def group_bands(found: Sequence[Found]) -> list[Found]:
    """Return inputs of a batch with band files joined, in the order of the first."""
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
    """Return folder and name without band and size, None where the name has no band."""
    path = Path(one.name)
    if one.is_tiles or one.files or not path.is_file():
        return None
    if _BAND.search(path.stem) is None:
        return None
    name = _SIZE.sub("", _BAND.sub("*", path.stem, count=1))
    return str(path.parent), name + path.suffix


def _join(members: Sequence[Found]) -> dict[str, Found | None]:
    """Return by member the scene it joins, None if joined before, or the member."""
    sizes = {one: n for one in members if (n := _pixels(one.name)) is not None}
    finest: dict[str, Found] = {}
    for one in sorted(sizes, key=lambda one: (-sizes[one], one.name)):
        found = _BAND.search(Path(one.name).stem)
        if found is not None and not _CLASSES.match(found[0]):
            finest.setdefault(found[0].upper(), one)
    if len(finest) < 2:
        return {}
    files = sorted(one.name for one in finest.values())
    others = [one.name for one in sizes if one.name not in files]
    first, *rest = files
    path = Path(first)
    stem = _BAND.sub("", _SIZE.sub("", path.stem), count=1)
    stem = re.sub(r"([_.-])[_.-]+", r"\1", stem).strip("_.-")
    stem = stem or path.resolve().parent.name
    scene = replace(
        next(one for one in members if one.name == first),
        name=str(path.with_name(stem + path.suffix)),
        files=tuple(files),
    )
    logger.info("%s: %d band files are one scene.", scene.name, len(files))
    if others:
        logger.warning(
            "%s: files of classes, and bands that are there with smaller pixels, are "
            "left out: %s.",
            scene.name,
            ", ".join(others[:_SHOWN]),
        )
    return {first: scene, **dict.fromkeys(rest), **dict.fromkeys(others)}


def _pixels(name: str) -> int | None:
    """Return the pixels of a file with one band, None for other files."""
    try:
        with open_dataset(name, name) as opened:
            return opened.height * opened.width if opened.count == 1 else None
    except InputError:  # opening it later says why
        return None
