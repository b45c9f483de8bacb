"""3 x 3 convolutions that use the compiled kernels where these are on and faster.

Everywhere else, and whenever a gradient may be wanted, torch computes them. The two
ways differ by rounding only.
"""

from __future__ import annotations

from typing import TypeGuard

import torch
from torch import Tensor, nn
from torch.nn import functional

from rsupres.kernels.door import convolve3x3


class Conv3x3(nn.Conv2d):
    """A convolution with 3 x 3 weights and zero padding of 1, see `conv3x3`."""

    def __init__(self, c_in: int, c_out: int, *, bias: bool = True) -> None:
        super().__init__(c_in, c_out, 3, padding=1, bias=bias)

    def forward(
        self, x: Tensor, *, slope: float = 1.0, skip: Tensor | None = None
    ) -> Tensor:
        """Map (b, c, h, w) to (b, o, h, w)."""
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
        x: (b, c, h, w); padded with one row or column of zeros on each side.
        weight: (o, c / groups, 3, 3).
        bias: (o,).
        groups: number of channel groups that are convolved separately.
        slope: of f below zero, 0 to 1; 1 makes f the identity.
        skip: (b, o, h, w).

    Returns:
        (b, o, h, w).
    """
    y = convolve3x3(x, weight, bias, groups=groups, slope=slope, skip=skip)
    if y is not None:
        return y
    y = functional.conv2d(x, weight, bias, padding=1, groups=groups)
    if skip is not None:
        y.add_(skip)
    return y if slope == 1.0 else functional.leaky_relu_(y, slope)


def use_conv3x3(network: nn.Module) -> None:
    """Replace every plain 3 x 3 convolution below `network` by a `Conv3x3`, in place.

    The new modules hold the parameters of the old ones, so names and weights stay. It
    is for networks whose layers another library builds.
    """
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if _is_plain(child):
                setattr(parent, name, _with_parameters_of(child))


def _is_plain(module: nn.Module) -> TypeGuard[nn.Conv2d]:
    if type(module) is not nn.Conv2d or module.kernel_size != (3, 3):
        return False
    plain = module.padding_mode == "zeros" and module.groups == 1
    return plain and module.stride == module.padding == module.dilation == (1, 1)


def _with_parameters_of(conv: nn.Conv2d) -> Conv3x3:
    with torch.device("meta"):  # no weights are drawn
        made = Conv3x3(conv.in_channels, conv.out_channels, bias=conv.bias is not None)
    made.weight, made.bias = conv.weight, conv.bias
    return made.train(conv.training)
