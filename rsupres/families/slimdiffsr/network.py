"""The student network of SlimDiffSR.

Picture enlarged to HR size, in [-1, 1] -> tiny encoder (8 times down) -> bridge ->
pruned U-Net trunk -> bridge -> tiny decoder -> picture. No text, time, noise or
scheduler enters. The encoder's and the decoder's layers are those of the tiny
autoencoder without its wrappers: neither is the input mapped to [0, 1] nor the bridge's
output squashed; the decoder begins with the ReLU.

The released weights hold 12 tensors (2,078,600 of 58,053,402 parameters) that nothing
reads. `dead=True` makes layers for them, so that a converter can check that a file is
complete. `resolver` runs the network on scenes and tiles, `released` on whole pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from functools import partial
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from rsupres.blocks.conv3x3 import Conv3x3
from rsupres.families.slimdiffsr.blocks import (
    GroupNorm,
    Norm,
    PixelNorm,
    ResidualBlock,
    Shared,
    SpatialTransformer,
)
from rsupres.families.slimdiffsr.config import SlimDiffSRConfig, TrunkConfig

MULTIPLE = 16  # HR sides: 8 by the encoder, 2 by the trunk
DEAD = (
    "unet.conv_in.",
    "unet.time_embedding.",
    "unet.conv_out.",
    "vae.encoder.layers.14.",
    "vae.decoder.layers.0.",
)


class TinyBlock(nn.Module):
    """Three 3 x 3 convolutions beside the input, ReLU after each."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            Conv3x3(channels, channels),
            nn.Identity(),  # the names count the ReLU
            Conv3x3(channels, channels),
            nn.Identity(),
            Conv3x3(channels, channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return (b, c, h, w) of the same."""
        y = self.conv[2](self.conv[0](x, slope=0.0), slope=0.0)
        result: Tensor = self.conv[4](y, slope=0.0, skip=x)
        return result


class TinyEncoder(nn.Module):
    """(b, 3, H, W) to (b, c, H/8, W/8)."""

    def __init__(self, channels: int, latent: int, *, dead: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = [Conv3x3(3, channels), TinyBlock(channels)]
        for _ in range(3):
            layers.append(nn.Conv2d(channels, channels, 3, 2, 1, bias=False))
            layers += [TinyBlock(channels) for _ in range(3)]
        self._used = len(layers)
        if dead:
            layers.append(Conv3x3(channels, latent))
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Encode a picture in [-1, 1]."""
        features: Tensor = self.layers[: self._used](x)
        return features


class TinyDecoder(nn.Module):
    """(b, c, h, w) to (b, 3, 8h, 8w); not clamped."""

    def __init__(self, channels: int, latent: int, *, dead: bool) -> None:
        super().__init__()
        first = Conv3x3(latent, channels) if dead else nn.Identity()
        layers: list[nn.Module] = [first, nn.ReLU()]
        for blocks in (3, 3, 3):
            layers += [TinyBlock(channels) for _ in range(blocks)]
            double = DoublingConv(channels, channels, 3, padding=1, bias=False)
            layers += [nn.Identity(), double]  # the names count the doubling
        layers += [TinyBlock(channels), Conv3x3(channels, 3)]
        self.layers = nn.Sequential(*layers)

    def forward(self, z: Tensor) -> Tensor:
        """Decode the second bridge's output."""
        picture: Tensor = self.layers[1:](z)
        return picture


class _TinyAutoencoder(nn.Module):
    def __init__(self, channels: int, latent: int, *, dead: bool) -> None:
        super().__init__()
        self.encoder = TinyEncoder(channels, latent, dead=dead)
        self.decoder = TinyDecoder(channels, latent, dead=dead)


class Trunk(nn.Module):
    """The pruned U-Net between the bridges, c x h x w to the same, c = widths[0]."""

    def __init__(
        self, config: TrunkConfig, latent: int = 4, *, dead: bool = False
    ) -> None:
        super().__init__()
        norm = norm_of(config)
        (upper, lower), n = config.widths, config.layers
        block = partial(_Level, config, norm)
        self.down_blocks = nn.ModuleList(
            [
                block([upper] * (n + 1), down=True),
                block([upper, *[lower] * n]),
            ]
        )
        self.mid_block = _Bottom(lower, config.bottom, norm)
        skips = [*[upper] * (n + 1), upper, *[lower] * n]
        into = [config.bottom, *[lower] * (2 * n + 1)]
        wide = [a + b for a, b in zip(into[: n + 1], skips[::-1], strict=False)]
        rest = [lower, *[upper] * n]
        fine = [a + b for a, b in zip(rest, skips[n::-1], strict=True)]
        self.up_blocks = nn.ModuleList(
            [block(lower, inputs=wide, up=True), block(upper, inputs=fine)]
        )
        self.conv_norm_out = norm(upper, 1e-5)
        if dead:
            self.conv_in = Conv3x3(latent, upper)
            self.time_embedding = nn.Module()
            self.time_embedding.linear_1 = nn.Linear(upper, 4 * upper)
            self.time_embedding.linear_2 = nn.Linear(4 * upper, 4 * upper)
            self.conv_out = Conv3x3(upper, latent)

    def forward(self, x: Tensor, shared: Shared = None) -> Tensor:
        """Return features (b, c, h, w) of the same; sides even."""
        skips = [x]
        for level in self.down_blocks:
            x = cast(_Level, level).descend(x, shared, skips)
        x = self.mid_block(x, shared)
        for level in self.up_blocks:
            x = cast(_Level, level).ascend(x, shared, skips)
        return functional.silu(self.conv_norm_out(x, shared))


class _Level(nn.Module):
    """Residual blocks and transformers in turn, then a change of size if any."""

    def __init__(
        self,
        config: TrunkConfig,
        norm: Norm,
        widths: Sequence[int] | int,
        *,
        inputs: Sequence[int] = (),
        down: bool = False,
        up: bool = False,
    ) -> None:
        super().__init__()
        if isinstance(widths, int):
            pairs = [(c_in, widths) for c_in in inputs]
        else:
            pairs = list(pairwise(widths))
        out = pairs[-1][1]
        self.resnets = nn.ModuleList([ResidualBlock(a, b, norm) for a, b in pairs])
        self.attentions = nn.ModuleList(
            [SpatialTransformer(out, config.queries, config.inner, norm) for _ in pairs]
        )
        self.downsamplers = nn.ModuleList([Downsample(out)] if down else [])
        self.upsamplers = nn.ModuleList([Upsample(out)] if up else [])

    def descend(self, x: Tensor, shared: Shared, skips: list[Tensor]) -> Tensor:
        for resnet, attention in zip(self.resnets, self.attentions, strict=True):
            x = attention(resnet(x, shared), shared)
            skips.append(x)
        for layer in self.downsamplers:
            x = layer(x)
            skips.append(x)
        return x

    def ascend(self, x: Tensor, shared: Shared, skips: list[Tensor]) -> Tensor:
        for resnet, attention in zip(self.resnets, self.attentions, strict=True):
            joined = torch.cat([x, skips.pop()], 1)
            x = attention(resnet(joined, shared), shared)
        for layer in self.upsamplers:
            x = layer(x)
        return x


class _Bottom(nn.Module):
    """The residual block that replaces all deeper levels."""

    def __init__(self, c_in: int, c_out: int, norm: Norm) -> None:
        super().__init__()
        self.mid_block = ResidualBlock(c_in, c_out, norm)

    def forward(self, x: Tensor, shared: Shared = None) -> Tensor:
        result: Tensor = self.mid_block(x, shared)
        return result


class Downsample(nn.Module):
    """3 x 3 convolution with stride 2."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return (b, c, h/2, w/2)."""
        result: Tensor = self.conv(x)
        return result


class Upsample(nn.Module):
    """Nearest doubling, then a 3 x 3 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = DoublingConv(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return (b, c, 2h, 2w)."""
        result: Tensor = self.conv(x)
        return result


class DoublingConv(nn.Conv2d):
    """Nearest doubling, then a 3 x 3 convolution, at inference as one.

    Beside each output pixel lie two copies of one input pixel, whose weights add up:
    the two steps are one transposed convolution, exact but for rounding.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Return (b, C, 2h, 2w) of (b, c, h, w)."""
        if self.training:
            return super().forward(functional.interpolate(input, scale_factor=2.0))
        kernel = doubled_kernel(self.weight)
        return functional.conv_transpose2d(input, kernel, self.bias, 2, 1)


def doubled_kernel(weight: Tensor) -> Tensor:
    """Return (c, C, 4, 4) that doubles by stride 2, then convolves by (C, c, 3, 3)."""
    kernel = weight.flip(2, 3).transpose(0, 1)
    kernel = functional.pad(kernel, (0, 1)) + functional.pad(kernel, (1, 0))
    return functional.pad(kernel, (0, 0, 0, 1)) + functional.pad(kernel, (0, 0, 1, 0))


class SlimDiffSRNetwork(nn.Module):
    """The student: `forward` is the released network, its parts run on scenes."""

    def __init__(self, config: SlimDiffSRConfig, *, dead: bool = False) -> None:
        super().__init__()
        self.config = config
        wide = config.trunk.widths[0]
        self.vae = _TinyAutoencoder(config.tiny, config.latent, dead=dead)
        self.merge_conv1 = Conv3x3(config.tiny, wide)
        self.unet = Trunk(config.trunk, config.latent, dead=dead)
        self.merge_conv2 = Conv3x3(wide, config.tiny)

    def forward(self, x: Tensor, shared: Shared = None) -> tuple[Tensor, Tensor]:
        """Return the second bridge's map z (b, c, H/8, W/8) and the picture.

        Args:
            x: the enlarged picture in [-1, 1], (b, 3, H, W), sides multiples of 16.
            shared: the values found once for the whole picture.
        """
        z = self.transform(self.vae.encoder(x), shared)
        return z, self.vae.decoder(z)

    def encode(self, lr: Tensor) -> Tensor:
        """Return the encoder's map (b, c, H/8, W/8) of (b, 3, h, w) in [-1, 1]."""
        x = enlarge(lr, self.config.scale).to(self.merge_conv1.weight.dtype)
        features: Tensor = self.vae.encoder(x)
        return features

    def transform(self, features: Tensor, shared: Shared = None) -> Tensor:
        """Return z of the encoder's map: bridge, trunk, bridge."""
        z: Tensor = self.merge_conv2(self.unet(self.merge_conv1(features), shared))
        return z

    def decode(self, z: Tensor, lr: Tensor) -> Tensor:
        """Return the picture (b, 3, H, W) of z; the LR picture is not looked at."""
        picture: Tensor = self.vae.decoder(z)
        return picture


def enlarge(lr: Tensor, scale: int) -> Tensor:
    """Return the network's input: torch's bicubic, a = -3/4, not clamped.

    Args:
        lr: (b, 3, h, w).
        scale: SR pixels along one LR pixel.
    """
    return functional.interpolate(lr, scale_factor=float(scale), mode="bicubic")


def signed_input(lr: Tensor, rest: Fraction) -> Tensor:
    """Return (b, 3, h rest, w rest) as a network takes it: in [-1, 1], channels last.

    A network that serves several scales has one factor of its own; what is left of a
    larger scale, bicubic interpolation does first.

    Args:
        lr: (b, 3, h, w) in [0, 1].
        rest: scale over the network's own factor, a whole number.
    """
    signed = 2.0 * lr - 1.0
    if rest != 1:
        signed = enlarge(signed, int(rest))
    return signed.contiguous(memory_format=torch.channels_last)


def norm_of(config: TrunkConfig) -> Norm:
    """Return the function that makes a norm from channels and an epsilon."""
    if config.norm == "group":
        return partial(GroupNorm, config.groups)
    return lambda channels, eps: PixelNorm(channels)
