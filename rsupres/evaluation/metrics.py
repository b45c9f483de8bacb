"""Figures that compare a super-resolved picture with the truth, the input or itself.

Plain numpy functions on band-first arrays in [0, 1]. Sums run in float64. Pixels
outside the valid mask count nowhere. No function here opens a file, resamples or
rounds: both arrays lie on one grid, and whoever calls decides about 8 bits and borders.
Where nothing is left to measure, the answer is NaN, not an error.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rsupres.errors import InputError

if TYPE_CHECKING:
    from rsupres.evaluation.lpips import LpipsSqueeze
    from rsupres.grid import TileGrid

Floats = NDArray[np.float64]

SSIM_RADIUS = 5  # pixels; the window is 11 x 11
SSIM_SIGMA = 1.5
_SSIM_K1, _SSIM_K2 = 0.01, 0.03
_LUMA = (65.481 / 255, 128.553 / 255, 24.966 / 255)
_LUMA_OFFSET = 16 / 255
_LPIPS_BLOCK = 512  # pixels; bounds memory on large pictures


class Consistency(NamedTuple):
    """Difference of two LR pictures as a share of the range: mean absolute and RMS."""

    mean_abs: float
    rms: float


def luma(rgb: np.ndarray) -> Floats:
    """Return the Y of YCbCr of an RGB picture, as super-resolution papers take it.

    ITU-R BT.601 with studio swing, (16 + 65.481 R + 128.553 G + 24.966 B) / 255.

    Args:
        rgb: (3, H, W) in [0, 1].

    Returns:
        (1, H, W) float64 in [16 / 255, 235 / 255].

    Raises:
        InputError: not three bands.
    """
    if rgb.ndim != 3 or rgb.shape[0] != 3:
        raise InputError(f"Luma needs (3, H, W), not {rgb.shape}.")
    weights = np.array(_LUMA)[:, None, None]
    y: Floats = (rgb * weights).sum(0, keepdims=True, dtype=np.float64)
    return y + _LUMA_OFFSET


def psnr(sr: np.ndarray, hr: np.ndarray, valid: np.ndarray | None = None) -> float:
    """Return the peak signal-to-noise ratio in dB, one mean square over all bands.

    Args:
        sr: (c, H, W) in [0, 1].
        hr: the same shape and range.
        valid: (H, W) or (1, H, W) bool; None = all.

    Returns:
        10 log10(1 / MSE); infinity for equal pictures, NaN without valid pixels.

    Raises:
        InputError: the shapes differ.
    """
    error = _difference(sr, hr)[:, _mask(sr, hr, valid)]
    if error.size == 0:
        return math.nan
    mse = float(np.mean(error * error))
    return math.inf if mse == 0 else -10 * math.log10(mse)


def ssim(sr: np.ndarray, hr: np.ndarray, valid: np.ndarray | None = None) -> float:
    """Return the mean structural similarity of the bands.

    Wang, Bovik, Sheikh, Simoncelli 2004: Gaussian window of 11 x 11 with sigma 1.5,
    K1 = 0.01, K2 = 0.03, range 1, weighted population moments; only windows that lie
    inside the picture and hold no invalid pixel.

    Args:
        sr: (c, H, W) in [0, 1].
        hr: the same shape and range.
        valid: (H, W) or (1, H, W) bool; None = all.

    Returns:
        In [-1, 1]; NaN when no window fits.

    Raises:
        InputError: the shapes differ.
    """
    mask = _mask(sr, hr, valid)
    if min(mask.shape) <= 2 * SSIM_RADIUS:
        return math.nan
    whole = _window_is_valid(mask)
    if not whole.any():
        return math.nan
    bands = [
        float(_ssim_map(np.where(mask, a, 0.0), np.where(mask, b, 0.0))[whole].mean())
        for a, b in zip(sr, hr, strict=True)
    ]
    return float(np.mean(bands))


def sam_deg(sr: np.ndarray, hr: np.ndarray, valid: np.ndarray | None = None) -> float:
    """Return the mean spectral angle in degrees.

    Kruse et al. 1993, "The Spectral Image Processing System": the angle between the
    band vectors of a pixel, 0 for equal hues whatever the brightness. Pixels that are
    black in either picture have no angle and are left out.

    Args:
        sr: (c, H, W), at least two bands.
        hr: the same shape and unit.
        valid: (H, W) or (1, H, W) bool; None = all.

    Returns:
        In [0, 90] for non-negative values; NaN for one band or no usable pixel.

    Raises:
        InputError: the shapes differ.
    """
    mask = _mask(sr, hr, valid)
    if sr.shape[0] < 2:
        return math.nan
    a, b = sr[:, mask].astype(np.float64), hr[:, mask].astype(np.float64)
    norm_a, norm_b = np.linalg.norm(a, axis=0), np.linalg.norm(b, axis=0)
    usable = (norm_a > 0) & (norm_b > 0)
    if not usable.any():
        return math.nan
    a, b = a[:, usable] / norm_a[usable], b[:, usable] / norm_b[usable]
    # The half-angle form keeps its digits where acos of a value near 1 has none.
    half = np.arctan2(np.linalg.norm(a - b, axis=0), np.linalg.norm(a + b, axis=0))
    return float(np.degrees(2 * half).mean())


def ergas(
    sr: np.ndarray, hr: np.ndarray, scale: float, valid: np.ndarray | None = None
) -> float:
    """Return the relative dimensionless global error in synthesis.

    Wald 2000, "Quality of high resolution synthesised images": 100 / scale times the
    root of the mean over bands of (RMSE / mean of the true band) squared; the paper's
    h / l is the ratio of pixel sizes, 1 / scale.

    Args:
        sr: (c, H, W).
        hr: the same shape and unit.
        scale: LR GSD divided by SR GSD.
        valid: (H, W) or (1, H, W) bool; None = all.

    Returns:
        0 for equal pictures; NaN without valid pixels or where a true band's mean is 0.

    Raises:
        InputError: the shapes differ.
    """
    mask = _mask(sr, hr, valid)
    if not mask.any():
        return math.nan
    mse = np.square(_difference(sr, hr)[:, mask]).mean(1)
    mean = hr[:, mask].mean(1, dtype=np.float64)
    if (mean == 0).any():
        return math.nan
    return float(100 / scale * np.sqrt(np.mean(mse / mean**2)))


def consistency(
    shrunk: np.ndarray, lr: np.ndarray, valid: np.ndarray | None = None
) -> Consistency:
    """Compare the SR picture, brought back to the LR grid, with the LR picture.

    Args:
        shrunk: (c, h, w) in [0, 1]: the SR picture after the degradation.
        lr: the same shape and range.
        valid: (h, w) or (1, h, w) bool; None = all.

    Returns:
        Mean absolute and root mean square difference as shares of the range.

    Raises:
        InputError: the shapes differ.
    """
    error = _difference(shrunk, lr)[:, _mask(shrunk, lr, valid)]
    if error.size == 0:
        return Consistency(math.nan, math.nan)
    rms = float(np.sqrt(np.mean(error * error)))
    return Consistency(float(np.mean(np.abs(error))), rms)


def seam_ratio(
    sr: np.ndarray,
    rows: Sequence[int],
    cols: Sequence[int],
    valid: np.ndarray | None = None,
) -> float:
    """Return the mean gradient across tile borders divided by that elsewhere.

    1 means that borders cannot be told from the rest. The two axes are compared each
    with itself and averaged with the number of border pixels as weights.

    Args:
        sr: (c, H, W).
        rows: SR rows that begin a new tile: the border lies between row - 1 and row.
        cols: the same for columns.
        valid: (H, W) or (1, H, W) bool; None = all.

    Returns:
        The ratio; NaN without borders, or in a flat picture.

    Raises:
        InputError: a border outside the picture.
    """
    mask = _mask(sr, sr, valid)
    total, n_total = 0.0, 0
    for axis, borders in ((0, rows), (1, cols)):
        if any(not 0 < border < mask.shape[axis] for border in borders):
            raise InputError(f"Tile borders {list(borders)} leave the picture.")
        at, n_at, elsewhere = _gradients(sr, mask, axis, sorted(set(borders)))
        if n_at and elsewhere > 0:
            total += n_at * at / elsewhere
            n_total += n_at
    return total / n_total if n_total else math.nan


def tile_borders(grid: TileGrid) -> tuple[list[int], list[int]]:
    """Return the SR rows and columns at which some tile's weight starts or stops.

    Args:
        grid: how the scene was tiled.

    Returns:
        Sorted rows and columns inside the output, for `seam_ratio`.
    """
    scene = grid.scene.refine(grid.scale)
    halo = grid.halo * grid.scale
    rows: set[int] = set()
    cols: set[int] = set()
    for tile in grid:
        window, border = tile.sr, tile.border
        ends = ((window.row, border.top, 1), (window.row_stop, border.bottom, -1))
        rows |= {math.ceil(p + sign * halo) for p, edge, sign in ends if not edge}
        ends = ((window.col, border.left, 1), (window.col_stop, border.right, -1))
        cols |= {math.ceil(p + sign * halo) for p, edge, sign in ends if not edge}
    return (
        sorted(row for row in rows if 0 < row < scene.height),
        sorted(col for col in cols if 0 < col < scene.width),
    )


def lpips_squeeze(
    module: LpipsSqueeze,
    sr: np.ndarray,
    hr: np.ndarray,
    valid: np.ndarray | None = None,
) -> float:
    """Return LPIPS (squeeze) of two RGB pictures.

    Pictures of more than 512 x 512 pixels are measured in blocks of about that size and
    averaged by valid pixels. Invalid pixels are made equal in both pictures and the
    block's distance is divided by its valid share, an approximation.

    Args:
        module: from `LpipsSqueeze.load`; its device does the work.
        sr: (3, H, W) in [0, 1].
        hr: the same shape and range.
        valid: (H, W) or (1, H, W) bool; None = all.

    Returns:
        The distance; NaN when the picture is smaller than 17 pixels or all invalid.

    Raises:
        InputError: the shapes differ or are not RGB.
    """
    from rsupres.evaluation.lpips import MIN_SIDE

    mask = _mask(sr, hr, valid)
    if min(mask.shape) < MIN_SIDE or not mask.any():
        return math.nan
    sr, hr = np.where(mask, sr, 0.0), np.where(mask, hr, 0.0)
    total = 0.0
    for block in _blocks(mask.shape, _LPIPS_BLOCK):
        if mask[block].any():
            # the distance of a block is diluted by its invalid pixels: undo that, then
            # weigh by valid pixels, which leaves the block's size
            total += _lpips(module, sr[:, *block], hr[:, *block]) * mask[block].size
    return total / int(mask.sum())


def _lpips(module: LpipsSqueeze, sr: np.ndarray, hr: np.ndarray) -> float:
    import torch

    pair = [
        torch.from_numpy(np.ascontiguousarray(image, np.float32))[None] * 2 - 1
        for image in (sr, hr)
    ]
    with torch.inference_mode():
        a, b = (image.to(module.shift.device) for image in pair)
        return float(module(a, b)[0])


def _blocks(shape: tuple[int, ...], side: int) -> list[tuple[slice, slice]]:
    """Cut a picture into nearly equal blocks of at most `side` pixels a side."""
    cuts = [
        [round(k * n / math.ceil(n / side)) for k in range(math.ceil(n / side) + 1)]
        for n in shape
    ]
    rows, cols = ([slice(*pair) for pair in pairwise(c)] for c in cuts)
    return [(row, col) for row in rows for col in cols]


def _mask(
    sr: np.ndarray, hr: np.ndarray, valid: np.ndarray | None
) -> NDArray[np.bool_]:
    """Return the valid mask as (H, W), after checking that all shapes agree."""
    if sr.shape != hr.shape or sr.ndim != 3:
        raise InputError(
            f"Two pictures of one shape (c, H, W) are compared, not {sr.shape} and "
            f"{hr.shape}."
        )
    if valid is None:
        return np.ones(sr.shape[1:], bool)
    if valid.shape not in (sr.shape[1:], (1, *sr.shape[1:])):
        raise InputError(f"A mask of {valid.shape} does not fit {sr.shape}.")
    return valid.reshape(sr.shape[1:]).astype(bool)


def _difference(sr: np.ndarray, hr: np.ndarray) -> Floats:
    if sr.shape != hr.shape:
        raise InputError(f"The pictures differ in shape: {sr.shape} and {hr.shape}.")
    return sr.astype(np.float64) - hr.astype(np.float64)


def _ssim_map(a: np.ndarray, b: np.ndarray) -> Floats:
    """Return SSIM per window of two bands (H, W); (H - 10, W - 10)."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    mean_a, mean_b = _smooth(a), _smooth(b)
    var_a = _smooth(a * a) - mean_a**2
    var_b = _smooth(b * b) - mean_b**2
    covariance = _smooth(a * b) - mean_a * mean_b
    c1, c2 = _SSIM_K1**2, _SSIM_K2**2
    top = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    return np.asarray(top / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)))


def _smooth(image: Floats) -> Floats:
    """Average (H, W) under the SSIM window; (H - 10, W - 10)."""
    x = np.arange(-SSIM_RADIUS, SSIM_RADIUS + 1)
    kernel = np.exp(-(x**2) / (2 * SSIM_SIGMA**2))
    kernel /= kernel.sum()
    height, width = (n - 2 * SSIM_RADIUS for n in image.shape)
    rows = sum(k * image[i : i + height] for i, k in enumerate(kernel))
    return np.asarray(sum(k * rows[:, i : i + width] for i, k in enumerate(kernel)))


def _window_is_valid(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return for every inner pixel whether its 11 x 11 window holds no invalid one."""
    side = 2 * SSIM_RADIUS + 1
    bad = np.pad(np.cumsum(np.cumsum(~mask, 0), 1), ((1, 0), (1, 0)))
    inside: NDArray[np.int64] = (
        bad[side:, side:] - bad[:-side, side:] - bad[side:, :-side]
    )
    return np.asarray(inside + bad[:-side, :-side] == 0)


def _gradients(
    sr: np.ndarray, mask: NDArray[np.bool_], axis: int, borders: Sequence[int]
) -> tuple[float, int, float]:
    """Return the mean gradient at borders, their pixels, and the mean elsewhere."""
    image = sr if axis == 0 else sr.transpose(0, 2, 1)
    both = mask if axis == 0 else mask.T
    pairs = both[1:] & both[:-1]  # (H - 1, W)
    size = np.abs(np.diff(image.astype(np.float64), axis=1)).mean(0)
    is_border = np.zeros(len(pairs), bool)
    is_border[[border - 1 for border in borders]] = True
    at, elsewhere = pairs & is_border[:, None], pairs & ~is_border[:, None]
    if not at.any() or not elsewhere.any():
        return math.nan, 0, math.nan
    return float(size[at].mean()), int(at.sum()), float(size[elsewhere].mean())
