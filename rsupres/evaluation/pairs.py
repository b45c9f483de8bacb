"""Bring georeferenced pictures to one grid: SR, HR and, if given, the LR input.

Finds the common bands, the common grid and the common valid area. Grids that differ are
refused unless warping is asked for; then HR is brought to the grid of SR, never the
other way round, because resampling the picture under test would change its figures.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import Resampling

from rsupres.datasets.chips import ROLES
from rsupres.errors import BandError, GridError, InputError
from rsupres.grid import Grid, PixelWindow
from rsupres.raster.bands import choose_bands, measured_bands
from rsupres.raster.dataset import Raster
from rsupres.raster.place.registration import Shift, find_shift
from rsupres.raster.stretch import Stretch, StretchChoice, find_stretch, has_scale
from rsupres.raster.undeclared import heed_undeclared
from rsupres.raster.virtual import warp_array

logger = logging.getLogger(__name__)

ALIGNED = 0.01  # pixels; grids closer than that are the same grid
FINER = 1.5  # HR finer than SR by more than this is averaged, not interpolated


@dataclass(frozen=True)
class Layer:
    """A picture in memory.

    Attributes:
        pixels: (c, H, W) float32; [0, 1] is the range of the stretch, not clipped.
        valid: (H, W) bool.
        grid: its frame.
    """

    pixels: NDArray[np.float32]
    valid: NDArray[np.bool_]
    grid: Grid


@dataclass(frozen=True)
class Preparation:
    """Settings by which two pictures are aligned before they are compared.

    Attributes:
        stretch: how numbers become [0, 1].
        warp: bring HR to the grid of SR where the grids differ.
        hr_nodata: DN of invalid HR pixels, in every band; None = as the file says.
        align: SR pixels (down, right) to move HR by; () = as found; None = leave it.
        roles: bands that both must have; () = red, green and blue, else all.
    """

    stretch: StretchChoice
    warp: bool = False
    hr_nodata: float | None = None
    align: tuple[float, float] | tuple[()] | None = None
    roles: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pair:
    """SR and HR on their common grid.

    Attributes:
        sr: (c, H, W) float32, in units of the range of HR's stretch.
        hr: the same.
        valid: (H, W) bool: valid in both.
        window: where the common area lies in the SR picture, SR pixels.
        moved: by how much HR was moved, SR pixels.
    """

    sr: NDArray[np.float32]
    hr: NDArray[np.float32]
    valid: NDArray[np.bool_]
    window: PixelWindow
    moved: tuple[float, float] = (0.0, 0.0)


def load_pair(
    sr_path: str, hr_path: str, preparation: Preparation
) -> tuple[Pair, Layer, Stretch]:
    """Return SR and HR where both have pixels, and the whole SR picture, its stretch.

    Both go through the stretch that HR's file suggests, so that equal DN stay equal, or
    equal physical values where both files have scale and offset. Where data types
    differ without these, each goes through its own.

    Args:
        sr_path: the picture under test.
        hr_path: the truth.
        preparation: how they are brought together.

    Raises:
        InputError: unreadable, no common ground, or no valid pixel in common.
        BandError: no bands in common, or one that `preparation` needs is missing.
        GridError: the grids differ and `preparation.warp` is off.
    """
    with Raster.open(sr_path) as sr_file, Raster.open(hr_path) as hr_file:
        sr_scene, hr_scene = heed_undeclared(sr_file), hr_file
        if preparation.hr_nodata is None:
            hr_scene = heed_undeclared(hr_file)
        sr_bands, hr_bands = _common_bands(sr_scene, hr_scene, preparation.roles)
        hr_stretch = find_stretch(hr_scene, preparation.stretch).for_bands(hr_bands)
        sr_stretch = _carried(hr_stretch, hr_scene, hr_bands, sr_scene, sr_bands)
        if sr_stretch is hr_stretch and sr_scene.dtype != hr_scene.dtype:
            sr_stretch = find_stretch(sr_scene, preparation.stretch).for_bands(sr_bands)
            logger.warning(
                "%s is %s and %s is %s: each has its own stretch.",
                *(sr_path, sr_scene.dtype, hr_path, hr_scene.dtype),
            )
        sr = _read(sr_scene, sr_bands, sr_stretch)
        hr = _read(hr_scene, hr_bands, hr_stretch, preparation.hr_nodata)
    difference = _find_difference(hr.grid, sr.grid)
    if difference and not preparation.warp:
        raise GridError(
            f"{hr_path}: {difference} {sr_path}; warp it there, which resamples HR.",
            remedies=("resample",),
        )
    warped = _warp(hr, sr.grid) if difference else hr
    pair = _overlay(sr, warped, sr_path, hr_path)
    if preparation.align is not None:
        shift = preparation.align or _shift_of(pair, sr_path, hr_path)
        pair = _overlay(sr, _warp(_move(hr, shift, sr.grid), sr.grid), sr_path, hr_path)
        pair = replace(pair, moved=shift)
    return pair, sr, sr_stretch


def load_lr(path: str, bands_like: str, stretch: Stretch) -> Layer:
    """Return the LR input in the bands of SR, as units of its stretch.

    Args:
        path: the LR scene.
        bands_like: the SR file, for its band names.
        stretch: of the SR picture.

    Raises:
        InputError: a file cannot be read.
        BandError: no bands in common.
    """
    with Raster.open(path) as scene, Raster.open(bands_like) as other:
        bands, sr_bands = _common_bands(scene, other)
        own = _carried(stretch, other, sr_bands, scene, bands)
        return _read(scene, bands, own)


def _carried(
    stretch: Stretch,
    scene: Raster,
    bands: Sequence[int],
    other: Raster,
    other_bands: Sequence[int],
) -> Stretch:
    """Return the limits in another file's numbers that mean the same.

    Scale and offset of both files tell. A file of whole numbers without them means the
    same numbers, so that the stretch itself is returned. It is of `bands` of `scene`;
    `other_bands` of `other` mean the same.
    """
    for file in (scene, other):
        if not has_scale(file) and not file.dtype.startswith("float"):
            return stretch
    pairs = [
        [(file.scales[band - 1], file.offsets[band - 1]) for band in chosen]
        for file, chosen in ((scene, bands), (other, other_bands))
    ]
    if pairs[0] == pairs[1]:
        return stretch
    low, high = (
        tuple(
            (dn * scale + offset - other_offset) / other_scale
            for dn, (scale, offset), (other_scale, other_offset) in zip(
                limits, *pairs, strict=True
            )
        )
        for limits in (stretch.low, stretch.high)
    )
    return Stretch(low, high)


def shrink_to(lr: Layer, sr: Layer) -> tuple[Layer, Layer, Fraction]:
    """Average SR over the LR pixels that it covers whole.

    Args:
        lr: the LR scene.
        sr: the SR picture of it, or of a part of it.

    Returns:
        `(shrunk, lr, scale)`: both cut to those LR pixels; an LR pixel is valid when it
        and all its SR pixels are.

    Raises:
        GridError: other CRS or axes, a scale that is no fraction, or an SR corner that
            does not lie on a corner of an LR pixel.
    """
    scale, row, col = _place(lr, sr)
    height, width = (int(n / scale) for n in sr.valid.shape)
    frame = PixelWindow(row, col, height, width)
    if frame.intersection(lr.grid.window) != frame or not height or not width:
        raise GridError("The SR picture reaches beyond the LR scene.")
    rows, cols = (
        _means(n, n_lr, scale)
        for n, n_lr in zip(sr.valid.shape, (height, width), strict=True)
    )
    pixels = rows @ np.where(sr.valid, sr.pixels, 0) @ cols.T
    share = rows @ sr.valid.astype(np.float32) @ cols.T
    part = frame.slices()
    valid = (share > 1 - 1e-4) & lr.valid[part]
    grid = lr.grid.crop(frame)
    cut = Layer(lr.pixels[:, *part], valid, grid)
    return Layer(pixels.astype(np.float32), valid, grid), cut, scale


def match_histogram(
    sr: np.ndarray, hr: np.ndarray, valid: np.ndarray
) -> NDArray[np.float32]:
    """Return (c, H, W) float32 of a picture with the distribution of another, by band.

    Per band, each of 257 quantiles becomes that of the other picture; in between the
    map is linear. Quantiles are those of the valid pixels.

    Args:
        sr: (c, H, W), the picture to change.
        hr: (c, H, W), the one to follow.
        valid: (H, W) bool.
    """
    steps = np.linspace(0, 1, 257)
    bands = []
    for a, b in zip(sr, hr, strict=True):
        source, target = (np.quantile(x[valid], steps) for x in (a, b))
        keep = np.concatenate([[True], np.diff(source) > 0])
        bands.append(np.interp(a, source[keep], target[keep]))
    return np.stack(bands).astype(np.float32)


def same_bands(scene: Raster, count: int) -> tuple[int, ...]:
    """Return the bands of a file beside SR that are those which were compared.

    Args:
        scene: open.
        count: how many bands were compared.

    Raises:
        BandError: the file has others.
    """
    bands = measured_bands(scene)
    if len(bands) != count:
        bands = choose_bands(scene, ROLES).roles
    if len(bands) != count:
        raise BandError(f"{scene.path} has {len(bands)} bands, SR and HR have {count}.")
    return bands


def _common_bands(
    sr: Raster, hr: Raster, roles: Sequence[str] = ()
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return bands of both files that mean the same: `roles`, else RGB, else all."""
    if roles:
        return choose_bands(sr, roles).roles, choose_bands(hr, roles).roles
    try:
        return choose_bands(sr, ROLES).roles, choose_bands(hr, ROLES).roles
    except BandError:
        if len(measured_bands(sr)) == len(measured_bands(hr)):
            return measured_bands(sr), measured_bands(hr)
        raise BandError(
            f"{sr.path} has {len(sr.data_bands)} bands and {hr.path} "
            f"{len(hr.data_bands)}, and not both have red, green and blue."
        ) from None


def _read(
    scene: Raster,
    bands: Sequence[int],
    stretch: Stretch,
    nodata: float | None = None,
) -> Layer:
    dn, valid = scene.read(scene.grid.window, bands)
    mask = valid[0]
    if nodata is not None:
        mask = mask & ~np.asarray((dn == dn.dtype.type(nodata)).all(0))
    return Layer(stretch.to_unit(dn), mask, scene.grid)


def _shift_of(pair: Pair, sr_path: str, hr_path: str) -> Shift:
    shift = find_shift(pair.sr, pair.hr, pair.valid)
    if not math.isfinite(shift.row):
        raise InputError(f"{sr_path} and {hr_path} are flat: nothing to align.")
    return shift


def _move(hr: Layer, shift: tuple[float, float], grid: Grid) -> Layer:
    """Return HR with its frame moved by (row, col) pixels of `grid`; no resampling."""
    t = grid.transform
    row, col = shift
    east, north = t.a * col + t.b * row, t.d * col + t.e * row
    moved = type(t).translation(east, north) @ hr.grid.transform
    frame = Grid(hr.grid.crs, moved, hr.grid.height, hr.grid.width)
    return replace(hr, grid=frame)


def _offset(grid: Grid, other: Grid) -> tuple[float, float]:
    """Return (row, col) of the upper-left corner of `grid` in pixels of `other`."""
    col, row = ~other.transform @ (grid.transform.c, grid.transform.f)
    return float(row), float(col)


def _find_difference(hr: Grid, sr: Grid) -> str:
    """Return how HR's grid differs from SR's, as words before the SR's name, or ""."""
    if hr.crs != sr.crs:
        names = [str(grid.crs)[:40] for grid in (hr, sr)]
        return f"CRS {names[0]} differs from {names[1]} of"
    a, b = np.array(hr.transform[:6]), np.array(sr.transform[:6])
    linear = [0, 1, 3, 4]
    drift = np.abs(a[linear] - b[linear]).max() * max(hr.height, hr.width)
    if drift > ALIGNED * np.abs(b[linear]).max():
        return f"pixel size {a[0]:.6g} x {abs(a[4]):.6g} differs from that of"
    row, col = _offset(hr, sr)
    if max(abs(row - round(row)), abs(col - round(col))) > ALIGNED:
        return (
            f"the grid is displaced by {row - round(row):.3f} and "
            f"{col - round(col):.3f} of a pixel against"
        )
    return ""


def _warp(hr: Layer, grid: Grid) -> Layer:
    """Bring HR to another grid: cubic, or by area where HR is much finer."""
    is_finer = hr.grid.gsd_m * FINER < grid.gsd_m
    kernel = Resampling.average if is_finer else Resampling.cubic
    source = np.where(hr.valid, hr.pixels, np.float32(np.nan))
    warped = warp_array(source, hr.grid, grid, kernel)
    logger.info("HR warped to the grid of SR by %s.", kernel.name)
    valid = np.asarray(np.isfinite(warped).all(0))
    return Layer(np.where(valid, warped, np.float32(0)), valid, grid)


def _overlay(sr: Layer, hr: Layer, sr_path: str, hr_path: str) -> Pair:
    row, col = (round(number) for number in _offset(hr.grid, sr.grid))
    there = PixelWindow(row, col, hr.grid.height, hr.grid.width)
    common = there.intersection(sr.grid.window)
    if common is None:
        raise InputError(f"{sr_path} and {hr_path} show no common ground.")
    in_sr, in_hr = common.slices(), common.relative_to(there).slices()
    valid = sr.valid[in_sr] & hr.valid[in_hr]
    if not valid.any():
        raise InputError(f"{sr_path} and {hr_path} have no valid pixel in common.")
    return Pair(sr.pixels[:, *in_sr], hr.pixels[:, *in_hr], valid, common)


def _place(lr: Layer, sr: Layer) -> tuple[Fraction, int, int]:
    """Return the scale, and the LR row and column of SR's upper-left corner."""
    if lr.grid.crs != sr.grid.crs:
        raise GridError("The LR scene has another CRS than the SR picture.")
    a, b = np.array(lr.grid.transform[:6]), np.array(sr.grid.transform[:6])
    axis = 0 if a[0] else 1
    scale = Fraction(float(a[axis] / b[axis])).limit_denominator(64)
    expected = b * float(scale)
    rest = np.abs(a - expected)[[0, 1, 3, 4]].max() * max(lr.valid.shape)
    row, col = _offset(sr.grid, lr.grid)
    shift = max(abs(row - round(row)), abs(col - round(col)))
    if scale < 1 or max(rest / np.abs(a[:2]).max(), shift) > ALIGNED:
        raise GridError(
            "The SR picture does not lie on the LR scene's grid: pixel sizes must "
            f"differ by a fraction (found {a[axis] / b[axis]:.6g}) and corners meet "
            f"(off by {shift:.3f} LR pixels)."
        )
    return scale, round(row), round(col)


def _means(length: int, n_lr: int, scale: Fraction) -> NDArray[np.float32]:
    """Return (n_lr, length): the mean over the SR pixels in each LR pixel."""
    starts = np.arange(n_lr)[:, None] * float(scale)
    edges = np.arange(length + 1)
    covered = np.diff(np.clip(edges, starts, starts + float(scale)), axis=1)
    return np.asarray(covered / float(scale), np.float32)
