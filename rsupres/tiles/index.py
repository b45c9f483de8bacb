"""Read and write the index of a folder of tiles, and place its tiles.

The index `tiles.gpkg` holds a layer `tiles` (footprints, windows, shares) that any GIS
shows, and a table `plan` with the exact numbers of the tiling. `rsupres tile` writes
it; `rsupres mosaic` and `rsupres batch` read it. No pixels are read here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from pathlib import Path

import numpy as np
from affine import Affine
from rasterio.crs import CRS

from rsupres.blend import edge_weights
from rsupres.errors import InputError
from rsupres.grid import Grid, PixelWindow
from rsupres.output.atomic import translate_os_errors
from rsupres.output.temporary import sync, temporary
from rsupres.tile_grid import TileGrid, lr_step

INDEX = "tiles.gpkg"
# Folder of each kind of tile; those of conditions by the field of `Conditions`.
LR, HR = "lr", "hr"
FOLDERS: Mapping[str, str] = {
    "vector_map": "map",
    "reference": "reference",
    "change_mask": "change",
    HR: HR,
}
# Weight of a halo: nothing beside another tile's, enough where no other tile is.
_MIN_WEIGHT = 1e-12
_SIDES = ("row", "col", "height", "width")


@dataclass(frozen=True)
class Tiling:
    """The exact tiling of a scene; the headers of its tiles hold rounded numbers.

    Attributes:
        source: the scene's file name.
        scene: LR frame.
        scale: SR pixels along one LR pixel.
        size: LR pixels along a tile's side.
        overlap: LR pixels that neighbours share.
        halo: LR pixels at inner sides that weigh nothing.
        multiple: SR sides are multiples of it.
        fingerprints: JSON-able: of the scene, its conditions and the HR image.
    """

    source: str
    scene: Grid
    scale: Fraction
    size: int
    overlap: int
    halo: int = 0
    multiple: int = 1
    fingerprints: Mapping[str, object] = field(default_factory=dict)

    @cached_property
    def grid(self) -> TileGrid:
        """The tiling, in LR and SR pixels."""
        return TileGrid.plan(
            *(self.scene, self.scale, self.size, self.overlap, self.halo),
            self.multiple,
        )

    @cached_property
    def lr_grid(self) -> TileGrid:
        """The same tiles with LR pixels for SR pixels."""
        step = lr_step(self.scale, self.multiple)
        return TileGrid.plan(
            self.scene, Fraction(1), self.size, self.overlap, self.halo, step
        )

    @cached_property
    def sr(self) -> Grid:
        """The SR frame of the scene, without padding."""
        return self.scene.refine(self.scale)

    def to_json(self) -> dict[str, object]:
        """Return plain values from which `from_json` makes an equal object."""
        return {
            "source": self.source,
            "crs": self.scene.crs.to_wkt() if self.scene.crs else None,
            "transform": [float(value) for value in self.scene.transform[:6]],
            "height": self.scene.height,
            "width": self.scene.width,
            "scale": str(self.scale),
            "size": self.size,
            "overlap": self.overlap,
            "halo": self.halo,
            "multiple": self.multiple,
            "marks": dict(self.fingerprints),
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, object]) -> Tiling:
        """Return the plan that `to_json` stored.

        Raises:
            KeyError, TypeError, ValueError: it is damaged.
        """
        values = dict(stored)
        crs, transform = values.pop("crs"), values.pop("transform")
        height, width = values.pop("height"), values.pop("width")
        assert isinstance(transform, list)
        scene = Grid(
            None if crs is None else CRS.from_wkt(str(crs)),
            Affine(*(float(value) for value in transform)),
            *(int(str(height)), int(str(width))),
        )
        scale = Fraction(str(values.pop("scale")))
        values["fingerprints"] = values.pop("marks")
        return cls(scene=scene, scale=scale, **values)  # type: ignore[arg-type]


@dataclass(frozen=True)
class TileRecord:
    """One tile as the index has it.

    Attributes:
        name: of its file in every folder.
        row: among the tile rows.
        col: among the tile columns.
        lr: LR pixels of the scene; cut at its edges, so never padding.
        sr: SR pixels of the same ground.
        valid: share of LR pixels that are measurements.
        shares: by kind of `FOLDERS`, share of SR pixels that are drawn (map), valid
            (reference, HR) or known (change mask).
    """

    name: str
    row: int
    col: int
    lr: PixelWindow
    sr: PixelWindow
    valid: float
    shares: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, object]:
        """Return one level of plain values, which `from_json` reads back."""
        windows = {
            f"{kind}_{side}": getattr(window, side)
            for kind, window in (("lr", self.lr), ("sr", self.sr))
            for side in _SIDES
        }
        plain = {"name": self.name, "row": self.row, "col": self.col, **windows}
        return {**plain, "valid": self.valid, **self.shares}

    @classmethod
    def from_json(cls, stored: Mapping[str, object]) -> TileRecord:
        """Return the record that `to_json` stored.

        Raises:
            KeyError, TypeError, ValueError: it is damaged.
        """

        def window(kind: str) -> PixelWindow:
            return PixelWindow(*(int(str(stored[f"{kind}_{s}"])) for s in _SIDES))

        return cls(
            name=str(stored["name"]),
            row=int(str(stored["row"])),
            col=int(str(stored["col"])),
            lr=window("lr"),
            sr=window("sr"),
            valid=float(str(stored["valid"])),
            shares={k: float(str(stored[k])) for k in FOLDERS if k in stored},
        )


@dataclass(frozen=True)
class TileIndex:
    """The content of `tiles.gpkg`: the plan and its tiles, row-major."""

    plan: Tiling
    tiles: tuple[TileRecord, ...]

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of `FOLDERS` that lie beside the LR tiles."""
        return tuple(kind for kind in FOLDERS if kind in self.tiles[0].shares)


def records(plan: Tiling) -> list[TileRecord]:
    """Return where the tiles of a plan lie, row-major, without any shares."""
    n_rows, n_cols = plan.grid.shape
    digits = max(3, len(str(max(n_rows, n_cols) - 1)))
    found = []
    for tile in plan.grid:
        lr = tile.lr.intersection(plan.scene.window)
        sr = tile.sr.intersection(plan.sr.window)
        # A tile begins inside the scene: padding is less than one step.
        assert lr is not None
        assert sr is not None
        name = f"{tile.row:0{digits}}_{tile.col:0{digits}}.tif"
        found.append(TileRecord(name, tile.row, tile.col, lr, sr, 0.0))
    return found


def profiles(plan: Tiling, *, is_lr: bool) -> tuple[list[np.ndarray], ...]:
    """Return the planned weights of every tile row and of every tile column.

    Those of `rsupres.blend` before they are divided by their sum, with a vanishing
    weight where they are 0: a halo counts only where nothing else is known.

    Args:
        plan: the tiling.
        is_lr: for tiles of LR pixels, else of SR pixels.

    Returns:
        `(rows, cols)`: float64 each, as long as the tile's side inside the scene.
    """
    grid = plan.lr_grid if is_lr else plan.grid
    frame = plan.scene if is_lr else plan.sr
    n_rows, n_cols = grid.shape
    first = grid[:n_cols]
    left = [(t.sr.col, t.sr.width) for t in first]
    down = [(grid[r * n_cols].sr.row, first[0].sr.height) for r in range(n_rows)]
    return (
        _axis_profiles(grid, down, frame.height),
        _axis_profiles(grid, left, frame.width),
    )


def _axis_profiles(
    grid: TileGrid, spans: Sequence[tuple[int, int]], length: int
) -> list[np.ndarray]:
    last = len(spans) - 1
    return [
        np.maximum(edge_weights(grid, side, (i > 0, i < last)), _MIN_WEIGHT)[
            : length - start
        ]
        for i, (start, side) in enumerate(spans)
    ]


def find_index(folder: Path) -> Path | None:
    """Return the index of a tile folder or of one of its parts, None without."""
    places = [folder / INDEX]
    if folder.name in (LR, *FOLDERS.values()):
        places.append(folder.parent / INDEX)
    return next((path for path in places if path.is_file()), None)


def write_index(path: Path, index: TileIndex) -> None:
    """Write `tiles.gpkg`; it appears under its name only when it is complete.

    Args:
        path: of the file.
        index: the tiles and what they hold.

    Raises:
        InputError: the folder cannot be written.
        ResourceError: the disk is full.
    """
    import geopandas
    import pandas
    import pyogrio

    plan = index.plan
    rows = [record.to_json() for record in index.tiles]
    constant = {
        "scale": str(plan.scale),
        "overlap": plan.overlap,
        "halo": plan.halo,
        "source": plan.source,
    }
    shapes = [_footprint(plan.scene, record.lr) for record in index.tiles]
    layer = geopandas.GeoDataFrame(
        [row | constant for row in rows], geometry=shapes, crs=plan.scene.crs
    )
    stored = plan.to_json()
    table = pandas.DataFrame(
        {"key": list(stored), "value": [json.dumps(v) for v in stored.values()]}
    )
    with translate_os_errors(path), temporary(path) as empty:
        part = empty.with_name(f"{empty.name}.gpkg")  # a name that GDAL takes
        pyogrio.write_dataframe(layer, part, layer="tiles", driver="GPKG")
        pyogrio.write_dataframe(table, part, layer="plan", driver="GPKG")
        sync(part)
        part.replace(path)


def read_index(path: Path) -> TileIndex:
    """Read `tiles.gpkg`.

    Raises:
        InputError: it is missing, damaged or not ours.
    """
    import pyogrio
    from pyogrio.errors import DataLayerError, DataSourceError

    try:
        table = pyogrio.read_dataframe(path, layer="plan")
        rows = pyogrio.read_dataframe(path, layer="tiles", read_geometry=False)
        pairs = zip(table["key"], table["value"], strict=True)
        plan = Tiling.from_json({str(k): json.loads(str(v)) for k, v in pairs})
        found = tuple(
            TileRecord.from_json({str(k): v for k, v in row.items()})
            for row in rows.to_dict("records")
        )
        if len(found) != len(plan.grid):
            raise ValueError(f"{len(found)} tiles, and {len(plan.grid)} are planned")
    except (DataLayerError, DataSourceError, KeyError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"{path}: not an index of tiles, or damaged ({reason}); make the folder "
            "again with 'rsupres tile'."
        ) from error
    return TileIndex(plan, found)


def _footprint(grid: Grid, window: PixelWindow) -> object:
    from shapely.geometry import Polygon

    rows = (window.row, window.row_stop)
    cols = (window.col, window.col_stop)
    corners = [(cols[0], rows[0]), (cols[1], rows[0]), (cols[1], rows[1])]
    corners.append((cols[0], rows[1]))
    return Polygon([grid.transform @ corner for corner in corners])
