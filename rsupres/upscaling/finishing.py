"""Finish blended strips: from unit values to pixels of the output's type.

Values beyond the stretch are added back, bands that the model does not take are
enlarged, low frequencies are locked to the input, figures are summed, and numbers
become the output's type. Every step gives a row the same values in any strip, so that
neither tiles nor strips show. No files are opened or written here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import torch

from rsupres.blend import Strip
from rsupres.blocks.separable import (
    CUBIC_REACH,
    INVERSE_REACH,
    apply_cols,
    apply_rows,
    area_map,
    cubic_map,
    inverse_map,
)
from rsupres.grid import PixelWindow, round_up
from rsupres.raster.nodata import copy_to_dtype
from rsupres.raster.stretch import Stretch
from rsupres.tile_grid import TileGrid
from rsupres.upscaling.gates import StripSums

# LR rows beyond a strip that locking its low frequencies needs.
LOCK_REACH = INVERSE_REACH + CUBIC_REACH


class LrRows(NamedTuple):
    """Full-width LR rows of the padded frame, in units of the stretch.

    Attributes:
        top: first row.
        seen: (c, h, w) float32 in [0, 1], the model's bands, filled.
        excess: (c, h, w) float32, how far values lie beyond [0, 1]; None = none does.
        others: (o, h, w) float32, bands that the model does not take; None without.
        valid: bool; (1, h, w) of all bands, or (c + o, h, w) of each.
        hidden: bool, (1, h, w) or (c, h, w): the model sees other pixels filled in
            there, and the result is the enlargement of `kept`; None = nowhere.
        kept: (c, h, w) float32, the model's bands as measured; None without `hidden`.
        codes: (k, h, w) bands of codes, as the file stores them; None without.
    """

    top: int
    seen: np.ndarray
    excess: np.ndarray | None
    others: np.ndarray | None
    valid: np.ndarray
    hidden: np.ndarray | None = None
    kept: np.ndarray | None = None
    codes: np.ndarray | None = None

    def cut(self, start: int, stop: int) -> LrRows:
        """Return rows [start, stop) of the frame, as views."""
        rows = slice(start - self.top, stop - self.top)
        return LrRows(
            start,
            self.seen[:, rows],
            None if self.excess is None else self.excess[:, rows],
            None if self.others is None else self.others[:, rows],
            self.valid[:, rows],
            None if self.hidden is None else self.hidden[:, rows],
            None if self.kept is None else self.kept[:, rows],
            None if self.codes is None else self.codes[:, rows],
        )

    def wanted(self) -> np.ndarray:
        """Return the input that the result must average to: the model's bands first."""
        seen = self.seen if self.excess is None else self.seen + self.excess
        if self.hidden is not None and self.kept is not None:
            seen = np.where(self.hidden, self.kept, seen)
        return seen if self.others is None else np.concatenate([seen, self.others])


@dataclass(frozen=True)
class FinishedStrip:
    """The content of a strip's files.

    Attributes:
        index: of the strip.
        window: SR pixels of the output.
        pixels: (C, H, W) of the output's type, bands in the output's order.
        valid: (1, H, W) bool, in any band; None where all are valid in all bands.
        deviation: (c, H, W) float32, NaN where invalid; None unless asked for.
        sums: for the figures.
    """

    index: int
    window: PixelWindow
    pixels: np.ndarray
    valid: np.ndarray | None
    deviation: np.ndarray | None
    sums: StripSums


@dataclass(frozen=True)
class StripRules:
    """How strips are finished.

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
    strip: Strip
    lr: LrRows
    sr: torch.Tensor


class Finisher:
    """Turns strips of a mosaic, top to bottom, into finished strips.

    With `lock`, a strip leaves when the rows below it are known; else at once.
    """

    def __init__(
        self,
        rules: StripRules,
        strips: range,
        emit: Callable[[FinishedStrip], None],
    ) -> None:
        """Store what to do.

        Args:
            rules: how strips are finished.
            strips: those to finish; others that are pushed only serve locking.
            emit: called with each finished strip, in order.
        """
        self._rules = rules
        self._strips = strips
        self._emit = emit
        self._pending: deque[_Pending] = deque()
        self._residual: np.ndarray | None = None
        self._residual_top = 0

    @property
    def held(self) -> tuple[int, int]:
        """LR rows of residuals, and strips, that wait for the rows below them."""
        rows = 0 if self._residual is None else self._residual.shape[1]
        return rows, len(self._pending)

    def push(self, strip: Strip, lr: LrRows) -> None:
        """Take the next strip.

        Args:
            strip: means, then variances if asked for, in unit values; changed in place.
            lr: rows that hold the strip's and `CUBIC_REACH` on each side of them, as
                far as the frame goes.
        """
        rows = self._rows(strip)
        sr = self._compose(strip, lr)
        if not self._rules.lock:
            if strip.index in self._strips:
                self._finish(_Pending(strip, lr, sr))
            return
        residual = -_difference(self._rules, sr, lr.cut(*rows))
        if self._residual is None:
            self._residual, self._residual_top = residual, rows[0]
        else:
            self._residual = np.concatenate([self._residual, residual], axis=1)
        if strip.index in self._strips:
            self._pending.append(_Pending(strip, lr, sr))
        self._release(known=rows[1])

    def _rows(self, strip: Strip) -> tuple[int, int]:
        """Return the LR rows [start, stop) of a strip."""
        scale = self._rules.grid.scale
        window = strip.window.scaled(1 / scale)
        return window.row, window.row_stop

    def _compose(self, strip: Strip, lr: LrRows) -> torch.Tensor:
        """Return all bands (n, H, W) in units of their stretch, unclipped."""
        rules = self._rules
        start, stop = self._rows(strip)
        near = lr.cut(
            max(0, start - CUBIC_REACH),
            min(rules.grid.lr.height, stop + CUBIC_REACH),
        )

        def enlarge(rows: np.ndarray) -> torch.Tensor:
            return _enlarge_rows(rows, start - near.top, stop - start, rules.grid.scale)

        sr = torch.from_numpy(strip.pixels[: rules.n_model])
        if near.excess is not None and near.excess.any():
            sr += enlarge(near.excess)
        if near.hidden is not None and near.kept is not None and near.hidden.any():
            rows = slice(start - near.top, stop - near.top)
            hidden = nearest(near.hidden[:, rows], rules.grid.scale)
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

    def _release(self, known: int) -> None:
        """Lock and finish the strips whose surroundings are known to row `known`."""
        while self._pending:
            rows = self._rows(self._pending[0].strip)
            window = lock_rows(rows, self._rules.grid)
            if known < window[1]:
                break
            item = self._pending.popleft()
            self._lock(item.sr, rows, window)
            self._finish(item)
        assert self._residual is not None
        first = self._rows(self._pending[0].strip)[0] if self._pending else known
        keep, _ = lock_rows((first, first), self._rules.grid)
        drop = max(0, keep - self._residual_top)
        self._residual = self._residual[:, drop:]
        self._residual_top += drop

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
        sr += _enlarge_rows(
            q[:, low:high].numpy(),
            rows[0] - window[0] - low,
            rows[1] - rows[0],
            scale,
        )

    def _finish(self, item: _Pending) -> None:
        rules = self._rules
        rows = self._rows(item.strip)
        lr = item.lr.cut(*rows)
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
        self._emit(
            FinishedStrip(item.strip.index, window, pixels, valid, deviation, sums)
        )

    def _copy(
        self, codes: np.ndarray, pixels: np.ndarray, valid: np.ndarray | None
    ) -> None:
        """Put codes (k, H, W) into the bands of the output that hold them."""
        rules = self._rules
        places = [rules.order.index(place) for place in rules.codes]
        shown = None if valid is None else valid if len(valid) == 1 else valid[places]
        pixels[places] = copy_to_dtype(codes, rules.dtype, rules.nodata, shown)

    def _deviation(
        self, strip: Strip, window: PixelWindow, valid: np.ndarray | None
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
        part = (slice(None), rows, slice(0, scene.width))
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


def lock_rows(rows: tuple[int, int], grid: TileGrid) -> tuple[int, int]:
    """Return the LR rows whose residuals decide how rows [start, stop) are locked."""
    step = grid.scale.denominator
    margin = round_up(LOCK_REACH, step)
    return max(0, rows[0] - margin), min(grid.lr.height, rows[1] + margin)


def nearest(mask: np.ndarray, scale: Fraction) -> np.ndarray:
    """Return pixels (c, h, w) on SR pixels: each has the value at its centre.

    Both sides times `scale` must be whole.
    """
    height, width = (int(side * scale) for side in mask.shape[1:])
    rows, cols = (
        (2 * np.arange(n) + 1) * scale.denominator // (2 * scale.numerator)
        for n in (height, width)
    )
    return np.asarray(mask[:, rows][:, :, cols])


def _difference(rules: StripRules, sr: torch.Tensor, lr: LrRows) -> np.ndarray:
    """Return the area mean of `sr` (n, H, W) less the input (n, h, w); 0 if invalid."""
    scale = rules.grid.scale
    height, width = lr.valid.shape[1:]
    mean = apply_cols(apply_rows(sr, area_map(height, scale)), area_map(width, scale))
    difference = mean.numpy() - lr.wanted()[: len(sr)]
    difference *= lr.valid[: len(sr)]
    return np.asarray(difference)


def _enlarge_rows(
    rows: np.ndarray, shift: int, n_rows: int, scale: Fraction
) -> torch.Tensor:
    """Enlarge `n_rows` of (c, h, w) from row `shift` on, to (c, H, W)."""
    height, width = rows.shape[1:]
    cols = cubic_map(Fraction(0), width, int(width * scale), scale)
    down = cubic_map(shift * scale, height, int(n_rows * scale), scale)
    return apply_rows(apply_cols(torch.from_numpy(rows), cols), down)
