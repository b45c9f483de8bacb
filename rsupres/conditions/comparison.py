"""Compare a reference with its scene: where it lies off, and which contrast it has.

Both are read on the same windows of the LR grid, spread evenly over the scene. Which
files make the reference is the job of `rsupres.conditions.references`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rsupres.conditions.base import TargetScene
from rsupres.errors import ConditionError
from rsupres.grid import PixelWindow, ceil_div
from rsupres.raster.place.registration import CommonShift, Shift, find_common_shift
from rsupres.raster.stretch import Stretch

logger = logging.getLogger(__name__)

FloatArray = NDArray[np.float32]

N_WINDOWS = 3  # along each axis, at most
WINDOW_SIDE = 256  # LR pixels of a window
MIN_SIDE = 24  # LR pixels; smaller windows show no displacement
MAX_SOURCE_SIDE = 2048  # reference pixels that one window takes, along a side
MIN_VALID = 0.25  # share of a window that both images must cover
WARN_SHIFT = 0.5  # LR pixels


class CommonWindow(NamedTuple):
    """Both images on one window of the LR grid.

    Attributes:
        reference: (c, h, w) in [0, 1], 0 where invalid.
        scene: (c, h, w) in [0, 1], 0 where invalid.
        valid: (h, w), where both are known.
    """

    reference: FloatArray
    scene: FloatArray
    valid: NDArray[np.bool_]


def read_common_windows(
    frame: TargetScene,
    ratio: float,
    read_reference: Callable[[PixelWindow], FloatArray],
) -> Iterator[CommonWindow]:
    """Yield windows of the LR grid that both images cover.

    Args:
        frame: the scene.
        ratio: reference pixels along one LR pixel; limits what one window reads.
        read_reference: returns (c, h, w) in [0, 1] on a window of LR pixels, NaN where
            nothing is known.
    """
    side = max(MIN_SIDE, min(WINDOW_SIDE, int(MAX_SOURCE_SIDE / ratio)))
    height, width = frame.scene.grid.height, frame.scene.grid.width
    if min(height, width) < MIN_SIDE:
        return
    n_rows, n_cols = (
        min(N_WINDOWS, ceil_div(length, side)) for length in (height, width)
    )
    window = PixelWindow(0, 0, min(side, height), min(side, width))
    for row in range(n_rows):
        for col in range(n_cols):
            place = window._replace(
                row=(height - window.height) * row // max(1, n_rows - 1),
                col=(width - window.width) * col // max(1, n_cols - 1),
            )
            dn, scene_valid = frame.scene.read(place, frame.bands)
            unit = np.clip(frame.stretch.to_unit(dn), 0, 1)
            reference = read_reference(place)
            valid = scene_valid[0] & np.isfinite(reference).all(axis=0)
            if np.count_nonzero(valid) >= valid.size * MIN_VALID:
                yield CommonWindow(
                    np.where(valid, reference, 0), np.where(valid, unit, 0), valid
                )


def measure_displacement(
    windows: Sequence[CommonWindow], frame: TargetScene, *, coregister: bool
) -> Shift | None:
    """Return by how many LR pixels the reference lies off; None when unknown.

    A displacement above `WARN_SHIFT` that is not corrected is logged as a warning.

    Args:
        windows: of both images.
        frame: the scene.
        coregister: the displacement will be corrected.

    Raises:
        ConditionError: `coregister`, but the displacement cannot be measured.
    """
    common: CommonShift = find_common_shift(windows)
    if not common.is_known:
        if coregister:
            raise ConditionError(
                "cannot be done: the displacement of the reference cannot be measured "
                f"({common.n_windows} places, no agreement); leave it out.",
                argument="coregister",
            )
        logger.info("The displacement of the reference could not be measured.")
        return None
    shift = common.shift
    length = math.hypot(*shift)
    is_worth_a_warning = length > WARN_SHIFT and not coregister
    logger.log(
        logging.WARNING if is_worth_a_warning else logging.INFO,
        "The reference lies %+.2f LR pixels down and %+.2f right of the scene (%.2g m; "
        "%d of %d places agree)%s.",
        shift.row,
        shift.col,
        length * frame.scene.grid.gsd_m,
        common.n_agree,
        common.n_windows,
        "; corrected" if coregister else "",
        extra={"remedies": ("coregister",)} if is_worth_a_warning else None,
    )
    return shift


def match_contrast(windows: Sequence[CommonWindow], stretch: Stretch) -> Stretch:
    """Return the stretch that gives the scene mean and contrast of the reference.

    Args:
        windows: of both images; without any the stretch stays as it is.
        stretch: of the scene.
    """
    if not windows:
        return stretch
    reference, scene = (
        np.concatenate([window[which][:, window.valid] for window in windows], axis=1)
        for which in (0, 1)
    )
    low, high = [], []
    for wanted, own, bottom, top in zip(
        reference, scene, stretch.low, stretch.high, strict=True
    ):
        spread = float(own.std(dtype=np.float64))
        gain = float(wanted.std(dtype=np.float64)) / spread if spread > 0 else 1.0
        gain = gain if gain > 0 else 1.0
        mean = float(wanted.mean(dtype=np.float64))
        bias = mean - gain * float(own.mean(dtype=np.float64))
        span = top - bottom
        # gain * (dn - bottom) / span + bias is 0 and 1 at these two.
        low.append(bottom - bias * span / gain)
        high.append(bottom + (1 - bias) * span / gain)
    return Stretch(tuple(low), tuple(high))
