"""What commands say: names, sizes, figures and warnings mean the same everywhere."""

from __future__ import annotations

import inspect
import json
import logging
import re
from functools import partial
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from rsupres.checkpoints.catalogue import read_card
from rsupres.cli import main
from rsupres.cli.terminal.console import configure_logging
from rsupres.errors import QualityGateError
from rsupres.evaluation.report import COLUMNS
from rsupres.output.tiff.profile import OTHER_FORMATS
from rsupres.upscaling.estimates.calibration import _Probe, _split
from rsupres.upscaling.estimates.costs import read_times
from rsupres.upscaling.estimates.self_test import SelfTest
from rsupres.upscaling.gates import FIGURES
from tests.cli.commands import run
from tests.helpers import make_scene
from tests.test_docs import LEAVES

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "figures.md"


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    return make_scene(tmp_path / "scene.tif", 12, 16)


@pytest.mark.parametrize(
    ("command", "name"),
    [("upscale", "OUTPUT"), ("tile", "DIR"), ("change", "OUT")],
)
def test_a_missing_output_is_named(scene, command, name):
    like = ("--like", scene) if command == "change" else ()
    result = run(command, scene, *like)
    assert result.exit_code == 2
    assert f"Missing argument '{name}'." in result.stderr


@pytest.mark.parametrize("extension", OTHER_FORMATS)
def test_a_name_of_another_format_is_refused_with_the_way_out(scene, extension):
    output = scene.with_name(f"out{extension.upper()}")
    result = run("upscale", scene, output, "--model", "bicubic")
    assert result.exit_code == 3
    assert "name it out.tif, and convert that" in result.stderr
    assert f"gdal_translate -of {OTHER_FORMATS[extension]}" in result.stderr
    assert [path.name for path in scene.parent.iterdir()] == ["scene.tif"]


def test_further_outputs_and_plans_heed_extensions_too(scene):
    side = ("--samples", 2, "--uncertainty", scene.with_name("sd.png"))
    result = run("upscale", scene, scene.with_name("o.tif"), *side)
    assert result.exit_code == 3
    assert "--uncertainty" in result.stderr
    planned = run("plan", scene, scene.with_name("o.jp2"), "--model", "bicubic")
    assert planned.exit_code == 3
    (scene.parent / "more").mkdir()
    mosaic = run("mosaic", scene.parent, scene.parent / "more" / "m.jp2")
    assert mosaic.exit_code == 3
    assert "m.tif" in mosaic.stderr


def test_the_json_of_a_failed_gate_carries_the_figures(scene):
    gate = ("--model", "bicubic", "--fail-if", "valid>0.5", "--json")
    result = run("upscale", scene, scene.with_name("out.tif"), *gate)
    assert result.exit_code == 8
    record = json.loads(result.stdout.splitlines()[-1])
    assert record["exit_code"] == 8
    assert record["figures"]["valid"] == 1
    assert record["figures"].keys() >= {"consistency", "bias", "clipped"}
    existing = ("--skip-existing", *gate)
    again = run("upscale", scene, scene.with_name("out.tif"), *existing)
    assert again.exit_code == 8
    assert json.loads(again.stdout.splitlines()[-1])["figures"]["valid"] == 1


def test_a_failed_gate_keeps_its_figures_between_processes():
    import pickle

    error = QualityGateError("off.", figures={"valid": 0.5})
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.problem, copy.figures) == ("off.", {"valid": 0.5})


def test_a_batch_keeps_the_figures_of_a_failed_gate(scene, tmp_path):
    options = ("--model", "bicubic", "--fail-if", "valid>0.5", "--json")
    result = run("batch", scene, "--out-dir", tmp_path / "out", *options)
    assert result.exit_code == 8
    record = json.loads(result.stdout.splitlines()[0])
    assert record["figures"]["valid"] == 1


def test_a_warning_is_said_once_in_a_command(capsys):
    undo = configure_logging(0, None)
    log = logging.getLogger("rsupres.test")
    for text in ("one", "two", "one"):
        log.warning("It is %s.", text)
    undo()
    assert capsys.readouterr().err.splitlines() == [
        "Warning: It is one.",
        "Warning: It is two.",
    ]


def test_doctor_says_nothing_about_its_own_scene(monkeypatch):
    def tests():
        logging.getLogger("rsupres.upscaling.preparation.model").warning(
            "pixels of 10 m"
        )
        yield SelfTest("bicubic", 0.1)

    monkeypatch.setattr("rsupres.upscaling.estimates.self_test.run_self_tests", tests)
    result = run("doctor")
    assert result.exit_code == 0
    assert "self-test   bicubic: good" in result.stdout
    assert result.stderr == ""
    assert logging.getLogger("rsupres").level == logging.NOTSET


def test_calibrating_keeps_a_table_from_which_plans_take_their_time(
    scene, tmp_path, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    cards, module = [read_card("bicubic")], "rsupres.upscaling.estimates.calibration"
    monkeypatch.setattr(f"{module}.list_cards", lambda: cards)
    monkeypatch.setattr(f"{module}._SCENE_SIDES", (24, 96))

    def run_here(line: list[str], **options: object) -> None:
        assert run(*line[3:]).exit_code == 0  # without python -m rsupres

    monkeypatch.setattr(f"{module}.subprocess.run", run_here)
    # The larger of the two scenes takes longer, and less than sixteen times as long.
    clock = partial(next, iter((0.0, 1.0, 0.0, 4.0)))
    monkeypatch.setattr(f"{module}.perf_counter", clock)
    result = run("doctor", "--calibrate", "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout.splitlines()[-1])["models"] == ["bicubic"]
    times = read_times()
    assert times is not None
    n_values = [4 * (4 * side) ** 2 for side in (24, 96)]
    assert times.value == pytest.approx(3 / (n_values[1] - n_values[0]))
    assert times.start == pytest.approx(1 - times.value * n_values[0])
    planned = run("plan", scene, "--model", "bicubic", "--json")
    told = json.loads(planned.stdout)
    n_values = 48 * 64 * len(told["bands"])
    expected = times.start + n_values * times.value
    assert told["duration_s"] == pytest.approx(expected)


def test_costs_are_split_into_a_fixed_part_and_parts_per_pixel():
    fixed, per_lr, per_sr = 0.5, 2e-4, 3e-5
    probes = [
        _Probe(side**2, (side * scale) ** 2, 0.0, 0.0)
        for scale in (2, 4)
        for side in (32, 96)
    ]
    seconds = [fixed + per_lr * probe.lr + per_sr * probe.sr for probe in probes]
    assert _split(probes, seconds) == pytest.approx((fixed, per_lr, per_sr))


@pytest.mark.parametrize("name", LEAVES)
def test_examples_in_help_keep_their_lines(name):
    source = inspect.getdoc(LEAVES[name].callback) or ""
    lines = re.split(r"\nExamples?:", source)[-1].splitlines()
    wanted = [line.strip() for line in lines if line.strip()]
    result = CliRunner().invoke(main, [*name.split()[1:], "--help"], terminal_width=88)
    shown = [line.strip() for line in result.output.splitlines()]
    assert wanted
    assert [line for line in wanted if line not in shown] == []


def test_boxes_are_called_bounds_and_the_former_name_warns(scene):
    options = {
        opt
        for command in LEAVES.values()
        for param in command.params
        if isinstance(param, click.Option) and not param.hidden
        for opt in param.opts
    }
    assert not options & {"--bbox", "--change-classes", "--change-attribute"}
    box = ("--bbox", 3, 2, 1, 4)
    result = run("rasterize", scene.with_name("o.tif"), "--like", scene, *box)
    assert "--bbox is now called --bounds" in result.stderr
    assert result.exit_code == 3


def test_the_page_of_figures_has_every_figure():
    named = set(re.findall(r"`([a-z0-9_]+)`", PAGE.read_text(encoding="utf-8")))
    assert {*FIGURES, *COLUMNS} <= named
