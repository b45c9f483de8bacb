"""3 x 3 convolutions with what often follows them: a sum and a leaky ReLU."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


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
    """Return ``f(x * weight + bias + skip)``, (b, o, h, w); f is a leaky ReLU.

    Args:
        x: (b, c, h, w); padded with one row or column of zeros on each side.
        weight: (o, c / groups, 3, 3).
        bias: (o,).
        groups: number of channel groups that are convolved separately.
        slope: of f below zero, 0 to 1; 1 makes f the identity.
        skip: (b, o, h, w).
    """
    y = functional.conv2d(x, weight, bias, padding=1, groups=groups)
    if skip is not None:
        y.add_(skip)
    return y if slope == 1.0 else functional.leaky_relu_(y, slope)
