"""The student in bfloat16 on a CPU: maps as deviations from what they usually are.

bfloat16 keeps 8 bits of a number, and the student's maps differ little from place to
place, so that rounding takes a large share of what they say. Here each channel's usual
value is taken away before rounding and given back by the next layer's bias: exact for
any usual value, as the layers are linear. Borders hold what zero then is, instead of
zeros. What is usual is found once, from a picture made for that, so that results do not
depend on scene, tile or batch.

In bfloat16: fine levels of encoder and decoder, and the trunk's products over channels.
In float32: coarse levels, residual sums, norms, depthwise filters, gates and queries.
CUDA has other fast paths; this is for processors that multiply bfloat16.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from rsupres.families.slimdiffsr_network import (
    DoublingConv,
    SlimDiffSRNetwork,
    TinyBlock,
    doubled_kernel,
)

_HALF = torch.bfloat16
_FINE = 3  # levels of encoder and decoder in bfloat16: all but the coarsest
_BLOCKS = 3  # in a level
_PROJECTIONS = ("proj_in", "proj_out")
_DRAWN, _SHOWN = 8, 128  # sides of the picture that shows what is usual
_GREYS = (-0.7, 0.5)  # its range; most images are darker than half

Usual = Mapping[str, Tensor]


def halve(network: SlimDiffSRNetwork, fine: int = _FINE) -> SlimDiffSRNetwork:
    """Replace parts of a student by theirs in bfloat16; it is returned.

    Args:
        network: float32, on a CPU, in eval mode; neither trained nor saved afterwards.
        fine: levels of encoder and decoder in bfloat16, 1 to 3.
    """
    usual = _find_usual(network)
    first = _BLOCKS + 1  # layers of a level: blocks and a change of size
    layers, name = network.vae.encoder.layers, "vae.encoder.layers"
    end = 3 + first * (fine - 1)
    network.vae.encoder = nn.Sequential(  # type: ignore[assignment]  # used as before
        _First(layers, usual, name),
        *_halve_layers(layers, name, range(2, end), usual)[1:],
        *list(layers)[end : 2 + 3 * first],
    )
    layers, name = network.vae.decoder.layers, "vae.decoder.layers"
    start = len(layers) - 4 - (first + 1) * (fine - 1)  # where it doubles
    network.vae.decoder = nn.Sequential(  # type: ignore[assignment]  # used as before
        *list(layers)[1:start],
        *_halve_layers(layers, name, range(start, len(layers)), usual),
    )
    _halve_trunk(network.unet, usual)
    return network


def _halve_layers(
    layers: nn.Sequential, name: str, numbers: range, usual: Usual
) -> list[nn.Module]:
    """Return layers in bfloat16 between float32 maps; the last is a convolution."""
    mean = usual[f"{name}.{numbers[0] - 1}"]
    made: list[nn.Module] = [_Enter(mean)]
    for k in numbers:
        layer, end = layers[k], usual[f"{name}.{k}"]
        if isinstance(layer, TinyBlock):
            made.append(_HalfBlock(layer, usual, f"{name}.{k}", mean))
        elif isinstance(layer, nn.Conv2d) and k == numbers[-1]:
            made.append(_Leave(layer, mean, end))
        elif isinstance(layer, nn.Conv2d):
            made += [_HalfConv(layer, mean, end), _Frame(end)]
        mean = end
    return made


def _halve_trunk(trunk: nn.Module, usual: Usual) -> None:
    """Replace the trunk's products over channels; gates and queries stay."""
    for name, part in list(trunk.named_modules()):
        parent, _, last = name.rpartition(".")
        start, end = usual.get(f"in.unet.{name}"), usual.get(f"unet.{name}")
        pointwise = isinstance(part, nn.Conv2d) and part.kernel_size == (1, 1)
        if last == "ff":
            made: nn.Module = _HalfFeedForward(part, usual, f"unet.{name}.net")
        elif isinstance(part, DoublingConv):
            assert start is not None
            assert end is not None
            made = nn.Sequential(_Enter(start), _Leave(part, start, end))
        elif pointwise or last in _PROJECTIONS:
            assert start is not None
            made = _HalfLinear(cast(nn.Linear, part), start)
        else:
            continue
        setattr(trunk.get_submodule(parent), last, made)


class _HalfConv(nn.Module):
    """A convolution from a framed map of deviations to deviations without a frame."""

    weight: Tensor
    bias: Tensor

    def __init__(self, conv: nn.Conv2d, usual_in: Tensor, usual_out: Tensor) -> None:
        super().__init__()
        weight = conv.weight.data
        bias = weight.sum((2, 3)) @ usual_in - usual_out
        if conv.bias is not None:
            bias = bias + conv.bias.data
        self._stride, self._doubles = conv.stride[0], isinstance(conv, DoublingConv)
        if self._doubles:
            weight = doubled_kernel(weight)
        self.register_buffer("weight", _channels_last(weight))
        self.register_buffer("bias", bias.to(_HALF))

    def forward(self, x: Tensor) -> Tensor:
        """Return (b, C, h, w), (b, C, h/2, w/2) or (b, C, 2h, 2w)."""
        if self._doubles:  # "padding" is what is cut off: the frame's three and one
            return functional.conv_transpose2d(x, self.weight, self.bias, 2, 3)
        return functional.conv2d(x, self.weight, self.bias, self._stride)


class _Frame(nn.Module):
    """Puts a map of deviations into a frame of what zero is."""

    zero: Tensor

    def __init__(self, usual: Tensor) -> None:
        super().__init__()
        self.register_buffer("zero", -usual.to(_HALF)[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        """Return (b, c, h + 2, w + 2)."""
        framed = self._make(x)
        _inside(framed).copy_(x)
        return framed

    def rectify(self, x: Tensor) -> Tensor:
        """Return the same after ReLU."""
        framed = self._make(x)
        torch.maximum(x, self.zero, out=_inside(framed))
        return framed

    def _make(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        framed = torch.empty(
            (b, c, h + 2, w + 2), dtype=_HALF, memory_format=torch.channels_last
        )
        for k in (0, -1):
            framed[:, :, k].copy_(self.zero[:, 0])
            framed[:, :, :, k].copy_(self.zero[:, 0])
        return framed


class _HalfBlock(nn.Module):
    """`TinyBlock` from framed deviations to such."""

    def __init__(self, block: TinyBlock, usual: Usual, name: str, mean: Tensor) -> None:
        super().__init__()
        means = [usual[f"{name}.{inner}"] for inner in ("conv.1", "conv.3")]
        end = usual[name]
        self.frames = nn.ModuleList([_Frame(value) for value in (*means, end)])
        # The block's input is added to the last one's result, and with it its mean.
        pairs = zip((mean, *means), (*means, end - mean), strict=True)
        self.convs = nn.ModuleList(
            [
                _HalfConv(cast(nn.Conv2d, block.conv[2 * k]), before, after)
                for k, (before, after) in enumerate(pairs)
            ]
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return (b, c, h + 2, w + 2) of the same."""
        return self.finish(x, self.convs[0](x))

    def finish(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the same, given the first convolution's result y (b, c, h, w)."""
        first, second, end = (cast(_Frame, frame) for frame in self.frames)
        y = second.rectify(self.convs[1](first.rectify(y)))
        return end.rectify(self.convs[2](y).add_(_inside(x)))


class _First(nn.Module):
    """The encoder's first convolution and block, from the picture.

    Nothing lies between that convolution and the block's first, so that they are one
    of 5 x 5 and three channels instead of 3 x 3 and all: an eighth of the products. The
    outermost pixels, where the second sees the first's padding, are computed in turn.
    """

    narrow: Tensor
    wide: Tensor
    narrow_bias: Tensor
    wide_bias: Tensor

    def __init__(self, layers: nn.Sequential, usual: Usual, name: str) -> None:
        super().__init__()
        mean = usual[f"{name}.0"]
        first, block = cast(nn.Conv2d, layers[0]), cast(TinyBlock, layers[1])
        second = cast(nn.Conv2d, block.conv[0])
        assert first.bias is not None
        assert second.bias is not None
        self.frame = _Frame(mean)
        self.block = _HalfBlock(block, usual, f"{name}.1", mean)
        weight = first.weight.data
        both = functional.conv2d(
            weight.transpose(0, 1), second.weight.data.flip(2, 3), padding=2
        ).transpose(0, 1)
        bias = second.weight.data.sum((2, 3)) @ first.bias.data + second.bias.data
        self.register_buffer("narrow", _channels_last(weight))
        self.register_buffer("wide", _channels_last(both))
        self.register_buffer("narrow_bias", (first.bias.data - mean).to(_HALF))
        self.register_buffer("wide_bias", (bias - usual[f"{name}.1.conv.1"]).to(_HALF))

    def forward(self, x: Tensor) -> Tensor:
        """Return framed deviations (b, c, h + 2, w + 2) of (b, 3, h, w)."""
        x = x.to(_HALF)
        framed = self.frame(functional.conv2d(x, self.narrow, self.narrow_bias, 1, 1))
        y = functional.conv2d(x, self.wide, self.wide_bias, 1, 2)
        second = self.block.convs[0]
        y[:, :, :1], y[:, :, -1:] = second(framed[:, :, :3]), second(framed[:, :, -3:])
        y[..., :1], y[..., -1:] = second(framed[..., :3]), second(framed[..., -3:])
        return self.block.finish(framed, y)


class _Enter(nn.Module):
    """From a float32 map to framed deviations."""

    usual: Tensor

    def __init__(self, usual: Tensor) -> None:
        super().__init__()
        self.register_buffer("usual", usual[:, None, None])
        self.frame = _Frame(usual)

    def forward(self, x: Tensor) -> Tensor:
        """Return (b, c, h + 2, w + 2)."""
        framed: Tensor = self.frame((x - self.usual).to(_HALF))
        return framed


class _Leave(nn.Module):
    """From framed deviations through a convolution to a float32 map."""

    usual: Tensor

    def __init__(self, conv: nn.Conv2d, usual_in: Tensor, usual_out: Tensor) -> None:
        super().__init__()
        self.conv = _HalfConv(conv, usual_in, usual_out)
        self.register_buffer("usual", usual_out[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        """Return what the convolution's shape is."""
        result: Tensor = self.conv(x).float().add_(self.usual)
        return result


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
        self.register_buffer("usual", usual[:, None, None])
        self.register_buffer("weight", weight.to(_HALF)[:, :, None, None])
        self.register_buffer("back", back[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        """Return (b, C, h, w) of (b, c, h, w), or (b, n, C) of (b, n, c)."""
        if x.ndim == 3:
            return _as_tokens(self.forward(_as_map(x)))
        deviations = (x - self.usual).to(_HALF)
        return functional.conv2d(deviations, self.weight).float().add_(self.back)


class _HalfFeedForward(nn.Module):
    """The gated feed-forward as two 1 x 1 convolutions.

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
        self.register_buffer("usual", start[:, None, None])
        self.register_buffer("wide", first.weight.data.to(_HALF)[:, :, None, None])
        self.register_buffer("bias", bias.to(_HALF))
        self.register_buffer("narrow", narrow[:, :, None, None])
        self.register_buffer("taken", taken)
        self.register_buffer("back", (back - taken.float())[:, None, None])

    def forward(self, tokens: Tensor) -> Tensor:
        """Return (b, n, c) of the same."""
        x = (_as_map(tokens) - self.usual).to(_HALF)
        a, b = functional.conv2d(x, self.wide, self.bias).chunk(2, 1)
        y = functional.conv2d(functional.gelu(b).mul_(a), self.narrow, self.taken)
        return _as_tokens(y.float().add_(self.back))


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
        for name, part in network.named_modules()
        if name.startswith("vae.") or isinstance(part, nn.Conv2d | nn.Linear)
    ]
    generator = torch.Generator().manual_seed(0)
    drawn = torch.rand(1, 1, _DRAWN, _DRAWN, generator=generator)
    grey = _GREYS[0] + (_GREYS[1] - _GREYS[0]) * drawn.expand(-1, 3, -1, -1)
    network(functional.interpolate(grey, size=(_SHOWN, _SHOWN), mode="bicubic"))
    for handle in hooks:
        handle.remove()
    return found


def _channels_last(weight: Tensor) -> Tensor:
    return weight.to(_HALF).contiguous(memory_format=torch.channels_last)


def _as_map(tokens: Tensor) -> Tensor:
    """Return tokens (b, n, c) as a map (b, c, 1, n), channels last."""
    return tokens.transpose(1, 2)[:, :, None]


def _as_tokens(x: Tensor) -> Tensor:
    return x[:, :, 0].transpose(1, 2)


def _inside(framed: Tensor) -> Tensor:
    return framed[:, :, 1:-1, 1:-1]
