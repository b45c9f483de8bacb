"""What Ref-Diff minimises, and the stale references that it must learn to doubt.

Karras et al. 2022, Eq. 8 and Table 1, as the released Ref-Diff code has it; the closing
stage, which trains the few-step sampler on pictures, and `make_stale` are ours. No
networks are built here and no batches drawn.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from rsupres.diffusion.edm import karras_sigmas
from rsupres.diffusion.precondition import draw_sigma, edm_weight
from rsupres.families.base import Conditions
from rsupres.families.refdiff.config import RefDiffConfig
from rsupres.families.refdiff.images import PreparedTiles, is_changed, make_frame
from rsupres.families.refdiff.network import Guidance, RefDiffUNet
from rsupres.families.refdiff.resolver import SAMPLERS, EdmDenoiser, sample
from rsupres.training.batches import Batch
from rsupres.training.objectives import Job, Outcome, normal, picture_terms, uniform

RELEASED_DIVISOR = 256.0


@dataclass(frozen=True)
class StaleReferences:
    """How references of a batch are spoilt, chances per sample.

    Attributes:
        absent: no reference at all.
        partial: the reference ends somewhere in the picture.
        stale: rectangles of the reference show another place.
        told: the change mask marks those rectangles.
        mask: a change mask that the data have is shown.
    """

    absent: float = 0.1
    partial: float = 0.1
    stale: float = 0.3
    told: float = 0.6
    mask: float = 0.7


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
        through: how many of the last calls of the network the gradient passes; 0 = all.
        changed_weight: of L1 where the data's masks tell a change; 1 = as elsewhere.
    """

    through: int = 2
    changed_weight: float = 1.0


def edm_loss(
    network: RefDiffUNet, batch: Batch, generator: torch.Generator, job: Job
) -> Outcome:
    """Return EDM's loss at one drawn noise level a sample."""
    options = job.options
    assert isinstance(options, EdmOptions)
    frame = spoilt_frame(batch, options, network.config, generator)
    clean = frame.denoised(batch.hr)
    chances = torch.randn(len(clean), generator=generator).to(clean.device)
    sigma = draw_sigma(chances, options.sigma_mean, options.sigma_deviation)
    noise = normal(clean, generator)
    squares = released_loss(network, clean, frame.guidance, sigma, noise)
    if options.summed:
        return Outcome({"edm": squares.sum() / RELEASED_DIVISOR})
    return Outcome({"edm": squares.mean() / clean[0].numel()})


def closing_loss(
    network: RefDiffUNet, batch: Batch, generator: torch.Generator, job: Job
) -> Outcome:
    """Return L1 and LPIPS of the picture that inference makes, in its few steps."""
    options, config = job.options, network.config
    assert isinstance(options, ClosingOptions)
    frame = spoilt_frame(batch, options, config, generator)
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
    terms = picture_terms(image, truth, job)
    mask = batch.conditions.change_mask
    if options.changed_weight != 1.0 and mask is not None:
        apart = (image.float() - truth).abs() * is_changed(mask)
        weight = job.stage.pixel_weight * (options.changed_weight - 1.0)
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
        sigma: one noise level a sample, (b,).
        noise: standard normals, (b, 3, H, W).
    """
    noisy = clean + sigma[:, None, None, None] * noise
    denoised = EdmDenoiser(network, network.maps(guidance)).at(noisy, sigma)
    squares = (denoised - clean).square().flatten(1)
    return edm_weight(sigma) * squares.sum(1)


def spoilt_frame(
    batch: Batch,
    options: StaleReferences,
    config: RefDiffConfig,
    generator: torch.Generator,
) -> PreparedTiles:
    """Return what the network is shown, the reference spoilt in some samples."""
    given = make_stale(batch.conditions, options, generator)
    return frame_of(replace(batch, conditions=given), config)


def frame_of(batch: Batch, config: RefDiffConfig) -> PreparedTiles:
    """Return what the network is shown of a batch as it is."""
    given = batch.conditions
    return make_frame(
        batch.lr,
        given.reference,
        given.reference_valid,
        given.change_mask,
        batch.scale,
        config,
    )


def make_stale(
    given: Conditions, options: StaleReferences, generator: torch.Generator
) -> Conditions:
    """Spoil references: absent, ending early, or of another place in rectangles.

    A rectangle shows the reference of the next sample of the batch; when it is told,
    the change mask holds 1 there.

    Args:
        given: of a batch; unchanged without a reference.
        options: the chances.
        generator: of all draws.
    """
    if given.reference is None:
        return given
    reference, n = given.reference, len(given.reference)
    valid = given.reference_valid
    valid = (
        torch.ones_like(reference[:, :1], dtype=torch.bool) if valid is None else valid
    )
    mask = torch.zeros_like(reference[:, :1], dtype=torch.uint8)
    if given.change_mask is not None:
        shown = uniform(n, reference, generator) < options.mask
        mask = given.change_mask * shown[:, None, None, None]
    chances = torch.rand(n, 4, generator=generator).tolist()
    reference, valid, mask = reference.clone(), valid.clone(), mask.clone()
    for k, (absent, partial, stale, told) in enumerate(chances):
        if stale < options.stale:
            rows, cols = _rectangle(reference.shape[2:], generator)
            reference[k, :, rows, cols] = given.reference[(k + 1) % n, :, rows, cols]
            if told < options.told:
                mask[k, :, rows, cols] = 1
        if absent < options.absent:
            valid[k] = False
        elif partial < options.partial:
            rows, cols = _rectangle(reference.shape[2:], generator)
            valid[k, :, rows, cols] = False
    return replace(
        given,
        reference=reference * valid,
        reference_valid=valid,
        change_mask=mask,
    )


def enlarge_as_released(lr: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the LR image as the released training enlarges it, uint8.

    Bilinear at half-pixel centres, truncated to whole levels.

    Args:
        lr: (b, c, h, w) uint8.
        size: rows and columns of the HR image.
    """
    enlarged = functional.interpolate(lr.float(), size, mode="bilinear")
    return enlarged.to(torch.uint8)


def _rectangle(
    size: tuple[int, ...], generator: torch.Generator
) -> tuple[slice, slice]:
    """Return a window with sides from an eighth to three quarters of the picture's."""
    spans = []
    for length, (share, place) in zip(
        size, torch.rand(2, 2, generator=generator).tolist(), strict=True
    ):
        side = max(1, int(length * (0.125 + 0.625 * share)))
        start = int(place * (length - side + 1))
        spans.append(slice(start, start + side))
    return spans[0], spans[1]
