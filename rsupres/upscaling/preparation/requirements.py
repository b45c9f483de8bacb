"""Check a job's options and conditions against the model that it names.

Options that would have no effect are refused, and so are conditions that the model does
not look at; the message names models that do. Only specs and options are compared.
"""

from __future__ import annotations

from rsupres.checkpoints.catalogue import list_cards
from rsupres.conditions.base import (
    CONDITIONS,
    DETECT,
    ConditionRequest,
    GivenConditions,
)
from rsupres.errors import ConditionError, InputError
from rsupres.families.base import TAILS, ModelSpec, SamplerOptions
from rsupres.products.sentinel2 import FINEST_GSD, MIN_MTF
from rsupres.raster.bands import names_sentinel2
from rsupres.raster.dataset import Raster
from rsupres.upscaling.job import UpscaleJob
from rsupres.upscaling.preparation.devices import find_precision

# Conditions in words.
_MEANING = {
    "vector_map": "a vector map",
    "reference": "a reference image",
    "change_mask": "a change mask",
    "style": "a style",
    "fine_bands": "the 10 m bands of a Sentinel-2 product, and upscales no scene",
}
# Options that mean nothing without a condition, and that condition.
_ABOUT = {
    "legend": "vector_map",
    "layers": "vector_map",
    "coregister": "reference",
    "fill_reference": "reference",
    "reference_coverage": "reference",
    "class_table": "change_mask",
    "class_attribute": "change_mask",
}

_SAME_GSD = 0.15  # pixels of degrees are longer in one direction


def condition_request(job: UpscaleJob, spec: ModelSpec) -> ConditionRequest:
    """Return which conditions a job gives; the legend by the model.

    Args:
        job: what is asked.
        spec: of the model.
    """
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
    looked_at = spec.accepts | spec.needs
    for name in given:
        if name not in looked_at:
            raise ConditionError(
                f"has no effect: model {model} does not look at {_MEANING[name]}; "
                f"{_models_that_accept(name)}.",
                argument=name,
            )
    if job.style_sample and "style" not in looked_at:
        raise ConditionError(
            f"has no effect: model {model} draws no style; "
            f"{_models_that_accept('style')}.",
            argument="style_sample",
        )
    for name in sorted(spec.needs - set(given)):
        if name == "style" and job.style_sample:
            continue
        raise ConditionError(
            f"Model {model} needs {_MEANING[name]}.",
            remedies=(name,) if name in CONDITIONS else (),
        )
    _check_condition_options(job)


def check_options(job: UpscaleJob, spec: ModelSpec) -> None:
    """Refuse options that would do nothing with this model.

    Args:
        job: what is asked.
        spec: of the model.

    Raises:
        InputError: the option, and why it would have no effect.
    """
    if job.detail is not None and not spec.detail:
        raise InputError(
            f"{job.detail:g}: the model offers no choice of detail.", argument="detail"
        )
    for name in ("sensor_mtf", "noise"):
        value = getattr(job, name)
        if value is not None and not spec.sensor:
            raise InputError(
                f"{value:g}: the model takes no values of the sensor.", argument=name
            )
    if job.steps is not None and spec.steps is None:
        raise InputError(
            f"{job.steps}: the model has no sampling steps.", argument="steps"
        )
    if job.sampler is not None and spec.steps is None:
        raise InputError(
            f"{job.sampler}: the model samples nothing.", argument="sampler"
        )
    if job.samples > 1 and not spec.stochastic:
        raise InputError(
            f"{job.samples}: the model draws no noise, so all would be equal.",
            argument="samples",
        )
    if job.uncertainty is not None and job.samples < 2 and not spec.tails:
        raise InputError(
            "needs at least two samples: the model predicts no standard deviation.",
            argument="uncertainty",
            remedies=("samples=2",),
        )
    _check_interval(job, spec)


def _check_interval(job: UpscaleJob, spec: ModelSpec) -> None:
    """Refuse an interval that is none, or that the model cannot give."""
    if job.interval is None:
        return
    if not 0.0 < job.interval <= TAILS[-1]:
        raise InputError(
            f"{job.interval:g}: must be a share from 0 to {TAILS[-1]:g}.",
            argument="interval",
        )
    if not spec.tails:
        raise InputError(
            f"{job.interval:g}: the model does not predict how far off it may be.",
            argument="interval",
        )


def sampler_options(
    job: UpscaleJob, device: str, scene: Raster, span: float
) -> SamplerOptions:
    """Return the choices of a job about a model's sampling and its sensor.

    Args:
        job: what is asked.
        device: where the model computes.
        scene: open; its platform may be known.
        span: digital numbers that the stretch takes as 0 to 1.
    """
    is_native = abs((scene.grid.gsd_m or 0.0) / FINEST_GSD - 1.0) <= _SAME_GSD
    is_sentinel2 = is_native and names_sentinel2(scene)
    return SamplerOptions(
        steps=job.steps,
        sampler=job.sampler,
        detail=0.0 if job.detail is None else job.detail,
        precision=find_precision(job.precision, device),
        style_sample=job.style_sample,
        sensor_mtf=job.sensor_mtf,
        noise=None if job.noise is None else job.noise / span,
        lock=job.lock_low_frequencies,
        least_mtf=MIN_MTF if is_sentinel2 else None,
        several=job.samples > 1,
    )


def check_condition_options(conditions: GivenConditions) -> None:
    """Check that no option lacks the condition that it is about.

    Args:
        conditions: a job, or what was given for cutting tiles.

    Raises:
        ConditionError: the option at fault, and the condition as its remedy.
    """
    for option, condition in _ABOUT.items():
        is_given = getattr(conditions, option, None) not in (None, False)
        if is_given and not getattr(conditions, condition):
            raise _missing(option, condition)
    if conditions.change_mask == DETECT and not conditions.reference:
        raise _missing(f"change_mask={DETECT}", "reference")


def _missing(option: str, condition: str) -> ConditionError:
    return ConditionError(
        f"needs {_MEANING[condition]}.", argument=option, remedies=(condition,)
    )


def _check_condition_options(job: UpscaleJob) -> None:
    """Refuse options about a condition that is not there."""
    check_condition_options(job)
    if job.style is not None and job.style_sample:
        raise ConditionError(
            "draws a style, so none can be followed; leave one of them out.",
            argument="style_sample",
            remedies=("style",),
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
