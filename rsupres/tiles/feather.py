"""Weigh tiles where they overlap, so that one fades into the next."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rsupres.grid import PixelWindow


def feathered(
    place: PixelWindow, places: Sequence[PixelWindow]
) -> tuple[np.ndarray, np.ndarray]:
    """Return a tile's weights along rows and columns.

    A side that other tiles cross gets a ramp over the deepest such overlap, at most
    half the tile; other sides none. Weights stay above 0, so every pixel is covered.
    """
    others = [other for other in places if other != place and other.intersection(place)]
    rows = _axis_weights(
        place.height,
        [_depth(o.row, o.row_stop, place.row, place.row_stop) for o in others],
    )
    cols = _axis_weights(
        place.width,
        [_depth(o.col, o.col_stop, place.col, place.col_stop) for o in others],
    )
    return rows, cols


def _depth(start: int, stop: int, own_start: int, own_stop: int) -> tuple[int, int]:
    """Return how deep a neighbour reaches in over the first and the last side.

    A neighbour faces a side when it begins before it and ends inside the tile.
    """
    first = stop - own_start if start < own_start and stop < own_stop else 0
    last = own_stop - start if start > own_start and stop > own_stop else 0
    return first, last


def _axis_weights(length: int, depths: Sequence[tuple[int, int]]) -> np.ndarray:
    weights = np.ones(length)
    for side in (0, 1):
        ramp = min(max((depth[side] for depth in depths), default=0), length)
        if ramp:
            centre = (np.arange(ramp) + 0.5) / ramp
            rise = 0.5 - 0.5 * np.cos(np.pi * centre)
            if side == 0:
                weights[:ramp] *= rise
            else:
                weights[-ramp:] *= rise[::-1]
    return weights
