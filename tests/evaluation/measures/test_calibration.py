"""Predicted standard deviations against real errors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from rsupres.cli import main
from rsupres.evaluation.measures.calibration import NORMAL_TAILS, calibrate
from rsupres.families.base import TAILS
from tests.helpers import make_scene


def draw(factor: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Return normal errors, and deviations that are right but for a factor."""
    random = np.random.default_rng(0)
    deviation = random.uniform(0.01, 0.1, (3, 200, 200))
    return random.normal(0.0, deviation), factor * deviation


def test_a_right_prediction_scores_one_and_holds_its_intervals() -> None:
    found = calibrate(*draw(), NORMAL_TAILS)
    assert found.spread_skill == pytest.approx(1.0, abs=0.01)
    assert found.coverage == pytest.approx(TAILS, abs=0.01)
    assert len(found.bins) == 10
    assert [a / b for a, b in found.bins] == pytest.approx([1.0] * 10, abs=0.05)
    assert found.correlation == pytest.approx(0.4, abs=0.1)


def test_a_prediction_that_is_too_sure_is_seen() -> None:
    found = calibrate(*draw(0.5), NORMAL_TAILS)
    assert found.spread_skill == pytest.approx(0.5, abs=0.01)
    assert found.coverage[2] == pytest.approx(0.589, abs=0.01)  # P(|z| < 0.5 * 1.645)


def test_a_flat_prediction_correlates_with_nothing() -> None:
    error, deviation = draw()
    found = calibrate(error, np.full_like(deviation, 0.05), NORMAL_TAILS)
    assert abs(found.correlation) < 0.01


def test_evaluate_reads_the_raster_and_its_tails(tmp_path: Path) -> None:
    error, deviation = draw()
    truth = np.full(error.shape, 8000.0)
    files = {
        "sr": (truth + 1e4 * error).round().astype(np.uint16),
        "hr": truth.astype(np.uint16),
        "u": (1e4 * deviation).astype(np.float32),
    }
    names = ("B04", "B03", "B02")
    for name, pixels in files.items():
        make_scene(tmp_path / f"{name}.tif", pixels=pixels, descriptions=names)
    paths = [str(tmp_path / f"{name}.tif") for name in files]
    arguments = ["evaluate", *paths[:2], "--calibration", paths[2]]
    told = CliRunner().invoke(main, [*arguments, "--json"])
    assert told.exit_code == 0, told.output
    found = json.loads(told.stdout)["calibration"]
    assert found["spread_skill"] == pytest.approx(1.0, abs=0.01)
    assert found["coverage"]["0.9"] == pytest.approx(0.9, abs=0.01)
    shown = CliRunner().invoke(main, arguments)
    assert "spread over skill" in shown.output
