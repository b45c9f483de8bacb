"""`Conv3x3` computes a convolution whether the kernels are on or off."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from rsupres.blocks.conv3x3 import Conv3x3, conv3x3, use_conv3x3
from rsupres.kernels import door


@pytest.fixture(params=["on", "off"])
def kernels(request, monkeypatch):
    monkeypatch.setenv(door.VARIABLE, request.param)


def picture(b: int, c: int, h: int, w: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(h)
    x = torch.randn(b, c, h, w, generator=generator)
    return x.contiguous(memory_format=torch.channels_last)


def largest_difference(got: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((got - wanted).abs().max() / wanted.abs().max())


@pytest.mark.parametrize("groups", [1, 2])
def test_a_convolution_with_skip_and_slope(kernels, groups) -> None:
    conv = torch.nn.Conv2d(64, 64, 3, padding=1, groups=groups)
    x, skip = picture(1, 64, 48, 48), picture(1, 64, 48, 48)
    wanted = functional.leaky_relu(conv(x) + skip, 0.1).detach()
    with torch.no_grad():
        made = conv3x3(
            x, conv.weight, conv.bias, groups=groups, slope=0.1, skip=skip.clone()
        )
    assert largest_difference(made, wanted) < 2e-5


def test_a_gradient_flows(kernels) -> None:
    conv = Conv3x3(64, 64)
    conv(picture(1, 64, 48, 48), slope=0.0).square().mean().backward()
    assert conv.weight.grad is not None
    assert float(conv.weight.grad.abs().sum()) > 0


def test_plain_convolutions_of_a_network_are_replaced_with_their_parameters() -> None:
    fits, bare = (
        torch.nn.Conv2d(8, 8, 3, padding=1),
        torch.nn.Conv2d(8, 8, 3, 1, 1, bias=False),
    )
    others = [
        torch.nn.Conv2d(8, 8, 1),
        torch.nn.Conv2d(8, 8, 3),
        torch.nn.Conv2d(8, 8, 3, stride=2, padding=1),
        torch.nn.Conv2d(8, 8, 3, padding=1, groups=2),
        torch.nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect"),
        torch.nn.Conv2d(8, 8, 3, padding=2, dilation=2),
        torch.nn.ConvTranspose2d(8, 8, 3, padding=1),
    ]
    network = torch.nn.Sequential(fits, bare, *others)
    wanted = network(picture(1, 8, 20, 20))
    names = list(network.state_dict())
    weight = fits.weight
    use_conv3x3(network)
    assert list(network.state_dict()) == names
    assert network[0].weight is weight
    kinds = [type(part) is Conv3x3 for part in network]
    assert kinds == [True, True] + [False] * len(others)
    assert torch.equal(network(picture(1, 8, 20, 20)), wanted)
