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

import numpy as np
from numpy.typing import NDArray

from rsupres.change.statistics.null_distribution import Floats
from rsupres.change.statistics.sky import Mask, Relation, Sky, SkyFinder
from rsupres.grid import PixelWindow

Read = Callable[[PixelWindow], NDArray[np.float32]]

MARGIN = 20  # pixels around a window that decide over it
_FINE, _NEAR = 2.0, 2.5  # pixels, deviations: of fine structure, of its neighbourhood
_SIMILAR = 0.7  # correlation of structure above which nothing was built
_WATER = 0.15  # NDWI above it
_THIN = 2  # every so many pixels tell the threshold of vegetation


@dataclass(frozen=True)
class BuiltUp:
    """Findings on two whole images, which all windows share.

    Attributes:
        roles: places of red, green and near infrared among the later image's bands.
        vegetation: NDVI above which ground is not bare.
        spreads: deviations of the fine structure of all bands, earlier, then later.
        sky: where clouds and their shadows are.
    """

    roles: tuple[int, int, int]
    vegetation: float
    spreads: Floats
    sky: Sky

    def may_be(self, both: Floats, wide: PixelWindow, place: PixelWindow) -> Mask:
        """Return where something may have been built, for a window.

        Args:
            both: (2 c, h, w) bands of both images in `wide`, 0 where unknown.
            wide: the window with `MARGIN` pixels around it, as far as there are.
            place: the window; its corner is at a multiple of `sky.STEP`.
        """
        inner = place.relative_to(wide).slices()
        after = both[len(both) // 2 :, *inner]
        red, green, infrared = (after[k] for k in self.roles)
        bare = _index(infrared, red) < self.vegetation
        dry = _index(green, infrared) < _WATER
        same = _correlation(both, self.spreads)[inner] >= _SIMILAR
        return np.asarray(bare & dry & ~same & ~self.sky.read(place))


def find_built_up(
    frame: PixelWindow,
    places: Sequence[PixelWindow],
    read: Read,
    roles: tuple[int, int, int],
    relation: Relation,
) -> BuiltUp:
    """Return what both images together say, seen once, window by window.

    Args:
        frame: of the images, from (0, 0).
        places: windows that cover it; their corners are multiples of `sky.STEP`.
        read: returns (2 c, h, w), the bands of both images, NaN where unknown.
        roles: places of red, green and near infrared among the later image's bands.
        relation: between the images.
    """
    sky = SkyFinder(frame, relation)
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
        greens.append(_index(infrared, red)[valid[inner]][:: _THIN**2])
        sky.add(place, before, after, valid[inner])
    vegetation = otsu(np.maximum(np.concatenate(greens), 0.0))
    spreads = np.sqrt(np.maximum(squares / max(1, count), 1e-12))
    return BuiltUp(roles, vegetation, spreads, sky.find())


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
