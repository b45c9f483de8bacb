"""The compiled convolutions of tensors agree with torch, at any size and order."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

pytest.importorskip("numba", reason="needs rsupres[fast]")

from rsupres.kernels import conv3x3 as module
from rsupres.kernels.conv3x3 import (
    convolve,
    convolve_few,
    convolve_many,
    n_kept,
    pays_narrow,
    pays_winograd,
    suits,
)
from rsupres.kernels.intrinsics import NARROW, PANEL, PLACES, ROWS
from rsupres.kernels.llvm import LANES


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


@settings(max_examples=40, deadline=None)
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
        made = convolve_many(x, weight, bias, groups=groups, slope=slope, skip=skip)
    assert made.shape == wanted.shape
    assert float((made - wanted).abs().max()) < 5e-5


@settings(max_examples=20, deadline=None)
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
        made = convolve_few(x, weight, bias)
    assert float((made - plain(x, weight, bias)).abs().max()) < 1e-5


def test_threads_change_nothing(threads) -> None:
    weight, bias = layer(64, 64)
    narrow, few = layer(64, NARROW)
    x = picture(2, 64, 30, 22)
    odd, grouped = layer(64, 240, 2)  # of four panels a group, the last one half full
    with torch.no_grad():
        made = convolve_many(x, odd, grouped, groups=2)
        assert largest_difference(made, plain(x, odd, grouped, 2)) < 2e-5
        assert (
            largest_difference(convolve_many(x, weight, bias), plain(x, weight, bias))
            < 2e-5
        )
        assert (
            largest_difference(convolve_few(x, narrow, few), plain(x, narrow, few))
            < 2e-6
        )


def test_kernels_run_only_where_they_suit_and_pay() -> None:
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
    assert pays_winograd(weight)
    assert not pays_winograd(layer(64, 3)[0])
    assert not pays_winograd(layer(8, 64)[0])
    assert pays_narrow(x, layer(64, NARROW)[0])
    assert not pays_narrow(x, layer(64, NARROW + 1)[0])
    assert not pays_narrow(x, layer(LANES + 1, NARROW)[0])


def test_the_layer_decides_which_kernel_runs(monkeypatch) -> None:
    taken: list[str] = []
    for name in ("convolve_many", "convolve_few"):
        made = getattr(module, name)

        def note(*given, name=name, made=made, **more):
            taken.append(name)
            return made(*given, **more)

        monkeypatch.setattr(module, name, note)
    x = picture(1, 64, 48, 48)
    wide, few = layer(64, 64), layer(64, NARROW)
    with torch.no_grad():
        for pair in (wide, few):
            made = convolve(x, *pair)
            assert made is not None
            assert largest_difference(made, plain(x, *pair)) < 2e-5
        assert convolve(picture(1, 64, 12, 12), *wide) is None
        assert convolve(x, *few, slope=0.5) is None
    assert convolve(x, *wide) is None  # a gradient may be wanted
    assert taken == ["convolve_many", "convolve_few"]


def test_weights_that_change_are_seen() -> None:
    """Filters are kept, so each way of changing weights must be noticed."""
    conv = torch.nn.Conv2d(64, 64, 3, padding=1).requires_grad_(False)
    x = picture(1, 64, 48, 48)

    def agrees() -> bool:
        made = convolve(x, conv.weight, conv.bias)
        assert made is not None
        return largest_difference(made, plain(x, conv.weight, conv.bias)) < 2e-5

    with torch.no_grad():
        assert agrees()
        conv.weight.mul_(2.0)
        assert agrees()
        conv.weight.data = layer(64, 64)[0]
        assert agrees()
        tensors = {"weight": torch.randn(64, 64, 3, 3), "bias": torch.ones(64)}
        conv.load_state_dict(tensors)
        assert agrees()
        conv.weight = torch.nn.Parameter(layer(64, 64)[0] * 3.0, requires_grad=False)
        assert agrees()


def test_filters_are_freed_with_their_weights(monkeypatch) -> None:
    x = picture(1, 64, 48, 48)
    of_a_layer = PLACES * 64 * -(-64 // PANEL) * PANEL
    with torch.no_grad():
        before = n_kept()
        weight, bias = layer(64, 64)
        convolve(x, weight, bias)
        assert n_kept() == before + of_a_layer
        del weight
        assert n_kept() == before
        monkeypatch.setattr(module, "MAX_KEPT", 0)
        weight, bias = layer(64, 64)
        assert convolve(x, weight, bias) is None
        assert n_kept() == before


@pytest.mark.parametrize("shape", [(1, 256, 48, 48), (2, 516, 64, 32)])
def test_wide_layers_stay_accurate(shape) -> None:
    weight, bias = layer(shape[1], 256)
    x = picture(*shape)
    with torch.inference_mode():
        made = convolve(x, weight, bias)
    assert largest_difference(made, plain(x, weight, bias)) < 2e-5


def test_without_room_for_filters_only_large_pictures_are_convolved(
    monkeypatch,
) -> None:
    """Transforming weights for one small picture costs more than it gains."""
    weight, bias = layer(64, 64)
    kept, _ = layer(64, 64)
    small, large = picture(1, 64, 48, 48), picture(1, 64, 64, 64)
    with torch.no_grad():
        convolve(small, kept, bias)
        monkeypatch.setattr(module, "MAX_KEPT", 0)
        assert convolve(small, weight, bias) is None
        for x, filters in ((large, weight), (small, kept), (large, kept)):
            made = convolve(x, filters, bias)
            assert largest_difference(made, plain(x, filters, bias)) < 2e-5
