"""Enlarge parts of a scene by bicubic interpolation, to see how they compress.

numpy alone does it, so that a plan need not load torch. The pixels are never written;
`rsupres.families.bicubic` makes those of outputs.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from rsupres.grid import PixelWindow, ceil_div
from rsupres.raster.stretch import Stretch
from rsupres.upscaling.preparation.work import Work

_N = 3  # parts along each side of the scene
_SIDE_SR = 256  # SR pixels of a part's side


def enlarged_parts(work: Work) -> tuple[NDArray[np.generic], ...]:
    """Return parts of the scene, enlarged, in the output's type."""
    grid = work.grid.scene
    side = max(8, ceil_div(_SIDE_SR, max(1, int(work.grid.scale))))
    height, width = min(side, grid.height), min(side, grid.width)
    corners = [
        (row, col)
        for row in _spread(grid.height - height)
        for col in _spread(grid.width - width)
    ]
    blocks = []
    for row, col in corners:
        window = PixelWindow(row, col, height, width)
        dn, valid = work.scene.read_filled(window, work.file_bands)
        unit = work.stretch.to_unit(dn)[list(work.order)]
        bands = [place + 1 for place in work.order]
        finer = _enlarged(_enlarged(unit, work.grid.scale, 1), work.grid.scale, 2)
        rows, cols = (_nearest(n, work.grid.scale) for n in (height, width))
        shown = valid if len(valid) == 1 else valid[list(work.order)]
        pixels = work.stretch.for_bands(bands).to_pixels(
            finer, work.dtype, work.nodata, shown[:, rows][:, :, cols]
        )
        blocks.append(pixels)
    return tuple(blocks)


def whole_type_stretch(work: Work) -> Stretch:
    """Return a stretch by which numbers can be enlarged before their own is known."""
    kind, n_bands = np.dtype(work.scene.dtype), len(work.file_bands)
    low, high = 0.0, 1.0
    if kind.kind != "f":
        limits = np.iinfo(kind)
        low, high = float(limits.min), float(limits.max)
    return Stretch((low,) * n_bands, (high,) * n_bands)


def _spread(room: int) -> list[int]:
    """Return up to `_N` places from 0 to `room`."""
    return sorted({round(room * k / (_N - 1)) for k in range(_N)})


def _nearest(n: int, scale: Fraction) -> NDArray[np.intp]:
    places = (np.arange(int(n * scale)) + 0.5) / float(scale)
    return np.minimum(places.astype(np.intp), n - 1)


def _enlarged(
    pixels: NDArray[np.float32], scale: Fraction, axis: int
) -> NDArray[np.float32]:
    """Enlarge (c, h, w) along one axis by Keys' cubic, edges repeated."""
    n = pixels.shape[axis]
    places = (np.arange(int(n * scale)) + 0.5) / float(scale) - 0.5
    first = np.floor(places).astype(np.intp)
    shape = (-1, 1) if axis == 1 else (1, -1)
    total: NDArray[np.float32] | None = None
    for tap in range(-1, 3):
        d = np.abs(places - (first + tap))
        near, far = (1.5 * d - 2.5) * d * d + 1, ((-0.5 * d + 2.5) * d - 4) * d + 2
        weights = np.where(d <= 1, near, far).astype(np.float32).reshape(shape)
        part = np.take(pixels, np.clip(first + tap, 0, n - 1), axis) * weights
        total = part if total is None else total + part
    assert total is not None
    return total
