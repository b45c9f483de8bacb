"""Vector maps on the SR grid: open files and a legend, burn any window.

    with VectorMap.open(["town.osm.pbf"], sr_grid, load_legend("classes")) as town:
        codes = town.burn(window)

Reading and tags are in `rsupres.vector_files`, geometries in `rsupres.geometry`, and
filling in `rsupres.burning`. Knows no model and writes nothing.
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import numpy as np
import pyproj
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from rsupres.burning import MOST_INKS, Burner
from rsupres.errors import ConditionError, InputError
from rsupres.geometry import Box, Frame, Shapes, clip, cut, parse, snap, split_kinds
from rsupres.grid import Grid, PixelWindow
from rsupres.legend import Legend, LineWidth, load_legend
from rsupres.overpass import date_of, resolve
from rsupres.vector_files import Features, read_features
from rsupres.vector_tags import TELLING_KEYS, osm_areas

__all__ = ["Legend", "VectorMap", "load_legend"]

logger = logging.getLogger(__name__)

MARGIN = 64  # SR pixels around the grid that are drawn too, plus the widest line
WIDEST_TAG_M = 60.0  # a `width` tag beyond this may be cut off outside the margin
LEAST_LINE = 1.0  # SR pixels; half of a pixel when edges are blended
FINENESS = 4  # finer pixels along a pixel, when edges are blended
BURN_PIXELS = 1 << 24  # finer pixels that are burned at once
HASHED_WHOLE = 1 << 30  # bytes; of larger files both ends are hashed
HASHED_END = 1 << 20
OPEN_TUNNELS = ("no", "building_passage", "avalanche_protector", "covered")
HIDDEN_PLACES = ("underground", "underwater", "indoor")
NO_BRIDGES = ("no", "aqueduct_ruin")


class Ink(NamedTuple):
    """What polygons are drawn with; sorting by it is the drawing order.

    Attributes:
        on_top: 1 for classes that bridges do not cover.
        level: 0 on the ground, n for a bridge of `layer=n`.
        order: of the class, or of the casings.
        index: of the class in the legend.
        is_casing: the border of a line.
    """

    on_top: int
    level: int
    order: float
    index: int
    is_casing: bool


@dataclass
class _Tally:
    """What was met while reading."""

    counts: Counter[str] = field(default_factory=Counter)
    ignored: Counter[str] = field(default_factory=Counter)
    hidden: int = 0
    repaired: int = 0
    dropped: int = 0
    n_read: int = 0
    extents: list[tuple[Box, pyproj.CRS]] = field(default_factory=list)


class VectorMap:
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
        tally: _Tally,
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
        frame = Frame(grid, margin)
        frame = Frame(
            grid, margin + math.ceil(_reach_m(legend) / frame.metres_per_pixel)
        )
        files = resolve(paths, grid, legend, folder)
        tally = _Tally()
        drawing = _Drawing(legend, frame, tally)
        for path in files:
            areas = osm_areas(_area_keys(legend))
            for features in read_features(path, legend.keys, areas, frame.boxes_in):
                drawing.add(features)
        coverage = _coverage(files, frame, tally)
        burner, values = drawing.finish()
        result = cls(files, legend, burner, values, tally, coverage)
        result._report()
        return result

    def __enter__(self) -> VectorMap:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
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


class _Drawing:
    """Collects polygons with their inks, layer by layer."""

    def __init__(self, legend: Legend, frame: Frame, tally: _Tally) -> None:
        self._legend = legend
        self._frame = frame
        self._tally = tally
        self._inks: dict[Ink, list[Shapes]] = {}
        cased = [entry.order for entry in legend.classes if entry.casing]
        self._casing_order = min(cased, default=0) - 0.5
        self._least = LEAST_LINE / 2 if legend.antialias else LEAST_LINE

    def add(self, features: Features) -> None:
        """Take the features of one layer that a class wants and that are in reach."""
        tally = self._tally
        tally.n_read += len(features.wkb)
        if features.extent is not None:
            tally.extents.append((features.extent, features.crs))
        if not len(features.wkb):
            return
        matches = [entry.meets(features.tags) for entry in self._legend.classes]
        wanted = np.any(matches, axis=0)
        self._count_ignored(features.tags, ~wanted)
        hidden = wanted & _is_hidden(features.tags)
        tally.hidden += int(hidden.sum())
        chosen = np.flatnonzero(wanted & ~hidden)
        shapes, n_repaired, n_dropped = parse(features.wkb[chosen])
        tally.repaired += n_repaired
        tally.dropped += n_dropped
        usable = np.flatnonzero(~shapely.is_missing(shapes))
        chosen, shapes = chosen[usable], shapes[usable]
        if features.extent is None and len(shapes):
            west, south, east, north = (float(v) for v in shapely.total_bounds(shapes))
            tally.extents.append(((west, south, east, north), features.crs))
        # Far parts may lie where the projection ends.
        shapes = clip(shapes, _generous(features.boxes[0]))
        shapes = self._frame.to_pixels(shapes, features.crs)
        areas, of_area, lines, of_line = split_kinds(shapes)
        is_taken = np.zeros(len(chosen), bool)
        tags = {key: values[chosen] for key, values in features.tags.items()}
        levels = _levels(tags)
        best_area = self._classes(matches, chosen, "area")[of_area]
        best_line = self._classes(matches, chosen, "line")[of_line]
        is_taken[of_area[best_area >= 0]] = True
        is_taken[of_line[best_line >= 0]] = True
        self._count_ignored(tags, ~is_taken & ~shapely.is_missing(shapes))
        for index, entry in enumerate(self._legend.classes):
            touched = [
                self._add_areas(areas, of_area, best_area == index, levels, index),
                self._add_lines(
                    lines, of_line, best_line == index, levels, index, tags
                ),
            ]
            tally.counts[entry.key] += len(np.unique(np.concatenate(touched)))

    def finish(self) -> tuple[Burner, NDArray[np.uint8]]:
        """Return the burner and (bands, inks + 1) values, background first."""
        inks = sorted(self._inks)
        if len(inks) > MOST_INKS:
            raise InputError(f"The map has {len(inks)} kinds of features, too many.")
        polygons: list[Shapes] = [np.empty(0, object)]
        numbers: list[NDArray[np.uint16]] = [np.empty(0, np.uint16)]
        colours = [self._value(None)]
        for number, ink in enumerate(inks):
            shapes = np.concatenate(self._inks[ink])
            polygons.append(shapes)
            numbers.append(np.full(len(shapes), number, np.uint16))
            colours.append(self._value(ink))
        self._inks = {}
        burner = Burner(np.concatenate(polygons), np.concatenate(numbers))
        return burner, np.asarray(colours, np.uint8).T

    def _value(self, ink: Ink | None) -> tuple[int, ...]:
        if self._legend.kind == "classes":
            return (0 if ink is None else self._legend.classes[ink.index].code,)
        if ink is None:
            return self._legend.background
        entry = self._legend.classes[ink.index]
        if ink.is_casing:
            assert entry.casing is not None
            return entry.casing[0]
        return entry.colour

    def _classes(
        self, matches: Sequence[NDArray[np.bool_]], chosen: NDArray[np.intp], kind: str
    ) -> NDArray[np.intp]:
        """Return the class that draws each feature last, -1 for none."""
        best = np.full(len(chosen), -1, np.intp)
        order = np.full(len(chosen), -np.inf)
        for index, entry in enumerate(self._legend.classes):
            if entry.geometry in (kind, "any"):
                better = matches[index][chosen] & (order < entry.order)
                best[better], order[better] = index, entry.order
        return best

    def _add_areas(
        self,
        areas: Shapes,
        owners: NDArray[np.intp],
        mine: NDArray[np.bool_],
        levels: NDArray[np.intp],
        index: int,
    ) -> NDArray[np.intp]:
        """Add the areas of one class; return the features that touch the grid."""
        return self._add(areas[mine], owners[mine], levels, index, is_casing=False)

    def _add_lines(
        self,
        lines: Shapes,
        owners: NDArray[np.intp],
        mine: NDArray[np.bool_],
        levels: NDArray[np.intp],
        index: int,
        tags: Mapping[str, NDArray[np.object_]],
    ) -> NDArray[np.intp]:
        entry = self._legend.classes[index]
        if not mine.any() or entry.width is None:
            return np.empty(0, np.intp)
        lines, owners = clip(lines[mine], self._frame.box), owners[mine]
        kept = ~shapely.is_missing(lines)
        lines, owners = lines[kept], owners[kept]
        widths_m = _widths_m(entry.width, tags, owners)
        if entry.casing is not None:
            cased = self._frame.widen(
                lines, widths_m + 2 * entry.casing[1], self._least
            )
            self._add(cased, owners, levels, index, is_casing=True)
        bands = self._frame.widen(lines, widths_m, self._least)
        return self._add(bands, owners, levels, index, is_casing=False)

    def _add(
        self,
        shapes: Shapes,
        owners: NDArray[np.intp],
        levels: NDArray[np.intp],
        index: int,
        *,
        is_casing: bool,
    ) -> NDArray[np.intp]:
        shapes = clip(shapes, self._frame.box)
        kept = ~shapely.is_missing(shapes)
        parts, of_part, _, _ = split_kinds(shapes[kept])
        singles, of_single = shapely.get_parts(parts, return_index=True)
        pieces, of_piece = cut(singles)
        owners = owners[kept][of_part][of_single][of_piece]
        pieces = snap(pieces)
        entry = self._legend.classes[index]
        order = self._casing_order if is_casing else float(entry.order)
        of_level = levels[owners]
        for level in np.unique(of_level):
            ink = Ink(int(entry.on_top), int(level), order, index, is_casing)
            self._inks.setdefault(ink, []).append(pieces[of_level == level])
        x0, y0, x1, y1 = shapely.bounds(pieces).T
        grid = self._frame.grid
        inside = (x1 > 0) & (y1 > 0) & (x0 < grid.width) & (y0 < grid.height)
        return owners[inside]

    def _count_ignored(
        self, tags: Mapping[str, NDArray[np.object_]], ignored: NDArray[np.bool_]
    ) -> None:
        for index in np.flatnonzero(ignored):
            told = next(
                (
                    f"{key}={tags[key][index]}"
                    for key in TELLING_KEYS
                    if key in tags and tags[key][index] is not None
                ),
                "other",
            )
            self._tally.ignored[told] += 1


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


def _reach_m(legend: Legend) -> float:
    """Return how far outside the grid a line may be whose band comes in, metres."""
    widths = [
        entry.width.widest_m / 2 + (entry.casing[1] if entry.casing else 0.0)
        for entry in legend.classes
        if entry.width is not None
    ]
    return max([0.0, *widths]) + (WIDEST_TAG_M / 2 if widths else 0.0)


def _area_keys(legend: Legend) -> set[str]:
    return {
        key
        for entry in legend.classes
        if entry.geometry != "line"
        for wanted in entry.tags
        for key in wanted
    }


def _is_hidden(tags: Mapping[str, NDArray[np.object_]]) -> NDArray[np.bool_]:
    def hides(tunnel: object, place: object) -> bool:
        in_tunnel = tunnel is not None and tunnel not in OPEN_TUNNELS
        return in_tunnel or place in HIDDEN_PLACES

    pairs = zip(tags["tunnel"], tags["location"], strict=True)
    return np.fromiter((hides(*pair) for pair in pairs), bool, len(tags["tunnel"]))


def _levels(tags: Mapping[str, NDArray[np.object_]]) -> NDArray[np.intp]:
    """Return 0 on the ground, for bridges their `layer`, at least 1."""
    n_features = len(tags["bridge"])
    levels = np.zeros(n_features, np.intp)
    of_man = tags.get("man_made", np.full(n_features, None, object))
    for index in range(n_features):
        bridge = tags["bridge"][index]
        if (bridge is None or bridge in NO_BRIDGES) and of_man[index] != "bridge":
            continue
        try:
            layer = int(float(tags["layer"][index] or 1))
        except ValueError:
            layer = 1
        levels[index] = min(max(layer, 1), 9)
    return levels


def _widths_m(
    width: LineWidth,
    tags: Mapping[str, NDArray[np.object_]],
    owners: NDArray[np.intp],
) -> NDArray[np.float64]:
    values = tags.get(width.key)
    return np.array(
        [
            width.metres(
                None if values is None else values[owner],
                tags["lanes"][owner],
                tags["width"][owner],
            )
            for owner in owners
        ],
        np.float64,
    )


def _generous(box: Box) -> Box:
    """Return a box three times as large: cutting there shows nowhere."""
    west, south, east, north = box
    width, height = east - west, north - south
    return west - width, south - height, east + width, north + height


def _coverage(paths: Sequence[str], frame: Frame, tally: _Tally) -> float:
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
        f"{_text(box)} ({_name(layer_crs)})" for box, layer_crs in tally.extents[:2]
    )
    raise ConditionError(
        f"{named}: does not touch the scene: it covers {footprints}, the scene "
        f"{_text(Frame(frame.grid, 0).bounds)} ({crs}), which is "
        f"{'; '.join(map(_text, _in_layer(frame, tally)))} in the map's CRS."
    )


def _in_layer(frame: Frame, tally: _Tally) -> list[Box]:
    return Frame(frame.grid, 0).boxes_in(tally.extents[0][1])


def _seen(box: Box, crs: pyproj.CRS, frame: Frame) -> BaseGeometry:
    """Return a layer's bounds in pixels, as far as they are near the grid."""
    near = [
        shapely.intersection(_box(box), _box(_generous(part)))
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
