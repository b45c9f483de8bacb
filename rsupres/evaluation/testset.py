"""A test set of HR images: degrade each, run every model, measure against the truth.

All models see the same LR images, 8 bits, and are measured in 8 bits, side by side. The
protocol is that of the E2DiffSR specification, section 8; where a scale is fractional,
LR sides are multiples of its denominator (`rsupres.evaluation.resize.sizes_at`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rsupres.datasets.chips import Chip, cut, read_chip, to_uint8
from rsupres.datasets.layers import Layers, as_conditions
from rsupres.datasets.sidecars import Sidecars
from rsupres.errors import InputError
from rsupres.evaluation.metrics import consistency
from rsupres.evaluation.report import Row, score
from rsupres.evaluation.resize import resize_bicubic, resize_bicubic_float, sizes_at
from rsupres.families.base import Conditions
from rsupres.upscaling.array import upscale_whole

if TYPE_CHECKING:
    import torch

    from rsupres.evaluation.lpips import LpipsSqueeze
    from rsupres.families.base import SuperResolver

Pixels = NDArray[np.uint8]
BICUBIC = "bicubic"


@dataclass(frozen=True)
class Candidate:
    """A way to enlarge an 8-bit LR image.

    Attributes:
        name: for people.
        enlarge: (LR pixels, scale, HR size, layers on the HR pixels) to 8-bit pixels.
        looks_at: names of the layers that change its result.
    """

    name: str
    enlarge: Callable[[Pixels, Fraction, tuple[int, int], Layers], Pixels]
    looks_at: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Degradation:
    """How LR images are made.

    Attributes:
        name: for people.
        degrade: (HR pixels, LR size, number of the image) to LR pixels, 8 bits.
        shrink: (SR in [0, 1], LR size) to the LR picture in [0, 1], unrounded and
            without noise; for the consistency.
    """

    name: str
    degrade: Callable[[Pixels, tuple[int, int], int], Pixels]
    shrink: Callable[[np.ndarray, tuple[int, int]], np.ndarray]


def bicubic_candidate() -> Candidate:
    """Return the baseline: Pillow's bicubic (a = -0.5) of the 8-bit LR image."""
    return Candidate(BICUBIC, lambda lr, scale, size, _: resize_bicubic(lr, size))


def model_candidate(
    name: str,
    model: SuperResolver,
    device: torch.device,
    seed: int,
    style: NDArray[np.float32] | None = None,
) -> Candidate:
    """Return a loaded model as a candidate; its result is clipped and rounded.

    Args:
        name: for people.
        model: on its device.
        device: that device.
        seed: of the noise.
        style: (3, Hs, Ws) in [0, 1] that all images follow; None = their own layer.
    """

    def enlarge(
        lr: Pixels, scale: Fraction, size: tuple[int, int], layers: Layers
    ) -> Pixels:
        unit = lr.astype(np.float32) / np.float32(255)
        conditions = _conditions(layers, style)
        return to_uint8(upscale_whole(model, unit, scale, device, seed, conditions))

    return Candidate(name, enlarge, model.spec.needs | model.spec.accepts)


def without(candidate: Candidate, condition: str) -> Candidate:
    """Return a candidate that is not shown one of its conditions."""

    def enlarge(
        lr: Pixels, scale: Fraction, size: tuple[int, int], layers: Layers
    ) -> Pixels:
        hidden = (condition, f"{condition}_valid")
        kept = {name: part for name, part in layers.items() if name not in hidden}
        return candidate.enlarge(lr, scale, size, kept)

    name = f"{candidate.name} without {condition.replace('_', ' ')}"
    return Candidate(name, enlarge, candidate.looks_at - {condition})


def bicubic_degradation() -> Degradation:
    """Return Pillow's antialiased bicubic, in 8 bits."""
    return Degradation(
        BICUBIC, lambda hr, size, number: resize_bicubic(hr, size), resize_bicubic_float
    )


def load_chips(
    images: Sequence[Path], max_side: int, companions: Sidecars
) -> Iterator[Chip]:
    """Read images one by one; larger ones come in parts of at most `max_side`.

    Parts with invalid pixels or of one colour are left out. What belongs to an image is
    cut with it.
    """
    for path in images:
        yield from cut(companions.attach(read_chip(path), path), max_side)


def run_testset(
    chips: Iterator[Chip],
    candidates: Sequence[Candidate],
    scales: Sequence[Fraction],
    degradation: Degradation,
    *,
    border: int | None = None,
    lpips: LpipsSqueeze | None = None,
    pictures: Path | None = None,
) -> Iterator[Row]:
    """Measure every candidate on every chip at every scale.

    Args:
        chips: HR images.
        candidates: what is compared.
        scales: greater than 1.
        degradation: how LR images are made.
        border: SR pixels left out at every side; None = ceil(scale), as published.
        lpips: the module; None = not measured.
        pictures: existing folder; LR, every candidate and HR are written there side by
            side, one PNG per image and scale.

    Yields:
        One row per chip, scale and candidate, in that order.

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
            lr = degradation.degrade(hr, lr_size, number)
            layers = {
                name: layer[:, : hr_size[0], : hr_size[1]]
                for name, layer in chip.layers.items()
            }
            made = {c.name: c.enlarge(lr, scale, hr_size, layers) for c in candidates}
            edge = math.ceil(scale) if border is None else border
            for name, sr in made.items():
                chart = layers.get("vector_map")
                figures = _measure(sr, hr, lr, scale, edge, degradation, lpips, chart)
                yield Row(name, str(scale), chip.name, 1, figures)
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
    lpips: LpipsSqueeze | None,
    chart: Pixels | None,
) -> dict[str, float]:
    unit_sr, unit_hr, unit_lr = (x.astype(np.float64) / 255 for x in (sr, hr, lr))
    figures = score(
        unit_sr, unit_hr, float(scale), border=border, lpips=lpips, chart=chart
    )
    found = consistency(degradation.shrink(unit_sr, lr.shape[1:]), unit_lr)
    shift = {name: figures.pop(name) for name in ("shift_row", "shift_col")}
    figures["consistency"], figures["consistency_rms"] = found
    return figures | shift


def _conditions(layers: Layers, style: NDArray[np.float32] | None) -> Conditions:
    """Return the layers of an image as a model gets them for a scene."""
    import torch

    conditions = as_conditions([layers])
    if style is not None:
        return replace(conditions, style=torch.from_numpy(style))
    if conditions.style is not None:
        return replace(conditions, style=conditions.style[0])
    return conditions


def _repeat(lr: Pixels, size: tuple[int, int]) -> Pixels:
    """Enlarge by repeating pixels, for looking at."""
    rows = np.arange(size[0]) * lr.shape[1] // size[0]
    cols = np.arange(size[1]) * lr.shape[2] // size[1]
    return lr[:, rows][:, :, cols]


def _save(path: Path, panel: Sequence[Pixels]) -> None:
    from PIL import Image

    gap = np.full((3, panel[0].shape[1], 4), 255, np.uint8)
    parts = [part for picture in panel for part in (picture, gap)][:-1]
    Image.fromarray(np.concatenate(parts, 2).transpose(1, 2, 0)).save(path)
