"""Find the levels of a scene's bands, and the facts on its sensor for the network.

Facts that the user gives are used as they are. The others are estimated from the
scene's own pixels by a small network, which runs here in numpy, so that plans show them
without torch. Two limits hold for the estimates: bands beside the first three are no
softer than those, and a scene is no softer than the products of its platform.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rsupres.degradations.optics import FREQUENCIES
from rsupres.families.base import SamplerOptions, SceneReader
from rsupres.families.optical.config import Facts
from rsupres.families.optical.features import BLOCK, describe
from rsupres.grid import PixelWindow

logger = logging.getLogger(__name__)

Window = tuple[np.ndarray, np.ndarray]  # pixels and valid mask
Weights = Mapping[str, np.ndarray]  # of the estimator, by their names in it
N_READ = len(FREQUENCIES) + 2  # transfers, root of the noise, strength of JPEG
_JPEG_FROM = 0.34  # quality 88; weaker JPEG is not told: false alarms cost more
_LEVELS = (2.0, 98.0)  # percentiles that become 0 and 1; saturated pixels are fewer
_MIN_SPAN = 0.02  # of the stretch; flatter scenes are not amplified further
_WINDOW = 256  # LR pixels of a side of the windows that stand for a scene
_MIN_VALID = 0.9  # share of valid pixels of a window from which its sensor is estimated


@dataclass(frozen=True)
class Group:
    """Bands that run together, their levels, and the facts that the network gets.

    Attributes:
        bands: indices among the model's.
        low: of the stretch.
        high: of the stretch.
        facts: as the network gets them.
    """

    bands: tuple[int, ...]
    low: float
    high: float
    facts: Facts

    def found(self) -> dict[str, float]:
        """Return the properties of the sensor, for log, tags and plans.

        Names are ``sensor_mtf`` at Nyquist, ``noise`` as a share of the stretch, and
        ``jpeg_quality`` where the scene shows JPEG's blocks.
        """
        facts, found = self.facts, {}
        if facts.transfer is not None:
            found["sensor_mtf"] = facts.transfer[FREQUENCIES.index(0.5)]
        if facts.noise is not None:
            found["noise"] = facts.noise * (self.high - self.low)
        if facts.quality:
            found["jpeg_quality"] = facts.quality
        return found


def read_sensor(
    scene: SceneReader, options: SamplerOptions, weights: Weights | None
) -> dict[str, float]:
    """Return the properties of the sensor of the first bands, see `Group.found`.

    Args:
        scene: whose windows are read.
        options: what the user says of the sensor goes first.
        weights: of the estimator; None = nothing is estimated.
    """
    windows = read_windows(scene)
    bands = band_groups(len(windows[0][0]))[0]
    return _look(windows, bands, options, weights).found()


def find_groups(
    scene: SceneReader, options: SamplerOptions, weights: Weights | None
) -> list[Group]:
    """Return the groups of a scene's bands, and say what was read.

    Args:
        scene: in units of the stretch.
        options: facts of the sensor that the user knows.
        weights: of the estimator; None = nothing is read.
    """
    windows = read_windows(scene)
    groups = [
        _look(windows, bands, options, weights)
        for bands in band_groups(len(windows[0][0]))
    ]
    first = groups[0]
    _say(first)
    return [first, *(_like_the_first(group, first.facts) for group in groups[1:])]


def _look(
    windows: Sequence[Window],
    bands: tuple[int, ...],
    options: SamplerOptions,
    weights: Weights | None,
) -> Group:
    """Return a group of bands: facts that are given, else those that are read."""
    parts = [(pixels[list(bands)], valid) for pixels, valid in windows]
    low, high = _levels([pixels[:, valid[0]] for pixels, valid in parts])
    group = Group(bands, low, high, Facts())
    mtf, noise = options.sensor_mtf, options.noise
    whole = [
        np.broadcast_to((pixels - low) / (high - low), (3, *pixels.shape[1:]))
        for pixels, valid in parts
        if min(pixels.shape[1:]) >= BLOCK and valid.mean() >= _MIN_VALID
    ]
    if weights is not None and whole and not (mtf and noise is not None):
        facts = _not_softer(estimate(weights, whole), options.least_mtf)
        group = replace(group, facts=facts)
    if mtf is not None:
        told = replace(group.facts, transfer=gaussian_transfer(mtf))
        group = replace(group, facts=told)
    if noise is not None:
        told = replace(group.facts, noise=noise / (high - low))
        group = replace(group, facts=told)
    return group


def estimate(weights: Weights, windows: Sequence[NDArray[np.floating]]) -> Facts:
    """Return the facts estimated from windows (3, h, w) of a picture, in its levels.

    Args:
        weights: of the estimator.
        windows: (3, h, w) each, in levels.
    """
    values = (describe(windows) - weights["mean"]) / weights["deviation"]
    for layer in (0, 2, 4):
        values = weights[f"layers.{layer}.weight"] @ values
        values = values + weights[f"layers.{layer}.bias"]
        if layer < 4:
            values = values / (1.0 + np.exp(-values))  # SiLU
    n = len(FREQUENCIES)
    transfer, (root, strength) = values[:n], values[n:]
    return Facts(
        transfer=tuple(float(v) for v in transfer.clip(0.0, 1.0)),
        noise=max(float(root), 0.0) ** 2 * Facts.LARGEST_NOISE,
        quality=0.0 if strength < _JPEG_FROM else Facts.quality_of(float(strength)),
    )


def read_windows(scene: SceneReader) -> list[Window]:
    """Return pixels and valid mask of up to 4 x 4 windows, spread over a scene.

    They begin at multiples of 8 pixels, as JPEG's blocks do.
    """
    rows, cols = (
        np.unique(np.linspace(0, max(whole - _WINDOW, 0), 4).astype(int) // 8 * 8)
        for whole in (scene.height, scene.width)
    )
    return [
        scene.read(
            PixelWindow(
                int(row),
                int(col),
                min(_WINDOW, scene.height - int(row)),
                min(_WINDOW, scene.width - int(col)),
            )
        )
        for row in rows
        for col in cols
    ]


def band_groups(n_bands: int) -> list[tuple[int, ...]]:
    """Return which bands run together: the first three, then each alone."""
    together = [(0, 1, 2)] if n_bands >= 3 else []
    return [*together, *((band,) for band in range(3 * len(together), n_bands))]


def gaussian_transfer(mtf: float) -> tuple[float, ...]:
    """Return a Gaussian's transfer at `FREQUENCIES`, given that at Nyquist."""
    return tuple(mtf ** (4.0 * frequency**2) for frequency in FREQUENCIES)


def _not_softer(facts: Facts, least_mtf: float | None) -> Facts:
    """Return facts of a blur no stronger than the platform's products have."""
    if least_mtf is None or facts.transfer is None:
        return facts
    transfer = _sharper(facts.transfer, gaussian_transfer(least_mtf))
    return replace(facts, transfer=transfer)


def _sharper(one: tuple[float, ...], other: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(max(pair) for pair in zip(one, other, strict=True))


def _like_the_first(group: Group, first: Facts) -> Group:
    """Return a further group with no stronger blur than the first bands have."""
    # Bands that were enlarged before look blurred without end.
    facts = group.facts
    if facts.transfer is None or first.transfer is None:
        return group
    told = replace(facts, transfer=_sharper(facts.transfer, first.transfer))
    return replace(group, facts=told)


def _say(group: Group) -> None:
    """Log what is known of the sensor."""
    if found := group.found():
        logger.info(
            "The sensor, as given or read from the scene: %s.",
            ", ".join(f"{name} {value:.3g}" for name, value in found.items()),
        )
    if group.facts.quality:
        logger.warning(
            "The scene shows the blocks of JPEG, quality about %.0f; the model takes "
            "them into account, but traces may remain.",
            group.facts.quality,
        )


def _levels(parts: Sequence[np.ndarray]) -> tuple[float, float]:
    """Return the levels that bands share, parts (c, n): their widest percentiles."""
    values = np.concatenate(parts, axis=1)
    if values.size == 0:
        return 0.0, 1.0
    low, high = np.percentile(values, _LEVELS, axis=1)
    first = float(low.min())
    return first, max(float(high.max()), first + _MIN_SPAN)
