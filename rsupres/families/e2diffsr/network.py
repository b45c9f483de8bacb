"""All networks of E2DiffSR together: DEPSR, the whole model, and initial weights.

Wu, Mo, Sun, Ma, "Latent Diffusion, Implicit Amplification", arXiv 2410.22830. Parameter
names follow the public code of the parts (latent diffusion, IMDN, SADN), so reference
weights load by name. No pixels are read here and no losses known; images are in
[-1, 1], shapes in the notation of the paper: LR (h, w), SR (H, W), latent (H/8, W/8).

Three choices in `E2DiffSRConfig` replace what looks at the whole picture, so that
tiles cannot show: `norm="none"`, `attention_window` (local instead of global statistics
in the channel attention) and no attention in the denoiser.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from rsupres.blocks.conv3x3 import Conv3x3
from rsupres.blocks.resnet import ResBlock
from rsupres.families.e2diffsr.branch import CSUM, FRU, SRBranch, WeightNormConv2d
from rsupres.families.e2diffsr.config import E2DiffSRConfig
from rsupres.families.e2diffsr.latent import Denoiser, Encoder, PriorDecoder


class DEPSR(nn.Module):
    """LR picture and latent to SR picture: DPDecoder, SR branch, CSUM."""

    def __init__(self, config: E2DiffSRConfig) -> None:
        super().__init__()
        self.decoder = PriorDecoder(
            config.latent,
            config.dec_channels,
            levels=len(config.mult),
            blocks=config.enc_blocks,
            norm=config.norm,
        )
        self.branch = SRBranch(config)
        same = config.csum_channels == config.sr_channels
        self.adapt = (
            nn.Identity() if same else Conv3x3(config.sr_channels, config.csum_channels)
        )
        self.csum = CSUM(
            config.csum_channels, config.csum_levels, config.csum_hidden, config.s_max
        )
        self.residual_bicubic = config.residual_bicubic
        self.s_max = config.s_max

    def forward(self, lr: Tensor, z: Tensor, size: tuple[int, int]) -> Tensor:
        """Map LR (b, 3, h, w) in [-1, 1] and z (b, C, n, m) to SR (b, 3, H, W).

        The input is a whole picture: (n, m) covers (H, W) as `latent_size` says.
        """
        grid = (lr.shape[2], lr.shape[3])
        priors = [
            functional.interpolate(h, grid, mode="bicubic") for h in self.decoder(z)
        ]
        sr = self.amplify(lr, priors, size)
        if self.residual_bicubic:
            sr = sr + functional.interpolate(lr, size, mode="bicubic")
        return sr

    def amplify(
        self,
        lr: Tensor,
        priors: Sequence[Tensor],
        size: tuple[int, int],
        rows_at_once: int | None = None,
    ) -> Tensor:
        """Return SR (b, 3, H, W) of SR branch and CSUM from prior maps on the LR grid.

        Args:
            lr: (b, 3, h, w) in [-1, 1].
            priors: maps of the prior decoder on the LR grid.
            size: rows and columns of SR.
            rows_at_once: SR rows that are computed together; None = all.
        """
        scale = min(max(size[0] / lr.shape[2], 1.0), float(self.s_max))
        features = self.adapt(self.branch(lr, priors, scale))
        sr: Tensor = self.csum(features, size, rows_at_once)
        return sr


class E2DiffSRNetworks(nn.Module):
    """All networks of one model. `dpencoder` is needed for training only.

    `depsr_detail` is a second set of DEPSR weights, tuned for natural texture; a user's
    Detail d runs ``(1 - d) * depsr + d * depsr_detail`` (network interpolation,
    Wang et al. 2019). `latent_scale` is 1 / std of the latent means over training
    patches.
    """

    latent_scale: Tensor
    depsr_detail: DEPSR | None

    def __init__(self, config: E2DiffSRConfig, *, training_parts: bool = True) -> None:
        super().__init__()
        if training_parts:
            self.dpencoder = _encoder(6, 2 * config.latent, config)
        self.condnet = _encoder(3, config.latent, config)
        self.unet = Denoiser(
            config.latent,
            base=config.unet_base,
            mult=config.unet_mult,
            blocks=config.unet_blocks,
            attention_levels=config.unet_attention_levels,
            mid_attention=config.unet_mid_attention,
            norm=config.norm,
        )
        self.depsr = DEPSR(config)
        self.depsr_detail: DEPSR | None = None
        self.register_buffer("latent_scale", torch.ones(()))
        self._initialise(config)

    def add_detail(self) -> None:
        """Give the networks `depsr_detail`, a copy of `depsr`, unless they have it."""
        if self.depsr_detail is None:
            self.depsr_detail = copy.deepcopy(self.depsr)

    def _initialise(self, config: E2DiffSRConfig) -> None:
        """Start the chain at its mean, moments nearly noiseless, residuals small."""
        if config.norm == "none":
            priors = [self.depsr.decoder, self.depsr.branch.prior]
            encoders = [m for n, m in self.named_children() if n != "depsr"]
            for part in [*encoders, *priors]:
                _keep_variance(part)
        nn.init.zeros_(self.unet.conv_out.weight)
        nn.init.zeros_(_bias(self.unet.conv_out))
        if hasattr(self, "dpencoder"):
            # A deviation of 1 would drown the mean at first.
            _bias(self.dpencoder.conv_out).data[config.latent :] = -6.0
        if config.residual_bicubic:
            for unit in self.depsr.branch.frus:
                assert isinstance(unit, FRU)
                unit.fuse.weight.data.mul_(0.1)
            last = self.depsr.csum.fuse[-1]
            assert isinstance(last, WeightNormConv2d)
            last.weight_g.data.mul_(0.1)
            last.bias.data.zero_()


def _encoder(channels_in: int, channels_out: int, config: E2DiffSRConfig) -> Encoder:
    return Encoder(
        channels_in,
        channels_out,
        base=config.enc_base,
        mult=config.mult,
        blocks=config.enc_blocks,
        norm=config.norm,
    )


def _keep_variance(part: nn.Module) -> None:
    """Initialise convolutions without norms so that signals neither fade nor grow."""
    # torch's default divides the variance by 3 in each of a dozen layers.
    for module in part.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
            nn.init.zeros_(_bias(module))
    for module in part.modules():
        if isinstance(module, ResBlock):
            module.conv1.weight.data.mul_(2.0**0.5)
            module.conv2.weight.data.mul_(0.3)


def _bias(layer: nn.Conv2d) -> Tensor:
    assert layer.bias is not None
    return layer.bias
