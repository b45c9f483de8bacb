"""Conversions around bfloat16 products round once, and layers keep float32."""

from __future__ import annotations

import torch

from rsupres.blocks.bfloat16 import (
    add_from_bfloat16,
    gate_by_gelu,
    in_float32,
    subtract_to_bfloat16,
    working_type,
)


def numbers(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def test_conversions_are_exact_but_for_rounding() -> None:
    x, mean = numbers(30, 24), numbers(24)
    halves = subtract_to_bfloat16(x, mean)
    assert torch.equal(halves, (x - mean).to(torch.bfloat16))
    assert torch.equal(add_from_bfloat16(halves, mean), halves.float() + mean)
    a, b = halves.double().chunk(2, 1)
    wanted = a * torch.nn.functional.gelu(b)
    gated = gate_by_gelu(halves)
    assert gated.dtype == torch.bfloat16
    torch.testing.assert_close(gated.double(), wanted, rtol=2**-8, atol=1e-6)


def test_a_layer_in_float32_is_not_rounded_under_autocast() -> None:
    layer, x = torch.nn.Conv2d(3, 4, 3), numbers(1, 3, 8, 8)
    wanted = layer(x)
    assert working_type(x) == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(in_float32(layer, x), wanted)
        assert working_type(x) == layer(x).dtype == torch.bfloat16
