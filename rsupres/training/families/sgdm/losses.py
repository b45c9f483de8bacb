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
from rsupres.families.sgdm.colour import correct_colour
from rsupres.families.sgdm.config import SgdmConfig
from rsupres.families.sgdm.network import SgdmNetworks
from rsupres.families.sgdm.prompts import prompt_number
from rsupres.families.sgdm.resolver import LEGEND, empty_map
from rsupres.families.sgdm.style import picture_statistics
from rsupres.legends.legend_file import load_legend
from rsupres.training.batches import Batch
from rsupres.training.losses import (
    AutoencoderOptions,
    Outcome,
    StageSetup,
    normal,
    picture_terms,
    uniform,
)

_LATTICE = 16  # pixels, the largest stride of LPIPS (squeeze)
_STYLE_SQUARE = 8  # HR pixels averaged before a picture's style is measured


@dataclass(frozen=True)
class DiffusionOptions:
    """Options of the stages that train the denoiser.

    Attributes:
        drop_map: share of patches that see no map, so that the model also works on a
            scene without one.
        foreign_map: share of patches that see the map of another patch.
        outdated_map: share of patches whose map lacks the features of some rectangles
            and has those of another patch in others.
        shift_map: largest shift of a map along rows and columns in SR pixels; half of
            the maps are shifted.
        measured_batches: batches from which the stage "diffusion" measures the scale
            of the latent and the gain of the map's branch.
    """

    drop_map: float = 0.0
    foreign_map: float = 0.0
    outdated_map: float = 0.0
    shift_map: int = 0
    measured_batches: int = 100


@dataclass(frozen=True)
class PictureOptions(DiffusionOptions):
    """Options of the stage "picture".

    Attributes:
        prior_weight: weight of the denoising loss beside that of the picture.
        pure: share of patches that start from pure noise, as the sampler does.
    """

    prior_weight: float = 0.05
    pure: float = 0.5


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
        """Return the patches of a batch.

        Args:
            batch: of training data.
            config: of the model.
        """
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
    """Return the loss of HR through the sampled latent (Rombach et al. 2022, KL).

    Args:
        model: the networks in training.
        patches: LR, HR and map of a batch.
        generator: of all draws.
        setup: the stage with its options.
    """
    assert isinstance(setup.options, AutoencoderOptions)
    autoencoder = model.networks.autoencoder
    assert autoencoder is not None
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
    """Predict the noise (or v) of a noised latent: mean squared error, uniform t.

    Arguments and result are those of `autoencoder_loss`.
    """
    made = _predict(model, patches, generator, setup)
    error = (made.predicted.float() - made.target).square().mean()
    return Outcome({model.architecture.prediction: error})


def picture_loss(
    model: Model, patches: Patches, generator: torch.Generator, setup: StageSetup
) -> Outcome:
    """Decode the x0 predicted from a noised latent, and compare pictures.

    Not in the paper. Many patches start from pure noise, because the few-step sampler
    of inference does; a small share of the denoising loss stays. The discriminator also
    sees the map and the enlarged LR, so that it judges whether the picture fits them.
    Arguments and result are those of `autoencoder_loss`.
    """
    assert isinstance(setup.options, PictureOptions)
    made = _predict(model, patches, generator, setup, pure=setup.options.pure)
    decoded = model.networks.decode(made.x0, patches.enlarged)
    image = 2.0 * correct_colour(model.architecture, decoded, patches.enlarged) - 1.0
    part = _random_part(image, generator)
    terms = picture_terms(image[part], patches.hr[part], setup)
    error = (made.predicted.float() - made.target).square().mean()
    terms["latent"] = setup.options.prior_weight * error
    given = [2.0 * patches.enlarged - 1.0]
    if made.shown is not None:
        given.append(2.0 * made.shown - 1.0)
    fake, real = (torch.cat([x, *given], 1)[part] for x in (image, patches.hr))
    return Outcome(terms, fake, real)


def sflow_loss(
    model: Model, patches: Patches, generator: torch.Generator, setup: StageSetup
) -> Outcome:
    """Return -mean log p of style means and deviations under their flows.

    Arguments and result are those of `autoencoder_loss`.
    """
    modules = model.networks
    assert modules.flow_mean is not None
    assert modules.flow_std is not None
    with torch.no_grad():
        if model.architecture.picture_style:
            style = picture_statistics(0.5 * (patches.hr + 1.0), _STYLE_SQUARE)
        else:
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
    "pixels": picture_loss,
}


def _random_part(image: Tensor, generator: torch.Generator) -> tuple[slice, ...]:
    """Return the index of pictures without some rows and columns at their sides.

    LPIPS and discriminator begin with strided convolutions, whose gradient has a
    lattice. Where pictures always begin at a cell of the latent, the network learns
    that lattice; a random beginning averages it out.
    """
    height, width = image.shape[2:]
    top, left = torch.randint(0, _LATTICE, (2,), generator=generator).tolist()
    rows, columns = height - _LATTICE, width - _LATTICE
    return np.s_[:, :, top : top + rows, left : left + columns]


class _Prediction(NamedTuple):
    """The output of the denoiser, its target, its x0, and the maps that it saw."""

    predicted: Tensor
    target: Tensor
    x0: Tensor
    shown: Tensor | None


def _predict(
    model: Model,
    patches: Patches,
    generator: torch.Generator,
    setup: StageSetup,
    pure: float = 0.0,
) -> _Prediction:
    """Noise latents of a batch, `pure` share to the last step, and run the denoiser."""
    modules, config = model.networks, model.architecture
    assert isinstance(setup.options, DiffusionOptions)
    n = len(patches.hr)
    size = [side // config.factor for side in patches.hr.shape[2:]]
    like = patches.hr.new_empty(n, config.unet.latent, *size)
    with torch.no_grad():
        noise = normal(like, generator)
        z0 = modules.encode(patches.hr, noise, patches.enlarged).float()
    t = (uniform(n, z0, generator) * config.steps).long().clamp_max(config.steps - 1)
    t = torch.where(uniform(n, z0, generator) < pure, config.steps - 1, t)
    betas = sqrt_linear_betas(config.steps, *config.beta)
    kept = torch.from_numpy(np.cumprod(1.0 - betas)).to(z0.device)[t]
    noise = normal(z0, generator)
    x_t = diffuse(z0, noise, kept)
    if config.prediction == "x0":  # nothing of the truth in the sampler's first state
        x_t = torch.where((t == config.steps - 1)[:, None, None, None], noise, x_t)
    shown = shown_maps(patches, setup.options, generator)
    style = modules.adapter.style(patches.hr) if config.encoder.style else None
    features = modules.features(patches.enlarged, shown, style)
    context = prompt_contexts(modules, shown, z0)
    predicted = modules.predict(x_t, t, context, features, recompute=model.recompute)
    root, rest = (
        power.sqrt().to(z0.dtype)[:, None, None, None] for power in (kept, 1.0 - kept)
    )
    if config.prediction == "x0":
        return _Prediction(predicted, z0, predicted.float(), shown)
    if config.prediction == "eps":
        return _Prediction(predicted, noise, (x_t - rest * predicted) / root, shown)
    target = root * noise - rest * z0
    x0 = root * x_t - rest * predicted.float()
    return _Prediction(predicted, target, x0, shown)


def shown_maps(
    patches: Patches, options: DiffusionOptions, generator: torch.Generator
) -> Tensor | None:
    """Return the maps that a training step shows: some missing, wrong or displaced.

    Maps of real places are incomplete, outdated and some metres off, so the network
    must learn to weigh them against LR.

    Args:
        patches: the batch.
        options: shares of each kind of error.
        generator: of all draws.
    """
    if patches.vector_map is None:
        return None
    maps = patches.vector_map
    n = len(maps)
    other = maps.roll(1, 0)
    if options.outdated_map:
        background = maps.new_tensor(load_legend(LEGEND).background) / 255.0
        changed = uniform(n, maps, generator) < options.outdated_map
        for source in (background[None, :, None, None].expand_as(maps), other):
            where = _rectangles(maps, generator) & changed[:, None, None, None]
            maps = torch.where(where, source, maps)
    if options.foreign_map:
        foreign = uniform(n, maps, generator) < options.foreign_map
        maps = torch.where(foreign[:, None, None, None], other, maps)
    if options.shift_map:
        maps = _shifted(maps, options.shift_map, generator)
    dropped = uniform(n, maps, generator) < options.drop_map
    return drop_map(patches._replace(vector_map=maps), dropped)


def _rectangles(maps: Tensor, generator: torch.Generator) -> Tensor:
    """Return (b, 1, H, W): true in two rectangles a patch, up to half its sides."""
    n, _, height, width = maps.shape
    inside = torch.zeros(n, 1, height, width, dtype=torch.bool)
    drawn = torch.rand(n, 2, 4, generator=generator).tolist()
    for k, rectangles in enumerate(drawn):
        for top, left, tall, wide in rectangles:
            rows = slice(int(top * height), int((top + 0.5 * tall) * height))
            columns = slice(int(left * width), int((left + 0.5 * wide) * width))
            inside[k, :, rows, columns] = True
    return inside.to(maps.device)


def _shifted(maps: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """Return maps, every second of which is shifted by up to `most` pixels."""
    moves = torch.randint(-most, most + 1, (len(maps), 2), generator=generator)
    moved = torch.rand(len(maps), generator=generator) < 0.5
    padded = functional.pad(maps, (most,) * 4, mode="replicate")
    height, width = maps.shape[2:]
    rows = []
    for k, (down, right) in enumerate((moves * moved[:, None] + most).tolist()):
        rows.append(padded[k, :, down : down + height, right : right + width])
    return torch.stack(rows)


def drop_map(patches: Patches, dropped: Tensor) -> Tensor | None:
    """Return the maps, the empty map for samples whose flag (b,) is set.

    Args:
        patches: of a batch.
        dropped: (b,) bool.
    """
    if patches.vector_map is None or patches.empty_map is None:
        return None
    where = dropped[:, None, None, None]
    return torch.where(where, patches.empty_map, patches.vector_map)


def prompt_contexts(
    networks: SgdmNetworks, vector_map: Tensor | None, like: Tensor
) -> Tensor | None:
    """Return each patch's prompt (b, tokens, width), None for a model without prompts.

    Args:
        networks: with `contexts` for all prompts.
        vector_map: maps (b, 3, H, W) in [0, 1]; None = the prompt without a map.
        like: a tensor of the same batch, for its size and device.
    """
    if networks.contexts is None:
        return None
    if vector_map is None:
        numbers = [0] * len(like)
    else:
        colours = (vector_map * 255.0).round().byte().cpu().numpy()
        numbers = [prompt_number(colour) for colour in colours]
    return networks.contexts[torch.tensor(numbers, device=like.device)]
