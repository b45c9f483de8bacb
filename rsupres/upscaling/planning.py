"""Estimate time, memory and disk of a job, and find why it would be refused.

Sizes follow from the tiling. Time is measured on small tiles when the model can be
loaded, and is unknown otherwise. Nothing is written.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from rsupres.diffusion.noise import NoiseField
from rsupres.errors import ResourceError, RsupresError
from rsupres.families.base import Conditions, SceneContext, SuperResolver, TileBatch
from rsupres.grid import PixelWindow, round_up
from rsupres.raster.open import bounded_cache
from rsupres.tile_grid import lr_step
from rsupres.upscaling.existing import check_existing
from rsupres.upscaling.job import UpscaleJob
from rsupres.upscaling.work import Work, open_work

# Python, torch and GDAL before the first pixel.
_BASE_BYTES = 350 * 2**20
# Compressed files; pictures of 16 bits shrink to about this share.
_COMPRESSED = 0.7
# Overviews and the tile index on top of the full resolution.
_OVERVIEWS = 4 / 3
_PROBE_SIDES = (32, 96)  # LR pixels of the tiles that are timed
_WRITTEN_PER_S = 40e6  # values finished, compressed and written


@dataclass(frozen=True)
class Plan:
    """The plan of a job.

    Attributes:
        model: name; None when refused before it was known.
        scale: text.
        lr_shape: rows and columns of the scene as used.
        sr_shape: rows and columns of the output.
        bands: of the output.
        tile_shape: LR rows and columns.
        tiles: rows and columns of tiles.
        memory_bytes: estimated peak of the process, without the model's own.
        disk_bytes: estimated peak of run directory and output together.
        output_bytes: estimated size of the output.
        free_bytes: on the output's disk.
        conditions: one line by name of each condition given.
        conditions_s: estimated time for reading them, part of `duration_s`.
        duration_s: estimated; None when unknown.
        refusals: the errors that would end the job; empty when it would run.
        exit_code: the one that the job would have, 0 when it would run.
    """

    model: str | None
    scale: str
    lr_shape: tuple[int, int] | None = None
    sr_shape: tuple[int, int] | None = None
    bands: int | None = None
    tile_shape: tuple[int, int] | None = None
    tiles: tuple[int, int] | None = None
    memory_bytes: int | None = None
    disk_bytes: int | None = None
    output_bytes: int | None = None
    free_bytes: int | None = None
    conditions: Mapping[str, str] = field(default_factory=dict)
    conditions_s: float | None = None
    duration_s: float | None = None
    refusals: tuple[RsupresError, ...] = ()
    exit_code: int = 0


def plan_job(job: UpscaleJob) -> Plan:
    """Estimate a job; errors that refuse it become part of the answer."""
    refusals: list[RsupresError] = []
    is_compared = job.compares and job.output.exists()
    for check in (job.check_files, *(() if is_compared else (job.check_vacant,))):
        try:
            check()
        except RsupresError as error:
            refusals.append(error)
    plan = Plan(job.model, str(job.scale))
    try:
        with bounded_cache(), torch.inference_mode(), open_work(job) as work:
            plan = _measure(work)
            if is_compared:
                check_existing(work)
            plan = _with_conditions(plan, work)
            duration_s = _estimate_duration(work, work.model.load())
            plan = replace(plan, duration_s=_sum(duration_s, plan.conditions_s))
    except RsupresError as error:
        refusals.append(error)
    code = refusals[0].exit_code if refusals else 0
    if plan.free_bytes is not None and plan.disk_bytes is not None:
        short = plan.disk_bytes - plan.free_bytes
        if short > 0:
            text = f"The disk may be {size_text(short)} too small for run and output."
            refusals.append(ResourceError(text))
            code = ResourceError.exit_code
    return replace(plan, refusals=tuple(refusals), exit_code=code)


def _measure(work: Work) -> Plan:
    grid, output = work.grid, work.sr_grid
    n_bands = len(work.order)
    item = np.dtype(work.dtype).itemsize
    raw = output.height * output.width * n_bands * item
    deviation = output.height * output.width * len(work.bands.roles) * 4
    raw_all = raw + (deviation if work.has_deviation else 0)
    if work.job.reference_coverage is not None:
        raw_all += output.height * output.width
    folder = work.job.output.absolute().parent
    return Plan(
        model=work.model.card.name,
        scale=str(grid.scale),
        lr_shape=(grid.scene.height, grid.scene.width),
        sr_shape=(output.height, output.width),
        bands=n_bands,
        tile_shape=grid.tile_shape,
        tiles=grid.shape,
        memory_bytes=_memory_bytes(work),
        disk_bytes=int(raw_all * (1 + _OVERVIEWS * _COMPRESSED)),
        output_bytes=int(raw * _OVERVIEWS * _COMPRESSED),
        free_bytes=shutil.disk_usage(folder).free if folder.is_dir() else None,
    )


def _with_conditions(plan: Plan, work: Work) -> Plan:
    """Add the conditions, and the time to read them for every tile.

    A tile in the middle of the scene is read and timed, after one beside it, which
    opens what is opened once.
    """
    conditions = work.conditions
    if not conditions.given:
        return plan
    rows, cols = work.grid.shape
    tile = work.grid.tile_row(rows // 2)[cols // 2]
    conditions.read(work.grid.tile_row(rows // 2)[max(0, cols // 2 - 1)].sr)
    started = time.perf_counter()
    conditions.read(tile.sr)
    tile_s = time.perf_counter() - started
    return replace(
        plan,
        conditions=conditions.describe(),
        conditions_s=tile_s * len(work.grid) if conditions.has_tiles else 0.0,
    )


def _sum(duration_s: float | None, more_s: float | None) -> float | None:
    return None if duration_s is None else duration_s + (more_s or 0.0)


def _memory_bytes(work: Work) -> int:
    """Return an estimate of the peak: strips in float32 and in the output's type."""
    grid = work.grid
    n_model = len(work.bands.roles)
    height = grid.tile_shape[0] * grid.scale
    row = int(grid.sr.width * height)
    mosaic = row * n_model * 4 * (2 if work.has_deviation else 1)
    others = row * len(work.bands.others) * 4
    typed = row * len(work.order) * np.dtype(work.dtype).itemsize
    waiting = 4 if work.job.lock_low_frequencies else 3
    batch = (
        work.batch_size * int(math.prod(grid.tile_shape) * grid.scale**2) * n_model * 4
    )
    # Read ahead, in use and, on the device, once more.
    n_looked_at = len(work.conditions.sources) * max(n_model, 3)
    looked_at = 3 * batch * n_looked_at // max(n_model, 1)
    return _BASE_BYTES + waiting * mosaic + 2 * others + typed + 2 * batch + looked_at


def _estimate_duration(work: Work, model: SuperResolver) -> float | None:
    """Time the model on two small tiles and extrapolate; None where it cannot run.

    Preparing and upscaling are each taken as a fixed cost and one per pixel; a first
    tile, which is not counted, warms up.
    """
    grid = work.grid
    step = lr_step(grid.scale, work.model.spec.multiple)
    sides = [round_up(side, step) for side in _PROBE_SIDES]
    noise = NoiseField(0)
    costs: list[tuple[float, float]] = []
    try:
        for side in (sides[0], *sides):
            probe = PixelWindow(0, 0, side, side).scaled(grid.scale)
            conditions = _probe_conditions(work, probe)
            scene = _ProbeScene(side, len(work.bands.roles), conditions)
            started = time.perf_counter()
            context = model.prepare(scene, grid.scale, noise)
            prepared = time.perf_counter()
            _probe(model, work, side, context, conditions)
            costs.append((prepared - started, time.perf_counter() - prepared))
    except RsupresError:
        return None
    n_probed = [side**2 for side in sides]
    n_tile = math.prod(grid.tile_shape)
    prepare_s = _line(
        n_probed, [cost[0] for cost in costs[1:]], math.prod(_shape(work))
    )
    tile_s = _line(n_probed, [cost[1] for cost in costs[1:]], n_tile)
    writing_s = grid.sr.height * grid.sr.width * len(work.order) / _WRITTEN_PER_S
    return (prepare_s + tile_s * len(grid)) * work.job.samples + writing_s


def _line(x: Sequence[int], y: Sequence[float], at: int) -> float:
    """Return the line through two points at `at`; neither part of it is negative."""
    slope = max(0.0, (y[1] - y[0]) / (x[1] - x[0]))
    fixed = max(0.0, y[0] - slope * x[0])
    return fixed + min(slope, y[1] / x[1]) * at


def _shape(work: Work) -> tuple[int, int]:
    return work.grid.lr.height, work.grid.lr.width


def _probe_conditions(work: Work, window: PixelWindow) -> Conditions:
    """Return conditions for a probe tile: those of the middle of the scene."""
    frame = work.conditions.frame
    row, col = max(0, frame.height // 2), max(0, frame.width // 2)
    if not work.conditions.given:
        return Conditions()
    return work.conditions.read_conditions(window._replace(row=row, col=col))


def _probe(
    model: SuperResolver,
    work: Work,
    side: int,
    context: SceneContext,
    conditions: Conditions,
) -> None:
    window = PixelWindow(0, 0, side, side)
    generator = torch.Generator().manual_seed(0)
    shape = (1, len(work.bands.roles), side, side)
    batch = TileBatch(
        lr=torch.rand(shape, generator=generator).to(work.model.device),
        valid=torch.ones(
            (1, 1, side, side), dtype=torch.bool, device=work.model.device
        ),
        conditions=conditions.to(torch.device(work.model.device)),
        noise=NoiseField(0),
        windows_lr=[window],
        windows_sr=[window.scaled(work.grid.scale)],
        scene=context,
    )
    float(model.upscale(batch, work.grid.scale).sum())


@dataclass(frozen=True)
class _ProbeScene:
    """A small scene of noise, for models that prepare on the scene."""

    side: int
    n_bands: int
    conditions: Conditions

    @property
    def height(self) -> int:
        return self.side

    @property
    def width(self) -> int:
        return self.side

    def read(self, window: PixelWindow) -> tuple[np.ndarray, np.ndarray]:
        field = NoiseField(0).draw(0, window, self.n_bands)
        unit = np.clip(0.5 + 0.1 * field, 0, 1).astype(np.float32)
        return unit, np.ones((1, window.height, window.width), bool)

    def read_conditions(self, window_sr: PixelWindow) -> Conditions:
        rows, cols = window_sr.slices()
        tensors = self.conditions.given()
        style = tensors.pop("style", None)
        cut = {name: values[..., rows, cols] for name, values in tensors.items()}
        return Conditions(**cut, style=style)

    @property
    def style(self) -> Tensor | None:
        return self.conditions.style

    def allocate(self, name: str, shape: Sequence[int], dtype: str) -> np.ndarray:
        return np.zeros(shape, dtype)


def size_text(n_bytes: float) -> str:
    """Return a size with its unit, three digits: "1.23 MB"."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if n_bytes < 1000 or unit == "TB":
            break
        n_bytes /= 1000
    return f"{n_bytes:.3g} {unit}"
