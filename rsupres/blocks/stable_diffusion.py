"""The latent U-Net and the KL autoencoder of Stable Diffusion, out of `diffusers`.

Both are built from a plain configuration, SD 2.1-base by default. Nothing is
reimplemented: `predict` drives the blocks of the `diffusers` U-Net one by one, because
SGDM adds features between them, where the pipeline's own forward has no opening, and
because keys and values of a constant context are then made once (`make_context_keys`).
Names of other layouts are in `rsupres.blocks.stable_diffusion_keys`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from diffusers.models.attention_processor import Attention

Norm = Literal["group", "pixel"]
_Module = TypeVar("_Module", bound=nn.Module)
# Cosine first, as Stable Diffusion has it; the period is diffusers' own 10,000.
_COSINE_FIRST = True
# What diffusers wants to know of a context even where nothing looks at one.
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


@dataclass(frozen=True)
class ContextKeys:
    """A context after the projections of every cross-attention, made once.

    Attributes:
        pairs: keys and values by number of the cross-attention, each (b, heads, tokens,
            head width); b may be 1 for every picture alike.
    """

    pairs: tuple[tuple[Tensor, Tensor], ...]


class CrossAttention:
    """What `diffusers` calls a processor: attention to a context or to stored keys."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | ContextKeys | None = None,
        attention_mask: Tensor | None = None,
    ) -> Tensor:
        """Return the attention's output, (b, n, c); the names are those of diffusers.

        Args:
            attn: the module with the projections.
            hidden_states: (b, n, c).
            encoder_hidden_states: the context, (b or 1, tokens, context width), or its
                keys and values.
            attention_mask: must be None.
        """
        assert attention_mask is None
        assert encoder_hidden_states is not None
        if isinstance(encoder_hidden_states, ContextKeys):
            key, value = encoder_hidden_states.pairs[self.number]
        else:
            key, value = _project(attn, encoder_hidden_states)
        batch = len(hidden_states)
        query = _split_heads(attn.to_q(hidden_states), attn.heads)
        out = functional.scaled_dot_product_attention(
            query,
            key.to(query.dtype).expand(batch, -1, -1, -1),
            value.to(query.dtype).expand(batch, -1, -1, -1),
        )
        projected: Tensor = attn.to_out[0](out.transpose(1, 2).flatten(2))
        return projected


def build_unet(config: UNetConfig) -> UNet2DConditionModel:
    """Make a U-Net with fresh weights; under `torch.device("meta")` it costs nothing.

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
    for number, attention in enumerate(_cross_attentions(unet)):
        attention.set_processor(CrossAttention(number))
    return with_norm(unet, config.norm)


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
    return with_norm(autoencoder, config.norm)


def with_norm(module: _Module, norm: Norm) -> _Module:
    """Replace every group normalisation below `module` by the wanted kind, in place."""
    if norm == "group":
        return module
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.GroupNorm):
                setattr(parent, name, PixelNorm(child.num_channels, child.eps))
    return module


def make_context_keys(unet: UNet2DConditionModel, context: Tensor) -> ContextKeys:
    """Return keys and values of a context for every cross-attention of a U-Net.

    They depend on the context alone, so a sampler needs them once, not at every step.

    Args:
        unet: made by `build_unet`.
        context: (b or 1, tokens, context width).
    """
    pairs = [_project(attention, context) for attention in _cross_attentions(unet)]
    return ContextKeys(tuple(pairs))


def x_dtype(unet: UNet2DConditionModel) -> torch.dtype:
    """Return the type that a U-Net computes in."""
    dtype: torch.dtype = unet.conv_in.weight.dtype
    return dtype


def embed_steps(unet: UNet2DConditionModel, t: Tensor) -> Tensor:
    """Return the embedding of diffusion steps (b,) as every residual block takes it."""
    emb: Tensor = unet.time_embedding(unet.time_proj(t).to(x_dtype(unet)))
    return emb


def predict(
    unet: UNet2DConditionModel,
    x: Tensor,
    t: Tensor,
    context: Tensor | ContextKeys | None,
    features: Sequence[Tensor] = (),
    *,
    recompute: bool = False,
) -> Tensor:
    """Run the U-Net, with features added after the first block of levels.

    Feature k joins level k twice: after its first residual block (and transformer) on
    the way down, where the sum also enters the skip connection, and after the first one
    on the way up (SGDM, released code; SD's input blocks 1, 4, 7 and output blocks 9,
    6, 3 for k = 0, 1, 2).

    Args:
        unet: made by `build_unet`.
        x: noisy latent, (b, c, h, w), sides multiples of 2 ** (levels - 1).
        t: (b,) or (1,) diffusion steps.
        context: (b or 1, tokens, width), its stored keys, or None without attention.
        features: of level 0, 1 .., each (b, width of the level, h / 2**k, w / 2**k).
        recompute: keep no activations between blocks for the backward pass, but compute
            them again (gradient checkpointing).

    Returns:
        The prediction, (b, c, h, w).
    """
    run = _Runner(embed_steps(unet, t).expand(len(x), -1), context, recompute)
    h = unet.conv_in(x)
    skips = [h]
    for level, block in enumerate(unet.down_blocks):
        for j in range(len(block.resnets)):
            h = run.pair(block, j, h)
            if j == 0 and level < len(features):
                h = h + features[level].to(h.dtype)
            skips.append(h)
        for sampler in block.downsamplers or ():
            h = sampler(h)
            skips.append(h)
    h = run.middle(unet.mid_block, h)
    last = len(unet.up_blocks) - 1
    for k, block in enumerate(unet.up_blocks):
        for j in range(len(block.resnets)):
            h = run.pair(block, j, torch.cat([h, skips.pop()], dim=1))
            if j == 0 and last - k < len(features):
                h = h + features[last - k].to(h.dtype)
        for sampler in block.upsamplers or ():
            h = sampler(h)
    out: Tensor = unet.conv_out(unet.conv_act(unet.conv_norm_out(h)))
    return out


def encode_moments(autoencoder: AutoencoderKL, image: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and clamped log-variance of the latent of (b, 3, H, W) in [-1, 1]."""
    moments = autoencoder.quant_conv(autoencoder.encoder(image))
    mean, logvar = moments.chunk(2, dim=1)
    return mean, logvar.clamp(*LOGVAR_LIMITS)


def decode_latent(autoencoder: AutoencoderKL, z: Tensor) -> Tensor:
    """Return the picture of an unscaled latent, (b, 3, f h, f w), about [-1, 1]."""
    image: Tensor = autoencoder.decoder(autoencoder.post_quant_conv(z))
    return image


@dataclass(frozen=True)
class _Runner:
    """Runs parts of a U-Net with one step embedding and one context."""

    emb: Tensor
    context: Tensor | ContextKeys | None
    recompute: bool

    def pair(self, block: nn.Module, j: int, h: Tensor) -> Tensor:
        """Run residual block `j` of a level and the transformer behind it, if any."""
        attentions = getattr(block, "attentions", None)
        attention = None if attentions is None else attentions[j]
        resnets = block.resnets
        assert isinstance(resnets, nn.ModuleList)
        return self._run(resnets[j], attention, h)

    def middle(self, block: nn.Module, h: Tensor) -> Tensor:
        """Run the middle: a residual block, then transformer and residual block."""
        resnets, attentions = block.resnets, block.attentions
        assert isinstance(resnets, nn.ModuleList)
        assert isinstance(attentions, nn.ModuleList)
        if not len(attentions):
            return self._run(resnets[0], None, h)
        h = self._run(resnets[0], attentions[0], h)
        return self._run(resnets[1], None, h)

    def _run(self, resnet: nn.Module, attention: nn.Module | None, h: Tensor) -> Tensor:
        def work(h: Tensor) -> Tensor:
            out: Tensor = resnet(h, self.emb)
            if attention is not None:
                out = attention(
                    out, encoder_hidden_states=self.context, return_dict=False
                )[0]
            return out

        if not self.recompute:
            return work(h)
        again = checkpoint(work, h, use_reentrant=False)
        assert isinstance(again, Tensor)
        return again


def _cross_attentions(unet: nn.Module) -> Iterator[Attention]:
    """Yield the attentions that look at the context, in the order of the modules."""
    for name, module in unet.named_modules():
        if name.endswith(".attn2"):
            yield module


def _project(attn: Attention, context: Tensor) -> tuple[Tensor, Tensor]:
    """Return keys and values of a context, (b, heads, tokens, head width)."""
    context = context.to(attn.to_k.weight.dtype)
    key, value = attn.to_k(context), attn.to_v(context)
    return _split_heads(key, attn.heads), _split_heads(value, attn.heads)


def _split_heads(x: Tensor, heads: int) -> Tensor:
    rows, n, _ = x.shape
    return x.reshape(rows, n, heads, -1).transpose(1, 2)  # (b, heads, n, c / heads)


def _check_attention(config: UNetConfig) -> None:
    if config.context_width is None and (
        config.attention_levels or config.mid_attention
    ):
        raise ValueError("a U-Net without a context cannot have transformers.")
