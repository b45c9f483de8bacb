"""Read the map of a run: legend colours on windows of the SR frame.

Vector maps are drawn by `rsupres.vector.map`. A raster of legend colours, such as the
map beside a tile, is read as it is.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from rsupres.errors import ConditionError, InputError
from rsupres.grid import Grid, PixelWindow
from rsupres.legends.legend import LEGEND_TAG
from rsupres.raster.dataset import Raster
from rsupres.raster.place.union import NamedGrid, union_grid
from rsupres.vector.map import VectorMap


@dataclass(frozen=True)
class MapSource:
    """A vector map in its legend's colours: a `ConditionSource`."""

    opened: VectorMap

    @property
    def legend_name(self) -> str:
        """Name of the legend that draws it."""
        return self.opened.legend.name

    @property
    def background(self) -> tuple[int, int, int]:
        """Colour where nothing is mapped."""
        return self.opened.legend.background

    def read(self, window: PixelWindow) -> np.ndarray:
        """Return (3, H, W) uint8."""
        return self.opened.burn(window)

    def fingerprint(self) -> Mapping[str, object]:
        """Return files, hashes, legend and classes."""
        return self.opened.fingerprint()

    def describe(self) -> str:
        """Return the drawn classes, and the share of the scene that files cover."""
        drawn = {key: n for key, n in self.opened.counts.items() if n}
        frequent = sorted(drawn.items(), key=lambda item: -item[1])[:4]
        names = ", ".join(f"{n} {key}" for key, n in frequent) or "nothing"
        return (
            f"{sum(drawn.values())} features in legend {self.opened.legend.name} "
            f"({names}); covers {100 * self.opened.coverage:.1f} %"
        )


def map_source(opened: VectorMap) -> MapSource:
    """Return an open map as a condition.

    Raises:
        ConditionError: its legend has codes instead of colours.
    """
    if opened.legend.n_bands != 3:
        raise ConditionError(
            f"{opened.legend.name}: draws codes, but models look at colours; use "
            "maptiler or osm-carto.",
            argument="legend",
        )
    return MapSource(opened)


@dataclass(frozen=True)
class DrawnMap:
    """A raster of legend colours on the SR grid: a `ConditionSource`.

    Attributes:
        scene: open, three bands of uint8.
        corner: window of the SR frame in the raster's pixels.
        legend: its name, "" where the file names none.
    """

    scene: Raster
    corner: PixelWindow
    legend: str

    def read(self, window: PixelWindow) -> np.ndarray:
        """Return (3, H, W) uint8."""
        moved = window._replace(
            row=window.row + self.corner.row, col=window.col + self.corner.col
        )
        pixels, _ = self.scene.read_stored(moved, self.scene.data_bands)
        return pixels

    def fingerprint(self) -> Mapping[str, object]:
        """Return the file, its hash and its legend."""
        name = os.path.basename(self.scene.path)
        file = {"file": name, "sha256": self.scene.fingerprint()["sha256"]}
        return {"files": [file], "legend": self.legend}

    def describe(self) -> str:
        """Return the file and its legend."""
        drawn = f", drawn by legend {self.legend}" if self.legend else ""
        return f"{os.path.basename(self.scene.path)}{drawn}"


def is_drawn(paths: tuple[str, ...]) -> bool:
    """Return whether a map is one raster, not vector files."""
    return len(paths) == 1 and paths[0].lower().endswith((".tif", ".tiff", ".vrt"))


@contextmanager
def open_drawn(
    path: str, sr: Grid, legend: str | None, layers: tuple[str, ...] | None
) -> Iterator[DrawnMap]:
    """Yield a raster of legend colours, open as a map.

    Args:
        path: a raster, as `rsupres rasterize` and `rsupres tile` write it.
        sr: SR frame; the raster covers it, pixel on pixel.
        legend: wanted, None = any.
        layers: wanted classes of the legend; must be None.

    Raises:
        ConditionError: no colours, another grid or legend, or layers are wanted.
        InputError: it cannot be opened.
    """
    with Raster.open(path) as scene:
        own_legend = scene.any_tag(LEGEND_TAG)
        if layers is not None:
            raise ConditionError(
                f"cannot be chosen: {path} is a raster, drawn with all of them.",
                argument="layers",
            )
        names = (own_legend, f"{own_legend}.toml")
        if legend and own_legend and os.path.basename(legend) not in names:
            raise ConditionError(
                f"{path}: is drawn by legend {own_legend}, not {legend}; draw it again."
            )
        if len(scene.data_bands) != 3 or scene.dtype != "uint8":
            raise ConditionError(
                f"{path}: {len(scene.data_bands)} bands of {scene.dtype} are no map in "
                "colours; give vector files, or three bands of uint8."
            )
        try:
            _, (own, wanted) = union_grid([scene, NamedGrid("the SR grid", sr)])
        except InputError as error:
            raise ConditionError(
                f"{path}: a raster map must lie on the SR grid. {error}"
            ) from error
        if wanted.intersection(own) != wanted:
            raise ConditionError(f"{path}: does not cover the scene on its SR grid.")
        yield DrawnMap(scene, wanted.relative_to(own), own_legend)
