"""Style in SGDM: statistics of features, their encoder, and SFlow.

A style is a mean and a standard deviation per channel of encoded pictures (Sec. III-C).
`restyle` is AdaIN with statistics given from outside, so that they may be those of a
whole scene; `StyleFlow` draws them, or returns their exact likelihood.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

_STD_EPS = 1e-6  # joins the deviation, not the variance
_SLOPE = 0.01
_SCALE_SHIFT = 2.0  # of the coupling's scale before its sigmoid


class Statistics(NamedTuple):
    """Mean and standard deviation of feature maps per channel, each (b, c)."""

    mean: Tensor
    std: Tensor


def spatial_statistics(features: Tensor) -> Statistics:
    """Return mean and unbiased standard deviation + 1e-6 over space of (b, c, h, w)."""
    flat = features.flatten(2)
    return Statistics(flat.mean(2), flat.std(2) + _STD_EPS)


def picture_statistics(image: Tensor, factor: int) -> Statistics:
    """Return the statistics of pictures after averaging over squares of pixels.

    Args:
        image: (b, 3, H, W).
        factor: pixels along a square. A sharp style image is compared with LR, which
            has less contrast, so it is brought to about the size of LR pixels first.
    """
    side = min(factor, *image.shape[2:])
    return spatial_statistics(functional.avg_pool2d(image, side))


def restyle(features: Tensor, own: Statistics, wanted: Statistics) -> Tensor:
    """Return feature maps (b, c, H, W) with other statistics (AdaIN).

    Args:
        features: to be changed.
        own: theirs, or those of the whole scene that they are a part of; b or 1 rows.
        wanted: of the style; a deviation may be negative when it was drawn.
    """

    def wide(values: Tensor) -> Tensor:
        return values[:, :, None, None].to(features.dtype)

    normalised = (features - wide(own.mean)) / wide(own.std)
    return normalised * wide(wanted.std) + wide(wanted.mean)


class PlainEncoder(nn.Module):
    """A picture to features of one cell in `2 ** len(widths)` pixels.

    A 3x3 convolution; per width a 3x3 convolution and one of stride 2, each with
    LeakyReLU 0.01; a last 3x3 convolution. SGDM has it twice: as the encoder of LR
    without a map, and, ending in tanh, as the style encoder.
    """

    def __init__(
        self, stem: int, widths: Sequence[int], out: int, *, style: bool = False
    ) -> None:
        super().__init__()
        self.style = style
        self.stem = nn.Conv2d(3, stem, 3, padding=1)
        self.scales = nn.ModuleList()
        for before, width in zip([stem, *widths], widths, strict=False):
            scale = {
                "conv": nn.Conv2d(before, width, 3, padding=1),
                "down": nn.Conv2d(width, width, 3, stride=2, padding=1),
            }
            self.scales.append(nn.ModuleDict(scale))
        self.last = nn.Conv2d(widths[-1], out, 3, padding=1, bias=style)

    def forward(self, image: Tensor) -> Tensor:
        """Map (b, 3, H, W) in [-1, 1] to (b, out, H/f, W/f)."""
        h = self.stem(image)
        for scale in self.scales:
            assert isinstance(scale, nn.ModuleDict)
            h = functional.leaky_relu(scale["conv"](h), _SLOPE)
            h = functional.leaky_relu(scale["down"](h), _SLOPE)
        out: Tensor = self.last(h)
        return out.tanh() if self.style else out


@dataclass(frozen=True)
class FlowConfig:
    """SFlow: `couplings` affine couplings of `dim` numbers, each behind a shuffle."""

    dim: int = 32
    couplings: int = 16
    hidden: tuple[int, ...] = (64, 64)


class StyleFlow(nn.Module):
    """SFlow: a diagonal Gaussian, then affine couplings and fixed permutations.

    Couplings leave the first half z1 alone; with p = MLP(z1), shift = p[0::2] and
    s = sigmoid(p[1::2] + 2), sampling takes z2 to z2 / s + shift.
    """

    permutations: Tensor

    def __init__(self, config: FlowConfig) -> None:
        super().__init__()
        half = config.dim // 2
        self.passed = half
        self.loc = nn.Parameter(torch.zeros(1, config.dim))
        self.log_scale = nn.Parameter(torch.zeros(1, config.dim))
        self.couplings = nn.ModuleList(
            _mlp([half, *config.hidden, 2 * (config.dim - half)])
            for _ in range(config.couplings)
        )
        orders = [torch.randperm(config.dim) for _ in range(config.couplings)]
        self.register_buffer("permutations", torch.stack(orders))

    def push(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Take base numbers (n, dim) to styles; return them and log|det| (n,)."""
        log_det = z.new_zeros(len(z))
        for coupling, order in zip(self.couplings, self.permutations, strict=True):
            z1, z2 = z[:, : self.passed], z[:, self.passed :]
            shift, scale = _shift_and_scale(coupling(z1))
            log_det = log_det - scale.log().sum(1)
            z = torch.cat([z1, z2 / scale + shift], dim=1)[:, order]
        return z, log_det

    def pull(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Take styles (n, dim) to base numbers; return them and log|det| (n,)."""
        log_det = x.new_zeros(len(x))
        pairs = zip(self.couplings, self.permutations, strict=True)
        for coupling, order in reversed(list(pairs)):
            x = x[:, order.argsort()]
            x1, x2 = x[:, : self.passed], x[:, self.passed :]
            shift, scale = _shift_and_scale(coupling(x1))
            log_det = log_det + scale.log().sum(1)
            x = torch.cat([x1, (x2 - shift) * scale], dim=1)
        return x, log_det

    def sample(self, eps: Tensor) -> tuple[Tensor, Tensor]:
        """Return styles made of standard normals (n, dim), and their log density."""
        x, log_det = self.push(self.loc + self.log_scale.exp() * eps)
        return x, self._base_log_prob(eps) - log_det

    def log_prob(self, x: Tensor) -> Tensor:
        """Return the exact log density (n,) of styles (n, dim)."""
        z, log_det = self.pull(x)
        return self._base_log_prob((z - self.loc) / self.log_scale.exp()) + log_det

    def _base_log_prob(self, eps: Tensor) -> Tensor:
        """Return the log density of loc + exp(log_scale) eps."""
        constant = 0.5 * eps.shape[1] * math.log(2.0 * math.pi)
        return -constant - self.log_scale.sum() - 0.5 * eps.square().sum(1)


def _mlp(widths: Sequence[int]) -> nn.Sequential:
    """Return linear layers with ReLU between; the last one starts at zero."""
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    last = layers[-2]
    assert isinstance(last, nn.Linear)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(*layers[:-1])


def _shift_and_scale(parameters: Tensor) -> tuple[Tensor, Tensor]:
    return parameters[:, 0::2], torch.sigmoid(parameters[:, 1::2] + _SCALE_SHIFT)
