"""Winograd's convolutions beside torch's."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from rsupres.blocks import winograd
from rsupres.blocks.winograd import conv3x3, conv_winograd, pays


def layer(c_in: int, c_out: int, groups: int = 1):
    generator = torch.Generator().manual_seed(c_in)
    weight = torch.randn(c_out, c_in // groups, 3, 3, generator=generator)
    weight /= (9 * c_in / groups) ** 0.5
    weight = weight.contiguous(memory_format=torch.channels_last)
    return weight, torch.randn(c_out, generator=generator)


def picture(b: int, c: int, h: int, w: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(h)
    x = torch.randn(b, c, h, w, generator=generator)
    return x.contiguous(memory_format=torch.channels_last)


@settings(max_examples=30, deadline=None)
@given(
    b=st.integers(1, 3),
    h=st.integers(1, 19),
    w=st.integers(1, 19),
    groups=st.sampled_from([1, 2]),
    together=st.booleans(),
)
def test_any_size_equals_the_convolution(b, h, w, groups, together) -> None:
    weight, bias = layer(6, 10, groups)
    x = picture(b, 6, h, w)
    x = x if together else x.contiguous()
    wanted = functional.conv2d(
        x.double(), weight.double(), bias.double(), padding=1, groups=groups
    )
    with torch.no_grad():
        made = conv_winograd(x, weight, bias, groups)
    assert made.shape == wanted.shape
    assert float((made - wanted).abs().max()) < 2e-5 * float(wanted.abs().max())


def test_rows_may_be_done_in_parts(monkeypatch) -> None:
    weight, bias = layer(8, 8)
    x = picture(2, 8, 30, 22)
    whole = conv_winograd(x, weight, bias)
    monkeypatch.setattr(winograd, "_CACHED", 1)
    assert torch.allclose(conv_winograd(x, weight, bias), whole, atol=1e-5)


def test_it_is_taken_only_where_it_pays(monkeypatch) -> None:
    weight, bias = layer(256, 256)
    x = picture(1, 256, 48, 48)
    small = picture(1, 256, 16, 16)
    apart = weight.contiguous()
    narrow, _ = layer(256, 64)
    with torch.no_grad():
        assert pays(x, weight)
        assert not pays(small, weight)
        assert not pays(x, apart)
        assert not pays(x, narrow)
        assert not pays(x.bfloat16(), weight.bfloat16())
    assert not pays(x, weight)  # a gradient may be wanted
    taken: list[int] = []
    monkeypatch.setattr(
        winograd, "conv_winograd", lambda *given: taken.append(1) or given[0]
    )
    with torch.no_grad():
        conv3x3(x, weight, bias)
        assert taken == [1]
        plain = conv3x3(small, weight, bias)
    wanted = functional.conv2d(small, weight, bias, padding=1)
    assert taken == [1]
    assert torch.equal(plain, wanted)


def test_a_gradient_flows_through_the_ordinary_way() -> None:
    weight, bias = layer(256, 256)
    weight.requires_grad_()
    conv3x3(picture(1, 256, 48, 48), weight, bias).square().mean().backward()
    assert weight.grad is not None
    assert float(weight.grad.abs().sum()) > 0


@pytest.mark.parametrize("shape", [(1, 256, 48, 48), (2, 512, 64, 32)])
def test_wide_layers_stay_accurate(shape) -> None:
    weight, bias = layer(shape[1], 256)
    x = picture(*shape)
    with torch.inference_mode():
        made = conv3x3(x, weight, bias)
        wanted = functional.conv2d(x, weight, bias, padding=1)
    assert float((made - wanted).abs().max()) < 2e-5 * float(wanted.abs().max())
