"""Finish blended strips, piece by piece: unit values to pixels of the output's type.

Values beyond the stretch are added back, bands that the model does not take are
enlarged, low frequencies are locked to the input, figures are summed, and numbers
become the output's type. Every step gives a row the same values in any strip, so that
neither tiles nor strips show. Locking needs whole strips, all else the pieces alone.
No files are opened or written here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from rsupres.blend import Piece, join
from rsupres.blocks.separable import (
    CUBIC_REACH,
    INVERSE_REACH,
    apply_cols,
    apply_rows,
    area_means,
    inverse_map,
)
from rsupres.grid import PixelWindow, round_up
from rsupres.raster.nodata import copy_to_dtype
from rsupres.raster.stretch import Stretch
from rsupres.tile_grid import TileGrid
from rsupres.upscaling.gates import StripSums
from rsupres.upscaling.preparation.lr_rows import LrRows, Span, enlarge_part, nearest

# LR rows beyond a strip that locking its low frequencies needs.
LOCK_REACH = INVERSE_REACH + CUBIC_REACH


@dataclass(frozen=True)
class FinishedStrip:
    """The content of a strip's files, or of some of its columns.

    Attributes:
        index: of the strip.
        window: SR pixels of the output.
        pixels: (C, H, W) of the output's type, bands in the output's order.
        valid: (1, H, W) bool, in any band; None where all are valid in all bands.
        deviation: (c, H, W) float32, NaN where invalid; None unless asked for.
        sums: for the figures.
        is_last: nothing of the strip lies further right.
    """

    index: int
    window: PixelWindow
    pixels: np.ndarray
    valid: np.ndarray | None
    deviation: np.ndarray | None
    sums: StripSums
    is_last: bool = True


@dataclass(frozen=True)
class StripRules:
    """Settings by which strips are finished.

    Attributes:
        grid: the tiling.
        stretch: per band, the model's first and then the others.
        n_model: how many of them are the model's.
        order: for each band of the output, its place among those.
        dtype: numpy name of the output's type.
        nodata: of the output.
        gains: per other band, how much of the model's detail it gets; empty = none.
        codes: places of bands of codes, which are copied by nearest pixel.
        lock: make the result average to the input.
        deviation: whether mosaics carry variances after the means.
    """

    grid: TileGrid
    stretch: Stretch
    n_model: int
    order: tuple[int, ...]
    dtype: str
    nodata: float | None
    gains: tuple[float, ...] = ()
    codes: tuple[int, ...] = ()
    lock: bool = False
    deviation: bool = False

    @property
    def window(self) -> PixelWindow:
        """The output in pixels of the padded SR frame."""
        return self.grid.scene.refine(self.grid.scale).window


class _Pending(NamedTuple):
    strip: Piece
    lr: LrRows
    sr: torch.Tensor


class Finisher:
    """Turns strips of a mosaic, top to bottom, into finished strips.

    With `lock`, a strip leaves when the rows below it are known; else at once, and
    several threads may push.
    """

    def __init__(self, rules: StripRules, strips: range) -> None:
        """Store what to do.

        Args:
            rules: how strips are finished.
            strips: those to finish; others that are pushed only serve locking.
        """
        self._rules = rules
        self._strips = strips
        self._pending: deque[_Pending] = deque()
        self._pieces: list[Piece] = []  # of a strip that is to be locked
        self._residual: np.ndarray | None = None
        self._residual_top = 0

    def push(self, piece: Piece, lr: LrRows) -> list[FinishedStrip]:
        """Take the next piece, and return what is finished now, in order.

        Args:
            piece: means, then variances if asked for, in unit values; changed in place.
            lr: all columns of the strip's rows, and of `CUBIC_REACH` on each side of
                them, as far as the frame goes.
        """
        if not self._rules.lock:
            if piece.index not in self._strips:
                return []
            return [self._finish(_Pending(piece, lr, self._compose(piece, lr)))]
        self._pieces.append(piece)
        if not piece.is_last:
            return []
        strip, self._pieces = _join(self._pieces), []
        return self._push_strip(strip, lr)

    def _push_strip(self, strip: Piece, lr: LrRows) -> list[FinishedStrip]:
        """Take the next strip, whole."""
        rows = self._rows(strip)
        sr = self._compose(strip, lr)
        residual = -_difference(self._rules, sr, lr.cut(*rows))
        if self._residual is None:
            self._residual, self._residual_top = residual, rows[0]
        else:
            self._residual = np.concatenate([self._residual, residual], axis=1)
        if strip.index in self._strips:
            self._pending.append(_Pending(strip, lr, sr))
        return self._release(known=rows[1])

    def _rows(self, strip: Piece) -> Span:
        """Return the LR rows [start, stop) of a strip or piece."""
        window = strip.window.scaled(1 / self._rules.grid.scale)
        return window.row, window.row_stop

    def _cols(self, strip: Piece) -> Span:
        """Return the LR columns [start, stop) of a strip or piece."""
        window = strip.window.scaled(1 / self._rules.grid.scale)
        return window.col, window.col_stop

    def _compose(self, strip: Piece, lr: LrRows) -> torch.Tensor:
        """Return all bands (n, H, W) in units of their stretch, unclipped."""
        rules = self._rules
        grid = rules.grid
        near = lr.cut(*_around(self._rows(strip), grid.lr.height))
        near = near.columns(*_around(self._cols(strip), grid.lr.width))
        rows, cols = (
            (span[0] - first, span[1] - first)
            for span, first in (
                (self._rows(strip), near.top),
                (self._cols(strip), near.left),
            )
        )

        def enlarge(pixels: np.ndarray) -> torch.Tensor:
            return enlarge_part(pixels, rows, cols, grid.scale)

        sr = torch.from_numpy(strip.pixels[: rules.n_model])
        if near.excess is not None and near.excess.any():
            sr += enlarge(near.excess)
        if near.hidden is not None and near.kept is not None and near.hidden.any():
            hidden = nearest(near.hidden[:, slice(*rows), slice(*cols)], grid.scale)
            sr = torch.where(torch.from_numpy(hidden), enlarge(near.kept), sr)
        if near.others is None:
            return sr
        others = enlarge(near.others)
        if rules.gains:
            luminance = near.wanted()[: rules.n_model].mean(axis=0, keepdims=True)
            detail = sr.mean(dim=0) - enlarge(luminance)[0]
            for band, gain in zip(others, rules.gains, strict=True):
                band += gain * detail
        return torch.cat([sr, others])

    def _release(self, known: int) -> list[FinishedStrip]:
        """Lock and finish the strips whose surroundings are known to row `known`."""
        finished = []
        while self._pending:
            rows = self._rows(self._pending[0].strip)
            window = lock_rows(rows, self._rules.grid)
            if known < window[1]:
                break
            item = self._pending.popleft()
            self._lock(item.sr, rows, window)
            finished.append(self._finish(item))
        assert self._residual is not None
        first = self._rows(self._pending[0].strip)[0] if self._pending else known
        keep, _ = lock_rows((first, first), self._rules.grid)
        drop = max(0, keep - self._residual_top)
        self._residual = self._residual[:, drop:]
        self._residual_top += drop
        return finished

    def _lock(
        self, sr: torch.Tensor, rows: tuple[int, int], window: tuple[int, int]
    ) -> None:
        """Add a smooth correction to `sr`, so that it averages to the input.

        With D the area mean and U the bicubic enlargement, ``D(sr + U q) = LR`` for
        ``q = (D U)^-1 (LR - D sr)``; U q is smooth, so no pixel grid appears.
        """
        scale = self._rules.grid.scale
        assert self._residual is not None
        top, bottom = (row - self._residual_top for row in window)
        residual = torch.from_numpy(np.ascontiguousarray(self._residual[:, top:bottom]))
        q = apply_cols(residual, inverse_map(residual.shape[2], scale))
        q = apply_rows(q, inverse_map(residual.shape[1], scale))
        low = max(0, rows[0] - CUBIC_REACH - window[0])
        high = rows[1] + CUBIC_REACH - window[0]
        first = rows[0] - window[0] - low
        span = (first, first + rows[1] - rows[0])
        near = q[:, low:high].numpy()
        sr += enlarge_part(near, span, (0, near.shape[2]), scale)

    def _finish(self, item: _Pending) -> FinishedStrip:
        rules = self._rules
        lr = item.lr.cut(*self._rows(item.strip)).columns(*self._cols(item.strip))
        window = item.strip.window.intersection(rules.window)
        assert window is not None
        valid = None
        if not lr.valid.all():
            valid = nearest(lr.valid, rules.grid.scale)
            valid = valid[:, : window.height, : window.width]
        inside = item.sr[:, : window.height, : window.width].numpy()
        shown = valid
        if rules.order != tuple(range(len(inside))):
            inside = inside[list(rules.order)]
            if valid is not None and len(valid) > 1:
                shown = valid[list(rules.order)]
        bands = [place + 1 for place in rules.order]
        pixels = rules.stretch.for_bands(bands).to_pixels(
            inside, rules.dtype, rules.nodata, shown
        )
        if lr.codes is not None:
            codes = nearest(lr.codes, rules.grid.scale)
            self._copy(codes[:, : window.height, : window.width], pixels, shown)
        deviation = self._deviation(item.strip, window, valid)
        sums = self._sum(item, lr, deviation)
        if valid is not None:
            valid = np.asarray(valid.any(axis=0, keepdims=True))
        index, is_last = item.strip.index, item.strip.is_last
        return FinishedStrip(index, window, pixels, valid, deviation, sums, is_last)

    def _copy(
        self, codes: np.ndarray, pixels: np.ndarray, valid: np.ndarray | None
    ) -> None:
        """Put codes (k, H, W) into the bands of the output that hold them."""
        rules = self._rules
        places = [rules.order.index(place) for place in rules.codes]
        shown = None if valid is None else valid if len(valid) == 1 else valid[places]
        pixels[places] = copy_to_dtype(codes, rules.dtype, rules.nodata, shown)

    def _deviation(
        self, strip: Piece, window: PixelWindow, valid: np.ndarray | None
    ) -> np.ndarray | None:
        rules = self._rules
        if not rules.deviation:
            return None
        variance = strip.pixels[rules.n_model :, : window.height, : window.width]
        span = np.subtract(rules.stretch.high, rules.stretch.low)[: rules.n_model]
        deviation = np.sqrt(variance) * span.astype(np.float32)[:, None, None]
        if valid is not None:
            shown = np.broadcast_to(valid[: rules.n_model], deviation.shape)
            deviation[~shown] = np.nan
        return np.asarray(deviation)

    def _sum(
        self, item: _Pending, lr: LrRows, deviation: np.ndarray | None
    ) -> StripSums:
        rules = self._rules
        scene = rules.grid.scene
        rows = slice(0, scene.height - lr.top)
        difference = _difference(rules, item.sr[: rules.n_model], lr)
        part = (slice(None), rows, slice(0, scene.width - lr.left))
        valid = lr.valid[part][: rules.n_model]
        measured = valid.any(axis=0)
        n_values = np.count_nonzero(valid) * (rules.n_model // len(valid))
        difference = difference[part].astype(np.float64)
        excess = 0
        if lr.excess is not None:
            excess = int(np.count_nonzero((lr.excess[part] != 0) & valid))
        spread, n_spread = 0.0, 0
        if deviation is not None:
            span = np.subtract(rules.stretch.high, rules.stretch.low)[: rules.n_model]
            spread = float(np.nansum(deviation / span[:, None, None], dtype=np.float64))
            n_spread = int(np.count_nonzero(~np.isnan(deviation)))
        return StripSums(
            pixels=measured.size,
            valid=int(np.count_nonzero(measured)),
            values=int(n_values),
            clipped=excess,
            difference=float(difference.sum()),
            squares=float(np.square(difference).sum()),
            deviation=spread,
            deviations=n_spread,
        )


def _join(pieces: Sequence[Piece]) -> Piece:
    """Return the pieces of a strip as one."""
    if len(pieces) == 1:
        return pieces[0]
    first, pixels = pieces[0], join(pieces)
    window = first.window._replace(width=pixels.shape[2])
    return Piece(first.index, window, pixels, is_last=True)


def _around(span: Span, length: int) -> Span:
    """Return a span with the pixels that enlarging it needs, within the frame."""
    return max(0, span[0] - CUBIC_REACH), min(length, span[1] + CUBIC_REACH)


def lock_rows(rows: tuple[int, int], grid: TileGrid) -> tuple[int, int]:
    """Return the LR rows whose residuals decide how rows [start, stop) are locked.

    Args:
        rows: start and stop, LR pixels.
        grid: of the tiles.
    """
    step = grid.scale.denominator
    margin = round_up(LOCK_REACH, step)
    return max(0, rows[0] - margin), min(grid.lr.height, rows[1] + margin)


def _difference(rules: StripRules, sr: torch.Tensor, lr: LrRows) -> np.ndarray:
    """Return the area mean of `sr` (n, H, W) less the input (n, h, w); 0 if invalid."""
    mean = area_means(sr, rules.grid.scale)
    difference = mean.numpy() - lr.wanted()[: len(sr)]
    difference *= lr.valid[: len(sr)]
    return np.asarray(difference)
