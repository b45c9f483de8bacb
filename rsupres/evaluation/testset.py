"""Run candidates on the images of a test set and measure each result.

All candidates see the same LR images, 8 bits, and are measured in 8 bits, side by side;
the protocol is that of docs/families/e2diffsr.md#test-protocol. Where a scale is
fractional, LR sides are multiples of its denominator
(`rsupres.evaluation.resize.sizes_at`). Nothing here loads models or finds images.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rsupres.datasets.chips import Chip
from rsupres.errors import InputError
from rsupres.evaluation.candidates import Candidate
from rsupres.evaluation.images import Degradation, stored_lr
from rsupres.evaluation.measures.metrics import consistency
from rsupres.evaluation.report import Row, score
from rsupres.evaluation.resize import sizes_at

if TYPE_CHECKING:
    from rsupres.evaluation.comparison.worst import WorstImages
    from rsupres.evaluation.perceptual.sets import Sets
    from rsupres.evaluation.perceptual.weights import Measure

Pixels = NDArray[np.uint8]


def run_testset(
    chips: Iterator[Chip],
    candidates: Sequence[Candidate],
    scales: Sequence[Fraction],
    degradation: Degradation,
    *,
    border: int | None = None,
    perceptual: Mapping[str, Measure] | None = None,
    pictures: Path | None = None,
    worst: WorstImages | None = None,
    sets: Sets | None = None,
    all_figures: bool = False,
) -> Iterator[Row]:
    """Yield a row for every image, scale and candidate, in that order.

    Args:
        chips: HR images.
        candidates: ways to enlarge that are compared.
        scales: 1 or more.
        degradation: how LR images are made.
        border: SR pixels left out at every side; None = the scale, rounded up.
        perceptual: functions by figure.
        pictures: folder for a PNG of each image and scale.
        worst: keeps the worst images.
        sets: compares all results with all truths.
        all_figures: measure MS-SSIM, UIQI, NIQE and those of opensr-test, too.

    Raises:
        InputError: a scale below 1, or an image too small for it.
    """
    if min(scales) < 1:
        raise InputError(f"Scales are at least 1, not {min(scales)}.")
    for number, chip in enumerate(chips):
        for scale in scales:
            lr, hr, layers = _prepared(chip, scale, degradation, number)
            made = {c.name: c.enlarge(lr, scale, _size(hr), layers) for c in candidates}
            edge = math.ceil(scale) if border is None else border
            given = (scale, edge, degradation, perceptual, layers.get("vector_map"))
            found = {}
            for name, sr in made.items():
                more = _all_figures(sr, hr, lr, degradation) if all_figures else {}
                found[name] = _measure(sr, hr, lr, *given) | more
                yield Row(name, str(scale), chip.name, 1, found[name])
            shown = {"input": _repeat(lr, _size(hr)), **made, "truth": hr}
            if sets is not None:
                sets.add(str(scale), made, hr)
            if worst is not None:
                worst.add(chip.name, str(scale), shown, found)
            if pictures is not None:
                _save(pictures, chip.name, scale, list(shown.values()))


def _size(picture: Pixels) -> tuple[int, int]:
    return picture.shape[-2], picture.shape[-1]


def _prepared(
    chip: Chip, scale: Fraction, degradation: Degradation, number: int
) -> tuple[Pixels, Pixels, dict[str, Pixels]]:
    """Return LR, HR and the layers of an image at a scale."""
    rows, cols = chip.valid.shape
    lr_size, (height, width) = sizes_at(rows, cols, scale)
    hr = chip.pixels[:, :height, :width]
    if chip.lr is None:
        lr = degradation.degrade(hr, lr_size, number)
    else:
        lr = stored_lr(chip, lr_size)
    return lr, hr, {name: a[:, :height, :width] for name, a in chip.layers.items()}


def _measure(
    sr: Pixels,
    hr: Pixels,
    lr: Pixels,
    scale: Fraction,
    border: int,
    degradation: Degradation,
    perceptual: Mapping[str, Measure] | None,
    chart: Pixels | None,
) -> dict[str, float]:
    unit_sr, unit_hr, unit_lr = (x.astype(np.float64) / 255 for x in (sr, hr, lr))
    figures = score(
        unit_sr,
        unit_hr,
        float(scale),
        border=border,
        perceptual=perceptual,
        chart=chart,
    )
    found = consistency(degradation.shrink(unit_sr, lr.shape[1:]), unit_lr)
    shift = {name: figures.pop(name) for name in ("shift_row", "shift_col")}
    figures["consistency_mae"], figures["consistency"] = found
    return figures | shift


def _all_figures(
    sr: Pixels, hr: Pixels, lr: Pixels, degradation: Degradation
) -> dict[str, float]:
    """Return the figures that are measured only when asked for."""
    from rsupres.evaluation.measures.more import (
        enlarge,
        opensr_figures,
        similarity_figures,
    )
    from rsupres.evaluation.measures.opensr import consistency_figures

    unit_sr, unit_hr, unit_lr = (x.astype(np.float32) / 255 for x in (sr, hr, lr))
    valid, small = (np.ones(x.shape[1:], bool) for x in (sr, lr))
    shrunk = degradation.shrink(unit_sr, lr.shape[1:])
    size = (hr.shape[1], hr.shape[2])
    return {
        **similarity_figures(unit_sr, unit_hr, valid),
        **opensr_figures(unit_sr, unit_hr, enlarge(unit_lr, size), valid),
        **consistency_figures(shrunk, unit_lr, small),
    }


def _repeat(lr: Pixels, size: tuple[int, int]) -> Pixels:
    """Return (3, H, W), enlarged by repeating pixels, for a panel."""
    rows = np.arange(size[0]) * lr.shape[1] // size[0]
    cols = np.arange(size[1]) * lr.shape[2] // size[1]
    return lr[:, rows][:, :, cols]


def _save(folder: Path, name: str, scale: Fraction, panel: Sequence[Pixels]) -> None:
    from PIL import Image

    gap = np.full((3, panel[0].shape[1], 4), 255, np.uint8)
    parts = [part for picture in panel for part in (picture, gap)][:-1]
    Image.fromarray(np.concatenate(parts, 2).transpose(1, 2, 0)).save(
        folder / f"{Path(name).stem}_x{float(scale):g}.png"
    )
