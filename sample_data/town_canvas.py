"""The canvas of a town: pixels on the ground, noise tied to the ground, and masks.

Pixels are made with + - * / and square roots only, whose results IEEE 754 fixes, so the
same seed gives the same bytes whatever vector unit the machine has.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.features import rasterize
from shapely.geometry.base import BaseGeometry
from town_palette import Surface
from town_shapes import Town

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]
Indices = NDArray[np.uint16]
Season = Literal["spring", "summer"]
Window = tuple[slice, slice]


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


class Noise:
    """Smooth noise in [-1, 1] tied to the ground; one field for each cell size."""

    def __init__(self, seed: int, size_m: float, side: int) -> None:
        self._seed, self._size, self._side = seed, size_m, side
        self._fields: dict[float, Floats] = {}

    def field(self, cell_m: float) -> Floats:
        """Return the (h, w) noise whose bumps are `cell_m` metres apart."""
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
class Canvas:
    """The picture while it is drawn.

    Attributes:
        size: side of the square in metres.
        step: metres per pixel.
        albedo: (4, h, w) reflectance in full sun.
        height: (h, w) metres above the ground.
        tilt: (h, w) direct light as a share of that on flat ground.
        noise: what makes surfaces uneven.
        season: how green the vegetation is.
    """

    size: float
    step: float
    albedo: Floats
    height: Floats
    tilt: Floats
    noise: Noise
    season: Season

    @classmethod
    def blank(cls, town: Town, side: int, step: float, season: Season) -> Canvas:
        """Return a black canvas of side x side pixels, `step` metres each."""
        return cls(
            town.size,
            step,
            np.zeros((4, side, side), np.float32),
            np.zeros((side, side), np.float32),
            np.ones((side, side), np.float32),
            Noise(town.seed, town.size, side),
            season,
        )

    @property
    def transform(self) -> Affine:
        """The map from (column, row) to local metres."""
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

    def window(self, bounds: tuple[float, float, float, float]) -> Window:
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

    def ground(self, window: Window) -> tuple[Floats, Floats]:
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
