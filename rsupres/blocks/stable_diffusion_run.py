"""Run the latent U-Net of Stable Diffusion layer by layer.

`diffusers`' own forward has no place for the features that SGDM adds between layers.
`predict` runs the same layers one by one and adds them. It also takes what does not
change between steps (keys and values of a context) or between tiles (shifts of the
steps) ready-made, so that a sampler computes it once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel
    from diffusers.models.attention_processor import Attention
    from diffusers.models.resnet import ResnetBlock2D
    from diffusers.models.transformers.transformer_2d import Transformer2DModel

    _Unit = tuple[ResnetBlock2D, Transformer2DModel | None]

Watch = Callable[[str, Tensor], None]


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
    """Terms that every residual block adds for some steps, made once.

    Attributes:
        rows: in the order in which the residual blocks run, each (steps, channels).
    """

    rows: tuple[Tensor, ...]

    def at(self, k: int) -> StepShifts:
        """Return the shifts of step number `k`, for every picture alike."""
        return StepShifts(tuple(row[k : k + 1] for row in self.rows))


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
    """Return the terms that every residual block adds at diffusion steps (n,).

    Args:
        unet: the latent U-Net.
        t: (n,) diffusion steps.
    """
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
    """Return the U-Net's prediction (b, c, h, w), with features added to its levels.

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
        watch: called with "input", "middle" or "output" and the result of each of SD's
            blocks, before a feature is added.
    """
    shifts = t if isinstance(t, StepShifts) else make_step_shifts(unet, t)
    if isinstance(context, Tensor):
        context = make_context_keys(unet, context)
    run = _Runner(_units(unet), iter(shifts.rows), context, recompute)
    see = watch or _ignore
    skips = _descend(unet, x, features, run, see)
    h = skips[-1]
    for _ in unet.mid_block.resnets:
        h = run.next(h)
    see("middle", h)
    h = _ascend(unet, h, skips, features, run, see)
    out: Tensor = unet.conv_out(functional.silu(unet.conv_norm_out(h)))
    return out


def _descend(
    unet: UNet2DConditionModel,
    x: Tensor,
    features: Sequence[Tensor],
    run: _Runner,
    see: Watch,
) -> list[Tensor]:
    """Run the way down; return the skip connections, the last one is its result."""
    h = unet.conv_in(x)
    see("input", h)
    skips = [h]
    for level, block in enumerate(unet.down_blocks):
        for j in range(len(block.resnets)):
            h = run.next(h)
            see("input", h)
            if j == 0 and level < len(features):
                h = h + features[level].to(h.dtype)
            skips.append(h)
        for sampler in block.downsamplers or ():
            h = sampler(h)
            see("input", h)
            skips.append(h)
    return skips


def _ascend(
    unet: UNet2DConditionModel,
    h: Tensor,
    skips: list[Tensor],
    features: Sequence[Tensor],
    run: _Runner,
    see: Watch,
) -> Tensor:
    """Run the way up from the middle's result; the skip connections are used up."""
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
    return h


def transform(
    module: Transformer2DModel, h: Tensor, pairs: Sequence[tuple[Tensor, Tensor]]
) -> Tensor:
    """Run a transformer of `diffusers` on maps (b, c, h, w); return the same shape.

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
