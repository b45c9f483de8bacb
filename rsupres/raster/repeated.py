"""Notice scenes that hold less than they seem to: repeated pixels, lossy files.

Enlarging a scene of 2 m that is stored on a grid of 1 m would sharpen the steps between
the copies. Smooth enlargement leaves no such trace and is not noticed here.
"""

from __future__ import annotations

import logging

import numpy as np
from numpy.typing import NDArray

from rsupres.grid import PixelWindow
from rsupres.raster.dataset import Raster

logger = logging.getLogger(__name__)

_FACTORS = (4, 3, 2)
_SIDE = 240  # pixels of the window that is looked at, a multiple of the factors
_SAME = 0.98  # share of neighbours within copies that are equal, at least
_OTHER = 0.9  # share of neighbours of different copies that are equal, at most


def warn_of_repeated(scene: Raster) -> None:
    """Warn when the middle of a scene consists of repeated pixels."""
    grid = scene.grid
    height, width = min(grid.height, _SIDE), min(grid.width, _SIDE)
    window = PixelWindow(
        (grid.height - height) // 2, (grid.width - width) // 2, height, width
    )
    pixels, valid = scene.read(window, scene.data_bands[:1])
    factor = repetition(pixels[0]) if valid.all() else 1
    if factor > 1:
        logger.warning(
            "%s: every pixel stands %d x %d times, so the real pixels are %d times "
            "larger. Reduce the scene to these before, for example by "
            "'gdal_translate -r nearest -outsize %d %d'.",
            *(scene.path, factor, factor, factor),
            *(grid.width // factor, grid.height // factor),
        )


def warn_of_lossy(scene: Raster) -> None:
    """Warn when a scene's file says that its compression changed the pixels."""
    if scene.lossy:
        logger.warning(
            "%s: its file was compressed with loss (%s). What that left in the pixels "
            "may be sharpened as if it were ground; prefer the lossless product.",
            *(scene.path, scene.lossy),
        )


def repetition(pixels: NDArray[np.generic]) -> int:
    """Return how many times pixels (h, w) are repeated along both axes; 1 = not."""
    along = [_repetition_of_columns(image) for image in (pixels, pixels.T)]
    return along[0] if along[0] == along[1] else 1


def _repetition_of_columns(pixels: NDArray[np.generic]) -> int:
    """Return by which factor columns are copies of their left neighbours."""
    if min(pixels.shape) < 4 * max(_FACTORS):
        return 1
    equal = np.mean(pixels[:, 1:] == pixels[:, :-1], axis=0)
    place = np.arange(1, pixels.shape[1])
    for factor in _FACTORS:
        for phase in range(factor):
            is_border = place % factor == phase
            if equal[~is_border].min() >= _SAME and equal[is_border].mean() <= _OTHER:
                return factor
    return 1
