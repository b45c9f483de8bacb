"""A Siamese network that finds what was built or removed between two images.

Both dates pass the same layers; later layers see the features of both, their
difference, and how far IR-MAD says that the pixel differs. The idea of shared layers
and a difference of features is that of Daudt et al. 2018 (FC-Siam-diff); here all
layers work on full resolution, because a new house may be a single pixel.

A pixel depends on the pixels within `Siamese.halo` around it alone. Levels are found
for whole images by `rsupres.change.learned`, so images may be cut anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rsupres.blocks.conv3x3 import Conv3x3
from rsupres.families.base import FixedScales, ModelSpec
from rsupres.families.storage import config_from_json, fill_network

if TYPE_CHECKING:
    from rsupres.families.base import Checkpoint, SamplerOptions

FloatArray = NDArray[np.float32]

_SLOPE = 0.1  # of the leaky ReLUs
_SMALL_START = 0.1  # of the last layer of a block


@dataclass(frozen=True)
class SiameseConfig:
    """The shape of a network; stored in its checkpoint.

    Attributes:
        roles: colours of the bands that it looks at, in order.
        channels: width.
        shared: convolutions that both dates pass.
        blocks: residual blocks behind both dates.
        threshold: probability from which a pixel counts as changed.
    """

    roles: tuple[str, ...] = ("red", "green", "blue", "nir")
    channels: int = 24
    shared: int = 2
    blocks: int = 2
    threshold: float = 0.4


class SiameseNetwork(nn.Module):
    """Two dates and the size of their difference to the logit of change."""

    def __init__(self, config: SiameseConfig) -> None:
        super().__init__()
        width = config.channels
        ins = [2 * len(config.roles)] + [width] * (config.shared - 1)
        self.shared = nn.ModuleList(Conv3x3(n, width) for n in ins)
        self.merge = Conv3x3(3 * width + 1, width)
        self.blocks = nn.ModuleList(_Block(width) for _ in range(config.blocks))
        self.conv_out = nn.Conv2d(width, 1, 1)

    def forward(self, before: Tensor, after: Tensor, size: Tensor) -> Tensor:
        """Return (b, 1, h, w), the logit of the changed share.

        Args:
            before: (b, 2 n, h, w), n bands as deviations from unchanged ground, and
                for each band 1 where the images have it, else 0.
            after: the same of the later date.
            size: (b, 1, h, w), size of the difference.
        """
        both = torch.cat([before, after])
        for layer in self.shared:
            both = layer(both, slope=_SLOPE)
        one, other = both.chunk(2)
        x = self.merge(torch.cat([one, other, other - one, size], 1), slope=_SLOPE)
        for block in self.blocks:
            x = block(x)
        logit: Tensor = self.conv_out(x)
        return logit.float()


class _Block(nn.Module):
    """Two convolutions and a short cut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.c1 = Conv3x3(channels, channels)
        self.c2 = Conv3x3(channels, channels)
        with torch.no_grad():
            self.c2.weight.mul_(_SMALL_START)

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, c, h, w) to the same shape."""
        out: Tensor = x + self.c2(self.c1(x, slope=_SLOPE))
        return out


@dataclass(frozen=True)
class Siamese:
    """A network in eval mode, with the colours and threshold that it has learned."""

    config: SiameseConfig
    network: SiameseNetwork
    device: torch.device

    @property
    def halo(self) -> int:
        """How many pixels away a pixel may still change the result."""
        return len(self.network.shared) + 1 + 2 * len(self.network.blocks)

    def detect(self, inputs: FloatArray) -> FloatArray:
        """Return the probability of change, (h, w).

        Args:
            inputs: (2 n + 1, h, w): n bands of the earlier date, of the later date,
                NaN throughout where the images lack a band; size of the difference.
        """
        n = len(self.config.roles)
        given = torch.from_numpy(inputs)[None].to(self.device)
        with torch.inference_mode():
            parts = with_presence(given[:, :n]), with_presence(given[:, n : 2 * n])
            made = self.network(*parts, given[:, 2 * n :])[0, 0].sigmoid()
        probability: FloatArray = made.cpu().numpy()
        return probability


def with_presence(bands: Tensor) -> Tensor:
    """Return bands (b, n, h, w), NaN as 0, and beside each 1, or 0 where it was NaN."""
    return torch.cat([bands.nan_to_num(0.0), (~bands.isnan()).to(bands.dtype)], 1)


def make_spec(config: SiameseConfig) -> ModelSpec:
    """Return a spec that no scene alone fits: an earlier image is needed, too."""
    return ModelSpec(
        family="siamese",
        scales=FixedScales(frozenset({Fraction(1)})),
        bands=config.roles,
        needs=frozenset({"earlier_image"}),
        gsd=(1.0, 10.0),
    )


def from_checkpoint(
    checkpoint: Checkpoint, device: torch.device, options: SamplerOptions
) -> Siamese:
    """Return the detector of a checkpoint.

    Raises:
        CheckpointError: architecture or tensors do not fit.
    """
    config = config_from_json(SiameseConfig, checkpoint.architecture, checkpoint.path)
    network = SiameseNetwork(config)
    fill_network(network, checkpoint, device)
    return Siamese(config, network, device)
