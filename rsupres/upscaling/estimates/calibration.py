"""Measure how long models take on this machine, for `rsupres doctor --calibrate`.

Each model works on made-up pixels of two sizes, and of two scales where it offers any;
its time is split into a fixed part, one per LR pixel and one per SR pixel. How much
longer one size takes with draws, in other precisions and with one thread is measured
besides. The table is kept by `rsupres.upscaling.estimates.costs`. Only weights are
read.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date
from fractions import Fraction
from math import ceil, inf
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rsupres.checkpoints.catalogue import BICUBIC, Card, list_cards, load_model
from rsupres.diffusion.noise import NoiseField
from rsupres.families.base import (
    Conditions,
    Precision,
    PredictsSpread,
    SamplerOptions,
    ScaleRange,
    SuperResolver,
    TileBatch,
)
from rsupres.families.sharpening import FACTOR, Levels, Sharpener
from rsupres.grid import PixelWindow, round_up
from rsupres.output.atomic import publishing, translate_os_errors
from rsupres.tile_grid import lr_step
from rsupres.upscaling.estimates.costs import (
    BETWEEN,
    DRAWN,
    ONE_THREAD,
    SPREAD,
    MachineTimes,
    ModelTimes,
    table_path,
    times_text,
)
from rsupres.upscaling.estimates.self_test import write_scene
from rsupres.upscaling.preparation.devices import find_precision
from rsupres.upscaling.preparation.scene import SHARPENING

_SIDES = (128, 512)  # SR pixels of the tiles that are timed
_REPEATS = 2  # the quickest of these counts
_BANDS = 3  # of a model that takes any: as many as run together
_COARSE_SIDE = 128  # pixels of the bands that a network of coarse bands is timed with
_SCENE_SIDES = (96, 1024)  # LR pixels of scenes that show what reading and writing take
_NOISE = 60.0  # of these: files of smooth scenes are small, and soon compressed
# A scene that is larger than any part of it that stands for the whole, and how many
# pixels such parts have together at the most: LR pixels.
_LARGE_SIDE, _MOST_READ = 4096, 2**20

_NOTHING = (0.0, 0.0, 0.0)

Upscale = Callable[[TileBatch, Fraction], Tensor]


@dataclass(frozen=True)
class _Probe:
    """One measurement.

    Attributes:
        lr: pixels of the tile.
        sr: pixels of the tile.
        prepare_s: seconds of preparing.
        tile_s: seconds of the tile.
        first_s: how many seconds more the first run of both takes.
    """

    lr: int
    sr: int
    prepare_s: float
    tile_s: float
    first_s: float = 0.0


def measure(on_model: Callable[[str], None]) -> MachineTimes:
    """Measure this machine.

    Args:
        on_model: called with the name of each model before it is measured.

    Returns:
        Seconds of each model on this machine.

    Raises:
        RsupresError: a model cannot be run.
    """
    # Bicubic interpolation is part of what each value costs.
    models = {BICUBIC: ModelTimes(0.0, _NOTHING, _NOTHING)}
    with torch.inference_mode():
        for card in list_cards():
            if card.name == BICUBIC or not card.is_present:
                continue
            if card.name == SHARPENING:
                on_model(card.name)
                models[card.name] = _sharpening_times()
            elif not card.spec.needs:
                on_model(card.name)
                models[card.name] = _model_times(card)
    on_model(BICUBIC)
    start, value = _pipeline_times()
    threads = torch.get_num_threads()
    return MachineTimes(date.today().isoformat(), threads, start, value, models)


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


def _model_times(card: Card) -> ModelTimes:
    options = SamplerOptions(precision=find_precision("auto", "cpu"))
    started = perf_counter()
    model = _loaded(card, options)
    load_s = perf_counter() - started
    scales = _scales(card)
    probes = [_measured(model, scale, side) for scale in scales for side in _SIDES]
    # The last probe again, in other ways.
    usual_s = probes[-1].tile_s

    def factor(model: SuperResolver, upscale: Upscale | None = None) -> float:
        probe = _measured(model, scales[-1], _SIDES[-1], upscale)
        return probe.tile_s / usual_s

    factors = {
        name: factor(_loaded(card, other)) for name, other in _variants(card, options)
    }
    if isinstance(model, PredictsSpread) and card.spec.tails:
        factors[SPREAD] = factor(model, model.upscale_with_variance)
    with _one_thread():
        factors[ONE_THREAD] = factor(model)
    return ModelTimes(
        load_s + probes[-1].first_s,
        _split(probes, [probe.prepare_s for probe in probes]),
        _split(probes, [probe.tile_s for probe in probes]),
        factors,
        _largest_prepare_s(model, scales[-1]),
    )


def _loaded(card: Card, options: SamplerOptions) -> SuperResolver:
    return load_model(card.name, torch.device("cpu"), options)


def _variants(
    card: Card, usual: SamplerOptions
) -> Iterator[tuple[str, SamplerOptions]]:
    """Yield other ways to run a model, by the names of their factors."""
    if card.spec.detail:
        yield DRAWN, replace(usual, detail=1.0)
        yield BETWEEN, replace(usual, detail=0.5)
    other: Precision = "bf16" if usual.precision == "fp32" else "fp32"
    yield other, replace(usual, precision=other)


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _sharpening_times() -> ModelTimes:
    """Time the network of coarse bands, per pixel of the fine ones."""
    started = perf_counter()
    network = load_model(SHARPENING, torch.device("cpu"), SamplerOptions())
    load_s = perf_counter() - started
    assert isinstance(network, Sharpener)
    field = NoiseField(0).draw(0, PixelWindow(0, 0, _COARSE_SIDE, _COARSE_SIDE), 1)
    coarse = np.repeat(field, len(network.config.coarse), axis=0)
    fine = np.repeat(field, len(network.config.fine), axis=0)
    fine = fine.repeat(FACTOR, axis=1).repeat(FACTOR, axis=2)
    levels = Levels.of(coarse), Levels.of(fine)

    def best_s() -> float:
        seconds = []
        for _ in range(_REPEATS + 1):
            started = perf_counter()
            network.sharpen(coarse, fine, levels)
            seconds.append(perf_counter() - started)
        return min(seconds[1:])

    usual_s = best_s()
    with _one_thread():
        factors = {ONE_THREAD: best_s() / usual_s}
    tile = (0.0, usual_s / fine[0].size, 0.0)
    return ModelTimes(load_s, _NOTHING, tile, factors)


def _scales(card: Card) -> list[Fraction]:
    """Return up to two scales that tell costs of LR pixels from those of SR pixels."""
    scales = card.spec.scales
    if isinstance(scales, ScaleRange):
        return [Fraction(2), Fraction(4)]
    return sorted(scales.values)[:2]


def _measured(
    model: SuperResolver,
    scale: Fraction,
    side: int,
    upscale: Upscale | None = None,
) -> _Probe:
    """Time a model on a square; the first run, which warms up, is told apart.

    Args:
        model: loaded.
        scale: SR pixels along an LR pixel.
        side: of the square, SR pixels.
        upscale: of the model, None = the usual one.
    """
    side = round_up(ceil(side / scale), lr_step(scale, model.spec.multiple))
    window = PixelWindow(0, 0, side, side)
    n_bands = len(model.spec.bands) or _BANDS
    scene = _Noise(side, n_bands)
    prepare_s, tile_s = [], []
    for _ in range(_REPEATS + 1):
        started = perf_counter()
        context = model.prepare(scene, scale, NoiseField(0))
        prepared = perf_counter()
        batch = TileBatch(
            lr=torch.from_numpy(scene.read(window)[0])[None],
            valid=torch.ones((1, 1, side, side), dtype=torch.bool),
            conditions=Conditions(),
            noise=NoiseField(0),
            windows_lr=[window],
            windows_sr=[window.scaled(scale)],
            scene=context,
        )
        float((upscale or model.upscale)(batch, scale).sum())
        prepare_s.append(prepared - started)
        tile_s.append(perf_counter() - prepared)
    usual_s = min(prepare_s[1:]), min(tile_s[1:])
    first_s = max(0.0, prepare_s[0] + tile_s[0] - sum(usual_s))
    return _Probe(side**2, int((side * scale) ** 2), *usual_s, first_s)


def _largest_prepare_s(model: SuperResolver, scale: Fraction) -> float | None:
    """Time what a model finds once for a large scene; None if it reads all of it."""
    side = round_up(_LARGE_SIDE, lr_step(scale, model.spec.multiple))
    scene = _Noise(side, len(model.spec.bands) or _BANDS, _MOST_READ)
    started = perf_counter()
    try:
        model.prepare(scene, scale, NoiseField(0))
    except _ReadsAllError:
        return None
    return perf_counter() - started


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


def _pipeline_times() -> tuple[float, float]:
    """Return seconds of a job's start, and per value that is written.

    Jobs run in processes of their own, as memory that a process touches for the first
    time takes longer.
    """
    n_values, seconds = [], []
    with tempfile.TemporaryDirectory() as folder:
        scene, output = Path(folder) / "scene.tif", Path(folder) / "out.tif"
        options = ["--scale", "4", "--model", BICUBIC, "--device", "cpu"]
        options += ["--overwrite", "--quiet"]
        line = [sys.executable, "-m", "rsupres", "upscale", str(scene), str(output)]
        for side in _SCENE_SIDES:
            n_values.append(4 * (4 * side) ** 2)
            write_scene(scene, side, _NOISE)
            started = perf_counter()
            subprocess.run([*line, *options], check=True, stdout=subprocess.DEVNULL)
            seconds.append(perf_counter() - started)
    value = max((seconds[1] - seconds[0]) / (n_values[1] - n_values[0]), 1e-9)
    return max(0.0, seconds[0] - value * n_values[0]), value


class _ReadsAllError(Exception):
    """A model reads more pixels than a part of a scene has."""


class _Noise:
    """A square of noise, for models that prepare on the scene."""

    def __init__(self, side: int, n_bands: int, most_read: float = inf) -> None:
        self._side, self._n_bands, self._left = side, n_bands, most_read

    @property
    def height(self) -> int:
        return self._side

    @property
    def width(self) -> int:
        return self._side

    def read(
        self, window: PixelWindow
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        self._left -= window.height * window.width
        if self._left < 0:
            raise _ReadsAllError
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
