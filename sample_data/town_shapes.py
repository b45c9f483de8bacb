"""The shapes that a town is made of, and their geometry; no chance and no pixels here.

Everything is in local metres, x to the east and y to the north of the lower left corner
of a square. Coordinates are rounded to the centimetre, so that a seed gives the same
shapes on every machine. A shape knows its era: always there, new (missing in the
earlier image) or gone (only in the earlier image).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, TypeVar, cast

import numpy as np
import shapely
from shapely import affinity
from shapely.geometry import LineString, MultiPolygon, Point, Polygon
from shapely.geometry.base import BaseGeometry
from shapely.ops import unary_union

Shape = TypeVar("Shape", bound=BaseGeometry)
Era = Literal["always", "new", "gone"]
RoofShape = Literal["flat", "gabled", "hipped"]


class Roof(NamedTuple):
    """One rectangular part of a building: metres, angle in radians, ridge along x'."""

    x: float
    y: float
    angle: float
    half_length: float
    half_width: float
    eave: float
    shape: RoofShape
    pitch: float

    def footprint(self) -> Polygon:
        """Return the ground rectangle."""
        return rectangle(
            (self.x, self.y), self.angle, self.half_length, self.half_width
        )


@dataclass(frozen=True)
class Building:
    """Roof parts that stand together under one material."""

    parts: tuple[Roof, ...]
    kind: str
    material: str
    tone: float
    era: Era = "always"

    def footprint(self) -> Polygon:
        """Return the outline of all parts, or of the largest if they do not touch."""
        return largest(unary_union([part.footprint() for part in self.parts]))


@dataclass(frozen=True)
class Road:
    """A centre line with its class; the carriageway is `width` metres wide."""

    line: LineString
    kind: str
    name: str
    width: float
    era: Era = "always"


@dataclass(frozen=True)
class Field:
    """A parcel of farmland; rows run along `angle` (radians)."""

    polygon: Polygon
    angle: float
    crop: str
    crop_before: str
    tone: float
    era: Era = "always"


@dataclass(frozen=True)
class Patch:
    """A piece of ground with one surface, painted in order."""

    polygon: Polygon
    surface: str
    tone: float = 1.0
    era: Era = "always"


class Tree(NamedTuple):
    """A crown: centre, radius and height in metres."""

    x: float
    y: float
    radius: float
    height: float
    species: str
    era: Era


class Car(NamedTuple):
    """A vehicle: centre, heading in radians, length in metres, paint."""

    x: float
    y: float
    angle: float
    length: float
    paint: str


@dataclass(frozen=True)
class Town:
    """All shapes of a place inside a square of `size` metres."""

    seed: int
    size: float
    centre: tuple[float, float]
    built_up: MultiPolygon
    river: Polygon
    river_line: LineString
    roads: tuple[Road, ...]
    fields: tuple[Field, ...]
    woods: tuple[Patch, ...]
    patches: tuple[Patch, ...]
    buildings: tuple[Building, ...]
    trees: tuple[Tree, ...]

    def now(self) -> Town:
        """Return the town as it is now: without the shapes that are gone."""
        return self._without("gone")

    def earlier(self) -> Town:
        """Return the town as it was: the new shapes taken away, other crops."""
        town = self._without("new")
        fields = tuple(replace(f, crop=f.crop_before) for f in town.fields)
        return replace(town, fields=fields)

    def _without(self, era: Era) -> Town:
        return replace(
            self,
            roads=tuple(r for r in self.roads if r.era != era),
            fields=tuple(f for f in self.fields if f.era != era),
            woods=tuple(w for w in self.woods if w.era != era),
            patches=tuple(p for p in self.patches if p.era != era),
            buildings=tuple(b for b in self.buildings if b.era != era),
            trees=tuple(t for t in self.trees if t.era != era),
        )


def rounded(geometry: Shape) -> Shape:
    """Return the geometry with coordinates in whole centimetres, and valid."""
    coarse = shapely.transform(geometry, lambda xy: np.round(xy, 2))
    if isinstance(coarse, Polygon) and not coarse.is_valid:
        # Rounding has folded a sliver over; what is left of it is cut off.
        return cast(Shape, largest(coarse.buffer(0)))
    return coarse


def largest(geometry: BaseGeometry) -> Polygon:
    """Return the polygon of largest area without its holes; empty if there is none."""
    parts = list(polygons(geometry))
    if not parts:
        return Polygon()
    return Polygon(max(parts, key=lambda part: part.area).exterior)


def polygons(geometry: BaseGeometry) -> Iterator[Polygon]:
    """Yield the polygons in a geometry of any kind."""
    if isinstance(geometry, Polygon):
        if not geometry.is_empty:
            yield geometry
    elif hasattr(geometry, "geoms"):
        for part in geometry.geoms:
            yield from polygons(part)


def lines(geometry: BaseGeometry) -> Iterator[LineString]:
    """Yield the line strings in a geometry."""
    if isinstance(geometry, LineString):
        if not geometry.is_empty:
            yield geometry
    elif hasattr(geometry, "geoms"):
        for part in geometry.geoms:
            yield from lines(part)


def rectangle(
    centre: tuple[float, float], angle: float, half_length: float, half_width: float
) -> Polygon:
    """Return a rectangle around a centre, its length along `angle` (radians)."""
    cos, sin = math.cos(angle), math.sin(angle)
    corners = [(1, 1), (-1, 1), (-1, -1), (1, -1)]
    return Polygon(
        [
            (
                round(centre[0] + a * half_length * cos - b * half_width * sin, 2),
                round(centre[1] + a * half_length * sin + b * half_width * cos, 2),
            )
            for a, b in corners
        ]
    )


def stretched(shape: Polygon, wide: float, high: float) -> Polygon:
    """Return a shape enlarged about its centre by two factors."""
    return rounded(affinity.scale(shape, wide, high))


class Axes(NamedTuple):
    """The frame of a polygon's smallest rectangle: x' along its longer side."""

    x: float
    y: float
    angle: float
    half_length: float
    half_width: float

    @classmethod
    def of(cls, polygon: Polygon) -> Axes:
        """Return the frame; its angle lies in [0, pi)."""
        frame = largest(polygon.minimum_rotated_rectangle)
        (x0, y0), (x1, y1), (x2, y2) = list(frame.exterior.coords)[:3]
        side, other = math.hypot(x1 - x0, y1 - y0), math.hypot(x2 - x1, y2 - y1)
        angle = math.atan2(y1 - y0, x1 - x0)
        if other > side:
            side, other, angle = other, side, math.atan2(y2 - y1, x2 - x1)
        # Either end may come first; the same polygon must give the same frame.
        angle = round(angle % math.pi, 6)
        return cls(frame.centroid.x, frame.centroid.y, angle, side / 2, other / 2)

    @classmethod
    def along(cls, polygon: Polygon, angle: float) -> Axes:
        """Return the longer-side frame among `angle` and its perpendicular."""
        turned = affinity.rotate(polygon, -angle, origin=(0, 0), use_radians=True)
        x0, y0, x1, y1 = turned.bounds
        centre = Point((x0 + x1) / 2, (y0 + y1) / 2)
        centre = affinity.rotate(centre, angle, origin=(0, 0), use_radians=True)
        half = ((x1 - x0) / 2, (y1 - y0) / 2)
        if half[1] > half[0]:
            half, angle = (half[1], half[0]), angle + math.pi / 2
        return cls(centre.x, centre.y, round(angle % math.pi, 6), *half)

    def at(self, a: float, b: float) -> tuple[float, float]:
        """Return the ground point of (x', y') = (a, b)."""
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        return (
            round(self.x + a * cos - b * sin, 2),
            round(self.y + a * sin + b * cos, 2),
        )

    def slab(self, a0: float, a1: float, b0: float, b1: float) -> Polygon:
        """Return the rectangle a0..a1 by b0..b1 in this frame."""
        return Polygon(
            [self.at(a0, b0), self.at(a1, b0), self.at(a1, b1), self.at(a0, b1)]
        )
