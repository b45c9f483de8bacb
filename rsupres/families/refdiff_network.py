"""The network of Ref-Diff: a U-Net that LR, reference and change mask modulate.

Dong et al., "Building Bridges across Spatial and Temporal Resolutions: Reference-Based
Super-Resolution via Change Priors and Conditional Diffusion Model", CVPR 2024, arXiv
2403.17460, where paper and released code differ as the code has it: the gain of a
modulation passes through a sigmoid, the conditions enter raw, only one decoder block
has attention. Parameter names are the released ones without their ``model.``.

No pixels are read here, no noise levels known and no losses. Two choices of
`RefDiffConfig` keep what looks at the whole picture out, so that tiles cannot show:
``norm`` "pixel" or "none", and no attention.

The arithmetic is the released one, done with less work: the two branches of a
modulation share their input and so one convolution; the conditions are resized once
for each resolution instead of 38 times; the additive embeddings of all blocks are one
matrix product, for any number of noise levels at once. The layout of the weights
decides that of all features: channels together are faster, apart more accurate (torch
2.13's CPU kernels: 3e-7 against 2e-6 of a convolution of 516 channels).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from rsupres.blocks.embeddings import sinusoidal_embedding

RefDiffNorm = Literal["group", "pixel", "none"]
Resampling = Literal["none", "down", "up"]
_EPS = 1e-6
_HALF_ROOT = 0.5**0.5
_SLOPE = 0.1  # of the modulations' leaky ReLU


@dataclass(frozen=True)
class RefDiffConfig:
    """Everything that shapes a Ref-Diff model; stored in its checkpoint.

    The defaults are the released configuration. The second half are ours.

    Attributes:
        nominal: side that the levels' names count from; the input may have any size.
        channels: width of the stem; the embedding is four times as wide.
        mult: width multipliers of the levels, finest first.
        blocks: residual blocks a level of the encoder; the decoder has one more.
        attention: nominal sides of the levels with attention.
        middle_attention: attention in the first decoder block.
        sft_width: hidden width of each branch of a modulation.
        norm: "group" (released), or "pixel" / "none", which no tile can tell.
        dropout: in training, between the convolutions of a block.
        patch: side of the cells of pixels that become channels at the door and pixels
            again at the end; 1 = none, as released.
        image: what is denoised: "picture" (released), or "detail": what a plain blend
            of the enlarged LR image and the reference's detail lacks, times
            `detail_gain`; the reference is shown in the LR image's colours.
        detail_gain: brings the detail to about the deviation that EDM is made for.
        trust: share of the reference's detail in that blend where nothing changed.
        lr_kernel: how the LR image is enlarged to the SR grid.
        mask: how class codes enter: "raw", the value of the file / 255 (released), or
            "outlined": where the reference is of no use, what changed, and where parts
            of different codes meet, the last two to the pixel. The reference is not
            shown where something changed.
        sigma_min: smallest noise level of sampling.
        sigma_max: largest one.
        rho: exponent of the levels.
        sampler: a name of `rsupres.families.refdiff.SAMPLERS`.
        steps: of that sampler.
    """

    nominal: int = 256
    channels: int = 128
    mult: tuple[int, ...] = (2, 2, 2)
    blocks: int = 4
    attention: tuple[int, ...] = (16,)
    middle_attention: bool = True
    sft_width: int = 128
    norm: RefDiffNorm = "group"
    dropout: float = 0.2
    patch: int = 1
    image: Literal["picture", "detail"] = "picture"
    detail_gain: float = 1.0
    trust: float = 0.0
    lr_kernel: Literal["nearest", "bilinear", "bicubic"] = "nearest"
    mask: Literal["raw", "outlined"] = "raw"
    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0
    sampler: str = "released"
    steps: int = 256

    @property
    def image_channels(self) -> int:
        """Channels of an image inside the network."""
        return 3 * self.patch**2

    @property
    def mask_channels(self) -> int:
        """Channels of a change mask inside the network."""
        return 1 if self.mask == "raw" else 1 + 2 * self.patch**2

    @property
    def multiple(self) -> int:
        """Sides of the input must be multiples of this."""
        return int(self.patch * 2 ** (len(self.mult) - 1))


RELEASED = RefDiffConfig()
MINI = RefDiffConfig(
    channels=48,
    mult=(1, 1),
    blocks=1,
    attention=(),
    middle_attention=False,
    sft_width=24,
    norm="pixel",
    dropout=0.0,
    patch=4,
    image="detail",
    detail_gain=3.0,
    trust=0.5,
    lr_kernel="bicubic",
    mask="outlined",
    sigma_min=0.05,
    sigma_max=2.0,
    sampler="mean",
    steps=3,
)


class Guidance(NamedTuple):
    """What the network looks at, all on the grid of its input, (b, ., H, W).

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
        stem: what joins the noisy image at the door, (b, 7, H, W) if `patch` is 1.
        levels: for each level, finest first, [LR, mask] and [reference, mask].
    """

    stem: Tensor
    levels: tuple[tuple[Tensor, Tensor], ...]


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
        hidden = functional.conv2d(both, weight1, bias1, padding=1)
        hidden = functional.leaky_relu(hidden, _SLOPE)  # (b, 2 width, h, w)
        parts = functional.conv2d(hidden, weight2, bias2, padding=1, groups=2)
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

    def __init__(self, c_in: int, c_out: int, side: int, resampling: Resampling):
        super().__init__(c_in, c_out, side, padding=side // 2)
        self.resampling = resampling

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, c_in, h, w) to (b, c_out, h', w')."""
        if self.resampling == "down":
            x = functional.avg_pool2d(x, 2)
        elif self.resampling == "up":
            x = functional.interpolate(x, scale_factor=2.0, mode="nearest")
        return super().forward(x)


class Block(nn.Module):
    """What encoder and decoder blocks have in common.

    Args:
        c_in: channels of the input.
        c_out: channels of the output.
        config: the architecture.
        resampling: of the first convolution and of the skip.
        attention: whether single-head attention over all positions ends the block.
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        config: RefDiffConfig,
        resampling: Resampling = "none",
        attention: bool = False,
    ) -> None:
        super().__init__()
        self.dropout = config.dropout
        self.norm0 = _norm(config.norm, c_in)
        self.conv0 = ResampleConv(c_in, c_out, 3, resampling)
        self.affine = nn.Linear(4 * config.channels, c_out)
        self.norm1 = _norm(config.norm, c_out)
        self.conv1 = nn.Conv2d(c_out, c_out, 3, padding=1)
        adapts = c_in != c_out or resampling != "none"
        self.skip = ResampleConv(c_in, c_out, 1, resampling) if adapts else None
        if attention:
            self.norm2 = _norm(config.norm, c_out)
            self.qkv = nn.Conv2d(c_out, 3 * c_out, 1)
            self.proj = nn.Conv2d(c_out, c_out, 1)
        self.attends = attention

    def finish(self, hidden: Tensor, x: Tensor) -> Tensor:
        """Run the second half of the block, from dropout on."""
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

    def __init__(
        self,
        c_in: int,
        c_out: int,
        config: RefDiffConfig,
        resampling: Resampling = "none",
        attention: bool = False,
    ) -> None:
        super().__init__(c_in, c_out, config, resampling, attention)
        self.sft0 = SFT(c_in, 3 + config.mask_channels, config.sft_width)
        self.sft1 = SFT(c_out, config.image_channels + 1, config.sft_width)

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


class RefDiffUNet(nn.Module):
    """F of Ref-Diff: noisy image, noise level and conditions to the raw output."""

    def __init__(self, config: RefDiffConfig) -> None:
        super().__init__()
        self.config = config
        wide = 4 * config.channels
        self.map_layer0 = nn.Linear(config.channels, wide)
        self.map_layer1 = nn.Linear(wide, wide)
        self.enc, skips = _encoder(config)
        self.dec = _decoder(config, skips)

    @property
    def dtype(self) -> torch.dtype:
        """Type of the features: that of the convolutions."""
        return next(iter(self.enc.values())).weight.dtype  # type: ignore[return-value]  # the stem

    def shifts(self, c_noise: Tensor) -> Tensor:
        """Return the additive embeddings of every block for n noise levels.

        Args:
            c_noise: (n,) ln(sigma) / 4.

        Returns:
            (n, sum of all blocks' widths); `forward` takes one row per sample.
        """
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
        """Return x in the features' type, in the layout of the weights.

        Where the two differ, torch would copy all features to join them.
        """
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

    Weights of modulations are joined for good; embeddings stay in float32; results of
    `forward` come in `dtype`.
    """
    network.eval().requires_grad_(False)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.GroupNorm | PixelNorm):
            module.to(dtype)
    for module in network.modules():
        if isinstance(module, SFT):
            module.joined = module.join()


@torch.no_grad()
def initialise_(network: RefDiffUNet) -> None:
    """Draw fresh parameters as the released code does.

    Convolutions and Linear: Xavier-uniform, biases 0; `conv1`, `proj` and the head
    times 1e-5, `qkv` times sqrt(0.2). Modulations keep torch's own initialisation.
    """
    for name, module in network.named_modules():
        if not isinstance(module, nn.Conv2d | nn.Linear) or ".sft" in name:
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
            layers[head + "down"] = EncoderBlock(width, width, config, "down")
        skips.append(width)
        for k in range(config.blocks):
            attends = side in config.attention
            layers[f"{head}block{k}"] = EncoderBlock(
                width, config.channels * mult, config, attention=attends
            )
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
            middle = config.middle_attention
            layers[head + "in0"] = DecoderBlock(width, width, config, attention=middle)
            layers[head + "in1"] = DecoderBlock(width, width, config)
        else:
            layers[head + "up"] = DecoderBlock(width, width, config, "up")
        for k in range(config.blocks + 1):
            attends = k == config.blocks and side in config.attention
            c_in, width = width + skips.pop(), config.channels * config.mult[level]
            layers[f"{head}block{k}"] = DecoderBlock(
                c_in, width, config, attention=attends
            )
    head = f"{config.nominal}x{config.nominal}_aux_"
    layers[head + "norm"] = _norm(config.norm, width)
    layers[head + "conv"] = nn.Conv2d(width, config.image_channels, 3, padding=1)
    return nn.ModuleDict(layers)


def _norm(kind: RefDiffNorm, channels: int) -> nn.Module:
    if kind == "none":
        return nn.Identity()
    if kind == "pixel":
        return PixelNorm(channels)
    return nn.GroupNorm(min(32, channels // 4), channels, eps=_EPS)


def _bias(layer: nn.Conv2d) -> Tensor:
    assert layer.bias is not None
    return layer.bias
