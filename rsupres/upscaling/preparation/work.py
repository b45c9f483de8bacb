"""Settle bands, tiling, stretch and identity of a job before the first tile.

`open_work` opens the scene, reads the model's card, and settles bands, stretch, tiling,
type of the output and the run's identity, or raises the error that refuses the job. It
loads no weights, reads few pixels and writes nothing, so that planning uses it, too.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np

from rsupres.checkpoints.catalogue import read_card
from rsupres.companions.request import COLOURS
from rsupres.conditions.base import TargetScene
from rsupres.conditions.open import NO_CONDITIONS, ConditionSet, open_conditions
from rsupres.errors import RsupresError
from rsupres.grid import Grid, PixelWindow
from rsupres.output.tiff.profile import OutputFormat
from rsupres.output.tiff.trial import check_format
from rsupres.raster.bands import BandChoice, choose_bands, class_bands
from rsupres.raster.dataset import Raster
from rsupres.raster.files import file_sha256, hash_of_file
from rsupres.raster.kinds import check_type
from rsupres.raster.stretch import (
    Stretch,
    StretchChoice,
    find_stretch,
    parse_stretch,
    split_excess,
)
from rsupres.tile_grid import TileGrid
from rsupres.upscaling.gates import Gate, parse_gates
from rsupres.upscaling.job import OtherBands, UpscaleJob
from rsupres.upscaling.preparation.band_use import find_bands
from rsupres.upscaling.preparation.devices import find_device
from rsupres.upscaling.preparation.injection import find_gains
from rsupres.upscaling.preparation.model import ChosenModel, find_card
from rsupres.upscaling.preparation.requirements import (
    check_conditions,
    check_options,
    condition_request,
    sampler_options,
)
from rsupres.upscaling.preparation.scene import open_scene, sharpened_by, with_network
from rsupres.upscaling.preparation.tiling import find_batch_size, plan_tiles
from rsupres.upscaling.preparation.validity import (
    warn_of_idle_nodata,
    warn_of_lost,
    warn_of_rounding,
    without_warnings,
)
from rsupres.version import __version__

if TYPE_CHECKING:
    from rsupres.upscaling.finishing import StripRules
    from rsupres.upscaling.inference import TileSource
    from rsupres.upscaling.preparation.lr_rows import LrRows

_SAMPLE_PIXELS = 1_000_000  # of a file, where not all are looked at

# How far the work is: the scene is open; the undeclared nodata value is known, which
# takes reading the scene; the stretch is known, before conditions are opened.
Stage = Literal["opened", "read", "stretched"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Work:
    """A job with everything settled that it needs for its scene and its model.

    Attributes:
        job: what was asked for.
        scene: open, cropped to what is wanted.
        model: with its device and options.
        bands: of the file: the model's, and the others that are written.
        stretch: per band, the model's first, then the others that are written.
        grid: the tiling.
        gates: conditions under which the run counts as failed.
        gains: per other band, how much of the model's detail it gets; empty = none.
        sharpening: name of the network that sharpened coarse bands, None without.
        conditions: open on the scene's SR frame; empty when none was given.
    """

    job: UpscaleJob
    scene: Raster
    model: ChosenModel
    bands: BandChoice
    stretch: Stretch
    grid: TileGrid
    gates: tuple[Gate, ...]
    gains: tuple[float, ...]
    sharpening: str | None = None
    conditions: ConditionSet = NO_CONDITIONS

    @property
    def file_bands(self) -> tuple[int, ...]:
        """Bands that are read: the model's, then the others that are written."""
        return self.bands.roles + self.bands.others

    @property
    def sr_grid(self) -> Grid:
        """Frame of the output: the scene, `scale` times finer."""
        return self.grid.scene.refine(self.grid.scale)

    @cached_property
    def order(self) -> tuple[int, ...]:
        """For each band of the output, its place among `file_bands`.

        Bands keep the file's order, or that of the roles when others are left out.
        """
        places = range(len(self.file_bands))
        named = self.model.spec.bands or self.job.bidx or self.job.named_bands
        if self.job.other_bands == "skip" and named:
            return tuple(places)
        return tuple(sorted(places, key=lambda place: self.file_bands[place]))

    @cached_property
    def codes(self) -> tuple[int, ...]:
        """Places of bands of codes among `file_bands`; numbers between mean nothing."""
        codes = class_bands(self.scene)
        places = enumerate(self.file_bands)
        return tuple(place for place, band in places if band in codes)

    @property
    def other_bands(self) -> OtherBands:
        """How bands that the model does not see are enlarged."""
        is_left = self.job.other_bands in ("auto", "model")
        return "cubic" if is_left else self.job.other_bands

    @property
    def n_joint(self) -> int:
        """How many of the bands read, from the first, are invalid where one is.

        A model of given bands needs all of them. A mask holds for every band of a file.
        """
        if self.nodata is None:
            return len(self.file_bands)
        return len(self.bands.roles) if self.model.spec.bands else 0

    @property
    def dtype(self) -> str:
        """Type of the output."""
        return self.job.dtype or self.scene.dtype

    @property
    def nodata(self) -> float | None:
        """Nodata value of the output; None when it has none, or a mask instead."""
        wanted = self.scene.nodata if self.job.nodata is None else self.job.nodata
        return self.job.format(self.dtype, wanted).nodata

    @property
    def has_deviation(self) -> bool:
        """Whether standard deviations are written, or limits made of them."""
        return self.job.uncertainty is not None or self.job.interval is not None

    @property
    def rules(self) -> StripRules:
        """How strips are finished."""
        from rsupres.upscaling.finishing import StripRules

        return StripRules(
            grid=self.grid,
            stretch=self.stretch,
            n_model=len(self.bands.roles),
            order=self.order,
            dtype=self.dtype,
            nodata=self.nodata,
            gains=self.gains,
            codes=self.codes,
            lock=self.job.lock_low_frequencies and not self.model.spec.sensor,
            deviation=self.has_deviation,
        )

    @cached_property
    def identity(self) -> dict[str, object]:
        """Return the values that must be equal for another run to continue this one."""
        return {
            "version": __version__,
            "scene": self.scene.fingerprint(),
            "model": self.model.card.name,
            "model_sha256": self.model.sha256,
            "aoi_sha256": hash_of_file(self.job.aoi),
            "mask": hash_of_file(self.job.mask),
            "sharpening": self.sharpening_sha256,
            "grid": self.grid.scene.to_json(),
            "bands": list(self.file_bands),
            "n_model": len(self.bands.roles),
            "tile": [*self.grid.sides, self.grid.halo],
            "conditions": self.conditions.fingerprint(),
            **self.job.identity(),
            # "auto" is not the same on every machine.
            "precision": self.model.options.precision,
        }

    @cached_property
    def sharpening_sha256(self) -> str | None:
        """Return the hash of the network that sharpened bands, None without one."""
        file = read_card(self.sharpening).file if self.sharpening else None
        return None if file is None else file_sha256(file)

    @cached_property
    def identity_sha256(self) -> str:
        """Return the hash of `stamp`."""
        text = json.dumps(self.stamp, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    @cached_property
    def stamp(self) -> dict[str, object]:
        """Return the values that make an output that of this job, JSON-able.

        It is the identity without the scene's modification time, the version, and the
        tiles and precision that the machine chose, with the format of the file.
        """
        scene = dict(self.scene.fingerprint())
        scene.pop("mtime_ns", None)
        stamp = {**self.identity, "scene": scene}
        stamp.pop("version")
        stamp.pop("tile")
        stamp["precision"] = self.job.precision
        form = self.format
        return {**stamp, "driver": form.driver, "creation": dict(form.creation)}

    @property
    def batch_size(self) -> int:
        """How many tiles go into one call of the model."""
        n_bands = len(self.bands.roles)
        return self.job.batch_size or find_batch_size(
            self.grid, n_bands, self.model.device
        )

    @property
    def tile_source(self) -> TileSource:
        """The tiles of the scene, with their conditions."""
        import torch

        from rsupres.upscaling.inference import TileSource

        return TileSource(
            grid=self.grid,
            n_bands=len(self.bands.roles),
            read_rows=self.read_rows,
            conditions=self.conditions,
            device=torch.device(self.model.device),
            seed=self.job.seed,
            samples=self.job.samples,
            has_variance=self.has_deviation,
        )

    def read_rows(self, start: int, stop: int) -> LrRows:
        """Return LR rows [start, stop) of the padded frame in units of the stretch."""
        from rsupres.upscaling.preparation.lr_rows import RowReader

        reader = RowReader(
            scene=self.scene,
            bands=self.file_bands,
            n_model=len(self.bands.roles),
            n_joint=self.n_joint,
            stretch=self.stretch,
            codes=[self.file_bands[place] for place in self.codes],
            split_excess=self.split_excess,
            shows_hidden=self.job.mask_action != "nodata",
        )
        return reader.read(PixelWindow(start, 0, stop - start, self.grid.lr.width))

    def split_excess(self, unit: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the part of unit values that the model sees, and the rest, if any."""
        if self.model.spec.unclipped:
            return unit, None
        seen, excess = split_excess(unit)
        return seen, excess if excess.any() else None

    @property
    def format(self) -> OutputFormat:
        """How the output is stored."""
        return self.job.format(self.dtype, self.nodata)


@contextmanager
def open_work(
    job: UpscaleJob,
    on_settled: Callable[[Work, Stage], None] | None = None,
    *,
    is_checked: bool = True,
) -> Iterator[Work]:
    """Yield a settled job with its scene open; close the scene on leaving.

    Args:
        job: what is asked.
        on_settled: called with what is settled so far, at each stage.
        is_checked: look at all pixels where those of a sample may hide what refuses
            the job; reads whole files where scenes of several scales are joined.

    Raises:
        RsupresError: the job is refused; the message says why and what to do.
    """
    measured = job.uncertainty is not None or job.interval is not None
    gates = parse_gates(job.fail_if, has_uncertainty=measured)
    choice = parse_stretch(job.stretch)
    settled = on_settled or (lambda work, stage: None)

    def on_opened(scene: Raster) -> None:
        with suppress(RsupresError), without_warnings():  # they come again below
            settled(_settle(job, scene, gates), "opened")

    sample = None if is_checked else _SAMPLE_PIXELS
    with open_scene(job, sample, on_opened if on_settled else None) as scene:
        work = _settle(job, scene, gates)
        settled(work, "read")
        work = _with_stretch(work, choice)
        settled(work, "stretched")
        scene = work.scene
        interpolated = [p + 1 for p in work.order if p not in work.codes]
        warn_of_rounding(scene, work.stretch.for_bands(interpolated), work.dtype)
        warn_of_lost(
            scene, work.file_bands[: work.n_joint], has_nodata=work.nodata is not None
        )
        spec, roles = work.model.spec, work.bands.roles
        stretch = work.stretch.for_bands(range(1, len(roles) + 1))
        frame = TargetScene(scene, roles, spec.bands, stretch, job.scale)
        with open_conditions(condition_request(job, spec), frame) as conditions:
            yield replace(work, conditions=conditions)


def _settle(job: UpscaleJob, scene: Raster, gates: tuple[Gate, ...]) -> Work:
    """Return the work as far as it is known before pixels are read for the stretch."""
    card = find_card(job, scene)
    spec = card.spec
    check_options(job, spec)
    check_conditions(job, spec, card.name)
    bands = find_bands(job, scene, spec)
    if job.rgb8 is not None or job.qml:
        choose_bands(scene, COLOURS, remedies=("bands_out",))
    n_bands = len(bands.roles) + len(bands.others)
    sides = job.tile_size, job.overlap
    lock = job.lock_low_frequencies
    grid = plan_tiles(
        scene.grid, job.scale, spec, card.name, *sides, n_bands, lock=lock
    )
    check_type(scene, job.dtype or scene.dtype, job.nodata)
    warn_of_idle_nodata(scene, job.nodata)
    device = find_device(job.device)
    options = sampler_options(job, device, scene, span=1.0)
    model = ChosenModel(job.model or card.name, card, device, options)
    unknown = Stretch((), ())
    work = Work(
        job=job,
        scene=scene,
        model=model,
        bands=bands,
        stretch=unknown,
        grid=grid,
        gates=gates,
        gains=(),
        sharpening=sharpened_by(scene),
    )
    check_format(work.format, len(work.order), work.sr_grid)
    return work


def _with_stretch(work: Work, choice: StretchChoice) -> Work:
    """Return the work with findings from the scene's pixels, such as the stretch."""
    scene, bands, job = work.scene, work.bands, work.job
    stretch = find_stretch(scene, choice).for_bands(bands.roles + bands.others)
    span = stretch.high[0] - stretch.low[0]
    options = sampler_options(job, work.model.device, scene, span)
    model = replace(work.model, options=options)
    if work.sharpening:
        scene = with_network(scene, model.device)
    inject = job.other_bands == "inject"
    gains = find_gains(scene, bands, stretch) if inject else ()
    return replace(work, scene=scene, stretch=stretch, model=model, gains=gains)
