"""The U-Net of Ref-Diff, modulated by LR image, reference and change mask.

Dong et al., "Building Bridges across Spatial and Temporal Resolutions: Reference-Based
Super-Resolution via Change Priors and Conditional Diffusion Model", CVPR 2024, arXiv
2403.17460, where paper and released code differ as the code has it: only one decoder
block has attention. Parameter names are the released ones without their ``model.``. No
pixels are read here, no noise levels known and no losses.

The arithmetic is the released one, done with less work: the conditions are resized once
for each resolution instead of 38 times; the additive embeddings of all blocks are one
matrix product, for any number of noise levels at once. The layout of the weights
decides that of all features: channels together are faster, apart more accurate (torch
2.13's CPU kernels: 3e-7 against 2e-6 of a convolution of 516 channels).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from rsupres.blocks.embeddings import sinusoidal_embedding
from rsupres.families.refdiff.base import BaseNetwork
from rsupres.families.refdiff.blocks import (
    SFT,
    Block,
    BlockShape,
    DecoderBlock,
    EncoderBlock,
    PixelNorm,
    norm_layer,
)
from rsupres.families.refdiff.config import RefDiffConfig


class Guidance(NamedTuple):
    """The inputs of the network, all on the grid of its input, (b, ., H, W).

    Attributes:
        lr: the enlarged LR image, 3 channels in [-1, 1].
        reference: the earlier image, 3 channels in [-1, 1].
        mask: the change mask, 1 channel; 3 when it is "outlined".
    """

    lr: Tensor
    reference: Tensor
    mask: Tensor


class ConditionMaps(NamedTuple):
    """Conditions as the network uses them: the stem's part and one pair a level.

    Attributes:
        stem: channels beside the noisy image, (b, 7, H, W) if `patch` is 1.
        levels: for each level, finest first, [LR, mask] and [reference, mask].
    """

    stem: Tensor
    levels: tuple[tuple[Tensor, Tensor], ...]


class RefDiffUNet(nn.Module):
    """F of Ref-Diff: noisy image, noise level and conditions to the raw output.

    `base` is no part of F: it makes the picture below the detail, see `make_frame`.
    """

    base: BaseNetwork | None

    def __init__(self, config: RefDiffConfig) -> None:
        super().__init__()
        self.config = config
        wide = 4 * config.channels
        self.map_layer0 = nn.Linear(config.channels, wide)
        self.map_layer1 = nn.Linear(wide, wide)
        self.enc, skips = _encoder(config)
        self.dec = _decoder(config, skips)
        self.base = None
        if config.base_units:
            self.base = BaseNetwork(config.base_channels, config.base_units)

    @property
    def dtype(self) -> torch.dtype:
        """Type of the features: that of the convolutions."""
        return next(iter(self.enc.values())).weight.dtype  # type: ignore[return-value]  # the stem

    def shifts(self, c_noise: Tensor) -> Tensor:
        """Return all blocks' embeddings, (n, sum of widths), of (n,) ln(sigma) / 4."""
        embedded = sinusoidal_embedding(c_noise, self.config.channels)
        embedded = functional.silu(self.map_layer0(embedded))
        embedded = functional.silu(self.map_layer1(embedded))
        layers = [block.affine for block in self._blocks()]
        weight = torch.cat([layer.weight for layer in layers])
        bias = torch.cat([layer.bias for layer in layers])
        return functional.linear(embedded, weight, bias)

    def maps(self, guidance: Guidance) -> ConditionMaps:
        """Resize the conditions once for every level, nearest neighbour.

        With `patch` > 1 the reference's pixels become channels on the stem's grid, the
        LR image its means there, and of the mask's channels the first the largest value
        of a cell; the others keep their pixels, as the reference does, and go where the
        LR image goes.
        """
        lr, reference, mask = guidance
        outlines = mask[:, 1:]
        mask = mask[:, :1]
        if self.config.patch > 1:
            side = self.config.patch
            reference = functional.pixel_unshuffle(reference, side)
            lr = functional.avg_pool2d(lr, side)
            mask = functional.max_pool2d(mask, side)
            outlines = functional.pixel_unshuffle(outlines, side)
        stem = self._laid_out(torch.cat([lr, reference, mask, outlines], dim=1))
        pairs = []
        for level in range(len(self.config.mult)):
            step = 2**level
            pair = [torch.cat(p, 1) for p in ((lr, mask, outlines), (reference, mask))]
            small = [self._laid_out(image[:, :, ::step, ::step]) for image in pair]
            pairs.append((small[0], small[1]))
        return ConditionMaps(stem, tuple(pairs))

    def forward(self, x: Tensor, shifts: Tensor, maps: ConditionMaps) -> Tensor:
        """Return F, (b, 3, H, W).

        Args:
            x: the scaled noisy image, (b, 3, H, W).
            shifts: rows of `shifts`, (b, .) or (1, .).
            maps: of the same samples.
        """
        side = self.config.patch
        if side > 1:
            x = functional.pixel_unshuffle(x, side)
        widths = [block.affine.out_features for block in self._blocks()]
        columns = shifts.to(self.dtype)[:, :, None, None]
        rows = iter(torch.split(columns, widths, dim=1))
        x = torch.cat([self._laid_out(x), maps.stem], dim=1)
        skips = []
        for layer in self.enc.values():
            x = layer(x, next(rows)) if isinstance(layer, Block) else layer(x)
            skips.append(x)
        level = len(self.config.mult) - 1
        for name, layer in self.dec.items():
            if not isinstance(layer, DecoderBlock):
                break
            guided = maps.levels[level][0]
            if name.endswith("_up"):
                level -= 1
            if "_block" in name:
                x = torch.cat([x, skips.pop()], dim=1)
            x = layer(x, next(rows), guided, maps.levels[level][1])
        norm, conv = list(self.dec.values())[-2:]
        out: Tensor = conv(functional.silu(norm(x)))
        return functional.pixel_shuffle(out, side) if side > 1 else out

    def _laid_out(self, x: Tensor) -> Tensor:
        """Return x in the type and layout of the weights, with which it is joined."""
        weight = next(iter(self.enc.values())).weight
        assert isinstance(weight, Tensor)
        together = weight.is_contiguous(memory_format=torch.channels_last)
        layout = torch.channels_last if together else torch.contiguous_format
        return x.to(weight.dtype).contiguous(memory_format=layout)

    def _blocks(self) -> list[Block]:
        layers = [*self.enc.values(), *self.dec.values()]
        return [layer for layer in layers if isinstance(layer, Block)]


def parameter_shapes(config: RefDiffConfig) -> Mapping[str, tuple[int, ...]]:
    """Return every parameter's shape by name, without making the parameters."""
    with torch.device("meta"):
        network = RefDiffUNet(config)
    return {name: tuple(p.shape) for name, p in network.named_parameters()}


def freeze_(network: RefDiffUNet, dtype: torch.dtype) -> None:
    """Make a network ready for inference alone, its convolutions in `dtype`.

    The weights of modulations are joined; embeddings and the first and last layer of
    `base` stay in float32; results of `forward` come in `dtype`.

    Args:
        network: changed in place.
        dtype: of its convolutions.
    """
    network.eval().requires_grad_(False)
    for name, module in network.named_modules():
        if name.startswith("base."):
            continue
        if isinstance(module, nn.Conv2d | nn.GroupNorm | PixelNorm):
            module.to(dtype)
    if network.base is not None:
        network.base.units.to(dtype)
    for module in network.modules():
        if isinstance(module, SFT):
            module.joined = module.join()


@torch.no_grad()
def initialise_(network: RefDiffUNet) -> None:
    """Draw fresh parameters as the released code does.

    Convolutions and Linear: Xavier-uniform, biases 0; `conv1`, `proj` and the head
    times 1e-5, `qkv` times sqrt(0.2). Modulations keep torch's own initialisation,
    `base` its own.
    """
    for name, module in network.named_modules():
        if not isinstance(module, nn.Conv2d | nn.Linear):
            continue
        if ".sft" in name or name.startswith("base."):
            continue
        nn.init.xavier_uniform_(module.weight)
        last = name.rsplit(".", 1)[-1]
        if last in ("conv1", "proj") or last.endswith("aux_conv"):
            module.weight.mul_(1e-5)
        elif last == "qkv":
            module.weight.mul_(0.2**0.5)
        assert module.bias is not None
        module.bias.zero_()


def _encoder(config: RefDiffConfig) -> tuple[nn.ModuleDict, list[int]]:
    """Return the encoder's layers by name and the widths of their outputs."""
    layers: dict[str, nn.Module] = {}
    width = config.channels
    c_in = 2 * config.image_channels + 3 + config.mask_channels
    skips = []
    for level, mult in enumerate(config.mult):
        side = config.nominal >> level
        head = f"{side}x{side}_"
        if level == 0:
            layers[head + "conv"] = nn.Conv2d(c_in, width, 3, padding=1)
        else:
            layers[head + "down"] = EncoderBlock(
                BlockShape(width, width, "down"), config
            )
        skips.append(width)
        for k in range(config.blocks):
            attends = side in config.attention
            shape = BlockShape(width, config.channels * mult, attention=attends)
            layers[f"{head}block{k}"] = EncoderBlock(shape, config)
            width = config.channels * mult
            skips.append(width)
    return nn.ModuleDict(layers), skips


def _decoder(config: RefDiffConfig, skips: list[int]) -> nn.ModuleDict:
    """Return the decoder's layers by name; `skips` are the encoder's widths."""
    layers: dict[str, nn.Module] = {}
    skips = list(skips)
    width = skips[-1]
    for level in reversed(range(len(config.mult))):
        side = config.nominal >> level
        head = f"{side}x{side}_"
        if level == len(config.mult) - 1:
            shape = BlockShape(width, width)
            first = shape._replace(attention=config.middle_attention)
            layers[head + "in0"] = DecoderBlock(first, config)
            layers[head + "in1"] = DecoderBlock(shape, config)
        else:
            layers[head + "up"] = DecoderBlock(BlockShape(width, width, "up"), config)
        for k in range(config.blocks + 1):
            attends = k == config.blocks and side in config.attention
            c_in, width = width + skips.pop(), config.channels * config.mult[level]
            shape = BlockShape(c_in, width, attention=attends)
            layers[f"{head}block{k}"] = DecoderBlock(shape, config)
    head = f"{config.nominal}x{config.nominal}_aux_"
    layers[head + "norm"] = norm_layer(config.norm, width)
    layers[head + "conv"] = nn.Conv2d(width, config.image_channels, 3, padding=1)
    return nn.ModuleDict(layers)
