"""LPIPS: a perceptual distance, on SqueezeNet 1.1 or other features.

Serves as a measure and, because it is differentiable, as a training loss. The network
is built here from plain layers and filled from two files on disk; nothing is
downloaded. Figures are called "LPIPS (squeeze)" and so on, because those of different
networks do not compare.

Zhang, Isola, Efros, Shechtman, Wang 2018, "The Unreasonable Effectiveness of Deep
Features as a Perceptual Metric", version 0.1; Iandola et al. 2016, SqueezeNet 1.1.
"""

from __future__ import annotations

import math
import os
import pickle
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from textwrap import shorten

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from rsupres.errors import CheckpointError, InputError
from rsupres.evaluation.measures.metrics import checked_mask

FEATURES_FILE = "squeezenet1_1_features_fp16.safetensors"
HEADS_FILE = "lpips_lin_squeeze_v0.1.pth"
ENVIRONMENT = "RSUPRES_LPIPS"
MIN_SIDE = 17  # below it the last max pool has no input left

_SHIFT = (-0.030, -0.088, -0.188)  # ImageNet mean and deviation, for [-1, 1] images
_SCALE = (0.458, 0.448, 0.450)
_EPS = 1e-10
_MAX_BLOCK = 512  # pixels a side; bounds memory on large pictures


class Fire(nn.Module):
    """Squeeze to few channels, then expand by 1x1 and 3x3 filters side by side."""

    def __init__(self, n_in: int, n_squeeze: int, n_expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(n_in, n_squeeze, 1)
        self.expand1x1 = nn.Conv2d(n_squeeze, n_expand, 1)
        self.expand3x3 = nn.Conv2d(n_squeeze, n_expand, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return (b, 2 * n_expand, h, w) of a (b, n_in, h, w) map."""
        x = F.relu(self.squeeze(x))
        return F.relu(torch.cat([self.expand1x1(x), self.expand3x3(x)], dim=1))


class Taps(nn.Module):
    """Layers, numbered as torchvision does, read at some of them.

    Attributes:
        features: the layers.
        taps: numbers of the layers whose results are read.
        channels: of these results.
    """

    def __init__(
        self, features: nn.Sequential, taps: tuple[int, ...], channels: tuple[int, ...]
    ) -> None:
        super().__init__()
        self.features = features
        self.taps = taps
        self.channels = channels

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the maps of normalised images (b, 3, H, W)."""
        maps = []
        for number, layer in enumerate(self.features):
            x = layer(x)
            if number in self.taps:
                maps.append(x)
        return maps


def squeeze_features() -> Taps:
    """Return the feature layers of SqueezeNet 1.1 with the seven taps of LPIPS."""
    layers = nn.Sequential(
        nn.Conv2d(3, 64, 3, stride=2),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2, ceil_mode=True),
        Fire(64, 16, 64),
        Fire(128, 16, 64),
        nn.MaxPool2d(3, stride=2, ceil_mode=True),
        Fire(128, 32, 128),
        Fire(256, 32, 128),
        nn.MaxPool2d(3, stride=2, ceil_mode=True),
        Fire(256, 48, 192),
        Fire(384, 48, 192),
        Fire(384, 64, 256),
        Fire(512, 64, 256),
    )
    taps, channels = (1, 4, 7, 9, 10, 11, 12), (64, 128, 256, 384, 384, 512, 512)
    return Taps(layers, taps, channels)


class Lpips(nn.Module):
    """LPIPS v0.1 on a backbone.

    Gradients flow to the images. Under autocast the convolutions run in the low
    precision, the distances always in float32.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, backbone: Taps) -> None:
        super().__init__()
        self.backbone = backbone
        self.heads = nn.ParameterList(
            nn.Parameter(torch.zeros(1, n, 1, 1)) for n in backbone.channels
        )
        self.register_buffer("shift", torch.tensor(_SHIFT).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor(_SCALE).view(1, 3, 1, 1))

    def fill_heads(self, path: Path) -> None:
        """Take the linear heads of a file, named lin0.model.1.weight.

        Raises:
            CheckpointError: it is damaged, or has other tensors.
        """
        stored = read_weights(path)
        numbered = {n.removeprefix("lin").split(".")[0]: v for n, v in stored.items()}
        fill(self.heads, numbered, path)

    def forward(self, image: Tensor, other: Tensor) -> Tensor:
        """Return the distance (b,) float32 of each pair of images, 0 for equal ones.

        Args:
            image: (b, 3, H, W) in [-1, 1], both sides at least 17 pixels.
            other: the same shape and range.

        Raises:
            InputError: the shapes differ, are not RGB, or are too small.
        """
        _check_pair(image, other)
        maps = self.backbone((image - self.shift) / self.scale)
        others = self.backbone((other - self.shift) / self.scale)
        total = image.new_zeros(image.shape[0], dtype=torch.float32)
        for head, a, b in zip(self.heads, maps, others, strict=True):
            difference = (_unit(a) - _unit(b)).square()  # (b, c, h, w)
            total = total + (difference * head.float()).sum(1).mean((1, 2))
        return total

    def maps(self, image: Tensor) -> list[Tensor]:
        """Return the feature maps of images (b, 3, H, W) in [-1, 1], weighted.

        LPIPS is the sum over the maps of the mean squared distance of their vectors.
        """
        maps = self.backbone((image - self.shift) / self.scale)
        return [
            _unit(found) * head.float().clamp_min(0.0).sqrt()
            for head, found in zip(self.heads, maps, strict=True)
        ]


class LpipsSqueeze(Lpips):
    """LPIPS v0.1 with the SqueezeNet backbone; weights are frozen.

    `load` fills it; a module made by the constructor alone has random weights.
    """

    def __init__(self) -> None:
        super().__init__(squeeze_features())

    @classmethod
    def load(cls, folder: Path) -> LpipsSqueeze:
        """Return the module, frozen on the CPU, from two weight files in a folder.

        Raises:
            CheckpointError: a file is missing, damaged, or has other tensors.
        """
        features, heads = folder / FEATURES_FILE, folder / HEADS_FILE
        for path in (features, heads):
            if not path.is_file():
                raise CheckpointError(
                    f"{path}: LPIPS (squeeze) weights are missing; name the folder "
                    f"that holds them, or set the environment variable {ENVIRONMENT}.",
                    remedies=("lpips_weights",),
                )
        return cls.load_files(features, heads)

    @classmethod
    def load_files(cls, features: Path, heads: Path) -> LpipsSqueeze:
        """Return the module, built from its two weight files; see `load`.

        Args:
            features: weights of SqueezeNet, as torchvision offers them.
            heads: weights of the layers, as LPIPS offers them.

        Raises:
            CheckpointError: a file is damaged, or has other tensors.
        """
        module = cls()
        fill(module.backbone, _read_features(features), features)
        module.fill_heads(heads)
        return module.requires_grad_(False).eval()


def load_lpips(folder: Path | None, device: str | torch.device) -> LpipsSqueeze | None:
    """Return LPIPS (squeeze), filled from a folder of weights; None if none is named.

    Args:
        folder: of the two weight files; None = the folder that the environment
            variable `RSUPRES_LPIPS` names.
        device: where the module computes.

    Raises:
        CheckpointError: the folder that is named lacks a file, or one is damaged.
    """
    if folder is None:
        named = os.environ.get(ENVIRONMENT)
        if not named:
            return None
        folder = Path(named)
    return LpipsSqueeze.load(folder).to(device)


def lpips_distance(
    module: Lpips, sr: np.ndarray, hr: np.ndarray, valid: np.ndarray | None = None
) -> float:
    """Return LPIPS of two RGB pictures; NaN below 17 pixels, or if all is invalid.

    Pictures of more than 512 x 512 pixels are measured in blocks of about that size and
    averaged by valid pixels. Invalid pixels are made equal in both pictures and the
    block's distance is divided by its valid share, an approximation.

    Args:
        module: filled; its device does the work.
        sr: (3, H, W) in [0, 1].
        hr: the same shape and range.
        valid: (H, W) or (1, H, W) bool; None = all.

    Raises:
        InputError: the shapes differ or are not RGB.
    """
    mask = checked_mask(sr, hr, valid)
    if min(mask.shape) < MIN_SIDE or not mask.any():
        return math.nan
    sr, hr = np.where(mask, sr, 0.0), np.where(mask, hr, 0.0)
    total = 0.0
    for block in blocks_of(mask.shape, _MAX_BLOCK):
        if mask[block].any():
            # Invalid pixels add 0 to a block's mean distance. Dividing by the valid
            # share and weighting with the valid pixels leaves the block's size.
            total += _distance(module, sr[:, *block], hr[:, *block]) * mask[block].size
    return total / int(mask.sum())


def _unit(features: Tensor) -> Tensor:
    """Scale each pixel's vector to length 1, in float32, with gradient 0 at zero."""
    features = features.float()
    squared = features.square().sum(1, keepdim=True).clamp_min(_EPS * _EPS)
    return features / (squared.sqrt() + _EPS)


def _check_pair(image: Tensor, other: Tensor) -> None:
    if image.shape != other.shape or image.ndim != 4 or image.shape[1] != 3:
        raise InputError(
            f"LPIPS (squeeze) compares two RGB batches of one shape, not "
            f"{tuple(image.shape)} and {tuple(other.shape)}."
        )
    if min(image.shape[2:]) < MIN_SIDE:
        raise InputError(
            f"LPIPS (squeeze) needs images of at least {MIN_SIDE} pixels a side, not "
            f"{image.shape[2]} x {image.shape[3]}."
        )


def _read_features(path: Path) -> dict[str, Tensor]:
    try:
        return {name: value.float() for name, value in load_file(path).items()}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors file.") from error


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a pickle of weights alone, in float32, by name.

    Raises:
        CheckpointError: it cannot be read, or holds other things.
    """
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
        return {name: value.float() for name, value in stored.items()}
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        raise CheckpointError(f"{path}: not a readable weights-only file.") from error
    except AttributeError as error:
        raise CheckpointError(f"{path}: holds no named tensors.") from error


def fill(module: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Fill a network with the tensors of a file, by name.

    Args:
        module: to be filled.
        tensors: by name.
        path: of the file, for messages.

    Raises:
        CheckpointError: the file has other layers.
    """
    try:
        module.load_state_dict(dict(tensors), strict=True)
    except RuntimeError as error:
        detail = shorten(str(error), 200)
        raise CheckpointError(
            f"{path}: has other layers than expected: {detail}"
        ) from error


def _distance(module: Lpips, sr: np.ndarray, hr: np.ndarray) -> float:
    pair = [
        torch.from_numpy(np.ascontiguousarray(image, np.float32))[None] * 2 - 1
        for image in (sr, hr)
    ]
    with torch.inference_mode():
        a, b = (image.to(module.shift.device) for image in pair)
        return float(module(a, b)[0])


def mean_over_blocks(
    valid: np.ndarray,
    side: int,
    measure: Callable[[tuple[slice, slice]], float],
    least: int = 1,
) -> float:
    """Return the mean of a measure over blocks that are valid whole; NaN without any.

    Args:
        valid: (H, W) bool.
        side: pixels of a block at most.
        measure: of a block, given its rows and columns.
        least: pixels of the smallest block that is measured.
    """
    total, n_pixels = 0.0, 0
    for block in blocks_of(valid.shape, side):
        mask = valid[block]
        if mask.all() and min(mask.shape) >= least:
            total += measure(block) * mask.size
            n_pixels += mask.size
    return total / n_pixels if n_pixels else math.nan


def blocks_of(shape: tuple[int, ...], side: int) -> list[tuple[slice, slice]]:
    """Return rows and columns of nearly equal blocks that cover a picture.

    Args:
        shape: of the picture; the last two numbers are rows and columns.
        side: pixels of a block at most.
    """
    cuts = [
        [round(k * n / math.ceil(n / side)) for k in range(math.ceil(n / side) + 1)]
        for n in shape
    ]
    rows, cols = ([slice(*pair) for pair in pairwise(c)] for c in cuts)
    return [(row, col) for row in rows for col in cols]
