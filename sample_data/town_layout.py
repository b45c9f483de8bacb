"""Draw a town and its countryside from a seed: which shapes lie where; no pixels here.

The order of drawing is the order of a real place: a river, two roads that meet, the
streets around them, blocks, plots and houses, then fields, woods and trees in what is
left. Every part has its own random numbers, so one part can change without the others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.random import Generator
from shapely import STRtree, prepare
from shapely.geometry import LineString, MultiPolygon, Point, Polygon
from shapely.geometry.base import BaseGeometry
from shapely.ops import unary_union
from town_blocks import draw_blocks
from town_country import draw_country_trees, draw_fields, draw_outskirts
from town_draft import Draft
from town_shapes import (
    Axes,
    Building,
    Car,
    Town,
    largest,
    lines,
    polygons,
    rounded,
)

STREET_NAMES = (
    "Mill Street",
    "Church Lane",
    "Garden Street",
    "School Street",
    "Lime Avenue",
    "Upper Street",
    "Meadow Way",
    "Weaver Lane",
    "Orchard Way",
    "Castle Street",
    "Ferry Lane",
    "Vineyard Way",
)


def lay_out_town(seed: int, size_m: float) -> Town:
    """Draw the town that belongs to a seed.

    Args:
        seed: any whole number that is not negative; the same seed gives the same town.
        size_m: side of the square in metres, 600 or more.

    Returns:
        The town with the shapes of both eras; see `Town.now` and `Town.earlier`.

    Raises:
        ValueError: when `size_m` leaves no room for a town and its fields.
    """
    if size_m < 600:
        raise ValueError(f"size_m is {size_m:g}, a town needs 600 m or more")
    draft = Draft(seed, size_m)
    draw_river(draft)
    draw_streets(draft)
    draw_blocks(draft)
    draw_fields(draft)
    draw_outskirts(draft)
    draw_country_trees(draft)
    clear_clashes(draft)
    return draft.finished()


def park_cars(town: Town, seed: int) -> tuple[Car, ...]:
    """Return cars at the kerbs, on the roads and in the car parks of one day."""
    rng = np.random.default_rng([seed, town.seed, 99])
    cars: list[Car] = []
    paints = ("white", "black", "silver", "grey", "red", "blue")
    for road in town.roads:
        if road.kind in ("track", "service"):
            continue
        gap = {"primary": 90, "secondary": 110, "residential": 34}[road.kind]
        offset = road.width / 2 - (1.1 if road.kind == "residential" else 2.2)
        for at in np.arange(rng.uniform(5, gap), road.line.length - 8, gap):
            at = float(at + rng.uniform(-0.4, 0.4) * gap)
            start, stop = road.line.interpolate(at), road.line.interpolate(at + 2)
            angle = math.atan2(stop.y - start.y, stop.x - start.x)
            side = offset if rng.random() < 0.5 else -offset
            cars.append(
                Car(
                    round(start.x - side * math.sin(angle), 2),
                    round(start.y + side * math.cos(angle), 2),
                    angle,
                    float(rng.choice([4.2, 4.5, 4.7, 8.5], p=[0.4, 0.35, 0.2, 0.05])),
                    str(rng.choice(paints)),
                )
            )
    for patch in town.patches:
        if patch.surface == "parking":
            cars.extend(_fill_car_park(patch.polygon, rng, paints))
    return tuple(cars)


def _fill_car_park(
    polygon: Polygon, rng: Generator, paints: Sequence[str]
) -> list[Car]:
    axes = Axes.of(polygon)
    prepare(polygon)
    cars = []
    for b in np.arange(-axes.half_width + 3.2, axes.half_width - 2.5, 8.0):
        for a in np.arange(-axes.half_length + 2, axes.half_length - 1.5, 2.6):
            centre = axes.at(float(a), float(b))
            if rng.random() < 0.62 and polygon.contains(Point(centre).buffer(2.0)):
                angle = axes.angle + math.pi / 2
                cars.append(Car(*centre, angle, 4.4, str(rng.choice(paints))))
    return cars


def draw_river(draft: Draft) -> None:
    """A meandering river along the main road, through the lower part of town."""
    rng = draft.rng(2)
    a, b = rng.uniform(0, 2 * math.pi, 2)
    points, widths = [], []
    for u in np.arange(-0.9 * draft.size, 0.9 * draft.size, 8.0):
        sway = 0.1 * draft.radius * math.sin(u / 82 + a) + 9 * math.sin(u / 33 + b)
        points.append(draft.ground(float(u), -draft.river_offset + sway))
        widths.append(10.5 + 1.8 * math.sin(u / 51 + b) + rng.uniform(-0.7, 0.7))
    discs = [
        LineString(points[i : i + 2]).buffer(widths[i], 6)
        for i in range(len(points) - 1)
    ]
    whole = rounded(unary_union(discs).simplify(0.3))
    draft.river = largest(whole.intersection(draft.frame))
    draft.river_line = max(
        lines(LineString(points).intersection(draft.frame)),
        key=lambda line: line.length,
    )


def draw_streets(draft: Draft) -> None:
    """Two through roads, streets between them, and the built-up area around both."""
    rng = draft.rng(3)
    far = 0.95 * draft.size
    draft.add_road([(-far, 0), (far, 0)], "primary", "Main Road", draft.frame)
    draft.add_road([(0, -far), (0, far)], "secondary", "Bridge Street", draft.frame)
    blob = Polygon(_outline(draft, rng)).buffer(0)
    _draw_side_streets(draft, rng, blob.difference(draft.river.buffer(20)))
    # People build along streets, one plot deep.
    plots = [
        road.line.intersection(blob).buffer(37, cap_style="flat")
        for road in draft.roads
    ]
    joined = unary_union(plots).buffer(14, join_style="mitre")
    town = joined.buffer(-14, join_style="mitre").intersection(draft.frame)
    land = polygons(town.difference(draft.river.buffer(13)))
    whole = unary_union([Polygon(part.exterior) for part in land])
    draft.built_up = MultiPolygon(
        [rounded(part) for part in polygons(whole.simplify(0.5).buffer(0))]
    )


def _outline(draft: Draft, rng: Generator) -> list[tuple[float, float]]:
    """Return how far the side streets reach in each direction."""
    phases = rng.uniform(0, 2 * math.pi, 3)
    points = []
    for turn in np.linspace(0, 2 * math.pi, 72, endpoint=False):
        waves = zip((2, 3, 5), (0.1, 0.08, 0.05), phases, strict=True)
        wave = sum(size * math.sin(n * turn + phase) for n, size, phase in waves)
        reach = draft.radius * (1 + wave)
        u, v = 1.1 * reach * math.cos(turn), 0.95 * reach * math.sin(turn)
        points.append(draft.ground(u, v))
    return points


def _draw_side_streets(draft: Draft, rng: Generator, area: BaseGeometry) -> None:
    names = [str(name) for name in rng.permutation(np.array(STREET_NAMES))]
    rows, columns = [45 - draft.river_offset, 0.0], [0.0]
    while rows[-1] < draft.radius:
        rows.append(rows[-1] + float(rng.uniform(60, 72)))
    for sign in (-1, 1):
        at = 0.0
        while abs(at) < draft.radius:
            at += sign * float(rng.uniform(84, 118))
            columns.append(at)
    columns.sort()
    for v in [*rows[2:], rows[0], -draft.river_offset - 44]:
        west, east = columns[int(rng.integers(0, 2))], columns[-int(rng.integers(1, 3))]
        ends = [(west - float(rng.uniform(0, 20)), v), (east, v)]
        draft.add_road(ends, "residential", names.pop() if names else "", area)
    for u in columns:
        if u != 0:
            top = rows[-int(rng.integers(1, 4))]
            ends = [(u, rows[0]), (u, top)]
            draft.add_road(ends, "residential", names.pop() if names else "", area)


def clear_clashes(draft: Draft) -> None:
    """Drop buildings that stand on roads or on others, and trees that stand on both."""
    kept: list[Building] = []
    outlines: list[Polygon] = []
    roads, water = draft.asphalt(0.4), draft.river.buffer(3)
    prepare(roads)
    for building in draft.buildings:
        outline = building.footprint()
        near = [o for o in outlines if o.intersects(outline)]
        overlap = unary_union(near).intersection(outline).area if near else 0.0
        if overlap < 0.12 * outline.area and not (
            roads.intersects(outline) or water.intersects(outline)
        ):
            kept.append(building)
            outlines.append(outline)
    draft.buildings = kept
    open_kinds = ("pitch", "parking", "pool", "pond", "tartan")
    taken = unary_union(
        [*outlines, draft.river, draft.asphalt(-0.5)]
        + [p.polygon for p in draft.patches if p.surface in open_kinds]
    )
    spots = [Point(tree.x, tree.y) for tree in draft.trees]
    index = STRtree(spots)
    parts = list(polygons(taken))
    dropped = set(index.query(parts, predicate="intersects")[1].tolist())
    draft.trees = [t for i, t in enumerate(draft.trees) if i not in dropped]
