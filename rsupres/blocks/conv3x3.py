"""3 x 3 convolutions in the fastest way there is; on a CPU, other ones than torch's.

Many channels: Winograd's minimal filtering as Lavin and Gray 2016, "Fast Algorithms for
Convolutional Neural Networks", Sec. 4, have it, F(4x4, 3x3). Each 4 x 4 tile of the
output is ``A^T [(G g G^T) * (B^T d B)] A`` of the 6 x 6 pixels d around it, and the
product in the middle becomes one matrix product of channels for each of 36 places: a
quarter of the multiplications. The sums are exact in another order: about 7e-6 of the
largest value off, where torch's own are 1e-6 off.

Few channels out: one product for all taps, whose results are then shifted and added,
where torch would leave most of each vector empty. As exact as torch.

Both are for inference in float32 with channels together; anything else is torch's. The
loops are in `conv3x3_kernels`.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from functools import cache
from importlib.util import find_spec
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.weak import WeakTensorKeyDictionary

from rsupres.blocks.compiling import share

_LARGE = 256  # pixels of a picture from which the threads' start pays
_MANY = 4096  # pixels from which transforming the weights pays for one use
_KEPT = 1 << 29  # numbers of transformed weights that are kept, 2 GiB
_TRANSFORMS = 80  # what a channel's transforms cost, in multiplications of a pixel


class Conv3x3(nn.Conv2d):
    """A convolution with 3 x 3 weights, zero padding 1, see `conv3x3`."""

    def __init__(self, c_in: int, c_out: int, *, bias: bool = True) -> None:
        super().__init__(c_in, c_out, 3, padding=1, bias=bias)

    def forward(
        self, x: Tensor, *, slope: float = 1.0, skip: Tensor | None = None
    ) -> Tensor:
        """Return (b, o, h, w) of (b, c, h, w)."""
        return conv3x3(x, self.weight, self.bias, slope=slope, skip=skip)


def conv3x3(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    groups: int = 1,
    slope: float = 1.0,
    skip: Tensor | None = None,
) -> Tensor:
    """Return ``f(x * weight + bias + skip)``; f(y) = y, and slope y where y < 0.

    Args:
        x: (b, c, h, w).
        weight: (o, c / groups, 3, 3); x is padded with zeros.
        bias: (o,).
        groups: of channels that do not see one another.
        slope: 0 to 1; 1 = f is the identity.
        skip: (b, o, h, w).
    """
    if suits(x, weight):
        if pays_winograd(x, weight, groups) and _lasts(x, weight):
            return conv_winograd(x, weight, bias, groups=groups, slope=slope, skip=skip)
        if groups == 1 and slope == 1.0 and skip is None and pays_narrow(x, weight):
            return conv_narrow(x, weight, bias)
    y = functional.conv2d(x, weight, bias, padding=1, groups=groups)
    if skip is not None:
        y.add_(skip)
    return y if slope == 1.0 else functional.leaky_relu_(y, slope)


def suits(x: Tensor, weight: Tensor) -> bool:
    """Return whether another way than torch's may be taken."""
    return (
        x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and x.stride(1) == 1
        and x.shape[0] * x.shape[2] * x.shape[3] >= _LARGE
        and _can_compile()
    )


def pays_winograd(x: Tensor, weight: Tensor, groups: int = 1) -> bool:
    """Return whether `conv_winograd` is faster than torch."""
    from rsupres.blocks.conv3x3_kernels import PANEL, PLACES, TILE

    c_in, c_out = weight.shape[1], len(weight) // groups
    padded = -(-c_out // PANEL) * PANEL
    work = PLACES / TILE**2 * c_in * padded + _TRANSFORMS * (c_in + padded)
    return 9 * c_in * c_out > work


def pays_narrow(x: Tensor, weight: Tensor) -> bool:
    """Return whether `conv_narrow` may be used and is faster than torch."""
    from rsupres.blocks.conv3x3_kernels import LANES, NARROW, ROWS

    c_out, c_in = weight.shape[:2]
    return c_out <= NARROW and c_in % LANES == 0 and x.shape[3] >= ROWS


def conv_winograd(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    groups: int = 1,
    slope: float = 1.0,
    skip: Tensor | None = None,
) -> Tensor:
    """Convolve as `conv3x3`, for many channels."""
    from rsupres.blocks.conv3x3_kernels import convolve

    b, channels, h, w = x.shape
    out = torch.empty(b, h, w, len(weight))
    given = (
        _flat(x).numpy(),
        (b, h, w, groups),
        _transformed(weight, groups).numpy(),
        channels // groups,
        _constants(weight, bias).numpy(),
        (torch.empty(0) if skip is None else _flat(skip)).numpy(),
        slope,
        out.view(-1).numpy(),
    )
    share(lambda *part: convolve(*given, *part))
    return out.permute(0, 3, 1, 2)


def conv_narrow(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Convolve as `conv3x3`, for few channels out and none of its extras."""
    from rsupres.blocks.conv3x3_kernels import PANEL, convolve_narrow

    b, channels, h, w = x.shape
    c_out = len(weight)
    taps = weight.detach().permute(1, 2, 3, 0).reshape(channels, 9 * c_out)
    taps = functional.pad(taps, (0, PANEL - 9 * c_out))
    out = torch.empty(b, h, w, c_out)
    given = (
        _flat(x).numpy(),
        (b, h, w),
        taps.view(-1).numpy(),
        channels,
        _constants(weight, bias).numpy(),
        out.view(-1).numpy(),
    )
    share(lambda *part: convolve_narrow(*given, *part))
    return out.permute(0, 3, 1, 2)


def use_conv3x3(network: nn.Module) -> None:
    """Make each convolution of a network that could be `Conv3x3` one, in place."""
    for module in network.modules():
        if type(module) is not nn.Conv2d or module.kernel_size != (3, 3):
            continue
        plain = module.padding_mode == "zeros" and module.groups == 1
        if plain and module.stride == module.padding == module.dilation == (1, 1):
            module.__class__ = Conv3x3


class _Filters(NamedTuple):
    """Transformed weights, and which ones they were made of."""

    version: tuple[int, int]
    values: Tensor


_filters: MutableMapping[Tensor, _Filters] = WeakTensorKeyDictionary()


def _lasts(x: Tensor, weight: Tensor) -> bool:
    """Return whether filters can be kept, or pay for being made anew."""
    if weight in _filters or x.shape[0] * x.shape[2] * x.shape[3] >= _MANY:
        return True
    return weight.numel() * 4 + _n_kept() <= _KEPT


def _n_kept() -> int:
    return sum(filters.values.numel() for filters in _filters.values())


def _transformed(weight: Tensor, groups: int) -> Tensor:
    """Return the filters of weights; kept while these neither change nor vanish."""
    from rsupres.blocks.conv3x3_kernels import (
        LANES,
        PANEL,
        PLACES,
        transform_weights,
    )

    version = (0 if weight.is_inference() else weight._version, weight.data_ptr())
    kept = _filters.get(weight)
    if kept is not None and kept.version == version:
        return kept.values
    c_out, channels = weight.shape[:2]
    width = c_out // groups
    panels, depth = -(-width // PANEL), -(-channels // LANES) * LANES
    taps = weight.detach().reshape(groups, width, channels, 9).permute(0, 3, 2, 1)
    spare = (0, panels * PANEL - width, 0, depth - channels)
    taps = functional.pad(taps, spare).reshape(groups, -1)
    values = torch.empty(groups, PLACES * panels * depth * PANEL)
    for read, written in zip(taps, values, strict=True):
        given = (read.numpy(), written.numpy(), depth, panels)
        share(lambda *part, given=given: transform_weights(*given, *part))
    flat = values.view(-1)
    if flat.numel() + _n_kept() <= _KEPT:
        _filters[weight] = _Filters(version, flat)
    return flat


@cache
def _can_compile() -> bool:
    """Return whether numba is here; a machine that only trains may lack it."""
    return find_spec("numba") is not None


def _constants(weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.zeros(len(weight)) if bias is None else bias.detach()


def _flat(x: Tensor) -> Tensor:
    """Return (b, c, h, w) as flat numbers in the order (b, h, w, c)."""
    return x.detach().permute(0, 2, 3, 1).reshape(-1)
