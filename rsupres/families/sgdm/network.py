"""The networks of SGDM: content-style encoder, adapter, and all of them together.

Wang, Sun, "Semantic Guided Large Scale Factor Remote Sensing Image Super-resolution
with Generative Diffusion Prior", ISPRS 2025, and its released code, which this follows
where the two differ: SPADE modulates the map's branch in the synthetic model and the
LR branch in the real one, F_cond joins unstyled and styled features, and features are
scaled like latents and join six blocks of the U-Net.

Style and SFlow are in `style`, U-Net and autoencoder in `blocks.stable_diffusion`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from rsupres.blocks.stable_diffusion import (
    build_autoencoder,
    build_unet,
    decode_latent,
    encode_moments,
)
from rsupres.blocks.stable_diffusion_run import (
    ContextKeys,
    StepShifts,
    Watch,
    dtype_of,
    predict,
)
from rsupres.families.sgdm.colour import without_lattice
from rsupres.families.sgdm.config import LATENT_SCALE, EncoderConfig, SgdmConfig
from rsupres.families.sgdm.style import (
    PlainEncoder,
    Statistics,
    StyleFlow,
    restyle,
    spatial_statistics,
)

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

_SLOPE = 0.1
PROMPT_TOKENS = 77


class ConvBlock(nn.Sequential):
    """A 3x3 convolution and LeakyReLU 0.1."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__(
            nn.Conv2d(before, after, 3, padding=1), nn.LeakyReLU(_SLOPE, inplace=True)
        )


class Halve(nn.Module):
    """Pixel-unshuffle by 2 and a 1x1 convolution back to as many channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4 * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, c, 2h, 2w) to (b, c, h, w)."""
        halved: Tensor = self.conv(functional.pixel_unshuffle(x, 2))
        return halved


class Spade(nn.Module):
    """Normalise by running statistics, then scale and shift by a guide (Eqs. 3, 4).

    ``BN(x) (1 + gamma) + beta``, the normalisation with weight and bias of its own, as
    the released code has it; in training mode it uses statistics of the batch.
    """

    def __init__(self, channels: int, guide: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.shared = nn.Conv2d(guide, hidden, 3, padding=1)
        self.gamma = nn.Conv2d(hidden, channels, 3, padding=1)
        self.beta = nn.Conv2d(hidden, channels, 3, padding=1)

    def forward(self, x: Tensor, guide: Tensor) -> Tensor:
        """Modulate (b, c, h, w) by a guide (b, l, h, w)."""
        shared = self.shared(guide).relu_()
        modulated: Tensor = torch.addcmul(
            self.beta(shared), self.norm(x), 1.0 + self.gamma(shared)
        )
        return modulated


class MappedScale(nn.Module):
    """One scale of the encoder: both branches halve, and one modulates the other."""

    def __init__(self, before: int, width: int, hidden: int, modulated: str) -> None:
        super().__init__()
        self.modulated = modulated
        self.map_conv = ConvBlock(before, width)
        self.map_down = Halve(width)
        self.lr_conv = ConvBlock(before, width)
        self.lr_res1 = nn.Conv2d(width, width, 3, padding=1)
        self.lr_res2 = nn.Conv2d(width, width, 3, padding=1)
        self.lr_down = Halve(width)
        self.spade = Spade(width, 2 * width, hidden)

    def forward(self, lr: Tensor, chart: Tensor) -> tuple[Tensor, Tensor]:
        """Map features of LR and of the map to those of half the size."""
        lr = self.lr_conv(lr)
        inner = functional.leaky_relu(self.lr_res1(lr), _SLOPE, inplace=True)
        lr = self.lr_down(lr + self.lr_res2(inner))
        chart = self.map_down(self.map_conv(chart))
        guide = torch.cat([chart, lr], dim=1)
        if self.modulated == "map":
            return lr, self.spade(chart, guide)
        return self.spade(lr, guide), chart


class Content(NamedTuple):
    """State of the encoder before style: features of LR and of the map, (b, c, h, w).

    Without a map, `lr` is F_cond already and `chart` None.
    """

    lr: Tensor
    chart: Tensor | None


class ContentStyleEncoder(nn.Module):
    """The CS-encoder with a map: LR, map and style become F_cond."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        assert config.modulated is not None
        self.lr_stem = ConvBlock(3, config.stem)
        self.map_stem = ConvBlock(3, config.stem)
        self.scales = nn.ModuleList(
            MappedScale(before, width, config.guide, config.modulated)
            for before, width in zip(
                [config.stem, *config.widths], config.widths, strict=False
            )
        )
        last = config.widths[-1]
        self.style: PlainEncoder | None = None
        if config.style:
            self.style = PlainEncoder(32, (32, 32, 32), last, style=True)
        joined = (3 if config.style else 2) * last
        self.fuse = nn.Conv2d(joined, config.out, 1, bias=False)

    def content(self, lr: Tensor, chart: Tensor) -> Content:
        """Return features of enlarged LR and map, both (b, 3, H, W) in [-1, 1].

        Args:
            lr: the enlarged LR image.
            chart: the map, in colours of the legend.
        """
        lr, chart = self.lr_stem(lr), self.map_stem(chart)
        for scale in self.scales:
            lr, chart = scale(lr, chart)
        return Content(lr, chart)

    def map_layers(self) -> list[nn.Module]:
        """Return the layers that a map passes, in order; one convolution in each."""
        layers: list[nn.Module] = [self.map_stem]
        for scale in self.scales:
            assert isinstance(scale, MappedScale)
            layers += [scale.map_conv, scale.map_down]
        return layers

    def join(
        self, content: Content, style: Statistics | None, own: Statistics | None
    ) -> Tensor:
        """Return F_cond (b, out, h, w).

        Args:
            content: of `content`.
            style: statistics to take on; None = the content keeps its own.
            own: statistics of the content as a whole; None = those of each picture.
        """
        assert content.chart is not None
        parts = [content.chart, content.lr]
        if self.style is not None:
            styled = content.lr
            if style is not None:
                own = own or spatial_statistics(content.lr)
                styled = restyle(content.lr, own, style)
            parts.append(styled)
        joined: Tensor = self.fuse(torch.cat(parts, dim=1))
        return joined


class AdapterBlock(nn.Module):
    """A residual block of the adapter; the first of a level halves and widens."""

    def __init__(self, before: int, width: int, *, enters: bool) -> None:
        super().__init__()
        self.down = (
            nn.Conv2d(before, before, 3, stride=2, padding=1) if enters else None
        )
        self.widen = nn.Conv2d(before, width, 1) if enters else None
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, before, h, w) to (b, width, h / 2, w / 2), or keep the size."""
        if self.down is not None and self.widen is not None:
            x = self.widen(self.down(x))
        update: Tensor = self.conv2(self.conv1(x).relu_())
        return x + update


class Adapter(nn.Module):
    """From LR, map and style to the features that join the U-Net."""

    def __init__(self, config: SgdmConfig) -> None:
        super().__init__()
        encoder = config.encoder
        self.encoder: ContentStyleEncoder | PlainEncoder = (
            PlainEncoder(encoder.stem, encoder.widths, encoder.out)
            if encoder.modulated is None
            else ContentStyleEncoder(encoder)
        )
        widths = config.adapter_widths
        self.conv_in = nn.Conv2d(encoder.out, widths[0], 3, padding=1)
        self.body = nn.ModuleList()
        for before, width in pairwise(widths):
            self.body.append(AdapterBlock(before, width, enters=True))
            self.body.append(AdapterBlock(width, width, enters=False))

    def content(self, lr: Tensor, chart: Tensor | None) -> Content:
        """Return features of enlarged LR and map, both (b, 3, H, W) in [-1, 1].

        Args:
            lr: the enlarged LR image.
            chart: the map; None for a model that takes none.
        """
        if isinstance(self.encoder, PlainEncoder):
            return Content(self.encoder(lr), None)
        assert chart is not None
        return self.encoder.content(lr, chart)

    def style(self, image: Tensor) -> Statistics:
        """Return the statistics of style images (b, 3, Hs, Ws) in [-1, 1]."""
        assert isinstance(self.encoder, ContentStyleEncoder)
        assert self.encoder.style is not None
        return spatial_statistics(self.encoder.style(image))

    def features(
        self,
        content: Content,
        style: Statistics | None = None,
        own: Statistics | None = None,
    ) -> list[Tensor]:
        """Return the features of each level, not scaled yet.

        Args:
            content: of `content`.
            style: statistics that the features get; None = they keep their own.
            own: statistics of the whole scene; None = those of the features.
        """
        if isinstance(self.encoder, PlainEncoder):
            f_cond = content.lr
        else:
            f_cond = self.encoder.join(content, style, own)
        found = [self.conv_in(f_cond)]
        h = found[0]
        for k, block in enumerate(self.body):
            h = block(h)
            if k % 2:
                found.append(h)
        return found


class SgdmNetworks(nn.Module):
    """All networks of a model, as its checkpoint holds them.

    With `encodes` the autoencoder has its first half, which only training and style
    vectors need.
    """

    latent_scale: Tensor
    contexts: Tensor | None

    def __init__(self, config: SgdmConfig, *, encodes: bool = True) -> None:
        super().__init__()
        self.config = config
        self.unet = build_unet(config.unet)
        self.autoencoder: AutoencoderKL | None = None
        if config.autoencoder is not None:
            self.autoencoder = build_autoencoder(config.autoencoder)
            if not encodes:
                del self.autoencoder.encoder, self.autoencoder.quant_conv
        self.adapter = Adapter(config)
        self.flow_mean: StyleFlow | None = None
        self.flow_std: StyleFlow | None = None
        if config.flow is not None:
            self.flow_mean = StyleFlow(config.flow)
            self.flow_std = StyleFlow(config.flow)
        self.register_buffer("latent_scale", torch.tensor(LATENT_SCALE))
        width = config.unet.context_width
        contexts = None if width is None else torch.zeros(16, PROMPT_TOKENS, width)
        self.register_buffer("contexts", contexts)

    def features(
        self,
        lr: Tensor,
        chart: Tensor | None,
        style: Statistics | None = None,
        own: Statistics | None = None,
    ) -> list[Tensor]:
        """Return scaled features of enlarged LR and map, (b, 3, H, W) in [0, 1].

        Args:
            lr: (b, 3, H, W) in [0, 1], enlarged.
            chart: (b, 3, H, W) in [0, 1]; None for a model that takes no map.
            style: statistics that the features get; None = they keep their own.
            own: statistics of the whole scene; None = those of the features.
        """
        whole = None if chart is None else 2.0 * chart - 1.0
        content = self.adapter.content(2.0 * lr - 1.0, whole)
        scale = self.config.feature_scale
        return [scale * f for f in self.adapter.features(content, style, own)]

    def predict(
        self,
        z: Tensor,
        t: Tensor | StepShifts,
        context: Tensor | ContextKeys | None,
        features: Sequence[Tensor],
        *,
        recompute: bool = False,
        watch: Watch | None = None,
    ) -> Tensor:
        """Return the denoiser's prediction for scaled latents z at steps t.

        Computed in the type of the U-Net's weights, returned in that of `z`.
        """
        x = z.to(dtype_of(self.unet))
        out = predict(
            self.unet, x, t, context, features, recompute=recompute, watch=watch
        )
        return out.to(z.dtype)

    def encode(
        self,
        image: Tensor,
        noise: Tensor | None = None,
        enlarged: Tensor | None = None,
    ) -> Tensor:
        """Return scaled latents: sampled, or means.

        Args:
            image: pictures (b, 3, H, W) in [-1, 1].
            noise: standard normal of the latent's shape; None = means.
            enlarged: their LR enlarged, (b, 3, H, W) in [0, 1]; models with an
                autoencoder need none.
        """
        if self.autoencoder is None:
            assert enlarged is not None
            difference = image - (2.0 * enlarged - 1.0)
            return self.latent_scale * functional.pixel_unshuffle(
                difference, self.config.cell
            )
        mean, logvar = encode_moments(self.autoencoder, image)
        if noise is not None:
            mean = mean + (0.5 * logvar).exp() * noise
        return self.latent_scale * mean

    def decode(self, z: Tensor, enlarged: Tensor | None = None) -> Tensor:
        """Return pictures of scaled latents, in about [0, 1], not clamped.

        Args:
            z: scaled latents.
            enlarged: see `encode`; models with an autoencoder need none.
        """
        if self.autoencoder is None:
            assert enlarged is not None
            even = without_lattice(z / self.latent_scale, self.config.cell)
            difference = functional.pixel_shuffle(even, self.config.cell)
            return enlarged + 0.5 * difference
        dtype = self.autoencoder.post_quant_conv.weight.dtype
        unscaled = (z / self.latent_scale).to(dtype)
        image = decode_latent(self.autoencoder, unscaled).to(z.dtype)
        return (image + 1.0) / 2.0
