"""Sharpen arrays: levels of a scene's bands, windows of any size, checkpoints.

Levels are found once for a scene (`Levels.of`); a pixel then depends on the
coarse pixels within `Sharpener.halo` around it alone, so a scene may be cut anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from rsupres.families.base import FixedScales, ModelSpec
from rsupres.families.sharpening.network import (
    FACTOR,
    SharpeningConfig,
    SharpeningNetwork,
)
from rsupres.families.storage import config_from_json, fill_network

if TYPE_CHECKING:
    from rsupres.families.base import Checkpoint, SamplerOptions

FloatArray = NDArray[np.float32]

_PERCENTILES = (2.0, 98.0)  # of a band's values, which become 0 and 1


@dataclass(frozen=True)
class Levels:
    """Levels of bands that become 0 and 1, in the units of the bands.

    Attributes:
        low: (c,).
        span: (c,), above 0.
    """

    low: FloatArray
    span: FloatArray

    @classmethod
    def of(cls, values: FloatArray) -> Levels:
        """Return the levels of bands (c, n) or (c, h, w); NaN counts as no value."""
        flat = values.reshape(len(values), -1)
        if flat.size == 0 or np.isnan(flat).all():
            return cls(np.zeros(len(flat), np.float32), np.ones(len(flat), np.float32))
        low, high = np.nanpercentile(flat, _PERCENTILES, axis=1)
        least = np.maximum(1e-6 * np.abs(high), 1e-12)
        return cls(
            low.astype(np.float32), np.maximum(high - low, least).astype(np.float32)
        )

    def to_unit(self, values: FloatArray) -> FloatArray:
        """Return bands (c, h, w) with these levels at 0 and 1."""
        unit = (values - self.low[:, None, None]) / self.span[:, None, None]
        return np.asarray(unit, np.float32)

    def from_unit(self, unit: FloatArray) -> FloatArray:
        """Undo `to_unit`."""
        values = unit * self.span[:, None, None] + self.low[:, None, None]
        return np.asarray(values, np.float32)


@dataclass(frozen=True)
class Sharpener:
    """A network with what it was trained for.

    Attributes:
        config: the bands, in order.
        network: on its device, in eval mode.
        device: where the network lives.
    """

    config: SharpeningConfig
    network: SharpeningNetwork
    device: torch.device

    @property
    def halo(self) -> int:
        """How many coarse pixels away a pixel may still change the result."""
        return self.network.halo

    def sharpen(
        self, coarse: FloatArray, fine: FloatArray, levels: tuple[Levels, Levels]
    ) -> FloatArray:
        """Return the coarse bands on the grid of the fine ones.

        Args:
            coarse: (c, h, w), finite, the bands of `config.coarse`.
            fine: (g, 2 h, 2 w), finite, the bands of `config.fine`.
            levels: of the coarse and of the fine bands, of the whole scene.

        Returns:
            (c, 2 h, 2 w), in the units of `coarse`.
        """
        parts = [
            torch.from_numpy(own.to_unit(values))[None]
            .to(self.device)
            .contiguous(memory_format=torch.channels_last)
            for own, values in zip(levels, (coarse, fine), strict=True)
        ]
        with torch.inference_mode():
            made: FloatArray = self.network(*parts)[0].cpu().numpy()
        return levels[0].from_unit(made)


def make_spec(config: SharpeningConfig) -> ModelSpec:
    """Return a spec that no scene alone fits: the fine bands are needed, too."""
    return ModelSpec(
        family="sharpening",
        scales=FixedScales(frozenset({Fraction(FACTOR)})),
        bands=config.coarse,
        needs=frozenset({"fine_bands"}),
        gsd=(20.0, 20.0),
    )


def from_checkpoint(
    checkpoint: Checkpoint, device: torch.device, options: SamplerOptions
) -> Sharpener:
    """Build a sharpener from a checkpoint.

    Raises:
        CheckpointError: architecture or tensors do not fit.
    """
    config = config_from_json(
        SharpeningConfig, checkpoint.architecture, checkpoint.path
    )
    network = SharpeningNetwork(config)
    fill_network(network, checkpoint, device)
    return Sharpener(config, network, device)
