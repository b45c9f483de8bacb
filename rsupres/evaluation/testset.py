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
    """Measure every candidate on every image at every scale.

    Args:
        chips: HR images.
        candidates: ways to enlarge that are compared.
        scales: greater than 1.
        degradation: how LR images are made.
        border: SR pixels left out at every side; None = the scale, rounded up.
        perceptual: functions by figure; None = none is measured.
        pictures: existing folder for one PNG per image and scale, with LR, the result
            of every candidate and HR side by side; None = none.
        worst: takes the images, to keep the worst; None = none are kept.
        sets: takes the images, to compare all results with all truths; None = not.
        all_figures: measure MS-SSIM, UIQI, NIQE and those of opensr-test, too.

    Yields:
        One row per image, scale and candidate, in that order.

    Raises:
        InputError: a scale below 1, or an image too small for it.
    """
    if any(scale < 1 for scale in scales):
        raise InputError(f"Scales are at least 1, not {min(scales)}.")
    for number, chip in enumerate(chips):
        for scale in scales:
            height, width = chip.valid.shape
            lr_size, hr_size = sizes_at(height, width, scale)
            hr = chip.pixels[:, : hr_size[0], : hr_size[1]]
            lr = (
                degradation.degrade(hr, lr_size, number)
                if chip.lr is None
                else stored_lr(chip, lr_size)
            )
            layers = {
                name: layer[:, : hr_size[0], : hr_size[1]]
                for name, layer in chip.layers.items()
            }
            made = {c.name: c.enlarge(lr, scale, hr_size, layers) for c in candidates}
            edge = math.ceil(scale) if border is None else border
            found = {}
            for name, sr in made.items():
                chart = layers.get("vector_map")
                figures = _measure(
                    sr, hr, lr, scale, edge, degradation, perceptual, chart
                )
                if all_figures:
                    figures |= _all_figures(sr, hr, lr, degradation)
                found[name] = figures
                yield Row(name, str(scale), chip.name, 1, figures)
            if sets is not None:
                sets.add(str(scale), made, hr)
            if worst is not None:
                versions = {"input": _repeat(lr, hr_size), **made, "truth": hr}
                worst.add(chip.name, str(scale), versions, found)
            if pictures is not None:
                panel = [_repeat(lr, hr_size), *made.values(), hr]
                _save(pictures / f"{Path(chip.name).stem}_x{float(scale):g}.png", panel)


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


def _save(path: Path, panel: Sequence[Pixels]) -> None:
    from PIL import Image

    gap = np.full((3, panel[0].shape[1], 4), 255, np.uint8)
    parts = [part for picture in panel for part in (picture, gap)][:-1]
    Image.fromarray(np.concatenate(parts, 2).transpose(1, 2, 0)).save(path)
