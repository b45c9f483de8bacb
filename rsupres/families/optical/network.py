"""The network of an optical model: all work on the LR grid, with facts as input.

Trunk: the units of IMDN (Hui et al. 2019) with attention of single pixels, so that no
tile sees more of the scene than another. Before each block, every channel is scaled and
shifted by the facts of the picture (Perez et al. 2018, FiLM). Tail: one more unit, and
a convolution to the pixels of a grid `up` times finer. That residual is resampled to
the size wanted and added to the bicubic enlargement.

Two tails share the trunk: `mean` gives the expected picture, `draw` one possible
picture, a function of noise on the LR grid. `spread` may predict how far the mean is
from the truth, and an `Estimator` may read from a scene the facts that are not given.
"""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from rsupres.blocks.bfloat16 import in_float32, working_type
from rsupres.blocks.conv3x3 import Conv3x3
from rsupres.blocks.distillation import PixelDistillation
from rsupres.families.base import TAILS
from rsupres.families.optical.config import FACTS, OpticalConfig
from rsupres.families.optical.sensing import Estimator

_SLOPE = 0.05  # of the leaky ReLUs
_SMALL_START = 0.1  # of the heads: training begins near bicubic
_FOLLOW = 0.02  # share of a batch in what `Spread` notes
_QUANTILE_VALUES = 100_000
_USUAL_ERROR = 0.02  # of pictures in [0, 1], from which the training of `Spread` begins


class Unit(nn.Module):
    """Modulated blocks in sequence; all outputs fused, plus the input."""

    def __init__(self, channels: int, blocks: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(PixelDistillation(channels) for _ in range(blocks))
        self.fuse = nn.Conv2d(blocks * channels, channels, 1)

    def forward(self, x: Tensor, film: Tensor) -> Tensor:
        """Map (b, c, h, w) to the same shape; `film` is (b, blocks, 2, c, 1, 1)."""
        first, outputs = None, []
        for i, block in enumerate(self.blocks):
            x = torch.addcmul(film[:, i, 1], x, film[:, i, 0])
            first = x if first is None else first
            x = block(x)
            outputs.append(x)
        assert first is not None
        out: Tensor = first + self.fuse(torch.cat(outputs, 1))
        return out


class Film(nn.Module):
    """Facts (b, FACTS) to gains and shifts (b, n, 2, c, 1, 1), float32."""

    def __init__(self, n: int, channels: int, hidden: int) -> None:
        super().__init__()
        self.shape = (n, 2, channels)
        self.l1 = nn.Linear(FACTS, hidden)
        self.l2 = nn.Linear(hidden, n * 2 * channels)
        nn.init.normal_(self.l2.weight, std=0.004)
        nn.init.zeros_(self.l2.bias)
        self.l2.bias.data.view(self.shape)[:, 0] = 1.0

    def forward(self, told: Tensor) -> Tensor:
        """Return the modulations."""
        with torch.autocast(told.device.type, enabled=False):
            made: Tensor = self.l2(functional.silu(self.l1(told.float())))
        return made.view(-1, *self.shape)[..., None, None]


class Tail(nn.Module):
    """Features of the trunk to the pixels of the fine grid, before their shuffle."""

    def __init__(self, config: OpticalConfig) -> None:
        super().__init__()
        channels = config.channels
        self.unit = Unit(channels, config.blocks)
        self.film = Film(config.blocks, channels, config.hidden)
        self.head = Conv3x3(channels, 3 * config.up**2)
        nn.init.normal_(self.head.weight, std=_SMALL_START / (9 * channels) ** 0.5)
        assert self.head.bias is not None
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor, first: Tensor, told: Tensor) -> Tensor:
        """Return (b, 3 up up, h, w)."""
        out = in_float32(self.head, self.features(x, first, told))
        return out

    def features(self, x: Tensor, first: Tensor, told: Tensor) -> Tensor:
        """Return (b, c, h, w), from which the pixels are made.

        Args:
            x: (b, c, h, w) features of the trunk.
            first: (b, c, h, w) features of the first layer.
            told: (b, FACTS), see `Facts`.
        """
        out: Tensor = self.unit(x, self.film(told).to(x.dtype)) + first
        return out


class Spread(nn.Module):
    """Features of the mean's tail to the size of its error, pixel by pixel.

    The error is taken as Laplace-distributed, with a scale of its own in each pixel.
    `ratio`, `by_facts` and `tails` say how errors really lie around it.
    """

    ratio: Tensor  # root mean square of the errors over that of the scales
    by_facts: Tensor  # added to the logarithm of the ratio, for each of the `FACTS`
    tails: Tensor  # at `TAILS`, quantiles of |error| over the standard deviation

    def __init__(self, config: OpticalConfig) -> None:
        super().__init__()
        channels = config.channels
        self.blocks = nn.Sequential(
            *(PixelDistillation(channels) for _ in range(config.spread_blocks))
        )
        self.body = Conv3x3(channels, config.spread)
        self.head = Conv3x3(config.spread, 3 * config.up**2)
        nn.init.normal_(self.head.weight, std=_SMALL_START / config.spread**0.5 / 3)
        assert self.head.bias is not None
        nn.init.constant_(self.head.bias, math.log(_USUAL_ERROR))
        self.register_buffer("ratio", torch.tensor(2.0**0.5))
        self.register_buffer("by_facts", torch.zeros(FACTS))
        self.register_buffer("tails", torch.tensor([-math.log(1 - p) for p in TAILS]))
        self.tails /= 2.0**0.5

    def forward(self, features: Tensor) -> Tensor:
        """Return logarithms of scales (b, 3 up up, h, w), of pictures in [0, 1]."""
        out: Tensor = self.head(self.body(self.blocks(features), slope=_SLOPE))
        return out

    def factor(self, told: Tensor) -> float:
        """Return how many predicted scales the deviation of errors is, by (FACTS,)."""
        return float(self.ratio * torch.exp(told.float() @ self.by_facts.float()))

    @torch.no_grad()
    def note(self, error: Tensor, logs: Tensor) -> None:
        """Let `ratio` and `tails` follow the errors of a batch of training data.

        Args:
            error: (b, 3, H, W) of the expected picture.
            logs: predicted logarithms of its scale, of the same shape.
        """
        scales = logs.exp()
        ratio = (error.square().mean() / scales.square().mean()).sqrt()
        self.ratio.lerp_(ratio, _FOLLOW)
        sizes = (error.abs() / scales).flatten()
        sizes = sizes[:: 1 + sizes.numel() // _QUANTILE_VALUES] / self.ratio
        at = torch.tensor(TAILS, device=sizes.device)
        self.tails.lerp_(torch.quantile(sizes, at), _FOLLOW)


class Texture(nn.Module):
    """Texture of a draw on the fine grid, whose pixels are all treated alike.

    Noise of that grid, filtered, times what the features say of each place. A tail
    alone has weights of its own for each pixel of the fine grid within an LR pixel, and
    its noise would show that raster.
    """

    def __init__(self, config: OpticalConfig) -> None:
        super().__init__()
        self.up = config.up
        width = config.texture
        self.places = Conv3x3(config.channels, width * config.up**2)
        self.noise = Conv3x3(config.texture_noise, width)
        self.body = Conv3x3(width, width)
        self.head = Conv3x3(width, 3)
        nn.init.zeros_(self.head.weight)
        assert self.head.bias is not None
        nn.init.zeros_(self.head.bias)

    def forward(self, features: Tensor, noise: Tensor) -> Tensor:
        """Return (b, 3 up up, h, w), to be added to what a tail makes.

        Args:
            features: (b, c, h, w) from which the tail makes its pixels.
            noise: (b, n up up, h, w) standard normals.
        """
        places = functional.pixel_shuffle(self.places(features), self.up)
        fine = functional.pixel_shuffle(noise.to(places.dtype), self.up)
        x = functional.leaky_relu(places * (1.0 + self.noise(fine)), _SLOPE)
        x = in_float32(self.head, self.body(x, slope=_SLOPE))
        return functional.pixel_unshuffle(x, self.up)


class OpticalNetwork(nn.Module):
    """Trunk and tails."""

    draw: Tail | None
    noise_in: Conv3x3 | None
    texture: Texture | None

    def __init__(self, config: OpticalConfig) -> None:
        super().__init__()
        self.config = config
        n, channels = config.units - 1, config.channels
        self.conv_in = Conv3x3(3, channels)
        self.film = Film(n * config.blocks, channels, config.hidden)
        self.units = nn.ModuleList(Unit(channels, config.blocks) for _ in range(n))
        self.mean = Tail(config)
        self.estimator = Estimator(config.estimator) if config.estimator else None
        self.spread = Spread(config) if config.spread else None
        self.draw = self.noise_in = self.texture = None
        if config.noise:
            self.draw = copy.deepcopy(self.mean)
            self.noise_in = Conv3x3(config.noise, channels)
            self.texture = Texture(config) if config.texture else None

    def forward(self, lr: Tensor, told: Tensor, size: tuple[int, int]) -> Tensor:
        """Return the expected picture (b, 3, H, W) of LR (b, 3, h, w) in [-1, 1]."""
        features, first = self.trunk(lr, told)
        return self.enlarge(self.mean(features, first, told), lr, size)

    def trunk(self, lr: Tensor, told: Tensor) -> tuple[Tensor, Tensor]:
        """Return the trunk's features and those of the first layer, (b, c, h, w).

        Args:
            lr: (b, 3, h, w) in [-1, 1].
            told: (b, FACTS), see `Facts`.
        """
        first = in_float32(self.conv_in, lr)
        features = first.to(working_type(lr))
        film = self.film(told).to(features.dtype)
        step = self.config.blocks
        for i, unit in enumerate(self.units):
            features = unit(features, film[:, i * step : (i + 1) * step])
        return features, first

    def sample(
        self, features: Tensor, first: Tensor, told: Tensor, noise: Tensor
    ) -> Tensor:
        """Return what `draw` and `texture` make of noise on the LR grid.

        Args:
            features: of `trunk`.
            first: features of the first layer, of `trunk`.
            told: (b, FACTS), see `Facts`.
            noise: (b, n, h, w) standard normals, n = `OpticalConfig.drawn`.
        """
        assert self.draw is not None
        assert self.noise_in is not None
        n = self.config.noise
        noisy = features + self.noise_in(noise[:, :n])
        last = self.draw.features(noisy, first, told)
        out: Tensor = in_float32(self.draw.head, last)
        return out if self.texture is None else out + self.texture(last, noise[:, n:])

    def fine(self, residual: Tensor, size: tuple[int, int]) -> Tensor:
        """Return a tail's output as pixels (b, 3, H, W) of the size wanted.

        Args:
            residual: output of a tail, (b, 3 up up, h, w).
            size: H and W.
        """
        fine = functional.pixel_shuffle(residual.float(), self.config.up)
        if tuple(fine.shape[2:]) != tuple(size):
            fine = functional.interpolate(fine, size, mode="bicubic", antialias=True)
        return fine

    def enlarge(self, residual: Tensor, lr: Tensor, size: tuple[int, int]) -> Tensor:
        """Return the picture in [-1, 1], not clipped, of a tail's output.

        Args:
            residual: output of a tail, (b, 3 up up, h, w).
            lr: (b, 3, h, w) in [-1, 1].
            size: H and W.
        """
        enlarged = functional.interpolate(lr.float(), size, mode="bicubic")
        return self.fine(residual, size) + enlarged
