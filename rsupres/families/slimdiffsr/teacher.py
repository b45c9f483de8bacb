"""The teacher of SlimDiffSR: a diffusion U-Net that takes one step from the LR latent.

Reconstructed from the paper's figures, because no code of it was released
(docs/families/slimdiffsr.md#the-teacher). The latent of the enlarged LR picture enters
the U-Net as it is; no noise is added. The time step follows from an estimate of the
latent's variance: it is the step at which the schedule's noise has that variance.

Where the paper is silent: the step of DDIM to x0 with epsilon prediction, alpha_bar at
a fractional step interpolated linearly, and the embedding of the one fixed prompt,
which is a parameter here. U-Net and autoencoder are those of diffusers.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from importlib import import_module
from itertools import pairwise
from typing import Literal, Protocol, cast

import numpy as np
import torch
from torch import Tensor, nn

from rsupres.diffusion.schedules import sqrt_linear_betas
from rsupres.families.slimdiffsr.blocks import Shared
from rsupres.families.slimdiffsr.network import enlarge

_TINY = 1e-8
_STEPS, _BETA = 1000, (0.00085, 0.012)  # of Stable Diffusion
_KL_SCALE = 0.18215  # of Stable Diffusion's autoencoder
_LATENT = 4
_LAYER = (
    r"(to_q|to_k|to_v|to_out\.0|conv|conv1|conv2|conv_shortcut|proj_in|proj_out"
    r"|ff\.net\.0\.proj|ff\.net\.2)"
)
# Three adapters, as the released loader has them: what each of them tunes.
LORA = {
    "down": rf"conv_in|down_blocks\.(.*\.)?{_LAYER}",
    "up": rf"conv_out|up_blocks\.(.*\.)?{_LAYER}",
    "rest": rf"mid_block\.(.*\.)?{_LAYER}",
}


@dataclass(frozen=True)
class UnetConfig:
    """A diffusion U-Net; the defaults are Stable Diffusion 2.1's.

    Attributes:
        channels: of the U-Net's levels.
        layers: residual blocks per level.
        heads: attention heads of each level.
        groups: of GroupNorm.
        text: width of the prompt's embedding.
        tokens: of the prompt.
    """

    channels: tuple[int, ...] = (320, 640, 1280, 1280)
    layers: int = 2
    heads: tuple[int, ...] = (5, 10, 20, 20)
    groups: int = 32
    text: int = 1024
    tokens: int = 77


@dataclass(frozen=True)
class TeacherConfig(UnetConfig):
    """The teacher, its U-Net first; the defaults are Stable Diffusion 2.1's.

    Attributes:
        scale: whole factor.
        autoencoder: "kl" is Stable Diffusion's, "tiny" the tiny one.
        autoencoder_channels: of its levels; the tiny one takes the first for all.
        estimator: channels of the uncertainty estimator.
    """

    scale: int = 4
    autoencoder: Literal["kl", "tiny"] = "kl"
    autoencoder_channels: tuple[int, ...] = (128, 256, 512, 512)
    estimator: int = 64

    @property
    def multiple(self) -> int:
        """Of which number the SR sides must be multiples."""
        return 8 << (len(self.channels) - 1)

    @property
    def scales(self) -> tuple[int, ...]:
        """The one factor that it serves."""
        return (self.scale,)


class _Distribution(Protocol):
    def mode(self) -> Tensor: ...


class _Encoded(Protocol):
    latents: Tensor
    latent_dist: _Distribution


class _Sample(Protocol):
    sample: Tensor


class _Autoencoder(Protocol):
    """The methods of diffusers' autoencoders that are used here; they are not typed."""

    def encode(self, picture: Tensor) -> _Encoded: ...
    def decode(self, z: Tensor) -> _Sample: ...


class _Unet(Protocol):
    """The methods of diffusers' U-Net that are used here; they are not typed."""

    def __call__(self, z: Tensor, t: Tensor, prompt: Tensor) -> _Sample: ...
    def add_adapter(self, config: object, name: str) -> None: ...
    def set_adapters(self, names: list[str]) -> None: ...
    def fuse_lora(self) -> None: ...
    def unload_lora(self) -> None: ...


class UncertaintyEstimator(nn.Module):
    """Mean and log-variance of what HR has, given a map of LR: five units.

    Args:
        c_in: channels of the map.
        channels: between the units.
        predicted: number of channels whose mean is predicted.
    """

    def __init__(
        self, c_in: int = _LATENT, channels: int = 64, predicted: int = _LATENT
    ) -> None:
        super().__init__()
        widths = [c_in, *[channels] * 4, predicted + 1]
        self.units = nn.Sequential(*[_Unit(a, b) for a, b in pairwise(widths)])

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean (b, predicted, h, w) and log-variance (b, 1, h, w)."""
        both: Tensor = self.units(z)
        return both[:, :-1], both[:, -1:]


class _Unit(nn.Module):
    """3 x 3, ReLU, 3 x 3 beside the input; no biases."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(c_in, c_out, 3, padding=1, bias=False),
            nn.ReLU(),
            nn.Conv2d(c_out, c_out, 3, padding=1, bias=False),
        )
        narrow = c_in != c_out
        self.shortcut = nn.Conv2d(c_in, c_out, 1, bias=False) if narrow else None

    def forward(self, x: Tensor) -> Tensor:
        beside = x if self.shortcut is None else self.shortcut(x)
        result: Tensor = self.conv(x) + beside
        return result


class TeacherNetwork(nn.Module):
    """The teacher; its parts have the meaning of the student's."""

    def __init__(self, config: TeacherConfig) -> None:
        super().__init__()
        self.config = config
        self.vae = _make_autoencoder(config)
        self.unet = make_unet(config, _LATENT)
        self.estimator = UncertaintyEstimator(_LATENT, config.estimator)
        self.prompt = nn.Parameter(torch.randn(1, config.tokens, config.text) * 0.02)
        self._scale = _KL_SCALE if config.autoencoder == "kl" else 1.0
        # Float64 and never saved: a table, not a weight.
        self._alpha_bar = torch.from_numpy(schedule())

    def forward(self, lr: Tensor, shared: Shared = None) -> tuple[Tensor, Tensor]:
        """Return the latent and the picture (b, 3, H, W) of LR in [-1, 1]."""
        z = self.transform(self.encode(lr), shared)
        return z, self.decode(z, lr)

    def encode(self, lr: Tensor) -> Tensor:
        """Return the latent (b, 4, H/8, W/8) of the enlarged picture."""
        return self.encode_picture(enlarge(lr, self.config.scale))

    def encode_picture(self, picture: Tensor) -> Tensor:
        """Return the latent of a picture (b, 3, H, W) in [-1, 1]."""
        encoded = self.vae.encode(picture)
        latent: Tensor = (
            encoded.latent_dist.mode()
            if self.config.autoencoder == "kl"
            else encoded.latents
        )
        return latent * self._scale

    def transform(self, z: Tensor, shared: Shared = None) -> Tensor:
        """Take the one step from the LR latent to an estimate of the HR latent."""
        variance = self.estimator(z)[1].exp().detach()
        t, kept = find_step(variance, self._alpha_bar, shared)
        kept = kept.to(z.dtype)
        prompt = self.prompt.expand(len(z), -1, -1)
        eps: Tensor = self.unet(z, t.to(z.dtype), prompt).sample
        return (z - (1.0 - kept).sqrt() * eps) / kept.sqrt()

    def decode(self, z: Tensor, lr: Tensor) -> Tensor:
        """Return the picture of a latent; the LR picture is not looked at."""
        picture: Tensor = self.vae.decode(z / self._scale).sample
        return picture

    def likelihood_loss(self, z: Tensor, lr: Tensor, truth: Tensor) -> Tensor:
        """Return the negative log-likelihood of the latent of the truth.

        Args:
            z: `encode`'s; the loss does not train what made it.
            lr: (b, 3, h, w) in [-1, 1].
            truth: (b, 3, H, W) in [-1, 1].
        """
        with torch.no_grad():
            wanted = self.encode_picture(truth)
        mean, log_variance = self.estimator(z.detach())
        return uncertainty_loss(mean.float(), log_variance.float(), wanted.float())

    def add_lora(self, rank: int) -> None:
        """Give the U-Net three low-rank adapters; all else of it stops training.

        Raises:
            InputError: peft is not installed.
        """
        try:
            from peft import LoraConfig
        except ImportError as error:
            from rsupres.errors import InputError

            raise InputError(
                "LoRA needs the package peft; pip install 'rsupres[distill]'."
            ) from error
        with warnings.catch_warnings():
            # Several adapters are what is wanted.
            warnings.filterwarnings("ignore", message="Already found a `peft_config`")
            for name, modules in LORA.items():
                config = LoraConfig(
                    r=rank,
                    lora_alpha=rank,
                    init_lora_weights="gaussian",
                    target_modules=modules,
                )
                self.unet.add_adapter(config, name)
        self.unet.set_adapters(list(LORA))

    def merge_lora(self) -> None:
        """Add the adapters to the weights that they tune, and drop them."""
        self.unet.fuse_lora()
        self.unet.unload_lora()


def schedule() -> np.ndarray:
    """Return alpha_bar of the 1000 steps, falling, float64."""
    return np.cumprod(1.0 - sqrt_linear_betas(_STEPS, *_BETA))


def invert_variance(variance: Tensor, alpha_bar: Tensor) -> Tensor:
    """Return the steps (b,) at which the schedule's noise equals latents' variance.

    Signal to noise 1 / v means alpha_bar = 1 / (1 + v); the step is the nearest of the
    schedule plus the fraction towards the next one (which may be negative), except at
    both ends.

    Args:
        variance: (b, ..., h, w), positive; its mean over all but b counts.
        alpha_bar: (T,) falling, of the schedule.
    """
    v = variance.to(alpha_bar.dtype).flatten(1).mean(1)
    snr = 1.0 / (v + _TINY)
    target = (snr / (1.0 + snr)).clamp(_TINY, 1.0 - _TINY)
    nearest = (alpha_bar[None] - target[:, None]).abs().argmin(1)
    inside = (nearest > 0) & (nearest < len(alpha_bar) - 1)
    here = alpha_bar[nearest]
    after = alpha_bar[(nearest + 1).clamp_max(len(alpha_bar) - 1)]
    fraction = (here - target) / (here - after + _TINY)
    return nearest + torch.where(inside, fraction, 0.0)


def find_step(
    variance: Tensor, alpha_bar: Tensor, shared: Shared
) -> tuple[Tensor, Tensor]:
    """Return fractional steps (b,) by variances of latents, and alpha_bar (b, 1, 1, 1).

    Args:
        variance: (b, 1, h, w), positive.
        alpha_bar: (T,) falling, of the schedule.
        shared: with it, all pictures are one and take one step.
    """
    table = alpha_bar.to(variance.device)
    if shared is None:
        t = invert_variance(variance, table)
    else:
        t = shared.share(lambda: invert_variance(variance[None], table).float())
    t = t.expand(len(variance))
    return t, alpha_bar_at(t.double(), table)[:, None, None, None]


def alpha_bar_at(t: Tensor, alpha_bar: Tensor) -> Tensor:
    """Return alpha_bar at fractional steps (b,), interpolated linearly.

    Args:
        t: (b,) steps, from 0.
        alpha_bar: (steps,) of the schedule.
    """
    t = t.clamp(0, len(alpha_bar) - 1)
    low = t.floor().long().clamp_max(len(alpha_bar) - 2)
    return torch.lerp(alpha_bar[low], alpha_bar[low + 1], t - low)


def uncertainty_loss(mean: Tensor, log_variance: Tensor, truth: Tensor) -> Tensor:
    """Return the negative log-likelihood of the HR latent, without its constant.

    Args:
        mean: predicted latent, (b, c, h, w).
        log_variance: predicted, of the same shape.
        truth: the HR latent.
    """
    squares = (truth - mean).square()
    return 0.5 * ((-log_variance).exp() * squares + log_variance).mean()


def make_unet(config: UnetConfig, width: int) -> _Unet:
    """Return diffusers' U-Net, of maps with `width` channels to the same.

    Args:
        config: its levels.
        width: channels of its input and output.
    """
    deep = len(config.channels) - 1
    made = import_module("diffusers").UNet2DConditionModel(
        in_channels=width,
        out_channels=width,
        block_out_channels=config.channels,
        layers_per_block=config.layers,
        # diffusers calls the number of heads by the name of their width here.
        attention_head_dim=config.heads,
        norm_num_groups=config.groups,
        cross_attention_dim=config.text,
        use_linear_projection=True,
        down_block_types=("CrossAttnDownBlock2D",) * deep + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * deep,
    )
    return cast(_Unet, made)


def _make_autoencoder(config: TeacherConfig) -> _Autoencoder:
    diffusers = import_module("diffusers")
    channels = config.autoencoder_channels
    if config.autoencoder == "tiny":
        same = (channels[0],) * 4
        tiny = diffusers.AutoencoderTiny(
            encoder_block_out_channels=same, decoder_block_out_channels=same
        )
        return cast(_Autoencoder, tiny)
    kl = diffusers.AutoencoderKL(
        block_out_channels=channels,
        layers_per_block=2,
        latent_channels=_LATENT,
        norm_num_groups=config.groups,
        down_block_types=("DownEncoderBlock2D",) * len(channels),
        up_block_types=("UpDecoderBlock2D",) * len(channels),
    )
    return cast(_Autoencoder, kl)
