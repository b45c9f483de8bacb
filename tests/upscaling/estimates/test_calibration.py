"""Every kind of model is timed, in all ways that plans tell apart."""

from __future__ import annotations

from itertools import count

import pytest
import torch

from rsupres.checkpoints.catalogue import read_card
from rsupres.upscaling.estimates import calibration
from rsupres.upscaling.estimates.costs import BETWEEN, DRAWN, ONE_THREAD, SPREAD


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time small pictures with a clock that counts its calls."""
    ticks = count()
    monkeypatch.setattr(calibration, "perf_counter", lambda: float(next(ticks)))
    names = ("optical-small", "s2-bands-small", "bicubic")
    monkeypatch.setattr(calibration, "list_cards", lambda: [*map(read_card, names)])
    monkeypatch.setattr(calibration, "_SIDES", (32, 64))
    monkeypatch.setattr(calibration, "_COARSE_SIDE", 16)
    monkeypatch.setattr(calibration, "_LARGE_SIDE", 64)
    monkeypatch.setattr(calibration, "_SCENE_SIDES", (8, 16))
    monkeypatch.setattr(calibration.subprocess, "run", lambda *line, **options: None)


def test_each_way_of_running_has_a_factor(small: None) -> None:
    told: list[str] = []
    threads = torch.get_num_threads()
    times = calibration.measure(told.append)
    assert told == ["optical-small", "s2-bands-small", "bicubic"]
    assert torch.get_num_threads() == threads
    optical = times.models["optical-small"]
    ways = {DRAWN, BETWEEN, SPREAD, ONE_THREAD}
    assert ways < set(optical.factors)
    assert len(set(optical.factors) - ways) == 1  # the other precision
    # By the clock of these tests, everything takes one second.
    assert set(optical.factors.values()) == {1.0}
    bands = times.models["s2-bands-small"]
    assert bands.factors == {ONE_THREAD: 1.0}
    assert bands.tile == pytest.approx((0.0, 1 / 32**2, 0.0))
