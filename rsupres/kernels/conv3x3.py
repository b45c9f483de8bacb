"""3 x 3 convolutions of tensors with compiled loops, where these beat torch.

Many channels: Winograd's minimal filtering F(4x4, 3x3) as in Lavin and Gray 2016, "Fast
Algorithms for Convolutional Neural Networks", Sec. 4. Each 4 x 4 tile of the output is
``A^T [(G g G^T) * (B^T d B)] A`` of the 6 x 6 pixels d around it, and the product in
the middle becomes one matrix product over the channels for each of 36 places: a quarter
of the multiplications. The sums have another order than torch's: results are about 7e-6
of the largest value off, where torch's are 1e-6 off.

Few channels out: one matrix product for all nine taps, whose results are then shifted
and added. As exact as torch, which would leave most of each vector empty.

Both are for inference in float32 with channels last in memory. The loops are in
`convolutions`.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.weak import WeakTensorKeyDictionary

from rsupres.kernels.compile import share
from rsupres.kernels.convolutions import (
    convolve_narrow,
    convolve_winograd,
    transform_weights,
)
from rsupres.kernels.intrinsics import NARROW, PANEL, PLACES, ROWS, TILE
from rsupres.kernels.llvm import LANES

_MIN_PIXELS = 256  # of a picture, from which starting the threads pays
_MIN_PIXELS_ONCE = 4096  # from which transforming the weights pays for one use
_TRANSFORMS = 80  # cost of a channel's transforms, in multiplications a pixel
MAX_KEPT = 1 << 29  # numbers of transformed weights that are kept, 2 GiB


def convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    groups: int = 1,
    slope: float = 1.0,
    skip: Tensor | None = None,
) -> Tensor | None:
    """Convolve as `rsupres.kernels.door.convolve3x3`, or return None."""
    if not suits(x, weight):
        return None
    if pays_winograd(weight, groups) and _can_keep(x, weight):
        return convolve_many(x, weight, bias, groups=groups, slope=slope, skip=skip)
    plain = groups == 1 and slope == 1.0 and skip is None
    return convolve_few(x, weight, bias) if plain and pays_narrow(x, weight) else None


def suits(x: Tensor, weight: Tensor) -> bool:
    """Return whether type, memory order and size fit, and no gradient is wanted."""
    return (
        x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and x.stride(1) == 1
        and x.shape[0] * x.shape[2] * x.shape[3] >= _MIN_PIXELS
    )


def pays_winograd(weight: Tensor, groups: int = 1) -> bool:
    """Return whether `convolve_many` needs less work than torch."""
    c_in, c_out = weight.shape[1], len(weight) // groups
    padded = -(-c_out // PANEL) * PANEL
    work = PLACES / TILE**2 * c_in * padded + _TRANSFORMS * (c_in + padded)
    return 9 * c_in * c_out > work


def pays_narrow(x: Tensor, weight: Tensor) -> bool:
    """Return whether `convolve_few` can be used and is faster than torch."""
    c_out, c_in = weight.shape[:2]
    return c_out <= NARROW and c_in % LANES == 0 and x.shape[3] >= ROWS


def convolve_many(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    groups: int = 1,
    slope: float = 1.0,
    skip: Tensor | None = None,
) -> Tensor:
    """Convolve as `convolve`, with Winograd's minimal filtering."""
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
    share(lambda *part: convolve_winograd(*given, *part))
    return out.permute(0, 3, 1, 2)


def convolve_few(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Convolve as `convolve`, for few channels out; no groups, slope or skip."""
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


class _Filters(NamedTuple):
    """Transformed weights, and the state of the weights that they were made of."""

    version: tuple[int, int]
    values: Tensor


_filters: MutableMapping[Tensor, _Filters] = WeakTensorKeyDictionary()


def n_kept() -> int:
    """Return how many numbers of transformed weights are kept in memory."""
    return sum(filters.values.numel() for filters in _filters.values())


def _can_keep(x: Tensor, weight: Tensor) -> bool:
    """Return whether filters are kept or fit, or pay even if made for this call."""
    if weight in _filters or x.shape[0] * x.shape[2] * x.shape[3] >= _MIN_PIXELS_ONCE:
        return True
    return weight.numel() * 4 + n_kept() <= MAX_KEPT


def _transformed(weight: Tensor, groups: int) -> Tensor:
    """Return the filters of weights; kept until the weights change or are deleted."""
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
    if flat.numel() + n_kept() <= MAX_KEPT:
        _filters[weight] = _Filters(version, flat)
    return flat


def _constants(weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.zeros(len(weight)) if bias is None else bias.detach()


def _flat(x: Tensor) -> Tensor:
    """Return (b, c, h, w) as flat numbers in the order (b, h, w, c)."""
    return x.detach().permute(0, 2, 3, 1).reshape(-1)
