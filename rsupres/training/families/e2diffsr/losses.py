"""Losses of E2DiffSR's stages.

Wu, Mo, Sun, Ma, arXiv 2410.22830, Eqs. 12 and 13. The stages `closing`, `joint` and
`detail` are not in the paper (docs/families/e2diffsr.md#training).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

import torch
from torch import Tensor, nn

from rsupres.families.e2diffsr.config import (
    E2DiffSRConfig,
    enlarge_to_working_grid,
    latent_size,
)
from rsupres.families.e2diffsr.latent import kl_per_sample, split_moments
from rsupres.families.e2diffsr.network import E2DiffSRNetworks
from rsupres.families.e2diffsr.resolver import latent_posterior, sample_latent
from rsupres.training.batches import Batch
from rsupres.training.losses import (
    AutoencoderOptions,
    EvenOptions,
    Outcome,
    StageSetup,
    normal,
    picture_terms,
    picture_weights,
    uniform,
)


@dataclass(frozen=True)
class DecodingOptions(EvenOptions):
    """Options of the stages that decode a latent.

    Attributes:
        drop_prior: probability that the latent of a batch is set to zero.
        noise_prior: probability that noise of half its deviation is added to the
            latent.
    """

    drop_prior: float = 0.0
    noise_prior: float = 0.0


@dataclass(frozen=True)
class EncodingOptions(AutoencoderOptions, DecodingOptions):
    """Options of the stage "autoencoder"."""


@dataclass(frozen=True)
class PriorOptions:
    """Options of the stage "prior".

    Attributes:
        pure_noise: share of patches whose reverse chain starts from pure noise.
        measured_batches: batches from which the scale of the latent is measured.
    """

    pure_noise: float = 0.5
    measured_batches: int = 200


@dataclass(frozen=True)
class JointOptions(DecodingOptions):
    """Options of the stage "joint".

    Attributes:
        prior_weight: weight of the L1 from the sampled latent to the encoded one.
    """

    prior_weight: float = 0.05


class Patches(NamedTuple):
    """A batch as the networks take it, in [-1, 1].

    Attributes:
        hr: (b, 3, H, W).
        lr: (b, 3, h, w).
        enlarged: LR on the working grid, the multiple of 8 at or above (H, W).
        scale: H / h.
    """

    hr: Tensor
    lr: Tensor
    enlarged: Tensor
    scale: Fraction

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns of HR."""
        return self.hr.shape[2], self.hr.shape[3]

    @classmethod
    def of(cls, batch: Batch) -> Patches:
        """Return the patches of a batch."""
        hr, lr = 2.0 * batch.hr - 1.0, 2.0 * batch.lr - 1.0
        enlarged = enlarge_to_working_grid(lr, (hr.shape[2], hr.shape[3]))
        return cls(hr, lr, enlarged, batch.scale)


class Model(NamedTuple):
    """All networks, those for training too, and their architecture."""

    networks: E2DiffSRNetworks
    architecture: E2DiffSRConfig


def autoencoder_loss(
    model: Model, patches: Patches, generator: torch.Generator, setup: StageSetup
) -> Outcome:
    """Return the loss of stage 1 (Eq. 12): HR from LR and the encoded difference.

    Args:
        model: the networks in training.
        patches: LR, HR and scale of a batch.
        generator: of all draws.
        setup: the stage with its options.
    """
    options, size = setup.options, patches.size
    assert isinstance(options, EncodingOptions)
    mean, logvar = _moments(model.networks, patches)
    z = mean + (0.5 * logvar).exp() * normal(mean, generator)
    z = _disturb(z, options, generator)
    image = model.networks.depsr(patches.lr, z, size)
    terms = picture_terms(image, patches.hr, setup)
    pixels = 3 * size[0] * size[1]
    terms["kl"] = options.kl_weight * kl_per_sample(mean, logvar).mean() / pixels
    return Outcome(terms, image, patches.hr)


def prior_loss(
    model: Model, patches: Patches, generator: torch.Generator, setup: StageSetup
) -> Outcome:
    """Stage 2 (Eq. 13): L1 from the unrolled sample and the condition to the latent.

    Arguments and result are those of `autoencoder_loss`.
    """
    options, networks = setup.options, model.networks
    assert isinstance(options, PriorOptions)
    with torch.no_grad():
        z0 = encode(networks, patches)
    cond = networks.condnet(patches.enlarged)
    signal = float(latent_posterior(model.architecture).alpha_bar[-1])
    noise = normal(z0, generator)
    noised = signal**0.5 * z0 + (1.0 - signal) ** 0.5 * noise
    pure = uniform(len(z0), z0, generator) < options.pure_noise
    start = torch.where(pure[:, None, None, None], noise, noised)
    z = sample_latent(networks.unet, cond, start, patches.scale, model.architecture)
    return Outcome({"latent": (z - z0).abs().mean(), "cond": (cond - z0).abs().mean()})


def closing_loss(
    model: Model, patches: Patches, generator: torch.Generator, setup: StageSetup
) -> Outcome:
    """Train DEPSR on the latents that inference gives it.

    See docs/families/e2diffsr.md#closing-stage. Arguments and result are those of
    `autoencoder_loss`.
    """
    z = _find_latent(model, patches, generator, setup)
    return _decode(model, model.networks.depsr, z, patches, generator, setup)


def joint_loss(
    model: Model, patches: Patches, generator: torch.Generator, setup: StageSetup
) -> Outcome:
    """Train DEPSR, CondNet and denoiser together on the picture, as DiffIR does.

    Not in the paper. The gradient of the picture runs back through the unrolled chain,
    so the sampled latent becomes what DEPSR can use and LR can predict. A small L1
    keeps it near the encoded latent. Arguments and result are those of
    `autoencoder_loss`.
    """
    assert isinstance(setup.options, JointOptions)
    z = sample_from_noise(model, patches, generator)
    outcome = _decode(model, model.networks.depsr, z, patches, generator, setup)
    with torch.no_grad():
        z0 = encode(model.networks, patches)
    anchor = setup.options.prior_weight * (z - z0).abs().mean()
    return outcome._replace(terms={**outcome.terms, "latent": anchor})


def detail_loss(
    model: Model, patches: Patches, generator: torch.Generator, setup: StageSetup
) -> Outcome:
    """Tune the second set of DEPSR weights for natural texture.

    Arguments and result are those of `autoencoder_loss`.
    """
    detail = model.networks.depsr_detail
    assert detail is not None
    z = _find_latent(model, patches, generator, setup)
    return _decode(model, detail, z, patches, generator, setup)


Loss = Callable[[Model, Patches, torch.Generator, StageSetup], Outcome]
LOSSES: Mapping[str, Loss] = {
    "autoencoder": autoencoder_loss,
    "prior": prior_loss,
    "closing": closing_loss,
    "joint": joint_loss,
    "detail": detail_loss,
}


def encode(networks: E2DiffSRNetworks, patches: Patches) -> Tensor:
    """Return the scaled latent mean, (b, 4, H/8, W/8), of patches.

    Args:
        networks: of the model.
        patches: LR and HR, sides of HR multiples of 8.
    """
    return _moments(networks, patches)[0] * networks.latent_scale


def measure_latent_scale(networks: E2DiffSRNetworks, batches: list[Batch]) -> float:
    """Return 1 / std of the latent mean over all patches of the batches.

    Args:
        networks: of the model.
        batches: of training data.
    """
    with torch.no_grad():
        means = [_moments(networks, Patches.of(b))[0].flatten() for b in batches]
    return 1.0 / float(torch.cat(means).std())


def _moments(networks: E2DiffSRNetworks, patches: Patches) -> tuple[Tensor, Tensor]:
    both = torch.cat([patches.hr, patches.enlarged], dim=1)
    return split_moments(networks.dpencoder(both))


def sample_from_noise(
    model: Model, patches: Patches, generator: torch.Generator
) -> Tensor:
    """Return the scaled latent that inference samples from pure noise.

    Args:
        model: the networks in training.
        patches: LR and scale of a batch.
        generator: of all draws.
    """
    networks = model.networks
    cond = networks.condnet(patches.enlarged)
    noise = normal(cond, generator)
    return sample_latent(networks.unet, cond, noise, patches.scale, model.architecture)


def _find_latent(
    model: Model, patches: Patches, generator: torch.Generator, setup: StageSetup
) -> Tensor:
    """Return the latent that inference samples, zeros where the stage drops all."""
    assert isinstance(setup.options, DecodingOptions)
    if setup.options.drop_prior >= 1.0:
        cells = latent_size(*patches.size)
        return patches.lr.new_zeros(len(patches.lr), model.architecture.latent, *cells)
    with torch.no_grad():
        return sample_from_noise(model, patches, generator)


def _decode(
    model: Model,
    depsr: nn.Module,
    z: Tensor,
    patches: Patches,
    generator: torch.Generator,
    setup: StageSetup,
) -> Outcome:
    """Return the losses of the picture that DEPSR makes of a scaled latent."""
    assert z.shape[2:] == latent_size(*patches.size)
    assert isinstance(setup.options, DecodingOptions)
    z = _disturb(z / model.networks.latent_scale, setup.options, generator)
    image = depsr(patches.lr, z, patches.size)
    unit = (patches.lr / 2.0 + 0.5, patches.hr / 2.0 + 0.5)
    weights = picture_weights(*unit, setup.options)
    terms = picture_terms(image, patches.hr, setup, weights)
    return Outcome(terms, image, patches.hr)


def _disturb(z: Tensor, options: DecodingOptions, generator: torch.Generator) -> Tensor:
    """Zero the latent of a batch, or add noise of half its deviation, or do neither."""
    chance = float(uniform(1, z, generator))
    if chance < options.drop_prior:
        return torch.zeros_like(z)
    if chance < options.drop_prior + options.noise_prior:
        return z + 0.5 * z.detach().std() * normal(z, generator)
    return z
