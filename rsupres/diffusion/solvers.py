"""Fast solvers of the probability flow, as `diffusers` has them.

For models that predict eps on any schedule: DPM-Solver++ (Lu et al. 2022, second order,
multistep) and UniPC (Zhao et al. 2023). Ten to twenty steps do what ancestral sampling
does in fifty. Both are deterministic: the start decides.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import numpy as np
from torch import Tensor

if TYPE_CHECKING:
    from diffusers import DPMSolverMultistepScheduler, UniPCMultistepScheduler

Solver = Literal["dpm++", "unipc"]
_ORDER = 2


def sample_solver(
    predict: Callable[[Tensor, int], Tensor],
    z: Tensor,
    betas: np.ndarray,
    steps: int,
    solver: Solver,
) -> Tensor:
    """Solve from pure noise to a sample.

    Args:
        predict: maps (z_t, t), t a zero-based training step, to eps of z_t's shape.
        z: the start, standard normal, any shape.
        betas: variances of all training steps, float64.
        steps: calls of `predict`.
        solver: "dpm++" or "unipc".

    Returns:
        The sample in the type of `z`.
    """
    scheduler = _make_scheduler(betas, solver)
    with warnings.catch_warnings():
        # diffusers 0.42 makes arrays of tensors in a way that numpy will drop.
        warnings.filterwarnings("ignore", "__array__", DeprecationWarning)
        scheduler.set_timesteps(steps)
    for t in scheduler.timesteps.tolist():
        eps = predict(z, t)
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
