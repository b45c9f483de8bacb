"""Configurations of E2DiffSR, and the sizes of its grids."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from torch import Tensor
from torch.nn import functional

from rsupres.blocks.resnet import Norm
from rsupres.diffusion.denoiser import Prediction

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
        mean_latent: the latent of the most faithful result, detail 0: "sampled", or
            "zero" for a model whose result it changes no more than another seed does;
            it is then neither sampled nor decoded anew for each tile.
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
    mean_latent: Literal["sampled", "zero"] = "sampled"

    @property
    def has_local_latent(self) -> bool:
        """Whether no network that makes the latent sees all of a tile at once."""
        has_attention = self.unet_attention_levels or self.unet_mid_attention
        return self.norm == "none" and not has_attention


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


def latent_size(height: int, width: int) -> tuple[int, int]:
    """Return the latent cells of an SR picture: sides divided by 8, rounded up.

    Args:
        height: rows of the SR picture.
        width: its columns.
    """
    return -(-height // CELL), -(-width // CELL)


def enlarge_to_working_grid(lr: Tensor, size: tuple[int, int]) -> Tensor:
    """Return up(LR): bicubic, straight to 8 x the latent size of an SR `size`.

    Args:
        lr: (b, 3, h, w).
        size: rows and columns of SR.
    """
    rows, cols = latent_size(*size)
    return functional.interpolate(lr, (CELL * rows, CELL * cols), mode="bicubic")


def conditioning_scale(scale: Fraction, s_max: int) -> float:
    """Return the scale that conditions the networks: clipped to [1, s_max].

    Args:
        scale: SR pixels along one LR pixel.
        s_max: largest scale of the training.
    """
    return float(min(max(scale, Fraction(1)), Fraction(s_max)))
