"""A small network on the LR grid that sharpens the enlarged LR image.

Not in the paper; see docs/families/refdiff.md#a-better-base. Super-resolution without a
reference needs many convolutions, which cost little on the LR grid; the U-Net then only
adds what reference and mask tell. Units of IMDN (Hui et al. 2019) with attention of
single pixels, so that no tile sees more of the scene than another.
"""

from __future__ import annotations

from fractions import Fraction

import torch
from torch import Tensor, nn
from torch.nn import functional

from rsupres.blocks.bfloat16 import in_float32, working_type
from rsupres.blocks.conv3x3 import Conv3x3
from rsupres.blocks.distillation import PixelDistillation
from rsupres.blocks.fine_detail import finest_contrast

UP = 4  # factor of the grid on which it draws; larger scales are interpolated from it
_BLOCKS = 2  # of a unit
_FLAT = 0.01  # deviation of LR's finest detail at which half of the detail is kept
_SMALL_START = 0.1  # of the head: training begins near bicubic


class BaseUnit(nn.Module):
    """Blocks in sequence, a gain and a shift per channel before each; all fused."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(_BLOCKS, channels))
        self.shift = nn.Parameter(torch.zeros(_BLOCKS, channels))
        self.blocks = nn.ModuleList(PixelDistillation(channels) for _ in range(_BLOCKS))
        self.fuse = nn.Conv2d(_BLOCKS * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, c, h, w) to the same shape."""
        gains, shifts = (
            p.to(x.dtype)[..., None, None] for p in (self.gain, self.shift)
        )
        given, made = [], [x]
        for block, gain, shift in zip(self.blocks, gains, shifts, strict=True):
            given.append(torch.addcmul(shift, made[-1], gain))
            made.append(block(given[-1]))
        out: Tensor = given[0] + self.fuse(torch.cat(made[1:], 1))
        return out


class BaseNetwork(nn.Module):
    """An LR image to what its bicubic enlargement lacks, without a reference.

    Detail within LR pixels fades out where the LR image is flat: the weights differ
    from place to place within an LR pixel, and on water that would show as a raster.
    """

    def __init__(self, channels: int, units: int) -> None:
        super().__init__()
        self.conv_in = Conv3x3(3, channels)
        self.units = nn.ModuleList(BaseUnit(channels) for _ in range(units))
        self.head = Conv3x3(channels, 3 * UP**2)
        nn.init.normal_(self.head.weight, std=_SMALL_START / (9 * channels) ** 0.5)
        assert self.head.bias is not None
        nn.init.zeros_(self.head.bias)

    def forward(self, lr: Tensor) -> Tensor:
        """Return (b, 3, UP h, UP w) float32, [0, 1]'s unit, of LR (b, 3, h, w)."""
        given = (lr * 2.0 - 1.0).contiguous(memory_format=torch.channels_last)
        first = in_float32(self.conv_in, given)
        x = first.to(working_type(next(self.units.parameters())))
        for unit in self.units:
            x = unit(x)
        made = in_float32(self.head, x + first)
        made = made.reshape(len(lr), 3, UP**2, *lr.shape[2:])
        mean = made.mean(2, keepdim=True)
        energy = finest_contrast(lr, Fraction(1)).square()[:, :, None]
        kept = energy / (energy + _FLAT**2)
        made = mean + kept * (made - mean)
        return functional.pixel_shuffle(made.flatten(1, 2), UP) / 2.0
