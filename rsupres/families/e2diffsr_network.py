"""The networks of E2DiffSR: encoders, prior decoder, SR branch, CSUM, denoiser.

Wu, Mo, Sun, Ma, "Latent Diffusion, Implicit Amplification", arXiv 2410.22830. Parameter
names follow the public code of the parts (latent diffusion, IMDN, SADN), so reference
weights load by name. No pixels are read here and no losses known; images are in
[-1, 1], shapes in the notation of the paper: LR (h, w), SR (H, W), latent (H/8, W/8).

Three choices in `E2DiffSRConfig` replace what looks at the whole picture, so that
tiles cannot show: `norm="none"`, `attention_window` (local instead of global statistics
in the channel attention) and no attention in the denoiser.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from rsupres.blocks.attention import SpatialAttention
from rsupres.blocks.embeddings import ScalarEmbedding
from rsupres.blocks.resample import centre_positions, make_taps
from rsupres.blocks.resnet import Downsample, Norm, ResBlock, Upsample, norm_layer
from rsupres.diffusion.samplers import Prediction

CELL = 8  # SR pixels per latent cell


@dataclass(frozen=True)
class E2DiffSRConfig:
    """Everything that shapes an E2DiffSR model; stored in its checkpoint.

    Attributes:
        enc_base: width of DPEncoder and CondNet.
        enc_blocks: residual blocks per group of the encoders and the prior decoder.
        mult: width multipliers of the encoders' four groups.
        latent: channels of the latent.
        dec_channels: width of the prior decoder.
        sr_channels: width of the SR branch.
        frus: feature-refinement units.
        imdbs: information multi-distillation blocks per unit.
        csum_channels: width of CSUM's maps; a 3x3 convolution adapts if it differs.
        csum_levels: maps of CSUM (1x, 2x, 4x, ...).
        csum_hidden: width of CSUM's five-layer MLP.
        unet_base: width of the denoiser.
        unet_mult: width multipliers of the denoiser's levels.
        unet_blocks: residual blocks per level of the denoiser.
        unet_attention_levels: levels with self-attention after every block.
        unet_mid_attention: self-attention between the two middle blocks.
        norm: normalisation of all residual blocks.
        attention_window: side in pixels of the window over which the IMDBs' channel
            attention takes mean and deviation, odd; 0 = the whole picture (the paper).
        steps: diffusion steps.
        schedule: "linear" in beta (the paper's word) or "sqrt_linear".
        beta: first and last variance.
        prediction: what the denoiser predicts.
        prior_order: which prior map feeds the first unit.
        residual_bicubic: add the bicubically enlarged LR to the output.
        s_max: largest trained scale; conditioning is clipped to it.
        normalise: "scene" = per-band levels of the scene are stretched to [0, 1] before
            the networks and restored after; "none" = pixels go in as they are.
    """

    enc_base: int = 64
    enc_blocks: int = 2
    mult: tuple[int, ...] = (1, 2, 2, 4)
    latent: int = 4
    dec_channels: int = 64
    sr_channels: int = 64
    frus: int = 4
    imdbs: int = 12
    csum_channels: int = 64
    csum_levels: int = 4
    csum_hidden: int = 256
    unet_base: int = 64
    unet_mult: tuple[int, ...] = (1, 2, 2, 4)
    unet_blocks: int = 2
    unet_attention_levels: tuple[int, ...] = (3,)
    unet_mid_attention: bool = True
    norm: Norm = "group"
    attention_window: int = 0
    steps: int = 4
    schedule: Literal["linear", "sqrt_linear"] = "linear"
    beta: tuple[float, float] = (0.1, 0.99)
    prediction: Prediction = "eps"
    prior_order: Literal["fine_to_coarse", "coarse_to_fine"] = "fine_to_coarse"
    residual_bicubic: bool = False
    s_max: int = 8
    normalise: Literal["none", "scene"] = "none"


PAPER = E2DiffSRConfig()
SMALL = E2DiffSRConfig(
    enc_base=16,
    enc_blocks=1,
    dec_channels=16,
    imdbs=2,
    csum_channels=32,
    csum_levels=3,
    csum_hidden=64,
    unet_base=32,
    unet_mult=(1, 2, 2),
    unet_blocks=1,
    unet_attention_levels=(),
    unet_mid_attention=False,
    norm="none",
    attention_window=1,
    residual_bicubic=True,
    s_max=4,
)


# Encoders and denoiser: latent diffusion's layout.


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
        """Run block `j` and its attention."""
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
        return _in_float32(self.conv_out, x)


def split_moments(moments: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and log-variance, clamped to [-30, 20], of a DPEncoder output."""
    mean, logvar = moments.chunk(2, dim=1)
    return mean, logvar.clamp(-30.0, 20.0)


def kl_per_sample(mean: Tensor, logvar: Tensor) -> Tensor:
    """Return (b,) KL divergence from the standard normal, summed over the latent."""
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
        return _in_float32(self.conv_out, x)[..., :rows, :cols]

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
    """Return the (in, out) widths of an up level: one block more, skips concatenated.

    `below` is the width at which the down level began: its last skip has it.
    """
    inputs = [above, *([width] * blocks)]
    skips = [*([width] * blocks), below]
    return [(a + b, width) for a, b in zip(inputs, skips, strict=True)]


def _in_float32(layer: nn.Module, x: Tensor) -> Tensor:
    """Run `layer` in float32 whatever autocast says."""
    with torch.autocast(x.device.type, enabled=False):
        out: Tensor = layer(x.float())
    return out


# SR branch: IMDN's blocks with scale-aware modulation of the prior maps.


class ContrastAttention(nn.Module):
    """Contrast-aware channel attention of IMDN (Hui et al. 2019).

    Deviation + mean per channel, over the whole picture (`window` 0) or over a square
    window around each pixel; in a window of one pixel the deviation is 0 and the block
    is pixel attention.
    """

    def __init__(self, channels: int, window: int = 0) -> None:
        super().__init__()
        self.window = window
        self.conv_du = nn.Sequential(
            nn.Conv2d(channels, channels // 16, 1),
            nn.ReLU(),
            nn.Conv2d(channels // 16, channels, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, c, h, w) to the same shape."""
        weighted: Tensor = x * self.conv_du(self._statistic(x))
        return weighted

    def _statistic(self, x: Tensor) -> Tensor:
        if self.window == 1:
            return x
        if self.window == 0:
            wide = x.float()
            mean = wide.mean((2, 3), keepdim=True)
            variance = (wide - mean).square().mean((2, 3), keepdim=True)
        else:
            wide = x.float()
            mean = self._box(wide)
            variance = (self._box(wide.square()) - mean.square()).clamp_min(0.0)
        # 1e-12 keeps the gradient of a constant channel finite.
        return ((variance + 1e-12).sqrt() + mean).to(x.dtype)

    def _box(self, x: Tensor) -> Tensor:
        return functional.avg_pool2d(
            x, self.window, 1, self.window // 2, count_include_pad=False
        )


class IMDB(nn.Module):
    """Information multi-distillation block (Hui et al. 2019)."""

    def __init__(self, channels: int, window: int = 0) -> None:
        super().__init__()
        kept = channels // 4
        passed = channels - kept
        self.split = [kept, passed]
        self.c1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.c2 = nn.Conv2d(passed, channels, 3, padding=1)
        self.c3 = nn.Conv2d(passed, channels, 3, padding=1)
        self.c4 = nn.Conv2d(passed, kept, 3, padding=1)
        self.c5 = nn.Conv2d(channels, channels, 1)
        self.cca = ContrastAttention(channels, window)

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, c, h, w) to the same shape."""
        kept = []
        rest = x
        for layer in (self.c1, self.c2, self.c3):
            kept_now, rest = torch.split(
                functional.leaky_relu(layer(rest), 0.05), self.split, dim=1
            )
            kept.append(kept_now)
        kept.append(self.c4(rest))
        out: Tensor = x + self.c5(self.cca(torch.cat(kept, dim=1)))
        return out


class FRU(nn.Module):
    """Feature-refinement unit: IMDBs in sequence, all outputs fused, plus the input."""

    def __init__(self, channels: int, imdbs: int, window: int = 0) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(IMDB(channels, window) for _ in range(imdbs))
        self.fuse = nn.Conv2d(imdbs * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, c, h, w) to the same shape."""
        outputs = []
        hidden = x
        for block in self.blocks:
            hidden = block(hidden)
            outputs.append(hidden)
        out: Tensor = x + self.fuse(torch.cat(outputs, dim=1))
        return out


class SRBranch(nn.Module):
    """LR picture and prior maps on the LR grid to features for CSUM (Eqs. 3-5).

    Eq. 4 as meant: the two weights of unit i are normalised to unit length; Eq. 5 uses
    the normalised ones. Unit i looks at prior map i, the finest first.
    """

    def __init__(self, config: E2DiffSRConfig) -> None:
        super().__init__()
        channels = config.sr_channels
        self.coarse_first = config.prior_order == "coarse_to_fine"
        self.conv_in = nn.Conv2d(3, channels, 3, padding=1)
        self.prior = nn.ModuleList(
            nn.Conv2d(config.dec_channels, channels, 3, padding=1)
            for _ in range(config.frus)
        )
        self.frus = nn.ModuleList(
            FRU(channels, config.imdbs, config.attention_window)
            for _ in range(config.frus)
        )
        self.scale_mlp = nn.Sequential(
            nn.Linear(1, 64), nn.ReLU(), nn.Linear(64, 2 * config.frus)
        )
        last = self.scale_mlp[2]
        assert isinstance(last, nn.Linear)
        nn.init.normal_(last.weight, std=1e-3)
        nn.init.ones_(last.bias)  # both weights start equal

    def forward(self, lr: Tensor, priors: Sequence[Tensor], scale: float) -> Tensor:
        """Map LR (b, 3, h, w) and priors, each (b, c, h, w), to (b, C, h, w).

        Args:
            lr: picture in [-1, 1].
            priors: h1 .. h4 resampled to the LR grid.
            scale: conditioning scale (clipped to s_max).
        """
        weights = self._weights(scale, lr)  # (frus, 2)
        first = self.conv_in(lr)
        features = first
        ordered = list(reversed(priors)) if self.coarse_first else list(priors)
        for i, (conv, unit) in enumerate(zip(self.prior, self.frus, strict=True)):
            prior = conv(ordered[i])
            features = unit(weights[i, 0] * features + weights[i, 1] * prior)
        total: Tensor = features + first
        return total

    def _weights(self, scale: float, like: Tensor) -> Tensor:
        ratio = torch.full((1, 1), 1.0 / scale, device=like.device)
        with torch.autocast(like.device.type, enabled=False):
            raw = self.scale_mlp(ratio).reshape(-1, 2)
        normal: Tensor = raw.abs() / (raw.square().sum(1, keepdim=True) + 1e-8).sqrt()
        return normal


# CSUM: continuous-scale upsampling (SADN).


class WeightNormConv2d(nn.Module):
    """Convolution with w = g v / ||v||, norm over all but the output axis."""

    def __init__(self, channels_in: int, channels_out: int, side: int) -> None:
        super().__init__()
        plain = nn.Conv2d(channels_in, channels_out, side)
        assert plain.bias is not None
        self.padding = side // 2
        self.bias = nn.Parameter(plain.bias.detach())
        self.weight_v = nn.Parameter(plain.weight.detach())
        norm = plain.weight.detach().flatten(1).norm(dim=1)
        self.weight_g = nn.Parameter(norm[:, None, None, None])

    def weight(self) -> Tensor:
        """Return the effective weight, (out, in, side, side), float32."""
        weight: Tensor = torch._weight_norm(self.weight_v, self.weight_g, 0)
        return weight

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, in, h, w) to (b, out, h, w)."""
        return functional.conv2d(x, self.weight(), self.bias, padding=self.padding)


class WeightNormLinear(nn.Module):
    """Linear layer with w = g v / ||v||, norm over all but the output axis."""

    def __init__(self, features_in: int, features_out: int) -> None:
        super().__init__()
        plain = nn.Linear(features_in, features_out)
        self.bias = nn.Parameter(plain.bias.detach())
        self.weight_v = nn.Parameter(plain.weight.detach())
        self.weight_g = nn.Parameter(plain.weight.detach().norm(dim=1, keepdim=True))

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, in) to (b, out)."""
        weight = torch._weight_norm(self.weight_v, self.weight_g, 0)
        return functional.linear(x, weight, self.bias)


class CSUM(nn.Module):
    """Continuous-scale upsampling module: maps at 1x, 2x, 4x .. read at any size.

    Args:
        channels: width of the maps.
        levels: number of maps.
        hidden: width of the five-layer pointwise MLP.
        s_max: largest scale of the attention's conditioning.
    """

    def __init__(self, channels: int, levels: int, hidden: int, s_max: float) -> None:
        super().__init__()
        self.s_max = s_max
        self.scale_aware_layer = nn.Sequential(
            WeightNormLinear(1, 64), nn.ReLU(), WeightNormLinear(64, levels)
        )
        self.UPNet_x2_list = nn.ModuleList(
            nn.Sequential(
                WeightNormConv2d(channels, 4 * channels, 3), nn.PixelShuffle(2)
            )
            for _ in range(levels - 1)
        )
        widths = [levels * channels, hidden, hidden, hidden, hidden, 3]
        layers: list[nn.Module] = []
        for a, b in pairwise(widths):
            layers += [WeightNormConv2d(a, b, 1), nn.ReLU()]
        self.fuse = nn.Sequential(*layers[:-1])

    def forward(
        self, x: Tensor, size: tuple[int, int], rows_at_once: int | None = None
    ) -> Tensor:
        """Map features (b, c, h, w) to a picture (b, 3, H, W), linear output.

        Args:
            x: features on the LR grid.
            size: (H, W).
            rows_at_once: evaluate the MLP in strips of so many SR rows, which changes
                nothing but the memory; None = all rows at once.
        """
        maps = [x]
        for up in self.UPNet_x2_list:
            maps.append(up(maps[-1]))
        ratio = max(x.shape[2] / size[0], 1.0 / self.s_max)
        weights = self._weights(ratio, x)
        maps = [m * w.to(m.dtype) for m, w in zip(maps, weights, strict=True)]
        if rows_at_once is None:
            wide = [
                m
                if tuple(m.shape[2:]) == size
                else functional.interpolate(m, size, mode="bilinear")
                for m in maps
            ]
            return self._fuse(torch.cat(wide, dim=1))
        wide = [
            m
            if m.shape[3] == size[1]
            else functional.interpolate(m, (m.shape[2], size[1]), mode="bilinear")
            for m in maps
        ]
        strips = []
        for start in range(0, size[0], rows_at_once):
            count = min(rows_at_once, size[0] - start)
            rows = [_read_rows(m, size[0], start, count) for m in wide]
            strips.append(self._fuse(torch.cat(rows, dim=1)))
        return torch.cat(strips, dim=2)

    def _fuse(self, x: Tensor) -> Tensor:
        hidden = self.fuse[:-1](x)
        return _in_float32(self.fuse[-1], hidden)

    def _weights(self, ratio: float, like: Tensor) -> Tensor:
        with torch.autocast(like.device.type, enabled=False):
            raw = self.scale_aware_layer(torch.full((1, 1), ratio, device=like.device))
        return torch.sigmoid(raw[0])  # (levels,)


def _read_rows(m: Tensor, height: int, start: int, count: int) -> Tensor:
    """Return rows start .. start + count of a map resized linearly to `height` rows."""
    if m.shape[2] == height:
        return m[:, :, start : start + count]
    positions = centre_positions(start, count, m.shape[2] / height, 0.0)
    taps = make_taps(positions, m.shape[2], "linear", m.device)
    above, below = (m.index_select(2, index) for index in taps.source)
    return torch.lerp(above, below, taps.weight[1][:, None].to(m.dtype))


# The whole.


class DEPSR(nn.Module):
    """LR picture and latent to SR picture: DPDecoder, SR branch, CSUM."""

    def __init__(self, config: E2DiffSRConfig) -> None:
        super().__init__()
        self.decoder = PriorDecoder(
            config.latent,
            config.dec_channels,
            levels=len(config.mult),
            blocks=config.enc_blocks,
            norm=config.norm,
        )
        self.branch = SRBranch(config)
        same = config.csum_channels == config.sr_channels
        self.adapt = (
            nn.Identity()
            if same
            else nn.Conv2d(config.sr_channels, config.csum_channels, 3, padding=1)
        )
        self.csum = CSUM(
            config.csum_channels, config.csum_levels, config.csum_hidden, config.s_max
        )
        self.residual_bicubic = config.residual_bicubic
        self.s_max = config.s_max

    def forward(self, lr: Tensor, z: Tensor, size: tuple[int, int]) -> Tensor:
        """Map LR (b, 3, h, w) in [-1, 1] and z (b, C, n, m) to SR (b, 3, H, W).

        The whole picture is at hand: (n, m) covers (H, W) as `latent_size` says.
        """
        grid = (lr.shape[2], lr.shape[3])
        priors = [
            functional.interpolate(h, grid, mode="bicubic") for h in self.decoder(z)
        ]
        sr = self.amplify(lr, priors, size)
        if self.residual_bicubic:
            sr = sr + functional.interpolate(lr, size, mode="bicubic")
        return sr

    def amplify(
        self,
        lr: Tensor,
        priors: Sequence[Tensor],
        size: tuple[int, int],
        rows_at_once: int | None = None,
    ) -> Tensor:
        """Run SR branch and CSUM on prior maps that lie on the LR grid."""
        scale = min(max(size[0] / lr.shape[2], 1.0), float(self.s_max))
        features = self.adapt(self.branch(lr, priors, scale))
        sr: Tensor = self.csum(features, size, rows_at_once)
        return sr


class E2DiffSRNetworks(nn.Module):
    """All networks of one model. `dpencoder` is needed for training only.

    `depsr_detail` is a second set of DEPSR weights, tuned for natural texture; a user's
    `--detail d` runs ``(1 - d) * depsr + d * depsr_detail`` (network interpolation,
    Wang et al. 2019). `latent_scale` is 1 / std of the latent means over training
    patches.
    """

    latent_scale: Tensor
    depsr_detail: DEPSR | None

    def __init__(self, config: E2DiffSRConfig, *, training_parts: bool = True) -> None:
        super().__init__()
        if training_parts:
            self.dpencoder = _encoder(6, 2 * config.latent, config)
        self.condnet = _encoder(3, config.latent, config)
        self.unet = Denoiser(
            config.latent,
            base=config.unet_base,
            mult=config.unet_mult,
            blocks=config.unet_blocks,
            attention_levels=config.unet_attention_levels,
            mid_attention=config.unet_mid_attention,
            norm=config.norm,
        )
        self.depsr = DEPSR(config)
        self.depsr_detail: DEPSR | None = None
        self.register_buffer("latent_scale", torch.ones(()))
        self._initialise(config)

    def add_detail(self) -> None:
        """Give the networks `depsr_detail`, a copy of `depsr`, unless they have it."""
        if self.depsr_detail is None:
            self.depsr_detail = copy.deepcopy(self.depsr)

    def _initialise(self, config: E2DiffSRConfig) -> None:
        """Start the chain at its mean, moments nearly noiseless, residuals small."""
        if config.norm == "none":
            priors = [self.depsr.decoder, self.depsr.branch.prior]
            encoders = [m for n, m in self.named_children() if n != "depsr"]
            for part in [*encoders, *priors]:
                _keep_variance(part)
        nn.init.zeros_(self.unet.conv_out.weight)
        nn.init.zeros_(_bias(self.unet.conv_out))
        if hasattr(self, "dpencoder"):
            # A deviation of 1 would drown the mean at first.
            _bias(self.dpencoder.conv_out).data[config.latent :] = -6.0
        if config.residual_bicubic:
            for unit in self.depsr.branch.frus:
                assert isinstance(unit, FRU)
                unit.fuse.weight.data.mul_(0.1)
            last = self.depsr.csum.fuse[-1]
            assert isinstance(last, WeightNormConv2d)
            last.weight_g.data.mul_(0.1)
            last.bias.data.zero_()


def _encoder(channels_in: int, channels_out: int, config: E2DiffSRConfig) -> Encoder:
    return Encoder(
        channels_in,
        channels_out,
        base=config.enc_base,
        mult=config.mult,
        blocks=config.enc_blocks,
        norm=config.norm,
    )


def _keep_variance(part: nn.Module) -> None:
    """Initialise convolutions without norms so that signals neither fade nor grow.

    torch's default divides the variance by 3 per layer, which normalisation hides; over
    the dozen layers from picture to latent and back it would leave nothing.
    """
    for module in part.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
            nn.init.zeros_(_bias(module))
    for module in part.modules():
        if isinstance(module, ResBlock):
            module.conv1.weight.data.mul_(2.0**0.5)
            module.conv2.weight.data.mul_(0.3)


def _bias(layer: nn.Conv2d) -> Tensor:
    assert layer.bias is not None
    return layer.bias


def latent_size(height: int, width: int) -> tuple[int, int]:
    """Return the latent cells of an SR picture: sides divided by 8, rounded up."""
    return -(-height // CELL), -(-width // CELL)


def enlarge_to_working_grid(lr: Tensor, size: tuple[int, int]) -> Tensor:
    """Return up(LR): bicubic, straight to 8 x the latent size of an SR `size`."""
    rows, cols = latent_size(*size)
    return functional.interpolate(lr, (CELL * rows, CELL * cols), mode="bicubic")


def conditioning_scale(scale: Fraction, s_max: int) -> float:
    """Return the scale that conditions the networks: clipped to [1, s_max]."""
    return float(min(max(scale, Fraction(1)), Fraction(s_max)))


__all__ = [
    "CELL",
    "CSUM",
    "DEPSR",
    "FRU",
    "IMDB",
    "PAPER",
    "SMALL",
    "Denoiser",
    "E2DiffSRConfig",
    "E2DiffSRNetworks",
    "Encoder",
    "PriorDecoder",
    "SRBranch",
    "conditioning_scale",
    "enlarge_to_working_grid",
    "kl_per_sample",
    "latent_size",
    "split_moments",
]
