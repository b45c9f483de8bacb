"""Networks of E2DiffSR around the latent: encoders, prior decoder, denoiser.

Latent diffusion's layout (Rombach et al. 2022); parameter names follow its public code.
Images are in [-1, 1]; the latent of a picture (H, W) is (H/8, W/8).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from rsupres.blocks.attention import SpatialAttention
from rsupres.blocks.bfloat16 import in_float32
from rsupres.blocks.embeddings import ScalarEmbedding
from rsupres.blocks.resnet import Downsample, Norm, ResBlock, Upsample, norm_layer


class Level(nn.Module):
    """Residual blocks of one resolution, with attention and a change of resolution."""

    def __init__(
        self,
        widths: Sequence[tuple[int, int]],
        *,
        norm: Norm,
        embedding: int | None = None,
        attention: bool = False,
        down: bool = False,
        up: bool = False,
    ) -> None:
        super().__init__()
        self.block = nn.ModuleList(ResBlock(a, b, embedding, norm) for a, b in widths)
        self.attn = nn.ModuleList(
            SpatialAttention(b, norm) for _, b in widths if attention
        )
        if down:
            self.downsample = Downsample(widths[-1][1])
        if up:
            self.upsample = Upsample(widths[-1][1])

    def step(self, j: int, x: Tensor, embedding: Tensor | None) -> Tensor:
        """Run block `j` and its attention; return (b, c', h, w).

        Args:
            j: number of the block.
            x: (b, c, h, w).
            embedding: (b, e), None = none.
        """
        x = self.block[j](x, embedding)
        return self.attn[j](x) if len(self.attn) else x


class Middle(nn.Module):
    """Two residual blocks, with attention between them if wanted."""

    def __init__(
        self, channels: int, norm: Norm, embedding: int | None, attention: bool
    ) -> None:
        super().__init__()
        self.block_1 = ResBlock(channels, channels, embedding, norm)
        self.attn_1 = SpatialAttention(channels, norm) if attention else nn.Identity()
        self.block_2 = ResBlock(channels, channels, embedding, norm)

    def forward(self, x: Tensor, embedding: Tensor | None = None) -> Tensor:
        """Map (b, c, h, w) to the same shape."""
        out: Tensor = self.block_2(self.attn_1(self.block_1(x, embedding)), embedding)
        return out


class Encoder(nn.Module):
    """Picture to latent grid: DPEncoder (6 in, 2C out) and CondNet (3 in, C out)."""

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        *,
        base: int,
        mult: Sequence[int] = (1, 2, 2, 4),
        blocks: int = 2,
        norm: Norm = "group",
        mid_attention: bool = False,
    ) -> None:
        super().__init__()
        widths = [base, *(base * m for m in mult)]
        self.conv_in = nn.Conv2d(channels_in, base, 3, padding=1)
        self.down = nn.ModuleList(
            Level(
                _chain(a, b, blocks),
                norm=norm,
                down=level < len(mult) - 1,
            )
            for level, (a, b) in enumerate(pairwise(widths))
        )
        self.mid = Middle(widths[-1], norm, None, mid_attention)
        self.norm_out = norm_layer(norm, widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], channels_out, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, c, H, W) to (b, channels_out, H / 8, W / 8), float32."""
        x = self.conv_in(x)
        for level in self.down:
            assert isinstance(level, Level)
            for j in range(len(level.block)):
                x = level.step(j, x, None)
            if hasattr(level, "downsample"):
                x = level.downsample(x)
        x = functional.silu(self.norm_out(self.mid(x)))
        return in_float32(self.conv_out, x)


def split_moments(moments: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and log-variance, clamped to [-30, 20], of a DPEncoder output."""
    mean, logvar = moments.chunk(2, dim=1)
    return mean, logvar.clamp(-30.0, 20.0)


def kl_per_sample(mean: Tensor, logvar: Tensor) -> Tensor:
    """Return (b,) KL divergence from the standard normal, summed over the latent.

    Args:
        mean: (b, c, h, w).
        logvar: logarithms of variances, of the same shape.
    """
    terms = mean.square() + logvar.exp() - 1.0 - logvar
    return 0.5 * terms.flatten(1).sum(1)


class PriorDecoder(nn.Module):
    """DPDecoder: latent to one feature map per resolution, without an output head."""

    def __init__(
        self,
        latent: int,
        channels: int,
        *,
        levels: int = 4,
        blocks: int = 2,
        norm: Norm = "group",
        mid_attention: bool = False,
    ) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(latent, channels, 3, padding=1)
        self.mid = Middle(channels, norm, None, mid_attention)
        self.up = nn.ModuleList(
            Level(_chain(channels, channels, blocks), norm=norm, up=level > 0)
            for level in range(levels)
        )

    def forward(self, z: Tensor) -> list[Tensor]:
        """Map (b, C, n, m) to [h1 (8n, 8m), h2 (4n, 4m), h3 (2n, 2m), h4 (n, m)]."""
        x = self.mid(self.conv_in(z))
        maps: list[Tensor] = []
        for level in reversed(self.up):
            assert isinstance(level, Level)
            for j in range(len(level.block)):
                x = level.step(j, x, None)
            maps.append(x)
            if hasattr(level, "upsample"):
                x = level.upsample(x)
        return maps[::-1]


class Denoiser(nn.Module):
    """U-Net on [z_t, c] with step and, when `scaled`, scale embedding."""

    def __init__(
        self,
        latent: int,
        *,
        base: int,
        mult: Sequence[int] = (1, 2, 2, 4),
        blocks: int = 2,
        attention_levels: Sequence[int] = (3,),
        mid_attention: bool = True,
        norm: Norm = "group",
        scaled: bool = True,
    ) -> None:
        super().__init__()
        width = 4 * base
        down = [base, *(base * m for m in mult)]
        self.multiple = 2 ** (len(mult) - 1)
        self.temb = ScalarEmbedding(base, width)
        self.semb = ScalarEmbedding(base, width) if scaled else None
        self.conv_in = nn.Conv2d(2 * latent, base, 3, padding=1)
        self.down = nn.ModuleList(
            Level(
                _chain(a, b, blocks),
                norm=norm,
                embedding=width,
                attention=level in attention_levels,
                down=level < len(mult) - 1,
            )
            for level, (a, b) in enumerate(pairwise(down))
        )
        self.mid = Middle(down[-1], norm, width, mid_attention)
        above = [*down[2:], down[-1]]
        self.up = nn.ModuleList(
            Level(
                _skip_chain(above[level], down[level + 1], down[level], blocks),
                norm=norm,
                embedding=width,
                attention=level in attention_levels,
                up=level > 0,
            )
            for level in range(len(mult))
        )
        self.norm_out = norm_layer(norm, base)
        self.conv_out = nn.Conv2d(base, latent, 3, padding=1)

    def forward(
        self, z: Tensor, cond: Tensor, t: Tensor, scale: Tensor | None = None
    ) -> Tensor:
        """Map z_t and condition (b, C, n, m) to the prediction, float32.

        Args:
            z: z_t, (b, C, n, m).
            cond: CondNet's output, same shape.
            t: (b,) step index, zero-based.
            scale: (b,) conditioning scale, when built with `scaled`.
        """
        rows, cols = z.shape[-2:]
        x = torch.cat([z, cond], dim=1)
        x = functional.pad(
            x, (0, -cols % self.multiple, 0, -rows % self.multiple), mode="replicate"
        )
        embedding = self.temb(t)
        if self.semb is not None and scale is not None:
            embedding = embedding + self.semb(scale)
        x = self._trunk(x, embedding)
        return in_float32(self.conv_out, x)[..., :rows, :cols]

    def _trunk(self, x: Tensor, embedding: Tensor) -> Tensor:
        x = self.conv_in(x)
        skips = [x]
        for level in self.down:
            assert isinstance(level, Level)
            for j in range(len(level.block)):
                x = level.step(j, x, embedding)
                skips.append(x)
            if hasattr(level, "downsample"):
                x = level.downsample(x)
                skips.append(x)
        x = self.mid(x, embedding)
        for level in reversed(self.up):
            assert isinstance(level, Level)
            for j in range(len(level.block)):
                x = level.step(j, torch.cat([x, skips.pop()], dim=1), embedding)
            if hasattr(level, "upsample"):
                x = level.upsample(x)
        return functional.silu(self.norm_out(x))


def _chain(first: int, width: int, blocks: int) -> list[tuple[int, int]]:
    """Return the (in, out) widths of `blocks` blocks in sequence."""
    return [(first if j == 0 else width, width) for j in range(blocks)]


def _skip_chain(
    above: int, width: int, below: int, blocks: int
) -> list[tuple[int, int]]:
    """Return (in, out) widths of an up level: one block more, skips concatenated."""
    inputs = [above, *([width] * blocks)]
    skips = [*([width] * blocks), below]
    return [(a + b, width) for a, b in zip(inputs, skips, strict=True)]
