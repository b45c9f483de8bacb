"""Sharpen the 20 m bands of Sentinel-2 with its 10 m bands, by a small network.

The fine bands are folded into channels of the coarse grid, where residual blocks (Lim
et al. 2017, EDSR, without their normalisation) work at a quarter of the cost; the
result is unfolded and added to the bicubic enlargement. The idea of training it on
bands that are reduced once more, and using it one scale finer, is that of DSen2
(Lanaras et al. 2018) after Wald et al. 1997.

Levels are found once for a scene (`Levels.of`); a pixel then depends on the coarse
pixels within `Sharpener.halo` around it alone, so a scene may be cut anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from rsupres.blocks.conv3x3 import Conv3x3
from rsupres.families.base import FixedScales, ModelSpec
from rsupres.families.storage import config_from_json, fill_network

if TYPE_CHECKING:
    from rsupres.families.base import Checkpoint, SamplerOptions

FloatArray = NDArray[np.float32]

FACTOR = 2  # fine pixels along a coarse one
_SLOPE = 0.1  # of the leaky ReLUs
_SMALL_START = 0.1  # of the last layers: training begins near bicubic
_PERCENTILES = (2.0, 98.0)  # of a band's values, which become 0 and 1


@dataclass(frozen=True)
class SharpeningConfig:
    """The shape of a network; stored in its checkpoint.

    Attributes:
        fine: names of the bands that guide, in order.
        coarse: names of the bands that are sharpened, in order.
        channels: width.
        blocks: residual blocks.
    """

    fine: tuple[str, ...] = ("B02", "B03", "B04", "B08")
    coarse: tuple[str, ...] = ("B05", "B06", "B07", "B8A", "B11", "B12")
    channels: int = 64
    blocks: int = 6


class Block(nn.Module):
    """Two convolutions and a short cut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.c1 = Conv3x3(channels, channels)
        self.c2 = Conv3x3(channels, channels)
        _begin_small(self.c2)

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, c, h, w) to the same shape."""
        out: Tensor = x + self.c2(self.c1(x, slope=_SLOPE))
        return out


class SharpeningNetwork(nn.Module):
    """Coarse and fine bands to coarse bands on the fine grid."""

    def __init__(self, config: SharpeningConfig) -> None:
        super().__init__()
        n_fine, n_coarse = len(config.fine), len(config.coarse)
        self.conv_in = Conv3x3(n_fine * FACTOR**2 + n_coarse, config.channels)
        self.blocks = nn.ModuleList(
            Block(config.channels) for _ in range(config.blocks)
        )
        self.conv_out = Conv3x3(config.channels, n_coarse * FACTOR**2)
        _begin_small(self.conv_out)

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        """Return (b, n, 2 h, 2 w), in the levels of the coarse bands.

        Args:
            coarse: (b, n, h, w), about 0 to 1 in each band's own levels.
            fine: (b, m, 2 h, 2 w), the same.
        """
        folded = functional.pixel_unshuffle(fine, FACTOR)
        x = first = self.conv_in(torch.cat([folded, coarse], 1))
        for block in self.blocks:
            x = block(x)
        detail = functional.pixel_shuffle(self.conv_out(x + first).float(), FACTOR)
        return detail + functional.interpolate(
            coarse.float(), scale_factor=FACTOR, mode="bicubic"
        )


def _begin_small(layer: Conv3x3) -> None:
    assert layer.bias is not None
    with torch.no_grad():
        layer.weight.mul_(_SMALL_START)
        layer.bias.zero_()


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
    """A network in eval mode, with the bands, in order, that it was trained for."""

    config: SharpeningConfig
    network: SharpeningNetwork
    device: torch.device

    @property
    def halo(self) -> int:
        """How many coarse pixels away a pixel may still change the result."""
        return 2 + 2 * len(self.network.blocks)

    def sharpen(
        self, coarse: FloatArray, fine: FloatArray, levels: tuple[Levels, Levels]
    ) -> FloatArray:
        """Return the coarse bands on the fine grid, (c, 2 h, 2 w) in their own units.

        Args:
            coarse: (c, h, w), finite, the bands of `config.coarse`.
            fine: (g, 2 h, 2 w), finite, the bands of `config.fine`.
            levels: of the coarse and of the fine bands, of the whole scene.
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
    """Return the sharpener of a checkpoint.

    Raises:
        CheckpointError: architecture or tensors do not fit.
    """
    config = config_from_json(
        SharpeningConfig, checkpoint.architecture, checkpoint.path
    )
    network = SharpeningNetwork(config)
    fill_network(network, checkpoint, device)
    return Sharpener(config, network, device)
