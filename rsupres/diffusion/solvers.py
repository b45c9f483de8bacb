"""Solvers of second order in diffusion steps, from `diffusers`.

For models that predict noise on any schedule: DPM-Solver++ (Lu et al. 2022, multistep)
and UniPC (Zhao et al. 2023). Ten to twenty steps reach the quality of fifty ancestral
ones. Both are deterministic: the result depends on the start alone.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Literal

import numpy as np
from torch import Tensor

from rsupres.diffusion.denoiser import Denoiser

if TYPE_CHECKING:
    from diffusers import DPMSolverMultistepScheduler, UniPCMultistepScheduler

Solver = Literal["dpm++", "unipc"]
_ORDER = 2


def sample_solver(
    denoise: Denoiser[int],
    z: Tensor,
    betas: np.ndarray,
    steps: int,
    solver: Solver,
) -> Tensor:
    """Return the sample, in the type of `z`, that a solver finds from pure noise.

    Args:
        denoise: maps (z_t, t), t a zero-based training step, to eps.
        z: the start, standard normal, any shape.
        betas: variances of all training steps, float64.
        steps: calls of `denoise`.
        solver: "dpm++" or "unipc".
    """
    scheduler = _make_scheduler(betas, solver)
    with warnings.catch_warnings():
        # diffusers 0.42 makes arrays of tensors in a way that numpy will drop.
        warnings.filterwarnings("ignore", "__array__", DeprecationWarning)
        scheduler.set_timesteps(steps)
    for t in scheduler.timesteps.tolist():
        eps = denoise(z, t)
        z = scheduler.step(eps, t, z, return_dict=False)[0]
    return z


def _make_scheduler(
    betas: np.ndarray, solver: Solver
) -> DPMSolverMultistepScheduler | UniPCMultistepScheduler:
    from diffusers import DPMSolverMultistepScheduler, UniPCMultistepScheduler

    kind = {"dpm++": DPMSolverMultistepScheduler, "unipc": UniPCMultistepScheduler}
    made: DPMSolverMultistepScheduler | UniPCMultistepScheduler = kind[solver](
        num_train_timesteps=len(betas),
        trained_betas=betas,
        solver_order=_ORDER,
        prediction_type="epsilon",
        timestep_spacing="linspace",
    )
    return made
