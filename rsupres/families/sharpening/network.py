"""The network that sharpens coarse bands with fine ones, on the coarse grid.

The fine bands are folded into channels of the coarse grid, where residual blocks (Lim
et al. 2017, EDSR, without their normalisation) work at a quarter of the cost; the
result is unfolded and added to the bicubic enlargement. The idea of training it on
bands that are reduced once more, and using it one scale finer, is that of DSen2
(Lanaras et al. 2018) after Wald et al. 1997.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from rsupres.blocks.conv3x3 import Conv3x3

FACTOR = 2  # fine pixels along a coarse one
_SLOPE = 0.1  # of the leaky ReLUs
_SMALL_START = 0.1  # of the last layers: training begins near bicubic


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

    @property
    def halo(self) -> int:
        """How many coarse pixels away a pixel may still change the result."""
        return 2 + 2 * len(self.blocks)

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
