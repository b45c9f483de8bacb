"""Residual, down- and upsampling blocks of latent diffusion (Rombach et al. 2022).

Parameter names are those of the public latent-diffusion code, so reference weights load
by name. `norm="none"` leaves the normalisation out: then nothing in a block looks
further than its convolutions, and a tile gives what the whole picture gives.
"""

from __future__ import annotations

import math
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

from rsupres.blocks.conv3x3 import Conv3x3

Norm = Literal["group", "none"]


def norm_layer(kind: Norm, channels: int) -> nn.Module:
    """Return GroupNorm with the largest legal number of groups up to 32, or nothing.

    Widths that are no multiple of 32 get ``min(gcd(32, c), c / 4)`` groups.

    Args:
        kind: of the normalisation.
        channels: of the maps that it normalises.
    """
    if kind == "none":
        return nn.Identity()
    groups = 32 if channels % 32 == 0 else min(math.gcd(32, channels), channels // 4)
    return nn.GroupNorm(max(groups, 1), channels, eps=1e-6)


class ResBlock(nn.Module):
    """norm - SiLU - conv3x3 - [+ embedding] - norm - SiLU - conv3x3, plus the input.

    Args:
        channels_in: channels of the input.
        channels_out: channels of the output; a 1x1 convolution adapts the skip.
        embedding: width of the embedding that is added per channel, or None.
        norm: kind of normalisation.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        embedding: int | None = None,
        norm: Norm = "group",
    ) -> None:
        super().__init__()
        self.norm1 = norm_layer(norm, channels_in)
        self.conv1 = Conv3x3(channels_in, channels_out)
        self.temb_proj = (
            None if embedding is None else nn.Linear(embedding, channels_out)
        )
        self.norm2 = norm_layer(norm, channels_out)
        self.conv2 = Conv3x3(channels_out, channels_out)
        self.nin_shortcut = (
            None
            if channels_in == channels_out
            else nn.Conv2d(channels_in, channels_out, 1)
        )

    def forward(self, x: Tensor, embedding: Tensor | None = None) -> Tensor:
        """Map (b, c_in, h, w) and an optional (b, e) embedding to (b, c_out, h, w)."""
        hidden = self.conv1(functional.silu(self.norm1(x)))
        if self.temb_proj is not None and embedding is not None:
            shift = self.temb_proj(functional.silu(embedding))
            hidden = hidden + shift[:, :, None, None]
        hidden = self.conv2(functional.silu(self.norm2(hidden)))
        skip = x if self.nin_shortcut is None else self.nin_shortcut(x)
        total: Tensor = skip + hidden
        return total


class Downsample(nn.Module):
    """Zero-pad one row and column at the bottom and right, then conv3x3 stride 2."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, c, h, w) to (b, c, h // 2, w // 2)."""
        halved: Tensor = self.conv(functional.pad(x, (0, 1, 0, 1)))
        return halved


class Upsample(nn.Module):
    """Nearest neighbour x2, then conv3x3."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = Conv3x3(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, c, h, w) to (b, c, 2h, 2w)."""
        doubled: Tensor = self.conv(
            functional.interpolate(x, scale_factor=2.0, mode="nearest")
        )
        return doubled
