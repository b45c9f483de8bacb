"""Our convolutions beside torch's."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from rsupres.blocks import conv3x3 as module
from rsupres.blocks.conv3x3 import (
    Conv3x3,
    conv3x3,
    conv_narrow,
    conv_winograd,
    pays_narrow,
    pays_winograd,
    suits,
)
from rsupres.blocks.conv3x3_kernels import LANES, NARROW, ROWS


def layer(c_in: int, c_out: int, groups: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(c_in)
    weight = torch.randn(c_out, c_in // groups, 3, 3, generator=generator)
    weight /= (9 * c_in / groups) ** 0.5
    return weight, torch.randn(c_out, generator=generator)


def picture(b: int, c: int, h: int, w: int) -> Tensor:
    generator = torch.Generator().manual_seed(h)
    x = torch.randn(b, c, h, w, generator=generator)
    return x.contiguous(memory_format=torch.channels_last)


def plain(x: Tensor, weight: Tensor, bias: Tensor | None, groups: int = 1) -> Tensor:
    """Return torch's convolution in float64."""
    constants = None if bias is None else bias.double()
    return functional.conv2d(
        x.double(), weight.double(), constants, padding=1, groups=groups
    )


def largest_difference(got: Tensor, wanted: Tensor) -> float:
    return float((got - wanted).abs().max() / wanted.abs().max())


@pytest.fixture(params=[1, 2, 3])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


@settings(max_examples=60, deadline=None)
@given(
    b=st.integers(1, 3),
    h=st.integers(1, 19),
    w=st.integers(1, 19),
    c_in=st.integers(1, 40),
    c_out=st.integers(1, 100),
    groups=st.sampled_from([1, 2, 3]),
    slope=st.sampled_from([0.0, 0.1, 1.0]),
    skips=st.booleans(),
    biased=st.booleans(),
    together=st.booleans(),
)
def test_winograd_equals_the_convolution_at_any_size(
    b, h, w, c_in, c_out, groups, slope, skips, biased, together
) -> None:
    weight, bias = layer(c_in * groups, c_out * groups, groups)
    bias = bias if biased else None
    x = picture(b, c_in * groups, h, w)
    x = x if together else x.contiguous()
    skip = picture(b, c_out * groups, h, w) if skips else None
    wanted = plain(x, weight, bias, groups) + (0.0 if skip is None else skip)
    wanted = torch.where(wanted > 0, wanted, slope * wanted)
    with torch.no_grad():
        made = conv_winograd(x, weight, bias, groups=groups, slope=slope, skip=skip)
    assert made.shape == wanted.shape
    assert float((made - wanted).abs().max()) < 5e-5


@settings(max_examples=40, deadline=None)
@given(
    b=st.integers(1, 3),
    h=st.integers(1, 12),
    w=st.integers(ROWS, 23),
    vectors=st.integers(1, 4),
    c_out=st.integers(1, NARROW),
    biased=st.booleans(),
)
def test_few_channels_equal_the_convolution_at_any_size(
    b, h, w, vectors, c_out, biased
) -> None:
    weight, bias = layer(vectors * LANES, c_out)
    bias = bias if biased else None
    x = picture(b, vectors * LANES, h, w)
    with torch.no_grad():
        made = conv_narrow(x, weight, bias)
    assert float((made - plain(x, weight, bias)).abs().max()) < 1e-5


def test_threads_change_nothing(threads) -> None:
    weight, bias = layer(64, 64)
    narrow, few = layer(64, NARROW)
    x = picture(2, 64, 30, 22)
    odd, grouped = layer(64, 240, 2)  # of four panels a group, the last one half full
    with torch.no_grad():
        made = conv_winograd(x, odd, grouped, groups=2)
        assert largest_difference(made, plain(x, odd, grouped, 2)) < 2e-5
        assert (
            largest_difference(conv_winograd(x, weight, bias), plain(x, weight, bias))
            < 2e-5
        )
        assert (
            largest_difference(conv_narrow(x, narrow, few), plain(x, narrow, few))
            < 2e-6
        )


def test_other_ways_are_taken_only_where_they_suit_and_pay() -> None:
    weight, _ = layer(64, 64)
    x, small = picture(1, 64, 48, 48), picture(1, 64, 12, 12)
    assert not suits(x, weight)  # a gradient may be wanted
    with torch.no_grad():
        assert suits(x, weight)
        assert suits(x[:, :48], weight)  # channels lie together in a part, too
        assert not suits(small, weight)
        assert not suits(x.contiguous(), weight)
        assert not suits(x.bfloat16(), weight.bfloat16())
        with torch.autocast("cpu"):
            assert not suits(x, weight)
    assert pays_winograd(x, weight)
    assert not pays_winograd(x, layer(64, 3)[0])
    assert not pays_winograd(x, layer(8, 64)[0])
    assert pays_narrow(x, layer(64, NARROW)[0])
    assert not pays_narrow(x, layer(64, NARROW + 1)[0])
    assert not pays_narrow(x, layer(LANES + 1, NARROW)[0])


def test_each_way_is_taken_in_turn(monkeypatch) -> None:
    taken: list[str] = []
    for name in ("conv_winograd", "conv_narrow"):
        made = getattr(module, name)

        def note(*given, name=name, made=made, **more):
            taken.append(name)
            return made(*given, **more)

        monkeypatch.setattr(module, name, note)
    x, small = picture(1, 64, 48, 48), picture(1, 64, 12, 12)
    wide, few = layer(64, 64), layer(64, NARROW)
    with torch.no_grad():
        for given_x, pair in ((x, wide), (x, few), (small, wide)):
            made = conv3x3(given_x, *pair)
            assert largest_difference(made, plain(given_x, *pair)) < 2e-5
    assert taken == ["conv_winograd", "conv_narrow"]


def test_what_follows_is_the_same_in_torchs_way() -> None:
    weight, bias = layer(64, 64)
    x, skip = picture(1, 64, 48, 48), picture(1, 64, 48, 48)
    with torch.no_grad():
        ours = conv3x3(x, weight, bias, slope=0.1, skip=skip)
    torchs = conv3x3(x, weight.requires_grad_(), bias, slope=0.1, skip=skip)
    assert torchs.requires_grad
    assert largest_difference(ours, torchs.detach()) < 2e-5


def test_a_gradient_flows_through_the_ordinary_way() -> None:
    conv = Conv3x3(64, 64)
    conv(picture(1, 64, 48, 48), slope=0.0).square().mean().backward()
    assert conv.weight.grad is not None
    assert float(conv.weight.grad.abs().sum()) > 0


def test_weights_that_change_are_seen() -> None:
    """Filters are kept, so each way of changing weights must be noticed."""
    conv = Conv3x3(64, 64).requires_grad_(False)
    x = picture(1, 64, 48, 48)

    def agrees() -> bool:
        wanted = plain(x, conv.weight, conv.bias)
        return largest_difference(conv(x), wanted) < 2e-5

    assert agrees()
    conv.weight.mul_(2.0)
    assert agrees()
    conv.weight.data = layer(64, 64)[0]
    assert agrees()
    conv.load_state_dict({"weight": torch.randn(64, 64, 3, 3), "bias": torch.ones(64)})
    assert agrees()
    conv.weight = torch.nn.Parameter(layer(64, 64)[0] * 3.0, requires_grad=False)
    assert agrees()


def test_filters_go_with_their_weights(monkeypatch) -> None:
    x = picture(1, 64, 48, 48)
    with torch.no_grad():
        before = len(module._filters)
        conv = Conv3x3(64, 64)
        conv(x)
        assert len(module._filters) == before + 1
        del conv
        assert len(module._filters) == before
        monkeypatch.setattr(module, "_KEPT", 0)
        conv = Conv3x3(64, 64)
        assert largest_difference(conv(x), plain(x, conv.weight, conv.bias)) < 2e-5
        assert len(module._filters) == before


@pytest.mark.parametrize("shape", [(1, 256, 48, 48), (2, 516, 64, 32)])
def test_wide_layers_stay_accurate(shape) -> None:
    weight, bias = layer(shape[1], 256)
    x = picture(*shape)
    with torch.inference_mode():
        made = conv3x3(x, weight, bias)
    assert largest_difference(made, plain(x, weight, bias)) < 2e-5


def test_without_room_for_filters_only_large_pictures_are_ours(monkeypatch) -> None:
    """Making the filters anew for each small picture would cost more than it gains."""
    taken: list[int] = []
    made = module.conv_winograd

    def note(x, *given, **more):
        taken.append(x.shape[2])
        return made(x, *given, **more)

    monkeypatch.setattr(module, "conv_winograd", note)
    weight, bias = layer(64, 64)
    kept, _ = layer(64, 64)
    with torch.no_grad():
        conv3x3(picture(1, 64, 48, 48), kept, bias)
        monkeypatch.setattr(module, "_KEPT", 0)
        for filters in (weight, kept):
            for side in (48, 64):
                conv3x3(picture(1, 64, side, side), filters, bias)
    assert taken == [48, 64, 48, 64]


def test_a_network_takes_them_where_it_could_have_them_itself() -> None:
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
    module.use_conv3x3(network)
    kinds = [type(part) is Conv3x3 for part in network]
    assert kinds == [True, True] + [False] * len(others)
    assert torch.equal(network(picture(1, 8, 20, 20)), wanted)
