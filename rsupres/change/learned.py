"""Find what was built or removed between two images, by a small network.

The network sees bands as deviations of unchanged ground: each band of each date minus
its mean, over its standard deviation, both weighted by the probability of IR-MAD that a
pixel did not change. Gains, offsets and the season's overall tone cancel so. All bands
take part in the size of the difference, the statistic of IR-MAD for the single pixel.
Clouds and their shadows are left out, see `rsupres.change.statistics.sky`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rsupres.change.detection import Differences
from rsupres.change.statistics.null_distribution import Floats, NullDistribution
from rsupres.change.statistics.sky import Relation, Sky, SkyFinder
from rsupres.checkpoints.catalogue import load_model, read_card
from rsupres.errors import BandError
from rsupres.families.base import SamplerOptions
from rsupres.grid import Grid, PixelWindow
from rsupres.legends.class_table import CHANGED, NODATA, UNCHANGED
from rsupres.raster.bands import choose_bands
from rsupres.raster.dataset import Raster

if TYPE_CHECKING:
    from rsupres.families.siamese import Siamese

Read = Callable[[PixelWindow], NDArray[np.float32]]

_ROLES = ("red", "green", "blue", "nir")
MODEL = "change-small"  # name of the network's card
MIN_LEARNED = 1  # default minimum size of a changed part, pixels
MIN_SHARE = 5e-4  # of the ground: where less is likely, `auto` takes IR-MAD
_LIKELY, _POSSIBLE, _CLEAR = 0.5, 0.15, 1 / 3  # probabilities, and share of the likely
_SAMPLE = 64  # windows from which `auto` decides
_BEYOND = 1.5  # times the pixel sizes of training
_FARTHEST = 6.0  # deviations; values beyond are held there
_LARGEST = 12.0  # deviations of a difference, likewise
_UNIT = 3.0  # deviations of a difference that become 1


@dataclass(frozen=True)
class PairLevels:
    """What unchanged ground looks like at two dates.

    Attributes:
        means: (2 c,), of all bands of the earlier, then of the later image.
        deviations: (2 c,), above 0.
        differences: of the images.
        spread: of the squared differences on unchanged ground.
        roles: place of each colour of the network among the c bands, None = missing.
    """

    means: Floats
    deviations: Floats
    differences: Differences
    spread: float
    roles: tuple[int | None, ...]

    @classmethod
    def fit(
        cls,
        x: Floats,
        y: Floats,
        differences: Differences,
        roles: Sequence[int | None],
    ) -> PairLevels:
        """Return the levels, found from pixels of both images.

        Args:
            x: (c, n), bands of the earlier image, finite.
            y: (c, n), bands of the later image, finite.
            differences: of these images.
            roles: see `PairLevels`.
        """
        weights, spread = unchanged(x, y, differences)
        total = max(float(weights.sum()), 1e-9)
        both = np.concatenate([x, y])
        means = both @ weights / total
        squares = (both - means[:, np.newaxis]) ** 2 @ weights / total
        deviations = np.sqrt(squares)
        deviations[deviations <= 0] = 1.0
        return cls(means, deviations, differences, spread, tuple(roles))

    def inputs(self, both: Floats) -> NDArray[np.float32]:
        """Return the network's input (2 r + 1, h, w) of finite bands (2 c, h, w)."""
        column = np.s_[:, np.newaxis, np.newaxis]
        n_bands, n_roles = len(both) // 2, len(self.roles)
        apart = (both - self.means[column]) / self.deviations[column]
        apart = apart.clip(-_FARTHEST, _FARTHEST)
        seen = np.full((2 * n_roles + 1, *both.shape[1:]), np.nan, np.float32)
        for k, band in enumerate(self.roles):
            if band is not None:
                seen[k], seen[n_roles + k] = apart[band], apart[n_bands + band]
        differences = self.differences.apply(both[:n_bands], both[n_bands:])
        size = np.sqrt(np.sum(differences**2, axis=0) / self.spread)
        seen[-1] = np.minimum(size, _LARGEST) / _UNIT
        return seen


@dataclass(frozen=True)
class Learned:
    """A network and its findings on two whole images, which all windows share.

    Attributes:
        network: that was loaded.
        levels: of the images.
        sky: where clouds and their shadows are.
    """

    network: Siamese
    levels: PairLevels
    sky: Sky

    def codes(
        self, read: Read, frame: PixelWindow, place: PixelWindow
    ) -> NDArray[np.uint8]:
        """Return mask values (1, h, w) of a window.

        Args:
            read: as in `load_learned`.
            frame: of the images.
            place: the window; its corner is at a multiple of `sky.STEP`.
        """
        probability = self._probability(read, frame, place)
        marked = probability > self.network.config.threshold
        codes = np.where(marked, CHANGED, UNCHANGED)
        codes[np.isnan(probability)] = NODATA
        return codes.astype(np.uint8)[np.newaxis]

    def is_sure(
        self, read: Read, frame: PixelWindow, places: Sequence[PixelWindow]
    ) -> bool:
        """Return whether most of what looks changed does so clearly.

        In a sample of windows: enough pixels are probably changed, and they are at
        least `_CLEAR` of all that may be. Images of another kind than those of the
        training give low probabilities.

        Args:
            read: as in `load_learned`.
            frame: of the images.
            places: windows that cover it.
        """
        known = likely = possible = 0
        for place in places[:: -(-len(places) // _SAMPLE)]:
            probability = self._probability(read, frame, place)
            known += int(np.isfinite(probability).sum())
            likely += int((probability > _LIKELY).sum())
            possible += int((probability > _POSSIBLE).sum())
        return likely >= max(1.0, MIN_SHARE * known, _CLEAR * possible)

    def _probability(
        self, read: Read, frame: PixelWindow, place: PixelWindow
    ) -> NDArray[np.float32]:
        """Return (h, w): 0 under clouds, NaN where nothing is known."""
        wide = place.grown(self.network.halo, frame)
        inner = place.relative_to(wide).slices()
        both = read(wide).astype(np.float64)
        usual = self.levels.means[:, np.newaxis, np.newaxis]
        inputs = self.levels.inputs(np.where(np.isfinite(both), both, usual))
        probability = self.network.detect(inputs)[inner] * ~self.sky.read(place)
        probability[~np.isfinite(both[0][inner])] = np.nan
        return np.asarray(probability, np.float32)


def load_learned(
    frame: PixelWindow,
    places: Sequence[PixelWindow],
    read: Read,
    sample: tuple[Floats, Floats],
    differences: Differences,
    roles: Sequence[int | None],
) -> Learned:
    """Return the network, with what it needs to know of both whole images.

    Args:
        frame: of the images, from (0, 0).
        places: windows that cover it; their corners are multiples of `sky.STEP`.
        read: returns (2 c, h, w), the bands of both images, NaN where unknown.
        sample: (c, n) pixels of the earlier and of the later image, finite.
        differences: of these images.
        roles: see `PairLevels`.

    Raises:
        CheckpointError: the network's file is missing or damaged.
    """
    import torch

    from rsupres.families.siamese import Siamese

    network = load_model(MODEL, torch.device("cpu"), SamplerOptions())
    assert isinstance(network, Siamese)
    weights, _ = unchanged(*sample, differences)
    finder = SkyFinder(frame, Relation.fit(*sample, weights))
    for place in places:
        both = read(place).astype(np.float64)
        valid = np.isfinite(both[0])
        before, after = np.split(np.where(valid, both, 0.0), 2)
        finder.add(place, before, after, valid)
    levels = PairLevels.fit(*sample, differences, roles)
    return Learned(network, levels, finder.find())


def unchanged(x: Floats, y: Floats, differences: Differences) -> tuple[Floats, float]:
    """Return the chance of each pixel to be unchanged, and the differences' spread.

    Args:
        x: (c, n), bands of the earlier image.
        y: (c, n), bands of the later image.
        differences: of these images.
    """
    squared = np.sum(differences.apply(x, y) ** 2, axis=0)
    null = NullDistribution.fit(squared, len(differences.offset))
    return null.survival(squared), null.spread


def colours(scene: Raster, bands: tuple[int, ...]) -> tuple[int | None, ...] | None:
    """Return where red, green, blue and near infrared are among bands of a scene.

    Args:
        scene: open.
        bands: numbers of its bands.

    Returns:
        Places in `bands`, None for a colour that is not among them; None when fewer
        than three are.
    """
    for missing in ((), ("nir",), ("blue",)):
        wanted = [role for role in _ROLES if role not in missing]
        try:
            found = choose_bands(scene, wanted).roles
            places = {
                role: bands.index(band)
                for role, band in zip(wanted, found, strict=True)
            }
        except (BandError, ValueError):
            continue
        return tuple(places.get(role) for role in _ROLES)
    return None


def suits(grid: Grid) -> bool:
    """Return whether pixels have a size for which the network was trained."""
    limits = read_card(MODEL).spec.gsd
    assert limits is not None
    return limits[0] / _BEYOND <= grid.gsd_m <= limits[1] * _BEYOND
