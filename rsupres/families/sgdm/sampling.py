"""Sample latents with the denoiser of SGDM: ancestral, DDIM, DPM-Solver++ or UniPC."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor

from rsupres.blocks.stable_diffusion_run import (
    ContextKeys,
    StepShifts,
    make_step_shifts,
)
from rsupres.diffusion.denoiser import Noise
from rsupres.diffusion.samplers import sample_ddim, sample_posterior
from rsupres.diffusion.schedules import Posterior, spaced_steps, sqrt_linear_betas
from rsupres.diffusion.solvers import Solver, sample_solver
from rsupres.errors import InputError
from rsupres.families.base import SamplerOptions
from rsupres.families.sgdm.config import SgdmConfig
from rsupres.families.sgdm.network import SgdmNetworks

SAMPLERS = ("ddpm", "ddim", "dpm++", "unipc")


@dataclass(frozen=True)
class Sampling:
    """Settings by which latents are sampled.

    Attributes:
        sampler: one of `SAMPLERS`.
        steps: calls of the denoiser.
    """

    sampler: str
    steps: int


def choose_sampling(config: SgdmConfig, options: SamplerOptions) -> Sampling:
    """Return sampler and steps: the user's choice, else the checkpoint's.

    Args:
        config: of the model.
        options: of the user.

    Raises:
        InputError: an unknown sampler, or a number of steps that it cannot take.
    """
    sampler = options.sampler or config.sampler
    if sampler not in SAMPLERS:
        raise InputError(
            f"{sampler}: unknown to SGDM; known: {', '.join(SAMPLERS)}.",
            argument="sampler",
        )
    steps = options.steps or config.sampling_steps
    if not 1 <= steps <= config.steps:
        raise InputError(f"{steps}: SGDM takes 1 to {config.steps}.", argument="steps")
    return Sampling(sampler, steps)


def sample_latent(
    networks: SgdmNetworks,
    start: Tensor,
    features: Sequence[Tensor],
    context: Tensor | ContextKeys | None,
    sampling: Sampling,
    noise: Noise | None = None,
) -> Tensor:
    """Return the scaled latent (b, c, h, w) float32 that the reverse chain makes.

    Args:
        networks: in eval mode.
        start: standard normal, (b, c, h, w) float32.
        features: of `SgdmNetworks.features`, which no step changes.
        context: the prompt (b or 1, tokens, width), or its keys, which none changes.
        sampling: sampler and number of steps.
        noise: for "ddpm": maps t = steps .. 2 to noise of the shape of `start`.
    """
    config = networks.config
    betas = sqrt_linear_betas(config.steps, *config.beta)
    kept = np.cumprod(1.0 - betas)

    def eps_at(z: Tensor, t: int, shifts: StepShifts | None = None) -> Tensor:
        step = shifts or torch.tensor([t], device=z.device)
        predicted = networks.predict(z, step, context, features)
        if config.prediction == "eps":
            return predicted
        power = float(kept[t])
        if config.prediction == "x0":
            return (z - math.sqrt(power) * predicted) / math.sqrt(1.0 - power)
        # Salimans & Ho 2022: v = sqrt(ab) eps - sqrt(1 - ab) x0
        return math.sqrt(power) * predicted + math.sqrt(1.0 - power) * z

    if sampling.sampler in ("dpm++", "unipc"):
        solver = cast(Solver, sampling.sampler)
        return sample_solver(eps_at, start, betas, sampling.steps, solver)
    chosen = spaced_steps(config.steps, sampling.steps)
    posterior = Posterior.spaced(betas, chosen)
    at_once = torch.from_numpy(chosen).to(start.device)
    shifts = make_step_shifts(networks.unet, at_once)

    def eps(z: Tensor, t: int) -> Tensor:
        return eps_at(z, int(chosen[t - 1]), shifts.at(t - 1))

    if sampling.sampler == "ddim":
        return sample_ddim(eps, start, posterior)
    return sample_posterior(eps, start, posterior, noise=noise)
