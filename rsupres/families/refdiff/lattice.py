"""Fits of a reference over a whole scene, on a coarse lattice that all tiles share.

Each node is fitted in a window around it (`rsupres.families.refdiff.fitting`); between
nodes the fits are interpolated by absolute position, so tiles agree.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from rsupres.families.base import SceneContext
from rsupres.families.refdiff.fitting import SEARCHED, Fit, find_fit
from rsupres.families.refdiff.images import enlarge_lr, is_changed
from rsupres.grid import PixelWindow, ceil_div

if TYPE_CHECKING:
    from rsupres.families.base import SceneReader
    from rsupres.families.refdiff.config import RefDiffConfig

logger = logging.getLogger(__name__)

WINDOW = 64  # LR pixels of the window around a node
_STEP = 48  # LR pixels between nodes, at most
_NAMES = ("fit", "fit_rows", "fit_cols")
_STRANGE = 0.15  # a share below it on most of the scene: another place, or hidden


def fit_scene(
    scene: SceneReader, scale: Fraction, config: RefDiffConfig
) -> SceneContext:
    """Return the fits of a scene with a reference.

    Args:
        scene: LR pixels and reference, read by windows.
        scale: SR pixels along one LR pixel.
        config: of the model.

    Returns:
        array ``fit`` (4, n, m): rows, columns, share and energy of `Fit` at the nodes;
        ``fit_rows`` (n,) and ``fit_cols`` (m,): where these are, LR pixels.
    """
    rows, cols = _starts(scene.height), _starts(scene.width)
    height, width = min(WINDOW, scene.height), min(WINDOW, scene.width)
    fits = scene.allocate(_NAMES[0], (4, len(rows), len(cols)), "float32")
    for i, row in enumerate(rows):
        for j, col in enumerate(cols):
            window = PixelWindow(row, col, height, width)
            fits[:, i, j] = _fit_window(scene, window, scale, config)
    places = []
    for name, starts, side in zip(
        _NAMES[1:], (rows, cols), (height, width), strict=True
    ):
        nodes = scene.allocate(name, (len(starts),), "float32")
        nodes[:] = np.array(starts) + side / 2
        places.append(nodes)
    _tell(fits)
    return SceneContext(dict(zip(_NAMES, (fits, *places), strict=True)))


def fit_of_tiles(
    context: SceneContext,
    windows: Sequence[PixelWindow],
    scale: Fraction,
    device: torch.device,
) -> Fit | None:
    """Return the fits at the pixels of tiles; None where a scene has none.

    Args:
        context: of the scene.
        windows: of the tiles, LR pixels, all of one size.
        scale: SR pixels along one LR pixel.
        device: of the result.
    """
    if _NAMES[0] not in context.arrays:
        return None
    fits, rows, cols = (np.asarray(context.arrays[name]) for name in _NAMES)
    fine = [_on_pixels(fits[:2], rows, cols, window, scale) for window in windows]
    coarse = [
        _on_pixels(fits[2:], rows, cols, window, Fraction(1)) for window in windows
    ]
    moved, trusted = (
        torch.from_numpy(np.stack(part)).to(device) for part in (fine, coarse)
    )
    return Fit(moved[:, :1], moved[:, 1:], trusted[:, :1], trusted[:, 1:])


def _on_pixels(
    values: np.ndarray,
    rows: np.ndarray,
    cols: np.ndarray,
    window: PixelWindow,
    scale: Fraction,
) -> np.ndarray:
    """Return (k, n, m) values at nodes, bilinearly, at a window's SR pixels."""
    height, width = (int(side * scale) for side in (window.height, window.width))
    down = window.row + (np.arange(height) + 0.5) / float(scale)
    right = window.col + (np.arange(width) + 0.5) / float(scale)
    along = _weights(rows, down) @ values.astype(np.float64)
    found = along @ _weights(cols, right).T
    return np.asarray(found, np.float32)


def _weights(nodes: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return (len(places), len(nodes)): bilinear, the end values beyond the ends."""
    units = np.eye(len(nodes))
    return np.stack([np.interp(places, nodes, unit) for unit in units], axis=1)


def _fit_window(
    scene: SceneReader, window: PixelWindow, scale: Fraction, config: RefDiffConfig
) -> list[float]:
    pixels, _ = scene.read(window)
    lr = torch.from_numpy(np.ascontiguousarray(pixels))[None]
    given = scene.read_conditions(window.scaled(scale))
    reference, valid = given.reference, given.reference_valid
    if reference is None or valid is None:
        return [0.0, 0.0, 0.0, 0.0]
    size = (reference.shape[2], reference.shape[3])
    reference = torch.where(valid, reference, enlarge_lr(lr, size, config.lr_kernel))
    changed = given.change_mask
    use: Tensor = valid if changed is None else valid & ~is_changed(changed)
    with torch.inference_mode():
        return [float(part) for part in find_fit(lr, reference, use, scale)]


def _starts(length: int) -> list[int]:
    """Return where the windows begin: evenly, none of them cut."""
    room = max(0, length - WINDOW)
    n = ceil_div(room, _STEP) + 1
    return [room * k // max(1, n - 1) for k in range(n)]


def _tell(fits: np.ndarray) -> None:
    """Log how the reference was moved; warn where it shows another place."""
    length = float(np.hypot(fits[0], fits[1]).max())
    share = float(np.median(fits[2]))
    logger.info(
        "The reference was moved by up to %.1f of at most %d SR pixels; the scene"
        " confirms %.0f %% of its detail.",
        length,
        SEARCHED,
        100 * min(share, 1.0),
    )
    if share < _STRANGE:
        logger.warning(
            "The scene confirms little of the reference's detail (%.0f %%), so the"
            " result takes little from it. Does it show the same place?",
            100 * share,
            extra={"remedies": ("reference",)},
        )
