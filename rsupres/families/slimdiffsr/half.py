"""Run the student's trunk in bfloat16 on a CPU, with little loss of accuracy.

bfloat16 keeps 8 bits of a number, and the trunk's feature maps differ little from place
to place, so that plain rounding removes a large part of their content. Here the maps
are stored as differences from a per-channel mean, which is added again after each
product. That is exact for any mean, because products are linear. The means are measured
once, on one synthetic picture, so that results do not depend on scene, tile or batch.

In bfloat16: products over channels and the doubling convolution. In float32: residual
sums, norms, depthwise filters, gates and queries, and encoder and decoder, whose 3 x 3
convolutions `rsupres.blocks.conv3x3` computes as fast as bfloat16. CUDA has other fast
paths; this module is for processors that multiply bfloat16.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from rsupres.blocks.bfloat16 import (
    add_from_bfloat16,
    gate_by_gelu,
    subtract_to_bfloat16,
)
from rsupres.families.slimdiffsr.network import (
    DoublingConv,
    SlimDiffSRNetwork,
    doubled_kernel,
)

_HALF = torch.bfloat16
_PROJECTIONS = ("proj_in", "proj_out")
_DRAWN, _SHOWN = 8, 128  # pixels of the synthetic picture's side: drawn, enlarged
_GREYS = (-0.7, 0.5)  # its range; most images are darker than the middle

Means = Mapping[str, Tensor]


def halve(network: SlimDiffSRNetwork) -> SlimDiffSRNetwork:
    """Replace parts of a student by versions in bfloat16, in place, and return it.

    Args:
        network: float32, on a CPU, in eval mode; neither trained nor saved afterwards.
    """
    means = _measure_means(network)
    for name, part in list(network.unet.named_modules()):
        parent, _, last = name.rpartition(".")
        mean_in, mean_out = means.get(f"in.{name}"), means.get(name)
        pointwise = isinstance(part, nn.Conv2d) and part.kernel_size == (1, 1)
        if last == "ff":
            made: nn.Module = _HalfFeedForward(part, means, f"{name}.net")
        elif isinstance(part, DoublingConv):
            assert mean_in is not None
            assert mean_out is not None
            made = _HalfDoubling(part, mean_in, mean_out)
        elif pointwise or last in _PROJECTIONS:
            assert mean_in is not None
            made = _HalfLinear(cast(nn.Linear, part), mean_in)
        else:
            continue
        setattr(network.unet.get_submodule(parent), last, made)
    return network


class _HalfLinear(nn.Module):
    """A product over the channels; input and output in float32."""

    mean: Tensor
    weight: Tensor
    back: Tensor

    def __init__(self, layer: nn.Linear, mean: Tensor) -> None:
        super().__init__()
        weight = layer.weight.data.flatten(1)
        back = weight @ mean
        if layer.bias is not None:
            back = back + layer.bias.data
        self.register_buffer("mean", mean)
        self.register_buffer("weight", _pointwise(weight))
        self.register_buffer("back", back)

    def forward(self, x: Tensor) -> Tensor:
        """Return (b, C, h, w) of (b, c, h, w), or (b, n, C) of (b, n, c)."""
        maps = x.ndim == 4
        rows = x.permute(0, 2, 3, 1) if maps else x
        made = functional.conv2d(_round_deviations(rows, self.mean), self.weight)
        made = _give_back(made, self.back).view(*rows.shape[:-1], -1)
        return made.permute(0, 3, 1, 2) if maps else made


class _HalfFeedForward(nn.Module):
    """The gated feed-forward.

    The gated product is not centred, but the result of the second layer is: its mean
    is subtracted by a bias in bfloat16 and added again in float32, together with the
    error of that mean which comes from rounding the weights.
    """

    mean: Tensor
    wide: Tensor
    bias: Tensor
    narrow: Tensor
    taken: Tensor
    back: Tensor

    def __init__(self, part: nn.Module, means: Means, name: str) -> None:
        super().__init__()
        start, middle = means[f"in.{name}.0.proj"], means[f"in.{name}.2"]
        first = cast(nn.Linear, part.get_submodule("net.0.proj"))
        last = cast(nn.Linear, part.get_submodule("net.2"))
        bias = first.bias.data + first.weight.data @ start
        narrow = last.weight.data.to(_HALF)
        taken = -(narrow.float() @ middle).to(_HALF)
        back = last.bias.data + (last.weight.data - narrow.float()) @ middle
        self.register_buffer("mean", start)
        self.register_buffer("wide", _pointwise(first.weight.data))
        self.register_buffer("bias", bias.to(_HALF))
        self.register_buffer("narrow", _pointwise(narrow))
        self.register_buffer("taken", taken)
        self.register_buffer("back", back - taken.float())

    def forward(self, tokens: Tensor) -> Tensor:
        """Return (b, n, c) of the same."""
        deviations = _round_deviations(tokens, self.mean)
        gated = _gate(functional.conv2d(deviations, self.wide, self.bias))
        made = functional.conv2d(gated, self.narrow, self.taken)
        return _give_back(made, self.back).view(tokens.shape)


class _HalfDoubling(nn.Module):
    """`DoublingConv` of differences; the frame of zeros becomes one of ``-mean``."""

    mean: Tensor
    kernel: Tensor
    bias: Tensor
    back: Tensor

    def __init__(self, conv: DoublingConv, mean_in: Tensor, mean_out: Tensor) -> None:
        super().__init__()
        weight = conv.weight.data
        bias = weight.sum((2, 3)) @ mean_in - mean_out
        if conv.bias is not None:
            bias = bias + conv.bias.data
        kernel = doubled_kernel(weight).to(_HALF)
        self.register_buffer("mean", mean_in)
        self.register_buffer(
            "kernel", kernel.contiguous(memory_format=torch.channels_last)
        )
        self.register_buffer("bias", bias.to(_HALF))
        self.register_buffer("back", mean_out)

    def forward(self, x: Tensor) -> Tensor:
        """Return (b, C, 2h, 2w) of (b, c, h, w)."""
        b, c, h, w = x.shape
        framed = self.mean.to(_HALF).neg().expand(b, h + 2, w + 2, c).contiguous()
        deviations = _round_deviations(x.permute(0, 2, 3, 1), self.mean)
        framed[:, 1:-1, 1:-1] = deviations[0, :, 0].T.view(b, h, w, c)
        made = functional.conv_transpose2d(  # "padding" cuts off the frame's three, one
            framed.permute(0, 3, 1, 2), self.kernel, self.bias, 2, 3
        )
        rows = made.permute(0, 2, 3, 1).flatten(0, 2)
        flat = _give_back(_as_map(rows), self.back)
        return flat.view(b, 2 * h, 2 * w, -1).permute(0, 3, 1, 2)


def _measure_means(network: SlimDiffSRNetwork) -> dict[str, Tensor]:
    """Return each layer's mean per channel: of its output, and as ``in.`` its input.

    The means are rounded to bfloat16, so that zeros in a frame are exact.
    """
    found: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[[nn.Module, tuple[Tensor], Tensor], None]:
        def hook(module: nn.Module, given: tuple[Tensor], out: Tensor) -> None:
            for key, seen in (("in." + name, given[0]), (name, out)):
                axes = (0, 2, 3) if seen.ndim == 4 else (0, 1)
                found[key] = seen.mean(axes).to(_HALF).float()

        return hook

    hooks = [
        part.register_forward_hook(keep(name))
        for name, part in network.unet.named_modules()
        if isinstance(part, nn.Conv2d | nn.Linear)
    ]
    generator = torch.Generator().manual_seed(0)
    drawn = torch.rand(1, 1, _DRAWN, _DRAWN, generator=generator)
    grey = _GREYS[0] + (_GREYS[1] - _GREYS[0]) * drawn.expand(-1, 3, -1, -1)
    network(functional.interpolate(grey, size=(_SHOWN, _SHOWN), mode="bicubic"))
    for handle in hooks:
        handle.remove()
    return found


def _pointwise(weight: Tensor) -> Tensor:
    """Return a matrix as the weights of a 1 x 1 convolution in bfloat16."""
    return weight.to(_HALF)[:, :, None, None]


# Rows of bfloat16 numbers are kept as maps (1, c, 1, n) with channels last in memory:
# torch's convolutions take these as they are, and are faster than its matrix products.


def _round_deviations(x: Tensor, mean: Tensor) -> Tensor:
    """Return ``x - mean`` of (..., c) float32 as (1, c, 1, n) bfloat16."""
    return _as_map(subtract_to_bfloat16(x.reshape(-1, x.shape[-1]), mean))


def _gate(x: Tensor) -> Tensor:
    """Return ``a gelu(b)`` of (1, 2 c, 1, n), a above b, as (1, c, 1, n)."""
    return _as_map(gate_by_gelu(x[0, :, 0].T))


def _give_back(x: Tensor, mean: Tensor) -> Tensor:
    """Return ``x + mean`` of (1, c, 1, n) bfloat16 as (n, c) float32."""
    return add_from_bfloat16(x[0, :, 0].T, mean)


def _as_map(rows: Tensor) -> Tensor:
    """Return (n, c) as (1, c, 1, n), without copying."""
    return rows[None, None].permute(0, 3, 1, 2)
