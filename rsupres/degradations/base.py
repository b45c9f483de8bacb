"""The interface of degradations, Pillow's bicubic, and functions that others use.

A degradation is a function on batches of tensors; all randomness comes from a generator
that is passed in. It knows no files and no crops. It does not move the image: LR pixel
(i, j) covers the HR pixels that `TileGrid` assigns to it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from rsupres.degradations.ranges import Ranges
from rsupres.errors import InputError


@dataclass(frozen=True)
class Degradation(Ranges, ABC):
    """A degradation with its parameters."""

    @abstractmethod
    def degrade(
        self, hr: Tensor, size: tuple[int, int], generator: torch.Generator
    ) -> Tensor:
        """Return what the coarser sensor records, (b, c, h, w) float32 in [0, 1].

        Args:
            hr: (b, c, H, W) float in [0, 1].
            size: LR height and width.
            generator: source of every draw; draws happen on its device.

        Raises:
            InputError: the batch is not 4-dimensional or LR is larger than HR.
        """

    def still(self) -> Degradation | None:
        """Return the degradation without randomness; None = bicubic stands for it."""
        return None


@dataclass(frozen=True)
class Bicubic(Degradation):
    """Pillow's bicubic in 8 bits; it has no parameters."""

    def degrade(
        self, hr: Tensor, size: tuple[int, int], generator: torch.Generator
    ) -> Tensor:
        """Downscale; see `degrade_bicubic`."""
        return degrade_bicubic(hr, size)


def degrade_bicubic(hr: Tensor, size: tuple[int, int], levels: int = 255) -> Tensor:
    """Return (b, c, h, w) float32, downscaled as Pillow's BICUBIC does in 8 bits.

    Antialiased cubic convolution with a = -0.5, columns first and then rows, rounded
    and clipped after each pass; differs from Pillow by at most one level, where a value
    falls on a rounding boundary. Some releases of Pillow take the rows first when an
    image is more than 1.5 times as high as wide; there the clipping of overshoots can
    differ by a few levels. Any ratio of at least 1, whole or not.

    Args:
        hr: (b, c, H, W) float in [0, 1].
        size: LR height and width.
        levels: number of steps that the range is rounded to; 255 as in Pillow.

    Raises:
        InputError: the batch is not 4-dimensional or LR is larger than HR.
    """
    check_size(hr, size)
    with torch.autocast(hr.device.type, enabled=False):
        wide = hr.float()
        wide = round_levels(_resize(wide, (wide.shape[2], size[1])), levels)
        return round_levels(_resize(wide, size), levels)


def _resize(image: Tensor, size: tuple[int, int]) -> Tensor:
    if image.shape[2:] == size:
        return image
    return F.interpolate(image, size=size, mode="bicubic", antialias=True)


def round_levels(image: Tensor, levels: int = 255) -> Tensor:
    """Return `image` rounded half up, as Pillow does, to multiples of 1 / levels.

    Args:
        image: any shape, in [0, 1].
        levels: the number of steps between 0 and 1.
    """
    return (image * levels + 0.5).floor().clamp(0, levels) / levels


def draw_uniform(
    shape: tuple[int, ...], pair: tuple[float, float], generator: torch.Generator
) -> Tensor:
    """Return uniform numbers between the two of a pair, on the generator's device.

    Args:
        shape: of the result.
        pair: smallest and largest number.
        generator: of the draw.
    """
    low, high = pair
    unit = torch.rand(shape, generator=generator, device=generator.device)
    return low + (high - low) * unit


def check_size(hr: Tensor, size: tuple[int, int]) -> None:
    """Check the shape of the batch and the LR size.

    Args:
        hr: (b, c, H, W).
        size: rows and columns of LR.

    Raises:
        InputError: the batch is not 4-dimensional or LR is larger than HR.
    """
    if hr.ndim != 4 or not all(
        0 < n_lr <= n_hr for n_lr, n_hr in zip(size, hr.shape[2:], strict=True)
    ):
        raise InputError(
            f"Degradation turns (b, c, H, W) into an LR size no larger than H x W, not "
            f"{tuple(hr.shape)} into {size}."
        )
