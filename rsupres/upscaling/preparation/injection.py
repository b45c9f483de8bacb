"""Measure how much of the model's detail goes into bands that the model does not take.

Used when other bands are to be sharpened by injection: their fine structure is that of
the model's bands times a factor, which is measured once for the scene. Reads windows of
an open scene; writes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

import numpy as np

from rsupres.grid import PixelWindow
from rsupres.raster.bands import BandChoice
from rsupres.raster.dataset import Raster
from rsupres.raster.stretch import Stretch

logger = logging.getLogger(__name__)

_WINDOW = 128  # LR pixels along the windows that are read
_WINDOWS_ALONG = 8  # of them along each axis


def find_gains(scene: Raster, bands: BandChoice, stretch: Stretch) -> tuple[float, ...]:
    """Return per other band the slope of its fine structure over the model's.

    Least squares through the origin on the pixels' differences from the mean of their
    3 x 3 surroundings, over windows spread evenly; limited to [-2, 2].

    Args:
        scene: open.
        bands: of the model, and the other ones.
        stretch: of all bands.
    """
    if not bands.others:
        return ()
    n_model = len(bands.roles)
    products = np.zeros(len(bands.others))
    power = 0.0
    for window in _spread_windows(scene.grid.height, scene.grid.width):
        dn, valid = scene.read(window, bands.roles + bands.others)
        unit = np.where(valid, stretch.to_unit(dn), 0).astype(np.float64)
        fine = unit[:, 1:-1, 1:-1] - _mean3(unit)
        fine *= _mean3(valid.astype(np.float64)) > 0.999
        luminance = fine[:n_model].mean(axis=0)
        power += float(np.square(luminance).sum())
        products += (fine[n_model:] * luminance).sum(axis=(1, 2))
    gains = np.clip(products / power, -2.0, 2.0) if power > 0 else products * 0.0
    logger.info(
        "Detail of other bands: gains %s.", ", ".join(f"{g:.3g}" for g in gains)
    )
    return tuple(float(gain) for gain in gains)


def _spread_windows(height: int, width: int) -> Iterator[PixelWindow]:
    side = _WINDOWS_ALONG
    tall, wide = min(height, _WINDOW), min(width, _WINDOW)
    rows = sorted({(height - tall) * i // (side - 1) for i in range(side)})
    cols = sorted({(width - wide) * i // (side - 1) for i in range(side)})
    for row in rows:
        for col in cols:
            yield PixelWindow(row, col, tall, wide)


def _mean3(unit: np.ndarray) -> np.ndarray:
    """Return the means over 3 x 3 of (c, h, w), without the outermost pixels."""
    rows = unit[:, :-2] + unit[:, 1:-1] + unit[:, 2:]
    return np.asarray((rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]) / 9)
