"""The configurations of SGDM models: values only, no tensors."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from rsupres.blocks.stable_diffusion import AutoencoderConfig, UNetConfig
from rsupres.families.sgdm.style import FlowConfig

LATENT_SCALE = 0.18215


@dataclass(frozen=True)
class EncoderConfig:
    """The content-style encoder.

    Attributes:
        stem: channels of the stems.
        widths: channels per scale; each halves, so their number fits the autoencoder.
        out: channels of F_cond.
        modulated: which branch SPADE modulates; None = there is no map.
        style: whether AdaIN follows, and a style encoder is there.
        guide: hidden channels of SPADE.
    """

    stem: int = 32
    widths: tuple[int, ...] = (32, 32, 32)
    out: int = 320
    modulated: Literal["map", "lr"] | None = "lr"
    style: bool = True
    guide: int = 128


@dataclass(frozen=True)
class SgdmConfig:
    """A whole model; the defaults are SGDM+ as released ("real", x16).

    Attributes:
        unet: the denoiser.
        autoencoder: of the latent; None = the latent is the difference between HR and
            enlarged LR, its pixels folded into cells.
        encoder: of LR, map and style.
        flow: SFlow; None = without, and styles cannot be drawn.
        prediction: what the denoiser returns: the noise, v, or the latent itself.
        steps: diffusion steps in training.
        beta: first and last variance, linear in the root.
        feature_scale: of the adapter's features before they join the U-Net.
        enlarge: how LR is brought to SR pixels.
        empty_map: colour of a map where none is given.
        colour: "wavelet" puts the result on the low frequencies of the enlarged LR.
        normalise: "scene" brings the percentiles of a scene to 0 and 1 and back.
        sampler: default sampler, one of `rsupres.families.sgdm.sampling.SAMPLERS`.
        sampling_steps: default number of steps.
        cell: SR pixels along a cell of a latent without autoencoder.
        picture_style: AdaIN on the finished picture instead of on features; styles are
            then means and deviations of the three bands, and `flow` draws those.
        unmix: give mapped classes the colours that the LR image says they have.
    """

    unet: UNetConfig = field(default_factory=UNetConfig)
    autoencoder: AutoencoderConfig | None = field(default_factory=AutoencoderConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    flow: FlowConfig | None = None
    prediction: Literal["eps", "v", "x0"] = "eps"
    steps: int = 1000
    beta: tuple[float, float] = (0.00085, 0.012)
    feature_scale: float = LATENT_SCALE
    enlarge: Literal["bilinear", "bicubic"] = "bilinear"
    empty_map: tuple[int, int, int] = (245, 240, 228)
    colour: Literal["none", "wavelet"] = "none"
    normalise: Literal["none", "scene"] = "none"
    sampler: Literal["ddpm", "ddim", "dpm++", "unipc"] = "ddpm"
    sampling_steps: int = 50
    cell: int = 2
    picture_style: bool = False
    unmix: bool = False

    @property
    def factor(self) -> int:
        """SR pixels along one cell of the latent."""
        return self.cell if self.autoencoder is None else self.autoencoder.factor

    @property
    def has_style(self) -> bool:
        """Whether a style can be followed."""
        return self.encoder.style or self.picture_style

    @property
    def adapter_widths(self) -> tuple[int, ...]:
        """Channels of the adapter's features: those of the U-Net's first levels."""
        return self.unet.widths[:3]


_SYNTHETIC = EncoderConfig(widths=(64, 128, 256), out=384, modulated="map", style=False)


VARIANTS = {
    "real": SgdmConfig(),
    "simu": SgdmConfig(encoder=_SYNTHETIC, enlarge="bicubic"),
    "simu_nomap": SgdmConfig(
        encoder=EncoderConfig(
            widths=(64, 128, 256), out=384, modulated=None, style=False
        ),
        enlarge="bicubic",
    ),
}


# Ours: no text, no autoencoder, and local statistics only, so that tiles cannot show.
MINI = SgdmConfig(
    unet=UNetConfig(
        latent=12,
        width=24,
        multipliers=(1, 2, 4, 4),
        attention_levels=(),
        mid_attention=False,
        context_width=None,
        groups=4,
        norm="pixel",
    ),
    autoencoder=None,
    encoder=EncoderConfig(
        stem=12, widths=(32,), out=48, modulated="lr", style=False, guide=24
    ),
    flow=FlowConfig(dim=3, couplings=6, hidden=(16, 16)),
    prediction="x0",
    feature_scale=1.0,
    enlarge="bicubic",
    empty_map=(0, 0, 0),
    normalise="scene",
    colour="wavelet",
    sampler="dpm++",
    sampling_steps=1,
    picture_style=True,
    unmix=True,
)
