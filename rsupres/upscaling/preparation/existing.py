"""Compare outputs that exist with those that a job would write.

An output carries the identity of its job in tags: options, model and the input's
fingerprint. It is left alone when that is the same and the file is whole. A file that
is no output of a run is never replaced unasked.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from rsupres.errors import QualityGateError, RunConflictError
from rsupres.output.manifest import differences_of
from rsupres.output.tiff.geotiff import read_tags
from rsupres.output.tiff.verify import find_damage
from rsupres.upscaling.gates import FIGURES
from rsupres.upscaling.job import UpscaleJob
from rsupres.upscaling.preparation.work import Work

JOB, IDENTITY, GATE = "RSUPRES_JOB", "RSUPRES_IDENTITY", "RSUPRES_GATE"
_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def check_existing(work: Work) -> list[str]:
    """Return how the outputs that exist differ from those of a job.

    Returns:
        A line for each difference; empty when there is nothing to do.

    Raises:
        RunConflictError: a file is no output of a run, or outputs differ and the job
            does not update them.
    """
    job = work.job
    found = [line for path in job.outputs.values() for line in _differences(work, path)]
    return _checked(found, job, job.output)


def check_stored_output(work: Work, path: Path, tags: Mapping[str, str]) -> list[str]:
    """Return how an object of a store differs from the output of a job.

    Objects are complete or absent, so it is not looked at for damage.

    Args:
        work: of the job.
        path: GDAL's name of the object.
        tags: of the object.

    Raises:
        RunConflictError: it is no output of a run, or differs and the job does not
            update it.
    """
    if JOB not in tags:
        raise _foreign(path)
    return _checked(_differences_of_tags(work, path, tags), work.job, path)


def _checked(found: list[str], job: UpscaleJob, path: Path) -> list[str]:
    """Return differences, where the job may update the output that has them."""
    if found and not job.update:
        raise RunConflictError(
            f"{path} exists and differs from what is asked: {'; '.join(found[:3])}.",
            remedies=("update", "overwrite"),
        )
    return found


def _foreign(path: Path) -> RunConflictError:
    return RunConflictError(
        f"{path} exists and was not written by this command.", remedies=("overwrite",)
    )


def stored_figures(path: Path) -> dict[str, float]:
    """Return the quality figures that an output carries.

    Args:
        path: of the output.
    """
    return figures_in(read_tags(path))


def figures_in(tags: Mapping[str, str]) -> dict[str, float]:
    """Return the quality figures among the tags of an output."""
    return {
        name: float(tags[f"RSUPRES_{name.upper()}"])
        for name in FIGURES
        if f"RSUPRES_{name.upper()}" in tags
    }


def check_stored_gates(work: Work, figures: dict[str, float]) -> None:
    """Check an output that is left alone against the job's quality gates.

    Args:
        work: what is settled.
        figures: of the output, by name.

    Raises:
        QualityGateError: a gate is not met, now or when the output was written.
    """
    failed = [
        gate
        for gate in work.gates
        if gate.figures <= figures.keys() and gate.fails(figures)
    ]
    if failed:
        texts = "; ".join(gate.describe(figures) for gate in failed)
        raise QualityGateError(
            f"{work.job.output} exists and is marked, but {texts}.", figures=figures
        )


def is_output(path: Path) -> bool:
    """Return whether a file is an output of a run, perhaps a damaged one."""
    if JOB in read_tags(path):
        return True
    try:
        with path.open("rb") as opened:
            start = opened.read(4096)
    except OSError:
        return False
    if not start.strip(b"\0"):  # nothing of it reached the disk
        return True
    return start.startswith(_TIFF_STARTS) and find_damage(path) is not None


def _differences(work: Work, path: Path) -> list[str]:
    """Return how one output differs from the one that the job would write."""
    if not path.exists():
        return [f"{path} is missing"]
    if not is_output(path):
        raise _foreign(path)
    if damage := find_damage(path):
        return [f"{path} is damaged ({damage})"]
    return _differences_of_tags(work, path, read_tags(path))


def _differences_of_tags(work: Work, path: Path, tags: Mapping[str, str]) -> list[str]:
    if tags[JOB] == work.identity_sha256:
        return []
    try:
        stored = json.loads(tags.get(IDENTITY, "{}"))
    except ValueError:
        stored = {}
    if not stored:
        return [f"{path} is of another scene, model or options"]
    wanted = json.loads(json.dumps(work.stamp))
    return [f"it has {line}" for line in differences_of(stored, wanted)]
