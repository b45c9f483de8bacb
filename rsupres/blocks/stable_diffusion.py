"""The latent U-Net and the KL autoencoder of Stable Diffusion, out of `diffusers`.

Both are built from a plain configuration, SD 2.1-base by default, and every layer is
`diffusers`' own. `predict` drives the U-Net's layers one by one, because SGDM adds
features between them, where the pipeline's own forward has no opening, and because what
does not change between steps (keys and values of a context) or between tiles (shifts of
the steps) is then made once. Names of other layouts are in
`rsupres.blocks.stable_diffusion_keys`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from diffusers.models.attention_processor import Attention
    from diffusers.models.resnet import ResnetBlock2D
    from diffusers.models.transformers.transformer_2d import Transformer2DModel

    _Unit = tuple[ResnetBlock2D, Transformer2DModel | None]

Norm = Literal["group", "pixel"]
_Module = TypeVar("_Module", bound=nn.Module)
Watch = Callable[[str, Tensor], None]
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
        pairs: keys and values in the order in which the cross-attentions run, each
            (b, heads, tokens, head width); b may be 1 for every picture alike.
    """

    pairs: tuple[tuple[Tensor, Tensor], ...]


@dataclass(frozen=True)
class StepShifts:
    """What every residual block adds for some steps, made once.

    Attributes:
        rows: in the order in which the residual blocks run, each (steps, channels).
    """

    rows: tuple[Tensor, ...]

    def at(self, k: int) -> StepShifts:
        """Return the shifts of step number `k`, for every picture alike."""
        return StepShifts(tuple(row[k : k + 1] for row in self.rows))


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
    context = context.to(dtype_of(unet))
    blocks = [
        block
        for _, transformer in _units(unet)
        if transformer is not None
        for block in transformer.transformer_blocks
    ]
    return ContextKeys(tuple(_keys_and_values(b.attn2, context) for b in blocks))


def make_step_shifts(unet: UNet2DConditionModel, t: Tensor) -> StepShifts:
    """Return what every residual block adds at diffusion steps (n,)."""
    embedded = unet.time_embedding(unet.time_proj(t).to(dtype_of(unet)))
    active = functional.silu(embedded)
    return StepShifts(tuple(r.time_emb_proj(active) for r, _ in _units(unet)))


def dtype_of(unet: UNet2DConditionModel) -> torch.dtype:
    """Return the type that a U-Net computes in."""
    dtype: torch.dtype = unet.conv_in.weight.dtype
    return dtype


def predict(
    unet: UNet2DConditionModel,
    x: Tensor,
    t: Tensor | StepShifts,
    context: Tensor | ContextKeys | None,
    features: Sequence[Tensor] = (),
    *,
    recompute: bool = False,
    watch: Watch | None = None,
) -> Tensor:
    """Run the U-Net, with features added after the first block of levels.

    Feature k joins level k twice: after its first residual block (and transformer) on
    the way down, where the sum also enters the skip connection, and after the first one
    on the way up (SGDM, released code; SD's input blocks 1, 4, 7 and output blocks 9,
    6, 3 for k = 0, 1, 2).

    Args:
        unet: made by `build_unet`.
        x: noisy latent, (b, c, h, w), sides multiples of 2 ** (levels - 1).
        t: (b,) or (1,) diffusion steps, or the shifts of one step.
        context: (b or 1, tokens, width), its stored keys, or None without attention.
        features: of level 0, 1 .., each (b, width of the level, h / 2**k, w / 2**k).
        recompute: keep no activations between blocks for the backward pass, but compute
            them again (gradient checkpointing).
        watch: told what each of SD's blocks returns, before a feature is added.

    Returns:
        The prediction, (b, c, h, w).
    """
    shifts = t if isinstance(t, StepShifts) else make_step_shifts(unet, t)
    if isinstance(context, Tensor):
        context = make_context_keys(unet, context)
    run = _Runner(_units(unet), iter(shifts.rows), context, recompute)
    see = watch or _ignore
    skips: list[Tensor] = []

    def descend(h: Tensor) -> Tensor:
        see("input", h)
        skips.append(h)
        return h

    h = descend(unet.conv_in(x))
    for level, block in enumerate(unet.down_blocks):
        for j in range(len(block.resnets)):
            h = run.next(h)
            see("input", h)
            if j == 0 and level < len(features):
                h = h + features[level].to(h.dtype)
            skips.append(h)
        for sampler in block.downsamplers or ():
            h = descend(sampler(h))
    for _ in unet.mid_block.resnets:
        h = run.next(h)
    see("middle", h)
    last = len(unet.up_blocks) - 1
    for k, block in enumerate(unet.up_blocks):
        for j in range(len(block.resnets)):
            h = run.next(torch.cat([h, skips.pop()], dim=1))
            if j == len(block.resnets) - 1:
                for sampler in block.upsamplers or ():
                    h = sampler(h)
            see("output", h)
            if j == 0 and last - k < len(features):
                h = h + features[last - k].to(h.dtype)
    out: Tensor = unet.conv_out(functional.silu(unet.conv_norm_out(h)))
    return out


def transform(
    module: Transformer2DModel, h: Tensor, pairs: Sequence[tuple[Tensor, Tensor]]
) -> Tensor:
    """Run a transformer of `diffusers` on feature maps (b, c, h, w).

    Args:
        module: with its projections, norms and blocks.
        h: feature maps.
        pairs: keys and values of the context for each of its blocks.
    """
    linear = isinstance(module.proj_in, nn.Linear)
    x = module.norm(h)
    x = x if linear else module.proj_in(x)
    x = x.permute(0, 2, 3, 1).flatten(1, 2)  # (b, h w, c)
    x = module.proj_in(x) if linear else x
    for block, (key, value) in zip(module.transformer_blocks, pairs, strict=True):
        seen = block.norm1(x)
        x = x + _attend(block.attn1, seen, *_keys_and_values(block.attn1, seen))
        x = x + _attend(block.attn2, block.norm2(x), key, value)
        x = x + block.ff(block.norm3(x))
    x = module.proj_out(x) if linear else x
    x = x.unflatten(1, h.shape[2:]).permute(0, 3, 1, 2)  # (b, c, h, w)
    out: Tensor = h + (x if linear else module.proj_out(x))
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


def _ignore(kind: str, h: Tensor) -> None:
    """Watch nothing."""


def _units(unet: UNet2DConditionModel) -> Iterator[_Unit]:
    """Yield residual blocks, each with the transformer behind it, as they run."""
    for block in unet.down_blocks:
        yield from _units_of(block)
    yield from _units_of(unet.mid_block)
    for block in unet.up_blocks:
        yield from _units_of(block)


def _units_of(block: nn.Module) -> Iterator[_Unit]:
    """Yield the units of a level; in the middle the last block has no transformer."""
    resnets: Sequence[ResnetBlock2D] = list(block.resnets)  # type: ignore[arg-type]  # a ModuleList
    attentions = list(getattr(block, "attentions", None) or [])
    padding = [None] * (len(resnets) - len(attentions))
    yield from zip(resnets, [*attentions, *padding], strict=True)


@dataclass(frozen=True)
class _Runner:
    """Runs the units of a U-Net one after the other, for one step and one context."""

    units: Iterator[_Unit]
    shifts: Iterator[Tensor]
    context: ContextKeys | None
    recompute: bool
    _used: list[int] = field(default_factory=lambda: [0])

    def next(self, h: Tensor) -> Tensor:
        """Run the next unit on feature maps."""
        resnet, transformer = next(self.units)
        shift = next(self.shifts)
        pairs: Sequence[tuple[Tensor, Tensor]] = ()
        if transformer is not None:
            assert self.context is not None
            first = self._used[0]
            self._used[0] += len(transformer.transformer_blocks)
            pairs = self.context.pairs[first : self._used[0]]

        def work(h: Tensor) -> Tensor:
            out = _residual(resnet, h, shift)
            return out if transformer is None else transform(transformer, out, pairs)

        if not self.recompute:
            return work(h)
        again = checkpoint(work, h, use_reentrant=False)
        assert isinstance(again, Tensor)
        return again


def _residual(module: ResnetBlock2D, h: Tensor, shift: Tensor) -> Tensor:
    """Run a residual block whose part of the step is known, (b or 1, c)."""
    x = module.conv1(functional.silu(module.norm1(h)))
    x = x + shift[:, :, None, None]
    x = module.conv2(functional.silu(module.norm2(x)))
    if module.conv_shortcut is not None:
        h = module.conv_shortcut(h)
    out: Tensor = h + x
    return out


def _attend(attn: Attention, x: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attend from tokens (b, n, c) to keys and values of b pictures, or of one."""
    query = _split_heads(attn.to_q(x), attn.heads)
    shape = (len(x), -1, -1, -1)
    out = functional.scaled_dot_product_attention(
        query, key.expand(shape), value.expand(shape)
    )
    projected: Tensor = attn.to_out[0](out.transpose(1, 2).flatten(2))
    return projected


def _keys_and_values(attn: Attention, context: Tensor) -> tuple[Tensor, Tensor]:
    """Return keys and values of tokens, each (b, heads, tokens, head width)."""
    key, value = attn.to_k(context), attn.to_v(context)
    return _split_heads(key, attn.heads), _split_heads(value, attn.heads)


def _split_heads(x: Tensor, heads: int) -> Tensor:
    rows, n, _ = x.shape
    return x.reshape(rows, n, heads, -1).transpose(1, 2)  # (b, heads, n, c / heads)


def _check_attention(config: UNetConfig) -> None:
    attends = config.attention_levels or config.mid_attention
    if config.context_width is None and attends:
        raise ValueError("a U-Net without a context cannot have transformers.")
