"""Repeat the command that ended a run, when its process was killed near the end.

The output then exists, and the run directory holds only locks.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from pathlib import Path

from rsupres.errors import InputError, QualityGateError
from rsupres.output.run_state import drop_ended
from rsupres.output.store import store_name, stored_tags
from rsupres.output.tiff.geotiff import read_tags
from rsupres.output.tiff.verify import find_damage
from rsupres.raster.files import StrPath
from rsupres.upscaling.preparation.existing import JOB, figures_in
from rsupres.upscaling.summary import RunSummary

logger = logging.getLogger(__name__)


def finish_ended(run: Path, output: StrPath) -> RunSummary:
    """Remove what is left of a run that had ended; return the summary of its output.

    Args:
        run: a folder of which `rsupres.output.run_state.is_ended` is true.
        output: of the run, a file or an object of a store.

    Raises:
        InputError: the output is not there, or is not that of a run.
        QualityGateError: the output missed a gate when it was written.
        RunConflictError: a process begins a run in the folder.
        ResourceError: the store does not answer.
    """
    started = time.monotonic()
    tags = _tags_of_whole(output)
    if JOB not in tags:
        raise InputError(
            f"{run}: the run that was here has ended or was given up, and {output} is "
            "no whole output of a run; upscale the scene again."
        )
    drop_ended(run)
    logger.info("%s: the run had ended; what was left of it is removed.", run)
    figures = figures_in(tags)
    if not_met := tags.get("RSUPRES_GATE_NOT_MET"):
        raise QualityGateError(
            f"{output} exists and is marked, but {not_met}.", figures=figures
        )
    return RunSummary(
        output=Path(output),
        status="existed",
        figures=figures,
        tiles=0,
        skipped=0,
        duration_s=time.monotonic() - started,
        model=tags.get("RSUPRES_MODEL", ""),
    )


def _tags_of_whole(output: StrPath) -> Mapping[str, str]:
    """Return the tags of a raster that is whole, none of anything else."""
    if (store := store_name(output)) is not None:
        return stored_tags(store) or {}
    path = Path(output)
    if not path.is_file():
        return {}
    tags = read_tags(path)
    return tags if JOB in tags and not find_damage(path) else {}
