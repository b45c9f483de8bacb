"""Choose the model of a job, warn where it was made for other scenes, and load it."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

from rsupres.checkpoints.catalogue import Card, default_model, load_model, read_card
from rsupres.errors import InputError, ResourceError
from rsupres.families.base import (
    ModelSpec,
    SamplerOptions,
    ScaleRange,
    SuperResolver,
)
from rsupres.raster.dataset import Raster
from rsupres.raster.files import file_sha256
from rsupres.upscaling.job import UpscaleJob

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ChosenModel:
    """A model with the device and the options that it will run with.

    Attributes:
        name: of its card, or its checkpoint file.
        card: what it needs, where it is and its licence.
        device: where it computes, such as "cpu" or "cuda:1".
        options: choices about its sampling.
    """

    name: str
    card: Card
    device: str
    options: SamplerOptions

    @property
    def spec(self) -> ModelSpec:
        """Needs of the model: bands, scales, conditions."""
        return self.card.spec

    @cached_property
    def sha256(self) -> str | None:
        """Hash of the weights; None for a model without any."""
        return None if self.card.file is None else file_sha256(self.card.file)

    def load(self) -> SuperResolver:
        """Load the model, unless `keeping_model` has it.

        Raises:
            CheckpointError: as `load_model`.
            ResourceError: the device's memory does not hold it.
        """
        import torch

        device = torch.device(self.device)
        key = (self.name, self.sha256, self.device, self.options)
        kept = _KEPT.get()
        if kept is not None and key in kept:
            return kept[key]
        try:
            if kept is None:
                return load_model(self.name, device, self.options)
            kept.clear()  # before another is loaded: memory holds one
            kept[key] = load_model(self.name, device, self.options)
            return kept[key]
        except torch.OutOfMemoryError as error:
            raise ResourceError(
                f"{self.device}: too little memory to load model {self.card.name}."
            ) from error


Models = dict[Hashable, SuperResolver]
_KEPT: ContextVar[Models | None] = ContextVar("model that is kept", default=None)


@contextmanager
def keeping_model(models: Models | None = None) -> Iterator[None]:
    """Load a model once for all jobs that this thread does inside the block.

    One model is kept at a time, the one loaded last, until the block ends.

    Args:
        models: holds the model that an earlier block kept, and keeps it after this one.
    """
    token = _KEPT.set({} if models is None else models)
    try:
        yield
    finally:
        _KEPT.reset(token)


def find_card(job: UpscaleJob, scene: Raster) -> Card:
    """Return the card of the job's model, or of the default that fits.

    Warns where scale or pixel size are not those of the model's training.

    Args:
        job: what is asked.
        scene: open, cropped to what is wanted.

    Raises:
        CheckpointError: there is no such model, or none that fits.
        InputError: it does not offer the scale.
    """
    gsd = scene.grid.gsd_m
    if job.model is None:
        n_bands = len(scene.data_bands)
        name = default_model(n_bands, job.scale, gsd, job.given_conditions)
        logger.info("Model %s, chosen for its bands, scale and pixel size.", name)
        card = read_card(name)
    else:
        card = read_card(job.model)
    spec = card.spec
    if not spec.scales.offers(job.scale):
        raise InputError(
            f"{decimal(job.scale)}: model {card.name} offers {spec.scales}.",
            argument="scale",
        )
    _warn_of_other_scenes(job, scene, card)
    return card


def _warn_of_other_scenes(job: UpscaleJob, scene: Raster, card: Card) -> None:
    """Warn where scale or pixel size are not those of the model's training."""
    spec, gsd = card.spec, scene.grid.gsd_m
    if isinstance(spec.scales, ScaleRange) and job.scale > spec.scales.trained:
        logger.warning(
            "Scale %s is beyond %s, the largest that model %s was trained for.",
            decimal(job.scale),
            decimal(spec.scales.trained),
            card.name,
        )
    # A hundredth more or less is the same pixel size, written with other digits.
    if spec.gsd is not None and not 0.99 * spec.gsd[0] <= gsd <= 1.01 * spec.gsd[1]:
        logger.warning(
            "%s has pixels of %.3g m; model %s was trained on %g to %g m.",
            scene.path,
            gsd,
            card.name,
            *spec.gsd,
        )


def decimal(scale: Fraction) -> str:
    """Return a scale as a decimal number if that is short, else as a fraction."""
    return f"{float(scale):g}" if scale.denominator in (1, 2, 4, 5, 10) else str(scale)
