"""References spoilt on purpose, so that Ref-Diff learns to doubt a reference.

Not in the paper; see docs/families/refdiff.md#stale-references-in-training.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from rsupres.degradations.tones import ToneParams, tone
from rsupres.families.base import Conditions
from rsupres.families.refdiff.fitting import displace
from rsupres.training.losses import uniform


@dataclass(frozen=True)
class StaleReferences:
    """Probabilities, per sample, of changes to the reference.

    Attributes:
        absent: the reference is left out.
        partial: a rectangle of the reference is invalid.
        stale: a rectangle of the reference shows another place.
        told: the change mask marks that rectangle.
        mask: the network sees the change mask of the data.
        foreign: the whole reference shows another place; with `told` the mask marks
            all as changed.
        toned: the reference has another tone, as in another season or sensor.
        clouded: clouds hide parts of the reference, which stay marked as valid.
        displaced: the reference lies up to `displaced_by` pixels off.
        displaced_by: SR pixels.
    """

    absent: float = 0.1
    partial: float = 0.1
    stale: float = 0.3
    told: float = 0.6
    mask: float = 0.7
    foreign: float = 0.0
    toned: float = 0.0
    clouded: float = 0.0
    displaced: float = 0.0
    displaced_by: float = 2.0


def make_stale(
    given: Conditions, options: StaleReferences, generator: torch.Generator
) -> Conditions:
    """Return the conditions of a batch with some references spoilt.

    A stale rectangle shows the reference of the next sample of the batch.

    Args:
        given: of the batch; returned as they are without a reference.
        options: the probabilities.
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
    if options.foreign:
        for k, (foreign, told) in enumerate(torch.rand(n, 2, generator=generator)):
            if foreign < options.foreign:
                reference[k] = given.reference[(k + 1) % n]
                if told < options.told:
                    mask[k] = 1
    reference = _disguised(reference, options, generator)
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


def _disguised(
    reference: Tensor, options: StaleReferences, generator: torch.Generator
) -> Tensor:
    """Return references with other tones, displaced and under clouds."""
    n = len(reference)
    if options.toned:
        shares = ToneParams(
            share_linear=options.toned / 2, share_display=options.toned / 2
        )
        reference = tone(reference, generator, shares)
    if options.displaced:
        there = torch.rand(n, 1, 1, 1, generator=generator) < options.displaced
        drawn = (torch.rand(2, n, 1, 1, 1, generator=generator) * 2.0 - 1.0) * there
        rows, cols = (drawn * options.displaced_by).to(reference.device)
        reference = displace(reference, rows, cols).clamp(0.0, 1.0)
    if options.clouded:
        field = torch.randn(n, 1, 6, 6, generator=generator)
        field = functional.interpolate(field, reference.shape[2:], mode="bicubic")
        there = torch.rand(n, 1, 1, 1, generator=generator) < options.clouded
        cloud = (((field - 0.6) * 3.0).clamp(0.0, 1.0) * there).to(reference.device)
        reference = reference + cloud * (0.9 - reference)
    return reference


def _rectangle(
    size: tuple[int, ...], generator: torch.Generator
) -> tuple[slice, slice]:
    """Draw a rectangle with sides of 1/8 to 3/4 of the picture."""
    spans = []
    for length, (share, place) in zip(
        size, torch.rand(2, 2, generator=generator).tolist(), strict=True
    ):
        side = max(1, int(length * (0.125 + 0.625 * share)))
        start = int(place * (length - side + 1))
        spans.append(slice(start, start + side))
    return spans[0], spans[1]
