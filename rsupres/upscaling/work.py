"""What a job means for one scene and one model: all that precedes the first tile.

`open_work` opens the scene, reads the model's card, and settles bands, stretch, tiling,
output format and the run's identity, or raises the error that refuses the job. It loads
no weights, reads few pixels and writes nothing, so `rsupres plan` runs it, too.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from rsupres.checkpoints.catalogue import (
    Card,
    default_model,
    file_sha256,
    load_model,
    read_card,
)
from rsupres.conditions.base import CONDITIONS, TargetScene
from rsupres.conditions.open import NO_CONDITIONS, ConditionSet, open_conditions
from rsupres.errors import BandError, InputError, ResourceError
from rsupres.families.base import (
    ModelSpec,
    SamplerOptions,
    ScaleRange,
    SuperResolver,
)
from rsupres.grid import Grid
from rsupres.output.geotiff import check_format
from rsupres.output.profile import OutputFormat, OutputMeta
from rsupres.raster.bands import BandChoice, choose_bands
from rsupres.raster.dataset import Raster
from rsupres.raster.extent import window_from_aoi, window_from_bounds
from rsupres.raster.stack import open_scenes
from rsupres.raster.stretch import Stretch, find_stretch, parse_stretch
from rsupres.tile_grid import TileGrid
from rsupres.upscaling.devices import find_device
from rsupres.upscaling.finishing import StripRules
from rsupres.upscaling.gates import Gate, parse_gate
from rsupres.upscaling.injection import find_gains
from rsupres.upscaling.job import UpscaleJob
from rsupres.upscaling.requirements import (
    check_conditions,
    check_options,
    condition_request,
    sampler_options,
)
from rsupres.upscaling.tiling import plan_tiles
from rsupres.version import __version__

logger = logging.getLogger(__name__)

# SR bytes of one batch on a CPU; more only costs memory there.
_CPU_BATCH_BYTES = 16 * 2**20
_GPU_BATCH = 16


@dataclass(frozen=True)
class Work:
    """A job, settled.

    Attributes:
        job: as asked for.
        scene: open, cropped to what is wanted.
        card: of the model.
        bands: of the file.
        stretch: per band, the model's first, then the others that are written.
        grid: the tiling.
        device: where the model computes.
        options: for the model.
        gates: conditions under which the run counts as failed.
        gains: per other band, how much of the model's detail it gets; empty = none.
        conditions: open on the scene's SR frame; empty when none was given.
    """

    job: UpscaleJob
    scene: Raster
    card: Card
    bands: BandChoice
    stretch: Stretch
    grid: TileGrid
    device: torch.device
    options: SamplerOptions
    gates: tuple[Gate, ...]
    gains: tuple[float, ...]
    conditions: ConditionSet = NO_CONDITIONS

    @property
    def spec(self) -> ModelSpec:
        """What the model needs."""
        return self.card.spec

    @property
    def file_bands(self) -> tuple[int, ...]:
        """Bands that are read: the model's, then the others that are written."""
        return self.bands.roles + self.bands.others

    @property
    def output_grid(self) -> Grid:
        """The frame of the output."""
        return self.grid.scene.refine(self.grid.scale)

    @cached_property
    def order(self) -> tuple[int, ...]:
        """For each band of the output, its place among `file_bands`.

        Bands keep the file's order, or that of the roles when others are left out.
        """
        places = range(len(self.file_bands))
        if self.job.other_bands == "skip" and (self.spec.bands or self.job.bidx):
            return tuple(places)
        return tuple(sorted(places, key=lambda place: self.file_bands[place]))

    @property
    def dtype(self) -> str:
        """Type of the output."""
        return self.job.dtype or self.scene.dtype

    @property
    def nodata(self) -> float | None:
        """Nodata value of the output."""
        return self.scene.nodata if self.job.nodata is None else self.job.nodata

    @property
    def has_deviation(self) -> bool:
        """Whether standard deviations are written."""
        return self.job.uncertainty is not None

    @property
    def rules(self) -> StripRules:
        """How strips are finished."""
        return StripRules(
            grid=self.grid,
            stretch=self.stretch,
            n_model=len(self.bands.roles),
            order=self.order,
            dtype=self.dtype,
            nodata=self.nodata,
            gains=self.gains,
            lock=self.job.lock_low_frequencies,
            deviation=self.has_deviation,
        )

    @cached_property
    def model_sha256(self) -> str | None:
        """Hash of the weights; None for a model without any."""
        return None if self.card.file is None else file_sha256(self.card.file)

    @cached_property
    def identity(self) -> dict[str, object]:
        """Return what another run must share to continue this one."""
        return {
            "version": __version__,
            "scene": self.scene.fingerprint(),
            "model": self.card.name,
            "model_sha256": self.model_sha256,
            "aoi_sha256": _file_hash(self.job.aoi),
            "grid": _grid_to_json(self.grid.scene),
            "bands": list(self.file_bands),
            "n_model": len(self.bands.roles),
            "tile": [self.grid.size, self.grid.overlap, self.grid.halo],
            "precision": self.options.precision,
            "conditions": self.conditions.fingerprint(),
            **self.job.identity(),
        }

    @cached_property
    def identity_sha256(self) -> str:
        """Return the hash of the identity without the scene's modification time."""
        scene = dict(self.scene.fingerprint())
        scene.pop("mtime_ns", None)
        text = json.dumps({**self.identity, "scene": scene}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def load(self) -> SuperResolver:
        """Load the model, unless `keeping_model` has it.

        Raises:
            CheckpointError: as `load_model`.
            ResourceError: the device's memory does not hold it.
        """
        name = self.job.model or self.card.name
        key = (name, self.model_sha256, self.device, self.options)
        kept = _KEPT.get()
        if kept is not None and key in kept:
            return kept[key]
        try:
            if kept is None:
                return load_model(name, self.device, self.options)
            kept.clear()  # before another is loaded: memory holds one
            kept[key] = load_model(name, self.device, self.options)
            return kept[key]
        except torch.OutOfMemoryError as error:
            raise ResourceError(
                f"{self.device}: too little memory to load model {self.card.name}."
            ) from error

    @property
    def batch_size(self) -> int:
        """How many tiles go into one call of the model."""
        if self.job.batch_size is not None:
            return self.job.batch_size
        if self.device.type != "cpu":
            return _GPU_BATCH
        height, width = self.grid.tile_shape
        n_values = height * width * self.grid.scale**2 * max(len(self.bands.roles), 1)
        return max(1, min(8, int(_CPU_BATCH_BYTES // (4 * n_values))))

    @property
    def format(self) -> OutputFormat:
        """How the output is written."""
        return OutputFormat(
            driver="COG" if self.job.driver.upper() == "COG" else "GTiff",
            creation=dict(self.job.creation),
            dtype=self.dtype,
            nodata=self.nodata,
        )

    def meta(self, tags: Mapping[str, str]) -> OutputMeta:
        """What the output carries besides pixels."""
        bands = [self.file_bands[place] for place in self.order]
        return OutputMeta.like(self.scene, bands, self.output_grid, tags)

    @property
    def deviation_format(self) -> OutputFormat:
        """How the standard deviations are written."""
        return replace(self.format, dtype="float32", nodata=math.nan)

    def deviation_meta(self, tags: Mapping[str, str]) -> OutputMeta:
        """What the standard deviations carry besides pixels; bands of the model."""
        bands = self.bands.roles
        return replace(
            OutputMeta.like(self.scene, bands, self.output_grid, {}),
            offsets=(0.0,) * len(bands),
            colorinterp=("undefined",) * len(bands),
            tags={**tags, "RSUPRES_CONTENT": "standard deviation over the samples"},
        )


_KEPT: ContextVar[dict[Hashable, SuperResolver] | None] = ContextVar(
    "model that is kept", default=None
)


@contextmanager
def keeping_model() -> Iterator[None]:
    """Load a model once for all jobs that this thread does inside.

    The last one is kept, and given up on leaving.
    """
    token = _KEPT.set({})
    try:
        yield
    finally:
        _KEPT.reset(token)


@contextmanager
def open_work(job: UpscaleJob) -> Iterator[Work]:
    """Open a job's scene and settle everything; close the scene on leaving.

    Raises:
        RsupresError: the job is refused; the message says why and what to do.
    """
    gates = tuple(parse_gate(text) for text in job.fail_if)
    if job.uncertainty is None and any("uncertainty" in g.figures for g in gates):
        raise InputError(
            "names uncertainty, which is not measured.",
            argument="fail_if",
            remedies=("uncertainty",),
        )
    choice = parse_stretch(job.stretch)
    with open_scenes(job.scenes) as whole:
        scene = _restrict(whole, job)
        card = _find_card(job, scene)
        check_options(job, card.spec)
        check_conditions(job, card.spec, card.name)
        bands = _find_bands(job, scene, card.spec)
        grid = plan_tiles(
            scene.grid, job.scale, card.spec, card.name, job.tile_size, job.overlap
        )
        _check_output(job, scene)
        stretch = find_stretch(scene, choice).for_bands(bands.roles + bands.others)
        device = find_device(job.device)
        span = stretch.high[0] - stretch.low[0]
        work = Work(
            job=job,
            scene=scene,
            card=card,
            bands=bands,
            stretch=stretch,
            grid=grid,
            device=device,
            options=sampler_options(job, device, span),
            gates=gates,
            gains=find_gains(scene, bands, stretch)
            if job.other_bands == "inject"
            else (),
        )
        check_format(work.format, len(work.order))
        roles = range(1, len(bands.roles) + 1)
        frame = TargetScene(
            scene, bands.roles, card.spec.bands, stretch.for_bands(roles), job.scale
        )
        with open_conditions(condition_request(job, card.spec), frame) as conditions:
            yield replace(work, conditions=conditions)


def _restrict(scene: Raster, job: UpscaleJob) -> Raster:
    """Return the part of the scene that the job is about."""
    if job.bounds is not None:
        scene = scene.crop(window_from_bounds(scene, job.bounds, job.bounds_crs))
    if job.aoi is not None:
        scene = scene.crop(*window_from_aoi(scene, job.aoi))
    return scene


def _find_card(job: UpscaleJob, scene: Raster) -> Card:
    """Return the card of the model to use; warn where it was made for other scenes."""
    gsd = scene.grid.gsd_m
    if job.model is None:
        given = {name for name in CONDITIONS if getattr(job, name)}
        given |= {"style"} if job.style_sample else set()
        name = default_model(len(scene.data_bands), job.scale, gsd, given)
        logger.info("Model %s, chosen for its bands, scale and pixel size.", name)
        card = read_card(name)
    else:
        card = read_card(job.model)
    spec = card.spec
    if not spec.scales.offers(job.scale):
        raise InputError(
            f"{_decimal(job.scale)}: model {card.name} offers {spec.scales}.",
            argument="scale",
        )
    if isinstance(spec.scales, ScaleRange) and job.scale > spec.scales.trained:
        logger.warning(
            "Scale %s is beyond %s, the largest that model %s was trained for.",
            _decimal(job.scale),
            _decimal(spec.scales.trained),
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
    return card


def _find_bands(job: UpscaleJob, scene: Raster, spec: ModelSpec) -> BandChoice:
    named = None if job.named_bands is None else dict(job.named_bands)
    if named and not spec.bands:
        raise BandError(
            "name roles, and the model takes any bands; give their numbers instead.",
            argument="named_bands",
            remedies=("bidx",),
        )
    bands = choose_bands(scene, spec.bands, job.bidx, named, ("named_bands", "bidx"))
    if job.other_bands == "skip" or not bands.others:
        return BandChoice(bands.roles, ())
    logger.info(
        "%s: bands %s are not the model's; %s.",
        scene.path,
        ", ".join(map(str, bands.others)),
        "enlarged by bicubic interpolation"
        if job.other_bands == "cubic"
        else "enlarged with the model's detail",
    )
    return bands


def _check_output(job: UpscaleJob, scene: Raster) -> None:
    """Refuse a type or nodata value that cannot hold the result."""
    kind = np.dtype(job.dtype or scene.dtype)
    if kind.kind not in "iuf" or kind.itemsize > 8:
        raise InputError(
            f"{scene.path}: type {kind} cannot be written; choose another.",
            remedies=("dtype",),
        )
    nodata = scene.nodata if job.nodata is None else job.nodata
    if nodata is not None and not _fits(nodata, kind):
        raise InputError(
            f"nodata {nodata:g} cannot be stored as {kind}; choose a value that can.",
            remedies=("nodata",),
        )
    if job.dtype is not None and kind.kind in "iu":
        source = np.dtype(scene.dtype)
        if source.kind in "iu" and not np.can_cast(source, kind):
            _check_range(scene, kind)


def _check_range(scene: Raster, kind: np.dtype[np.generic]) -> None:
    pixels, valid = scene.read_decimated(scene.data_bands, 250_000)
    if not valid.any():
        return
    low, high = (float(pick(pixels[:, valid[0]])) for pick in (np.min, np.max))
    limits = np.iinfo(kind.name)
    if low < limits.min or high > limits.max:
        raise InputError(
            f"{kind}: the scene's numbers go from {low:g} to {high:g} and are not "
            "rescaled; use a type that holds them.",
            argument="dtype",
        )


def _fits(nodata: float, kind: np.dtype[np.generic]) -> bool:
    if kind.kind == "f":
        return True
    limits = np.iinfo(kind.name)
    return (
        math.isfinite(nodata)
        and float(nodata).is_integer()
        and limits.min <= nodata <= limits.max
    )


def _decimal(scale: Fraction) -> str:
    return f"{float(scale):g}" if scale.denominator in (1, 2, 4, 5, 10) else str(scale)


def _grid_to_json(grid: Grid) -> dict[str, object]:
    return {
        "crs": grid.crs.to_wkt() if grid.crs else None,
        "transform": list(grid.transform)[:6],
        "height": grid.height,
        "width": grid.width,
    }


def _file_hash(name: str | None) -> str | None:
    if name is None or not Path(name).is_file():
        return name
    return hashlib.sha256(Path(name).read_bytes()).hexdigest()
