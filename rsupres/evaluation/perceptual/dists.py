"""DISTS: a distance of structure and texture, on features of VGG-16.

Ding, Ma, Wang, Simoncelli 2020, "Image Quality Assessment: Unifying Structure and
Texture Similarity".
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rsupres.errors import CheckpointError
from rsupres.evaluation.perceptual.features import VGG_STAGES, VGG_TAPS, vgg_layers
from rsupres.evaluation.perceptual.lpips import mean_over_blocks

MAX_BLOCK = 512  # pixels along a side that are seen at once
MIN_SIDE = 32  # below it the features have no pixel left
_EPS = 1e-6
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Dists(nn.Module):
    """DISTS: structure and texture of the maps of VGG-16, and of the image itself.

    Ding et al. 2020, equations 4 to 8: maximum pooling is replaced by the root of the
    Hanning-weighted mean of squares; for each channel, the means and the covariance of
    both images are compared, weighted by alpha and beta.
    """

    mean: Tensor
    std: Tensor
    filter: Tensor
    alpha: Tensor
    beta: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.features = vgg_layers()
        n_channels = 3 + sum(channels for channels, _ in VGG_STAGES)
        taps = torch.hann_window(5, periodic=False)[1:-1]
        window = taps[:, None] * taps
        for name, value in (
            ("mean", torch.tensor(_MEAN).view(1, 3, 1, 1)),
            ("std", torch.tensor(_STD).view(1, 3, 1, 1)),
            ("filter", (window / window.sum())[None, None]),
            ("alpha", torch.ones(1, n_channels, 1, 1)),
            ("beta", torch.ones(1, n_channels, 1, 1)),
        ):
            self.register_buffer(name, value)

    def set_shares(self, stored: Mapping[str, Tensor]) -> None:
        """Take alpha and beta of a file.

        Raises:
            CheckpointError: they have other sizes.
        """
        for name in ("alpha", "beta"):
            own = getattr(self, name)
            if name not in stored or stored[name].shape != own.shape:
                raise CheckpointError(f"DISTS: {name} has another size.")
            own.copy_(stored[name])

    def forward(self, image: Tensor, other: Tensor) -> Tensor:
        """Return the distance (b,) of images (b, 3, H, W) in [0, 1]."""
        ones, others = self._maps(image), self._maps(other)
        alike = image.new_zeros(len(image))
        start = 0
        for a, b in zip(ones, others, strict=True):
            share = slice(start, start + a.shape[1])
            start = share.stop
            mean_a, mean_b = a.mean((2, 3), True), b.mean((2, 3), True)
            var_a = (a - mean_a).square().mean((2, 3), True)
            var_b = (b - mean_b).square().mean((2, 3), True)
            both = ((a - mean_a) * (b - mean_b)).mean((2, 3), True)
            texture = (2 * mean_a * mean_b + _EPS) / (
                mean_a.square() + mean_b.square() + _EPS
            )
            structure = (2 * both + _EPS) / (var_a + var_b + _EPS)
            weighed = self.alpha[:, share] * texture + self.beta[:, share] * structure
            alike = alike + weighed.sum((1, 2, 3))
        return 1 - alike / (self.alpha.sum() + self.beta.sum())

    def _maps(self, image: Tensor) -> list[Tensor]:
        maps, x = [image], (image - self.mean) / self.std
        for number, layer in enumerate(self.features):
            x = self._pool(x) if isinstance(layer, nn.MaxPool2d) else layer(x)
            if number in VGG_TAPS:
                maps.append(x)
        return maps

    def _pool(self, x: Tensor) -> Tensor:
        n = x.shape[1]
        kernel = self.filter.expand(n, 1, -1, -1)
        squares = F.conv2d(x.square(), kernel, stride=2, padding=1, groups=n)
        return (squares + 1e-12).sqrt()


def dists_distance(
    module: Dists, sr: np.ndarray, hr: np.ndarray, valid: np.ndarray
) -> float:
    """Return DISTS of two RGB pictures over blocks that are valid whole; NaN without.

    Args:
        module: filled; its device does the work.
        sr: (3, H, W) in [0, 1].
        hr: the same shape and range.
        valid: (H, W) bool.
    """

    def measure(block: tuple[slice, slice]) -> float:
        pair = [
            torch.from_numpy(np.ascontiguousarray(image[:, *block], np.float32))[None]
            for image in (sr, hr)
        ]
        with torch.inference_mode():
            a, b = (image.to(module.mean.device) for image in pair)
            return float(module(a, b)[0])

    return mean_over_blocks(valid, MAX_BLOCK, measure, MIN_SIDE)
