"""The student's trunk in bfloat16: exact but for rounding, borders included."""

from __future__ import annotations

import torch
from torch import Tensor

from rsupres.families.slimdiffsr.config import SlimDiffSRConfig, TrunkConfig
from rsupres.families.slimdiffsr.half import halve
from rsupres.families.slimdiffsr.network import SlimDiffSRNetwork
from rsupres.families.slimdiffsr.released import match_colours
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
