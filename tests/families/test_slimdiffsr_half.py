"""The student's trunk in bfloat16: exact but for rounding, borders included."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from rsupres.blocks.half_kernels import (
    gate_by_gelu,
    give_back,
    round_deviations,
)
from rsupres.families.slimdiffsr.half import halve
from rsupres.families.slimdiffsr.network import (
    SlimDiffSRConfig,
    SlimDiffSRNetwork,
    TrunkConfig,
    match_colours,
)
from tests.parity.golden import name_seeded_tensor

CONFIG = SlimDiffSRConfig(4, TrunkConfig((32, 64), 64, 1, 8, 16, "group", 8), 8)


def student() -> SlimDiffSRNetwork:
    """Return name-seeded weights."""
    network = SlimDiffSRNetwork(CONFIG).eval().requires_grad_(False)
    for name, parameter in network.named_parameters():
        parameter.copy_(torch.from_numpy(name_seeded_tensor(name, parameter.shape)))
    return network


def picture() -> Tensor:
    """Return smooth ground with an edge, (2, 3, 64, 96); no two sides are alike."""
    rows = torch.arange(64.0)[:, None] / 64
    cols = torch.arange(96.0) / 96
    ground = 0.8 * torch.sin(5 * rows + 3 * cols) * torch.cos(9 * cols)
    ground = ground - 0.3 * (rows + cols > 1.2)
    return torch.stack([ground, ground.flip(1)])[:, None] * torch.tensor(
        [0.9, 0.7, 0.5]
    ).view(3, 1, 1)


def test_each_part_differs_from_its_own_by_rounding_only() -> None:
    """Each replaced part, given what its own is given: borders and biases agree."""
    network, fast = student(), halve(student())
    seen: list[str] = []

    def compare(name: str, part: torch.nn.Module):
        def hook(_: torch.nn.Module, inputs: tuple[Tensor], wanted: Tensor) -> None:
            got = part(inputs[0])
            assert got.shape == wanted.shape
            error = (got - wanted).abs().amax()
            assert float(error) < 0.08 * float(wanted.std()), name
            seen.append(type(part).__name__)

        return hook

    for name, made in fast.unet.named_modules():
        if type(made).__name__.startswith("_Half"):
            own = network.unet.get_submodule(name)
            own.register_forward_hook(compare(name, made))
    with torch.inference_mode():
        network(picture())
    assert set(seen) == {"_HalfLinear", "_HalfFeedForward", "_HalfDoubling"}


def test_deviations_lose_less_than_values() -> None:
    """Half the error of bfloat16 everywhere, or better, and below a level of 255."""
    x = picture()

    def levels(image: Tensor) -> Tensor:
        return (match_colours(image.float(), x) / 2 + 0.5) * 255

    with torch.inference_mode():
        wanted = levels(student()(x)[1])
        fast = levels(halve(student())(x)[1])
        plain = levels(student().bfloat16()(x.bfloat16())[1])
    error, worse = (float((y - wanted).abs().mean()) for y in (fast, plain))
    print(f"mean error: {error:.3f} levels, plain bfloat16 {worse:.3f}")
    assert 0.0 < error < 1.0
    assert error < 0.5 * worse


def bits(x: Tensor) -> np.ndarray:
    return x.view(torch.uint16).numpy()


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(1, 9),
    c=st.integers(1, 40),
    parts=st.integers(1, 4),
    seed=st.integers(0, 99),
)
def test_rounding_and_giving_back_are_torchs(n, c, parts, seed) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, c, generator=generator) * 10.0 ** (seed % 9 - 4)
    usual = torch.randn(c, generator=generator)
    halves, back = torch.empty(n, c, dtype=torch.bfloat16), torch.empty(n, c)
    for part in range(parts):
        round_deviations(x.numpy(), usual.numpy(), bits(halves), part, parts)
    for part in range(parts):
        give_back(bits(halves), usual.numpy(), back.numpy(), part, parts)
    assert torch.equal(halves, (x - usual).bfloat16())
    assert torch.equal(back, halves.float() + usual)


@pytest.mark.parametrize("size", [0.01, 1.0, 30.0])
def test_the_gate_is_the_exact_gelus(size: float) -> None:
    generator = torch.Generator().manual_seed(1)
    x = (torch.randn(64, 96, generator=generator) * size).bfloat16()
    out = torch.empty(64, 48, dtype=torch.bfloat16)
    gate_by_gelu(bits(x), bits(out), 0, 1)
    a, b = x.double().chunk(2, 1)
    wanted = a * functional.gelu(b)
    torch.testing.assert_close(out.double(), wanted, rtol=2**-8, atol=1e-6 * size**2)


def test_rounding_takes_the_even_neighbour_of_a_tie() -> None:
    tie = torch.tensor([[1.0 + 2**-8, 1.0 + 3 * 2**-8, -1.0 - 2**-8]])
    halves = torch.empty(1, 3, dtype=torch.bfloat16)
    round_deviations(tie.numpy(), np.zeros(3, np.float32), bits(halves), 0, 1)
    assert torch.equal(halves, tie.bfloat16())
