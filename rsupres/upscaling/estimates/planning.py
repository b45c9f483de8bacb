"""Estimate what a job would cost, and find what would refuse it, without running it.

Sizes follow from the tiling, the file's size from compressing a sample, memory and time
from tables of `rsupres.upscaling.estimates.costs`. No weights are loaded and nothing is
written. Estimates that take longer than the time allowed are left out, and named.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rsupres.checkpoints.file import read_part
from rsupres.errors import ResourceError, RsupresError
from rsupres.execution import run_for
from rsupres.families import SENSOR_READERS
from rsupres.families.base import ModelSpec
from rsupres.output.tiff.creation import raw_block
from rsupres.output.tiff.packets import PACKED_BYTES
from rsupres.output.tiff.sizes import Sizes, estimate_sizes, packing_bytes, padded
from rsupres.raster.open import bounded_cache
from rsupres.upscaling.estimates.costs import (
    duration_s,
    file_growth,
    free_memory_bytes,
    memory_bytes,
    read_times,
)
from rsupres.upscaling.estimates.load import find_load, n_float_rasters
from rsupres.upscaling.estimates.parts import enlarged_parts, whole_type_stretch
from rsupres.upscaling.job import UpscaleJob
from rsupres.upscaling.preparation.context import PreparedScene
from rsupres.upscaling.preparation.existing import check_existing
from rsupres.upscaling.preparation.model import decimal
from rsupres.upscaling.preparation.scene import open_scene
from rsupres.upscaling.preparation.validity import without_warnings
from rsupres.upscaling.preparation.work import Stage, Work, open_work

LIMIT_S = 3.5  # of wall time; the rest of 5 s is the program's start

_NEXT: Mapping[Stage, str] = {
    "opened": "looking for numbers that are no measurements",
    "read": "the stretch",
    "stretched": "opening the conditions",
}

Size = tuple[int, int]  # width, height


@dataclass(frozen=True)
class PlannedBand:
    """A band of the output.

    Attributes:
        band: of the file, from 1.
        name: in the file, None without one.
        role: what the model takes it for; "" = enlarged beside the model.
        low: digital number that becomes 0, None = not found in time.
        high: digital number that becomes 1.
        scale: physical value = digital number * scale + offset.
        offset: see `scale`.
    """

    band: int
    name: str | None
    role: str
    low: float | None
    high: float | None
    scale: float
    offset: float


@dataclass(frozen=True)
class Plan:
    """The plan of a job. Sizes are (width, height).

    Attributes:
        model: name; None when refused before it was known.
        reason: why this model.
        scale: text.
        gsd_m: metres per pixel of the scene.
        scene_size: pixels of the scene as used.
        output_size: pixels of the output.
        bands: of the output, in its order.
        other_bands: treatment of those without a role.
        dtype: of the output.
        input_nodata: value that is no measurement in the scene, None without one.
        nodata: of the output; None without one, or a mask instead.
        tile_size: LR pixels.
        tiles: columns and rows of tiles.
        batch_size: tiles in one call of the model.
        device: where the model computes.
        precision: of its networks.
        memory_bytes: estimated peak of the process.
        memory_free_bytes: of this machine; None when unknown.
        disk_bytes: estimated peak of run directory and output together.
        output_bytes: estimated size of the output.
        free_bytes: on the output's disk.
        sensor: facts of the scene's sensor that the model takes as input: "sensor_mtf"
            at Nyquist, "noise" as a share of the stretch, "jpeg_quality"; empty where
            the model takes none, None = not found in time.
        conditions: one line by name of each condition given.
        conditions_s: estimated time for reading them, part of `duration_s`.
        duration_s: estimated; None when this machine was not measured.
        measured_on: date of the table that the time is from.
        left_out: estimates that took too long, "" when none did.
        refusals: the errors that would end the job; empty when it would run.
        exit_code: the one that the job would have, 0 when it would run.
    """

    model: str | None
    scale: str
    reason: str = ""
    gsd_m: float | None = None
    scene_size: Size | None = None
    output_size: Size | None = None
    bands: tuple[PlannedBand, ...] = ()
    other_bands: str = ""
    dtype: str | None = None
    input_nodata: float | None = None
    nodata: float | None = None
    tile_size: Size | None = None
    tiles: Size | None = None
    batch_size: int | None = None
    device: str | None = None
    precision: str | None = None
    memory_bytes: int | None = None
    memory_free_bytes: int | None = None
    disk_bytes: int | None = None
    output_bytes: int | None = None
    free_bytes: int | None = None
    sensor: Mapping[str, float] | None = None
    conditions: Mapping[str, str] = field(default_factory=dict)
    conditions_s: float | None = None
    duration_s: float | None = None
    measured_on: str | None = None
    left_out: str = ""
    refusals: tuple[RsupresError, ...] = ()
    exit_code: int = 0


def plan_job(
    job: UpscaleJob, *, has_output: bool = True, limit_s: float | None = None
) -> Plan:
    """Return the plan of a job; errors that refuse it become part of the plan.

    Args:
        job: what is asked.
        has_output: the job's output is one that the user named; else no output is
            checked.
        limit_s: seconds after which the answer is given as far as it is known; None =
            `LIMIT_S`.
    """
    limit_s = LIMIT_S if limit_s is None else limit_s
    refusals: list[RsupresError] = []
    is_compared = has_output and job.compares and job.output.exists()
    for is_done in (True, False) if has_output else ():
        try:
            if is_done:
                job.check_before(is_kept=is_compared)
            elif not is_compared:
                job.check_vacant()
        except RsupresError as error:
            refusals.append(error)
    draft = _Draft(Plan(job.model, str(job.scale)))
    try:
        if not run_for(limit_s, lambda: _fill(draft, job, compared=is_compared)):
            text = f"{draft.next} takes longer than {limit_s:g} s and is left out"
            draft.plan = replace(draft.plan, left_out=text)
    except RsupresError as error:
        refusals.append(error)
    plan = draft.plan
    if plan.free_bytes is not None and plan.disk_bytes is not None:
        short = plan.disk_bytes - plan.free_bytes
        if short > 0:
            text = f"The disk may be {size_text(short)} too small for run and output."
            refusals.append(ResourceError(text))
    code = refusals[0].exit_code if refusals else 0
    return replace(plan, refusals=tuple(refusals), exit_code=code)


@dataclass
class _Draft:
    """A plan that grows, and the name of the next thing to find out."""

    plan: Plan
    next: str = "opening the scene"


def _fill(draft: _Draft, job: UpscaleJob, *, compared: bool) -> None:
    """Fill the plan, beginning with the facts that are quick to find."""

    def settled(work: Work, stage: Stage) -> None:
        known, plan = draft.plan, _measured(work, stage)
        if stage == "opened":
            plan = _with_sizes(plan, replace(work, stretch=whole_type_stretch(work)))
        elif known.output_bytes is not None:
            found = known.output_bytes, known.disk_bytes
            plan = replace(plan, output_bytes=found[0], disk_bytes=found[1])
        draft.plan = plan
        draft.next = _NEXT[stage]
        reached.append(time.perf_counter())

    reached: list[float] = []
    with bounded_cache(), open_work(job, settled, is_checked=False) as work:
        opening_s = time.perf_counter() - reached[-1]
        if compared:
            draft.next = "comparing the output"
            if check_existing(work):
                job.check_before(is_kept=False)
        draft.next = "reading the conditions"
        draft.plan = _with_conditions(draft.plan, work, opening_s)
        draft.next = "the size of the file"
        draft.plan = _with_sizes(draft.plan, work)
        draft.next = "reading the sensor"
        draft.plan = replace(draft.plan, sensor=_sensor(work))
    if len(job.scenes) > 1:
        draft.next = "looking at all numbers of the scenes"
        with bounded_cache(), without_warnings(), open_scene(job):
            pass


def _measured(work: Work, stage: Stage) -> Plan:
    grid, output, spec = work.grid, work.sr_grid, work.model.spec
    load, times = find_load(work), read_times()
    folder = next(f for f in work.job.output.absolute().parents if f.is_dir())
    time_s = duration_s(load, times) if work.model.device == "cpu" else None
    rows, cols = grid.shape
    plan = Plan(
        model=work.model.card.name,
        reason=_reason(work),
        scale=str(grid.scale),
        gsd_m=grid.scene.gsd_m,
        scene_size=(grid.scene.width, grid.scene.height),
        output_size=(output.width, output.height),
        bands=tuple(_bands(work, is_stretched=stage == "stretched")),
        other_bands=work.job.other_bands,
        dtype=work.dtype,
        input_nodata=work.scene.nodata,
        nodata=work.nodata,
        tile_size=(grid.tile_shape[1], grid.tile_shape[0]),
        tiles=(cols, rows),
        batch_size=min(work.batch_size, max(cols, 1)),
        device=work.model.device,
        precision=work.model.options.precision if spec.family != "bicubic" else None,
        memory_bytes=memory_bytes(load),
        memory_free_bytes=free_memory_bytes(),
        free_bytes=shutil.disk_usage(folder).free,
        duration_s=time_s,
        measured_on=times.date if times and time_s is not None else None,
    )
    return _with_bytes(plan, work, _sizes(work, ()))


def _reason(work: Work) -> str:
    """Return why the job has this model, as a clause."""
    spec, gsd = work.model.spec, work.grid.scene.gsd_m
    if work.job.model is not None:
        return "as asked" + _range_text(spec, gsd)
    scale, n_bands = work.grid.scale, len(work.bands.roles)
    bands = f"{n_bands} bands" if n_bands > 1 else "1 band"
    return f"the default for {bands} at x{decimal(scale)}" + _range_text(spec, gsd)


def _range_text(spec: ModelSpec, gsd: float) -> str:
    if spec.gsd is None:
        return ""
    low, high = spec.gsd
    place = "within" if 0.99 * low <= gsd <= 1.01 * high else "outside of"
    return f"; {gsd:.3g} m is {place} its {low:g} to {high:g} m"


def _bands(work: Work, *, is_stretched: bool) -> list[PlannedBand]:
    scene, n_model = work.scene, len(work.bands.roles)
    roles = work.model.spec.bands or ("model",) * n_model
    found = []
    for place in work.order:
        band = work.file_bands[place]
        found.append(
            PlannedBand(
                band=band,
                name=scene.descriptions[band - 1],
                role=roles[place] if place < n_model else "",
                low=work.stretch.low[place] if is_stretched else None,
                high=work.stretch.high[place] if is_stretched else None,
                scale=scene.scales[band - 1],
                offset=scene.offsets[band - 1],
            )
        )
    return found


def _with_conditions(plan: Plan, work: Work, opening_s: float) -> Plan:
    """Add the conditions, and the time for opening and reading them for every tile.

    A tile in the middle of the scene is read and timed, after one beside it, which
    opens what is opened once.

    Args:
        plan: so far.
        work: the settled job.
        opening_s: seconds that opening the conditions took.
    """
    conditions = work.conditions
    if not conditions.given:
        return plan
    rows, cols = work.grid.shape
    tile = work.grid.tile_row(rows // 2)[cols // 2]
    began = time.perf_counter()
    conditions.read(work.grid.tile_row(rows // 2)[max(0, cols // 2 - 1)].sr)
    started = time.perf_counter()
    conditions.read(tile.sr)
    tile_s = time.perf_counter() - started
    read_s = opening_s + max(0.0, started - began - tile_s)
    read_s += tile_s * len(work.grid) if conditions.has_tiles else 0.0
    return replace(
        plan,
        conditions=conditions.describe(),
        conditions_s=read_s,
        duration_s=None if plan.duration_s is None else plan.duration_s + read_s,
    )


def _sensor(work: Work) -> dict[str, float]:
    """Return the properties of the sensor that the model will assume."""
    file, spec = work.model.card.file, work.model.spec
    if spec.family not in SENSOR_READERS or file is None:
        return {}
    weights = read_part(file, "estimator.") or None
    scene = PreparedScene(work, "", None, lambda _: None)
    reader: Any = import_module(SENSOR_READERS[spec.family])
    found: dict[str, float] = reader.read_sensor(scene, work.model.options, weights)
    return found


def _with_sizes(plan: Plan, work: Work) -> Plan:
    """Estimate the file from compressing parts of the scene, enlarged by bicubic."""
    return _with_bytes(plan, work, _sizes(work, enlarged_parts(work)))


def _with_bytes(plan: Plan, work: Work, sizes: Sizes) -> Plan:
    """Add the bytes of the output, and of the strips beside it until it is whole."""
    grid, job = work.sr_grid, work.job
    strips = [work.grid.strip(row).height for row in range(work.grid.shape[0])]
    n_pixels, block = grid.height * grid.width, raw_block(grid.width)
    n_kept = sum(padded(height, grid.width, block) for height in strips)
    beside = n_float_rasters(work) * len(work.bands.roles) * 4
    beside += job.reference_coverage is not None
    peak = sizes.raw // n_pixels * n_kept + sizes.overviews + sizes.file
    if work.format.driver == "COG" and sizes.raw >= PACKED_BYTES:
        # The packets and, at the end, all overviews twice; or before, rows beside them.
        peak = int(max(1.28 * sizes.file, packing_bytes(strips, sizes)))
    peak += beside * (n_kept + n_pixels)
    if job.shard is not None:  # parts of the strips between shards
        n_borders = min(job.shard[1], len(strips)) - 1
        n_channels = len(work.bands.roles) * (2 if work.has_deviation else 1)
        peak += n_borders * max(strips) * grid.width * n_channels * 4
    return replace(plan, output_bytes=sizes.file, disk_bytes=peak)


def _sizes(work: Work, sample: tuple[NDArray[np.generic], ...]) -> Sizes:
    output = work.sr_grid
    shape = len(work.order), output.height, output.width
    is_guided = bool(work.job.given_conditions)
    growth = file_growth(work.model.card.name, is_guided=is_guided)
    return estimate_sizes(sample, shape, work.format, growth)


def size_text(n_bytes: float) -> str:
    """Return a size with its unit, three digits: "1.23 MB"."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if n_bytes < 1000 or unit == "TB":
            break
        n_bytes /= 1000
    return f"{n_bytes:.3g} {unit}"
