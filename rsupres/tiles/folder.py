"""Say which files of a folder are tiles, and which would be lost with the folder.

A mosaic carries names and places of its tiles in a tag, so that a later mosaic of the
same folder does not take it for a tile, also when some tiles are gone or renamed.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from rsupres.errors import ArgumentError, InputError, RsupresError, RunConflictError
from rsupres.grid import Grid, ceil_div
from rsupres.output.atomic import check_writable
from rsupres.output.tiff.geotiff import read_tags
from rsupres.raster.dataset import Raster
from rsupres.tiles.index import FOLDERS, INDEX, LR, read_index

logger = logging.getLogger(__name__)

# A JSON list of tiles, each as [name, x, y, width, height]: the place of its upper left
# corner and its pixels.
MOSAIC_TAG = "RSUPRES_MOSAIC_OF"
_RECORDED = 32  # tiles in the tag, spread over all
_RASTER_SUFFIXES = frozenset({".tif", ".tiff", ".vrt", ".jp2", ".img", ".png"})


def find_tiles(folder: Path, output: Path) -> list[str]:
    """Return the tiles in a folder, sorted; mosaics of them are left out.

    Args:
        folder: its subfolders are not searched.
        output: the mosaic to write.

    Raises:
        ArgumentError: the output is one of the tiles, or lies among them.
        InputError: no such folder, or no tile in it.
    """
    if not folder.is_dir():
        is_ended = folder.suffix == ".run" and output.is_file()
        hint = f"; {output} is there, so its run may have ended" if is_ended else ""
        raise InputError(f"{folder}: no such folder{hint}.")
    paths = [
        path
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in _RASTER_SUFFIXES and path.is_file()
    ]
    tiles = []
    for path in paths:
        if _is_mosaic(path, paths):
            logger.warning("%s: is an earlier mosaic of these tiles; left out.", path)
        else:
            tiles.append(path)
    if not tiles:
        raise InputError(f"{folder}: holds no rasters to blend.")
    if output.resolve().parent == folder.resolve():
        raise ArgumentError(
            f"{output}: lies among the tiles to blend, where it would replace one or "
            "be taken for one; choose another folder.",
            argument="output",
        )
    return [str(path) for path in tiles]


def mosaic_tag(tiles: Sequence[tuple[str, Grid]]) -> dict[str, str]:
    """Return the tag by which `find_tiles` knows a mosaic of tiles, in order."""
    step = ceil_div(len(tiles), _RECORDED)
    kept = [
        [os.path.basename(name), *_place(grid)]
        for name, grid in (*tiles[:-1:step], tiles[-1])
    ]
    return {MOSAIC_TAG: json.dumps(kept)}


def check_tile_folder(folder: Path, *, overwrite: bool) -> None:
    """Refuse a folder that is there, unless it is empty or tiles to be replaced.

    Args:
        folder: to be made.
        overwrite: tiles may be replaced.

    Raises:
        InputError: it cannot be made or written.
        RunConflictError: it exists, or holds files that are no tiles.
    """
    if not folder.is_dir():
        check_writable(folder, "folder")
        if folder.exists():
            raise RunConflictError(f"{folder} is a file; name a folder to make.")
        return
    check_writable(folder / INDEX, "folder")
    if not any(folder.iterdir()):
        return
    if not (folder / INDEX).is_file():
        raise RunConflictError(
            f"{folder} holds other files than tiles; name a new folder."
        )
    if not overwrite:
        raise RunConflictError(f"{folder} exists.", remedies=("overwrite",))
    if (other := _foreign_file(folder)) is not None:
        raise RunConflictError(
            f"{folder}: holds {other}, which is none of its tiles and would be lost; "
            "move it, or name another folder."
        )


def _is_mosaic(path: Path, paths: Sequence[Path]) -> bool:
    """Return whether a raster is a mosaic of half of others, by name or place."""
    try:
        kept = json.loads(read_tags(path).get(MOSAIC_TAG, "[]"))
    except (RsupresError, ValueError):
        return False  # opening it as a tile says what is wrong with it
    if not kept:
        return False
    others = [other for other in paths if other != path]
    names = {other.name for other in others}
    if 2 * sum(name in names for name, *_ in kept) >= len(kept):
        return True
    places = {_place_of(other) for other in others}
    return 2 * sum(tuple(place) in places for _, *place in kept) >= len(kept)


def _place(grid: Grid) -> tuple[float, float, int, int]:
    """Return the ground of a frame's upper left corner, its width and height."""
    return grid.transform.c, grid.transform.f, grid.width, grid.height


def _place_of(path: Path) -> tuple[float, float, int, int] | None:
    """Return the place of a raster, None where it cannot be read."""
    try:
        with Raster.open(path, needs_crs=False) as opened:
            return _place(opened.grid)
    except RsupresError:
        return None


def _foreign_file(folder: Path) -> str | None:
    """Return a file in a tile folder that cutting did not make, None without one."""
    names = {record.name for record in read_index(folder / INDEX).tiles}
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith(INDEX):  # SQLite keeps a journal beside it
            continue
        if entry.name not in (LR, *FOLDERS.values()) or not entry.is_dir():
            return entry.name
        for path in sorted(entry.iterdir()):
            # GDAL and a GIS write statistics beside a tile.
            if path.name.removesuffix(".aux.xml") not in names:
                return f"{entry.name}/{path.name}"
    return None
