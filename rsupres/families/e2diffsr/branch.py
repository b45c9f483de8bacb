"""SR branch and CSUM of E2DiffSR: from LR and prior maps to a picture of any size.

IMDN's blocks (Hui et al. 2019) with scale-aware modulation of the prior maps (Eqs. 3
to 5), then the continuous-scale upsampling module of SADN (Sec. III-C). Parameter names
follow the public code of IMDN and SADN.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from rsupres.blocks.bfloat16 import in_float32, working_type
from rsupres.blocks.conv3x3 import Conv3x3
from rsupres.blocks.distillation import Distillation
from rsupres.blocks.resample import centre_positions, make_taps
from rsupres.families.e2diffsr.config import E2DiffSRConfig


class ContrastAttention(nn.Module):
    """Contrast-aware channel attention of IMDN (Hui et al. 2019).

    Deviation + mean per channel, over the whole picture (`window` 0) or over a square
    window around each pixel; in a window of one pixel the deviation is 0 and the block
    is pixel attention.
    """

    def __init__(self, channels: int, window: int = 0) -> None:
        super().__init__()
        self.window = window
        self.conv_du = nn.Sequential(
            nn.Conv2d(channels, channels // 16, 1),
            nn.ReLU(),
            nn.Conv2d(channels // 16, channels, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, c, h, w) to the same shape."""
        weighted: Tensor = x * self.conv_du(self._statistic(x))
        return weighted

    def _statistic(self, x: Tensor) -> Tensor:
        if self.window == 1:
            return x
        if self.window == 0:
            wide = x.float()
            mean = wide.mean((2, 3), keepdim=True)
            variance = (wide - mean).square().mean((2, 3), keepdim=True)
        else:
            wide = x.float()
            mean = self._box(wide)
            variance = (self._box(wide.square()) - mean.square()).clamp_min(0.0)
        # 1e-12 keeps the gradient of a constant channel finite.
        return ((variance + 1e-12).sqrt() + mean).to(x.dtype)

    def _box(self, x: Tensor) -> Tensor:
        return functional.avg_pool2d(
            x, self.window, 1, self.window // 2, count_include_pad=False
        )


class IMDB(Distillation):
    """Information multi-distillation block with contrast-aware attention."""

    def __init__(self, channels: int, window: int = 0) -> None:
        super().__init__(channels)
        self.cca = ContrastAttention(channels, window)

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, c, h, w) to the same shape."""
        out: Tensor = x + self.c5(self.cca(self.distil(x)))
        return out


class FRU(nn.Module):
    """Feature-refinement unit: IMDBs in sequence, all outputs fused, plus the input."""

    def __init__(self, channels: int, imdbs: int, window: int = 0) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(IMDB(channels, window) for _ in range(imdbs))
        self.fuse = nn.Conv2d(imdbs * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, c, h, w) to the same shape."""
        outputs = []
        hidden = x
        for block in self.blocks:
            hidden = block(hidden)
            outputs.append(hidden)
        out: Tensor = x + self.fuse(torch.cat(outputs, dim=1))
        return out


class SRBranch(nn.Module):
    """LR picture and prior maps on the LR grid to features for CSUM (Eqs. 3-5).

    Eq. 4 as meant: the two weights of unit i are normalised to unit length; Eq. 5 uses
    the normalised ones. Unit i looks at prior map i, the finest first.
    """

    def __init__(self, config: E2DiffSRConfig) -> None:
        super().__init__()
        channels = config.sr_channels
        self.coarse_first = config.prior_order == "coarse_to_fine"
        self.conv_in = Conv3x3(3, channels)
        self.prior = nn.ModuleList(
            Conv3x3(config.dec_channels, channels) for _ in range(config.frus)
        )
        self.frus = nn.ModuleList(
            FRU(channels, config.imdbs, config.attention_window)
            for _ in range(config.frus)
        )
        self.scale_mlp = nn.Sequential(
            nn.Linear(1, 64), nn.ReLU(), nn.Linear(64, 2 * config.frus)
        )
        last = self.scale_mlp[2]
        assert isinstance(last, nn.Linear)
        nn.init.normal_(last.weight, std=1e-3)
        nn.init.ones_(last.bias)  # both weights start equal

    def forward(self, lr: Tensor, priors: Sequence[Tensor], scale: float) -> Tensor:
        """Map LR (b, 3, h, w) and priors, each (b, c, h, w), to (b, C, h, w).

        Args:
            lr: picture in [-1, 1].
            priors: h1 .. h4 resampled to the LR grid.
            scale: conditioning scale (clipped to s_max).
        """
        weights = self._weights(scale, lr)  # (frus, 2)
        first = in_float32(self.conv_in, lr)
        features = first.to(working_type(lr))
        ordered = list(reversed(priors)) if self.coarse_first else list(priors)
        for i, (conv, unit) in enumerate(zip(self.prior, self.frus, strict=True)):
            prior = conv(ordered[i])
            mixed = weights[i, 0] * features + weights[i, 1] * prior
            # What the first unit rounds grows in all others: half of the largest error.
            features = unit(mixed) if i else in_float32(unit, mixed)
        total: Tensor = features + first
        return total

    def _weights(self, scale: float, like: Tensor) -> Tensor:
        ratio = torch.full((1, 1), 1.0 / scale, device=like.device)
        with torch.autocast(like.device.type, enabled=False):
            raw = self.scale_mlp(ratio).reshape(-1, 2)
        normal: Tensor = raw.abs() / (raw.square().sum(1, keepdim=True) + 1e-8).sqrt()
        return normal


class WeightNormConv2d(nn.Module):
    """Convolution with w = g v / ||v||, norm over all but the output axis."""

    def __init__(self, channels_in: int, channels_out: int, side: int) -> None:
        super().__init__()
        plain = nn.Conv2d(channels_in, channels_out, side)
        assert plain.bias is not None
        self.padding = side // 2
        self.bias = nn.Parameter(plain.bias.detach())
        self.weight_v = nn.Parameter(plain.weight.detach())
        norm = plain.weight.detach().flatten(1).norm(dim=1)
        self.weight_g = nn.Parameter(norm[:, None, None, None])

    def weight(self) -> Tensor:
        """Return the effective weight, (out, in, side, side), float32."""
        weight: Tensor = torch._weight_norm(self.weight_v, self.weight_g, 0)
        return weight

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, in, h, w) to (b, out, h, w)."""
        return functional.conv2d(x, self.weight(), self.bias, padding=self.padding)


class WeightNormLinear(nn.Module):
    """Linear layer with w = g v / ||v||, norm over all but the output axis."""

    def __init__(self, features_in: int, features_out: int) -> None:
        super().__init__()
        plain = nn.Linear(features_in, features_out)
        self.bias = nn.Parameter(plain.bias.detach())
        self.weight_v = nn.Parameter(plain.weight.detach())
        self.weight_g = nn.Parameter(plain.weight.detach().norm(dim=1, keepdim=True))

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, in) to (b, out)."""
        weight = torch._weight_norm(self.weight_v, self.weight_g, 0)
        return functional.linear(x, weight, self.bias)


class CSUM(nn.Module):
    """Continuous-scale upsampling module: maps at 1x, 2x, 4x .. read at any size.

    Args:
        channels: width of the maps.
        levels: number of maps.
        hidden: width of the five-layer pointwise MLP.
        s_max: largest scale of the attention's conditioning.
    """

    def __init__(self, channels: int, levels: int, hidden: int, s_max: float) -> None:
        super().__init__()
        self.s_max = s_max
        self.scale_aware_layer = nn.Sequential(
            WeightNormLinear(1, 64), nn.ReLU(), WeightNormLinear(64, levels)
        )
        self.UPNet_x2_list = nn.ModuleList(
            nn.Sequential(
                WeightNormConv2d(channels, 4 * channels, 3), nn.PixelShuffle(2)
            )
            for _ in range(levels - 1)
        )
        widths = [levels * channels, hidden, hidden, hidden, hidden, 3]
        layers: list[nn.Module] = []
        for a, b in pairwise(widths):
            layers += [WeightNormConv2d(a, b, 1), nn.ReLU()]
        self.fuse = nn.Sequential(*layers[:-1])

    def forward(
        self, x: Tensor, size: tuple[int, int], rows_at_once: int | None = None
    ) -> Tensor:
        """Map features (b, c, h, w) to a picture (b, 3, H, W), linear output.

        Args:
            x: features on the LR grid.
            size: (H, W).
            rows_at_once: evaluate the MLP in strips of so many SR rows, which changes
                nothing but the memory; None = all rows at once.
        """
        maps = [x]
        for up in self.UPNet_x2_list:
            maps.append(up(maps[-1]))
        ratio = max(x.shape[2] / size[0], 1.0 / self.s_max)
        weights = self._weights(ratio, x)
        maps = [m * w.to(m.dtype) for m, w in zip(maps, weights, strict=True)]
        if rows_at_once is None:
            wide = [
                m
                if tuple(m.shape[2:]) == size
                else functional.interpolate(m, size, mode="bilinear")
                for m in maps
            ]
            return self._fuse(torch.cat(wide, dim=1))
        wide = [
            m
            if m.shape[3] == size[1]
            else functional.interpolate(m, (m.shape[2], size[1]), mode="bilinear")
            for m in maps
        ]
        strips = []
        for start in range(0, size[0], rows_at_once):
            count = min(rows_at_once, size[0] - start)
            rows = [_read_rows(m, size[0], start, count) for m in wide]
            strips.append(self._fuse(torch.cat(rows, dim=1)))
        return torch.cat(strips, dim=2)

    def _fuse(self, x: Tensor) -> Tensor:
        hidden = self.fuse[:-1](x)
        return in_float32(self.fuse[-1], hidden)

    def _weights(self, ratio: float, like: Tensor) -> Tensor:
        with torch.autocast(like.device.type, enabled=False):
            raw = self.scale_aware_layer(torch.full((1, 1), ratio, device=like.device))
        return torch.sigmoid(raw[0])  # (levels,)


def _read_rows(m: Tensor, height: int, start: int, count: int) -> Tensor:
    """Return rows start .. start + count of a map resized linearly to `height` rows."""
    if m.shape[2] == height:
        return m[:, :, start : start + count]
    positions = centre_positions(start, count, m.shape[2] / height, 0.0)
    taps = make_taps(positions, m.shape[2], "linear", m.device)
    last = m.permute(0, 2, 3, 1)  # index_select keeps the order of memory that it sees
    above, below = (last.index_select(1, index) for index in taps.source)
    read = torch.lerp(above, below, taps.weight[1][:, None, None].to(m.dtype))
    return read.permute(0, 3, 1, 2)
