"""Read LR pixels around a strip, hold them, and bring them to its SR pixels.

Enlarging a part gives the values that enlarging the whole gives, if the part reaches
`CUBIC_REACH` LR pixels further on each side that is not the frame's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from rsupres.blocks.separable import AxisMap, apply_cols, apply_rows, cubic_map
from rsupres.grid import PixelWindow

if TYPE_CHECKING:
    from rsupres.raster.dataset import Raster
    from rsupres.raster.stretch import Stretch

READ_COLS = 2048  # LR columns that are read at once; more only take memory
Span = tuple[int, int]  # first and the one after the last


class LrRows(NamedTuple):
    """LR rows of the padded frame, all columns or some, in units of the stretch.

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
        left: first column.
    """

    top: int
    seen: np.ndarray
    excess: np.ndarray | None
    others: np.ndarray | None
    valid: np.ndarray
    hidden: np.ndarray | None = None
    kept: np.ndarray | None = None
    codes: np.ndarray | None = None
    left: int = 0

    def cut(self, start: int, stop: int) -> LrRows:
        """Return rows [start, stop) of the frame, as views.

        Args:
            start: first row, in the frame.
            stop: the row after the last one.
        """
        rows = slice(start - self.top, stop - self.top)
        return self._part(rows, slice(None))._replace(top=start)

    def columns(self, start: int, stop: int) -> LrRows:
        """Return columns [start, stop) of the frame, as views.

        Args:
            start: first column, in the frame.
            stop: the column after the last one.
        """
        cols = slice(start - self.left, stop - self.left)
        return self._part(slice(None), cols)._replace(left=start)

    def _part(self, rows: slice, cols: slice) -> LrRows:
        """Return the same part of all pixels, as views; `top` and `left` stay."""
        parts: dict[str, Any] = {
            name: pixels[:, rows, cols]
            for name, pixels in self._asdict().items()
            if isinstance(pixels, np.ndarray)
        }
        return self._replace(**parts)

    def wanted(self) -> np.ndarray:
        """Return the input that the result must average to: the model's bands first."""
        seen = self.seen if self.excess is None else self.seen + self.excess
        if self.hidden is not None and self.kept is not None:
            seen = np.where(self.hidden, self.kept, seen)
        return seen if self.others is None else np.concatenate([seen, self.others])


@dataclass(frozen=True)
class RowReader:
    """Reads rows of a scene as a job needs them.

    Attributes:
        scene: open.
        bands: of the file: the model's, then the others.
        n_model: how many of them are the model's.
        n_joint: how many are invalid where one of them is.
        stretch: of those bands.
        codes: bands of the file that hold codes.
        split_excess: splits unit values into what the model sees and the rest.
        shows_hidden: pixels that a mask hides are enlarged; else they are invalid.
    """

    scene: Raster
    bands: Sequence[int]
    n_model: int
    n_joint: int
    stretch: Stretch
    codes: Sequence[int]
    split_excess: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray | None]]
    shows_hidden: bool

    def read(self, window: PixelWindow) -> LrRows:
        """Return all columns of some rows of the padded frame, in unit values.

        Raises:
            InputError: the scene cannot be read there.
        """
        rows = self._read(self.scene, window)
        if not self.scene.has_hidden or not self.shows_hidden:
            return rows
        shown = self._read(self.scene.with_mask(None), window)
        hidden = shown.valid & ~rows.valid
        return rows._replace(
            others=shown.others,
            valid=shown.valid,
            hidden=hidden[: len(rows.seen)],
            kept=shown.wanted()[: len(rows.seen)],
            codes=shown.codes,
        )

    def _read(self, scene: Raster, window: PixelWindow) -> LrRows:
        """Return rows of the padded frame as one view of the scene holds them."""
        parts = (
            window._replace(col=col, width=min(READ_COLS, window.width - col))
            for col in range(0, window.width, READ_COLS)
        )
        return _join_columns((self._part(scene, part) for part in parts), window.width)

    def _part(self, scene: Raster, window: PixelWindow) -> LrRows:
        dn, valid = scene.read_filled(window, self.bands, self.n_joint)
        unit = self.stretch.to_unit(dn)
        seen, excess = self.split_excess(unit[: self.n_model])
        codes = self.codes
        return LrRows(
            top=window.row,
            seen=seen,
            excess=excess,
            others=unit[self.n_model :] if len(unit) > self.n_model else None,
            valid=valid,
            codes=scene.read_reflected(window, codes) if codes else None,
            left=window.col,
        )


def _join_columns(parts: Iterable[LrRows], width: int) -> LrRows:
    """Return rows whose columns come in parts, which need not all be there at once.

    Args:
        parts: of the same rows, without `hidden` and `kept`; one or more.
        width: columns of all.
    """
    top = 0
    whole: dict[str, np.ndarray] = {}
    for part in parts:
        top = part.top
        if part.seen.shape[2] == width:
            return part
        cols = slice(part.left, part.left + part.seen.shape[2])
        for name in ("seen", "excess", "others", "valid", "codes"):
            pixels: np.ndarray | None = getattr(part, name)
            if pixels is not None:
                if name not in whole:  # zeros, as some parts have no excess
                    whole[name] = np.zeros((*pixels.shape[:2], width), pixels.dtype)
                whole[name][:, :, cols] = pixels
    return LrRows(
        top,
        whole["seen"],
        whole.get("excess"),
        whole.get("others"),
        whole["valid"],
        codes=whole.get("codes"),
    )


def nearest(mask: np.ndarray, scale: Fraction) -> np.ndarray:
    """Return pixels (c, h, w) on SR pixels: each has the value at its centre.

    Both sides times `scale` must be whole.

    Args:
        mask: (c, h, w).
        scale: SR pixels along one LR pixel.
    """
    height, width = (int(side * scale) for side in mask.shape[1:])
    rows, cols = (
        (2 * np.arange(n) + 1) * scale.denominator // (2 * scale.numerator)
        for n in (height, width)
    )
    return np.asarray(mask[:, rows][:, :, cols])


def enlarge_part(
    pixels: np.ndarray, rows: Span, cols: Span, scale: Fraction
) -> torch.Tensor:
    """Enlarge a part of LR pixels (c, h, w) to (c, H, W), by bicubic.

    Args:
        pixels: the part and what lies around it.
        rows: of the part, counted in `pixels`; its SR height must be whole.
        cols: of the part, alike.
        scale: SR pixels along one LR pixel.

    Returns:
        (c, H, W) float32.
    """
    height, width = pixels.shape[1:]

    def taps(span: Span, length: int) -> AxisMap:
        n_out = int((span[1] - span[0]) * scale)
        return cubic_map(span[0] * scale, length, n_out, scale)

    wide = apply_cols(torch.from_numpy(pixels), taps(cols, width))
    return apply_rows(wide, taps(rows, height))
