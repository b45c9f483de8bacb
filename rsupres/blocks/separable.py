"""Linear maps along rows and columns: bicubic enlargement, area means, their inverse.

Each output pixel reads a few neighbouring input pixels, so a map along one axis is a
band matrix. It is kept as small dense blocks on its diagonal, which makes each pass a
series of small matrix products; that is several times faster on a CPU than
`torch.nn.functional.interpolate`. Positions are absolute: any window of the output may
be asked for, and any scale that is a fraction.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

# Input pixels on each side that a bicubic output pixel may read.
CUBIC_REACH = 2
# Input pixels on each side that the inverse of "enlarge, then average" reads. Its
# weights fall by a factor of eight or more a pixel, so the rest is below float32.
INVERSE_REACH = 8
_SUMMED = (2, 4, 8)  # scales whose means are quicker summed, with the same bits
_BLOCK = 64  # output pixels of one dense block, or input pixels where those are finer


class Block(NamedTuple):
    """A dense piece of a band matrix.

    Attributes:
        target: output pixels, half-open.
        source: input pixels that they read, half-open.
        weights: (len(target), len(source)) float32.
    """

    target: slice
    source: slice
    weights: Tensor


class AxisMap(NamedTuple):
    """A linear map along one axis, as blocks that cover the output in order."""

    blocks: tuple[Block, ...]
    n_source: int
    n_target: int


@lru_cache(maxsize=256)
def cubic_map(
    shift: Fraction, n_source: int, n_target: int, scale: Fraction
) -> AxisMap:
    """Return the map that enlarges an axis by bicubic interpolation.

    Keys' kernel with a = -1/2 at half-pixel centres, as in Pillow and GDAL: SR pixel i
    lies at ``(i + 1/2) / scale - 1/2`` among the LR pixels. Taps that the input does
    not hold are left out and the others scaled to sum to 1, as Pillow does.

    Args:
        shift: SR pixels from the first input pixel's edge to the first output pixel's.
        n_source: LR pixels given.
        n_target: SR pixels wanted.
        scale: SR pixels along one LR pixel.
    """
    first = np.array([float((shift + i) / scale) for i in range(n_target)])
    centre = first + 0.5 / float(scale) - 0.5
    nearest = np.floor(centre).astype(np.int64)
    taps = nearest[:, None] + np.arange(-1, 3)
    weights = keys_kernel(centre[:, None] - taps)
    weights[(taps < 0) | (taps >= n_source)] = 0.0
    weights /= weights.sum(axis=1, keepdims=True)
    return _blocks(np.clip(taps, 0, n_source - 1), weights, n_source, _BLOCK)


@lru_cache(maxsize=256)
def area_map(n_target: int, scale: Fraction) -> AxisMap:
    """Return the map that averages SR pixels over the LR pixels that they cover.

    Args:
        n_target: LR pixels; the input begins at the edge of the first of them and
            holds ``n_target * scale`` SR pixels.
        scale: SR pixels along one LR pixel.

    Raises:
        ValueError: if that is not a whole number of SR pixels.
    """
    n_source = n_target * scale
    if n_source.denominator != 1:
        raise ValueError(f"{n_target} LR pixels times {scale} are not whole.")
    n_taps = math.ceil(scale) + 1
    taps = np.empty((n_target, n_taps), np.int64)
    weights = np.zeros((n_target, n_taps))
    for i in range(n_target):
        start, stop = i * scale, (i + 1) * scale
        for j in range(n_taps):
            pixel = math.floor(start) + j
            taps[i, j] = min(pixel, int(n_source) - 1)
            covered = min(stop, Fraction(pixel + 1)) - max(start, Fraction(pixel))
            weights[i, j] = max(0.0, float(covered / scale))
    return _blocks(taps, weights, int(n_source), max(4, int(_BLOCK / scale)))


@lru_cache(maxsize=256)
def inverse_map(n_pixels: int, scale: Fraction) -> AxisMap:
    """Return the map q with ``area_map(cubic_map(q(r))) == r`` along an axis.

    Exact to float32 but for `INVERSE_REACH` pixels at an end that is not the end of the
    picture.

    Args:
        n_pixels: LR pixels given; a multiple of the scale's denominator.
        scale: SR pixels along one LR pixel.
    """
    step = scale.denominator
    side = -(-_BLOCK // step) * step
    margin = -(-(INVERSE_REACH + CUBIC_REACH) // step) * step
    blocks = []
    for start in range(0, n_pixels, side):
        stop = min(start + side, n_pixels)
        low, high = max(0, start - margin), min(n_pixels, stop + margin)
        there = cubic_map(Fraction(0), high - low, int((high - low) * scale), scale)
        round_trip = _dense(area_map(high - low, scale)) @ _dense(there)
        inverse = np.linalg.inv(round_trip)[start - low : stop - low]
        matrix = torch.from_numpy(inverse.astype(np.float32))
        blocks.append(Block(slice(start, stop), slice(low, high), matrix))
    return AxisMap(tuple(blocks), n_pixels, n_pixels)


def apply_rows(x: Tensor, rows: AxisMap) -> Tensor:
    """Return (..., h, w) float32 mapped along its rows, (..., n_target, w).

    Products are written where they belong, so no gradient passes through.

    Args:
        x: (..., h, w) float32.
        rows: map of h input pixels.
    """
    _check(x.shape[-2], rows)
    out = x.new_empty((*x.shape[:-2], rows.n_target, x.shape[-1]))
    given = x.reshape(-1, *x.shape[-2:])
    made = out.view(-1, *out.shape[-2:])
    with _one_thread():
        for target, source, weights in rows.blocks:
            shared = weights.to(x.device).expand(len(given), -1, -1)
            torch.bmm(shared, given[:, source], out=made[:, target])
    return out


def apply_cols(x: Tensor, cols: AxisMap) -> Tensor:
    """Return (..., h, w) float32 mapped along its columns, (..., h, n_target).

    Products are written where they belong, so no gradient passes through.

    Args:
        x: (..., h, w) float32.
        cols: map of w input pixels.
    """
    _check(x.shape[-1], cols)
    out = x.new_empty((*x.shape[:-1], cols.n_target))
    given = x.reshape(-1, x.shape[-1])
    made = out.view(-1, cols.n_target)
    with _one_thread():
        for target, source, weights in cols.blocks:
            torch.mm(given[:, source], weights.to(x.device).T, out=made[:, target])
    return out


def enlarge(x: Tensor, scale: Fraction) -> Tensor:
    """Return (..., h, w) enlarged to (..., h * scale, w * scale), bicubic.

    Args:
        x: (..., h, w) float32.
        scale: SR pixels along one LR pixel.

    Raises:
        ValueError: if a side would not be whole.
    """
    sides = [side * scale for side in x.shape[-2:]]
    if any(side.denominator != 1 for side in sides):
        raise ValueError(f"{tuple(x.shape[-2:])} times {scale} is not whole.")
    rows, cols = (
        cubic_map(Fraction(0), n, int(n * scale), scale) for n in x.shape[-2:]
    )
    return apply_rows(apply_cols(x, cols), rows)


def area_means(x: Tensor, scale: Fraction) -> Tensor:
    """Return the means of SR pixels over the LR pixels that they cover, (..., h, w).

    Args:
        x: (..., H, W) float32.
        scale: SR pixels along one LR pixel.

    Raises:
        ValueError: if a side is not that of whole LR pixels.
    """
    height, width = (int(side / scale) for side in x.shape[-2:])
    if scale in _SUMMED and x.shape[-2] == height * scale:
        # A map's product adds in this order, too, so the bits are the same.
        n = int(scale)
        with _one_thread():
            means = x[..., 0::n, :] + x[..., 1::n, :]
            for row in range(2, n):
                means += x[..., row::n, :]
            means *= 1 / n
    else:
        means = apply_rows(x, area_map(height, scale))
    return apply_cols(means, area_map(width, scale))


@contextmanager
def _one_thread() -> Iterator[None]:
    """Keep small products on the calling thread: waiting for others costs far more."""
    n_threads = torch.get_num_threads()
    if n_threads == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)


def _check(length: int, axis: AxisMap) -> None:
    if length != axis.n_source:
        raise ValueError(f"{length} pixels for a map of {axis.n_source}.")


def keys_kernel(t: np.ndarray) -> np.ndarray:
    """Return the cubic convolution kernel at t, Keys 1981, Eq. 4, for a = -1/2."""
    t = np.abs(t)
    near = (1.5 * t - 2.5) * t * t + 1.0
    far = ((-0.5 * t + 2.5) * t - 4.0) * t + 2.0
    return np.where(t <= 1.0, near, np.where(t < 2.0, far, 0.0))


def _dense(axis: AxisMap) -> np.ndarray:
    matrix = np.zeros((axis.n_target, axis.n_source))
    for target, source, weights in axis.blocks:
        matrix[target, source] = weights.numpy()
    return matrix


def _blocks(taps: np.ndarray, weights: np.ndarray, n_source: int, side: int) -> AxisMap:
    """Cut the band matrix of `weights` (n, k) at columns `taps` (n, k) into blocks."""
    n_target = len(taps)
    blocks = []
    for start in range(0, n_target, side):
        stop = min(start + side, n_target)
        low, high = int(taps[start:stop].min()), int(taps[start:stop].max()) + 1
        dense = np.zeros((stop - start, high - low))
        rows = np.arange(stop - start)[:, None]
        np.add.at(dense, (rows, taps[start:stop] - low), weights[start:stop])
        matrix = torch.from_numpy(dense.astype(np.float32))
        blocks.append(Block(slice(start, stop), slice(low, high), matrix))
    return AxisMap(tuple(blocks), n_source, n_target)
