"""Warn of pixels that an output loses, or takes for measurements."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from rsupres.raster.dataset import Raster
from rsupres.raster.stretch import Stretch

_FLOAT_BITS = 24  # of the numbers between 0 and 1 in which models compute
_SAMPLE_PIXELS = 250_000  # of a scene, for the share that one band lacks

logger = logging.getLogger(__name__)


def warn_of_idle_nodata(scene: Raster, nodata: float | None) -> None:
    """Warn when a nodata value is asked for, but no pixel of the scene is invalid.

    Args:
        scene: open; a sample of floats is read, which may be NaN.
        nodata: of the output, as the user gave it; None = not given.
    """
    if nodata is None or scene.nodata is not None or scene.has_mask:
        return
    if np.dtype(scene.dtype).kind == "f":
        _, valid = scene.read_decimated(scene.data_bands, _SAMPLE_PIXELS)
        if not valid.all():
            return
    logger.warning(
        "nodata %g: %s declares no nodata value and has no mask, so that no pixel "
        "becomes nodata, and measured pixels of this value become the next one. It is "
        "another option that says which pixels hold no measurement.",
        nodata,
        scene.path,
        extra={"remedies": (f"input_nodata={nodata:g}",)},
    )


def warn_of_rounding(scene: Raster, stretch: Stretch, dtype: str) -> None:
    """Warn when numbers of the scene are too far apart to be kept to the last digit.

    Args:
        scene: open.
        stretch: of the bands that are interpolated.
        dtype: numpy name of the output's type.
    """
    if np.can_cast(np.dtype(dtype), np.float32) or np.dtype(dtype).kind == "f":
        return
    span = max(np.subtract(stretch.high, stretch.low), default=0)
    if span > 1 << _FLOAT_BITS:
        logger.warning(
            "%s: its numbers span %.3g, of which %d bits are kept, so that numbers "
            "change by up to %d even where nothing is enlarged.",
            scene.path,
            span,
            _FLOAT_BITS,
            math.ceil(span / (1 << _FLOAT_BITS)),
        )


def warn_of_lost(scene: Raster, joint: Sequence[int], *, has_nodata: bool) -> None:
    """Warn when pixels with numbers are given up as another band has none there.

    Args:
        scene: open; a sample of it is read.
        joint: bands of its file that become invalid together.
        has_nodata: the output has a nodata value, not a mask.
    """
    declared = any(scene.nodata_of(band) is not None for band in joint)
    is_float = np.dtype(scene.dtype).kind == "f"
    if len(joint) < 2 or not (declared or is_float or scene.has_band_masks):
        return
    _, valid = scene.read_decimated(joint, _SAMPLE_PIXELS, joint=0)
    lost = float(np.mean(valid.any(axis=0) & ~valid.all(axis=0)))
    if lost:
        logger.warning(
            "%s: %.2g %% of the pixels are nodata in one band and measured in another; "
            "they become nodata in all of the bands %s. Leave such a band out, or %s.",
            scene.path,
            100 * lost,
            ", ".join(map(str, joint)),
            "mark nodata with a mask" if has_nodata else "give a nodata value",
            extra={"remedies": ("bidx", "other_bands=skip")},
        )


@contextmanager
def without_warnings() -> Iterator[None]:
    """Log no warnings of this package, where they are given at another place, too."""
    ours = logging.getLogger("rsupres")
    before = ours.level
    ours.setLevel(logging.ERROR)
    try:
        yield
    finally:
        ours.setLevel(before)
