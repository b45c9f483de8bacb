"""MUSIQ: predict how people rate the quality of a picture, by a transformer of patches.

Ke, Wang, Wang, Milanfar, Yang 2021, "MUSIQ: Multi-scale Image Quality Transformer",
with the weights for KonIQ-10k as IQA-PyTorch stores them. A picture is seen at its own
size and with its longer side at 224 and 384 pixels. Their patches of 32 x 32 become
tokens through a small ResNet, each with an embedding of its place and of its size.
Patches are not padded to a fixed number, because masked tokens change nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rsupres.evaluation.perceptual.lpips import fill, mean_over_blocks

MAX_BLOCK = 1024  # pixels along a side that are seen at once
SIDES = (224, 384)  # pixels of the longer side, beside the picture's own size
_PATCH = 32
_PLACES = 10  # along a side: the grid of learned embeddings of a patch's place
_WIDTH, _MLP, _HEADS, _LAYERS = 384, 1152, 6, 14


class _StdConv(nn.Conv2d):
    """A convolution with standardised weights, padded as TensorFlow's SAME."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        weight = weight / (weight.std((1, 2, 3), keepdim=True) + 1e-5)
        padded = _pad_same(x, self.kernel_size[0], self.stride[0])
        return F.conv2d(padded, weight, None, self.stride)


class _Bottleneck(nn.Module):
    """The residual block of ResNet-50's first stage, with group norms."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.conv1 = _StdConv(n_in, n_in, 1, bias=False)
        self.gn1 = nn.GroupNorm(32, n_in, eps=1e-4)
        self.conv2 = _StdConv(n_in, n_in, 3, bias=False)
        self.gn2 = nn.GroupNorm(32, n_in, eps=1e-4)
        self.conv3 = _StdConv(n_in, n_out, 1, bias=False)
        self.gn3 = nn.GroupNorm(32, n_out, eps=1e-4)
        self.conv_proj = _StdConv(n_in, n_out, 1, bias=False)
        self.gn_proj = nn.GroupNorm(32, n_out, eps=1e-4)

    def forward(self, x: Tensor) -> Tensor:
        kept = self.gn_proj(self.conv_proj(x))
        x = self.gn1(self.conv1(x)).relu()
        x = self.gn2(self.conv2(x)).relu()
        added: Tensor = self.gn3(self.conv3(x)) + kept
        return added.relu()


class _Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query = nn.Linear(_WIDTH, _WIDTH)
        self.key = nn.Linear(_WIDTH, _WIDTH)
        self.value = nn.Linear(_WIDTH, _WIDTH)
        self.out = nn.Linear(_WIDTH, _WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        parts = (layer(x) for layer in (self.query, self.key, self.value))
        split = (part.unflatten(-1, (_HEADS, -1)).transpose(1, 2) for part in parts)
        seen = F.scaled_dot_product_attention(*split)  # (b, heads, n, d)
        mixed: Tensor = self.out(seen.transpose(1, 2).flatten(2))
        return mixed


class _Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(_WIDTH, eps=1e-6)
        self.attention = _Attention()
        self.norm2 = nn.LayerNorm(_WIDTH, eps=1e-6)
        self.mlp = nn.ModuleDict(
            {"fc1": nn.Linear(_WIDTH, _MLP), "fc2": nn.Linear(_MLP, _WIDTH)}
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        hidden = F.gelu(self.mlp["fc1"](self.norm2(x)))
        added: Tensor = x + self.mlp["fc2"](hidden)
        return added


class _Encoder(nn.Module):
    """Tokens with their places and sizes to one vector."""

    def __init__(self, n_layers: int) -> None:
        super().__init__()
        places = torch.zeros(1, _PLACES**2, _WIDTH)
        sizes = torch.zeros(len(SIDES) + 1, _WIDTH)
        self.posembed_input = nn.ParameterDict({"position_emb": places})
        self.scaleembed_input = nn.ParameterDict({"scale_emb": sizes})
        self.cls = nn.Parameter(torch.zeros(1, 1, _WIDTH))
        self.encoder_norm = nn.LayerNorm(_WIDTH, eps=1e-6)
        self.transformer = nn.ModuleDict(
            {f"encoderblock_{number}": _Block() for number in range(n_layers)}
        )

    def forward(self, tokens: Tensor, places: Tensor, sizes: Tensor) -> Tensor:
        tokens = tokens + self.posembed_input["position_emb"][:, places]
        tokens = tokens + self.scaleembed_input["scale_emb"][sizes]
        x = torch.cat([self.cls, tokens], 1)
        for block in self.transformer.values():
            x = block(x)
        normed: Tensor = self.encoder_norm(x)
        return normed[:, 0]


class Musiq(nn.Module):
    """The network, whose parameters have the names of IQA-PyTorch's files.

    Args:
        n_layers: of the transformer; the published weights have 14.
    """

    def __init__(self, n_layers: int = _LAYERS) -> None:
        super().__init__()
        self.conv_root = _StdConv(3, 64, 7, 2, bias=False)
        self.gn_root = nn.GroupNorm(32, 64, eps=1e-6)
        self.block1 = _Bottleneck(64, 256)
        self.embedding = nn.Linear(256 * (_PATCH // 4) ** 2, _WIDTH)
        self.transformer_encoder = _Encoder(n_layers)
        self.head = nn.Linear(_WIDTH, 1)

    @classmethod
    def load(cls, path: Path, stored: Mapping[str, Tensor]) -> Musiq:
        """Return the network filled with the tensors of a file.

        Args:
            path: of the file, for messages.
            stored: its tensors.

        Raises:
            CheckpointError: the file has other layers.
        """
        module = cls()
        fill(module, stored, path)
        return module.requires_grad_(False).eval()

    def forward(self, picture: Tensor) -> Tensor:
        """Return the quality (1,), about 0 to 100, of a picture (1, 3, H, W) in [0, 1].

        Pictures of one pixel by many, whose shorter side would vanish, keep a pixel.
        """
        views = [_resized(2 * picture - 1, side) for side in SIDES]
        views.append(2 * picture - 1)
        patches, places, sizes = [], [], []
        for number, view in enumerate(views):
            cut, place = _patches(view)
            patches.append(cut)
            places.append(place)
            sizes.append(torch.full_like(place, number))
        tokens = self._tokens(torch.cat(patches))[None]  # (1, n, width)
        seen = self.transformer_encoder(tokens, torch.cat(places), torch.cat(sizes))
        quality: Tensor = self.head(seen)
        return quality[:, 0]

    def _tokens(self, patches: Tensor) -> Tensor:
        x = self.gn_root(self.conv_root(patches)).relu()  # (n, 64, 16, 16)
        x = F.max_pool2d(_pad_same(x, 3, 2), 3, 2)  # (n, 64, 8, 8)
        x = self.block1(x).permute(0, 2, 3, 1)  # channels last, as TensorFlow
        tokens: Tensor = self.embedding(x.flatten(1))
        return tokens


def musiq_quality(module: Musiq, sr: np.ndarray, valid: np.ndarray) -> float:
    """Return the quality, about 0 to 100, of an RGB picture, over blocks valid whole.

    Pictures of up to 1024 pixels along a side are one block, as in papers.

    Args:
        module: filled; its device does the work.
        sr: (3, H, W) in [0, 1].
        valid: (H, W) bool.
    """
    device = module.head.weight.device

    def measure(block: tuple[slice, slice]) -> float:
        seen = np.ascontiguousarray(sr[:, *block], np.float32)
        with torch.inference_mode():
            return float(module(torch.from_numpy(seen)[None].to(device))[0])

    return mean_over_blocks(valid, MAX_BLOCK, measure)


def _resized(picture: Tensor, side: int) -> Tensor:
    """Return a picture whose longer side has `side` pixels, by bicubic."""
    height, width = picture.shape[-2:]
    ratio = side / max(height, width)
    size = (max(1, round(height * ratio)), max(1, round(width * ratio)))
    return F.interpolate(picture, size, mode="bicubic", align_corners=False)


def _patches(view: Tensor) -> tuple[Tensor, Tensor]:
    """Return patches (n, 3, 32, 32) of a view, and their places in the grid, (n,)."""
    cut = F.unfold(_pad_same(view, _PATCH, _PATCH), _PATCH, stride=_PATCH)
    rows, cols = (
        torch.arange(n, device=view.device) * _PLACES // n
        for n in (-(-side // _PATCH) for side in view.shape[-2:])
    )
    places = (rows[:, None] * _PLACES + cols).flatten()
    return cut[0].T.reshape(-1, 3, _PATCH, _PATCH), places


def _pad_same(x: Tensor, kernel: int, stride: int) -> Tensor:
    """Pad with zeros so that ceil(side / stride) windows fit; more at the end."""
    rows, cols = (
        (-(-side // stride) - 1) * stride + kernel - side for side in x.shape[-2:]
    )
    return F.pad(x, (cols // 2, cols - cols // 2, rows // 2, rows - rows // 2))
