"""Turn features into polygons with inks: the class, colour and order of drawing.

Tags choose the class, hide tunnels, lift bridges and widen lines. Features are counted
as drawn, ignored, hidden, repaired or dropped. No file is opened here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import pyproj
import shapely
from numpy.typing import NDArray

from rsupres.errors import InputError
from rsupres.legends.legend import Legend
from rsupres.legends.line_width import LineWidth, width_of_tag
from rsupres.vector.burn import MAX_INKS, Burner
from rsupres.vector.features import Features
from rsupres.vector.geometry import (
    Box,
    PixelPlane,
    clip,
    cut,
    enlarged,
    snap,
    split_kinds,
)
from rsupres.vector.osm.rings import with_rings
from rsupres.vector.osm.tags import MAIN_KEYS, plain_flags
from rsupres.vector.wkb import Shapes, parse

MAX_TAG_WIDTH_M = 60.0  # a wider `width` tag may be cut off outside the margin
MIN_LINE_WIDTH = 1.0  # SR pixels; half of a pixel when edges are blended
OPEN_TUNNELS = ("no", "building_passage", "avalanche_protector", "covered")
HIDDEN_PLACES = ("underground", "underwater", "indoor")
MAX_LEVEL = 9
BATCH_FEATURES = 1 << 14  # whose geometries are in memory together


class Ink(NamedTuple):
    """The class and level of polygons; they are drawn in the order of sorted inks.

    Attributes:
        on_top: 1 for classes that bridges do not cover.
        level: 0 on the ground, n for a bridge of `layer=n`.
        order: of the class, or of the casings.
        number: of the class in the legend.
        is_casing: whether it is the border of a line.
    """

    on_top: int
    level: int
    order: float
    number: int
    is_casing: bool


@dataclass
class Tally:
    """Counts of drawn and dropped features, and bounds of the layers."""

    counts: Counter[str] = field(default_factory=Counter)
    ignored: Counter[str] = field(default_factory=Counter)
    hidden: int = 0
    repaired: int = 0
    dropped: int = 0
    unread_widths: Counter[str] = field(default_factory=Counter)
    n_read: int = 0
    extents: list[tuple[Box, pyproj.CRS]] = field(default_factory=list)


class Drawing:
    """Collects polygons with their inks, layer by layer."""

    def __init__(self, legend: Legend, frame: PixelPlane, tally: Tally) -> None:
        self._legend = legend
        self._frame = frame
        self._tally = tally
        self._inks: dict[Ink, list[Shapes]] = {}
        cased = [entry.order for entry in legend.classes if entry.casing]
        self._casing_order = min(cased, default=0) - 0.5
        blended = 0.5 if legend.antialias else 1.0
        self._min_width = blended * MIN_LINE_WIDTH

    def add(self, features: Features) -> None:
        """Add the features of one layer that are in a class and near the grid."""
        tally = self._tally
        features = replace(features, tags=plain_flags(features.tags))
        features = with_rings(features)
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
        for start in range(0, len(chosen), BATCH_FEATURES):
            self._add_some(features, matches, chosen[start : start + BATCH_FEATURES])

    def _add_some(
        self,
        features: Features,
        matches: Sequence[NDArray[np.bool_]],
        chosen: NDArray[np.intp],
    ) -> None:
        """Add some features; their geometries are copied a few times."""
        tally = self._tally
        shapes, n_repaired, n_dropped = parse(features.wkb[chosen])
        tally.repaired += n_repaired
        tally.dropped += n_dropped
        usable = np.flatnonzero(~shapely.is_missing(shapes))
        chosen, shapes = chosen[usable], shapes[usable]
        if features.extent is None and len(shapes):
            west, south, east, north = (float(v) for v in shapely.total_bounds(shapes))
            tally.extents.append(((west, south, east, north), features.crs))
        # Parts far away may lie outside the area of the projection.
        shapes = clip(shapes, enlarged(features.boxes[0]))
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
                self._add(
                    *(areas[best_area == index], of_area[best_area == index]),
                    *(levels, index),
                    is_casing=False,
                ),
                self._add_lines(
                    lines, of_line, best_line == index, levels, index, tags
                ),
            ]
            tally.counts[entry.key] += len(np.unique(np.concatenate(touched)))

    def finish(self) -> tuple[Burner, NDArray[np.uint8]]:
        """Return the burner and (bands, inks + 1) values, background first."""
        inks = sorted(self._inks)
        if len(inks) > MAX_INKS:
            raise InputError(
                f"The map has {len(inks)} kinds of features, more than {MAX_INKS}."
            )
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
            return (0 if ink is None else self._legend.classes[ink.number].code,)
        if ink is None:
            return self._legend.background
        entry = self._legend.classes[ink.number]
        if ink.is_casing:
            assert entry.casing is not None
            return entry.casing[0]
        return entry.colour

    def _classes(
        self, matches: Sequence[NDArray[np.bool_]], chosen: NDArray[np.intp], kind: str
    ) -> NDArray[np.intp]:
        """Return the class of each feature that is drawn last, -1 for none."""
        best = np.full(len(chosen), -1, np.intp)
        order = np.full(len(chosen), -np.inf)
        for index, entry in enumerate(self._legend.classes):
            if entry.geometry in (kind, "any"):
                better = matches[index][chosen] & (order < entry.order)
                best[better], order[better] = index, entry.order
        return best

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
        for owner in np.unique(owners):
            text = tags["width"][owner]
            if text is not None and width_of_tag(text) is None:
                self._tally.unread_widths[str(text)] += 1
        if entry.casing is not None:
            cased = self._frame.widen(
                lines, widths_m + 2 * entry.casing[1], self._min_width
            )
            self._add(cased, owners, levels, index, is_casing=True)
        bands = self._frame.widen(lines, widths_m, self._min_width)
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
        return np.asarray(owners[inside], np.intp)

    def _count_ignored(
        self, tags: Mapping[str, NDArray[np.object_]], ignored: NDArray[np.bool_]
    ) -> None:
        for index in np.flatnonzero(ignored):
            tag = next(
                (
                    f"{key}={tags[key][index]}"
                    for key in MAIN_KEYS
                    if key in tags and tags[key][index] not in (None, "no")
                ),
                "other",
            )
            self._tally.ignored[tag] += 1


def reach_m(legend: Legend) -> float:
    """Return the metres outside the grid from which a wide line may reach into it."""
    widths = [
        entry.width.widest_m / 2 + (entry.casing[1] if entry.casing else 0.0)
        for entry in legend.classes
        if entry.width is not None
    ]
    return max([0.0, *widths]) + (MAX_TAG_WIDTH_M / 2 if widths else 0.0)


def area_keys(legend: Legend) -> set[str]:
    """Return the keys of the tags by which classes of areas are recognised."""
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
    """Return 0 on the ground, and for bridges their `layer`, at least 1."""
    n_features = len(tags["bridge"])
    levels = np.zeros(n_features, np.intp)
    of_man = tags.get("man_made", np.full(n_features, None, object))
    for index in range(n_features):
        bridge = tags["bridge"][index]
        if bridge in (None, "no") and of_man[index] != "bridge":
            continue
        try:
            layer = int(float(tags["layer"][index] or 1))
        except ValueError:
            layer = 1
        levels[index] = min(max(layer, 1), MAX_LEVEL)
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
