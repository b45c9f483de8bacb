"""Open vector maps on the SR grid with a legend, and draw any window.

    with VectorMap.open(["town.osm.pbf"], sr_grid, load_legend("classes")) as town:
        codes = town.burn(window)

Files are read by `rsupres.vector.files`, geometries brought into pixels by
`rsupres.vector.geometry`, and polygons filled by `rsupres.vector.burn`. Nothing is
written here.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path

import numpy as np
import pyproj
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from rsupres.errors import ConditionError, InputError
from rsupres.grid import Grid, PixelWindow
from rsupres.legends.legend import Legend
from rsupres.vector.burn import Burner
from rsupres.vector.files import read_features, source_sha256
from rsupres.vector.geometry import Box, PixelPlane, enlarged
from rsupres.vector.inks import Drawing, Tally, area_keys, reach_m
from rsupres.vector.osm.copies import download_date
from rsupres.vector.osm.overpass import resolve
from rsupres.vector.osm.tags import osm_areas

logger = logging.getLogger(__name__)

MARGIN = 64  # SR pixels around the grid that are drawn too, plus the widest line
ANTIALIAS_FACTOR = 4  # finer pixels along a pixel, when edges are blended
BURN_PIXELS = 1 << 24  # finer pixels that are burned together
WARN_COVERAGE = 0.995  # share of the grid; less is worth a warning


class VectorMap(AbstractContextManager["VectorMap"]):
    """Vector files on an SR grid, drawn by a legend; a context manager.

    Attributes:
        legend: classes and colours that are drawn.
        paths: the files.
        counts: class key -> features that touch the grid.
        ignored: features near the grid that are in no class.
        ignored_tags: the same by tag, most frequent first.
        hidden: features in tunnels or underground, not drawn.
        repaired: features with broken geometries that are drawn.
        dropped: features without any usable geometry.
        unread_widths: `width` tags that cannot be read -> lines that have them.
        n_read: features near the grid that were read.
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
        self.unread_widths: Mapping[str, int] = dict(tally.unread_widths.most_common())
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
        """Return a map of files with the features that touch the grid.

        Args:
            paths: vector files; `overpass` downloads OpenStreetMap of the scene.
            grid: SR grid, any CRS and transform.
            legend: classes and colours to draw.
            layers: keys or groups of the legend's classes, None = all.
            folder: where copies of downloads are kept; None = the working folder.

        Raises:
            InputError: a file cannot be used, or a layer is not in the legend.
            ConditionError: the files do not touch the grid.
        """
        if grid.crs is None:
            raise InputError("The scene has no CRS, so no map can be laid over it.")
        legend = legend.only(layers)
        frame = PixelPlane(grid, MARGIN)
        reach = math.ceil(reach_m(legend) / frame.metres_per_pixel)
        frame = PixelPlane(grid, MARGIN + reach)
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
        """Return (3, h, w) colours of an RGB legend, else (1, h, w) codes, of a window.

        Every window of SR pixels is a cut of the same picture. Up to `MARGIN` pixels
        outside the grid are drawn too; beyond that is background.
        """
        factor = ANTIALIAS_FACTOR if self.legend.antialias else 1
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
        """Return the inputs of the picture: files with hashes, legend, classes.

        Downloads also have their date.
        """
        return {
            "files": [dict(file) for file in self._files],
            "legend": self.legend.name,
            "legend_sha256": self.legend.sha256,
            "classes": [entry.key for entry in self.legend.classes],
            "antialias": self.legend.antialias,
        }

    @cached_property
    def _files(self) -> Sequence[Mapping[str, str]]:
        """Names, hashes and dates of the files, each of which is hashed once."""
        return [
            {
                "name": os.path.basename(path),
                "sha256": source_sha256(path),
                **({"date": date} if (date := download_date(path)) else {}),
            }
            for path in self.paths
        ]

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
                "%s: no feature in the scene is in legend %s.",
                ", ".join(self.paths),
                self.legend.name,
            )
        if self.unread_widths:
            logger.warning(
                "%s: %d lines have a width that cannot be read, such as %r; they are "
                "drawn in the usual width.",
                ", ".join(self.paths),
                sum(self.unread_widths.values()),
                next(iter(self.unread_widths)),
            )
        if 0 < self.coverage < WARN_COVERAGE:  # 0: a line, or bounds unknown
            logger.warning(
                "%s: covers %.1f %% of the scene; the rest has no map.",
                ", ".join(self.paths),
                100 * self.coverage,
            )


def _coverage(paths: Sequence[str], frame: PixelPlane, tally: Tally) -> float:
    """Return the share of the grid inside the files' bounds; refuse a map beside it."""
    named = ", ".join(paths)
    if not tally.extents:  # nothing was read, and the files have no bounds
        return 0.0
    outline = frame.outline
    seen = shapely.union_all([_seen(box, crs, frame) for box, crs in tally.extents])
    share = float(shapely.intersection(seen, outline).area / outline.area)
    if share > 0 or seen.intersects(outline):
        return share
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
    scene = PixelPlane(frame.grid, 0)
    in_map_crs = "; ".join(map(_text, scene.boxes_in(tally.extents[0][1])))
    raise ConditionError(
        f"{named}: does not touch the scene: it covers {footprints}, the scene "
        f"{_text(scene.bounds)} ({frame.grid.crs}), which is {in_map_crs} in the map's "
        "CRS."
    )


def _seen(box: Box, crs: pyproj.CRS, frame: PixelPlane) -> BaseGeometry:
    """Return the part of a layer's bounds that is near the grid, in pixels."""
    near = [
        shapely.intersection(_outline(box), shapely.box(*enlarged(part)))
        for part in frame.boxes_in(crs)
    ]
    shapes = np.array([shape for shape in near if not shape.is_empty], object)
    if not len(shapes):
        return shapely.Polygon()
    x0, y0, x1, y1 = shapely.total_bounds(shapes)
    step = max(x1 - x0, y1 - y0) / 32 or 1.0
    moved = frame.to_pixels(shapely.segmentize(shapes, step), crs)
    return shapely.union_all(list(_valid_parts(moved)))


def _outline(box: Box) -> BaseGeometry:
    """Return bounds as a polygon; those of one straight street are a line."""
    west, south, east, north = box
    if west < east and south < north:
        return shapely.box(*box)
    if (west, south) == (east, north):
        return shapely.Point(west, south)
    return shapely.LineString([(west, south), (east, north)])


def _valid_parts(shapes: Iterable[BaseGeometry | None]) -> Iterator[BaseGeometry]:
    for shape in shapes:
        if shape is not None and not shape.is_empty:
            yield shape if shape.is_valid else shape.buffer(0)


def _text(box: Sequence[float]) -> str:
    return " ".join(f"{value:.8g}" for value in box)


def _name(crs: pyproj.CRS) -> str:
    authority = crs.to_authority()
    return ":".join(authority) if authority else crs.name
