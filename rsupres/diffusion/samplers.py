"""Samplers in diffusion steps: ancestral and deterministic posterior means, DDIM.

Plain functions from a denoiser and a start to a sample. They own no parameters and no
random state; noise comes in as an argument. Samplers in noise levels are in
`rsupres.diffusion.edm`, solvers of higher order in `rsupres.diffusion.solvers`.
"""

from __future__ import annotations

from torch import Tensor

from rsupres.diffusion.denoiser import Denoiser, Noise, Prediction
from rsupres.diffusion.schedules import Posterior


def sample_posterior(
    denoise: Denoiser[int],
    z: Tensor,
    posterior: Posterior,
    prediction: Prediction = "eps",
    noise: Noise | None = None,
) -> Tensor:
    """Return z_0, in the type of `z`, of the reverse chain with posterior means.

    Without `noise` the chain is deterministic: every state is the posterior mean, the
    chain that E2DiffSR, Algorithm 1 trains. With `noise` (ancestral sampling, Ho et al.
    2020, Algorithm 2) ``sqrt(variance_t) * noise(t)`` is added for t >= 2, nothing at
    t = 1.

    Args:
        denoise: maps (z_t, t), t one-based, to eps or x0.
        z: the start z_T, any shape.
        posterior: coefficients of the chain.
        prediction: what `denoise` returns.
        noise: maps t to standard normal noise of the shape of `z`, or None.
    """
    for t in range(posterior.steps, 0, -1):
        z = _posterior_step(denoise(z, t), z, t, posterior, prediction)
        if noise is not None and t > 1:
            z = z + float(posterior.variance[t - 1]) ** 0.5 * noise(t)
    return z


def sample_ddim(
    denoise: Denoiser[int],
    z: Tensor,
    posterior: Posterior,
) -> Tensor:
    """Return z_0 of DDIM's deterministic chain, eta = 0 (Song et al. 2021, Eq. 12).

    Args:
        denoise: maps (z_t, t), t one-based, to eps.
        z: the start z_T, any shape.
        posterior: of the steps to visit; only its alpha_bar is used.
    """
    kept = [1.0, *map(float, posterior.alpha_bar)]
    for t in range(posterior.steps, 0, -1):
        eps = denoise(z, t)
        x0 = (z - (1.0 - kept[t]) ** 0.5 * eps) / kept[t] ** 0.5
        z = kept[t - 1] ** 0.5 * x0 + (1.0 - kept[t - 1]) ** 0.5 * eps
    return z


def diffuse(z0: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """Return z_t, clean samples with noise added (Ho et al. 2020, Eq. 4).

    Args:
        z0: clean samples, (b, ...).
        noise: standard normals of that shape.
        alpha_bar: signal powers, (b,), any type.
    """
    kept = alpha_bar.reshape(-1, *(1,) * (z0.ndim - 1))
    return kept.sqrt().to(z0.dtype) * z0 + (1.0 - kept).sqrt().to(z0.dtype) * noise


def _posterior_step(
    predicted: Tensor,
    z: Tensor,
    t: int,
    posterior: Posterior,
    prediction: Prediction,
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
