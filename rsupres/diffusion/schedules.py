"""Noise schedules, in float64; a sampler casts the values that it uses.

Steps are one-based in the papers; index k of an array belongs to step t = k + 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


def linear_betas(steps: int, first: float, last: float) -> np.ndarray:
    """Return (steps,) variances, linear in beta (Ho et al. 2020).

    Args:
        steps: of the chain.
        first: variance of the first step.
        last: variance of the last step.
    """
    return np.linspace(first, last, steps, dtype=np.float64)


def sqrt_linear_betas(steps: int, first: float, last: float) -> np.ndarray:
    """Return (steps,) variances, linear in sqrt(beta) (Rombach et al. 2022).

    Arguments and result are those of `linear_betas`.
    """
    return np.linspace(first**0.5, last**0.5, steps, dtype=np.float64) ** 2


def spaced_steps(total: int, steps: int) -> np.ndarray:
    """Return `steps` of the training steps 0 .. total - 1, ascending int64.

    First and last are always among them (Nichol & Dhariwal 2021, as in their code: the
    stride is added up in floating point and rounded half to even); of a single step,
    the last one.

    Args:
        total: steps of the training chain.
        steps: that are wanted.

    Raises:
        ValueError: not between 1 and `total`.
    """
    if not 1 <= steps <= total:
        raise ValueError(f"{steps} steps out of {total} cannot be chosen.")
    if steps == 1:
        return np.array([total - 1])
    stride = (total - 1) / (steps - 1)
    chosen, position = [], 0.0
    for _ in range(steps):
        chosen.append(round(position))
        position += stride
    return np.array(chosen)


@dataclass(frozen=True)
class Posterior:
    """All coefficients of the reverse Gaussian steps of a DDPM, each (steps,) float64.

    With ab = alpha_bar and ab_0 = 1 (Ho et al. 2020, Eqs. 6, 7 and 11):

    * ``mean = mean_zt * z_t + mean_eps * eps``
    * ``mean = posterior_z0 * z0 + posterior_zt * z_t``, the same number
    * ``variance = beta_t (1 - ab_{t-1}) / (1 - ab_t)``, 0 at t = 1
    """

    beta: np.ndarray
    alpha_bar: np.ndarray
    mean_zt: np.ndarray
    mean_eps: np.ndarray
    posterior_z0: np.ndarray
    posterior_zt: np.ndarray
    variance: np.ndarray

    @property
    def steps(self) -> int:
        """Number of steps."""
        return len(self.beta)

    @classmethod
    def spaced(cls, beta: np.ndarray, steps: np.ndarray) -> Posterior:
        """Return the chain that visits only `steps`.

        Args:
            beta: (total,) variances of the training chain.
            steps: (n,) that are visited, from 0, ascending.
        """
        alpha_bar = np.cumprod(1.0 - beta)[steps]
        before = np.concatenate([[1.0], alpha_bar[:-1]])
        return cls.from_betas(1.0 - alpha_bar / before)

    @classmethod
    def from_betas(cls, beta: np.ndarray) -> Posterior:
        """Derive every coefficient from the variances of the forward steps."""
        alpha = 1.0 - beta
        alpha_bar = np.cumprod(alpha)
        before = np.concatenate([[1.0], alpha_bar[:-1]])
        return cls(
            beta=beta,
            alpha_bar=alpha_bar,
            mean_zt=1.0 / np.sqrt(alpha),
            mean_eps=-beta / np.sqrt(1.0 - alpha_bar) / np.sqrt(alpha),
            posterior_z0=np.sqrt(before) * beta / (1.0 - alpha_bar),
            posterior_zt=np.sqrt(alpha) * (1.0 - before) / (1.0 - alpha_bar),
            variance=beta * (1.0 - before) / (1.0 - alpha_bar),
        )
