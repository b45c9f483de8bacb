"""E2DiffSR: continuous-scale super-resolution by a latent of the HR-LR difference.

Wu, Mo, Sun, Ma, "Latent Diffusion, Implicit Amplification: Efficient Continuous-Scale
Super-Resolution for Remote Sensing Images", arXiv 2410.22830.

=====================  =========================================================
Equation, section      Function or class
=====================  =========================================================
Eq. 1                  `Encoder` as DPEncoder, `split_moments`
Eq. 2                  `PriorDecoder`
Eqs. 3-5               `SRBranch`, `FRU`, `IMDB`
Sec. III-C             `CSUM`
Eqs. 7-10, Alg. 1, 2   `latent_posterior`, `sample_latent`
Eq. 12, 13             `rsupres.training.objectives`
=====================  =========================================================

The networks are in `e2diffsr_network`. This file runs them on scenes: `prepare` finds the
latent of the whole scene once, in its own tiles, blended in latent space; `upscale` runs
DEPSR on a tile, reading the shared latent at absolute positions. So the user's tile size
changes neither noise nor latent, and only DEPSR's halo can tell tiles apart.

Corrections of the paper: the signs of Eq. 10, the order of the variances (rising with t),
no noise at the last step, Eq. 4 normalised as the text means.
"""

from __future__ import annotations

from fractions import Fraction

import torch
from torch import Tensor, nn

from rsupres.diffusion.samplers import sample_posterior
from rsupres.diffusion.schedules import Posterior, linear_betas, sqrt_linear_betas
from rsupres.families.e2diffsr_network import E2DiffSRConfig, conditioning_scale


def latent_posterior(config: E2DiffSRConfig) -> Posterior:
    """Return the coefficients of the model's reverse chain."""
    betas = linear_betas if config.schedule == "linear" else sqrt_linear_betas
    return Posterior.from_betas(betas(config.steps, *config.beta))


def sample_latent(
    unet: nn.Module,
    cond: Tensor,
    start: Tensor,
    scale: Fraction,
    config: E2DiffSRConfig,
) -> Tensor:
    """Run the deterministic reverse chain (Algorithm 2 without its last noise).

    Args:
        unet: the denoiser.
        cond: CondNet's output, (b, C, n, m).
        start: z_T, same shape.
        scale: true scale; clipped for conditioning.
        config: the architecture.

    Returns:
        The scaled latent z_0, (b, C, n, m) float32.
    """
    conditioning = torch.full(
        (len(cond),), conditioning_scale(scale, config.s_max), device=cond.device
    )

    def predict(z: Tensor, t: int) -> Tensor:
        step = torch.full((len(z),), t - 1, device=z.device)
        predicted: Tensor = unet(z, cond, step, conditioning)
        return predicted

    posterior = latent_posterior(config)
    return sample_posterior(predict, start.float(), posterior, config.prediction)
