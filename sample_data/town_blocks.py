"""Fill the blocks between the streets: market, rows, houses with gardens, works."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from shapely.geometry import LineString, Point, Polygon
from shapely.ops import polygonize, unary_union
from town_draft import Draft
from town_shapes import (
    Axes,
    Era,
    Roof,
    RoofShape,
    largest,
    lines,
    polygons,
    rectangle,
    rounded,
    stretched,
)


class _Lot(NamedTuple):
    """A plot of land; `front` is the middle of its street side."""

    polygon: Polygon
    front: tuple[float, float]
    outward: float
    width: float

    @property
    def along(self) -> float:
        return self.outward + math.pi / 2

    def inside(self, back: float, side: float) -> tuple[float, float]:
        """Return the point `back` metres behind the front, `side` metres along it."""
        cos, sin = math.cos(self.outward), math.sin(self.outward)
        return (
            round(self.front[0] - back * cos - side * sin, 2),
            round(self.front[1] - back * sin + side * cos, 2),
        )

    def part(
        self, back: float, side: float, half_length: float, half_width: float
    ) -> Polygon:
        """Return a rectangle of ground along the front."""
        return rectangle(self.inside(back, side), self.along, half_length, half_width)


def _lots(
    draft: Draft, block: Polygon, rng: Generator, widths: tuple[float, float]
) -> list[_Lot]:
    """Cut a block into plots along its longer side: two rows, or one at its street."""
    axes = Axes.of(block)
    strips = [(0.0, 1), (0.0, -1)]
    if axes.half_width <= 20:
        streets = draft.asphalt(0)
        front = min(
            (1, -1),
            key=lambda s: streets.distance(Point(axes.at(0, s * axes.half_width))),
        )
        strips = [(-front * axes.half_width, front)]
    lots = []
    for inner, sign in strips:
        at = -axes.half_length
        while at < axes.half_length - 0.6 * widths[0]:
            width = float(rng.uniform(*widths))
            far = sign * (axes.half_width + 1)
            plot = largest(block.intersection(axes.slab(at, at + width, inner, far)))
            middle = at + width / 2
            at += width
            ray = LineString([axes.at(middle, inner), axes.at(middle, far)])
            inside = list(lines(ray.intersection(plot)))
            if plot.area < 8 * width or not inside or inside[-1].length < 8:
                continue
            start = Point(axes.at(middle, inner))
            ends = [xy for line in inside for xy in line.coords]
            x, y = max(ends, key=lambda xy: start.distance(Point(xy)))
            outward = axes.angle + sign * math.pi / 2
            lots.append(_Lot(plot, (x, y), outward, width))
    return lots


def draw_blocks(draft: Draft) -> None:
    """Fill the blocks between the streets, the densest in the middle."""
    rng = draft.rng(4)
    edges = [road.line for road in draft.roads] + [draft.built_up.boundary]
    dry = draft.river.buffer(13)
    streets = draft.asphalt(1.8)
    blocks: list[Polygon] = []
    for cell in polygonize(unary_union(edges)):
        if not draft.built_up.buffer(1).contains(cell):
            continue
        blocks.extend(polygons(cell.difference(streets).difference(dry)))
    blocks = [rounded(block) for block in blocks if block.area > 350]
    blocks.sort(key=lambda block: block.distance(Point(draft.centre)))
    wide = [block for block in blocks[2:] if block.area > 5200]
    special = dict(
        zip((id(b) for b in wide[1::3]), ("school", "works", "park"), strict=False)
    )
    for i, block in enumerate(blocks):
        away = block.centroid.distance(Point(draft.centre)) / draft.radius
        if i == 0:
            _draw_market(draft, block, rng)
        elif id(block) in special:
            _SPECIAL[special[id(block)]](draft, block, rng)
        elif away < 0.42:
            _draw_rows(draft, block, rng)
        elif rng.random() < 0.14 and block.area > 2500:
            _draw_apartments(draft, block, rng)
        else:
            draw_houses(draft, block, rng, "always")


def draw_houses(draft: Draft, block: Polygon, rng: Generator, era: Era) -> None:
    """Fill a block with detached houses and gardens."""
    for lot in _lots(draft, block, rng, (15.5, 22)):
        # A tenth of the houses in the old quarters are new: infill.
        _draw_house(draft, lot, rng, "new" if rng.random() < 0.1 else era)


def _draw_house(draft: Draft, lot: _Lot, rng: Generator, era: Era) -> None:
    lawn = "lawn" if rng.random() < 0.72 else "dry lawn"
    draft.add_patch(lot.polygon, lawn, rng, era)
    depth, width = float(rng.uniform(8.2, 11.5)), float(rng.uniform(9.5, 15))
    width = min(width, lot.width - 4.5)
    setback = float(rng.uniform(3.5, 7.5))
    tilt = float(rng.uniform(-0.03, 0.03))
    side = float(rng.uniform(-1, 1))
    x, y = lot.inside(setback + depth / 2, side)
    turned = rng.random() < 0.3 and width > 9
    shape: RoofShape = "hipped" if rng.random() < 0.3 else "gabled"
    eave, pitch = float(rng.uniform(3.2, 6.2)), float(rng.uniform(0.55, 0.95))
    half = (depth / 2, width / 2) if turned else (width / 2, depth / 2)
    angle = lot.along + tilt + (math.pi / 2 if turned else 0)
    house = Roof(x, y, angle, max(half), min(half), eave, shape, pitch)
    if max(half) != half[0]:
        house = house._replace(angle=angle + math.pi / 2)
    parts = [house]
    if not lot.polygon.buffer(0.6).contains(house.footprint()):
        _draw_garden(draft, lot, rng, era, back=6)
        return
    if rng.random() < 0.35:
        wx, wy = lot.inside(setback + depth + 1.4, side + float(rng.choice([-2, 2])))
        wing = Roof(wx, wy, lot.along + tilt, 2.8, 2.6, eave * 0.7, "flat", 0)
        parts.append(wing)
    draft.add_building(parts, "house", rng, era)
    _draw_garage(draft, lot, rng, era, width / 2 + side, setback)
    if rng.random() < 0.6:
        patio = lot.part(setback + depth + 2.0, side, 3.0, 2.0)
        draft.add_patch(patio.intersection(lot.polygon), "paving", rng, era)
    _draw_garden(draft, lot, rng, era, back=setback + depth + 5)


def _draw_garage(
    draft: Draft, lot: _Lot, rng: Generator, era: Era, side: float, setback: float
) -> None:
    at = side + 2.4
    drive = lot.part(setback / 2 + 1, at, 1.6, setback / 2 + 1.6)
    surface = "paving" if rng.random() < 0.6 else "asphalt"
    draft.add_patch(drive.intersection(lot.polygon), surface, rng, era)
    if rng.random() < 0.55:
        x, y = lot.inside(setback + 4.2, at)
        roof = Roof(x, y, lot.outward, 3.2, 1.7, 2.6, "flat", 0)
        if lot.polygon.buffer(0.5).contains(roof.footprint()):
            draft.add_building([roof], "garage", rng, era)


def _draw_garden(
    draft: Draft, lot: _Lot, rng: Generator, era: Era, back: float
) -> None:
    edge = lot.polygon.exterior
    if rng.random() < 0.45:
        _plant_hedge(draft, lot, rng, era)
    if rng.random() < 0.16:
        pool = lot.part(back + 2.5, float(rng.uniform(-3, 3)), 3.4, 1.9)
        if lot.polygon.contains(pool):
            draft.add_patch(pool.buffer(0.9, join_style="mitre"), "paving", rng, era)
            draft.add_patch(pool, "pool", rng, era)
    elif rng.random() < 0.3:
        beds = lot.part(back + 5, float(rng.uniform(-4, 4)), 3.0, 2.4)
        draft.add_patch(beds.intersection(lot.polygon), "soil", rng, era)
    if rng.random() < 0.5:
        x, y = lot.inside(back + 8, float(rng.choice([-0.3, 0.3])) * lot.width)
        shed = Roof(x, y, lot.along, 1.9, 1.4, 2.2, "gabled", 0.4)
        if lot.polygon.contains(shed.footprint()):
            draft.add_building([shed], "shed", rng, era)
    for _ in range(int(rng.integers(1, 5))):
        radius = float(rng.uniform(1.1, 3.0))
        x, y = lot.inside(
            float(rng.uniform(back, back + 18)),
            float(rng.uniform(-0.45, 0.45)) * lot.width,
        )
        spot = Point(x, y)
        if lot.polygon.contains(spot) and edge.distance(spot) > 0.3 * radius:
            species = "conifer" if rng.random() < 0.2 else "broadleaf"
            draft.plant(x, y, radius, species, rng, era)


def _plant_hedge(draft: Draft, lot: _Lot, rng: Generator, era: Era) -> None:
    ring = lot.polygon.exterior
    start = float(rng.uniform(0, ring.length))
    for step in np.arange(0, float(rng.uniform(8, 30)), 1.1):
        spot = ring.interpolate((start + float(step)) % ring.length)
        if spot.distance(Point(lot.front)) > lot.width / 2:
            size = float(rng.uniform(0.6, 0.95))
            draft.plant(spot.x, spot.y, size, "bush", rng, era)


def _draw_rows(draft: Draft, block: Polygon, rng: Generator) -> None:
    """Houses wall to wall at the street, yards behind."""
    draft.add_patch(block, "yard", rng)
    for court in polygons(block.buffer(-19)):
        if court.area > 250:
            green = rng.random() < 0.6 and court.area < 2500
            draft.add_patch(court, "lawn" if green else "parking", rng)
            draft.scatter_trees(court.buffer(4), rng, 1 / 260)
    for lot in _lots(draft, block, rng, (8, 14)):
        depth = float(rng.uniform(10.5, 13))
        x, y = lot.inside(depth / 2 + 0.4, 0)
        roof = Roof(
            x,
            y,
            lot.along,
            lot.width / 2,
            depth / 2,
            float(rng.uniform(6, 9.5)),
            "gabled",
            float(rng.uniform(0.75, 1.0)),
        )
        if roof.half_length < roof.half_width:
            # Narrow plots have their ridge along the street all the same.
            roof = roof._replace(pitch=0.7)
        if not block.buffer(1.5).contains(roof.footprint()):
            continue
        draft.add_building([roof], "row", rng)
        back = lot.part(depth + 7, 0, lot.width / 2 - 0.3, 5.5)
        if rng.random() < 0.55:
            draft.add_patch(back.intersection(lot.polygon), "lawn", rng)
            for _ in range(int(rng.integers(0, 3))):
                tx, ty = lot.inside(depth + float(rng.uniform(4, 12)), 0)
                if lot.polygon.contains(Point(tx, ty)):
                    draft.plant(tx, ty, float(rng.uniform(1.5, 3)), "broadleaf", rng)
        elif rng.random() < 0.5:
            sx, sy = lot.inside(depth + 6, 0)
            annex = Roof(sx, sy, lot.outward, 4.5, 2.6, 3.5, "flat", 0)
            if lot.polygon.contains(annex.footprint()):
                draft.add_building([annex], "garage", rng)


def _draw_market(draft: Draft, block: Polygon, rng: Generator) -> None:
    """The market square: church, paving, lime trees, houses on the far sides."""
    axes = Axes.of(block)
    draft.add_patch(block, "yard", rng)
    reach = min(34.0, axes.half_length)
    middle = axes.slab(-reach, reach, -axes.half_width, axes.half_width)
    draft.add_patch(middle.intersection(block), "square", rng)
    angle = axes.angle
    x, y = axes.at(4, 0)
    tx, ty = axes.at(-13.5, 0)
    nave = Roof(x, y, angle, 14.5, 6.2, 10, "gabled", 1.25)
    tower = Roof(tx, ty, angle, 3.6, 3.6, 25, "hipped", 1.9)
    draft.add_building([nave, tower], "church", rng)
    for lot in _lots(draft, block, rng, (10, 15)):
        lx, ly = lot.inside(6, 0)
        roof = Roof(lx, ly, lot.along, lot.width / 2, 5.6, 7.5, "gabled", 0.9)
        clear = roof.footprint().distance(nave.footprint()) > 11
        if clear and block.buffer(1).contains(roof.footprint()) and rng.random() < 0.6:
            draft.add_building([roof], "row", rng)
    for turn in np.linspace(0, 2 * math.pi, 14, endpoint=False):
        px = x + 24 * math.cos(float(turn))
        py = y + 15 * math.sin(float(turn))
        if block.buffer(-3).contains(Point(px, py)):
            draft.plant(px, py, float(rng.uniform(2.2, 3.2)), "broadleaf", rng)


def _draw_apartments(draft: Draft, block: Polygon, rng: Generator) -> None:
    axes = Axes.of(block)
    draft.add_patch(block, "lawn", rng)
    for a in np.arange(-axes.half_length + 14, axes.half_length - 12, 30.0):
        x, y = axes.at(float(a), 0)
        half = min(axes.half_width - 6, float(rng.uniform(13, 20)))
        if half < 8:
            continue
        slab = Roof(x, y, axes.angle + math.pi / 2, half, 5.8, 13.5, "flat", 0)
        if block.contains(slab.footprint()):
            draft.add_building([slab], "apartments", rng)
            lot = axes.slab(a + 8, a + 18, -axes.half_width + 5, axes.half_width - 5)
            if rng.random() < 0.6:
                draft.add_patch(lot.intersection(block.buffer(-2)), "parking", rng)
    draft.scatter_trees(block, rng, 1 / 230)


def _draw_school(draft: Draft, block: Polygon, rng: Generator) -> None:
    axes = Axes.of(block)
    draft.add_patch(block, "lawn", rng)
    x, y = axes.at(-0.45 * axes.half_length, 0)
    wx, wy = axes.at(-0.45 * axes.half_length + 12, 10)
    draft.add_patch(
        axes.slab(
            -0.45 * axes.half_length + 8, 4, -axes.half_width + 8, 4
        ).intersection(block),
        "asphalt",
        rng,
    )
    draft.add_building(
        [
            Roof(x, y, axes.angle + math.pi / 2, 19, 7, 9, "flat", 0),
            Roof(wx, wy, axes.angle, 16, 6, 6.5, "flat", 0),
        ],
        "school",
        rng,
    )
    pitch = axes.slab(
        10, axes.half_length - 8, -axes.half_width * 0.62, axes.half_width * 0.5
    )
    if block.contains(pitch):
        draft.add_patch(pitch, "pitch", rng)
    draft.scatter_trees(block, rng, 1 / 330)


def draw_works(
    draft: Draft, block: Polygon, rng: Generator, era: Era = "always"
) -> None:
    """Halls with flat roofs in a paved yard, and a car park."""
    axes = Axes.of(block)
    draft.add_patch(block, "yard", rng, era)
    at = -axes.half_length + 6
    while at < axes.half_length - 26:
        length = float(rng.uniform(22, 40))
        half_width = axes.half_width * float(rng.uniform(0.5, 0.72))
        x, y = axes.at(at + length / 2, float(rng.uniform(-3, 3)))
        hall = Roof(x, y, axes.angle, length / 2, half_width, 8.5, "flat", 0)
        if hall.half_width > hall.half_length:
            hall = hall._replace(
                angle=axes.angle + math.pi / 2,
                half_length=half_width,
                half_width=length / 2,
            )
        at += length + float(rng.uniform(9, 16))
        if block.buffer(-3).contains(hall.footprint()):
            draft.add_building([hall], "industrial", rng, era)
        else:
            lot = hall.footprint().intersection(block.buffer(-4))
            draft.add_patch(largest(lot), "parking", rng, era)


def _draw_park(draft: Draft, block: Polygon, rng: Generator) -> None:
    axes = Axes.of(block)
    draft.add_patch(block, "lawn", rng)
    pond = Point(axes.at(0.2 * axes.half_length, 0)).buffer(1, 12)
    draft.add_patch(rounded(stretched(pond, 13, 7.5)).intersection(block), "pond", rng)
    path = LineString(
        [axes.at(-axes.half_length, -6), axes.at(-10, 9), axes.at(axes.half_length, 13)]
    ).buffer(1.4)
    draft.add_patch(path.intersection(block), "gravel", rng)
    draft.scatter_trees(block, rng, 1 / 110, keep_off=unary_union([path]))


_SPECIAL: dict[str, Callable[[Draft, Polygon, Generator], None]] = {
    "school": _draw_school,
    "works": draw_works,
    "park": _draw_park,
}
