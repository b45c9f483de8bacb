"""Make the page of one result: `rsupres report`, `rsupres.make_report` and `--report`.

A request names a raster or a run directory, and what it is compared with; the page is
one file. Where it would be too large, parts are shown smaller.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from rsupres.checkpoints.catalogue import read_card
from rsupres.companions.request import is_current
from rsupres.conditions.base import DETECT
from rsupres.errors import CheckpointError, InputError, RunConflictError
from rsupres.output.protect import Inputs, check_regular
from rsupres.output.run_dir import Run
from rsupres.raster.files import StrPath, as_name, as_names
from rsupres.raster.open import bounded_cache
from rsupres.report.assemble import Findings
from rsupres.report.page import MAX_BYTES, check_page_place, write_page
from rsupres.report.sources import Given, open_sources
from rsupres.report.views import ROOMS
from rsupres.upscaling.job import UpscaleJob
from rsupres.vector import LIVE

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Summary:
    """The result of writing.

    Attributes:
        output: the page.
        n_bytes: its size.
        figures: those that it shows, by name.
        verdicts: of figures that have one.
    """

    output: Path
    n_bytes: int
    figures: Mapping[str, float]
    verdicts: Mapping[str, str]

    def to_json(self) -> dict[str, object]:
        """Return JSON-able values."""
        return {
            "output": str(self.output),
            "bytes": self.n_bytes,
            "figures": dict(self.figures),
            "verdicts": dict(self.verdicts),
        }


def make_report(
    target: StrPath,
    output: StrPath,
    *,
    lr: StrPath | Sequence[StrPath] = (),
    hr: StrPath | None = None,
    vector_map: StrPath | Sequence[StrPath] = (),
    legend: StrPath | None = None,
    reference: StrPath | Sequence[StrPath] = (),
    mask: StrPath | None = None,
    uncertainty: StrPath | None = None,
    overwrite: bool = False,
) -> Summary:
    """Write a page about a result, as `rsupres report` does.

    Args:
        target: the result, or the directory of a run that was kept, which also tells
            its input and conditions.
        output: the page.
        lr: the input of the result; several files make one scene.
        hr: the truth.
        vector_map: the map that the model was given: vector files, or one raster in a
            legend's colours.
        legend: how vector files are drawn; None = the default.
        reference: earlier images that the model was given; the latest lies on top.
        mask: the change mask that the model was given, polygons or a class raster.
        uncertainty: the standard deviation over the samples.
        overwrite: replace a page that exists.

    Returns:
        The figures of the page, and its size.

    Raises:
        InputError: a file is missing, or shows another place.
        RunConflictError: the page exists.
    """
    given = _find_given(os.fspath(target))
    own = {
        "lr": as_names(lr),
        "hr": as_name(hr),
        "vector_map": as_names(vector_map),
        "legend": as_name(legend),
        "reference": as_names(reference),
        "change_mask": as_name(mask),
        "uncertainty": as_name(uncertainty),
    }
    chosen = {name: value for name, value in own.items() if value}
    given = replace(given, **chosen)  # type: ignore[arg-type]  # names of its fields
    _check_page(Path(output), given, overwrite=overwrite)
    return write_report(given, Path(output))


def _find_given(target: str) -> Given:
    """Return the files of a result or of a run directory; refuse unfinished runs."""
    if not (Path(target) / "run.json").is_file():
        return Given(target)
    stored = Run.load(Path(target)).get("options")
    if not isinstance(stored, Mapping):
        raise InputError(f"{target}: not the run of a scene being upscaled.")
    job = UpscaleJob.from_json(cast(Mapping[str, object], stored))
    if not job.output.exists():
        raise InputError(
            f"{target}: this run has not written {job.output} yet; finish it with "
            "'rsupres mosaic'."
        )
    return given_of(job)


def given_of(job: UpscaleJob) -> Given:
    """Return the files that a job read and wrote; downloads and detection are none."""
    legend = job.legend
    if legend is None and job.model is not None:
        try:
            legend = read_card(job.model).spec.legend
        except CheckpointError:
            legend = None
    mask = job.change_mask
    return Given(
        sr=str(job.output),
        lr=job.scenes,
        vector_map=tuple(name for name in job.vector_map if name != LIVE),
        legend=legend,
        reference=job.reference,
        change_mask=None if mask == DETECT else mask,
        uncertainty=None if job.uncertainty is None else str(job.uncertainty),
    )


def _check_page(path: Path, given: Given, *, overwrite: bool) -> None:
    """Check that a page is no file that is read, and replaces one only if asked to."""
    check_regular(path, "output")
    Inputs(given.files).check_file(path, "output")
    check_page_place(path, "output")
    if path.exists() and not overwrite:
        raise RunConflictError(f"{path} exists.", remedies=("overwrite",))


def check_job_page(path: Path, job: UpscaleJob) -> None:
    """Check that the page of a job destroys nothing.

    Args:
        path: of the page.
        job: whose result it shows.

    Raises:
        ArgumentError: it is a file that the job reads or writes.
        RunConflictError: it exists, and nothing says that it may be replaced.
    """
    check_regular(path, "report")
    written = {name: [str(file)] for name, file in job.outputs.items()}
    Inputs({**job.inputs, **written}).check_file(path, "report")
    if is_page_kept(path, job):
        return
    check_page_place(path, "report")
    if path.exists() and not (job.may_replace or job.skip_existing):
        raise RunConflictError(f"{path} exists.", remedies=("overwrite",))


def is_page_kept(path: Path, job: UpscaleJob) -> bool:
    """Return whether a page shows the output of a job as it is, and may stay.

    Args:
        path: of the page.
        job: its output may be left as it is, too.
    """
    return job.compares and is_current(path, (job.output,))


def write_report(
    given: Given, output: Path, run: Mapping[str, str] | None = None
) -> Summary:
    """Write the page of a result, or replace it; return the most important figures.

    Args:
        given: the files.
        output: the page.
        run: rows for the provenance that the caller knows, such as the run time.

    Raises:
        RsupresError: as `make_report`.
    """
    with bounded_cache(), open_sources(given) as sources:
        made = Findings(sources, dict(run or {}))
        for room in ROOMS:
            text = made.page(room)
            if len(text.encode()) <= MAX_BYTES:
                break
        else:
            logger.warning("%s: larger than %d bytes.", output, MAX_BYTES)
        write_page(output, text)
    verdicts = {f.name: f.verdict for f in made.figures if f.verdict}
    values = {f.name: f.value for f in made.figures}
    return Summary(output, output.stat().st_size, values, verdicts)
