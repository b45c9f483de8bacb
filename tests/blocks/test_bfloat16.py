"""The conversions around bfloat16 products agree whether kernels are on or off."""

from __future__ import annotations

import pytest
import torch

from rsupres.blocks.bfloat16 import (
    add_from_bfloat16,
    gate_by_gelu,
    subtract_to_bfloat16,
)
from rsupres.kernels import door


def numbers(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("setting", ["on", "off"])
def test_conversions_are_exact_but_for_rounding(monkeypatch, setting) -> None:
    monkeypatch.setenv(door.VARIABLE, setting)
    x, mean = numbers(30, 24), numbers(24)
    halves = subtract_to_bfloat16(x, mean)
    assert torch.equal(halves, (x - mean).to(torch.bfloat16))
    assert torch.equal(add_from_bfloat16(halves, mean), halves.float() + mean)
    a, b = halves.double().chunk(2, 1)
    wanted = a * torch.nn.functional.gelu(b)
    gated = gate_by_gelu(halves)
    assert gated.dtype == torch.bfloat16
    torch.testing.assert_close(gated.double(), wanted, rtol=2**-8, atol=1e-6)
