"""Parts of Ref-Diff's U-Net: residual blocks, and the modulations of its decoder.

As the released code has it: the gain of a modulation passes through a sigmoid, its
conditions enter raw. The two branches share their input and so one convolution.
Parameter names are the released ones.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from rsupres.blocks.conv3x3 import conv3x3
from rsupres.families.refdiff.config import RefDiffConfig, RefDiffNorm

Resampling = Literal["none", "down", "up"]
_EPS = 1e-6
_HALF_ROOT = 0.5**0.5
_SLOPE = 0.1  # of the modulations' leaky ReLU


class PixelNorm(nn.Module):
    """Divide by the root mean square over the channels of a pixel; a gain, a shift."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, c, h, w) to the same shape."""
        scale = x.square().mean(1, keepdim=True).add(_EPS).rsqrt()
        gain, shift = (p[:, None, None] for p in (self.weight, self.bias))
        return x * scale * gain + shift


class SFT(nn.Module):
    """Spatial feature transform: ``f * sigmoid(mul(f, c)) + add(f, c)``.

    Each branch is conv3x3, leaky ReLU 0.1, conv3x3 on features and conditions together.
    """

    def __init__(self, channels: int, conditions: int, width: int) -> None:
        super().__init__()
        self.mul_conv1 = nn.Conv2d(channels + conditions, width, 3, padding=1)
        self.mul_conv2 = nn.Conv2d(width, channels, 3, padding=1)
        self.add_conv1 = nn.Conv2d(channels + conditions, width, 3, padding=1)
        self.add_conv2 = nn.Conv2d(width, channels, 3, padding=1)
        self.joined: list[Tensor] | None = None

    def forward(self, features: Tensor, conditions: Tensor) -> Tensor:
        """Map features (b, n, h, w) by conditions (b, k, h, w).

        The branches' first convolutions become one, their second ones two groups.
        """
        weight1, bias1, weight2, bias2 = self.joined or self.join()
        both = torch.cat([features, conditions], dim=1)
        hidden = conv3x3(both, weight1, bias1, slope=_SLOPE)  # (b, 2 width, h, w)
        parts = conv3x3(hidden, weight2, bias2, groups=2)
        gain, shift = parts.chunk(2, dim=1)
        return torch.addcmul(shift, features, gain.sigmoid())

    def join(self) -> list[Tensor]:
        """Return weights and biases of the joined convolutions."""
        pairs = ((self.mul_conv1, self.add_conv1), (self.mul_conv2, self.add_conv2))
        joined = []
        for mul, add in pairs:
            joined.append(torch.cat([mul.weight, add.weight]))
            joined.append(torch.cat([_bias(mul), _bias(add)]))
        return joined


class ResampleConv(nn.Conv2d):
    """A convolution after halving (2x2 mean) or doubling (nearest) its input."""

    def __init__(
        self, c_in: int, c_out: int, side: int, resampling: Resampling = "none"
    ) -> None:
        super().__init__(c_in, c_out, side, padding=side // 2)
        self.resampling = resampling

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, c_in, h, w) to (b, c_out, h', w')."""
        if self.resampling == "down":
            x = functional.avg_pool2d(x, 2)
        elif self.resampling == "up":
            x = functional.interpolate(x, scale_factor=2.0, mode="nearest")
        return super().forward(x)


class BlockShape(NamedTuple):
    """The values in which the blocks of one network differ.

    Attributes:
        c_in: channels of the input.
        c_out: channels of the output.
        resampling: of the first convolution and of the skip.
        attention: whether single-head attention over all positions ends the block.
    """

    c_in: int
    c_out: int
    resampling: Resampling = "none"
    attention: bool = False


class Block(nn.Module):
    """The common part of encoder and decoder blocks."""

    def __init__(self, shape: BlockShape, config: RefDiffConfig) -> None:
        super().__init__()
        c_in, c_out, resampling, attention = shape
        self.dropout = config.dropout
        self.norm0 = norm_layer(config.norm, c_in)
        self.conv0 = ResampleConv(c_in, c_out, 3, resampling)
        self.affine = nn.Linear(4 * config.channels, c_out)
        self.norm1 = norm_layer(config.norm, c_out)
        self.conv1 = ResampleConv(c_out, c_out, 3)
        adapts = c_in != c_out or resampling != "none"
        self.skip = ResampleConv(c_in, c_out, 1, resampling) if adapts else None
        if attention:
            self.norm2 = norm_layer(config.norm, c_out)
            self.qkv = nn.Conv2d(c_out, 3 * c_out, 1)
            self.proj = nn.Conv2d(c_out, c_out, 1)
        self.attends = attention

    def finish(self, hidden: Tensor, x: Tensor) -> Tensor:
        """Run the second half of the block, from dropout on; return (b, c_out, h, w).

        Args:
            hidden: output of the first half, (b, c_out, h, w).
            x: input of the block, for the skip.
        """
        if self.dropout:
            hidden = functional.dropout(hidden, self.dropout, self.training)
        hidden = self.conv1(hidden)
        skip = x if self.skip is None else self.skip(x)
        hidden = (hidden + skip) * _HALF_ROOT
        return self.attend(hidden) if self.attends else hidden

    def attend(self, x: Tensor) -> Tensor:
        """Add attention; channels of `qkv` are triples (query, key, value)."""
        b, c, h, w = x.shape
        triples = self.qkv(self.norm2(x)).reshape(b, c, 3, h * w)
        query, key, value = (part.mT for part in triples.unbind(2))  # (b, hw, c)
        mixed = functional.scaled_dot_product_attention(query, key, value)
        out: Tensor = self.proj(mixed.mT.reshape(b, c, h, w)) + x
        return out * _HALF_ROOT


class EncoderBlock(Block):
    """norm, SiLU, conv; the embedding; norm, SiLU, conv; a skip."""

    def forward(self, x: Tensor, shift: Tensor) -> Tensor:
        """Map (b, c_in, h, w) and the block's embedding (b, c_out, 1, 1)."""
        hidden = self.conv0(functional.silu(self.norm0(x))) + shift
        return self.finish(functional.silu(self.norm1(hidden)), x)


class DecoderBlock(Block):
    """As in the encoder, each norm followed by a modulation.

    The first is guided by [LR, mask], the second by [reference, mask]; the embedding
    joins after norm and modulation.
    """

    def __init__(self, shape: BlockShape, config: RefDiffConfig) -> None:
        super().__init__(shape, config)
        width = config.sft_width
        self.sft0 = SFT(shape.c_in, 3 + config.mask_channels, width)
        self.sft1 = SFT(shape.c_out, config.image_channels + 1, width)

    def forward(
        self, x: Tensor, shift: Tensor, guided: Tensor, textured: Tensor
    ) -> Tensor:
        """Map (b, c_in, h, w).

        Args:
            x: features.
            shift: the block's embedding, (b, c_out, 1, 1).
            guided: [LR, mask] on the grid of the input.
            textured: [reference, mask] on the grid of the output.
        """
        hidden = self.sft0(self.norm0(x), guided)
        hidden = self.conv0(functional.silu(hidden))
        hidden = self.sft1(self.norm1(hidden), textured)
        return self.finish(functional.silu(hidden + shift), x)


def norm_layer(kind: RefDiffNorm, channels: int) -> nn.Module:
    """Return a normalisation of `channels`; GroupNorm in groups as released.

    Args:
        kind: of the normalisation.
        channels: of the maps that it normalises.
    """
    if kind == "none":
        return nn.Identity()
    if kind == "pixel":
        return PixelNorm(channels)
    return nn.GroupNorm(min(32, channels // 4), channels, eps=_EPS)


def _bias(layer: nn.Conv2d) -> Tensor:
    assert layer.bias is not None
    return layer.bias
