"""Features of Inception v3, as FID and KID take them.

Szegedy et al. 2015, "Rethinking the Inception Architecture for Computer Vision", in the
variant of the TensorFlow graph of 2015-12-05 that Heusel et al. 2017 chose for FID:
average pooling counts no padding, and the last block takes a maximum instead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from rsupres.evaluation.perceptual.lpips import fill

SIDE = 299  # pixels along a side that the network sees
N_FEATURES = 2048

Features = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
Size = tuple[int, int]
Step = tuple[str, int, Size, int]  # name, channels, kernel, stride
Branch = tuple[Step, ...]


class ConvNorm(nn.Module):
    """A convolution without bias, batch normalisation, ReLU; padded to keep the size.

    Those with stride 2, and the first two, are not padded.
    """

    def __init__(
        self, n_in: int, n_out: int, kernel: Size, stride: int, *, is_padded: bool
    ) -> None:
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2) if is_padded else 0
        self.conv = nn.Conv2d(n_in, n_out, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(n_out, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        """Return (b, n_out, h', w')."""
        return F.relu(self.bn(self.conv(x)))


class Mixed(nn.Module):
    """Branches side by side on one map, and a pooled one.

    Attributes:
        branches: names of the layers of each branch; two names in place of one are
            two layers on the same map, whose results stand side by side.
        pool: "mean", "max", or "half", the maximum of 3 x 3 pixels at every second.
    """

    def __init__(
        self, n_in: int, branches: Sequence[Branch], pool: str, n_pool: int
    ) -> None:
        super().__init__()
        self.pool = pool
        self.branches: list[list[tuple[str, ...]]] = []
        for branch in branches:
            names: list[tuple[str, ...]] = []
            n = n_in
            for name, channels, kernel, stride in branch:
                layer = ConvNorm(n, channels, kernel, stride, is_padded=stride == 1)
                self.add_module(name, layer)
                if name.endswith(("a", "b")) and kernel == (1, 3):
                    turned = f"{name[:-1]}b"
                    self.add_module(
                        turned, ConvNorm(n, channels, (3, 1), 1, is_padded=True)
                    )
                    names.append((name, turned))
                else:
                    names.append((name,))
                n = channels
            self.branches.append(names)
        if n_pool:
            self.branch_pool = ConvNorm(n_in, n_pool, (1, 1), 1, is_padded=True)

    def forward(self, x: Tensor) -> Tensor:
        """Return the maps of all branches side by side, the pooled one last."""
        found = []
        for names in self.branches:
            y = x
            for step in names:
                y = torch.cat([self.get_submodule(name)(y) for name in step], 1)
            found.append(y)
        return torch.cat([*found, self._pooled(x)], 1)

    def _pooled(self, x: Tensor) -> Tensor:
        if self.pool == "half":
            return F.max_pool2d(x, 3, 2)
        if self.pool == "max":
            pooled = F.max_pool2d(x, 3, 1, 1)
        else:
            pooled = F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
        return self.branch_pool(pooled)  # type: ignore[no-any-return]  # a tensor


_ONE, _THREE, _FIVE, _ROW, _COL = (1, 1), (3, 3), (5, 5), (1, 7), (7, 1)


def _block_a(n_in: int, n_pool: int) -> Mixed:
    return Mixed(
        n_in,
        (
            (("branch1x1", 64, _ONE, 1),),
            (("branch5x5_1", 48, _ONE, 1), ("branch5x5_2", 64, _FIVE, 1)),
            (
                ("branch3x3dbl_1", 64, _ONE, 1),
                ("branch3x3dbl_2", 96, _THREE, 1),
                ("branch3x3dbl_3", 96, _THREE, 1),
            ),
        ),
        "mean",
        n_pool,
    )


def _block_b(n_in: int) -> Mixed:
    return Mixed(
        n_in,
        (
            (("branch3x3", 384, _THREE, 2),),
            (
                ("branch3x3dbl_1", 64, _ONE, 1),
                ("branch3x3dbl_2", 96, _THREE, 1),
                ("branch3x3dbl_3", 96, _THREE, 2),
            ),
        ),
        "half",
        0,
    )


def _block_c(n: int) -> Mixed:
    return Mixed(
        768,
        (
            (("branch1x1", 192, _ONE, 1),),
            (
                ("branch7x7_1", n, _ONE, 1),
                ("branch7x7_2", n, _ROW, 1),
                ("branch7x7_3", 192, _COL, 1),
            ),
            (
                ("branch7x7dbl_1", n, _ONE, 1),
                ("branch7x7dbl_2", n, _COL, 1),
                ("branch7x7dbl_3", n, _ROW, 1),
                ("branch7x7dbl_4", n, _COL, 1),
                ("branch7x7dbl_5", 192, _ROW, 1),
            ),
        ),
        "mean",
        192,
    )


def _block_d() -> Mixed:
    return Mixed(
        768,
        (
            (("branch3x3_1", 192, _ONE, 1), ("branch3x3_2", 320, _THREE, 2)),
            (
                ("branch7x7x3_1", 192, _ONE, 1),
                ("branch7x7x3_2", 192, _ROW, 1),
                ("branch7x7x3_3", 192, _COL, 1),
                ("branch7x7x3_4", 192, _THREE, 2),
            ),
        ),
        "half",
        0,
    )


def _block_e(n_in: int, pool: str) -> Mixed:
    return Mixed(
        n_in,
        (
            (("branch1x1", 320, _ONE, 1),),
            (("branch3x3_1", 384, _ONE, 1), ("branch3x3_2a", 384, (1, 3), 1)),
            (
                ("branch3x3dbl_1", 448, _ONE, 1),
                ("branch3x3dbl_2", 384, _THREE, 1),
                ("branch3x3dbl_3a", 384, (1, 3), 1),
            ),
        ),
        pool,
        192,
    )


class Inception(nn.Module):
    """Inception v3 up to the mean of its last maps, numbered as in its file."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = ConvNorm(3, 32, _THREE, 2, is_padded=False)
        self.Conv2d_2a_3x3 = ConvNorm(32, 32, _THREE, 1, is_padded=False)
        self.Conv2d_2b_3x3 = ConvNorm(32, 64, _THREE, 1, is_padded=True)
        self.Conv2d_3b_1x1 = ConvNorm(64, 80, _ONE, 1, is_padded=True)
        self.Conv2d_4a_3x3 = ConvNorm(80, 192, _THREE, 1, is_padded=False)
        blocks = {
            "5b": _block_a(192, 32),
            "5c": _block_a(256, 64),
            "5d": _block_a(288, 64),
            "6a": _block_b(288),
            "6b": _block_c(128),
            "6c": _block_c(160),
            "6d": _block_c(160),
            "6e": _block_c(192),
            "7a": _block_d(),
            "7b": _block_e(1280, "mean"),
            "7c": _block_e(2048, "max"),
        }
        self.names = [f"Mixed_{name}" for name in blocks]
        for name, block in zip(self.names, blocks.values(), strict=True):
            self.add_module(name, block)

    @classmethod
    def load(cls, path: Path, stored: Mapping[str, Tensor]) -> Inception:
        """Return the network filled from the tensors of its file, without classifier.

        Args:
            path: of the file, for messages.
            stored: its tensors by name.

        Raises:
            CheckpointError: the file has other layers.
        """
        module = cls()
        own = {n: v for n, v in stored.items() if not n.startswith(("fc.", "AuxLog"))}
        fill(module, own, path)
        return module.requires_grad_(False).eval()

    def forward(self, pixels: Tensor) -> Tensor:
        """Return (b, 2048) of pictures (b, 3, 299, 299) of 8 bits, as floats."""
        x = (pixels - 128) / 128
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(F.max_pool2d(x, 3, 2)))
        x = F.max_pool2d(x, 3, 2)
        for name in self.names:
            x = self.get_submodule(name)(x)
        return x.mean((2, 3))


def features_of(module: Inception, picture: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the features (2048,) of a picture (3, H, W) of 8 bits.

    Args:
        module: the network.
        picture: (3, H, W) uint8.
    """
    pixels = torch.from_numpy(picture.astype(np.float32))[None]
    device = module.Conv2d_1a_3x3.conv.weight.device
    with torch.inference_mode():
        return np.asarray(module(to_side(pixels).to(device))[0].cpu().numpy())


def to_side(pixels: Tensor) -> Tensor:
    """Resize pictures (b, 3, H, W) to 299 x 299 as the graph does.

    Bilinear without antialiasing; the first pixels of both grids lie on each other
    (TensorFlow 1), so output pixel k is at k H / 299.
    """
    for axis in (2, 3):
        n = pixels.shape[axis]
        at = torch.arange(SIDE) * (n / SIDE)
        low = at.long().clamp_max(n - 1)
        share = (at - low).view((-1, 1) if axis == 2 else (-1,)).to(pixels.dtype)
        first = pixels.index_select(axis, low)
        second = pixels.index_select(axis, (low + 1).clamp_max(n - 1))
        pixels = first + (second - first) * share
    return pixels
