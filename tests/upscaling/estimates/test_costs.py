"""Estimated time follows what decides it: passes, detail, precision, threads."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rsupres.upscaling.estimates.costs import (
    BETWEEN,
    DRAWN,
    ONE_THREAD,
    SPREAD,
    Load,
    MachineTimes,
    ModelTimes,
    duration_s,
)

LOAD = Load(
    model="m",
    family="optical",
    precision="bf16",
    weights_bytes=0,
    tile_sr=1000,
    tile_lr=100,
    n_tiles=2,
    batch=1,
    n_bands=3,
    scene_sr=2000,
    scene_lr=200,
    strip_values=0,
    written_values=6000,
)
FACTORS = {DRAWN: 1.25, BETWEEN: 1.5, SPREAD: 1.2, ONE_THREAD: 1.8, "fp32": 2.0}
MODEL = ModelTimes(0.5, (0.0, 1e-3, 0.0), (0.1, 0.0, 1e-4), FACTORS, 0.15)
COARSE = ModelTimes(0.25, (0.0,) * 3, (0.0, 1e-5, 0.0), {ONE_THREAD: 2.0})
TIMES = MachineTimes("2026-11-30", 2, 1.0, 1e-5, {"m": MODEL, "coarse": COARSE})
ONCE = 1.0 + 0.5 + 6000 * 1e-5
NETWORKS = 0.15 + 2 * (0.1 + 0.1)  # preparing takes no more than for large scenes


@pytest.fixture(autouse=True)
def _threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


@pytest.mark.parametrize(
    ("change", "factor"),
    [
        ({}, 1.0),
        ({"passes": 2}, 2.0),
        ({"samples": 3}, 3.0),
        ({"detail": 1.0}, 1.25),
        ({"detail": 0.3}, 1.5),
        ({"precision": "fp32", "detail": 1.0}, 2.5),
    ],
)
def test_networks_take_longer_by_what_was_measured(
    change: dict[str, object], factor: float
) -> None:
    found = duration_s(replace(LOAD, **change), TIMES)  # type: ignore[arg-type]
    assert found == pytest.approx(ONCE + NETWORKS * factor)


def test_predicted_errors_cost_networks_and_files() -> None:
    found = duration_s(replace(LOAD, float_values=1000), TIMES)
    assert found == pytest.approx(ONCE + NETWORKS * 1.2 + 2000 * 1e-5)


@pytest.mark.parametrize(("threads", "factor"), [("1", 1.8), ("2", 1.0), ("4", 1.0)])
def test_threads_of_the_environment_count(
    monkeypatch: pytest.MonkeyPatch, threads: str, factor: float
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    assert duration_s(LOAD, TIMES) == pytest.approx(ONCE + NETWORKS * factor)


def test_sharpened_pixels_of_the_scene_count() -> None:
    load = replace(LOAD, sharpening="coarse", sharpened_lr=10_000)
    assert duration_s(load, TIMES) == pytest.approx(ONCE + NETWORKS + 0.25 + 0.1)


def test_a_small_scene_is_prepared_by_its_size() -> None:
    small = replace(LOAD, scene_lr=50)
    assert duration_s(small, TIMES) == pytest.approx(ONCE + NETWORKS - 0.1)
