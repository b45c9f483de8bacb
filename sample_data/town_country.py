"""Draw what surrounds a town: fields, tracks, woods, farms, outskirts and trees."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.random import Generator
from shapely import prepare
from shapely.geometry import LineString, Point, Polygon
from shapely.geometry.base import BaseGeometry
from shapely.ops import split, unary_union
from town_blocks import draw_houses, draw_works
from town_draft import WIDTHS_M, Draft, pick
from town_shapes import (
    Axes,
    Era,
    Field,
    Patch,
    Roof,
    largest,
    lines,
    polygons,
    rectangle,
    rounded,
    stretched,
)

# What grows in the fields, with weights: now (July) and in the earlier image (May).
CROPS_NOW = {
    "ripe wheat": 5,
    "stubble": 2,
    "maize": 4,
    "beet": 2,
    "ripe rape": 1,
    "soil": 1,
}
CROPS_BEFORE = {"wheat": 5, "rape": 3, "soil": 3, "young maize": 3}
# Grass stays grass; these are crops at both dates.
LASTING_CROPS = {"meadow": 5, "mown meadow": 3, "orchard": 2}


def draw_fields(draft: Draft) -> None:
    """Split the country into parcels with tracks between them, woods among them."""
    rng = draft.rng(5)
    country = draft.frame.difference(draft.built_up).difference(draft.river.buffer(15))
    country = country.difference(draft.asphalt(2.6))
    leaves: list[Polygon] = []
    tracks: list[LineString] = []
    for cell in polygons(country):
        bearing = draft.bearing + float(rng.uniform(-0.3, 0.3))
        _carve(cell, 0, bearing, rng, leaves, tracks)
    for track in tracks:
        draft.lay(track, "track", "")
    lanes = unary_union([track.buffer(2.5, cap_style="flat") for track in tracks])
    for leaf in leaves:
        parcel = largest(leaf.difference(lanes).buffer(-1.3, join_style="mitre"))
        if parcel.area < 900:
            continue
        wet = parcel.distance(draft.river) < 20
        lasting = rng.random() < (0.75 if wet else 0.22)
        now = pick(rng, LASTING_CROPS if lasting else CROPS_NOW)
        before = now if lasting else pick(rng, CROPS_BEFORE)
        angle = Axes.of(parcel).angle
        tone = round(float(rng.uniform(0.88, 1.14)), 3)
        draft.fields.append(Field(rounded(parcel), angle, now, before, tone))
    draft.add_patch(draft.river.buffer(14).intersection(draft.frame), "rough", rng)


def _carve(
    cell: Polygon,
    depth: int,
    bearing: float,
    rng: Generator,
    leaves: list[Polygon],
    tracks: list[LineString],
) -> None:
    """Cut a parcel across its longer side until the pieces are farm sized."""
    if cell.area < rng.uniform(9000, 34000):
        leaves.append(cell)
        return
    axes = Axes.along(cell, bearing)
    at = axes.half_length * float(rng.uniform(-0.22, 0.22))
    lean = float(rng.uniform(-0.12, 0.12)) * axes.half_width
    far = axes.half_width + 5
    knife = LineString([axes.at(at - lean, -far), axes.at(at + lean, far)])
    if depth < 2 and rng.random() < 0.75:
        tracks.extend(lines(knife.intersection(cell)))
    for piece in split(cell, knife).geoms:
        _carve(largest(piece), depth + 1, bearing, rng, leaves, tracks)


def draw_outskirts(draft: Draft) -> None:
    """Give some fields another use: woods, a new estate, new works, farms, a pitch."""
    rng = draft.rng(6)
    near = [f for f in draft.fields if f.polygon.distance(draft.built_up) < 14]
    near.sort(key=lambda f: -f.polygon.area / Axes.of(f.polygon).half_length)
    far = [f for f in draft.fields if f.polygon.distance(draft.built_up) > 45]
    far.sort(key=lambda f: -f.polygon.distance(Point(draft.centre)))
    for use, places in (
        (_build_estate, near[:1]),
        (_build_works, near[1:2]),
        (_build_sports_ground, near[2:5]),
    ):
        for place in places:
            if use(draft, place, rng):
                break
    wooded = 0.0
    for place in far:
        if wooded > 0.1 * draft.size**2 or place.crop in LASTING_CROPS:
            continue
        if wooded == 0 or rng.random() < 0.4:
            _plant_wood(draft, place, rng)
            wooded += place.polygon.area
    open_fields = [f for f in far if f in draft.fields]
    for place in open_fields[2:7:3]:
        _build_farm(draft, place, rng)
    for place in [f for f in draft.fields if f.crop == "meadow"][:1]:
        _dig_pond(draft, place, rng)


def _retire(draft: Draft, place: Field, rest: BaseGeometry | None = None) -> None:
    """Make a field one of the earlier image only; a rest of it is farmed on."""
    at = draft.fields.index(place)
    draft.fields[at] = replace(place, era="gone")
    if rest is not None:
        for part in polygons(rest):
            if part.area > 400:
                draft.fields.append(replace(place, polygon=rounded(part), era="new"))


def _build_estate(draft: Draft, place: Field, rng: Generator) -> bool:
    """Houses along a new street where a field was."""
    axes = Axes.of(place.polygon)
    middle = LineString([axes.at(-axes.half_length, 0), axes.at(axes.half_length, 0)])
    inside = list(lines(middle.intersection(place.polygon)))
    if not inside:
        return False
    street = max(inside, key=lambda line: line.length)
    town = unary_union([road.line for road in draft.roads if road.kind != "track"])
    ends = sorted(
        (Point(xy) for xy in street.coords), key=lambda point: point.distance(town)
    )
    joint = town.interpolate(town.project(ends[0])) if town.length else ends[0]
    _retire(draft, place)
    line = LineString([ends[1], ends[0], joint])
    draft.lay(line, "residential", "New Street", "new")
    draft.add_patch(place.polygon, "dry lawn", rng, "new")
    halves = place.polygon.difference(line.buffer(WIDTHS_M["residential"] / 2 + 1.6))
    for half in polygons(halves):
        if half.area > 300:
            draw_houses(draft, half, rng, "new")
    return True


def _build_works(draft: Draft, place: Field, rng: Generator) -> bool:
    """A new hall on the part of a field that is nearest to the town."""
    axes = Axes.of(place.polygon)
    ends = (-1.0, 1.0)
    sign = min(
        ends,
        key=lambda s: Point(axes.at(s * axes.half_length, 0)).distance(draft.built_up),
    )
    length = min(2 * axes.half_length, 95.0)
    a = sorted((sign * axes.half_length, sign * (axes.half_length - length)))
    ground = axes.slab(a[0], a[1], -axes.half_width, axes.half_width)
    ground = largest(place.polygon.intersection(ground))
    if ground.area < 1500:
        return False
    _retire(draft, place, place.polygon.difference(ground.buffer(2)))
    draw_works(draft, ground, rng, "new")
    return True


def _build_sports_ground(draft: Draft, place: Field, rng: Generator) -> bool:
    """A pitch with a running track, if the field has room for it."""
    axes = Axes.of(place.polygon)
    for shift in (0.0, -0.3, 0.3):
        centre = axes.at(shift * axes.half_length, 0)
        oval = LineString(
            [
                (
                    centre[0] - 32 * math.cos(axes.angle),
                    centre[1] - 32 * math.sin(axes.angle),
                ),
                (
                    centre[0] + 32 * math.cos(axes.angle),
                    centre[1] + 32 * math.sin(axes.angle),
                ),
            ]
        ).buffer(30, 16)
        if not place.polygon.contains(oval.buffer(2)):
            continue
        ground = largest(oval.buffer(9, join_style="mitre").intersection(place.polygon))
        draft.fields.remove(place)
        draft.fields.append(
            replace(place, polygon=largest(place.polygon.difference(ground)))
        )
        draft.add_patch(ground, "lawn", rng)
        draft.add_patch(oval, "tartan", rng)
        draft.add_patch(oval.buffer(-6), "lawn", rng)
        pitch = rectangle(centre, axes.angle, 44, 18)
        draft.add_patch(pitch, "pitch", rng)
        x, y = axes.at(shift * axes.half_length, -36)
        stand = Roof(x, y, axes.angle, 13, 3, 5, "flat", 0)
        if ground.contains(stand.footprint()):
            draft.add_building([stand], "school", rng)
        return True
    return False


def _plant_wood(draft: Draft, place: Field, rng: Generator) -> None:
    """Turn a field into a wood; a part of some woods has been felled since."""
    draft.fields.remove(place)
    wood = _ragged(place.polygon)
    conifers = float(rng.uniform(0.05, 0.6))
    felled = Polygon()
    if len(draft.woods) == 3:
        axes = Axes.of(wood)
        felled = axes.slab(
            -axes.half_length, -0.35 * axes.half_length, -0.7 * axes.half_width, 500
        )
        felled = largest(wood.intersection(felled))
        draft.woods.append(Patch(rounded(felled), "wood", 1.0, "gone"))
        draft.add_patch(felled, "felled", rng, "new")
        wood = largest(wood.difference(felled))
    draft.woods.append(Patch(rounded(wood), "wood"))
    _fill_with_trees(draft, wood, conifers, rng, "always")
    if not felled.is_empty:
        _fill_with_trees(draft, felled, conifers, rng, "gone")


def _ragged(area: Polygon) -> Polygon:
    """Return a wood's outline: the parcel's, with bays and tongues of some metres."""
    ring = area.exterior
    points = []
    for step in np.arange(0, ring.length, 6.0):
        here, there = ring.interpolate(float(step)), ring.interpolate(float(step) + 1)
        sway = 2.6 * math.sin(step / 7.3) + 2.2 * math.sin(step / 17.9 + 1)
        points.append(
            (
                here.x + sway * (there.y - here.y),
                here.y - sway * (there.x - here.x),
            )
        )
    return largest(rounded(Polygon(points).buffer(0)))


def _fill_with_trees(
    draft: Draft, area: Polygon, conifers: float, rng: Generator, era: Era
) -> None:
    x0, y0, x1, y1 = area.bounds
    spacing = 4.7
    prepare(area)
    for row, y in enumerate(np.arange(y0, y1, spacing * 0.87)):
        for x in np.arange(x0 + (row % 2) * spacing / 2, x1, spacing):
            dx, dy, share = rng.uniform(-1.5, 1.5), rng.uniform(-1.5, 1.5), rng.random()
            radius = float(rng.uniform(2.0, 3.6))
            at_x, at_y = float(x + dx), float(y + dy)
            # Stands of one kind, some tens of metres across.
            stand = math.sin(at_x / 23 + 1) + math.sin(at_y / 31 + 2)
            if area.contains(Point(at_x, at_y)) and share < 0.96:
                needles = conifers + 0.25 * stand > 0.4
                species = "conifer" if needles else "broadleaf"
                draft.plant(
                    at_x, at_y, radius * (0.8 if needles else 1), species, rng, era
                )


def _build_farm(draft: Draft, place: Field, rng: Generator) -> None:
    axes = Axes.of(place.polygon)
    at = axes.half_length - 27
    yard = largest(axes.slab(at - 24, at + 24, -22, 22).intersection(place.polygon))
    rest = largest(place.polygon.difference(yard.buffer(1)))
    if min(yard.area, rest.area) < 900:
        return
    draft.fields.remove(place)
    draft.fields.append(replace(place, polygon=rounded(rest)))
    draft.add_patch(yard, "rough", rng)
    draft.add_patch(yard.buffer(-7), "gravel", rng)
    plans = ((-11, -9, 13, 6.5, 5.5), (12, 2, 15, 7.5, 6.5), (-9, 11, 8, 5, 5.0))
    for i, (a, b, half_length, half_width, eave) in enumerate(plans):
        x, y = axes.at(at + a, b)
        angle = axes.angle + (math.pi / 2 if i == 1 else 0)
        roof = Roof(x, y, angle, half_length, half_width, eave, "gabled", 0.45)
        if yard.contains(roof.footprint()):
            draft.add_building([roof], "barn", rng)
    draft.scatter_trees(yard, rng, 1 / 190)


def _dig_pond(draft: Draft, place: Field, rng: Generator) -> None:
    """A new pond with a bare rim in a meadow."""
    spot = place.polygon.representative_point()
    room = min(place.polygon.exterior.distance(spot) - 5, 24.0)
    if room < 9:
        return
    pond = stretched(spot.buffer(1, 10), room, 0.62 * room)
    draft.add_patch(pond.buffer(3.5), "gravel", rng, "new")
    draft.add_patch(pond, "pond", rng, "new")


def draw_country_trees(draft: Draft) -> None:
    """Avenues, hedgerows, bank trees, orchards and single trees."""
    rng = draft.rng(7)
    for road in list(draft.roads):
        if road.kind in ("primary", "secondary"):
            _plant_row(draft, road.line, road.width / 2 + 2.6, 15, 0.72, rng)
        elif road.kind == "track" and rng.random() < 0.55:
            _plant_row(draft, road.line, 3.6, 5.5, 0.6, rng)
        elif road.kind == "residential" and rng.random() < 0.4:
            _plant_row(draft, road.line, road.width / 2 + 2.2, 17, 0.6, rng)
    for bank, share in ((1.0, 0.34), (5.0, 0.24), (9.0, 0.12)):
        ring = draft.river.buffer(bank).exterior
        for step in np.arange(0, ring.length, 6.0):
            spot = ring.interpolate(float(step + rng.uniform(-2, 2)))
            # Groves and gaps, not an even fringe.
            grove = math.sin(spot.x / 37) + math.sin(spot.y / 29) + 0.9 * share
            if rng.random() < share + 0.22 * grove:
                species = "poplar" if rng.random() < 0.1 else "broadleaf"
                radius = float(rng.uniform(1.8, 4.4))
                draft.plant(spot.x, spot.y, radius, species, rng)
    for place in draft.fields:
        if place.crop == "orchard" and place.era == "always":
            _plant_orchard(draft, place, rng)
        elif place.crop == "meadow" and place.era == "always":
            draft.scatter_trees(place.polygon, rng, 1 / 2600)


def _plant_row(
    draft: Draft,
    line: LineString,
    offset: float,
    gap: float,
    share: float,
    rng: Generator,
) -> None:
    for side in (offset, -offset):
        if gap < 10 and rng.random() < 0.5:
            continue
        for step in np.arange(gap, line.length - gap, gap):
            if rng.random() > share:
                continue
            at = float(step + rng.uniform(-0.15, 0.15) * gap)
            here, there = line.interpolate(at), line.interpolate(at + 1)
            x = here.x - side * (there.y - here.y)
            y = here.y + side * (there.x - here.x)
            low = gap < 10 and rng.random() < 0.5
            radius = float(rng.uniform(0.9, 1.8) if low else rng.uniform(2.0, 3.6))
            draft.plant(x, y, radius, "bush" if low else "broadleaf", rng)


def _plant_orchard(draft: Draft, place: Field, rng: Generator) -> None:
    axes = Axes.of(place.polygon)
    inner = place.polygon.buffer(-3)
    for a in np.arange(-axes.half_length, axes.half_length, 6.5):
        for b in np.arange(-axes.half_width, axes.half_width, 7.5):
            x, y = axes.at(float(a), float(b))
            if inner.contains(Point(x, y)) and rng.random() < 0.9:
                draft.plant(x, y, float(rng.uniform(1.5, 2.4)), "fruit", rng)
