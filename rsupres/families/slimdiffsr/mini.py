"""A student of a fortieth of the size that computes on the LR grid.

All kinds of modules of SlimDiffSR's student, scaled down: tiny-autoencoder blocks, the
two bridges, and the pruned trunk with frequency- and direction-separable convolutions
and query-driven aggregation. It differs where the student is slow or sees too much: the
encoder takes the LR picture itself and goes down once (the student enlarges first and
goes down eight times), the decoder ends in one pixel shuffle beside bicubic
interpolation, the encoder's map joins the decoder, and norms see single pixels.
Gates and context are shared by a scene, and by a batch in training.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from fractions import Fraction

from torch import Tensor, nn
from torch.nn import functional

from rsupres.blocks.conv3x3 import Conv3x3
from rsupres.families.slimdiffsr.blocks import Shared
from rsupres.families.slimdiffsr.config import TrunkConfig
from rsupres.families.slimdiffsr.network import TinyBlock, Trunk, Upsample, enlarge

_SMALL_START = 0.1  # of the head: training begins near bicubic
_TRUNK = TrunkConfig((64, 96), 128, 1, 16, 32, "pixel")


@dataclass(frozen=True)
class MiniConfig:
    """The small student.

    Attributes:
        scale: whole factor of the network itself.
        scales: the factors it serves, multiples of `scale`; for a larger one LR is
            enlarged by bicubic interpolation first, so that only `scale` is left.
        own_ends: each of `scales` but the first has encoder, decoder and head of its
            own; trunk and bridges are shared.
        trunk: at half the LR grid and at a quarter.
        tiny: channels of encoder and decoder on the LR grid.
        encoder_blocks: of three convolutions.
        decoder_blocks: of three convolutions.
    """

    scale: int = 4
    trunk: TrunkConfig = _TRUNK
    tiny: int = 48
    encoder_blocks: int = 2
    decoder_blocks: int = 3
    scales: tuple[int, ...] = (4,)
    own_ends: bool = False


MINI = MiniConfig()


class MiniNetwork(nn.Module):
    """The small student; its parts have the meaning of `SlimDiffSRNetwork`'s."""

    def __init__(self, config: MiniConfig) -> None:
        super().__init__()
        self.config = config
        c, wide = config.tiny, config.trunk.widths[0]
        self.encoder, self.decoder, self.head = _make_ends(config)
        self.down = nn.Conv2d(c, c, 3, 2, 1, bias=False)
        self.merge_conv1 = Conv3x3(c, wide)
        self.unet = Trunk(config.trunk)
        self.merge_conv2 = Conv3x3(wide, c)
        self.up = Upsample(c)
        if config.own_ends:
            others = {str(scale): _Ends(config) for scale in config.scales[1:]}
            self.ends = nn.ModuleDict(others)

    def at(self, scale: Fraction) -> MiniNetwork:
        """Return the network with encoder, decoder and head of a scale.

        Its layers are those of this network, not copies.
        """
        if not self.config.own_ends or scale == self.config.scales[0]:
            return self
        view = copy.copy(self)
        view._modules = {**self._modules, **self.ends[str(scale)]._modules}
        return view

    def edges(self) -> list[nn.Module]:
        """Return the first and the last layer of each scale."""
        views = [self.at(Fraction(scale)) for scale in self.config.scales]
        return [layer for view in views for layer in (view.encoder[0], view.head)]

    def forward(self, lr: Tensor, shared: Shared = None) -> tuple[Tensor, Tensor]:
        """Return z (b, c, h, w) and the picture (b, 3, H, W), not clamped.

        Args:
            lr: (b, 3, h, w) in [-1, 1], sides multiples of 4.
            shared: the values found once for the whole picture.
        """
        z = self.transform(self.encode(lr), shared)
        return z, self.decode(z, lr)

    def encode(self, lr: Tensor) -> Tensor:
        """Return the encoder's map, (b, c, h, w)."""
        first = self.encoder[0](lr.to(self.head.weight.dtype))
        features: Tensor = self.encoder[1:](first.to(self.down.weight.dtype))
        return features

    def transform(self, features: Tensor, shared: Shared = None) -> Tensor:
        """Return z (b, c, h, w): bridge, trunk, bridge, beside the encoder's map."""
        wide = self.unet(self.merge_conv1(self.down(features)), shared)
        z: Tensor = self.up(self.merge_conv2(wide)) + features
        return z

    def decode(self, z: Tensor, lr: Tensor) -> Tensor:
        """Return the picture (b, 3, H, W) in float32."""
        shown = self.decoder(functional.relu(z))
        detail = self.head(shown.to(self.head.weight.dtype))
        detail = functional.pixel_shuffle(detail, self.config.scale)
        return detail.float() + enlarge(lr.float(), self.config.scale)


class _Ends(nn.Module):
    """Encoder, decoder and head of one scale."""

    def __init__(self, config: MiniConfig) -> None:
        super().__init__()
        self.encoder, self.decoder, self.head = _make_ends(config)


def _make_ends(
    config: MiniConfig,
) -> tuple[nn.Sequential, nn.Sequential, nn.Conv2d]:
    c = config.tiny
    encoder = [TinyBlock(c) for _ in range(config.encoder_blocks)]
    decoder = [TinyBlock(c) for _ in range(config.decoder_blocks)]
    head = Conv3x3(c, 3 * config.scale**2)
    nn.init.normal_(head.weight, std=_SMALL_START / (9 * c) ** 0.5)
    nn.init.zeros_(head.bias)  # type: ignore[arg-type]  # it has one
    return nn.Sequential(Conv3x3(3, c), *encoder), nn.Sequential(*decoder), head
