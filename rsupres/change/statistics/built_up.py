"""Keep only detected changes that look like new buildings or building sites.

Change detection finds all that differs: harvests, clouds and their shadows too. A
changed pixel is kept when it passes three tests of its surroundings:

- the later image is bare there: little vegetation (NDVI below Otsu's threshold for the
  scene) and no water (NDWI);
- the fine structure changed: its local correlation between the dates is low. Fields
  have little fine structure, and other light does not move it, so both fail this test;
- it is neither a cloud (a wide part with soft edges where all bands rise) nor, where
  there are clouds, a shadow (a wide part where all bands fall).

Needs red, green and near infrared. Works on arrays; `rsupres.change.images` reads them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rsupres.change.statistics.null_distribution import Floats
from rsupres.grid import PixelWindow

Mask = NDArray[np.bool_]
Read = Callable[[PixelWindow], NDArray[np.float32]]

MARGIN = 20  # pixels around a window that decide over it
_FINE, _NEAR = 2.0, 2.5  # pixels, deviations: of fine structure, of its neighbourhood
_SIMILAR = 0.7  # correlation of structure above which nothing was built
_WATER = 0.15  # NDWI above it
_STEP = 2  # pixels along a cell in which clouds are looked for
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
        """Fit the relation by moments.

        Args:
            x: (c, n), bands of the earlier image.
            y: (c, n), bands of the later image.
            weights: (n,), chance of each pixel to be unchanged.

        Returns:
            The relation.
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
class BuiltUp:
    """Findings on two whole images, which all windows share.

    Attributes:
        roles: places of red, green and near infrared among the later image's bands.
        vegetation: NDVI above which ground is not bare.
        spreads: deviations of the fine structure of all bands, earlier, then later.
        sky: where clouds and their shadows are, on cells of `_STEP` pixels.
    """

    roles: tuple[int, int, int]
    vegetation: float
    spreads: Floats
    sky: Mask

    def may_be(self, both: Floats, wide: PixelWindow, place: PixelWindow) -> Mask:
        """Return where something may have been built, for a window.

        Args:
            both: (2 c, h, w) bands of both images in `wide`, 0 where unknown.
            wide: the window with `MARGIN` pixels around it, as far as there are.
            place: the window; its corner is at a multiple of `_STEP`.
        """
        inner = place.relative_to(wide).slices()
        after = both[len(both) // 2 :, *inner]
        red, green, infrared = (after[k] for k in self.roles)
        bare = _index(infrared, red) < self.vegetation
        dry = _index(green, infrared) < _WATER
        same = _correlation(both, self.spreads)[inner] >= _SIMILAR
        top, left = place.row // _STEP, place.col // _STEP
        rows, cols = -(-place.height // _STEP), -(-place.width // _STEP)
        sky = self.sky[top : top + rows, left : left + cols]
        sky = sky.repeat(_STEP, 0).repeat(_STEP, 1)[: place.height, : place.width]
        return np.asarray(bare & dry & ~same & ~sky)


def find_built_up(
    frame: PixelWindow,
    places: Sequence[PixelWindow],
    read: Read,
    roles: tuple[int, int, int],
    relation: Relation,
) -> BuiltUp:
    """Look at both images once, window by window.

    Args:
        frame: of the images, from (0, 0).
        places: windows that cover it; their corners are multiples of `_STEP`.
        read: returns (2 c, h, w), the bands of both images, NaN where unknown.
        roles: places of red, green and near infrared among the later image's bands.
        relation: between the images.

    Returns:
        What both images together say: see `BuiltUp`.
    """
    height, width = -(-frame.height // _STEP), -(-frame.width // _STEP)
    higher, lower = np.zeros((2, height, width), np.float32)
    squares, count, greens = 0.0, 0, []
    for place in places:
        wide = place.grown(MARGIN, frame)
        inner = place.relative_to(wide).slices()
        values = read(wide).astype(np.float64)
        valid = np.isfinite(values[0])
        both = np.where(valid, values, 0.0)
        fine = _fine(both)[:, *inner][:, valid[inner]]
        squares, count = squares + (fine**2).sum(1), count + fine.shape[1]
        before, after = np.split(both[:, *inner], 2)
        red, _, infrared = (after[k] for k in roles)
        greens.append(_index(infrared, red)[valid[inner]][:: _STEP**2])
        apart = relation.apart(before, after) * valid[inner]
        cells = _cells(apart)
        part = (
            slice(place.row // _STEP, place.row // _STEP + cells.shape[1]),
            slice(place.col // _STEP, place.col // _STEP + cells.shape[2]),
        )
        higher[part], lower[part] = cells.min(0), -cells.max(0)
    vegetation = otsu(np.maximum(np.concatenate(greens), 0.0))
    spreads = np.sqrt(np.maximum(squares / max(1, count), 1e-12))
    return BuiltUp(roles, vegetation, spreads, find_sky(higher, lower))


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


def otsu(values: Floats) -> float:
    """Return the threshold that parts values best into two classes (Otsu 1979)."""
    counts, edges = np.histogram(values, 256)
    centres = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)[:-1]
    above = counts.sum() - below
    sums = np.cumsum(counts * centres)
    with np.errstate(invalid="ignore", divide="ignore"):
        gap = sums[:-1] / below - (sums[-1] - sums[:-1]) / above
        return float(edges[1:-1][np.nanargmax(below * above * gap**2)])


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


def _correlation(both: Floats, spreads: Floats) -> Floats:
    """Return the local correlation of fine structure, (h, w)."""
    fine = _fine(both) / spreads[:, np.newaxis, np.newaxis]
    one, other = np.split(fine, 2)
    squares = _near((one**2).mean(0)) * _near((other**2).mean(0))
    return np.asarray(_near((one * other).mean(0)) / np.sqrt(squares + 1e-9))


def _fine(both: Floats) -> Floats:
    from scipy import ndimage

    return np.asarray(
        both - ndimage.gaussian_filter(both, (0, _FINE, _FINE), truncate=3.0)
    )


def _near(values: Floats) -> Floats:
    from scipy import ndimage

    return np.asarray(ndimage.gaussian_filter(values, _NEAR, truncate=4.0))


def _index(one: Floats, other: Floats) -> Floats:
    """Return the normalised difference."""
    return np.asarray((one - other) / np.maximum(one + other, 1e-6))


def _cells(values: Floats) -> Floats:
    """Return means over cells, (c, h, w) to (c, ceil(h / 2), ceil(w / 2))."""
    rows, cols = (side % _STEP for side in values.shape[1:])
    whole = np.pad(values, ((0, 0), (0, rows), (0, cols)), mode="edge")
    count, height, width = whole.shape
    shape = (count, height // _STEP, _STEP, width // _STEP, _STEP)
    return np.asarray(whole.reshape(shape).mean((2, 4)))


def _disk(radius: int) -> Mask:
    rows, cols = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    return np.asarray(np.hypot(rows, cols) <= radius + 0.3)
