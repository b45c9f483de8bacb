"""Make the tags of an output, GeoTIFF or COG: its model, its job and its figures."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping

from rsupres.families.base import FOUND
from rsupres.products.masks import parse_classes
from rsupres.upscaling.job import UpscaleJob
from rsupres.upscaling.preparation.work import Work
from rsupres.version import __version__


def job_tags(
    work: Work,
    figures: Mapping[str, float],
    not_met: str,
    prepared: Mapping[str, float],
) -> dict[str, str]:
    """Return the RSUPRES_* tags: the same for the same job on the same scene.

    Args:
        work: the settled job.
        figures: of the whole output.
        not_met: quality gates that are not met, with their figures; "" without any.
        prepared: numbers that the model found in the scene.
    """
    job = work.job
    gate = "failed" if not_met else "passed" if work.gates else ""
    tags = {
        "RSUPRES_VERSION": __version__,
        **_of_the_model(work),
        **_of_the_scene(work),
        "RSUPRES_GATE": gate,
        "RSUPRES_GATE_NOT_MET": not_met,
        "RSUPRES_SAMPLER": job.sampler or "",
        "RSUPRES_STYLE_SAMPLE": "yes" if job.style_sample else "",
    }
    tags |= {
        f"RSUPRES_{name.upper()}": json.dumps(fingerprint, sort_keys=True)
        for name, fingerprint in work.conditions.fingerprint().items()
    }
    if settings := work.conditions.settings():
        tags["RSUPRES_MEASURED"] = json.dumps(settings, sort_keys=True)
    found = {k: v for k, v in prepared.items() if k.startswith(FOUND)}
    tags |= {
        f"RSUPRES_{name.upper()}": f"{value:.6g}"
        for name, value in (*figures.items(), *found.items())
    }
    return {key: value for key, value in tags.items() if value}


def _of_the_model(work: Work) -> dict[str, str]:
    model, job = work.model, work.job
    detail = f"{model.options.detail:g}" if model.spec.detail else ""
    return {
        "RSUPRES_MODEL": model.card.name,
        "RSUPRES_MODEL_SHA256": model.sha256 or "",
        "RSUPRES_MODEL_LICENCE": model.card.licence,
        "RSUPRES_SCALE": str(job.scale),
        "RSUPRES_SEED": str(job.seed) if model.spec.stochastic else "",
        "RSUPRES_STEPS": str(job.steps or model.spec.steps or ""),
        "RSUPRES_SAMPLES": str(job.samples) if job.samples > 1 else "",
        "RSUPRES_DETAIL": detail,
        "RSUPRES_SENSOR_MTF": "" if job.sensor_mtf is None else f"{job.sensor_mtf:g}",
        "RSUPRES_NOISE": "" if job.noise is None else f"{job.noise:g}",
        "RSUPRES_PRECISION": model.options.precision,
    }


def _of_the_scene(work: Work) -> dict[str, str]:
    job = work.job
    return {
        "RSUPRES_STRETCH": json.dumps(work.stretch.to_json()),
        "RSUPRES_BANDS": ",".join(map(str, work.bands.roles)),
        "RSUPRES_SHARPENED_BY": work.sharpening or "",
        "RSUPRES_MASK": mask_text(job),
        "RSUPRES_OTHER_BANDS": work.other_bands if work.bands.others else "",
        "RSUPRES_LOCK_LOW_FREQUENCIES": "yes" if job.lock_low_frequencies else "",
        "RSUPRES_TILE": ",".join(map(str, work.grid.sides)),
        "RSUPRES_JOB": work.identity_sha256,
        "RSUPRES_IDENTITY": json.dumps(work.stamp, sort_keys=True),
    }


def mask_text(job: UpscaleJob) -> str:
    """Return which mask hides pixels, its classes, and the values of hidden pixels."""
    if job.mask is None:
        return ""
    classes = ",".join(map(str, parse_classes(job.mask_classes)))
    return f"{os.path.basename(job.mask)}: {classes}: {job.mask_action}"
