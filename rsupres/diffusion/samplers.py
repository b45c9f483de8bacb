"""Samplers: plain functions from a network and a start to a sample.

A sampler owns no parameters and no random state; noise comes in as an argument.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Tensor

from rsupres.diffusion.schedules import Posterior

Prediction = Literal["eps", "x0"]
StepPredictor = Callable[[Tensor, int], Tensor]
StepNoise = Callable[[int], Tensor]


def sample_posterior(
    predict: StepPredictor,
    z: Tensor,
    posterior: Posterior,
    prediction: Prediction = "eps",
    noise: StepNoise | None = None,
) -> Tensor:
    """Run the reverse chain t = steps .. 1 with posterior means.

    Without `noise` the chain is deterministic: every state is the posterior mean, the
    chain that E2DiffSR, Algorithm 1 trains. With `noise` (ancestral sampling, Ho et al.
    2020, Algorithm 2) ``sqrt(variance_t) * noise(t)`` is added for t >= 2, nothing at
    t = 1.

    Args:
        predict: maps (z_t, t), t one-based, to eps or x0 of the shape of z_t.
        z: the start z_T, any shape.
        posterior: coefficients of the chain.
        prediction: what `predict` returns.
        noise: maps t to standard normal noise of the shape of `z`, or None.

    Returns:
        z_0 in the type of `z`.
    """
    for t in range(posterior.steps, 0, -1):
        z = posterior_step(predict(z, t), z, t, posterior, prediction)
        if noise is not None and t > 1:
            z = z + float(posterior.variance[t - 1]) ** 0.5 * noise(t)
    return z


def sample_ddim(predict: StepPredictor, z: Tensor, posterior: Posterior) -> Tensor:
    """Run the deterministic chain of DDIM with eta = 0 (Song et al. 2021, Eq. 12).

    Args:
        predict: maps (z_t, t), t one-based, to eps of the shape of z_t.
        z: the start z_T, any shape.
        posterior: of the steps to visit; only its alpha_bar is used.

    Returns:
        z_0 in the type of `z`.
    """
    kept = [1.0, *map(float, posterior.alpha_bar)]
    for t in range(posterior.steps, 0, -1):
        eps = predict(z, t)
        x0 = (z - (1.0 - kept[t]) ** 0.5 * eps) / kept[t] ** 0.5
        z = kept[t - 1] ** 0.5 * x0 + (1.0 - kept[t - 1]) ** 0.5 * eps
    return z


def diffuse(z0: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """Return z_t of clean samples (b, ...) at the signal powers (b,), any dtype."""
    kept = alpha_bar.reshape(-1, *(1,) * (z0.ndim - 1))
    return kept.sqrt().to(z0.dtype) * z0 + (1.0 - kept).sqrt().to(z0.dtype) * noise


def posterior_step(
    predicted: Tensor,
    z: Tensor,
    t: int,
    posterior: Posterior,
    prediction: Prediction = "eps",
) -> Tensor:
    """Return the posterior mean of z_{t-1} given z_t and a prediction, t one-based."""
    k = t - 1
    if prediction == "eps":
        return (
            float(posterior.mean_zt[k]) * z + float(posterior.mean_eps[k]) * predicted
        )
    return (
        float(posterior.posterior_z0[k]) * predicted
        + float(posterior.posterior_zt[k]) * z
    )
