"""Losses of Ref-Diff's stages.

`edm` is the released loss: Karras et al. 2022, Eq. 8 and Table 1. `closing`, which
trains the few-step sampler on pictures, is not in the paper
(docs/families/refdiff.md#training).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rsupres.diffusion.edm import karras_sigmas
from rsupres.diffusion.precondition import draw_sigma, edm_weight
from rsupres.families.base import Conditions
from rsupres.families.refdiff.images import PreparedTiles, is_changed, make_frame
from rsupres.families.refdiff.network import Guidance, RefDiffUNet
from rsupres.families.refdiff.resolver import SAMPLERS, EdmDenoiser, sample
from rsupres.training.batches import Batch
from rsupres.training.families.refdiff.stale_references import (
    StaleReferences,
    make_stale,
)
from rsupres.training.losses import Outcome, StageSetup, normal, picture_terms

RELEASED_DIVISOR = 256.0


@dataclass(frozen=True)
class EdmOptions(StaleReferences):
    """Options of the stage "edm".

    Attributes:
        sigma_mean: mean of ln(sigma).
        sigma_deviation: its standard deviation.
        summed: the released objective, a sum over batch and pixels divided by 256;
            otherwise the mean.
    """

    sigma_mean: float = -1.2
    sigma_deviation: float = 1.2
    summed: bool = False


@dataclass(frozen=True)
class ClosingOptions(StaleReferences):
    """Options of the stage "closing".

    Attributes:
        through: the gradient passes through this many last calls of the network; 0 =
            all.
        changed_weight: weight of L1 where the masks of the data mark a change,
            relative to the rest.
        squared_weight: weight of the mean squared error, of pictures in [-1, 1].
    """

    through: int = 2
    changed_weight: float = 1.0
    squared_weight: float = 0.0


def base_loss(
    network: RefDiffUNet, batch: Batch, generator: torch.Generator, setup: StageSetup
) -> Outcome:
    """Return L1 of the picture that the base makes, with no reference and no draws.

    Arguments and result are those of `edm_loss`.
    """
    frame = frame_of(replace(batch, conditions=Conditions()), network)
    assert frame.base is not None
    return Outcome(picture_terms(frame.base * 2.0 - 1.0, batch.hr * 2.0 - 1.0, setup))


def edm_loss(
    network: RefDiffUNet, batch: Batch, generator: torch.Generator, setup: StageSetup
) -> Outcome:
    """Return the EDM loss at one drawn noise level per sample.

    Args:
        network: in training.
        batch: of training data.
        generator: of all draws.
        setup: the stage with its options.
    """
    options = setup.options
    assert isinstance(options, EdmOptions)
    frame = _spoilt_frame(batch, options, network, generator)
    clean = frame.denoised(batch.hr)
    chances = torch.randn(len(clean), generator=generator).to(clean.device)
    sigma = draw_sigma(chances, options.sigma_mean, options.sigma_deviation)
    noise = normal(clean, generator)
    squares = released_loss(network, clean, frame.guidance, sigma, noise)
    if options.summed:
        return Outcome({"edm": squares.sum() / RELEASED_DIVISOR})
    return Outcome({"edm": squares.mean() / clean[0].numel()})


def closing_loss(
    network: RefDiffUNet, batch: Batch, generator: torch.Generator, setup: StageSetup
) -> Outcome:
    """Return L1 and LPIPS of the picture that the few-step sampler makes.

    Arguments and result are those of `edm_loss`.
    """
    options, config = setup.options, network.config
    assert isinstance(options, ClosingOptions)
    frame = _spoilt_frame(batch, options, network, generator)
    sigmas = karras_sigmas(config.steps, config.sigma_min, config.sigma_max, config.rho)
    sampler = SAMPLERS[config.sampler]
    calls = sampler.calls(config.steps)
    first = calls - (options.through or calls)  # the calls before pass no gradient
    denoise = EdmDenoiser(network, network.maps(frame.guidance))
    done = 0

    def counted(x: Tensor, sigma: float) -> Tensor:
        nonlocal done
        done += 1
        if done > first:
            return denoise(x, sigma)
        with torch.no_grad():
            return denoise(x, sigma).detach()

    lr = frame.guidance.lr.float()
    drawn = sample(counted, lr, sampler, sigmas, lambda _: normal(lr, generator))
    image, truth = frame.picture(drawn) * 2.0 - 1.0, batch.hr * 2.0 - 1.0
    terms = picture_terms(image, truth, setup)
    if options.squared_weight:
        squares = (image.float() - truth).square()
        terms["squared"] = options.squared_weight * squares.mean()
    mask = batch.conditions.change_mask
    if options.changed_weight != 1.0 and mask is not None:
        apart = (image.float() - truth).abs() * is_changed(mask)
        weight = setup.stage.pixel_weight * (options.changed_weight - 1.0)
        terms["changed"] = weight * apart.mean()
    return Outcome(terms)


def released_loss(
    network: RefDiffUNet,
    clean: Tensor,
    guidance: Guidance,
    sigma: Tensor,
    noise: Tensor,
) -> Tensor:
    """Return the weighted squared error summed over each sample, (b,).

    The released objective is the sum over the batch divided by `RELEASED_DIVISOR`.

    Args:
        network: F.
        clean: the true image, (b, 3, H, W) in [-1, 1].
        guidance: conditions of the same samples.
        sigma: one noise level per sample, (b,).
        noise: standard normals, (b, 3, H, W).
    """
    noisy = clean + sigma[:, None, None, None] * noise
    denoised = EdmDenoiser(network, network.maps(guidance)).at(noisy, sigma)
    squares = (denoised - clean).square().flatten(1)
    return edm_weight(sigma) * squares.sum(1)


def _spoilt_frame(
    batch: Batch,
    options: StaleReferences,
    network: RefDiffUNet,
    generator: torch.Generator,
) -> PreparedTiles:
    """Return the inputs of the network, with some references spoilt."""
    given = make_stale(batch.conditions, options, generator)
    return frame_of(replace(batch, conditions=given), network)


def frame_of(batch: Batch, network: RefDiffUNet) -> PreparedTiles:
    """Return the inputs of the network for an unchanged batch, in float32.

    Args:
        batch: of training data.
        network: in training; its base computes in the surrounding precision.
    """
    given, kind = batch.conditions, batch.lr.device.type
    half = torch.is_autocast_enabled(kind)

    def base(lr: Tensor) -> Tensor:
        assert network.base is not None
        with torch.autocast(kind, torch.bfloat16, enabled=half):
            made: Tensor = network.base(lr)
        return made

    with torch.autocast(kind, enabled=False):
        return make_frame(
            batch.lr,
            given.reference,
            given.reference_valid,
            given.change_mask,
            batch.scale,
            network.config,
            base=base if network.base is not None else None,
        )
