"""`Conv3x3` computes a convolution, with a sum and a leaky ReLU."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from rsupres.blocks.conv3x3 import Conv3x3, conv3x3


def picture(b: int, c: int, h: int, w: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(h)
    x = torch.randn(b, c, h, w, generator=generator)
    return x.contiguous(memory_format=torch.channels_last)


def largest_difference(got: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((got - wanted).abs().max() / wanted.abs().max())


@pytest.mark.parametrize("groups", [1, 2])
def test_a_convolution_with_skip_and_slope(groups) -> None:
    conv = torch.nn.Conv2d(64, 64, 3, padding=1, groups=groups)
    x, skip = picture(1, 64, 48, 48), picture(1, 64, 48, 48)
    wanted = functional.leaky_relu(conv(x) + skip, 0.1).detach()
    with torch.no_grad():
        made = conv3x3(
            x, conv.weight, conv.bias, groups=groups, slope=0.1, skip=skip.clone()
        )
    assert largest_difference(made, wanted) < 2e-5


def test_a_gradient_flows() -> None:
    conv = Conv3x3(64, 64)
    conv(picture(1, 64, 48, 48), slope=0.0).square().mean().backward()
    assert conv.weight.grad is not None
    assert float(conv.weight.grad.abs().sum()) > 0
