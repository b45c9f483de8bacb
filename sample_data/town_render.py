"""Paint a town as the sun lights it: shapes in, surface reflectance out.

Each surface mixes two spectra by smooth noise that is tied to the ground; buildings,
crowns and cars have heights, and what stands between a pixel and the sun casts its
shadow there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from shapely.geometry import LineString
from shapely.geometry.base import BaseGeometry
from shapely.ops import substring
from town_canvas import Canvas, Floats, Mask, Season, Window, blurred, shrunk
from town_palette import (
    CROPS,
    GLASS,
    LEAVES,
    PAINTS,
    ROOFS,
    SOLAR,
    SURFACES,
    WHITE_LINE,
    Spectrum,
)
from town_shapes import Building, Car, Field, Roof, Town, Tree

# Share of the light that comes from the sky, by band: what is left in a shadow.
SKY_LIGHT = (0.17, 0.21, 0.28, 0.13)


class Sun(NamedTuple):
    """Where the light comes from, in degrees; azimuth from north over east."""

    azimuth_deg: float
    elevation_deg: float

    @property
    def vector(self) -> tuple[float, float, float]:
        """The unit vector to the sun: east, north, up."""
        azimuth, elevation = map(math.radians, self)
        return (
            round(math.sin(azimuth) * math.cos(elevation), 9),
            round(math.cos(azimuth) * math.cos(elevation), 9),
            round(math.sin(elevation), 9),
        )


def render(
    town: Town, gsd_m: float, sun: Sun, season: Season, cars: Sequence[Car] = ()
) -> Floats:
    """Return the surface reflectance of a town as an aerial camera sees it.

    Args:
        town: what to paint, of one era (`Town.now` or `Town.earlier`).
        gsd_m: metres per output pixel; the town's side must be a multiple of it.
        sun: where the light comes from.
        season: how green the vegetation is.
        cars: vehicles of that day.

    Returns:
        (4, H, W) float32 reflectance, bands B04, B03, B02, B08, north up.

    Raises:
        ValueError: when the side of the town is no multiple of `gsd_m`.
    """
    side = town.size / gsd_m
    if side != int(side):
        raise ValueError(f"{town.size:g} m is no multiple of gsd_m {gsd_m:g}")
    canvas = Canvas.blank(town, 2 * int(side), gsd_m / 2, season)
    _paint_ground(canvas, town)
    _paint_roads(canvas, town)
    _raise_cars(canvas, cars)
    for number, building in enumerate(town.buildings):
        _raise_building(canvas, building, number, sun)
    _raise_trees(canvas, town.trees, sun)
    seen = _light(canvas, sun)
    # The camera's own blur, half an output pixel wide, then its pixels.
    seen = np.stack([blurred(band, 1.0) for band in seen])
    return shrunk(seen, 2)


# The ground


def _paint_ground(canvas: Canvas, town: Town) -> None:
    everywhere = np.ones(canvas.height.shape, bool)
    canvas.paint(everywhere, SURFACES["rough"])
    _paint_fields(canvas, town.fields)
    floors = canvas.burn([wood.polygon for wood in town.woods])
    canvas.paint(floors > 0, SURFACES["wood floor"])
    canvas.paint(canvas.burn([town.built_up]) > 0, SURFACES["lawn"])
    which = canvas.burn([patch.polygon for patch in town.patches])
    tones = np.array([1.0] + [p.tone for p in town.patches], np.float32)
    names = np.array([""] + [p.surface for p in town.patches])
    for name in sorted(set(names[1:])):
        mask = (names == name)[which]
        canvas.paint(mask, SURFACES[name], tones[which[mask]])
    _mark_pitches(canvas, town)
    canvas.paint(canvas.burn([town.river]) > 0, SURFACES["shallows"])
    canvas.paint(canvas.burn([town.river.buffer(-2.2)]) > 0, SURFACES["river"])


def _paint_fields(canvas: Canvas, fields: Sequence[Field]) -> None:
    inner = canvas.burn([f.polygon for f in fields])
    heart = canvas.burn([f.polygon.buffer(-11) for f in fields])
    for number, parcel in enumerate(fields):
        window = canvas.window(parcel.polygon.bounds)
        mask = inner[window] == number + 1
        if mask.any():
            _paint_field(canvas, window, mask, heart[window] == number + 1, parcel)


def _paint_field(
    canvas: Canvas,
    window: Window,
    mask: Mask,
    heart: Mask,
    parcel: Field,
) -> None:
    """Paint one field: patches of soil, seed rows, passes of a machine, ruts."""
    crop = CROPS[parcel.crop]
    x, y = canvas.ground(window)
    cos, sin = np.float32(math.cos(parcel.angle)), np.float32(math.sin(parcel.angle))
    across = y * cos - x * sin
    along = x * cos + y * sin
    # The headland is worked along the field's ends.
    across = np.where(heart, across, along)
    wander = canvas.noise.field(40.0)[window]
    passes: Floats = across / np.float32(6) + np.float32(0.03) * wander
    lane = np.floor(passes).astype(np.int64)
    lane_tone = ((lane * lane * 7 + lane * 13) % 11).astype(np.float32) / 5 - 1
    rows = _wave(across * np.float32(0.625))
    work = 0.6 * rows + 0.4 * lane_tone
    soil = (
        0.6 * canvas.noise.field(90.0)[window]
        + 0.45 * wander
        + 0.35 * canvas.noise.field(9.0)[window]
        + 0.22 * canvas.noise.field(2.4)[window]
    )
    share = np.clip(crop.bare + crop.patchy * soil + crop.rows * work, 0, 1.15)
    rut = np.abs(_wave(passes * np.float32(0.25))) < 0.05
    share = np.where(rut, share + crop.tramlines * 0.7, share)
    bright = parcel.tone * (1 + 0.09 * canvas.noise.grain()[window])
    bright = np.where(heart, bright, 0.96 * bright)
    for band in range(4):
        low, high = crop.first[band], crop.second[band]
        colour = (low + (high - low) * share) * bright
        canvas.albedo[band][window][mask] = colour[mask]


def _wave(phase: Floats) -> Floats:
    """Return a triangle wave of period 1 between -1 and 1."""
    centred: Floats = np.abs(phase - np.floor(phase) - np.float32(0.5))
    return 4 * centred - 1


def _mark_pitches(canvas: Canvas, town: Town) -> None:
    lines: list[BaseGeometry] = []
    for patch in town.patches:
        if patch.surface == "pitch":
            lines.append(patch.polygon.buffer(-2, join_style="mitre").exterior)
            lines.append(patch.polygon.centroid.buffer(9).exterior)
        elif patch.surface == "tartan":
            lines += [patch.polygon.buffer(-1.2 * k).exterior for k in (1, 2, 3, 4)]
    _paint_lines(canvas, lines)


def _paint_lines(canvas: Canvas, lines: Sequence[BaseGeometry]) -> None:
    """Paint white lines 0.3 m wide, paler where a pixel is wider than that."""
    mask = canvas.burn(lines, thin=True) > 0
    share = np.float32(min(1.0, 0.3 / canvas.step))
    for band in range(4):
        below = canvas.albedo[band][mask]
        canvas.albedo[band][mask] = below + share * (WHITE_LINE[band] - below)


def _paint_roads(canvas: Canvas, town: Town) -> None:
    built = town.built_up.buffer(4)
    tracks = [road.line for road in town.roads if road.kind == "track"]
    ruts = [
        line.parallel_offset(0.85, side).buffer(0.55)
        for line in tracks
        for side in ("left", "right")
    ]
    canvas.paint(canvas.burn(ruts) > 0, SURFACES["track"])
    paved = [road for road in town.roads if road.kind != "track"]
    walks = [
        road.line.buffer(road.width / 2 + 1.5).intersection(built) for road in paved
    ]
    canvas.paint(canvas.burn(walks) > 0, SURFACES["pavement"])
    verges = [road.line.buffer(road.width / 2 + 0.9) for road in paved[:2]]
    canvas.paint(canvas.burn(verges) > 0, SURFACES["gravel"])
    canvas.paint(canvas.burn(walks) > 0, SURFACES["pavement"])
    paved = sorted(paved, key=lambda road: road.width)
    which = canvas.burn([road.line.buffer(road.width / 2, 4) for road in paved])
    tones = np.array(
        [1.0] + [0.86 + 0.32 * ((7 * i) % 5) / 4 for i in range(len(paved))],
        np.float32,
    )
    mask = which > 0
    canvas.paint(mask, SURFACES["asphalt"], tones[which[mask]])
    bridges = [
        road.line.buffer(road.width / 2 + 1.2, 4).intersection(town.river.buffer(5))
        for road in paved
    ]
    canvas.height[canvas.burn(bridges) > 0] = 4.0
    _paint_lines(canvas, [d for road in paved for d in _dashes(road.line, road.kind)])


def _dashes(line: LineString, kind: str) -> list[BaseGeometry]:
    if kind not in ("primary", "secondary"):
        return []
    starts = range(4, int(line.length) - 8, 12)
    return [substring(line, start, start + 5) for start in starts]


# What stands on it


def _raise_cars(canvas: Canvas, cars: Sequence[Car]) -> None:
    for car in cars:
        half_length, half_width = car.length / 2, 0.9 if car.length < 6 else 1.25
        window = canvas.window(
            (car.x - 5, car.y - 5, car.x + 5, car.y + 5),
        )
        a, b = _local(canvas, window, car.x, car.y, car.angle)
        inside = (np.abs(a) < half_length) & (np.abs(b) < half_width)
        glass = inside & (np.abs(np.abs(a) - 0.55 * half_length) < 0.4)
        canvas.height[window][inside] = 1.4 if car.length < 6 else 3.0
        for band in range(4):
            canvas.albedo[band][window][inside] = PAINTS[car.paint][band]
            canvas.albedo[band][window][glass] = GLASS[band]


def _local(
    canvas: Canvas, window: Window, x: float, y: float, angle: float
) -> tuple[Floats, Floats]:
    """Return the coordinates of a window's pixels in a turned frame."""
    east, north = canvas.ground(window)
    cos, sin = np.float32(math.cos(angle)), np.float32(math.sin(angle))
    dx, dy = east - np.float32(x), north - np.float32(y)
    return dx * cos + dy * sin, dy * cos - dx * sin


def _raise_building(canvas: Canvas, building: Building, number: int, sun: Sun) -> None:
    surface = ROOFS[building.material]
    chance = np.random.default_rng([number, int(100 * building.tone)])
    for part in building.parts:
        window = canvas.window(part.footprint().bounds)
        a, b = _local(canvas, window, part.x, part.y, part.angle)
        inside = (np.abs(a) <= part.half_length) & (np.abs(b) <= part.half_width)
        height, slope_a, slope_b = _roof_planes(part, a, b)
        inside &= height > canvas.height[window]
        if not inside.any():
            continue
        share = np.full(inside.shape, 0.5, np.float32)
        for cell, weight in surface.noise.items():
            share += canvas.noise.field(cell)[window] * np.float32(weight)
        share = np.clip(share, 0, 1)
        bright = building.tone * (1 + surface.grain * canvas.noise.grain()[window])
        bright = bright * _roof_details(part, a, b)
        for band in range(4):
            low, high = surface.first[band], surface.second[band]
            colour = (low + (high - low) * share) * bright
            canvas.albedo[band][window][inside] = colour[inside]
        canvas.height[window][inside] = height[inside]
        tilt = _tilt(part.angle, slope_a, slope_b, sun)
        canvas.tilt[window][inside] = tilt[inside]
        _add_roof_gear(canvas, window, building, part, (a, b), tilt, chance)


def _roof_planes(part: Roof, a: Floats, b: Floats) -> tuple[Floats, Floats, Floats]:
    """Return the height of a roof and its slopes along a and b."""
    flat = np.zeros_like(a)
    if part.shape == "flat":
        return flat + np.float32(part.eave), flat, flat
    pitch = np.float32(part.pitch)
    down_b = part.half_width - np.abs(b)
    height = part.eave + pitch * down_b
    slope_a, slope_b = flat, -pitch * np.sign(b)
    if part.shape == "hipped":
        down_a = part.half_length - np.abs(a)
        end = down_a < down_b
        height = np.where(end, part.eave + pitch * down_a, height)
        slope_a = np.where(end, -pitch * np.sign(a), flat)
        slope_b = np.where(end, flat, slope_b)
    return height.astype(np.float32), slope_a, slope_b


def _tilt(angle: float, slope_a: Floats, slope_b: Floats, sun: Sun) -> Floats:
    """Return the direct light on a plane, as a share of that on flat ground."""
    east, north, up = sun.vector
    cos, sin = math.cos(angle), math.sin(angle)
    slope_x = slope_a * np.float32(cos) - slope_b * np.float32(sin)
    slope_y = slope_a * np.float32(sin) + slope_b * np.float32(cos)
    facing = (up - slope_x * east - slope_y * north) / up
    facing = facing / np.sqrt(1 + slope_a * slope_a + slope_b * slope_b)
    return np.maximum(facing, 0.02).astype(np.float32)


def _roof_details(part: Roof, a: Floats, b: Floats) -> Floats:
    """Return a factor on brightness: ridge tiles, seams of sheets, a parapet."""
    if part.shape == "flat":
        rim = np.minimum(part.half_length - np.abs(a), part.half_width - np.abs(b))
        factor = np.where(rim < 0.5, np.float32(1.22), np.float32(1.0))
        sheets: Floats = factor * (1 + 0.05 * _wave(a / np.float32(5.0)))
        return sheets
    ridge = np.abs(b) < 0.25
    eave = part.half_width - np.abs(b) < 0.35
    factor = np.where(ridge, np.float32(1.2), np.float32(1.0))
    return np.where(eave, np.float32(0.8), factor)


def _add_roof_gear(
    canvas: Canvas,
    window: Window,
    building: Building,
    part: Roof,
    frame: tuple[Floats, Floats],
    tilt: Floats,
    chance: np.random.Generator,
) -> None:
    """Put chimneys and solar panels on pitched roofs, boxes and lights on flat ones."""
    a, b = frame
    spots: list[tuple[Mask, Spectrum, float]] = []
    long, wide = part.half_length, part.half_width
    if building.kind in ("house", "row") and part.shape != "flat":
        at = float(chance.uniform(-0.5, 0.5)) * long
        chimney = (np.abs(a - at) < 0.5) & (np.abs(b - 0.6) < 0.45)
        spots.append((chimney, (0.16, 0.11, 0.09, 0.2), 1.0))
        if chance.random() < 0.2:
            sunny = tilt > 1.05
            panel = (
                sunny
                & (np.abs(a) < 0.62 * long)
                & (np.abs(np.abs(b) - wide / 2) < 0.27 * wide)
            )
            spots.append((panel, SOLAR, 0.1))
    elif building.kind in ("industrial", "apartments", "school") and wide > 4:
        if building.kind == "industrial":
            lights = (_wave(a / np.float32(9.0)) > 0.72) & (np.abs(b) < 0.68 * wide)
            spots.append((lights, (0.36, 0.38, 0.39, 0.40), 0.4))
        for _ in range(int(chance.integers(2, 7))):
            at_a = float(chance.uniform(-0.8, 0.8)) * long
            at_b = float(chance.uniform(-0.7, 0.7)) * wide
            box = (np.abs(a - at_a) < 1.3) & (np.abs(b - at_b) < 1.0)
            spots.append((box, (0.30, 0.30, 0.29, 0.33), 1.8))
    for spot, colour, rise in spots:
        canvas.height[window][spot] += np.float32(rise)
        for band in range(4):
            canvas.albedo[band][window][spot] = colour[band]


def _raise_trees(canvas: Canvas, trees: Sequence[Tree], sun: Sun) -> None:
    """Raise crowns, low ones first, so that tall ones stand above them."""
    for tree in sorted(trees, key=lambda tree: (tree.height, tree.x, tree.y)):
        _raise_tree(canvas, tree, sun)


def _raise_tree(canvas: Canvas, tree: Tree, sun: Sun) -> None:
    reach = 1.35 * tree.radius
    window = canvas.window(
        (tree.x - reach, tree.y - reach, tree.x + reach, tree.y + reach)
    )
    east, north = canvas.ground(window)
    dx = (east - np.float32(tree.x)) / np.float32(tree.radius)
    dy = (north - np.float32(tree.y)) / np.float32(tree.radius)
    clumps = canvas.noise.field(1.2)[window]
    leaves = canvas.noise.field(0.7)[window]
    # Boughs make the outline and the top uneven.
    away = (dx * dx + dy * dy) * (1 + 0.45 * clumps)
    inside = away < 1
    dome = np.sqrt(np.maximum(1 - away, 0))
    spread = 1.6 if tree.species == "conifer" else 0.8
    crown = np.float32(spread * tree.radius)
    height = tree.height - crown * (1 - dome) + 0.35 * clumps * tree.radius * 0.5
    inside &= height > canvas.height[window]
    if not inside.any():
        return
    sun_x, sun_y, sun_z = sun.vector
    lean = np.float32(0.75)
    tilt = (sun_z * (0.45 + dome) + lean * (dx * sun_x + dy * sun_y)) / (1.25 * sun_z)
    tilt = tilt * (1 + 0.35 * leaves + 0.25 * clumps)
    canvas.tilt[window][inside] = np.clip(tilt, 0.15, 1.7)[inside]
    canvas.height[window][inside] = height[inside]
    first, second = LEAVES[tree.species]
    share = (tree.x * 13.7 + tree.y * 7.3) % 1.0
    if canvas.season == "spring":
        share = 0.5 + 0.7 * share
    mixed = np.clip(share + 0.3 * leaves, 0, 1.4)
    for band in range(4):
        colour = first[band] + (second[band] - first[band]) * mixed
        canvas.albedo[band][window][inside] = colour[inside]


# Light


def _light(canvas: Canvas, sun: Sun) -> Floats:
    """Return reflectance as seen from above: sun where it reaches, sky everywhere."""
    sunlit = blurred(1 - _shadow(canvas, sun).astype(np.float32), 0.7)
    direct = sunlit * canvas.tilt
    rolling = 1 + np.float32(0.035) * canvas.noise.field(90.0)
    seen = np.empty_like(canvas.albedo)
    for band, sky in enumerate(SKY_LIGHT):
        light = np.float32(1 - sky) * direct + np.float32(sky)
        seen[band] = canvas.albedo[band] * light * rolling
    return seen


def _shadow(canvas: Canvas, sun: Sun) -> Mask:
    """Return where something stands between a pixel and the sun."""
    height = canvas.height
    side = height.shape[0]
    east, north, up = sun.vector
    level = math.sqrt(east * east + north * north)
    climb = canvas.step * up / level
    shadow = np.zeros(height.shape, bool)
    steps = int(float(height.max()) / climb) + 1
    for k in range(1, steps):
        if k * climb > 17 and k % 3:
            # Only towers are this tall, and they are wide enough for longer steps.
            continue
        down, right = -round(k * north / level), round(k * east / level)
        here = (
            slice(max(0, -down), side - max(0, down)),
            slice(max(0, -right), side - max(0, right)),
        )
        there = (
            slice(max(0, down), side + min(0, down)),
            slice(max(0, right), side + min(0, right)),
        )
        shadow[here] |= height[there] - height[here] > np.float32(k * climb + 0.2)
    return shadow
