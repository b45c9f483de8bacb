"""Blend a folder of georeferenced tiles into one raster.

Tiles may overlap in any way and come in any order, as long as they lie on one pixel
grid. Where a `tiles.gpkg` says how they were cut, frame and weights are the planned
ones; else a side that faces other tiles gets a raised cosine over the overlap. The sum
is divided by the summed weights, pixel by pixel, and invalid pixels weigh nothing.
Where all tiles agree their numbers are copied, so that untouched tiles give back their
scene bit for bit. Memory holds one strip of rows of the result at a time.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rsupres.errors import InputError
from rsupres.execution import OnProgress
from rsupres.grid import Grid, PixelWindow
from rsupres.output.strips import Destination, Rows, StripRaster, write_strips
from rsupres.output.tiff.profile import OutputFormat, OutputMeta, is_lossy
from rsupres.output.tiff.trial import check_format
from rsupres.raster.bands import class_bands
from rsupres.raster.dataset import Raster
from rsupres.raster.kinds import check_holds, check_type
from rsupres.raster.nodata import is_measured, is_same_nodata, join_valid, to_dtype
from rsupres.raster.open import bounded_cache
from rsupres.raster.place.union import covers, union_grid
from rsupres.raster.reading import common_scale
from rsupres.raster.reading.common_scale import Rescaling
from rsupres.raster.reading.same_bands import match_bands
from rsupres.raster.stack import declare_nodata
from rsupres.raster.undeclared import Undeclared, find_undeclared
from rsupres.tiles.feather import BlendedRows, feathered
from rsupres.tiles.folder import find_tiles, mosaic_tag
from rsupres.tiles.index import INDEX, LR, TileIndex, find_index, profiles, read_index
from rsupres.upscaling.pipeline import RunSummary
from rsupres.version import __version__

logger = logging.getLogger(__name__)

# Values of one strip; 8 Mi float64 are 64 MB, and there are a few such arrays.
_STRIP_VALUES = 1 << 23
# Pixels by which a tile's corners may miss their planned place.
_MISPLACED = 1e-2


@dataclass(frozen=True)
class _Tile:
    """A tile that is not open."""

    path: str
    grid: Grid
    fingerprint: dict[str, str]
    bands: tuple[int, ...]  # in the order of the first tile's
    rescalings: tuple[Rescaling, ...]  # of these bands, to the first tile's
    undeclared: Undeclared | None = None


@dataclass(frozen=True)
class _PlacedTile:
    """A tile with its place in the mosaic and its weights, in (0, 1], along axes."""

    tile: _Tile
    place: PixelWindow
    rows: np.ndarray
    cols: np.ndarray


def mosaic_tiles(
    folder: Path,
    into: Destination,
    on_progress: OnProgress,
    *,
    dtype: str | None = None,
    nodata: float | None = None,
    input_nodata: float | None = None,
) -> RunSummary:
    """Blend the rasters in a folder into one; return the summary.

    Args:
        folder: holds the tiles; its subfolders are not searched. Of a folder that
            `rsupres tile` made, the LR tiles are taken.
        into: where the result goes.
        on_progress: called after each strip.
        dtype: numpy name, None = the tiles'.
        nodata: None = the tiles'; needed when tiles leave gaps.
        input_nodata: value of invalid pixels in the tiles, None = as they declare.

    Raises:
        ArgumentError: the output is one of the tiles.
        InputError: no folder, no tiles, or tiles that do not fit together.
        RunConflictError: the output exists.
    """
    started = time.monotonic()
    index_path = find_index(folder)
    if index_path is not None and (folder / INDEX).is_file() and (folder / LR).is_dir():
        folder = folder / LR
    names = find_tiles(folder, into.output)
    into.check({"source": names})
    with bounded_cache(), ExitStack() as stack:
        first = stack.enter_context(_open(names[0], input_nodata))
        form = into.format(
            dtype or first.dtype, first.nodata if nodata is None else nodata
        )
        check_type(first, form.dtype, nodata)
        found = [_look(name, first, form, input_nodata) for name in names]
        _warn_of_undeclared(found)
        raster = _raster(found, first, form, index_path, input_nodata)
        check_format(form, raster.n_bands, raster.grid)
        write_strips(raster, into, on_progress)
    duration_s = time.monotonic() - started
    return RunSummary(into.output, "written", {}, len(names), 0, duration_s, "mosaic")


def _open(name: str, input_nodata: float | None) -> Raster:
    """Open a tile, with the nodata value that the user knows of it."""
    scene = Raster.open(name)
    try:
        return declare_nodata(scene, input_nodata)
    except InputError:
        scene.close()
        raise


def _raster(
    found: Sequence[_Tile],
    first: Raster,
    form: OutputFormat,
    index_path: Path | None,
    input_nodata: float | None,
) -> StripRaster:
    """Return the raster that the tiles make together."""
    if index_path is None:
        tiles, grid = _place(found)
    else:
        tiles, grid = _place_as_planned(found, read_index(index_path), index_path)
    is_closed = is_lossy(form.creation) or covers(grid, [tile.place for tile in tiles])
    if form.nodata is None and not is_closed:
        raise InputError(
            f"{Path(found[0].path).parent}: the tiles leave gaps and have no nodata "
            "value; set one.",
            remedies=("nodata",),
        )
    return StripRaster(
        grid=grid,
        form=form,
        n_bands=len(first.data_bands),
        strip_values=_STRIP_VALUES,
        identity={
            "mosaic": [tile.fingerprint for tile in found],
            "dtype": form.dtype,
            "nodata": None if form.nodata is None else repr(form.nodata),
            "input_nodata": None if input_nodata is None else repr(input_nodata),
        },
        phase="Mosaic",
        make=lambda window: _blend(tiles, window, first, form, input_nodata),
        meta=lambda: _meta(first, grid, found),
        has_packets=not class_bands(first),
    )


def _look(
    name: str, first: Raster, form: OutputFormat, input_nodata: float | None
) -> _Tile:
    """Open a tile for its frame and fingerprint; check that it fits the first one."""
    with _open(name, input_nodata) as scene:
        _check_alike(scene, first)
        bands = match_bands(scene, first)
        rescalings = common_scale.find(scene, bands, first)
        common_scale.check(scene, bands, rescalings, first)
        check_holds(scene, form.dtype)
        return _Tile(
            name,
            scene.grid,
            scene.fingerprint(),
            bands,
            rescalings,
            find_undeclared(scene, bands),
        )


def _warn_of_undeclared(found: Sequence[_Tile]) -> None:
    """Warn when tiles hold numbers that nothing measured, which will be blended."""
    held = [tile for tile in found if tile.undeclared]
    if held and (first := held[0].undeclared):
        logger.warning(
            "%d of %d tiles, such as %s, hold pixels that are exactly %g %s, and "
            "declare no nodata value; these are blended like others.",
            len(held),
            len(found),
            held[0].path,
            first.value,
            first.place,
            extra={"remedies": (f"input_nodata={first.value:g}",)},
        )


def _place(found: Sequence[_Tile]) -> tuple[list[_PlacedTile], Grid]:
    """Return tiles of any origin with their weights, and the frame of the result."""
    grid, places = union_grid(found)
    tiles = [
        _PlacedTile(tile, place, *feathered(place, places))
        for tile, place in zip(found, places, strict=True)
    ]
    return tiles, grid


def _place_as_planned(
    found: Sequence[_Tile], index: TileIndex, path: Path
) -> tuple[list[_PlacedTile], Grid]:
    """Return tiles with the weights of the plan, and the frame that it was cut from."""
    plan = index.plan
    records = {Path(record.name).stem: record for record in index.tiles}
    known = [records.get(Path(tile.path).stem) for tile in found]
    if None in known:
        raise InputError(
            f"{found[known.index(None)].path}: is no tile of {path}; remove it, or "
            "remove the index to place tiles by their own headers."
        )
    pairs = [(t, r) for t, r in zip(found, known, strict=True) if r is not None]
    is_lr = all((t.grid.height, t.grid.width) == r.lr[2:] for t, r in pairs)
    frame = plan.scene if is_lr else plan.sr
    rows, cols = profiles(plan, is_lr=is_lr)
    tiles = []
    for tile, record in pairs:
        place = record.lr if is_lr else record.sr
        _check_place(tile, frame.crop(place), path)
        weights = rows[record.row], cols[record.col]
        tiles.append(_PlacedTile(tile, place, *weights))
    return tiles, frame


def _check_place(tile: _Tile, planned: Grid, path: Path) -> None:
    size = (planned.width, planned.height)
    fits = (tile.grid.width, tile.grid.height) == size
    if fits:
        moved = ~planned.transform @ tile.grid.transform
        corners = ((0, 0), (size[0], 0), (0, size[1]))
        fits = tile.grid.crs == planned.crs and all(
            math.dist(moved @ corner, corner) < _MISPLACED for corner in corners
        )
    if not fits:
        raise InputError(
            f"{tile.path}: {tile.grid.width} x {tile.grid.height} pixels, and {path} "
            f"has {size[1]} x {size[0]} pixels elsewhere for this tile; is it of "
            "another scale or scene?"
        )


def _blend(
    tiles: Sequence[_PlacedTile],
    window: PixelWindow,
    first: Raster,
    form: OutputFormat,
    input_nodata: float | None,
) -> Rows:
    """Return the rows of one strip in the output's type, and its valid mask."""
    is_joint = form.nodata is None
    n_bands = len(first.data_bands)
    classes = class_bands(first)
    codes = [at for at, band in enumerate(first.data_bands) if band in classes]
    blended = BlendedRows(n_bands, window, first.dtype, is_joint=is_joint, codes=codes)
    for placed in tiles:
        shared = placed.place.intersection(window)
        if shared is None:
            continue
        inside = shared.relative_to(placed.place)
        rows, cols = inside.slices()
        tile = placed.tile
        with _open(tile.path, input_nodata) as scene:
            joint = None if is_joint else 0
            dn, valid = scene.read_stored(inside, tile.bands, joint)
            usable = valid | _hides_alike(scene, form)
        dn = np.where(valid, common_scale.apply(dn, tile.rescalings), dn)
        weights = placed.rows[rows][:, None] * placed.cols[cols]
        at = shared.relative_to(window).slices()
        blended.add(at, dn, valid, usable, weights)
    valid = blended.weight > 0
    total = blended.total
    np.divide(total, blended.weight, out=total, where=valid)
    pixels = to_dtype(total, form.dtype, form.nodata, valid)
    if first.dtype == form.dtype:
        planes = [is_measured(plane, form.nodata) for plane in blended.stored]
        measured = join_valid(np.stack(planes), None if is_joint else 0)
        # A number that is nodata in the result, though not in its tile, was moved.
        agreed = blended.seen & ~blended.differs & (measured | ~valid)
        np.copyto(pixels, blended.stored, where=agreed)
    if codes:
        kept = blended.stored[codes].astype(np.float64)
        there = valid if is_joint else valid[codes]
        pixels[codes] = to_dtype(kept, form.dtype, form.nodata, there)
    shown = np.asarray(valid.any(axis=0, keepdims=True))
    return pixels, None if valid.all() else shown


def _hides_alike(scene: Raster, form: OutputFormat) -> bool:
    """Return whether what a tile stores in invalid pixels can stand in the result."""
    if form.nodata is None:
        return all(scene.nodata_of(band) is None for band in scene.data_bands)
    return not scene.has_file_mask and all(
        is_same_nodata(scene.nodata_of(band), form.nodata) for band in scene.data_bands
    )


def _check_alike(scene: Raster, first: Raster) -> None:
    if len(scene.data_bands) != len(first.data_bands):
        raise InputError(
            f"{scene.path}: {len(scene.data_bands)} bands, but {first.path} has "
            f"{len(first.data_bands)}."
        )
    if scene.dtype != first.dtype:
        raise InputError(
            f"{scene.path}: type {scene.dtype} differs from {first.dtype} of "
            f"{first.path}."
        )


def _meta(scene: Raster, grid: Grid, tiles: Sequence[_Tile]) -> OutputMeta:
    made_of = mosaic_tag([(tile.path, tile.grid) for tile in tiles])
    tags = {"RSUPRES_VERSION": __version__, **made_of}
    return OutputMeta.like(scene, scene.data_bands, grid, tags)
