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

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from rsupres.blocks.bfloat16 import autocast
from rsupres.degradations.optics import (
    FREQUENCIES,
    Kernel,
    gaussian_of,
    response,
    sampling_matrix,
)
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
from rsupres.families.optical.reading import band_groups, find_groups
from rsupres.families.storage import config_from_json, fill_network

if TYPE_CHECKING:
    from rsupres.diffusion.noise import NoiseField
    from rsupres.families.base import Checkpoint

HALO = 16  # LR pixels at a tile's edge that show that the tile ends
_SEEN = (-1.0, 3.0)  # in these levels; what lies beyond is enlarged beside the network
_REACH = 2  # LR pixels: results keep to the range of 5 x 5
_ALLOWED = 0.25  # of that range, beyond it at either end
_MAX_SCALE = 32
_ROUNDS, _ROUNDS_SHARP, _LOCK_ROUNDS = 3, 1, 4  # of back-projection
_MIN_MTF, _BLURRED, _MAX_MTF = 0.02, 0.44, 0.95  # at Nyquist, for that
_VERY_BLURRED = 0.18
_QUIET = 0.004  # of the levels: noisier scenes would have their noise sharpened


@dataclass(frozen=True)
class Optical:
    """The resolver: an optical model on scenes; its network is in eval mode."""

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
        used = float(min(scale, Fraction(self.network.config.up)))
        groups = find_groups(scene, self.options, self._estimator_weights())
        numbers = {f"{FOUND}{k}": v for k, v in groups[0].found().items()}
        for g, group in enumerate(groups):
            told = group.facts.as_numbers(used)
            numbers |= {f"low_{g}": group.low, f"high_{g}": group.high}
            numbers |= {f"told_{g}_{k}": value for k, value in enumerate(told)}
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
        with autocast(self.device, self.options.precision):
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
        lock = self.options.lock
        if used == scale or lock:
            found[0] = back_project(found[0], seen, told[0], lock=lock)
        if not torch.equal(seen, levels):
            size = (int(rows * scale), int(cols * scale))
            beyond = levels - seen
            found[0] += functional.interpolate(beyond, size, mode="bicubic")
        found[0] = found[0] * (high - low) + low
        if scales is not None:
            assert network.spread is not None
            # A draw is off by as much again as the ground is uncertain.
            factor = network.spread.factor(told[0]) ** 2
            factor *= 1.0 + self.options.detail**2
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
            channels = self.network.config.drawn
            noise = torch.stack(
                [
                    torch.from_numpy(batch.noise.draw(0, window, channels))
                    for window in batch.windows_lr
                ]
            ).to(self.device)
            parts.append(detail * self.network.sample(features, first, told, noise))
        return torch.stack(parts).sum(0) if len(parts) > 1 else parts[0]

    def _estimator_weights(self) -> Mapping[str, np.ndarray] | None:
        estimator = self.network.estimator
        if estimator is None:
            return None
        return {k: v.cpu().numpy() for k, v in estimator.state_dict().items()}


def back_project(sr: Tensor, lr: Tensor, told: Tensor, *, lock: bool) -> Tensor:
    """Return SR (b, c, H, W), corrected to agree with LR through the sensor's blur.

    Only a blur that is known, without noise or JPEG, is worth it (Irani and Peleg
    1991); elsewhere SR comes back as it is, unless it is to be locked.

    Args:
        sr: (b, c, H, W), in levels.
        lr: (b, c, h, w), in levels.
        told: (FACTS,), see `Facts`.
        lock: correct in any case, and until little is left.
    """
    noise = Facts.LARGEST_NOISE * float(told[7]) ** 2
    transfer = tuple(told[2:6].tolist()) if told[1] else None
    kernel = Kernel("area") if transfer is None else nearest_kernel(transfer)
    rounds = _LOCK_ROUNDS if lock else 0
    if not lock and transfer is not None and noise <= _QUIET and told[9] == 0:
        rounds = _rounds(kernel, transfer[FREQUENCIES.index(0.5)])
    if not rounds:
        return sr
    rows, cols = (
        _matrix(n, whole, kernel).to(sr)
        for n, whole in zip(lr.shape[2:], sr.shape[2:], strict=True)
    )
    for _ in range(rounds):
        lacking = lr - rows @ sr @ cols.T
        sr = sr + functional.interpolate(lacking, sr.shape[2:], mode="bicubic")
    return sr


def nearest_kernel(transfer: tuple[float, ...]) -> Kernel:
    """Return the kernel whose transfer at `FREQUENCIES` comes nearest to one."""
    mtf = min(max(transfer[FREQUENCIES.index(0.5)], _MIN_MTF), _MAX_MTF)
    kernels = (gaussian_of(mtf), Kernel("bicubic"), Kernel("area"))
    return min(kernels, key=lambda k: math.dist(_transfer_of(k), transfer))


@lru_cache(maxsize=64)
def _transfer_of(kernel: Kernel) -> tuple[float, ...]:
    return tuple(response(sampling_matrix(16, 128, kernel)).tolist())


@lru_cache(maxsize=32)
def _matrix(n_lr: int, n_sr: int, kernel: Kernel) -> Tensor:
    return torch.from_numpy(sampling_matrix(n_lr, n_sr, kernel)).float()


def _rounds(kernel: Kernel, mtf: float) -> int:
    """Return how many corrections are worth it through a kernel."""
    if kernel.kind != "gaussian":
        return _ROUNDS_SHARP
    if mtf <= _MIN_MTF or mtf > _BLURRED:
        return 0
    # A blur read as stronger than it is would be corrected too much: once only there,
    # and not at all at the least that Sentinel-2 is taken for, whatever was read.
    return _ROUNDS if mtf >= _VERY_BLURRED else 1


def bound(sr: Tensor, lr: Tensor, size: tuple[int, int]) -> Tensor:
    """Return SR (b, c, H, W), kept near the range of the 5 x 5 LR pixels around.

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
    return torch.clamp(sr, limits[0], limits[1])


def from_checkpoint(
    checkpoint: Checkpoint, device: torch.device, options: SamplerOptions
) -> Optical:
    """Return the model of a checkpoint, ready for scenes.

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
    """Return the spec of a model of this architecture.

    Args:
        config: the architecture.
        gsd: smallest and largest metres per LR pixel that it was trained for.
        halo: LR pixels at a tile's sides that are not used.
        tails: deviations that hold given shares of the errors; empty = not predicted.
    """
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
