"""A town while it is drawn: its shapes so far, and methods that add to them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.random import Generator
from shapely.geometry import LineString, MultiPolygon, Point, Polygon, box
from shapely.geometry.base import BaseGeometry
from shapely.ops import unary_union
from town_shapes import (
    Building,
    Era,
    Field,
    Patch,
    Road,
    Roof,
    Town,
    Tree,
    lines,
    polygons,
    rounded,
)

WIDTHS_M = {
    "primary": 8.5,
    "secondary": 7.0,
    "residential": 5.6,
    "service": 4.2,
    "track": 3.2,
}
ROOF_MATERIALS = {
    "house": {"red tile": 6, "brown tile": 3, "slate": 3, "old tile": 3},
    "row": {"red tile": 5, "brown tile": 2, "slate": 3, "old tile": 4},
    "apartments": {"gravel": 4, "bitumen": 3, "red tile": 2},
    "industrial": {"white sheet": 4, "grey sheet": 4, "gravel": 2, "blue sheet": 1},
    "garage": {"bitumen": 3, "gravel": 2, "red tile": 1},
    "shed": {"bitumen": 2, "brown tile": 2, "grey sheet": 1},
    "barn": {"red tile": 3, "grey sheet": 3, "old tile": 3},
    "church": {"slate": 1},
    "school": {"gravel": 2, "white sheet": 1},
}


def pick(rng: Generator, weights: Mapping[str, int]) -> str:
    """Return one of the keys, each as likely as its weight says."""
    values = np.array(list(weights.values()), dtype=float)
    return str(rng.choice(list(weights), p=values / values.sum()))


@dataclass
class Draft:
    """A town while it is drawn; the frame (u, v) runs along the main road."""

    seed: int
    size: float
    river: Polygon = field(default_factory=Polygon)
    river_line: LineString = field(default_factory=LineString)
    built_up: MultiPolygon = field(default_factory=MultiPolygon)
    roads: list[Road] = field(default_factory=list)
    fields: list[Field] = field(default_factory=list)
    woods: list[Patch] = field(default_factory=list)
    patches: list[Patch] = field(default_factory=list)
    buildings: list[Building] = field(default_factory=list)
    trees: list[Tree] = field(default_factory=list)

    def rng(self, part: int) -> Generator:
        """Return the random numbers of one part of the drawing."""
        return np.random.default_rng([self.seed, part])

    @property
    def radius(self) -> float:
        """How far the town reaches, in metres."""
        return min(max(0.27 * self.size, 150.0), 420.0)

    @property
    def river_offset(self) -> float:
        """How far the river runs from the main road, in metres."""
        return 0.56 * self.radius

    @property
    def bearing(self) -> float:
        """The direction of the main road, in radians from east."""
        turn = self.rng(0).uniform(0.2, 0.6)
        return float(turn if self.seed % 2 else -turn)

    def ground(self, u: float, v: float) -> tuple[float, float]:
        """Return the ground point of (u, v): turned, and gently bent like old roads."""
        phases = self.rng(1).uniform(0, 2 * math.pi, 4)
        u, v = (
            u + 13 * math.sin(v / 67 + phases[0]) + 5 * math.sin(v / 29 + phases[1]),
            v + 16 * math.sin(u / 88 + phases[2]) + 5 * math.sin(u / 37 + phases[3]),
        )
        cos, sin = math.cos(self.bearing), math.sin(self.bearing)
        middle = self.size / 2
        return (
            round(middle + u * cos - v * sin, 2),
            round(middle + 0.05 * self.size + u * sin + v * cos, 2),
        )

    @property
    def centre(self) -> tuple[float, float]:
        """The ground point where the two through roads meet."""
        return self.ground(0, 0)

    @property
    def frame(self) -> Polygon:
        """The whole square."""
        return box(0, 0, self.size, self.size)

    def curve(self, points: Sequence[tuple[float, float]]) -> LineString:
        """Return the bent ground line through (u, v) points, a vertex every 12 m."""
        path = LineString(points)
        steps = np.linspace(0, path.length, max(2, int(path.length / 12)))
        stops = [path.interpolate(float(step)) for step in steps]
        return LineString([self.ground(stop.x, stop.y) for stop in stops])

    def asphalt(self, verge: float) -> BaseGeometry:
        """Return the carriageways of all roads, `verge` metres wider on each side."""
        return unary_union(
            [road.line.buffer(road.width / 2 + verge, 4) for road in self.roads]
        )

    def add_road(
        self,
        points: Sequence[tuple[float, float]],
        kind: str,
        name: str,
        area: BaseGeometry,
        era: Era = "always",
    ) -> None:
        """Lay a road where its (u, v) line lies in an area; short bits are left out."""
        for line in lines(self.curve(points).intersection(area)):
            self.lay(line, kind, name, era)

    def lay(self, line: LineString, kind: str, name: str, era: Era = "always") -> None:
        """Add a road along a ground line, unless it is a mere stub."""
        if line.length > 25:
            self.roads.append(Road(rounded(line), kind, name, WIDTHS_M[kind], era))

    def add_building(
        self,
        parts: Sequence[Roof],
        kind: str,
        rng: Generator,
        era: Era = "always",
        material: str | None = None,
    ) -> None:
        """Add a building; its material is drawn by lot unless it is given."""
        self.buildings.append(
            Building(
                tuple(parts),
                kind,
                material or pick(rng, ROOF_MATERIALS[kind]),
                round(float(rng.uniform(0.82, 1.2)), 3),
                era,
            )
        )

    def add_patch(
        self, polygon: BaseGeometry, surface: str, rng: Generator, era: Era = "always"
    ) -> None:
        """Cover ground with a surface, over what was added before."""
        for part in polygons(polygon):
            if part.area > 1:
                tone = round(float(rng.uniform(0.86, 1.16)), 3)
                self.patches.append(Patch(rounded(part), surface, tone, era))

    def plant(
        self,
        x: float,
        y: float,
        radius: float,
        species: str,
        rng: Generator,
        era: Era = "always",
    ) -> None:
        """Add a tree; its height follows from its radius and kind."""
        tall = {"conifer": 3.4, "poplar": 5.0, "bush": 1.2}.get(species, 2.3)
        height = tall * radius * float(rng.uniform(0.85, 1.15))
        self.trees.append(
            Tree(
                round(x, 2),
                round(y, 2),
                round(radius, 2),
                round(height, 2),
                species,
                era,
            )
        )

    def scatter_trees(
        self,
        area: Polygon,
        rng: Generator,
        density: float,
        keep_off: BaseGeometry | None = None,
        era: Era = "always",
    ) -> None:
        """Plant trees at random, `density` a square metre, inside an area."""
        x0, y0, x1, y1 = area.bounds
        inner = area.buffer(-2.5)
        for _ in range(int((x1 - x0) * (y1 - y0) * density)):
            x, y = float(rng.uniform(x0, x1)), float(rng.uniform(y0, y1))
            radius = float(rng.uniform(1.8, 4.2))
            spot = Point(x, y)
            if inner.contains(spot) and (
                keep_off is None or keep_off.distance(spot) > 0.6 * radius
            ):
                species = "conifer" if rng.random() < 0.15 else "broadleaf"
                self.plant(x, y, radius, species, rng, era)

    def finished(self) -> Town:
        """Return what has been drawn."""
        return Town(
            self.seed,
            self.size,
            self.centre,
            self.built_up,
            self.river,
            rounded(self.river_line),
            tuple(self.roads),
            tuple(self.fields),
            tuple(self.woods),
            tuple(self.patches),
            tuple(self.buildings),
            tuple(self.trees),
        )
