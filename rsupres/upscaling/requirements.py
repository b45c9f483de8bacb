"""Whether a model offers what a job asks of it, and is given what it needs.

An option that would have no effect is refused, and so is a condition that the model
does not look at; the message names the models that do. Only specs and options are
compared here; nothing is opened.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch

from rsupres.checkpoints.catalogue import list_cards
from rsupres.conditions.base import CONDITIONS, DETECT, ConditionRequest
from rsupres.errors import ConditionError, InputError
from rsupres.families.base import ModelSpec, SamplerOptions
from rsupres.upscaling.devices import find_precision
from rsupres.upscaling.job import UpscaleJob

OPTIONS = {name: "--" + name.replace("_", "-") for name in CONDITIONS}
_WHAT = {
    "vector_map": "a vector map",
    "reference": "a reference image",
    "change_mask": "a change mask",
    "style": "a style",
}


def condition_request(job: UpscaleJob, spec: ModelSpec) -> ConditionRequest:
    """Return which conditions a job gives; the legend by the model."""
    return ConditionRequest(
        **job.condition_values() | {"legend": job.legend or spec.legend},
        change_table=spec.classes,
        seed=job.seed,
        folder=job.output.absolute().parent,
    )


def check_conditions(job: UpscaleJob, spec: ModelSpec, model: str) -> None:
    """Refuse conditions that the model does not look at, and their options alone.

    Args:
        job: what is asked.
        spec: of the model.
        model: its name, for the message.

    Raises:
        ConditionError: one that the model does not accept, one that it needs and is
            not given, or an option without the condition that it is about.
    """
    given = condition_request(job, spec).given
    may = spec.accepts | spec.needs
    for name in given:
        if name not in may:
            raise ConditionError(
                f"{OPTIONS[name]}: model {model} does not look at {_WHAT[name]}; "
                f"{_models_that_accept(name)}."
            )
    if job.style_sample and "style" not in may:
        raise ConditionError(
            f"--style-sample: model {model} draws no style; "
            f"{_models_that_accept('style')}."
        )
    for name in sorted(spec.needs - set(given)):
        if name == "style" and job.style_sample:
            continue
        raise ConditionError(
            f"Model {model} needs {_WHAT.get(name, name)}: give "
            f"{OPTIONS.get(name, name)}."
        )
    _check_company(job)


def check_options(job: UpscaleJob, spec: ModelSpec) -> None:
    """Refuse options that would do nothing with this model.

    Raises:
        InputError: the option, and why it would have no effect.
    """
    if job.detail is not None and not spec.detail:
        raise InputError(
            f"--detail {job.detail:g}: the model offers no choice of detail."
        )
    if job.steps is not None and spec.steps is None:
        raise InputError(f"--steps {job.steps}: the model has no sampling steps.")
    if job.sampler is not None and spec.steps is None:
        raise InputError(f"--sampler {job.sampler}: the model samples nothing.")
    if job.samples > 1 and not spec.stochastic:
        raise InputError(
            f"--samples {job.samples}: the model draws no noise, so all would be equal."
        )
    if job.uncertainty is not None and job.samples < 2:
        raise InputError("--uncertainty needs --samples 2 or more.")


def sampler_options(job: UpscaleJob, device: torch.device) -> SamplerOptions:
    """Return what the model is told."""
    return SamplerOptions(
        steps=job.steps,
        sampler=job.sampler,
        detail=0.0 if job.detail is None else job.detail,
        precision=find_precision(job.precision, device),
        style_sample=job.style_sample,
    )


def _check_company(job: UpscaleJob) -> None:
    """Refuse options about a condition that is not there."""
    pairs: Iterable[tuple[bool, str, bool, str]] = (
        (job.legend is not None, "--legend", bool(job.vector_map), "--vector-map"),
        (job.layers is not None, "--layers", bool(job.vector_map), "--vector-map"),
        (job.coregister, "--coregister", bool(job.reference), "--reference"),
        (job.fill_reference, "--fill-reference", bool(job.reference), "--reference"),
        (
            job.reference_coverage is not None,
            "--reference-coverage",
            bool(job.reference),
            "--reference",
        ),
        (
            job.class_table is not None,
            "--class-table",
            job.change_mask is not None,
            "--change-mask",
        ),
        (
            job.class_attribute is not None,
            "--class-attribute",
            job.change_mask is not None,
            "--change-mask",
        ),
        (
            job.change_mask == DETECT,
            "--change-mask detect",
            bool(job.reference),
            "--reference",
        ),
    )
    for asked, option, there, needed in pairs:
        if asked and not there:
            raise ConditionError(f"{option} needs {needed}.")
    if job.style is not None and job.style_sample:
        raise ConditionError(
            "--style and --style-sample exclude each other: follow or draw."
        )


def _models_that_accept(name: str) -> str:
    """Return a clause that says which known models look at a condition."""
    names = [
        card.name
        for card in list_cards()
        if name in card.spec.accepts | card.spec.needs and card.is_present
    ]
    if not names:
        return "no model on this machine does (see 'rsupres models list')"
    return f"these do: {', '.join(names)}"
