"""The student's trunk in bfloat16 on a CPU: maps as deviations from what is usual.

bfloat16 keeps 8 bits of a number, and the trunk's maps differ little from place to
place, so that rounding takes a large share of what they say. Here each channel's usual
value is taken away before rounding and given back afterwards: exact for any, as
products are linear. What is usual is found once, from a picture made for that, so that
results do not depend on scene, tile or batch.

In bfloat16: products over channels and the doubling convolution. In float32: residual
sums, norms, depthwise filters, gates and queries, and encoder and decoder, where
`rsupres.blocks.winograd` is as fast as bfloat16. CUDA has other fast paths; this is for
processors that multiply bfloat16.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from rsupres.blocks.compiling import share
from rsupres.families.slimdiffsr.network import (
    DoublingConv,
    SlimDiffSRNetwork,
    doubled_kernel,
)

_HALF = torch.bfloat16
_PROJECTIONS = ("proj_in", "proj_out")
_DRAWN, _SHOWN = 8, 128  # sides of the picture that shows what is usual
_GREYS = (-0.7, 0.5)  # its range; most images are darker than half

Usual = Mapping[str, Tensor]


def halve(network: SlimDiffSRNetwork) -> SlimDiffSRNetwork:
    """Replace parts of a student by theirs in bfloat16; it is returned.

    Args:
        network: float32, on a CPU, in eval mode; neither trained nor saved afterwards.
    """
    usual = _find_usual(network)
    for name, part in list(network.unet.named_modules()):
        parent, _, last = name.rpartition(".")
        start, end = usual.get(f"in.{name}"), usual.get(name)
        pointwise = isinstance(part, nn.Conv2d) and part.kernel_size == (1, 1)
        if last == "ff":
            made: nn.Module = _HalfFeedForward(part, usual, f"{name}.net")
        elif isinstance(part, DoublingConv):
            assert start is not None
            assert end is not None
            made = _HalfDoubling(part, start, end)
        elif pointwise or last in _PROJECTIONS:
            assert start is not None
            made = _HalfLinear(cast(nn.Linear, part), start)
        else:
            continue
        setattr(network.unet.get_submodule(parent), last, made)
    return network


class _HalfLinear(nn.Module):
    """A product over the channels, of float32 maps or tokens to such."""

    usual: Tensor
    weight: Tensor
    back: Tensor

    def __init__(self, layer: nn.Linear, usual: Tensor) -> None:
        super().__init__()
        weight = layer.weight.data.flatten(1)
        back = weight @ usual
        if layer.bias is not None:
            back = back + layer.bias.data
        self.register_buffer("usual", usual)
        self.register_buffer("weight", _pointwise(weight))
        self.register_buffer("back", back)

    def forward(self, x: Tensor) -> Tensor:
        """Return (b, C, h, w) of (b, c, h, w), or (b, n, C) of (b, n, c)."""
        maps = x.ndim == 4
        rows = x.permute(0, 2, 3, 1) if maps else x
        made = functional.conv2d(_round_deviations(rows, self.usual), self.weight)
        made = _give_back(made, self.back).view(*rows.shape[:-1], -1)
        return made.permute(0, 3, 1, 2) if maps else made


class _HalfFeedForward(nn.Module):
    """The gated feed-forward.

    The gated product is not centred, but its result is: what is usual in it is taken
    away by a bias and given back, with what the weights' rounding took from it.
    """

    usual: Tensor
    wide: Tensor
    bias: Tensor
    narrow: Tensor
    taken: Tensor
    back: Tensor

    def __init__(self, part: nn.Module, usual: Usual, name: str) -> None:
        super().__init__()
        start, middle = usual[f"in.{name}.0.proj"], usual[f"in.{name}.2"]
        first = cast(nn.Linear, part.get_submodule("net.0.proj"))
        last = cast(nn.Linear, part.get_submodule("net.2"))
        bias = first.bias.data + first.weight.data @ start
        narrow = last.weight.data.to(_HALF)
        taken = -(narrow.float() @ middle).to(_HALF)
        back = last.bias.data + (last.weight.data - narrow.float()) @ middle
        self.register_buffer("usual", start)
        self.register_buffer("wide", _pointwise(first.weight.data))
        self.register_buffer("bias", bias.to(_HALF))
        self.register_buffer("narrow", _pointwise(narrow))
        self.register_buffer("taken", taken)
        self.register_buffer("back", back - taken.float())

    def forward(self, tokens: Tensor) -> Tensor:
        """Return (b, n, c) of the same."""
        deviations = _round_deviations(tokens, self.usual)
        gated = _gate(functional.conv2d(deviations, self.wide, self.bias))
        made = functional.conv2d(gated, self.narrow, self.taken)
        return _give_back(made, self.back).view(tokens.shape)


class _HalfDoubling(nn.Module):
    """`DoublingConv`; around deviations lies a frame of what zero is among them."""

    usual: Tensor
    kernel: Tensor
    bias: Tensor
    back: Tensor

    def __init__(self, conv: DoublingConv, usual_in: Tensor, usual_out: Tensor) -> None:
        super().__init__()
        weight = conv.weight.data
        bias = weight.sum((2, 3)) @ usual_in - usual_out
        if conv.bias is not None:
            bias = bias + conv.bias.data
        kernel = doubled_kernel(weight).to(_HALF)
        self.register_buffer("usual", usual_in)
        self.register_buffer(
            "kernel", kernel.contiguous(memory_format=torch.channels_last)
        )
        self.register_buffer("bias", bias.to(_HALF))
        self.register_buffer("back", usual_out)

    def forward(self, x: Tensor) -> Tensor:
        """Return (b, C, 2h, 2w) of (b, c, h, w)."""
        b, c, h, w = x.shape
        framed = self.usual.to(_HALF).neg().expand(b, h + 2, w + 2, c).contiguous()
        deviations = _round_deviations(x.permute(0, 2, 3, 1), self.usual)
        framed[:, 1:-1, 1:-1] = deviations[0, :, 0].T.view(b, h, w, c)
        made = functional.conv_transpose2d(  # "padding" cuts off the frame's three, one
            framed.permute(0, 3, 1, 2), self.kernel, self.bias, 2, 3
        )
        rows = made.permute(0, 2, 3, 1).flatten(0, 2)
        flat = _give_back(_as_map(rows), self.back)
        return flat.view(b, 2 * h, 2 * w, -1).permute(0, 3, 1, 2)


def _find_usual(network: SlimDiffSRNetwork) -> dict[str, Tensor]:
    """Return the mean per channel of what layers give, and (``in.``) are given.

    Means are rounded to bfloat16, so that a frame's zeros are exact.
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


# Rows of bfloat16 numbers are maps (1, c, 1, n) with channels together: torch's
# convolutions take these as they are, and are faster than its products of matrices.


def _round_deviations(x: Tensor, usual: Tensor) -> Tensor:
    """Return ``x - usual`` of (..., c) as (1, c, 1, n) bfloat16."""
    from rsupres.blocks.half_kernels import round_deviations

    rows = x.reshape(-1, x.shape[-1])
    out = torch.empty(rows.shape, dtype=_HALF)
    given = rows.numpy(), usual.numpy(), _bits(out)
    share(lambda *part: round_deviations(*given, *part))
    return _as_map(out)


def _gate(x: Tensor) -> Tensor:
    """Return ``a gelu(b)`` of (1, 2 c, 1, n), a above b, as (1, c, 1, n)."""
    from rsupres.blocks.half_kernels import gate_by_gelu

    rows = x[0, :, 0].T
    out = torch.empty(len(rows), rows.shape[1] // 2, dtype=_HALF)
    given = _bits(rows), _bits(out)
    share(lambda *part: gate_by_gelu(*given, *part))
    return _as_map(out)


def _give_back(x: Tensor, back: Tensor) -> Tensor:
    """Return ``x + back`` of (1, c, 1, n) as (n, c) float32."""
    from rsupres.blocks.half_kernels import give_back

    rows = x[0, :, 0].T
    out = torch.empty(rows.shape)
    given = _bits(rows), back.numpy(), out.numpy()
    share(lambda *part: give_back(*given, *part))
    return out


def _as_map(rows: Tensor) -> Tensor:
    return rows[None, None].permute(0, 3, 1, 2)


def _bits(x: Tensor) -> np.ndarray:
    return x.contiguous().view(torch.uint16).numpy()
