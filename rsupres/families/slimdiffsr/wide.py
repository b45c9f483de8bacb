"""A teacher on the SR/4 grid, built around the small student's layers.

The teacher of `teacher` works in the latent space of Stable Diffusion's autoencoder,
which only its released weights make good. This one can be trained on a CPU: encoder,
trunk and decoder are those of the small student, wider, and may begin with a trained
student's weights; beside the trunk a diffusion U-Net of full structure (residual blocks
of plain 3 x 3 convolutions, self-attention, attention to a prompt, deeper levels) takes
the one step. What pruning takes away on the way to the student is that U-Net, its time
step, its prompt and the width.

The uncertainty estimator looks at the encoder's map (the second of the two variants
in the authors' files). What it predicts is the detail, picture minus bicubic, as the
4 x 4 pixels below each position of the map; its variance decides the time step.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field
from fractions import Fraction

import torch
from torch import Tensor, nn
from torch.nn import functional

from rsupres.families.slimdiffsr.blocks import Shared
from rsupres.families.slimdiffsr.mini import MiniConfig, MiniNetwork
from rsupres.families.slimdiffsr.network import enlarge
from rsupres.families.slimdiffsr.teacher import (
    UncertaintyEstimator,
    UnetConfig,
    find_step,
    make_unet,
    schedule,
    uncertainty_loss,
)

_FOLD = 2  # the U-Net sees 2 x 2 positions of the map as one
_FIRST_VARIANCE = 0.01  # of the detail, before the estimator has learned anything


@dataclass(frozen=True)
class WideTeacherConfig:
    """The teacher around the small student's layers.

    Attributes:
        student: its layers; usually wider than those of the student it will teach.
        unet: of the diffusion U-Net.
        estimator: channels of the uncertainty estimator.
    """

    student: MiniConfig = field(
        default_factory=lambda: MiniConfig(tiny=96, scales=(4, 8), own_ends=True)
    )
    unet: UnetConfig = field(
        default_factory=lambda: UnetConfig(
            (128, 192, 256), layers=1, heads=(4, 6, 8), text=128, tokens=8
        )
    )
    estimator: int = 32

    @property
    def scale(self) -> int:
        """The network's own factor."""
        return self.student.scale

    @property
    def scales(self) -> tuple[int, ...]:
        """The factors that it serves."""
        return self.student.scales

    @property
    def multiple(self) -> int:
        """Of which number the SR sides must be multiples."""
        return self.scale * _FOLD << (len(self.unet.channels) - 1)


class WideTeacher(nn.Module):
    """The teacher; its parts have the meaning of the student's."""

    def __init__(self, config: WideTeacherConfig) -> None:
        super().__init__()
        self.config = config
        self.student = MiniNetwork(config.student)
        c = config.student.tiny
        self.unet = make_unet(config.unet, c * _FOLD**2)
        last: nn.Conv2d = self.unet.conv_out  # type: ignore[attr-defined]  # diffusers'
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)  # type: ignore[arg-type]  # it has one
        detail = 3 * config.scale**2
        self.estimator = UncertaintyEstimator(c, config.estimator, detail)
        shape = (1, config.unet.tokens, config.unet.text)
        self.prompt = nn.Parameter(torch.randn(shape) * 0.02)
        # Float64 and never saved: a table, not a weight.
        self._alpha_bar = torch.from_numpy(schedule())

    def at(self, scale: Fraction) -> WideTeacher:
        """Return the teacher with encoder, decoder and head of a scale."""
        view = copy.copy(self)
        view._modules = {**self._modules, "student": self.student.at(scale)}
        return view

    def forward(self, lr: Tensor, shared: Shared = None) -> tuple[Tensor, Tensor]:
        """Return the latent and the picture (b, 3, H, W) of LR in [-1, 1]."""
        z = self.transform(self.encode(lr), shared)
        return z, self.decode(z, lr)

    def encode(self, lr: Tensor) -> Tensor:
        """Return the encoder's map, (b, c, h, w)."""
        return self.student.encode(lr)

    def estimate(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean (b, 48, h, w) and log-variance (b, 1, h, w) of the detail."""
        mean, log_variance = self.estimator(features)
        return mean, log_variance + math.log(_FIRST_VARIANCE)

    def transform(self, features: Tensor, shared: Shared = None) -> Tensor:
        """Take the one step from the trunk's map to the latent of the picture."""
        variance = self.estimate(features)[1].float().exp().detach()
        t, kept = find_step(variance, self._alpha_bar, shared)
        z = self.student.transform(features, shared)
        prompt = self.prompt.expand(len(z), -1, -1)
        folded = functional.pixel_unshuffle(z, _FOLD)
        eps = self.unet(folded, t.float(), prompt).sample
        eps = functional.pixel_shuffle(eps, _FOLD)
        kept = kept.float()
        return (z - (1.0 - kept).sqrt() * eps) / kept.sqrt()

    def decode(self, z: Tensor, lr: Tensor) -> Tensor:
        """Return the picture (b, 3, H, W) in float32."""
        return self.student.decode(z, lr)

    def likelihood_loss(self, features: Tensor, lr: Tensor, truth: Tensor) -> Tensor:
        """Return the negative log-likelihood of the true detail.

        Args:
            features: `encode`'s; the loss does not train what made them.
            lr: (b, 3, h, w) in [-1, 1].
            truth: (b, 3, H, W) in [-1, 1].
        """
        mean, log_variance = self.estimate(features.detach())
        detail = truth - enlarge(lr.float(), self.config.scale)
        wanted = functional.pixel_unshuffle(detail, self.config.scale)
        return uncertainty_loss(mean.float(), log_variance.float(), wanted)


def widen_into(network: MiniNetwork, weights: dict[str, Tensor]) -> None:
    """Put a small student's weights into a wider one that then does the same.

    New channels begin fresh, and nothing reads them at first: their weights towards
    the old channels are zero.

    Args:
        network: changed in place.
        weights: of a student with the same trunk and as many blocks.

    Raises:
        ValueError: a tensor is missing or larger than the network's.
    """
    with torch.no_grad():
        for name, wide in network.state_dict().items():
            old = weights.get(name)
            if (
                old is None
                or (torch.tensor(old.shape) > torch.tensor(wide.shape)).any()
            ):
                raise ValueError(f"tensor '{name}' does not fit into the network")
            if old.ndim == 4:
                wide[: len(old)] = 0.0
            wide[tuple(slice(n) for n in old.shape)] = old
