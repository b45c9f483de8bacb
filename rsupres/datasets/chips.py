"""Read small images whole as chips of three bands, coarsen them, and cut them.

Training crops and test sets are made of chips. Scenes, which may not fit into memory,
are read in windows by `rsupres.raster.dataset`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from rsupres.datasets.layers import PICTURES, Layers
from rsupres.datasets.packs import to_floats
from rsupres.errors import InputError
from rsupres.grid import Grid, ceil_div
from rsupres.raster.bands import choose_bands
from rsupres.raster.dataset import Raster
from rsupres.raster.stretch import StretchChoice, find_stretch, parse_stretch
from rsupres.raster.undeclared import heed_undeclared

ROLES = ("red", "green", "blue")
Pixels = NDArray[Any]  # uint8 or uint16: 0 to the largest number mean [0, 1]


@dataclass(frozen=True)
class ChipOptions:
    """Conversion of the bands and numbers of a file to those of a chip.

    Attributes:
        bidx: three bands of the file, from 1; None = red, green and blue, by name, by
            colour interpretation, or else by order.
        stretch: how the file's numbers become [0, 1].
        bits: 8 or 16 bits of a stored number.
    """

    bidx: tuple[int, int, int] | None = None
    stretch: StretchChoice = field(default_factory=lambda: parse_stretch("auto"))
    bits: int = 8

    @property
    def dtype(self) -> type[np.uint8] | type[np.uint16]:
        """Return the type of a chip's pixels."""
        return np.uint8 if self.bits == 8 else np.uint16


@dataclass(frozen=True)
class Chip:
    """An image or a part of one.

    Attributes:
        pixels: (3, H, W) uint8 or uint16; red, green and blue unless other bands were
            asked for.
        valid: (H, W) bool.
        gsd_m: metres per pixel; 0 when the file has no CRS.
        name: file name, with "@row,col" of the upper-left pixel for a part.
        grid: frame of the whole file, None when it has no CRS.
        layers: rasters on the same pixels, see `rsupres.datasets.layers`.
        lr: (3, h, w) of the same type, an LR image of the same ground that came with
            it; None where LR is computed.
    """

    pixels: Pixels
    valid: NDArray[np.bool_]
    gsd_m: float
    name: str
    grid: Grid | None = None
    layers: Layers = field(default_factory=dict)
    lr: Pixels | None = None


def read_chip(path: Path, options: ChipOptions | None = None) -> Chip:
    """Return an image, read whole, with its valid pixels and its grid.

    By default a chip is RGB in 8 bits: 8-bit files keep their values; others are
    stretched as `rsupres upscale` does, then rounded.

    Args:
        path: anything that GDAL opens; a CRS is not needed.
        options: other bands, another stretch or more bits.

    Raises:
        InputError: not a raster, or damaged.
        BandError: no three bands that could be red, green and blue.
    """
    options = options or ChipOptions()
    with Raster.open(path, needs_crs=False) as opened:
        scene = heed_undeclared(opened)
        bands = choose_bands(scene, ROLES, options.bidx).roles
        stretch = find_stretch(scene, options.stretch).for_bands(bands)
        dn, valid = scene.read(scene.grid.window, bands)
        grid = scene.grid if scene.grid.crs else None
    unit = np.nan_to_num(stretch.to_unit(dn), copy=False)
    return Chip(
        to_levels(np.where(valid, unit, 0.0), options.dtype),
        np.asarray(valid.all(0)),
        round(grid.gsd_m, 3) if grid else 0.0,
        path.name,
        grid,
    )


def to_uint8(unit: np.ndarray) -> NDArray[np.uint8]:
    """Return values in [0, 1], clipped and rounded half up to 0..255."""
    return np.asarray(to_levels(unit, np.uint8), np.uint8)


def to_levels(unit: np.ndarray, dtype: DTypeLike) -> Pixels:
    """Return values in [0, 1], clipped, as 0 to the largest value of an integer type.

    Args:
        unit: any shape; halves are rounded up.
        dtype: uint8 or uint16.
    """
    largest = np.float64(np.iinfo(np.dtype(dtype)).max)
    levels: Pixels = np.floor(np.clip(unit, 0.0, 1.0) * largest + 0.5).astype(dtype)
    return levels


def coarsen(chip: Chip, gsd_m: float) -> Chip:
    """Return a chip averaged by area to a coarser GSD; any ratio.

    Every new pixel is the mean of the ground that it covers, and valid when all of that
    ground is. A remainder at the bottom or the right is dropped. Layers of codes or
    legend colours take the value at the centre of the new pixel.

    Args:
        chip: with a known GSD.
        gsd_m: metres per pixel wanted, at least that of the chip.

    Raises:
        InputError: the GSD is unknown or finer than the chip's, or no pixel is left.
    """
    if chip.gsd_m <= 0:
        raise InputError(
            f"{gsd_m:g}: {chip.name} has no CRS, so its GSD is unknown.",
            argument="gsds_m",
        )
    ratio = gsd_m / chip.gsd_m
    height, width = (int(n / ratio + 1e-6) for n in chip.valid.shape)
    if ratio < 1 or not height or not width:
        raise InputError(f"{chip.name}: {chip.gsd_m} m cannot become {gsd_m} m.")
    rows = _area_matrix(chip.valid.shape[0], height, ratio)
    cols = _area_matrix(chip.valid.shape[1], width, ratio).T

    def average(pixels: Pixels) -> Pixels:
        return to_levels(rows @ to_floats(pixels) @ cols, pixels.dtype)

    middle = [((np.arange(n) + 0.5) * ratio).astype(int) for n in (height, width)]
    layers = {
        name: to_uint8(rows @ to_floats(layer) @ cols)
        if name in PICTURES
        else layer[:, middle[0]][..., middle[1]]
        for name, layer in chip.layers.items()
    }
    if "reference_valid" in layers:
        covered = rows @ chip.layers["reference_valid"].astype(np.float32) @ cols
        layers["reference_valid"] = (covered > 1 - 1e-4).astype(np.uint8)
    share = rows @ chip.valid.astype(np.float32) @ cols
    return replace(
        chip,
        pixels=average(chip.pixels),
        valid=share > 1 - 1e-4,
        gsd_m=gsd_m,
        grid=None,
        layers=layers,
    )


def crop_middle(chip: Chip, side: int) -> Chip:
    """Return the middle of a chip, at most `side` pixels high and wide, without LR.

    Args:
        chip: of any size.
        side: pixels of the result at most.
    """
    part = tuple(
        slice((n - min(n, side)) // 2, (n - min(n, side)) // 2 + min(n, side))
        for n in chip.valid.shape
    )
    return replace(
        chip,
        pixels=chip.pixels[:, *part],
        valid=chip.valid[part],
        grid=None,
        layers={name: layer[:, *part] for name, layer in chip.layers.items()},
        lr=None,
    )


def cut(chip: Chip, side: int) -> Iterator[Chip]:
    """Yield nearly equal parts of a chip without overlap, row-major.

    Parts with an invalid pixel, and parts of one single colour, are left out.

    Args:
        chip: of any size.
        side: pixels of a part at most.
    """
    rows, cols = (_stops(n, side) for n in chip.valid.shape)
    for top, bottom in rows:
        for left, right in cols:
            part = np.s_[..., top:bottom, left:right]
            pixels, valid = chip.pixels[part], chip.valid[part]
            is_flat = (pixels == pixels[:, :1, :1]).all()
            if valid.all() and not is_flat:
                is_whole = len(rows) == len(cols) == 1
                name = chip.name if is_whole else f"{chip.name}@{top},{left}"
                layers = {key: layer[part] for key, layer in chip.layers.items()}
                yield replace(
                    chip,
                    pixels=pixels,
                    valid=valid,
                    name=name,
                    layers=layers,
                    lr=chip.lr if is_whole else None,
                )


def _stops(length: int, side: int) -> list[tuple[int, int]]:
    n = ceil_div(length, side)
    part = length // n
    return [(k * part, (k + 1) * part) for k in range(n)]


def _area_matrix(length: int, n_out: int, ratio: float) -> NDArray[np.float32]:
    """Return (n_out, length) weights: the share of each old pixel in a new one."""
    edges = np.arange(length + 1)
    starts = np.arange(n_out)[:, None] * ratio
    covered: NDArray[np.float64] = np.diff(
        np.clip(edges, starts, starts + ratio), axis=1
    )
    return np.asarray(covered / covered.sum(1, keepdims=True), np.float32)
