"""Paint a town as the sun lights it: shapes in, surface reflectance out.

Each surface mixes two spectra by smooth noise that is tied to the ground; buildings,
crowns and cars have heights, and what stands between a pixel and the sun casts its
shadow there. Pixels are made with + - * / and square roots only, whose results IEEE 754
fixes, so the same seed gives the same bytes whatever vector unit the machine has.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.features import rasterize
from shapely.geometry import LineString
from shapely.geometry.base import BaseGeometry
from shapely.ops import substring
from town_shapes import Building, Car, Field, Roof, Town, Tree

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]
Indices = NDArray[np.uint16]
Season = Literal["spring", "summer"]
# Band order of everything here: B04, B03, B02, B08.
Spectrum = tuple[float, float, float, float]


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


class Surface(NamedTuple):
    """Two spectra and how they mix: weight of noise by cell size in metres."""

    first: Spectrum
    second: Spectrum
    noise: Mapping[float, float]
    grain: float = 0.05
    grows: bool = False


# Share of the light that comes from the sky, by band: what is left in a shadow.
SKY_LIGHT = (0.17, 0.21, 0.28, 0.13)

_SOFT = {40.0: 0.5, 9.0: 0.5, 2.4: 0.45}
_FINE = {9.0: 0.35, 2.4: 0.5, 1.2: 0.4}
SURFACES: dict[str, Surface] = {
    "rough": Surface(
        (0.070, 0.092, 0.046, 0.36), (0.150, 0.140, 0.085, 0.32), _SOFT, 0.14, True
    ),
    "lawn": Surface(
        (0.058, 0.092, 0.042, 0.43), (0.120, 0.132, 0.070, 0.36), _SOFT, 0.07, True
    ),
    "dry lawn": Surface(
        (0.100, 0.112, 0.062, 0.36), (0.190, 0.165, 0.105, 0.31), _SOFT, 0.08, True
    ),
    "pitch": Surface(
        (0.055, 0.100, 0.042, 0.46), (0.080, 0.115, 0.052, 0.43), {9.0: 0.5}, 0.04, True
    ),
    "felled": Surface(
        (0.110, 0.100, 0.062, 0.27), (0.215, 0.165, 0.115, 0.29), _FINE, 0.18
    ),
    "yard": Surface(
        (0.150, 0.143, 0.130, 0.18), (0.235, 0.222, 0.200, 0.27), _SOFT, 0.06
    ),
    "square": Surface(
        (0.235, 0.215, 0.185, 0.27), (0.290, 0.265, 0.230, 0.33), _FINE, 0.05
    ),
    "paving": Surface(
        (0.220, 0.205, 0.180, 0.26), (0.290, 0.270, 0.240, 0.33), _FINE, 0.05
    ),
    "asphalt": Surface(
        (0.098, 0.095, 0.089, 0.118), (0.145, 0.140, 0.130, 0.17), _SOFT, 0.05
    ),
    "parking": Surface(
        (0.110, 0.107, 0.100, 0.13), (0.160, 0.154, 0.142, 0.19), _SOFT, 0.05
    ),
    "pavement": Surface(
        (0.190, 0.182, 0.166, 0.23), (0.240, 0.228, 0.206, 0.28), _FINE, 0.05
    ),
    "gravel": Surface(
        (0.220, 0.197, 0.160, 0.26), (0.310, 0.280, 0.230, 0.35), _FINE, 0.07
    ),
    "track": Surface(
        (0.190, 0.160, 0.118, 0.25), (0.285, 0.240, 0.180, 0.34), _FINE, 0.07
    ),
    "soil": Surface(
        (0.110, 0.087, 0.064, 0.17), (0.170, 0.132, 0.096, 0.24), _FINE, 0.12
    ),
    "tartan": Surface(
        (0.235, 0.105, 0.078, 0.30), (0.265, 0.120, 0.090, 0.33), {9.0: 0.4}, 0.03
    ),
    "pool": Surface(
        (0.105, 0.235, 0.275, 0.05), (0.150, 0.290, 0.330, 0.06), {2.4: 0.5}, 0.04
    ),
    "pond": Surface(
        (0.026, 0.036, 0.034, 0.016), (0.036, 0.048, 0.040, 0.022), {9.0: 0.6}, 0.03
    ),
    "shallows": Surface(
        (0.056, 0.064, 0.050, 0.040), (0.086, 0.088, 0.066, 0.075), _FINE, 0.05
    ),
    "river": Surface(
        (0.026, 0.039, 0.037, 0.014), (0.038, 0.052, 0.046, 0.020), {9.0: 0.5}, 0.03
    ),
    "wood floor": Surface(
        (0.040, 0.048, 0.030, 0.20), (0.062, 0.062, 0.040, 0.24), _FINE, 0.1, True
    ),
}


class Crop(NamedTuple):
    """How a field looks: plants and ground, and how strongly its work shows."""

    first: Spectrum
    second: Spectrum
    bare: float
    rows: float
    patchy: float
    tramlines: float


CROPS: dict[str, Crop] = {
    "wheat": Crop(
        (0.042, 0.068, 0.034, 0.44), (0.075, 0.098, 0.052, 0.37), 0.25, 0.14, 0.45, 0.8
    ),
    "ripe wheat": Crop(
        (0.215, 0.172, 0.104, 0.34), (0.270, 0.216, 0.134, 0.38), 0.45, 0.16, 0.5, 0.7
    ),
    "stubble": Crop(
        (0.225, 0.184, 0.124, 0.30), (0.300, 0.250, 0.176, 0.37), 0.5, 0.42, 0.35, 0.3
    ),
    "maize": Crop(
        (0.042, 0.070, 0.034, 0.46), (0.062, 0.085, 0.045, 0.40), 0.3, 0.2, 0.4, 0.15
    ),
    "young maize": Crop(
        (0.125, 0.112, 0.074, 0.25), (0.185, 0.146, 0.102, 0.26), 0.5, 0.34, 0.5, 0.2
    ),
    "beet": Crop(
        (0.044, 0.086, 0.036, 0.52), (0.064, 0.098, 0.047, 0.45), 0.3, 0.3, 0.35, 0.5
    ),
    "rape": Crop(
        (0.205, 0.232, 0.052, 0.44), (0.250, 0.268, 0.068, 0.46), 0.3, 0.1, 0.5, 0.9
    ),
    "ripe rape": Crop(
        (0.135, 0.128, 0.076, 0.34), (0.180, 0.160, 0.100, 0.36), 0.4, 0.12, 0.5, 0.7
    ),
    "soil": Crop(
        (0.120, 0.094, 0.068, 0.18), (0.190, 0.150, 0.110, 0.26), 0.5, 0.3, 0.6, 0.0
    ),
    "meadow": Crop(
        (0.060, 0.090, 0.044, 0.42), (0.118, 0.126, 0.070, 0.36), 0.4, 0.06, 0.8, 0.0
    ),
    "mown meadow": Crop(
        (0.100, 0.120, 0.064, 0.38), (0.165, 0.160, 0.095, 0.37), 0.5, 0.5, 0.4, 0.0
    ),
    "orchard": Crop(
        (0.072, 0.098, 0.050, 0.39), (0.120, 0.125, 0.072, 0.36), 0.4, 0.1, 0.6, 0.0
    ),
}

ROOFS: dict[str, Surface] = {
    "red tile": Surface(
        (0.160, 0.096, 0.073, 0.22), (0.215, 0.124, 0.093, 0.28), _FINE, 0.07
    ),
    "old tile": Surface(
        (0.135, 0.092, 0.072, 0.20), (0.190, 0.120, 0.090, 0.26), _FINE, 0.09
    ),
    "brown tile": Surface(
        (0.108, 0.076, 0.060, 0.17), (0.150, 0.102, 0.080, 0.21), _FINE, 0.07
    ),
    "slate": Surface(
        (0.072, 0.074, 0.076, 0.10), (0.108, 0.109, 0.110, 0.14), _FINE, 0.06
    ),
    "gravel": Surface(
        (0.190, 0.182, 0.166, 0.23), (0.260, 0.248, 0.226, 0.30), _SOFT, 0.06
    ),
    "bitumen": Surface(
        (0.085, 0.084, 0.082, 0.10), (0.140, 0.136, 0.130, 0.16), _SOFT, 0.06
    ),
    "white sheet": Surface(
        (0.400, 0.400, 0.390, 0.43), (0.480, 0.478, 0.465, 0.51), _SOFT, 0.03
    ),
    "grey sheet": Surface(
        (0.225, 0.228, 0.228, 0.25), (0.285, 0.287, 0.286, 0.31), _SOFT, 0.03
    ),
    "blue sheet": Surface(
        (0.120, 0.170, 0.245, 0.28), (0.150, 0.205, 0.285, 0.31), _SOFT, 0.03
    ),
}
LEAVES: dict[str, tuple[Spectrum, Spectrum]] = {
    "broadleaf": ((0.030, 0.050, 0.025, 0.40), (0.056, 0.080, 0.036, 0.46)),
    "conifer": ((0.020, 0.033, 0.020, 0.24), (0.034, 0.048, 0.028, 0.29)),
    "poplar": ((0.040, 0.060, 0.030, 0.40), (0.058, 0.080, 0.040, 0.44)),
    "fruit": ((0.044, 0.066, 0.034, 0.38), (0.064, 0.086, 0.044, 0.42)),
    "bush": ((0.036, 0.056, 0.028, 0.36), (0.062, 0.084, 0.042, 0.40)),
}
PAINTS: dict[str, Spectrum] = {
    "white": (0.55, 0.55, 0.54, 0.55),
    "black": (0.03, 0.03, 0.03, 0.05),
    "silver": (0.32, 0.32, 0.32, 0.34),
    "grey": (0.12, 0.12, 0.125, 0.14),
    "red": (0.30, 0.05, 0.04, 0.34),
    "blue": (0.05, 0.09, 0.22, 0.16),
}
GLASS: Spectrum = (0.035, 0.04, 0.045, 0.05)
SOLAR: Spectrum = (0.034, 0.042, 0.062, 0.06)
WHITE_LINE: Spectrum = (0.42, 0.42, 0.40, 0.43)


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
    canvas = _Canvas.blank(town, 2 * int(side), gsd_m / 2, season)
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


# Image arithmetic


def blurred(band: Floats, sigma: float) -> Floats:
    """Return a Gaussian blur of (h, w); sigma in pixels, edges repeated."""
    reach = max(1, math.ceil(3 * sigma))
    weights = [
        round(math.exp(-0.5 * (k / sigma) ** 2), 7) for k in range(-reach, reach + 1)
    ]
    total = sum(weights)
    for axis in (0, 1):
        pad = [(0, 0), (0, 0)]
        pad[axis] = (reach, reach)
        wide = np.pad(band, pad, mode="edge")
        length = band.shape[axis]
        out = np.zeros_like(band)
        for k, weight in enumerate(weights):
            part = wide[k : k + length] if axis == 0 else wide[:, k : k + length]
            out += part * np.float32(weight / total)
        band = out
    return band


def shrunk(image: Floats, factor: int) -> Floats:
    """Return the means of factor x factor pixels of (c, h, w)."""
    c, h, w = image.shape
    out = np.zeros((c, h // factor, w // factor), np.float32)
    for row in range(factor):
        for col in range(factor):
            out += image[:, row::factor, col::factor]
    out /= factor * factor
    return out


class _Noise:
    """Smooth noise in [-1, 1] tied to the ground; one field for each cell size."""

    def __init__(self, seed: int, size_m: float, side: int) -> None:
        self._seed, self._size, self._side = seed, size_m, side
        self._fields: dict[float, Floats] = {}

    def field(self, cell_m: float) -> Floats:
        if cell_m not in self._fields:
            self._fields[cell_m] = self._make(cell_m)
        return self._fields[cell_m]

    def _make(self, cell_m: float) -> Floats:
        rng = np.random.default_rng([self._seed, int(cell_m * 1000), 5])
        n = math.ceil(self._size / cell_m) + 2
        lattice = rng.random((n, n), dtype=np.float32) * 2 - 1
        at = (np.arange(self._side) + 0.5) * (self._size / self._side / cell_m)
        low = at.astype(np.int64)
        part = (at - low).astype(np.float32)
        part = part * part * (3 - 2 * part)
        rows = lattice[low] + (lattice[low + 1] - lattice[low]) * part[:, None]
        left = rows[:, low]
        return left + (rows[:, low + 1] - left) * part

    def grain(self) -> Floats:
        """Return white noise, one value a pixel."""
        if 0.0 not in self._fields:
            rng = np.random.default_rng([self._seed, 6])
            shape = (self._side, self._side)
            self._fields[0.0] = rng.random(shape, dtype=np.float32) * 2 - 1
        return self._fields[0.0]


@dataclass
class _Canvas:
    """The picture at work: reflectance, height in metres, tilt towards the sun."""

    size: float
    step: float
    albedo: Floats
    height: Floats
    tilt: Floats
    noise: _Noise
    season: Season

    @classmethod
    def blank(cls, town: Town, side: int, step: float, season: Season) -> _Canvas:
        return cls(
            town.size,
            step,
            np.zeros((4, side, side), np.float32),
            np.zeros((side, side), np.float32),
            np.ones((side, side), np.float32),
            _Noise(town.seed, town.size, side),
            season,
        )

    @property
    def transform(self) -> Affine:
        return Affine(self.step, 0, 0, 0, -self.step, self.size)

    def burn(self, shapes: Iterable[BaseGeometry], thin: bool = False) -> Indices:
        """Return 0 outside, 1 + the index of the last shape that covers a pixel."""
        pairs = [(s, i + 1) for i, s in enumerate(shapes) if not s.is_empty]
        side = self.height.shape[0]
        if not pairs:
            return np.zeros((side, side), np.uint16)
        indices: Indices = rasterize(
            pairs,
            out_shape=(side, side),
            transform=self.transform,
            all_touched=thin,
            dtype="uint16",
        )
        return indices

    def window(self, bounds: tuple[float, float, float, float]) -> tuple[slice, slice]:
        """Return the pixels (rows, columns) around ground bounds."""
        x0, y0, x1, y1 = bounds
        side = self.height.shape[0]
        rows = slice(
            max(0, int((self.size - y1) / self.step) - 1),
            max(0, min(side, int((self.size - y0) / self.step) + 2)),
        )
        cols = slice(
            max(0, int(x0 / self.step) - 1),
            max(0, min(side, int(x1 / self.step) + 2)),
        )
        return rows, cols

    def ground(self, window: tuple[slice, slice]) -> tuple[Floats, Floats]:
        """Return x (1, w) and y (h, 1) of the pixel centres, in metres."""
        rows, cols = window
        x = (np.arange(cols.start, cols.stop) + 0.5) * self.step
        y = self.size - (np.arange(rows.start, rows.stop) + 0.5) * self.step
        return x[None].astype(np.float32), y[:, None].astype(np.float32)

    def paint(self, mask: Mask, surface: Surface, tone: Floats | float = 1) -> None:
        """Cover a mask with a surface; `tone` is a number or one for each pixel."""
        share = np.full(int(mask.sum()), self.ripeness(surface.grows), np.float32)
        for cell, weight in surface.noise.items():
            share += self.noise.field(cell)[mask] * np.float32(weight)
        np.clip(share, 0, 1, out=share)
        bright = tone * (1 + np.float32(surface.grain) * self.noise.grain()[mask])
        for band in range(4):
            low, high = surface.first[band], surface.second[band]
            self.albedo[band][mask] = (low + (high - low) * share) * bright

    def ripeness(self, grows: bool) -> float:
        """Return the middle of a mix: lush in spring, drier in summer."""
        return 0.5 if not grows else 0.15 if self.season == "spring" else 0.55


# The ground


def _paint_ground(canvas: _Canvas, town: Town) -> None:
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


def _paint_fields(canvas: _Canvas, fields: Sequence[Field]) -> None:
    inner = canvas.burn([f.polygon for f in fields])
    heart = canvas.burn([f.polygon.buffer(-11) for f in fields])
    for number, parcel in enumerate(fields):
        window = canvas.window(parcel.polygon.bounds)
        mask = inner[window] == number + 1
        if mask.any():
            _paint_field(canvas, window, mask, heart[window] == number + 1, parcel)


def _paint_field(
    canvas: _Canvas,
    window: tuple[slice, slice],
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
    rows = _wave(across / np.float32(1.6))
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


def _mark_pitches(canvas: _Canvas, town: Town) -> None:
    lines: list[BaseGeometry] = []
    for patch in town.patches:
        if patch.surface == "pitch":
            lines.append(patch.polygon.buffer(-2, join_style="mitre").exterior)
            lines.append(patch.polygon.centroid.buffer(9).exterior)
        elif patch.surface == "tartan":
            lines += [patch.polygon.buffer(-1.2 * k).exterior for k in (1, 2, 3, 4)]
    _paint_lines(canvas, lines)


def _paint_lines(canvas: _Canvas, lines: Sequence[BaseGeometry]) -> None:
    """Paint white lines 0.3 m wide, paler where a pixel is wider than that."""
    mask = canvas.burn(lines, thin=True) > 0
    share = np.float32(min(1.0, 0.3 / canvas.step))
    for band in range(4):
        below = canvas.albedo[band][mask]
        canvas.albedo[band][mask] = below + share * (WHITE_LINE[band] - below)


def _paint_roads(canvas: _Canvas, town: Town) -> None:
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


def _raise_cars(canvas: _Canvas, cars: Sequence[Car]) -> None:
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
    canvas: _Canvas, window: tuple[slice, slice], x: float, y: float, angle: float
) -> tuple[Floats, Floats]:
    """Return the coordinates of a window's pixels in a turned frame."""
    east, north = canvas.ground(window)
    cos, sin = np.float32(math.cos(angle)), np.float32(math.sin(angle))
    dx, dy = east - np.float32(x), north - np.float32(y)
    return dx * cos + dy * sin, dy * cos - dx * sin


def _raise_building(canvas: _Canvas, building: Building, number: int, sun: Sun) -> None:
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
    canvas: _Canvas,
    window: tuple[slice, slice],
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


def _raise_trees(canvas: _Canvas, trees: Sequence[Tree], sun: Sun) -> None:
    """Raise crowns, low ones first, so that tall ones stand above them."""
    for tree in sorted(trees, key=lambda tree: (tree.height, tree.x, tree.y)):
        _raise_tree(canvas, tree, sun)


def _raise_tree(canvas: _Canvas, tree: Tree, sun: Sun) -> None:
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


def _light(canvas: _Canvas, sun: Sun) -> Floats:
    """Return reflectance as seen from above: sun where it reaches, sky everywhere."""
    sunlit = blurred(1 - _shadow(canvas, sun).astype(np.float32), 0.7)
    direct = sunlit * canvas.tilt
    rolling = 1 + np.float32(0.035) * canvas.noise.field(90.0)
    seen = np.empty_like(canvas.albedo)
    for band, sky in enumerate(SKY_LIGHT):
        light = np.float32(1 - sky) * direct + np.float32(sky)
        seen[band] = canvas.albedo[band] * light * rolling
    return seen


def _shadow(canvas: _Canvas, sun: Sun) -> Mask:
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
