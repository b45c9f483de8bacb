"""Convolutions of multi-distillation blocks (IMDN): each keeps a part of the channels.

Hui et al. 2019. The attention that follows differs from family to family.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from rsupres.blocks.conv3x3 import Conv3x3

_SLOPE = 0.05  # of the leaky ReLUs


class Distillation(nn.Module):
    """Four convolutions, each of which keeps a quarter of the channels.

    `c5` maps the parts, after attention, to what a block adds to its input.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        kept, passed = channels // 4, channels - channels // 4
        self.split = [kept, passed]
        self.c1 = Conv3x3(channels, channels)
        self.c2 = Conv3x3(passed, channels)
        self.c3 = Conv3x3(passed, channels)
        self.c4 = Conv3x3(passed, kept)
        self.c5 = nn.Conv2d(channels, channels, 1)

    def distil(self, x: Tensor) -> Tensor:
        """Return the parts that are kept of (b, c, h, w), joined to the same shape."""
        parts, rest = [], x
        for layer in (self.c1, self.c2, self.c3):
            part, rest = torch.split(layer(rest, slope=_SLOPE), self.split, 1)
            parts.append(part)
        return torch.cat([*parts, self.c4(rest)], 1)


class PixelDistillation(Distillation):
    """The block with attention of single pixels, which sees no more in any tile."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.a1 = nn.Conv2d(channels, channels // 16, 1)
        self.a2 = nn.Conv2d(channels // 16, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, c, h, w) to the same shape."""
        parts = self.distil(x)
        parts = parts * torch.sigmoid(self.a2(functional.relu(self.a1(parts))))
        out: Tensor = x + self.c5(parts)
        return out
