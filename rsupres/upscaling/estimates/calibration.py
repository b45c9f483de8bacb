"""Measure how long models take on this machine, for `rsupres doctor --calibrate`.

Each model works on made-up pixels of two sizes, and of two scales where it offers any;
its time is split into a fixed part, one per LR pixel and one per SR pixel. The table is
kept by `rsupres.upscaling.estimates.costs`. Only weights are read.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rsupres.checkpoints.catalogue import BICUBIC, Card, list_cards, load_model
from rsupres.diffusion.noise import NoiseField
from rsupres.families.base import (
    Conditions,
    SamplerOptions,
    ScaleRange,
    SuperResolver,
    TileBatch,
)
from rsupres.grid import PixelWindow, round_up
from rsupres.output.atomic import publishing, translate_os_errors
from rsupres.tile_grid import lr_step
from rsupres.upscaling.estimates.costs import (
    MachineTimes,
    ModelTimes,
    table_path,
    times_text,
)
from rsupres.upscaling.estimates.self_test import write_scene
from rsupres.upscaling.job import UpscaleJob
from rsupres.upscaling.pipeline import upscale_scene
from rsupres.upscaling.preparation.devices import find_precision

_SIDES = (32, 96)  # LR pixels of the tiles that are timed
_REPEATS = 2  # the quickest of these counts
_SCENE_SIDE = 320  # LR pixels of the scene that shows what reading and writing take

Clock = Callable[[], float]


@dataclass(frozen=True)
class _Probe:
    """One measurement: LR pixels, SR pixels, seconds of preparing and of a tile."""

    lr: int
    sr: int
    prepare_s: float
    tile_s: float


def measure(
    clock: Clock = time.perf_counter, on_model: Callable[[str], None] = print
) -> MachineTimes:
    """Measure this machine.

    Args:
        clock: returns seconds; `time.process_time` leaves out the work of others, but
            counts every thread.
        on_model: called with the name of each model before it is measured.

    Returns:
        Seconds of each model on this machine.

    Raises:
        RsupresError: a model cannot be run.
    """
    # Python, torch and GDAL were loaded before the clock ran.
    loaded = time.process_time() if clock is time.process_time else _import_s()
    nothing = (0.0, 0.0, 0.0)
    # Bicubic interpolation is part of what each value costs.
    models = {BICUBIC: ModelTimes(0.0, nothing, nothing, 0)}
    with torch.inference_mode():
        for card in list_cards():
            if card.name != BICUBIC and card.is_present and not card.spec.needs:
                on_model(card.name)
                models[card.name] = _model_times(card, clock)
    on_model(BICUBIC)
    start, value = _pipeline_times(clock)
    threads = torch.get_num_threads()
    return MachineTimes(
        date.today().isoformat(), threads, loaded + start, value, models
    )


def keep(times: MachineTimes) -> Path | None:
    """Write the table into the user's cache; return where, None without a home.

    Raises:
        InputError: the folder cannot be written.
    """
    path = table_path()
    if path is None:
        return None
    with translate_os_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with publishing(path) as part:
            part.write_text(times_text(times))
    return path


def _model_times(card: Card, clock: Clock) -> ModelTimes:
    device = torch.device("cpu")
    options = SamplerOptions(precision=find_precision("auto", "cpu"))
    started = clock()
    model = load_model(card.name, device, options)
    load_s = clock() - started
    probes = [
        _measured(model, scale, side, clock)
        for scale in _scales(card)
        for side in _SIDES
    ]
    return ModelTimes(
        load_s,
        _split(probes, [probe.prepare_s for probe in probes]),
        _split(probes, [probe.tile_s for probe in probes]),
        0 if card.spec.bands else 1,
    )


def _scales(card: Card) -> list[Fraction]:
    """Return up to two scales that tell costs of LR pixels from those of SR pixels."""
    scales = card.spec.scales
    if isinstance(scales, ScaleRange):
        return [Fraction(2), Fraction(4)]
    return sorted(scales.values)[:2]


def _measured(model: SuperResolver, scale: Fraction, side: int, clock: Clock) -> _Probe:
    """Time a model on a square; a first run, which is not counted, warms up."""
    side = round_up(side, lr_step(scale, model.spec.multiple))
    window = PixelWindow(0, 0, side, side)
    n_bands = len(model.spec.bands) or 1
    scene = _Noise(side, n_bands)
    prepare_s, tile_s = [], []
    for _ in range(_REPEATS + 1):
        started = clock()
        context = model.prepare(scene, scale, NoiseField(0))
        prepared = clock()
        batch = TileBatch(
            lr=torch.from_numpy(scene.read(window)[0])[None],
            valid=torch.ones((1, 1, side, side), dtype=torch.bool),
            conditions=Conditions(),
            noise=NoiseField(0),
            windows_lr=[window],
            windows_sr=[window.scaled(scale)],
            scene=context,
        )
        float(model.upscale(batch, scale).sum())
        prepare_s.append(prepared - started)
        tile_s.append(clock() - prepared)
    n_sr = int((side * scale) ** 2)
    return _Probe(side**2, n_sr, min(prepare_s[1:]), min(tile_s[1:]))


def _split(
    probes: Sequence[_Probe], seconds: Sequence[float]
) -> tuple[float, float, float]:
    """Return the fixed cost, and those per LR and per SR pixel; none is negative."""
    from scipy.optimize import nnls

    with_lr = len({probe.sr / probe.lr for probe in probes}) > 1
    rows = [[1.0, probe.lr if with_lr else 0.0, probe.sr] for probe in probes]
    # Relative errors, so that small tiles count as much as large ones.
    weights = 1 / np.maximum(seconds, 1e-6)
    found, _ = nnls(np.array(rows) * weights[:, None], np.array(seconds) * weights)
    return float(found[0]), float(found[1]), float(found[2])


def _pipeline_times(clock: Clock) -> tuple[float, float]:
    """Return seconds of a job's start, and per value that is written."""
    with tempfile.TemporaryDirectory() as folder:
        scene, output = Path(folder) / "scene.tif", Path(folder) / "out.tif"
        seconds = {}
        for side in (_SCENE_SIDE // 4, _SCENE_SIDE):
            write_scene(scene, side)
            job = UpscaleJob(
                scenes=(str(scene),),
                output=output,
                scale=Fraction(4),
                model=BICUBIC,
                device="cpu",
                overwrite=True,
            )
            started = clock()
            upscale_scene(job)
            seconds[side] = clock() - started
    small, large = (16 * side**2 for side in seconds)
    more_s = seconds[_SCENE_SIDE] - seconds[_SCENE_SIDE // 4]
    value = max(more_s / (4 * (large - small)), 1e-9)
    return max(0.0, seconds[_SCENE_SIDE // 4] - 4 * value * small), value


def _import_s() -> float:
    """Return the seconds that a fresh process takes until torch and GDAL are loaded."""
    import subprocess
    import sys

    started = time.perf_counter()
    code = "import rsupres.upscaling.pipeline"
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - started


class _Noise:
    """A square of noise, for models that prepare on the scene."""

    def __init__(self, side: int, n_bands: int) -> None:
        self._side, self._n_bands = side, n_bands

    @property
    def height(self) -> int:
        return self._side

    @property
    def width(self) -> int:
        return self._side

    def read(
        self, window: PixelWindow
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        field = NoiseField(0).draw(0, window, self._n_bands)
        unit = np.clip(0.5 + 0.1 * field, 0, 1).astype(np.float32)
        return unit, np.ones((1, window.height, window.width), bool)

    def read_conditions(self, window_sr: PixelWindow) -> Conditions:
        return Conditions()

    @property
    def style(self) -> Tensor | None:
        return None

    def allocate(
        self, name: str, shape: Sequence[int], dtype: str
    ) -> NDArray[np.generic]:
        return np.zeros(shape, dtype)
