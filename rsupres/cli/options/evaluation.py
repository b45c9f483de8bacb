"""What the options of `rsupres evaluate` say, and the LPIPS weights they name."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from rsupres.errors import CheckpointError

if TYPE_CHECKING:
    from rsupres.evaluation.lpips import LpipsSqueeze

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """What the user chose; see the help of the options."""

    lr: str | None
    resample: bool
    hr_nodata: float | None
    align: tuple[float, float] | tuple[()] | None
    match: bool
    stretch: str
    tile_size: int | None
    overlap: int
    halo: int
    models: tuple[str, ...]
    scales: tuple[Fraction, ...]
    every: int
    glob: str
    exclude: tuple[str, ...]
    degradation: str | None
    details: tuple[float, ...]
    steps: int | None
    seed: int
    device: str
    precision: str
    max_side: int
    pictures: Path | None
    border: int | None
    lpips_weights: Path | None
    reference_from: tuple[str, ...]
    vector_map_from: tuple[str, ...]
    change_mask_from: tuple[str, ...]
    class_table: str | None
    legend: str | None
    without: tuple[str, ...]
    sampler: str | None
    style: str | None
    style_sample: bool


def find_lpips(options: Options, device: str) -> LpipsSqueeze | None:
    """Return the module; None when nobody named weights and the default has none."""
    from rsupres.evaluation.lpips import ENVIRONMENT, LpipsSqueeze, find_weights

    try:
        folder = find_weights(options.lpips_weights)
    except CheckpointError as error:
        if options.lpips_weights is not None or os.environ.get(ENVIRONMENT):
            raise
        logger.info("No LPIPS: %s", error)
        return None
    return LpipsSqueeze.load(folder).to(device)
