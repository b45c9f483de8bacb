"""Make the raster that says where the model had a reference.

Pixels without a reference are upscaled without one and are less sharp. Pixels that were
filled with the enlarged scene count as without, because they hold no texture to take.
This module reads; `rsupres.upscaling.pipeline` writes the strips.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from rsupres.grid import PixelWindow
from rsupres.output.profile import OutputFormat, OutputMeta

if TYPE_CHECKING:
    from rsupres.conditions.references import References
    from rsupres.upscaling.work import Work

FALLBACK, COVERED, NODATA = 0, 1, 255
NAMES = {FALLBACK: "no reference", COVERED: "reference"}
_COLOURS = {FALLBACK: (215, 48, 39), COVERED: (26, 152, 80), NODATA: (0, 0, 0)}
_SIDE = 2048  # SR columns that are looked at together


def strip_coverage(
    work: Work, window: PixelWindow, valid: NDArray[np.bool_] | None
) -> NDArray[np.uint8]:
    """Return (1, H, W): `COVERED`, `FALLBACK`, or `NODATA` outside the scene.

    Args:
        work: a settled job with a reference.
        window: SR pixels of the output.
        valid: (1, H, W), of the scene there; None = everywhere.
    """
    reference = cast("References", work.conditions.sources["reference"]).unfilled()
    coverage = np.full((1, window.height, window.width), FALLBACK, np.uint8)
    for left in range(0, window.width, _SIDE):
        width = min(_SIDE, window.width - left)
        part = window._replace(col=window.col + left, width=width)
        known = np.isfinite(reference.read(part)).all(axis=0)
        coverage[0, :, left : left + width][known] = COVERED
    if valid is not None:
        coverage[~valid] = NODATA
    return coverage


def coverage_format(work: Work) -> OutputFormat:
    """Return how the raster is stored: without loss, whatever the output's options."""
    return OutputFormat(work.format.driver, {}, "uint8", float(NODATA))


def coverage_meta(work: Work, tags: Mapping[str, str]) -> OutputMeta:
    """Return what the raster says besides its values."""
    told = {
        "RSUPRES_CONTENT": "where the model had a reference",
        "RSUPRES_CLASSES": json.dumps(NAMES),
    }
    return OutputMeta.of_classes(
        "reference coverage", work.output_grid, _COLOURS, {**tags, **told}
    )
