"""The compiled conversions round as torch does."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

pytest.importorskip("numba", reason="needs rsupres[fast]")

from rsupres.kernels.bfloat16 import write_differences, write_gated, write_sums


def bits(x: Tensor) -> np.ndarray:
    return x.view(torch.uint16).numpy()


@settings(max_examples=20, deadline=None)
@given(
    n=st.integers(1, 9),
    c=st.integers(1, 40),
    parts=st.integers(1, 4),
    seed=st.integers(0, 99),
)
def test_differences_and_sums_round_as_torch_does(n, c, parts, seed) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, c, generator=generator) * 10.0 ** (seed % 9 - 4)
    mean = torch.randn(c, generator=generator)
    halves, back = torch.empty(n, c, dtype=torch.bfloat16), torch.empty(n, c)
    for part in range(parts):
        write_differences(x.numpy(), mean.numpy(), bits(halves), part, parts)
    for part in range(parts):
        write_sums(bits(halves), mean.numpy(), back.numpy(), part, parts)
    assert torch.equal(halves, (x - mean).bfloat16())
    assert torch.equal(back, halves.float() + mean)


@pytest.mark.parametrize("size", [0.01, 1.0, 30.0])
def test_the_gate_is_the_exact_gelu(size: float) -> None:
    generator = torch.Generator().manual_seed(1)
    x = (torch.randn(64, 96, generator=generator) * size).bfloat16()
    out = torch.empty(64, 48, dtype=torch.bfloat16)
    write_gated(bits(x), bits(out), 0, 1)
    a, b = x.double().chunk(2, 1)
    wanted = a * functional.gelu(b)
    torch.testing.assert_close(out.double(), wanted, rtol=2**-8, atol=1e-6 * size**2)


def test_rounding_takes_the_even_neighbour_of_a_tie() -> None:
    tie = torch.tensor([[1.0 + 2**-8, 1.0 + 3 * 2**-8, -1.0 - 2**-8]])
    halves = torch.empty(1, 3, dtype=torch.bfloat16)
    write_differences(tie.numpy(), np.zeros(3, np.float32), bits(halves), 0, 1)
    assert torch.equal(halves, tie.bfloat16())
