"""Weigh and sum tiles where they overlap, so that one fades into the next."""

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

    Args:
        place: pixels of the tile in the mosaic.
        places: pixels of all tiles.
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
    """Return how deep a neighbour reaches in over the first and the last side."""
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


class BlendedRows:
    """Rows of the result while tiles are added: weighted sums and numbers in agreement.

    A stored number is kept while every valid tile has the same one; that of an invalid
    pixel is kept until a valid one comes. Each band counts for itself, or all together
    where a mask says which pixels are valid. Of bands of codes, the number of the tile
    with the largest weight is kept, as numbers between codes mean nothing.
    """

    def __init__(
        self,
        n_bands: int,
        window: PixelWindow,
        dtype: str,
        *,
        is_joint: bool,
        codes: Sequence[int] = (),
    ) -> None:
        shape = (n_bands, window.height, window.width)
        planes = (1, *shape[1:]) if is_joint else shape
        self.total = np.zeros(shape)
        self.weight = np.zeros(planes)
        self.stored = np.zeros(shape, dtype)
        self.seen = np.zeros(planes, bool)
        self.differs = np.zeros(planes, bool)
        self.heaviest = {band: np.zeros(shape[1:]) for band in codes}

    def add(
        self,
        place: tuple[slice, slice],
        dn: np.ndarray,
        valid: np.ndarray,
        usable: np.ndarray,
        weights: np.ndarray,
    ) -> None:
        """Add a part of a tile.

        Args:
            place: in these rows.
            dn: (c, h, w), as stored.
            valid: where it is measured; (c, h, w), or (1, h, w) where bands are joint.
            usable: where the stored numbers may stand in the result; as `valid`.
            weights: (h, w) of the pixels.
        """
        at = (slice(None), *place)
        held, known = self.stored[at], self.weight[at] > 0
        other = dn != held
        if len(valid) < len(dn):
            other = other.any(axis=0, keepdims=True)
        self.differs[at] |= known & valid & other
        takes = (valid & ~known) | (usable & ~self.seen[at])
        np.copyto(held, dn, where=takes)
        self.seen[at] |= usable
        weighted = weights * valid
        self.total[at] += np.where(valid, dn, 0) * weighted
        self.weight[at] += weighted
        for band, heaviest in self.heaviest.items():
            there = valid[band if len(valid) > 1 else 0]
            wins = there & (weights > heaviest[place])
            np.copyto(held[band], dn[band], where=wins)
            np.copyto(heaviest[place], weights, where=wins)
