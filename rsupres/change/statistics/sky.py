"""Find clouds and their shadows in the later of two images, by what all bands do.

A cloud is a wide part with soft edges where all bands rise, its shadow, where there are
clouds, a wide part where all bands fall. Works on arrays, on cells of `STEP` pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rsupres.change.statistics.null_distribution import Floats
from rsupres.grid import PixelWindow

Mask = NDArray[np.bool_]

STEP = 2  # pixels along a cell in which clouds are looked for
_RAISED = 1.0  # deviations of unchanged ground by which all bands differ under clouds
_WIDE, _GROWN = 2, 4  # cells, radii of what is wide and of the surroundings of clouds
_MIN_CLOUD, _SOFT = 125, 2.0  # cells, and cells over cells of half the upper quartile


@dataclass(frozen=True)
class Relation:
    """Linear relation of unchanged ground between two images, by band.

    Attributes:
        gains: (c,), of the earlier band.
        offsets: (c,).
        deviations: (c,), of what is left.
    """

    gains: Floats
    offsets: Floats
    deviations: Floats

    @classmethod
    def fit(cls, x: Floats, y: Floats, weights: Floats) -> Relation:
        """Return the relation, fitted by moments.

        Args:
            x: (c, n), bands of the earlier image.
            y: (c, n), bands of the later image.
            weights: (n,), chance of each pixel to be unchanged.
        """
        total = weights.sum()
        means = [(part @ weights / total)[:, np.newaxis] for part in (x, y)]
        spreads = [
            np.sqrt(np.maximum((part - mean) ** 2 @ weights / total, 1e-12))
            for part, mean in zip((x, y), means, strict=True)
        ]
        gains = spreads[1] / spreads[0]
        offsets = means[1][:, 0] - gains * means[0][:, 0]
        rest = y - gains[:, np.newaxis] * x - offsets[:, np.newaxis]
        return cls(
            gains, offsets, np.sqrt(np.maximum(rest**2 @ weights / total, 1e-12))
        )

    def apart(self, x: Floats, y: Floats) -> Floats:
        """Return (c, h, w): y minus what x lets expect, in deviations.

        Args:
            x: (c, h, w), bands of the earlier image.
            y: (c, h, w), bands of the later image.
        """
        column = np.s_[:, np.newaxis, np.newaxis]
        expected = self.gains[column] * x + self.offsets[column]
        return np.asarray((y - expected) / self.deviations[column])


@dataclass(frozen=True)
class Sky:
    """Where clouds and their shadows are.

    Attributes:
        cells: (rows, cols) of the whole frame.
    """

    cells: Mask

    def read(self, place: PixelWindow) -> Mask:
        """Return (h, w) of a window whose corner is at a multiple of `STEP`."""
        top, left = place.row // STEP, place.col // STEP
        rows, cols = -(-place.height // STEP), -(-place.width // STEP)
        sky = self.cells[top : top + rows, left : left + cols]
        sky = sky.repeat(STEP, 0).repeat(STEP, 1)
        return np.asarray(sky[: place.height, : place.width])


class SkyFinder:
    """Collects the windows of two images, and finds clouds and shadows in the whole."""

    def __init__(self, frame: PixelWindow, relation: Relation) -> None:
        height, width = -(-frame.height // STEP), -(-frame.width // STEP)
        self._higher, self._lower = np.zeros((2, height, width), np.float32)
        self._relation = relation

    def add(
        self, place: PixelWindow, before: Floats, after: Floats, valid: Mask
    ) -> None:
        """Take a window.

        Args:
            place: the window; its corner is at a multiple of `STEP`.
            before: (c, h, w), bands of the earlier image, finite.
            after: (c, h, w), bands of the later image.
            valid: (h, w), where both are known.
        """
        cells = _cells(self._relation.apart(before, after) * valid)
        part = (
            slice(place.row // STEP, place.row // STEP + cells.shape[1]),
            slice(place.col // STEP, place.col // STEP + cells.shape[2]),
        )
        self._higher[part], self._lower[part] = cells.min(0), -cells.max(0)

    def find(self) -> Sky:
        """Return clouds and shadows in all windows that were taken."""
        return Sky(find_sky(self._higher, self._lower))


def find_sky(higher: NDArray[np.float32], lower: NDArray[np.float32]) -> Mask:
    """Return where clouds and their shadows are.

    Args:
        higher: (h, w), how far all bands rose at least, in deviations.
        lower: how far all fell at least.
    """
    from scipy import ndimage

    clouds = [
        part
        for part in _wide_parts(higher)
        if part.size >= _MIN_CLOUD and part.softness >= _SOFT
    ]
    sky = np.zeros(higher.shape, bool)
    if not clouds:
        return sky
    smallest = min(part.size for part in clouds)
    shadows = [part for part in _wide_parts(lower) if part.size >= smallest / 2]
    for part in clouds + shadows:
        sky[part.box] |= part.inside
    return np.asarray(ndimage.binary_dilation(sky, _disk(_GROWN)))


class _Part(NamedTuple):
    """A connected part of a scene.

    Attributes:
        box: rows and columns around it.
        inside: (h, w) of the box, where it is.
        size: its cells.
        softness: its cells over those that reach half of its upper quartile; little
            more than 1 where edges are sharp.
    """

    box: tuple[slice, slice]
    inside: Mask
    size: int
    softness: float


def _wide_parts(rise: NDArray[np.float32]) -> list[_Part]:
    """Return the parts that rise and hold a disk of `_WIDE` cells."""
    from scipy import ndimage

    raised = rise > _RAISED
    labels, _ = ndimage.label(raised)
    boxes = ndimage.find_objects(labels)
    wide = np.unique(labels[ndimage.binary_opening(raised, _disk(_WIDE))])
    parts = []
    for label in wide[wide > 0]:
        box = boxes[label - 1]
        inside = labels[box] == label
        values = rise[box][inside]
        half = int((values > 0.5 * np.quantile(values, 0.75)).sum())
        parts.append(_Part(box, inside, values.size, values.size / max(1, half)))
    return parts


def _cells(values: Floats) -> Floats:
    """Return means over cells, (c, h, w) to (c, ceil(h / 2), ceil(w / 2))."""
    rows, cols = (side % STEP for side in values.shape[1:])
    whole = np.pad(values, ((0, 0), (0, rows), (0, cols)), mode="edge")
    count, height, width = whole.shape
    shape = (count, height // STEP, STEP, width // STEP, STEP)
    return np.asarray(whole.reshape(shape).mean((2, 4)))


def _disk(radius: int) -> Mask:
    rows, cols = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    return np.asarray(np.hypot(rows, cols) <= radius + 0.3)
