"""Run the student on whole pictures as the released script does, and match colours."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from rsupres.families.slimdiffsr.network import SlimDiffSRNetwork, enlarge

_FLAT = 1e-6  # deviations below, of a range of 2, cannot be divided by


_RELEASED_MULTIPLE = 256


def match_colours(image: Tensor, reference: Tensor) -> Tensor:
    """Return (b, c, H, W), each channel with mean and deviation (n - 1) of a reference.

    As the released script does, but a flat channel keeps its deviation instead of
    becoming NaN.

    Args:
        image: (b, c, H, W).
        reference: (b, c, H', W').
    """
    deviation, mean = (v[:, :, None, None] for v in moments(image))
    wanted, target = (v[:, :, None, None] for v in moments(reference))
    flat = deviation < _FLAT
    gain = wanted / deviation.masked_fill(flat, 1.0)
    return (image - mean) * gain.masked_fill(flat, 1.0) + target


def moments(image: Tensor) -> tuple[Tensor, Tensor]:
    """Return standard deviation (n - 1) and mean of each channel, (b, c) each."""
    flat = image.flatten(2)
    return flat.std(2), flat.mean(2)


def pad_by_reflection(x: Tensor, multiple: int) -> Tensor:
    """Return (b, c, h', w'), reflected right and bottom up to a multiple.

    Equals reflect padding wherever that is possible; sides of any size will do.

    Args:
        x: (b, c, h, w).
        multiple: of both sides of the result.
    """
    rows, cols = (_reflected(side, multiple) for side in x.shape[2:])
    return x[:, :, rows.to(x.device)][:, :, :, cols.to(x.device)]


def run_as_released(network: SlimDiffSRNetwork, lr: Tensor) -> tuple[Tensor, Tensor]:
    """Do what the released script does with whole pictures.

    Bicubic enlargement, reflection to multiples of 256, network, crop, and each channel
    gets the moments of the enlarged, padded picture.

    Args:
        network: the student.
        lr: (b, 3, h, w) in [-1, 1].

    Returns:
        The network's input, and the picture before the colours are matched; both as
        the network sees them, unclamped. `match_colours` of the second by the first is
        the result.
    """
    scale = network.config.scale
    x = pad_by_reflection(enlarge(lr, scale), _RELEASED_MULTIPLE)
    image = network(x)[1]
    return x, image[:, :, : lr.shape[2] * scale, : lr.shape[3] * scale]


def _reflected(side: int, multiple: int) -> Tensor:
    """Return the indices of a side that is continued by reflection."""
    index = torch.arange(-(-side // multiple) * multiple)
    period = max(2 * side - 2, 1)
    index = index % period
    return torch.minimum(index, period - index) if side > 1 else torch.zeros_like(index)


class Moments:
    """Mean and deviation (n - 1) of each channel over pictures, in float64."""

    def __init__(self) -> None:
        self._n = 0
        self._sum = np.zeros(3)
        self._squares = np.zeros(3)

    def add(self, image: Tensor) -> None:
        """Take in pictures (b, 3, H, W)."""
        pixels = image.double().transpose(0, 1).flatten(1)
        self._n += pixels.shape[1]
        self._sum += pixels.sum(1).cpu().numpy()
        self._squares += pixels.square().sum(1).cpu().numpy()

    @property
    def mean(self) -> np.ndarray:
        """Return the means, (3,)."""
        return self._sum / self._n

    @property
    def deviation(self) -> np.ndarray:
        """Return the deviations, (3,)."""
        squares = self._squares - self._n * self.mean**2
        return np.asarray(np.sqrt(np.maximum(squares, 0.0) / max(self._n - 1, 1)))
