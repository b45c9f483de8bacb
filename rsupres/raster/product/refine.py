"""Read bands that were stored with coarser pixels on the grid of the finest ones.

A virtual raster repeats coarse pixels; here they become sharpened ones
(`rsupres.products.sharpen`). A value depends on its position alone, not on the window
that is read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from rsupres.grid import PixelWindow
from rsupres.products.sharpen import REACH, enlarge, sharpen
from rsupres.raster.nodata import FILL_REACH, fill_invalid
from rsupres.raster.product.describe import Coarse, Refinement, Sharpener

FloatArray = NDArray[np.float32]
BoolArray = NDArray[np.bool_]
ReadBands = Callable[
    [PixelWindow, Sequence[int]], tuple[NDArray[np.generic], BoolArray]
]

MAX_GUIDED = 2  # larger ratios are interpolated: one fine pixel tells little of them


def refine(
    native: NDArray[np.generic],
    window: PixelWindow,
    bands: Sequence[int],
    refinement: Refinement,
    read: ReadBands,
    frame: PixelWindow,
) -> None:
    """Replace repeated coarse pixels by sharpened ones, in place.

    Args:
        native: (c, h, w) as the virtual raster has them.
        window: where they lie in the file.
        bands: theirs.
        refinement: which of them are coarse.
        read: reads a window inside the file, (c, h, w), with the mask of valid pixels.
        frame: the file's.
    """
    kinds = {refinement.coarse[band] for band in bands if band in refinement.coarse}
    for kind in kinds:
        places = [i for i, b in enumerate(bands) if refinement.coarse.get(b) == kind]
        method = _method(refinement, kind, [bands[place] for place in places])
        sharp = _Block(kind, method, read, frame).sharpened(window)
        for place in places:
            _store(native[place], sharp[method.members.index(bands[place])])


def _method(refinement: Refinement, kind: Coarse, members: Sequence[int]) -> Sharpener:
    """Return how bands of one kind are sharpened."""
    own = refinement.sharpener
    if own and own.factor == kind.factor and set(members) <= set(own.members):
        return own
    if kind.factor <= MAX_GUIDED and refinement.guides:
        run = partial(sharpen, factor=kind.factor)
        return Sharpener(tuple(members), refinement.guides, kind.factor, REACH, run)
    factor = kind.factor
    return Sharpener(
        tuple(members), (), factor, REACH, lambda coarse, _: enlarge(coarse, factor)
    )


@dataclass(frozen=True)
class _Block:
    """Coarse bands of one kind, and how they are sharpened."""

    kind: Coarse
    method: Sharpener
    read: ReadBands
    frame: PixelWindow

    def sharpened(self, window: PixelWindow) -> FloatArray:
        """Return the members in a window of the file, (c, h, w)."""
        outer = self._aligned(window, self.method.reach)
        pixels, valid = self._read_block(outer)
        if not valid.all():
            wide = self._aligned(window, self.method.reach + FILL_REACH)
            inner = outer.relative_to(wide).slices()
            filled = self._filled(*self._read_block(wide))
            pixels = filled[:, inner[0], inner[1]]
        factor = self.kind.factor
        coarse = pixels[: len(self.method.members), ::factor, ::factor]
        fine = pixels[len(self.method.members) :]
        sharp = self.method.run(coarse, fine)
        rows, cols = window.relative_to(outer).slices()
        return sharp[:, rows, cols]

    def _filled(self, pixels: FloatArray, valid: NDArray[np.bool_]) -> FloatArray:
        """Fill invalid pixels, of the coarse bands as coarse pixels."""
        count, factor = len(self.method.members), self.kind.factor
        coarse = fill_invalid(
            pixels[:count, ::factor, ::factor],
            np.asarray(valid[:count, ::factor, ::factor].all(axis=0))[np.newaxis],
        )
        parts = [coarse.repeat(factor, axis=1).repeat(factor, axis=2)]
        if self.method.guides:
            fine_valid = np.asarray(valid[count:].all(axis=0))[np.newaxis]
            parts.append(fill_invalid(pixels[count:], fine_valid))
        return np.concatenate(parts)

    def _aligned(self, window: PixelWindow, margin: int) -> PixelWindow:
        """Return the window grown by coarse pixels, to whole ones."""
        kind = self.kind
        top, bottom = _span(window.row, window.row_stop, kind.row, kind.factor, margin)
        left, right = _span(window.col, window.col_stop, kind.col, kind.factor, margin)
        return PixelWindow(top, left, bottom - top, right - left)

    def _read_block(self, window: PixelWindow) -> tuple[FloatArray, NDArray[np.bool_]]:
        """Read members and guides, (c, h, w); pixels beyond the file are repeated."""
        bands = (*self.method.members, *self.method.guides)
        inside = window.intersection(self.frame)
        assert inside is not None
        stored, valid = self.read(inside, bands)
        margins = (
            (0, 0),
            (inside.row - window.row, window.row_stop - inside.row_stop),
            (inside.col - window.col, window.col_stop - inside.col_stop),
        )
        pixels = stored.astype(np.float32)
        if any(sum(pair) for pair in margins):
            pixels = np.pad(pixels, margins, mode="edge")
            valid = np.pad(valid, margins, mode="edge")
        return pixels, valid


def _span(
    start: int, stop: int, phase: int, factor: int, margin: int
) -> tuple[int, int]:
    """Return [start, stop) grown to whole coarse pixels and `margin` more of them."""
    first = (start - phase) // factor - margin
    last = -((phase - stop) // factor) + margin
    return first * factor + phase, last * factor + phase


def _store(plane: NDArray[np.generic], values: FloatArray) -> None:
    """Write values into a plane of any type, rounded to that type."""
    if plane.dtype.kind in "iu":
        limits = np.iinfo(plane.dtype.name)
        values = np.clip(np.rint(values), limits.min, limits.max)
    plane[...] = values.astype(plane.dtype)
