"""Samplers in noise levels: Karras's levels, Heun with churn, DPM-Solver++, Euler.

Karras et al. 2022, Algorithms 1 and 2, Eq. 5; Lu et al. 2022, "DPM-Solver++", Algorithm
2 (second order, multistep, data prediction). Plain functions: the network comes in as a
`Denoiser` that returns the clean sample, noise as a function of the step. The state has
the type of the start: float64 repeats the released numbers, float32 is enough for a few
steps. `diffusers` has DPM-Solver++ for this case only together with preconditioning of
its own, so the solver is written out here; `rsupres.diffusion.solvers` uses theirs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from rsupres.diffusion.denoiser import Denoiser, Noise


@dataclass(frozen=True)
class Churn:
    """Fresh noise that sampling adds (Karras et al. 2022, Table 5).

    Attributes:
        amount: S_churn, spread over all steps; 0 = the sampler is deterministic.
        low: S_min, smallest noise level at which it is added.
        high: S_max, largest one.
        inflation: S_noise, deviation of that noise.
    """

    amount: float = 0.0
    low: float = 0.05
    high: float = 50.0
    inflation: float = 1.003

    def share(self, sigma: float, steps: int) -> float:
        """Return gamma, the relative growth of the noise level in a step.

        Args:
            sigma: the noise level.
            steps: of the whole run.
        """
        if not self.low <= sigma <= self.high:
            return 0.0
        return min(self.amount / steps, math.sqrt(2.0) - 1.0)


def karras_sigmas(
    steps: int, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0
) -> np.ndarray:
    """Return the noise levels of a run, (steps + 1,) float64; falling, the last is 0.

    Karras et al. 2022, Eq. 5. A single step goes from `sigma_max` to 0 at once.

    Args:
        steps: of the run, at least 1.
        sigma_min: the last level above 0.
        sigma_max: the first level.
        rho: exponent; larger ones place more steps at low levels.
    """
    fractions = np.arange(steps, dtype=np.float64) / max(steps - 1, 1)
    low, high = sigma_min ** (1.0 / rho), sigma_max ** (1.0 / rho)
    return np.append((high + fractions * (low - high)) ** rho, 0.0)


def sample_heun(
    denoise: Denoiser[float],
    x: Tensor,
    sigmas: Sequence[float] | np.ndarray,
    churn: Churn | None = None,
    noise: Noise | None = None,
) -> Tensor:
    """Return a sample by Heun's second-order method, in ``2 * steps - 1`` calls.

    Args:
        denoise: maps (x, sigma) to the clean sample.
        x: the start, at noise level ``sigmas[0]``.
        sigmas: falling noise levels, the last 0.
        churn: fresh noise on the way; None = none.
        noise: maps the number of a step to noise of the shape of `x`; called only where
            `churn` adds some, so it must not depend on how often it is called.
    """
    churn = churn or Churn()
    steps = len(sigmas) - 1
    for step in range(steps):
        sigma, following = float(sigmas[step]), float(sigmas[step + 1])
        share = churn.share(sigma, steps)
        level = sigma * (1.0 + share)
        if share > 0.0 and noise is not None:
            deviation = math.sqrt(level**2 - sigma**2) * churn.inflation
            x = x + deviation * noise(step)
        slope = (x - denoise(x, level)) / level
        moved = x + (following - level) * slope
        if following > 0.0:  # Heun's correction
            ahead = (moved - denoise(moved, following)) / following
            moved = x + (following - level) * (0.5 * slope + 0.5 * ahead)
        x = moved
    return x


def sample_euler(
    denoise: Denoiser[float],
    x: Tensor,
    sigmas: Sequence[float] | np.ndarray,
) -> Tensor:
    """Run Euler's method, one call a step: DDIM without noise, in noise levels.

    Of first order, but it never extrapolates a prediction, which suits two to four
    steps. Arguments and result are those of `sample_heun` without churn.
    """
    for step in range(len(sigmas) - 1):
        ratio = float(sigmas[step + 1]) / float(sigmas[step])
        x = ratio * x + (1.0 - ratio) * denoise(x, float(sigmas[step]))
    return x


def sample_dpm_plus(
    denoise: Denoiser[float],
    x: Tensor,
    sigmas: Sequence[float] | np.ndarray,
) -> Tensor:
    """Run DPM-Solver++(2M): second order with one call of the network a step.

    With lambda = -ln(sigma) and h the step in it, ``x' = sigma'/sigma x - (e^-h - 1)
    d``, where d extrapolates the last two predictions; the first and the last step,
    which ends at 0, are of first order. Arguments and result are those of `sample_heun`
    without churn.
    """
    before: Tensor | None = None
    width_before = 0.0
    for step in range(len(sigmas) - 1):
        sigma, following = float(sigmas[step]), float(sigmas[step + 1])
        predicted = denoise(x, sigma)
        if following == 0.0:
            return predicted
        width = math.log(sigma / following)
        target = predicted
        if before is not None:
            part = width / (2.0 * width_before)
            target = (1.0 + part) * predicted - part * before
        ratio = following / sigma
        x = ratio * x + (1.0 - ratio) * target
        before, width_before = predicted, width
    return x
