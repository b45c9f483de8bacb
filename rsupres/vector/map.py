"""Vector maps on the SR grid: open files and a legend, burn any window.

    with VectorMap.open(["town.osm.pbf"], sr_grid, load_legend("classes")) as town:
        codes = town.burn(window)

Reading and tags are in `rsupres.vector.files`, geometries in `rsupres.vector.geometry`,
and filling in `rsupres.vector.burn`. Knows no model and writes nothing.
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pyproj
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from rsupres.errors import ConditionError, InputError
from rsupres.grid import Grid, PixelWindow
from rsupres.legends.legend import Legend
from rsupres.legends.legend_file import load_legend
from rsupres.vector.burn import Burner
from rsupres.vector.files import read_features
from rsupres.vector.geometry import Box, PixelPlane, grown
from rsupres.vector.inks import Drawing, Tally, area_keys, reach_m
from rsupres.vector.overpass import date_of, resolve
from rsupres.vector.tags import osm_areas

__all__ = ["Legend", "VectorMap", "load_legend"]

logger = logging.getLogger(__name__)

MARGIN = 64  # SR pixels around the grid that are drawn too, plus the widest line
FINENESS = 4  # finer pixels along a pixel, when edges are blended
BURN_PIXELS = 1 << 24  # finer pixels that are burned at once
HASHED_WHOLE = 1 << 30  # bytes; of larger files both ends are hashed
HASHED_END = 1 << 20


class VectorMap(AbstractContextManager["VectorMap"]):
    """A legend's picture of vector files on an SR grid; a context manager.

    Attributes:
        legend: what is drawn.
        paths: the files.
        counts: class key -> features that touch the grid.
        ignored: features near the grid that no class takes.
        ignored_tags: the same by tag, most frequent first.
        hidden: features in tunnels or underground, not drawn.
        repaired: features with broken geometries that are drawn.
        dropped: features without any usable geometry.
        n_read: features that were read, near the grid.
        coverage: share of the grid inside the files' bounds, 0 to 1.
    """

    def __init__(
        self,
        paths: Sequence[str],
        legend: Legend,
        burner: Burner,
        values: NDArray[np.uint8],
        tally: Tally,
        coverage: float,
    ) -> None:
        self.legend = legend
        self.paths = tuple(paths)
        self.counts: Mapping[str, int] = {
            entry.key: tally.counts[entry.key] for entry in legend.classes
        }
        self.ignored = sum(tally.ignored.values())
        self.ignored_tags: Mapping[str, int] = dict(tally.ignored.most_common())
        self.hidden = tally.hidden
        self.repaired = tally.repaired
        self.dropped = tally.dropped
        self.n_read = tally.n_read
        self.coverage = coverage
        self._burner = burner
        self._values = values

    @classmethod
    def open(
        cls,
        paths: Sequence[str],
        grid: Grid,
        legend: Legend,
        layers: Sequence[str] | None = None,
        folder: Path | None = None,
    ) -> VectorMap:
        """Read what touches the grid.

        Args:
            paths: vector files; `overpass` stands for OpenStreetMap live.
            grid: SR grid, any CRS and transform.
            legend: what is drawn.
            layers: keys or groups of the legend's classes, None = all.
            folder: where copies of downloads are kept; None = the working folder.

        Raises:
            InputError: a file cannot be used, or a layer is not in the legend.
            ConditionError: the files do not touch the grid.
        """
        if grid.crs is None:
            raise InputError("The scene has no CRS, so no map can be laid over it.")
        legend = legend.only(layers)
        margin = MARGIN
        frame = PixelPlane(grid, margin)
        frame = PixelPlane(
            grid, margin + math.ceil(reach_m(legend) / frame.metres_per_pixel)
        )
        files = resolve(paths, grid, legend, folder)
        tally = Tally()
        drawing = Drawing(legend, frame, tally)
        for path in files:
            areas = osm_areas(area_keys(legend))
            for features in read_features(path, legend.keys, areas, frame.boxes_in):
                drawing.add(features)
        coverage = _coverage(files, frame, tally)
        burner, values = drawing.finish()
        result = cls(files, legend, burner, values, tally, coverage)
        result._report()
        return result

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the memory."""
        self._burner = Burner(np.empty(0, object), np.empty(0, np.uint16))

    def burn(self, window: PixelWindow) -> NDArray[np.uint8]:
        """Draw a window.

        Every window is a cut of the same picture. Up to `MARGIN` pixels outside the
        grid are drawn too; beyond that is background.

        Args:
            window: SR pixels, anywhere.

        Returns:
            (3, height, width) colours of an RGB legend, else (1, height, width) codes.
        """
        factor = FINENESS if self.legend.antialias else 1
        rows = max(1, BURN_PIXELS // max(1, window.width * factor**2))
        picture = np.empty((self.legend.n_bands, window.height, window.width), np.uint8)
        for top in range(0, window.height, rows):
            height = min(rows, window.height - top)
            part = PixelWindow(window.row + top, window.col, height, window.width)
            inks = self._burner.burn(part, factor)
            for band in range(self.legend.n_bands):
                values = self._values[band][inks]
                if factor > 1:
                    blocks = values.reshape(height, factor, window.width, factor)
                    sums = blocks.sum(axis=(1, 3), dtype=np.uint32)
                    values = ((sums + factor**2 // 2) // factor**2).astype(np.uint8)
                picture[band, top : top + height] = values
        return picture

    def fingerprint(self) -> dict[str, object]:
        """Return what decides the picture: files with hashes, legend, classes.

        Downloads also tell their date.
        """
        return {
            "files": [
                {
                    "name": os.path.basename(path),
                    "sha256": hash_file(path),
                    **({"date": date} if (date := date_of(path)) else {}),
                }
                for path in self.paths
            ],
            "legend": self.legend.name,
            "legend_sha256": self.legend.sha256,
            "classes": [entry.key for entry in self.legend.classes],
            "antialias": self.legend.antialias,
        }

    def _report(self) -> None:
        if self.repaired or self.dropped:
            logger.warning(
                "%s: %d broken geometries were repaired, %d could not be used.",
                ", ".join(self.paths),
                self.repaired,
                self.dropped,
            )
        if not sum(self.counts.values()):
            logger.warning(
                "%s: none of its features inside the scene is in legend %s.",
                ", ".join(self.paths),
                self.legend.name,
            )
        if self.coverage < 0.995:
            logger.warning(
                "%s: covers %.1f %% of the scene; the rest has no map.",
                ", ".join(self.paths),
                100 * self.coverage,
            )


def hash_file(path: str) -> str:
    """Return the SHA-256 of a file; of a very large one, of its size and both ends."""
    digest = hashlib.sha256()
    try:
        size = os.path.getsize(path)
        with open(path, "rb") as stream:
            if size <= HASHED_WHOLE:
                while block := stream.read(HASHED_END):
                    digest.update(block)
            else:
                digest.update(str(size).encode())
                digest.update(stream.read(HASHED_END))
                stream.seek(-HASHED_END, os.SEEK_END)
                digest.update(stream.read())
    except OSError:  # a name of GDAL's, such as /vsizip/...
        digest.update(path.encode())
    return digest.hexdigest()


def _coverage(paths: Sequence[str], frame: PixelPlane, tally: Tally) -> float:
    """Return the share of the grid inside the files' bounds.

    Raises:
        ConditionError: none of it, naming both footprints.
    """
    named = ", ".join(paths)
    if not tally.extents:
        raise ConditionError(f"{named}: holds no features with geometries.")
    outline = frame.outline
    seen = shapely.union_all([_seen(box, crs, frame) for box, crs in tally.extents])
    share = float(shapely.intersection(seen, outline).area / outline.area)
    if share > 0:
        return share
    crs = frame.grid.crs
    for box, layer_crs in tally.extents:
        swapped = (box[1], box[0], box[3], box[2])
        if _seen(swapped, layer_crs, frame).intersects(outline):
            raise ConditionError(
                f"{named}: its coordinates look swapped, latitude before longitude "
                f"({_text(box)}); swap them, for example with ogr2ogr -swapxy OUT IN."
            )
    footprints = "; ".join(
        f"{_text(box)} ({_name(layer_crs)})"
        for box, layer_crs in list(dict.fromkeys(tally.extents))[:2]
    )
    raise ConditionError(
        f"{named}: does not touch the scene: it covers {footprints}, the scene "
        f"{_text(PixelPlane(frame.grid, 0).bounds)} ({crs}), which is "
        f"{'; '.join(map(_text, _in_layer(frame, tally)))} in the map's CRS."
    )


def _in_layer(frame: PixelPlane, tally: Tally) -> list[Box]:
    return PixelPlane(frame.grid, 0).boxes_in(tally.extents[0][1])


def _seen(box: Box, crs: pyproj.CRS, frame: PixelPlane) -> BaseGeometry:
    """Return a layer's bounds in pixels, as far as they are near the grid."""
    near = [
        shapely.intersection(_box(box), _box(grown(part)))
        for part in frame.boxes_in(crs)
    ]
    shapes = np.array([shape for shape in near if shape.area > 0 or _flat(box)], object)
    if not len(shapes):
        return shapely.Polygon()
    x0, y0, x1, y1 = shapely.total_bounds(shapes)
    step = max(x1 - x0, y1 - y0) / 32 or 1.0
    moved = frame.to_pixels(shapely.segmentize(shapes, step), crs)
    return shapely.union_all(list(_sound(moved)))


def _flat(box: Box) -> bool:
    return box[0] == box[2] or box[1] == box[3]


def _box(box: Box) -> BaseGeometry:
    return shapely.box(*box)


def _sound(shapes: Iterable[BaseGeometry | None]) -> Iterator[BaseGeometry]:
    for shape in shapes:
        if shape is not None and not shape.is_empty:
            yield shape if shape.is_valid else shape.buffer(0)


def _text(box: Sequence[float]) -> str:
    return " ".join(f"{value:.8g}" for value in box)


def _name(crs: pyproj.CRS) -> str:
    authority = crs.to_authority()
    return ":".join(authority) if authority else crs.name
