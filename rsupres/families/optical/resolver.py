"""Optical models on scenes: any bands, robust levels, what is known of the sensor.

`prepare` finds once for the scene the levels of each group of bands and what the
network is told; `upscale` then depends on a tile's own pixels alone, so that tiles
cannot show.

Bands: three run together; further ones run one by one as grey pictures, through the
same network. So do scenes of one or two bands.

Result: within a quarter of the range of the 5 x 5 LR pixels around, so that neither
bright roofs nor hot pixels get rings.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from rsupres.degradations.optics import FREQUENCIES, gaussian_of, sampling_matrix
from rsupres.errors import InputError
from rsupres.families.base import (
    FOUND,
    ModelSpec,
    SamplerOptions,
    ScaleRange,
    SceneContext,
    SceneReader,
    TileBatch,
)
from rsupres.families.optical.config import FACTS, Facts, OpticalConfig
from rsupres.families.optical.network import OpticalNetwork
from rsupres.families.optical.sensing import BLOCK
from rsupres.families.storage import config_from_json, fill_network
from rsupres.grid import PixelWindow

if TYPE_CHECKING:
    from rsupres.diffusion.noise import NoiseField
    from rsupres.families.base import Checkpoint

logger = logging.getLogger(__name__)

HALO = 16  # LR pixels at a tile's edge that show that the tile ends
_LEVELS = (2.0, 98.0)  # percentiles that become 0 and 1; saturated pixels are fewer
_SEEN = (-1.0, 3.0)  # in these levels; what lies beyond is enlarged beside the network
_MIN_SPAN = 0.02  # of the stretch; flatter scenes are not amplified further
_REACH = 2  # LR pixels: results keep to the range of 5 x 5
_ALLOWED = 0.25  # of that range, beyond it at either end
_MAX_SCALE = 32
_ROUNDS = 3  # of back-projection
_LEAST_MTF, _BLURRED = 0.02, 0.42  # at Nyquist, for that; bicubic reduction has 0.5
_VERY_BLURRED = 0.18
_QUIET = 0.004  # of the levels: noisier scenes would have their noise sharpened
_WINDOW = 256  # LR pixels of a side of the windows that stand for a scene
_MOSTLY = 0.9  # share of valid pixels of a window from which its sensor is estimated


@dataclass(frozen=True)
class Optical:
    """The resolver.

    Attributes:
        spec: what the model needs.
        network: on its device, in eval mode.
        options: the user's choices.
        device: where the network lives.
    """

    spec: ModelSpec
    network: OpticalNetwork
    options: SamplerOptions
    device: torch.device

    def prepare(
        self, scene: SceneReader, scale: Fraction, noise: NoiseField
    ) -> SceneContext:
        """Find the levels and the facts of each group of bands.

        Returns:
            Numbers ``low_g`` and ``high_g`` of group g, ``told_g_k``, and what was read
            from the first group of the sensor.
        """
        windows = read_windows(scene)
        used = float(min(scale, Fraction(self.network.config.up)))
        numbers: dict[str, float] = {}
        shared: Facts | None = None  # of the first group
        for g, bands in enumerate(band_groups(len(windows[0][0]))):
            parts = [(pixels[list(bands)], valid) for pixels, valid in windows]
            low, high = _levels([pixels[:, valid[0]] for pixels, valid in parts])
            facts = self._facts(parts, low, high)
            shared = facts if shared is None else shared
            facts = _not_softer(facts, shared)
            told = facts.as_tensor(used)
            if g == 0:
                numbers |= _found(facts, high - low)
            numbers |= {f"low_{g}": low, f"high_{g}": high}
            numbers |= {f"told_{g}_{k}": float(v) for k, v in enumerate(told)}
        return SceneContext(numbers=numbers)

    def upscale(self, batch: TileBatch, scale: Fraction) -> Tensor:
        """Return SR of tiles, every band through the network."""
        return self._upscale(batch, scale, spread=False)[0]

    def upscale_with_variance(self, batch: TileBatch, scale: Fraction) -> Tensor:
        """Return SR and the variance of its error, both per band: (b, 2 c, H, W)."""
        return torch.cat(self._upscale(batch, scale, spread=True), 1)

    def _upscale(
        self, batch: TileBatch, scale: Fraction, *, spread: bool
    ) -> tuple[Tensor, ...]:
        """Return SR, and its variance if wanted."""
        lr = batch.lr.to(self.device, torch.float32)
        size = tuple(int(side * scale) for side in lr.shape[2:])
        groups = [
            [
                part[:, : len(bands)]
                for part in self._upscale_group(
                    lr[:, list(bands)], g, batch, scale, spread=spread
                )
            ]
            for g, bands in enumerate(band_groups(lr.shape[1]))
        ]
        sr, *variance = (torch.cat(parts, 1) for parts in zip(*groups, strict=True))
        return bound(sr, lr, (size[0], size[1])), *variance

    def _upscale_group(
        self, lr: Tensor, g: int, batch: TileBatch, scale: Fraction, *, spread: bool
    ) -> list[Tensor]:
        """Return SR of bands (b, 1 to 3, h, w) repeated to three, and its variance."""
        numbers, up = batch.scene.numbers, self.network.config.up
        low, high = numbers[f"low_{g}"], numbers[f"high_{g}"]
        told = torch.tensor([[numbers[f"told_{g}_{k}"] for k in range(FACTS)]])
        told = told.to(self.device)
        levels = (lr.expand(-1, 3, -1, -1) - low) / (high - low)
        seen = levels.clamp(*_SEEN)
        signed = (2.0 * seen - 1.0).contiguous(memory_format=torch.channels_last)
        used = min(scale, Fraction(up))
        rows, cols = signed.shape[2:]
        size = (int(rows * used), int(cols * used))
        network = self.network
        with self._autocast():
            features, first = network.trunk(signed, told)
            wanted = self.options.detail < 1.0 or spread
            last = network.mean.features(features, first, told) if wanted else None
            residual = self._residual(features, first, last, told, batch)
            scales = None
            if spread and network.spread:
                scales = network.spread(last)
        found = [network.enlarge(residual, signed, size)]
        if scales is not None:
            found.append(network.fine(scales, size))
        if used != scale:
            final = (int(rows * scale), int(cols * scale))
            found = [functional.interpolate(x, final, mode="bicubic") for x in found]
        found[0] = (found[0] + 1.0) / 2.0
        if used == scale:
            found[0] = back_project(found[0], seen, told[0])
        if not torch.equal(seen, levels):
            size = (int(rows * scale), int(cols * scale))
            beyond = levels - seen
            found[0] += functional.interpolate(beyond, size, mode="bicubic")
        found[0] = found[0] * (high - low) + low
        if scales is not None:
            assert network.spread is not None
            # A draw is off by as much again as the ground is uncertain.
            factor = (1.0 + self.options.detail**2) * float(network.spread.ratio) ** 2
            found[1] = (2.0 * found[1]).exp() * factor * (high - low) ** 2
        return found

    def _residual(
        self,
        features: Tensor,
        first: Tensor,
        last: Tensor | None,
        told: Tensor,
        batch: TileBatch,
    ) -> Tensor:
        """Return the tails' pixels: the mean, a draw, or between them by the detail."""
        detail = self.options.detail
        parts = []
        if detail < 1.0:
            assert last is not None
            mean = self.network.mean.head(last)
            parts.append((1.0 - detail) * mean if detail else mean)
        if detail > 0.0:
            channels = self.network.config.noise
            noise = torch.stack(
                [
                    torch.from_numpy(batch.noise.draw(0, window, channels))
                    for window in batch.windows_lr
                ]
            ).to(self.device)
            parts.append(detail * self.network.sample(features, first, told, noise))
        return torch.stack(parts).sum(0) if len(parts) > 1 else parts[0]

    def _facts(
        self, windows: Sequence[tuple[np.ndarray, np.ndarray]], low: float, high: float
    ) -> Facts:
        """Return the facts of a group of bands: those given, else estimates."""
        mtf, noise = self.options.sensor_mtf, self.options.noise
        found = Facts()
        estimator = self.network.estimator
        whole = [
            (torch.from_numpy(pixels).expand(3, -1, -1) - low) / (high - low)
            for pixels, valid in windows
            if min(pixels.shape[1:]) >= BLOCK and valid.mean() >= _MOSTLY
        ]
        if estimator is not None and whole and not (mtf and noise is not None):
            found = estimator.cpu().estimate(whole)
        if mtf is not None:
            found = replace(found, transfer=gaussian_transfer(mtf))
        if noise is not None:
            found = replace(found, noise=noise / (high - low))
        return found

    def _autocast(self) -> torch.autocast:
        half = {"bf16": torch.bfloat16, "fp16": torch.float16}
        kind = half.get(self.options.precision)
        return torch.autocast(
            self.device.type, kind or torch.bfloat16, enabled=kind is not None
        )


def read_windows(scene: SceneReader) -> list[tuple[np.ndarray, np.ndarray]]:
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


def back_project(sr: Tensor, lr: Tensor, told: Tensor) -> Tensor:
    """Correct SR so that it agrees with LR through the sensor's blur.

    Only a Gaussian blur that is known, without noise or JPEG, is worth it (Irani and
    Peleg 1991); elsewhere SR comes back as it is.

    Args:
        sr: (b, c, H, W), in levels.
        lr: (b, c, h, w), in levels.
        told: (FACTS,), see `Facts`.
    """
    mtf, noise = float(told[3]), Facts.LARGEST_NOISE * float(told[7]) ** 2
    if not (told[1] and _LEAST_MTF <= mtf <= _BLURRED) or noise > _QUIET or told[9] > 0:
        return sr
    rows, cols = (
        torch.from_numpy(sampling_matrix(n, whole, gaussian_of(mtf))).to(sr)
        for n, whole in zip(lr.shape[2:], sr.shape[2:], strict=True)
    )
    # A blur read as stronger than it is would be corrected too much: once only there.
    for _ in range(_ROUNDS if mtf >= _VERY_BLURRED else 1):
        lacking = lr - rows @ sr @ cols.T
        sr = sr + functional.interpolate(lacking, sr.shape[2:], mode="bicubic")
    return sr


def bound(sr: Tensor, lr: Tensor, size: tuple[int, int]) -> Tensor:
    """Keep SR near the range of the 5 x 5 LR pixels around each pixel.

    Args:
        sr: (b, c, H, W).
        lr: (b, c, h, w), on the same ground.
        size: H and W.
    """
    side = 2 * _REACH + 1
    padded = functional.pad(lr, (_REACH,) * 4, mode="replicate")
    high = functional.max_pool2d(padded, side, 1)
    low = -functional.max_pool2d(-padded, side, 1)
    slack = _ALLOWED * (high - low)
    limits = [
        functional.interpolate(limit, size, mode="nearest-exact")
        for limit in (low - slack, high + slack)
    ]
    return torch.minimum(torch.maximum(sr, limits[0]), limits[1])


def from_checkpoint(
    checkpoint: Checkpoint, device: torch.device, options: SamplerOptions
) -> Optical:
    """Build the resolver from a checkpoint.

    Raises:
        CheckpointError: architecture or tensors do not fit.
        InputError: a step count or sampler, of which the model has none.
    """
    if options.steps not in (None, 1) or options.sampler is not None:
        raise InputError("The model takes one step and no sampler.")
    config = config_from_json(OpticalConfig, checkpoint.architecture, checkpoint.path)
    network = OpticalNetwork(config)
    fill_network(network, checkpoint, device)
    return Optical(checkpoint.spec, network, options, device)


def make_spec(
    config: OpticalConfig,
    *,
    gsd: tuple[float, float] | None,
    halo: int = HALO,
    tails: tuple[float, ...] = (),
) -> ModelSpec:
    """Return the spec of a model of this architecture."""
    return ModelSpec(
        family="optical",
        scales=ScaleRange(Fraction(1), Fraction(_MAX_SCALE), Fraction(config.up)),
        tile_size=256,
        halo=halo,
        gsd=gsd,
        detail=config.noise > 0,
        stochastic=config.noise > 0,
        sensor=True,
        unclipped=True,
        tails=tails,
    )


def _not_softer(facts: Facts, shared: Facts) -> Facts:
    """Return facts of further bands with no stronger blur than the first ones have.

    Bands that were enlarged before, such as those of 20 m, look blurred without end;
    the network would draw worms where it takes that for the sensor's blur.
    """
    if facts.transfer is None or shared.transfer is None:
        return facts
    pairs = zip(facts.transfer, shared.transfer, strict=True)
    return replace(facts, transfer=tuple(max(own, first) for own, first in pairs))


def _found(facts: Facts, span: float) -> dict[str, float]:
    """Return the facts of the sensor for log and tags.

    Names are ``found_sensor_mtf`` at Nyquist, ``found_noise`` as a share of the
    stretch, and ``found_jpeg_quality`` where the scene shows JPEG's blocks.
    """
    found: dict[str, float] = {}
    if facts.transfer is not None:
        found["sensor_mtf"] = facts.transfer[FREQUENCIES.index(0.5)]
    if facts.noise is not None:
        found["noise"] = facts.noise * span
    if facts.quality:
        found["jpeg_quality"] = facts.quality
    if found:
        logger.info(
            "The sensor, as given or read from the scene: %s.",
            ", ".join(f"{name} {value:.3g}" for name, value in found.items()),
        )
    if facts.quality:
        logger.warning(
            "The scene shows the blocks of JPEG, quality about %.0f; the model takes "
            "them into account, but traces may remain.",
            facts.quality,
        )
    return {f"{FOUND}{name}": value for name, value in found.items()}


def _levels(parts: Sequence[np.ndarray]) -> tuple[float, float]:
    """Return the levels that bands share, parts (c, n): their widest percentiles."""
    values = np.concatenate(parts, axis=1)
    if values.size == 0:
        return 0.0, 1.0
    low, high = np.percentile(values, _LEVELS, axis=1)
    first = float(low.min())
    return first, max(float(high.max()), first + _MIN_SPAN)
