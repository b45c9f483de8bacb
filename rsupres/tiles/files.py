"""Store tiles of every kind: their types, nodata values, band names, colours and tags.

The tags say what a tile holds, so that `rsupres batch` and `rsupres dataset` can use it
without further options.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np

from rsupres.change.mask import ChangeMask
from rsupres.conditions.base import ConditionSource
from rsupres.conditions.maps import DrawnMap, MapSource
from rsupres.conditions.open import ConditionSet
from rsupres.conditions.references import References
from rsupres.grid import Grid, PixelWindow
from rsupres.legends.class_table import TABLE_TAG
from rsupres.legends.legend import LEGEND_TAG
from rsupres.legends.legend_file import load_legend, shipped_legends
from rsupres.output.atomic import translate_os_errors
from rsupres.output.temporary import sync
from rsupres.output.tiff.geotiff import write_whole
from rsupres.output.tiff.profile import OutputFormat, OutputMeta
from rsupres.raster.dataset import Raster
from rsupres.raster.stretch import TILE_STRETCH, Stretch
from rsupres.tiles.index import FOLDERS, HR, LR, Tiling
from rsupres.version import __version__

# A reference in [0, 1] as whole numbers, fine enough for 16 bits of measurement.
_REFERENCE_TOP, _REFERENCE_NODATA = 65_534, 65_535
RGB = ("red", "green", "blue")
_CHANGE_NODATA = 255


@dataclass(frozen=True)
class Sources:
    """The open scene, conditions and HR image that tiles are cut from.

    Attributes:
        scene: cropped to what is wanted.
        conditions: on its SR frame.
        hr: the HR image, and the SR frame as a window of it; None without one.
        stretch: per data band of the scene.
    """

    scene: Raster
    conditions: ConditionSet
    hr: tuple[Raster, PixelWindow] | None
    stretch: Stretch

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of tiles that are written beside the LR tiles, in `FOLDERS`' order."""
        given = (*self.conditions.sources, *((HR,) if self.hr else ()))
        return tuple(kind for kind in FOLDERS if kind in given)


@dataclass(frozen=True)
class TileWriter:
    """Writer of tiles of one kind; the grid of `meta` is a placeholder."""

    meta: OutputMeta
    form: OutputFormat

    def write(
        self,
        path: Path,
        pixels: np.ndarray,
        grid: Grid,
        valid: np.ndarray | None = None,
    ) -> None:
        """Write one tile and wait until it is on disk.

        Args:
            path: replaced if it exists.
            pixels: (c, h, w) in the type of `form`.
            grid: frame of the tile.
            valid: (1, h, w), None for all.

        Raises:
            ResourceError: the disk is full.
        """
        with translate_os_errors(path, pixels.nbytes):
            write_whole(path, pixels, replace(self.meta, grid=grid), self.form, valid)
            sync(path)


def make_writers(sources: Sources, plan: Tiling) -> dict[str, TileWriter]:
    """Return how each kind of tile is written: LR, the conditions, HR.

    Args:
        sources: the open scene, conditions and HR image.
        plan: the tiling.
    """
    scene = sources.scene
    common = {
        "RSUPRES_VERSION": __version__,
        "RSUPRES_SCALE": str(plan.scale),
        "RSUPRES_SOURCE": plan.source,
    }
    stretch = {TILE_STRETCH: json.dumps(sources.stretch.to_json())}
    found = {LR: _raster_writer(scene, common | stretch)}
    if sources.hr is not None:
        found[HR] = _raster_writer(sources.hr[0], common)
    for kind, source in sources.conditions.sources.items():
        fingerprint = json.dumps(source.fingerprint(), sort_keys=True)
        tags = common | {f"RSUPRES_{kind.upper()}": fingerprint}
        found[kind] = _condition_writer(kind, sources, plan, tags)
    return found


def _raster_writer(scene: Raster, tags: Mapping[str, str]) -> TileWriter:
    meta = OutputMeta.like(scene, scene.data_bands, scene.grid, tags)
    return TileWriter(meta, OutputFormat("GTiff", {}, scene.dtype, scene.nodata))


def _condition_writer(
    kind: str, sources: Sources, plan: Tiling, tags: Mapping[str, str]
) -> TileWriter:
    source = sources.conditions.sources[kind]
    n_bands, dtype, nodata, scale = 3, "uint8", None, 1.0
    names: Sequence[str | None] = RGB
    palette = None
    if isinstance(source, MapSource):
        tags = {**tags, LEGEND_TAG: source.legend_name}
    elif isinstance(source, DrawnMap):
        tags = {**tags, LEGEND_TAG: source.legend}
    elif kind == "change_mask":
        mask = cast(ChangeMask, source)
        n_bands, nodata, names, palette = 1, _CHANGE_NODATA, ("change",), mask.palette()
        if mask.table is not None:
            tags = {**tags, TABLE_TAG: mask.table.name}
    else:
        n_bands = source.read(PixelWindow(0, 0, 1, 1)).shape[0]
        dates = [file.date for file in cast(References, source).files]
        tags = {**tags, "ACQUISITION_DATE": f"{max(dates):%Y-%m-%d}"}
        dtype, nodata, scale = "uint16", _REFERENCE_NODATA, 1 / _REFERENCE_TOP
        if n_bands != len(RGB):
            names = (None,) * n_bands
    is_rgb = tuple(names) == RGB
    meta = OutputMeta(
        grid=plan.sr,
        descriptions=names,
        scales=(scale,) * n_bands,
        offsets=(0.0,) * n_bands,
        colorinterp=RGB if is_rgb else ("undefined",) * n_bands,
        tags=tags,
        palette=palette,
    )
    return TileWriter(meta, OutputFormat("GTiff", {}, dtype, nodata))


def as_stored(
    kind: str, read: np.ndarray, conditions: ConditionSet
) -> tuple[np.ndarray, float]:
    """Return a condition's tile in the type of its files, and its known share, [0, 1].

    Args:
        kind: a key of `FOLDERS`.
        read: (c, H, W), as the condition's source gives it.
        conditions: the open conditions.
    """
    if kind == "reference":
        known = np.isfinite(read).all(axis=0)
        levels = np.rint(np.clip(np.nan_to_num(read), 0, 1) * _REFERENCE_TOP)
        stored = np.where(known, levels, _REFERENCE_NODATA).astype(np.uint16)
        return stored, float(known.mean())
    if kind == "change_mask":
        return read, float((read != _CHANGE_NODATA).mean())
    background = _background(conditions.sources[kind])
    if background is None:
        return read, 1.0
    blank = np.array(background, np.uint8)[:, None, None]
    return read, float((read != blank).any(axis=0).mean())


def _background(source: ConditionSource) -> tuple[int, int, int] | None:
    """Return a map's colour where nothing is mapped, None when it is unknown."""
    if isinstance(source, MapSource):
        return source.background
    assert isinstance(source, DrawnMap)
    if source.legend not in shipped_legends():
        return None
    return load_legend(source.legend).background
