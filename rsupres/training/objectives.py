"""What each stage of a family's training minimises.

One entry per family in `OBJECTIVES`; a stage names its objective. An objective says
which networks train, and turns networks and a batch into named, weighted loss terms. It
owns no optimiser and no loop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from rsupres.families.e2diffsr import latent_posterior, sample_latent
from rsupres.families.e2diffsr_network import (
    E2DiffSRConfig,
    E2DiffSRNetworks,
    enlarge_to_working_grid,
    kl_per_sample,
    latent_size,
    split_moments,
)
from rsupres.training.config import StageConfig
from rsupres.training.data import Batch


class Outcome(NamedTuple):
    """Weighted loss terms, and the pictures a discriminator may judge, in [-1, 1]."""

    terms: Mapping[str, Tensor]
    fake: Tensor | None = None
    real: Tensor | None = None


@dataclass(frozen=True)
class Job:
    """What an objective works with besides networks and batch."""

    architecture: E2DiffSRConfig
    stage: StageConfig
    perceptual: nn.Module | None


Loss = Callable[[E2DiffSRNetworks, Batch, torch.Generator, Job], Outcome]


@dataclass(frozen=True)
class Objective:
    """One stage: its loss, the networks it trains, and the layer that ends them."""

    loss: Loss
    trains: tuple[str, ...]
    last_layer: str | None = None


def autoencoder_loss(
    networks: E2DiffSRNetworks, batch: Batch, generator: torch.Generator, job: Job
) -> Outcome:
    """Stage 1 (Eq. 12): reconstruct HR from LR and the encoded difference."""
    stage = job.stage
    hr, lr = 2.0 * batch.hr - 1.0, 2.0 * batch.lr - 1.0
    size = (hr.shape[2], hr.shape[3])
    enlarged = enlarge_to_working_grid(lr, size)
    mean, logvar = split_moments(networks.dpencoder(torch.cat([hr, enlarged], dim=1)))
    z = mean + (0.5 * logvar).exp() * _normal(mean, generator)
    z = _disturb(z, stage, generator)
    image = networks.depsr(lr, z, size)
    terms = _picture_terms(image, hr, job)
    pixels = 3 * size[0] * size[1]
    terms["kl"] = stage.kl_weight * kl_per_sample(mean, logvar).mean() / pixels
    return Outcome(terms, image, hr)


def prior_loss(
    networks: E2DiffSRNetworks, batch: Batch, generator: torch.Generator, job: Job
) -> Outcome:
    """Stage 2 (Eq. 13): L1 from the unrolled sample and the condition to the latent."""
    hr, lr = 2.0 * batch.hr - 1.0, 2.0 * batch.lr - 1.0
    size = (hr.shape[2], hr.shape[3])
    enlarged = enlarge_to_working_grid(lr, size)
    with torch.no_grad():
        z0 = encode(networks, hr, enlarged)
    cond = networks.condnet(enlarged)
    posterior = latent_posterior(job.architecture)
    signal = float(posterior.alpha_bar[-1])
    noise = _normal(z0, generator)
    noised = signal**0.5 * z0 + (1.0 - signal) ** 0.5 * noise
    pure = _uniform(len(z0), z0, generator) < job.stage.pure_noise
    start = torch.where(pure[:, None, None, None], noise, noised)
    z = sample_latent(networks.unet, cond, start, batch.scale, job.architecture)
    return Outcome({"latent": (z - z0).abs().mean(), "cond": (cond - z0).abs().mean()})


def closing_loss(
    networks: E2DiffSRNetworks, batch: Batch, generator: torch.Generator, job: Job
) -> Outcome:
    """Train DEPSR on the latents that inference gives it (training notes, stage 3)."""
    with torch.no_grad():
        z = _sample(networks, batch, generator, job)
    return _decode(networks, networks.depsr, z, batch, generator, job)


def joint_loss(
    networks: E2DiffSRNetworks, batch: Batch, generator: torch.Generator, job: Job
) -> Outcome:
    """Train DEPSR, CondNet and denoiser together on the picture, as DiffIR does.

    Not in the paper. The picture's gradient runs back through the unrolled chain, so
    the latent learns what DEPSR can use of what LR tells; a small L1 to the encoded
    latent keeps it what it is.
    """
    z = _sample(networks, batch, generator, job)
    outcome = _decode(networks, networks.depsr, z, batch, generator, job)
    hr, lr = 2.0 * batch.hr - 1.0, 2.0 * batch.lr - 1.0
    with torch.no_grad():
        enlarged = enlarge_to_working_grid(lr, (hr.shape[2], hr.shape[3]))
        z0 = encode(networks, hr, enlarged)
    anchor = job.stage.prior_weight * (z - z0).abs().mean()
    return outcome._replace(terms={**outcome.terms, "latent": anchor})


def detail_loss(
    networks: E2DiffSRNetworks, batch: Batch, generator: torch.Generator, job: Job
) -> Outcome:
    """Tune the second set of DEPSR weights for natural texture."""
    assert networks.depsr_detail is not None
    with torch.no_grad():
        z = _sample(networks, batch, generator, job)
    return _decode(networks, networks.depsr_detail, z, batch, generator, job)


def encode(networks: E2DiffSRNetworks, hr: Tensor, enlarged: Tensor) -> Tensor:
    """Return the scaled latent mean of HR pictures in [-1, 1], sides multiples of 8."""
    mean, _ = split_moments(networks.dpencoder(torch.cat([hr, enlarged], dim=1)))
    return mean * networks.latent_scale


def measure_latent_scale(networks: E2DiffSRNetworks, batches: list[Batch]) -> float:
    """Return 1 / std of the latent mean over all patches of the batches."""
    means = []
    with torch.no_grad():
        for batch in batches:
            hr, lr = 2.0 * batch.hr - 1.0, 2.0 * batch.lr - 1.0
            enlarged = enlarge_to_working_grid(lr, (hr.shape[2], hr.shape[3]))
            both = torch.cat([hr, enlarged], dim=1)
            means.append(split_moments(networks.dpencoder(both))[0].flatten())
    return 1.0 / float(torch.cat(means).std())


OBJECTIVES: Mapping[str, Mapping[str, Objective]] = {
    "e2diffsr": {
        "autoencoder": Objective(
            autoencoder_loss, ("dpencoder", "depsr"), "depsr.csum.fuse.8.weight_v"
        ),
        "prior": Objective(prior_loss, ("condnet", "unet")),
        "closing": Objective(closing_loss, ("depsr",), "depsr.csum.fuse.8.weight_v"),
        "joint": Objective(
            joint_loss, ("depsr", "condnet", "unet"), "depsr.csum.fuse.8.weight_v"
        ),
        "detail": Objective(
            detail_loss, ("depsr_detail",), "depsr_detail.csum.fuse.8.weight_v"
        ),
    }
}


def _sample(
    networks: E2DiffSRNetworks, batch: Batch, generator: torch.Generator, job: Job
) -> Tensor:
    """Return the scaled latent that inference would find, from pure noise."""
    size = (batch.hr.shape[2], batch.hr.shape[3])
    enlarged = enlarge_to_working_grid(2.0 * batch.lr - 1.0, size)
    cond = networks.condnet(enlarged)
    noise = _normal(cond, generator)
    return sample_latent(networks.unet, cond, noise, batch.scale, job.architecture)


def _decode(
    networks: E2DiffSRNetworks,
    depsr: nn.Module,
    z: Tensor,
    batch: Batch,
    generator: torch.Generator,
    job: Job,
) -> Outcome:
    """Return the losses of the picture that DEPSR makes of a scaled latent."""
    hr, lr = 2.0 * batch.hr - 1.0, 2.0 * batch.lr - 1.0
    size = (hr.shape[2], hr.shape[3])
    assert z.shape[2:] == latent_size(*size)
    z = _disturb(z / networks.latent_scale, job.stage, generator)
    image = depsr(lr, z, size)
    return Outcome(_picture_terms(image, hr, job), image, hr)


def _picture_terms(image: Tensor, hr: Tensor, job: Job) -> dict[str, Tensor]:
    terms = {"pixel": job.stage.pixel_weight * (image.float() - hr).abs().mean()}
    if job.stage.perceptual_weight and job.perceptual is not None:
        distance = job.perceptual(image, hr).mean()
        terms["perceptual"] = job.stage.perceptual_weight * distance
    return terms


def _disturb(z: Tensor, stage: StageConfig, generator: torch.Generator) -> Tensor:
    """Zero the latent of a batch, or add noise of half its deviation, or do neither."""
    chance = float(_uniform(1, z, generator))
    if chance < stage.drop_prior:
        return torch.zeros_like(z)
    if chance < stage.drop_prior + stage.noise_prior:
        return z + 0.5 * z.detach().std() * _normal(z, generator)
    return z


def _normal(like: Tensor, generator: torch.Generator) -> Tensor:
    """Return standard normal noise of the shape of `like`, drawn on the CPU."""
    return torch.randn(like.shape, generator=generator).to(like.device)


def _uniform(n: int, like: Tensor, generator: torch.Generator) -> Tensor:
    """Return n uniform numbers in [0, 1) on the device of `like`."""
    return torch.rand(n, generator=generator).to(like.device)
