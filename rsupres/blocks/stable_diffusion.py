"""Build the latent U-Net and the KL autoencoder of Stable Diffusion with `diffusers`.

Both are built from a plain configuration, SD 2.1-base by default, and every layer is
`diffusers`' own. `rsupres.blocks.stable_diffusion_run` runs the U-Net;
`rsupres.blocks.stable_diffusion_keys` knows the parameter names of other layouts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeVar

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, UNet2DConditionModel

Norm = Literal["group", "pixel"]
_Module = TypeVar("_Module", bound=nn.Module)
# Cosine before sine, as in Stable Diffusion; the period is diffusers' own 10,000.
_COSINE_FIRST = True
# Width of a context that diffusers requires even if no layer attends to one.
_UNUSED_CONTEXT = 32
LOGVAR_LIMITS = (-30.0, 20.0)


@dataclass(frozen=True)
class UNetConfig:
    """A latent U-Net; the defaults are those of SD 2.1-base, 865,910,724 parameters.

    Attributes:
        latent: channels in and out.
        width: channels of the first level.
        multipliers: of the width, per level; every level but the last halves.
        blocks: residual blocks per level on the way down, one more on the way up.
        attention_levels: levels with a transformer after every residual block.
        mid_attention: whether the middle has one.
        head_width: channels of an attention head.
        context_width: channels of a context token; None = no cross-attention, and then
            no transformer anywhere.
        depth: transformer blocks in each transformer.
        linear: whether projections around a transformer are linear, not 1x1
            convolutions; the same numbers in another shape.
        groups: of group normalisation.
        norm: "group", or "pixel": over the channels of one pixel, so that a result does
            not depend on how far the picture reaches.
    """

    latent: int = 4
    width: int = 320
    multipliers: tuple[int, ...] = (1, 2, 4, 4)
    blocks: int = 2
    attention_levels: tuple[int, ...] = (0, 1, 2)
    mid_attention: bool = True
    head_width: int = 64
    context_width: int | None = 1024
    depth: int = 1
    linear: bool = True
    groups: int = 32
    norm: Norm = "group"

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of every level."""
        return tuple(self.width * m for m in self.multipliers)


@dataclass(frozen=True)
class AutoencoderConfig:
    """A KL autoencoder; the defaults are SD's KL-f8, 83,653,863 parameters.

    Attributes:
        latent: channels of the latent.
        width: channels of the first level.
        multipliers: of the width, per level; every level but the last halves.
        blocks: residual blocks per level of the encoder, one more in the decoder.
        mid_attention: whether the middle has a single-head attention.
        groups: of group normalisation.
        norm: see `UNetConfig`.
    """

    latent: int = 4
    width: int = 128
    multipliers: tuple[int, ...] = (1, 2, 4, 4)
    blocks: int = 2
    mid_attention: bool = True
    groups: int = 32
    norm: Norm = "group"

    @property
    def factor(self) -> int:
        """SR pixels along one latent cell."""
        return int(2 ** (len(self.multipliers) - 1))


class PixelNorm(nn.Module):
    """Divide by the root mean square over the channels of each pixel; gain and bias."""

    def __init__(self, channels: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, c, h, w) to the same shape."""
        power = x.float().square().mean(dim=1, keepdim=True)
        scaled = x * (power + self.eps).rsqrt().to(x.dtype)
        gain, bias = (v.to(x.dtype)[:, None, None] for v in (self.weight, self.bias))
        return torch.addcmul(bias, scaled, gain)


def build_unet(config: UNetConfig) -> UNet2DConditionModel:
    """Make a U-Net with fresh weights; under `torch.device("meta")` without memory.

    Raises:
        ValueError: attention is asked for without a context.
    """
    from diffusers import UNet2DConditionModel

    _check_attention(config)
    attends = [k in config.attention_levels for k in range(len(config.widths))]
    down = ["CrossAttnDownBlock2D" if a else "DownBlock2D" for a in attends]
    up = ["CrossAttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attends)]
    unet = UNet2DConditionModel(
        in_channels=config.latent,
        out_channels=config.latent,
        flip_sin_to_cos=_COSINE_FIRST,
        down_block_types=tuple(down),
        mid_block_type=(
            "UNetMidBlock2DCrossAttn" if config.mid_attention else "UNetMidBlock2D"
        ),
        up_block_types=tuple(up),
        block_out_channels=config.widths,
        layers_per_block=config.blocks,
        # The name says width, diffusers takes the number of heads.
        attention_head_dim=tuple(max(w // config.head_width, 1) for w in config.widths),
        cross_attention_dim=config.context_width or _UNUSED_CONTEXT,
        transformer_layers_per_block=config.depth,
        use_linear_projection=config.linear,
        norm_num_groups=config.groups,
    )
    return _with_norm(unet, config.norm)


def build_autoencoder(config: AutoencoderConfig) -> AutoencoderKL:
    """Make a KL autoencoder with fresh weights."""
    from diffusers import AutoencoderKL

    levels = len(config.multipliers)
    autoencoder = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=tuple(config.width * m for m in config.multipliers),
        layers_per_block=config.blocks,
        latent_channels=config.latent,
        norm_num_groups=config.groups,
        mid_block_add_attention=config.mid_attention,
    )
    return _with_norm(autoencoder, config.norm)


def _with_norm(module: _Module, norm: Norm) -> _Module:
    """Replace every group normalisation below `module`, in place, and return it."""
    if norm == "group":
        return module
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.GroupNorm):
                setattr(parent, name, PixelNorm(child.num_channels, child.eps))
    return module


def encode_moments(autoencoder: AutoencoderKL, image: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and clamped log-variance of the latent of (b, 3, H, W) in [-1, 1].

    Args:
        autoencoder: of Stable Diffusion's kind.
        image: (b, 3, H, W) in [-1, 1].
    """
    moments = autoencoder.quant_conv(autoencoder.encoder(image))
    mean, logvar = moments.chunk(2, dim=1)
    return mean, logvar.clamp(*LOGVAR_LIMITS)


def decode_latent(autoencoder: AutoencoderKL, z: Tensor) -> Tensor:
    """Return the picture of an unscaled latent, (b, 3, f h, f w), about [-1, 1].

    Args:
        autoencoder: of Stable Diffusion's kind.
        z: (b, 4, h, w), not scaled.
    """
    image: Tensor = autoencoder.decoder(autoencoder.post_quant_conv(z))
    return image


def _check_attention(config: UNetConfig) -> None:
    attends = config.attention_levels or config.mid_attention
    if config.context_width is None and attends:
        raise ValueError("a U-Net without a context cannot have transformers.")
