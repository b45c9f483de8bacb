"""Losses of SGDM's stages.

`stage1` and `sflow` are the paper's: predict the noise on a frozen Stable Diffusion,
then fit two flows to the styles of its HR images by exact likelihood. `autoencoder`,
`diffusion` and `picture` train small models from random weights and are not in the
paper (docs/families/sgdm.md#training).

As in the released code, the style image of a training patch is its HR picture, and the
prompt follows from the colours of its map.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from rsupres.blocks.stable_diffusion import decode_latent, encode_moments
from rsupres.diffusion.samplers import diffuse
from rsupres.diffusion.schedules import sqrt_linear_betas
from rsupres.families.sgdm.config import SgdmConfig
from rsupres.families.sgdm.network import SgdmNetworks
from rsupres.families.sgdm.prompts import prompt_number
from rsupres.families.sgdm.resolver import empty_map
from rsupres.training.batches import Batch
from rsupres.training.losses import Outcome, StageSetup, normal, picture_terms, uniform


@dataclass(frozen=True)
class AutoencoderOptions:
    """Options of the stage "autoencoder".

    Attributes:
        kl_weight: weight of the divergence over the number of pixel values, beside
            the mean L1; latent diffusion has 1e-6.
    """

    kl_weight: float = 1e-6


@dataclass(frozen=True)
class DiffusionOptions:
    """Options of the stages that train the denoiser.

    Attributes:
        drop_map: share of patches that see no map, so that the model also works on a
            scene without one.
        measured_batches: batches from which the stage "diffusion" measures the scale
            of the latent and the gain of the map's branch.
    """

    drop_map: float = 0.0
    measured_batches: int = 100


@dataclass(frozen=True)
class PictureOptions(DiffusionOptions):
    """Options of the stage "picture".

    Attributes:
        prior_weight: weight of the denoising loss beside that of the picture.
    """

    prior_weight: float = 0.05


class Model(NamedTuple):
    """All networks, their architecture, and whether activations are recomputed."""

    networks: SgdmNetworks
    architecture: SgdmConfig
    recompute: bool = False


class Patches(NamedTuple):
    """A batch as the networks take it, all (b, 3, H, W).

    Attributes:
        hr: in [-1, 1].
        enlarged: LR enlarged to the size of HR, in [0, 1].
        vector_map: in [0, 1]; the empty map where the batch has none, None for a model
            without a map's branch.
        empty_map: the map without features, None for a model without the branch.
    """

    hr: Tensor
    enlarged: Tensor
    vector_map: Tensor | None
    empty_map: Tensor | None

    @classmethod
    def of(cls, batch: Batch, config: SgdmConfig) -> Patches:
        """Return the patches of a batch."""
        last = torch.channels_last
        hr = (2.0 * batch.hr - 1.0).contiguous(memory_format=last)
        size = (hr.shape[2], hr.shape[3])
        enlarged = functional.interpolate(batch.lr, size, mode=config.enlarge)
        enlarged = enlarged.clamp(0.0, 1.0).contiguous(memory_format=last)
        if config.encoder.modulated is None:
            return cls(hr, enlarged, None, None)
        empty = empty_map(config, enlarged)
        given = batch.conditions.vector_map
        return cls(hr, enlarged, empty if given is None else given, empty)


def autoencoder_loss(
    model: Model, patches: Patches, generator: torch.Generator, setup: StageSetup
) -> Outcome:
    """Reconstruct HR through the sampled latent (Rombach et al. 2022, KL variant)."""
    assert isinstance(setup.options, AutoencoderOptions)
    autoencoder = model.networks.autoencoder
    mean, logvar = encode_moments(autoencoder, patches.hr)
    z = mean + (0.5 * logvar).exp() * normal(mean, generator).to(mean.dtype)
    image = decode_latent(autoencoder, z)
    terms = picture_terms(image, patches.hr, setup)
    kl = 0.5 * (mean.float().square() + logvar.float().exp() - 1.0 - logvar.float())
    pixels = patches.hr[0].numel()
    terms["kl"] = setup.options.kl_weight * kl.flatten(1).sum(1).mean() / pixels
    return Outcome(terms, image, patches.hr)


def diffusion_loss(
    model: Model, patches: Patches, generator: torch.Generator, setup: StageSetup
) -> Outcome:
    """Predict the noise (or v) of a noised latent: mean squared error, uniform t."""
    made = _predict(model, patches, generator, setup)
    error = (made.predicted.float() - made.target).square().mean()
    return Outcome({model.architecture.prediction: error})


def picture_loss(
    model: Model, patches: Patches, generator: torch.Generator, setup: StageSetup
) -> Outcome:
    """Decode the x0 predicted from a noised latent, and compare pictures.

    Not in the paper. Half of the patches start from pure noise, because the few-step
    sampler of inference does; a small share of the denoising loss stays.
    """
    assert isinstance(setup.options, PictureOptions)
    made = _predict(model, patches, generator, setup, pure=0.5)
    image = 2.0 * model.networks.decode(made.x0) - 1.0
    terms = picture_terms(image, patches.hr, setup)
    error = (made.predicted.float() - made.target).square().mean()
    terms["latent"] = setup.options.prior_weight * error
    return Outcome(terms, image, patches.hr)


def sflow_loss(
    model: Model, patches: Patches, generator: torch.Generator, setup: StageSetup
) -> Outcome:
    """Return -mean log p of style means and deviations under their flows."""
    modules = model.networks
    assert modules.flow_mean is not None
    assert modules.flow_std is not None
    with torch.no_grad():
        style = modules.adapter.style(patches.hr)
    return Outcome(
        {
            "nll_mean": -modules.flow_mean.log_prob(style.mean.float()).mean(),
            "nll_std": -modules.flow_std.log_prob(style.std.float()).mean(),
        }
    )


Loss = Callable[[Model, Patches, torch.Generator, StageSetup], Outcome]
LOSSES: Mapping[str, Loss] = {
    "stage1": diffusion_loss,
    "sflow": sflow_loss,
    "autoencoder": autoencoder_loss,
    "diffusion": diffusion_loss,
    "picture": picture_loss,
}


class _Prediction(NamedTuple):
    """The output of the denoiser, its target, and the x0 that follows from it."""

    predicted: Tensor
    target: Tensor
    x0: Tensor


def _predict(
    model: Model,
    patches: Patches,
    generator: torch.Generator,
    setup: StageSetup,
    pure: float = 0.0,
) -> _Prediction:
    """Noise the latents of a batch and run the denoiser on them.

    Args:
        model: the networks.
        patches: the batch.
        generator: of all draws.
        setup: the stage, with `DiffusionOptions`.
        pure: share of patches noised to the last step; the step of the others is
            uniform.
    """
    modules, config = model.networks, model.architecture
    assert isinstance(setup.options, DiffusionOptions)
    n = len(patches.hr)
    size = [side // config.autoencoder.factor for side in patches.hr.shape[2:]]
    like = patches.hr.new_empty(n, config.autoencoder.latent, *size)
    with torch.no_grad():
        z0 = modules.encode(patches.hr, normal(like, generator)).float()
    t = (uniform(n, z0, generator) * config.steps).long().clamp_max(config.steps - 1)
    t = torch.where(uniform(n, z0, generator) < pure, config.steps - 1, t)
    betas = sqrt_linear_betas(config.steps, *config.beta)
    kept = torch.from_numpy(np.cumprod(1.0 - betas)).to(z0.device)[t]
    noise = normal(z0, generator)
    x_t = diffuse(z0, noise, kept)
    dropped = uniform(n, z0, generator) < setup.options.drop_map
    shown = drop_map(patches, dropped)
    style = modules.adapter.style(patches.hr) if config.encoder.style else None
    features = modules.features(patches.enlarged, shown, style)
    context = prompt_contexts(modules, shown, z0)
    predicted = modules.predict(x_t, t, context, features, recompute=model.recompute)
    root, rest = (
        power.sqrt().to(z0.dtype)[:, None, None, None] for power in (kept, 1.0 - kept)
    )
    if config.prediction == "eps":
        return _Prediction(predicted, noise, (x_t - rest * predicted) / root)
    target = root * noise - rest * z0
    return _Prediction(predicted, target, root * x_t - rest * predicted.float())


def drop_map(patches: Patches, dropped: Tensor) -> Tensor | None:
    """Return the maps, the empty map for samples whose flag (b,) is set."""
    if patches.vector_map is None or patches.empty_map is None:
        return None
    where = dropped[:, None, None, None]
    return torch.where(where, patches.empty_map, patches.vector_map)


def prompt_contexts(
    networks: SgdmNetworks, vector_map: Tensor | None, like: Tensor
) -> Tensor | None:
    """Return the context of each patch's prompt, None for a model without prompts.

    Args:
        networks: with `contexts` for all prompts.
        vector_map: maps (b, 3, H, W) in [0, 1]; None = the prompt without a map.
        like: a tensor of the same batch, for its size and device.

    Returns:
        (b, tokens, width).
    """
    if networks.contexts is None:
        return None
    if vector_map is None:
        numbers = [0] * len(like)
    else:
        colours = (vector_map * 255.0).round().byte().cpu().numpy()
        numbers = [prompt_number(colour) for colour in colours]
    return networks.contexts[torch.tensor(numbers, device=like.device)]
