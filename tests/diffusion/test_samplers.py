"""All samplers call one kind of denoiser and report each step."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from rsupres.diffusion.denoiser import OnStep
from rsupres.diffusion.edm import (
    karras_sigmas,
    sample_dpm_plus,
    sample_euler,
    sample_heun,
)
from rsupres.diffusion.samplers import sample_ddim, sample_posterior
from rsupres.diffusion.schedules import Posterior, linear_betas, sqrt_linear_betas
from rsupres.diffusion.solvers import sample_solver

STEPS = 4
BETAS = linear_betas(STEPS, 0.1, 0.9)
POSTERIOR = Posterior.from_betas(BETAS)
SIGMAS = karras_sigmas(STEPS, 0.1, 10.0)


def halved(x: Tensor, level: float) -> Tensor:
    return x / 2.0


def solve(x: Tensor, on_step: OnStep) -> Tensor:
    betas = sqrt_linear_betas(1000, 0.00085, 0.012)
    return sample_solver(halved, x, betas, STEPS, "unipc", on_step)


SAMPLERS: dict[str, Callable[[Tensor, OnStep], Tensor]] = {
    "posterior": lambda x, f: sample_posterior(halved, x, POSTERIOR, on_step=f),
    "ddim": lambda x, f: sample_ddim(halved, x, POSTERIOR, f),
    "unipc": solve,
    "heun": lambda x, f: sample_heun(halved, x, SIGMAS, on_step=f),
    "euler": lambda x, f: sample_euler(halved, x, SIGMAS, f),
    "dpm++": lambda x, f: sample_dpm_plus(halved, x, SIGMAS, f),
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_each_step_is_reported_with_its_state(name: str) -> None:
    seen: list[tuple[int, Tensor]] = []
    start = torch.ones(1, 2, 3, 3)
    result = SAMPLERS[name](start, lambda step, x: seen.append((step, x.clone())))
    numbers = [step for step, _ in seen]
    assert len(numbers) == STEPS
    assert numbers in (sorted(numbers), sorted(numbers, reverse=True))
    assert torch.equal(seen[-1][1], result)
    assert not torch.equal(seen[0][1], start)


def test_euler_with_the_truth_arrives_at_it() -> None:
    truth = torch.full((1, 1, 2, 2), 0.25, dtype=torch.float64)
    result = sample_euler(lambda x, sigma: truth, truth + 10.0, SIGMAS)
    np.testing.assert_allclose(result.numpy(), truth.numpy(), atol=1e-12)
