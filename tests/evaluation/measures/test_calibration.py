"""Predicted standard deviations against real errors."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
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


def test_the_plot_shows_predictions_beside_the_exact_line(tmp_path: Path) -> None:
    error, deviation = draw()
    pixels = {"sr": 8000 + 1e4 * error, "hr": 8000 + 0 * error, "u": 1e4 * deviation}
    paths = [tmp_path / f"{name}.tif" for name in pixels]
    for path, values in zip(paths, pixels.values(), strict=True):
        make_scene(path, pixels=values.astype(np.float32))
    plot = tmp_path / "plot.svg"
    command = ["evaluate", *map(str, paths[:2]), "--calibration", str(paths[2])]
    command += ["--stretch", "0,10000", "--calibration-plot"]
    for _ in range(2):  # an older plot is replaced
        result = CliRunner().invoke(main, [*command, str(plot)])
        assert result.exit_code == 0, result.output
    drawing = ElementTree.fromstring(plot.read_text())
    lines = drawing.findall("{http://www.w3.org/2000/svg}polyline")
    found, exact = (
        np.array([p.split(",") for p in str(line.get("points")).split()], float)
        for line in lines
    )
    assert len(found) == 11
    on_exact = np.interp(found[:, 0], exact[:, 0], exact[:, 1])
    assert found[:, 1] == pytest.approx(on_exact, abs=3)  # of 180 pixels


def test_predictions_are_not_held_against_changed_values() -> None:
    files = ["sr.tif", "hr.tif", "--calibration", "u.tif", "--match-histogram"]
    result = CliRunner().invoke(main, ["evaluate", *files])
    assert result.exit_code == 2
    assert "--match-histogram gives SR other values" in result.stderr


@pytest.mark.parametrize(
    ("name", "content", "code"), [("a.png", "", 2), ("a.svg", "<svg/>", 5)]
)
def test_the_plot_replaces_no_other_file(
    tmp_path: Path, name: str, content: str, code: int
) -> None:
    path = tmp_path / name
    path.write_text(content)
    files = ["sr.tif", "hr.tif", "--calibration", "u.tif", "--calibration-plot"]
    result = CliRunner().invoke(main, ["evaluate", *files, str(path)])
    assert result.exit_code == code, result.output
    assert path.read_text() == content
