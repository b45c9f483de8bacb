"""Choose which bands of a scene the model sees, and which are enlarged beside them."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence

from rsupres.errors import BandError
from rsupres.families.base import ModelSpec
from rsupres.raster.bands import BandChoice, choose_bands, class_bands
from rsupres.raster.dataset import Raster
from rsupres.upscaling.job import UpscaleJob

_CODES = "of classes or bits by name, and numbers between these mean nothing"

logger = logging.getLogger(__name__)


def find_bands(job: UpscaleJob, scene: Raster, spec: ModelSpec) -> BandChoice:
    """Return which bands the model sees, and which are enlarged beside them.

    Args:
        job: what is asked.
        scene: open.
        spec: of the model.

    Raises:
        BandError: the scene lacks a band, or the model takes no others.
    """
    named = None if job.named_bands is None else dict(job.named_bands)
    bands = choose_bands(scene, spec.bands, job.bidx, named, ("bands", "bidx"))
    if not spec.bands:
        bands = _of_any_bands(job, bands, class_bands(scene))
    elif job.other_bands == "model":
        raise BandError(
            f"model: the model takes {', '.join(spec.bands)} only.",
            argument="other_bands",
            remedies=("other_bands=cubic",),
        )
    if job.other_bands == "skip":
        bands = BandChoice(bands.roles, ())
    codes = class_bands(scene)
    how = "interpolated bicubically"
    if job.other_bands == "inject":
        how = "interpolated, with the model's detail"
    _say(scene, [b for b in bands.others if b not in codes], f"not the model's; {how}")
    written = bands.roles + bands.others
    _say(scene, [b for b in written if b in codes], f"{_CODES}; the nearest is copied")
    return bands


def _say(scene: Raster, bands: Sequence[int], text: str) -> None:
    """Log the treatment of some bands of a scene."""
    if bands:
        numbers = ", ".join(map(str, bands))
        verb = "band %s is" if len(bands) == 1 else "bands %s are"
        logger.info(f"%s: {verb} %s.", scene.path, numbers, text)


def _of_any_bands(
    job: UpscaleJob, bands: BandChoice, codes: Collection[int]
) -> BandChoice:
    """Return the bands of a model that takes any: those chosen first, no codes.

    A model would interpolate codes, so they stay beside it unless they were chosen.
    """
    chosen = bool(job.bidx or job.named_bands)
    first = tuple(b for b in bands.roles if chosen or b not in codes) or bands.roles
    rest = tuple(b for b in bands.roles + bands.others if b not in first)
    if job.other_bands not in ("auto", "model"):
        return BandChoice(first, rest)
    measured = tuple(b for b in rest if b not in codes)
    return BandChoice(first + measured, tuple(b for b in rest if b in codes))
