"""plan, status, models, doctor, and what all commands share."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result

from rsupres.checkpoints.catalogue import list_cards
from rsupres.checkpoints.convert import CONVERTERS
from rsupres.checkpoints.file import write_checkpoint
from rsupres.cli import COMMANDS, LazyGroup, main
from rsupres.cli.models import FAMILIES
from rsupres.errors import ResourceError
from tests.fakes import spec
from tests.helpers import make_scene


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    return make_scene(tmp_path / "scene.tif", 60, 50)


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_every_command_is_found_under_its_own_name():
    assert isinstance(main, LazyGroup)
    for name in COMMANDS:
        result = invoke(name, "--help")
        assert result.exit_code == 0
        assert f"Usage: rsupres {name}" in result.output


def test_the_group_is_a_plugin_of_rio():
    (plugin,) = entry_points(group="rasterio.rio_plugins", name="rsupres")
    assert plugin.load() is main


def test_an_unknown_command_is_one_line_and_2():
    result = invoke("upscael")
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert "upscael" in line


def test_help_of_all_commands_needs_no_numpy():
    code = "import sys, rsupres.cli as c; c.main(['--help'], standalone_mode=False)"
    process = subprocess.run(
        [sys.executable, "-c", f"{code}; print('numpy' in sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert process.stdout.splitlines()[-1] == "False"


def test_import_offers_every_family_that_can_be_converted():
    assert tuple(sorted(CONVERTERS)) == FAMILIES


def leaves(command: click.Command) -> Iterator[click.Command]:
    if not isinstance(command, click.Group):
        yield command
        return
    context = click.Context(command)
    for name in command.list_commands(context):
        child = command.get_command(context, name)
        assert child is not None
        yield from leaves(child)


def test_every_option_that_takes_a_value_says_its_default():
    for command in leaves(main):
        for option in command.params:
            if not isinstance(option, click.Option) or option.hidden:
                continue
            has_none = option.is_flag or option.required or option.name == "quiet"
            told = option.show_default or "Default: " in str(option.help)
            assert has_none or told, (command.name, option.opts)


def test_the_version_is_told():
    assert invoke("--version").output.startswith("rsupres, version 0.")


def test_a_defect_of_ours_is_one_line_and_1(scene, tmp_path, monkeypatch):
    def broken(*arguments: object) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr("rsupres.upscaling.pipeline.open_work", broken)
    result = invoke("upscale", scene, tmp_path / "o.tif", "--model", "bicubic")
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert "ZeroDivisionError: by zero" in line
    assert "report" in line
    shown = invoke(
        "upscale", scene, tmp_path / "o.tif", "--model", "bicubic", "--debug"
    )
    assert "Traceback" in shown.stderr


# --- plan ----------------------------------------------------------------------------


def plan(scene: Path, *options: object) -> tuple[dict[str, object], Result]:
    output = scene.with_name("out.tif")
    result = invoke(
        "plan", scene, "-o", output, "--model", "bicubic", *options, "--json"
    )
    return json.loads(result.stdout), result


def test_a_plan_tells_what_upscale_then_does(scene, tmp_path):
    told, result = plan(scene, "--scale", "2", "--tile-size", "24")
    assert result.exit_code == 0
    assert told["refused"] == []
    assert told["sr_shape"] == [120, 100]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scene.tif"]
    output = tmp_path / "out.tif"
    options = ("--scale", 2, "--model", "bicubic", "--tile-size", 24, "--json")
    record = json.loads(invoke("upscale", scene, output, *options).stdout)
    assert record["tiles"] == told["tiles"][0] * told["tiles"][1]


def test_a_plan_estimates_memory_disk_and_time(scene):
    small, _ = plan(scene, "--scale", "2")
    large, _ = plan(scene, "--scale", "8")
    for name in ("memory_bytes", "disk_bytes", "output_bytes"):
        assert 0 < small[name] < large[name]
    assert small["duration_s"] > 0
    assert small["free_bytes"] > 0


def test_a_plan_names_what_would_be_refused_and_its_code(scene, tmp_path):
    (tmp_path / "out.tif").touch()
    told, result = plan(scene, "--scale", "100")
    assert result.exit_code == 5
    assert len(told["refused"]) == 2
    assert "exists" in told["refused"][0]
    assert "offers" in told["refused"][1]


def test_a_plan_for_a_disk_that_is_too_small_says_so(scene, monkeypatch):
    import shutil

    usage = shutil.disk_usage("/")._replace(free=1000)
    monkeypatch.setattr(
        "rsupres.upscaling.planning.shutil.disk_usage", lambda path: usage
    )
    told, result = plan(scene)
    assert result.exit_code == 6
    assert "too small" in told["refused"][0]


def test_a_time_that_cannot_be_measured_is_called_unknown(scene, monkeypatch):
    def broken(self, batch, scale):
        raise ResourceError("too large")

    monkeypatch.setattr("rsupres.families.bicubic.Bicubic.upscale", broken)
    result = invoke("plan", scene, "--model", "bicubic")
    assert "time       unknown" in result.stdout


# --- status, models, doctor ----------------------------------------------------------


def test_status_tells_of_a_run_and_of_all_runs_in_a_folder(scene, tmp_path):
    for name in ("a", "b"):
        options = ("--model", "bicubic", "--tile-size", 24, "--shard", "1/2")
        assert (
            invoke("upscale", scene, tmp_path / f"{name}.tif", *options).exit_code == 0
        )
    lines = invoke("status", tmp_path, "--json").stdout.splitlines()
    states = [json.loads(line) for line in lines]
    assert [Path(state["run"]).name for state in states] == ["a.tif.run", "b.tif.run"]
    assert all(state["state"] == "stopped" for state in states)
    assert all(0 < state["done"] < state["strips"] for state in states)
    one = invoke("status", tmp_path / "a.tif.run")
    assert "of" in one.stdout
    assert "strips" in one.stdout


def test_status_of_nothing(tmp_path):
    assert invoke("status", tmp_path).stdout.strip().endswith("no runs.")
    assert invoke("status", tmp_path / "no").exit_code == 3


@pytest.fixture
def catalogue(tmp_path: Path, monkeypatch) -> Path:
    """A folder with a card whose weights are damaged, and one without weights."""
    folder = tmp_path / "models"
    folder.mkdir()
    write_checkpoint(folder / "w.safetensors", {}, spec(family="e2diffsr"), {}, "test")
    text = (
        'file = "{file}"\nsha256 = "{sha}"\nlicence = "CC0"\n[spec]\n'
        'family = "e2diffsr"\nscales = {{low = "1", high = "4", trained = "4"}}\n'
        'bands = ["red"]\nneeds = []\naccepts = []\ntile_size = 64\nmultiple = 1\n'
        "halo = 4\ngsd = [8.0, 20.0]\ndetail = true\nstochastic = true\nsteps = 4\n"
    )
    for name, file in (("damaged", "w.safetensors"), ("absent", "no.safetensors")):
        card = f'name = "{name}"\n' + text.format(file=file, sha="0" * 64)
        (folder / f"{name}.toml").write_text(card)
    monkeypatch.setenv("RSUPRES_MODELS", str(folder))
    return folder


def test_models_are_listed(catalogue):
    lines = invoke("models", "list", "--json").stdout.splitlines()
    cards = {card["name"]: card for card in map(json.loads, lines)}
    assert cards["bicubic"]["present"] is True
    assert cards["damaged"]["gsd_m"] == [8.0, 20.0]
    assert cards["absent"]["present"] is False
    assert "(weights missing)" in invoke("models", "list").stdout


def test_a_model_is_shown(catalogue):
    shown = invoke("models", "show", "damaged").stdout
    assert "licence: CC0" in shown
    assert "halo: 4" in shown
    assert invoke("models", "show", "damagd").exit_code == 4


def test_damaged_weights_do_not_pass(catalogue):
    assert invoke("models", "verify", "bicubic").stdout == "bicubic: good.\n"
    result = invoke("models", "verify", "damaged")
    assert result.exit_code == 4
    assert "sha256" in result.stderr


def test_the_doctor_tests_models_and_fails_with_the_first_bad_one(
    catalogue, monkeypatch
):
    names = ("bicubic", "damaged", "absent")
    cards = [card for card in list_cards() if card.name in names]
    assert len(cards) == 3
    monkeypatch.setattr("rsupres.upscaling.self_test.list_cards", lambda: cards)
    result = invoke("doctor", "--json")
    records = [json.loads(line) for line in result.stdout.splitlines()]
    tests = {r["model"]: r["good"] for r in records if r.get("check") == "self-test"}
    assert tests["bicubic"] is True
    assert tests["damaged"] is False
    assert "absent" not in tests
    assert result.exit_code == 4
    versions = {r["check"]: r["found"] for r in records if "found" in r}
    assert versions["numpy"] == np.__version__
