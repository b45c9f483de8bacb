"""plan, status, models, doctor, and what all commands share."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from importlib.metadata import entry_points
from pathlib import Path

import click
import numpy as np
import pytest
import rasterio
from click.testing import Result

from rsupres.checkpoints.catalogue import list_cards
from rsupres.checkpoints.convert import CONVERTERS
from rsupres.checkpoints.file import write_checkpoint
from rsupres.cli import COMMANDS, SHORT_HELP, LazyGroup, main
from rsupres.cli.models import FAMILIES
from rsupres.errors import InputError
from rsupres.execution import abandoned, run_for
from rsupres.upscaling.estimates.costs import (
    MachineTimes,
    ModelTimes,
    table_path,
    times_text,
)
from rsupres.upscaling.request import find_scale
from tests.cli.commands import run as invoke
from tests.fakes import spec
from tests.helpers import make_scene


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    return make_scene(tmp_path / "scene.tif", 60, 50)


def test_every_command_is_found_under_its_own_name():
    assert isinstance(main, LazyGroup)
    with click.Context(main) as context:
        for name in COMMANDS:
            result = invoke(name, "--help")
            assert result.exit_code == 0
            assert f"Usage: rsupres {name}" in result.output
            command = main.get_command(context, name)
            assert command is not None
            assert command.get_short_help_str(200) == SHORT_HELP[name]


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
        context = click.Context(command, **main.context_settings)
        options = [p for p in command.params if isinstance(p, click.Option)]
        for option in (option for option in options if not option.hidden):
            _, text = option.get_help_record(context) or ("", "")
            has_none = option.is_flag or option.required or option.name == "quiet"
            assert has_none or "default: " in text.lower(), (command.name, option.opts)


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


@pytest.fixture
def times(monkeypatch, tmp_path) -> None:
    """Lay a table of times of bicubic into a user's cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = table_path()
    path.parent.mkdir(parents=True)
    bicubic = ModelTimes(0.5, (0.0, 0.0, 0.0), (0.25, 0.0, 1e-6))
    path.write_text(
        times_text(MachineTimes("2026-11-30", 2, 1.0, 1e-7, {"bicubic": bicubic}))
    )


def plan(scene: Path, *options: object) -> tuple[dict[str, object], Result]:
    output = scene.with_name("out.tif")
    result = invoke("plan", scene, output, "--model", "bicubic", *options, "--json")
    return json.loads(result.stdout), result


def test_a_plan_tells_what_upscale_then_does(scene, tmp_path):
    told, result = plan(scene, "--scale", "2", "--tile-size", "24")
    assert result.exit_code == 0
    assert told["refused"] == []
    assert told["scene_size"] == [50, 60]
    assert told["output_size"] == [100, 120]
    assert told["tile_size"] == [24, 24]
    assert told["left_out"] == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scene.tif"]
    output = tmp_path / "out.tif"
    options = ("--scale", 2, "--model", "bicubic", "--tile-size", 24, "--json")
    record = json.loads(invoke("upscale", scene, output, *options).stdout)
    assert record["tiles"] == told["tiles"][0] * told["tiles"][1]
    size = output.stat().st_size
    assert 0.7 * size < told["output_bytes"] < 1.3 * size


def test_a_plan_estimates_memory_disk_and_time(scene, times):
    small, _ = plan(scene, "--scale", "2")
    large, _ = plan(scene, "--scale", "8")
    for name in ("memory_bytes", "disk_bytes", "output_bytes", "duration_s"):
        assert 0 < small[name] < large[name]
    assert small["free_bytes"] > 0
    n_sr, n_written = 100 * 120, 100 * 120 * len(small["bands"])
    assert small["tiles"] == [1, 1]
    expected = 1.0 + 0.5 + 0.25 + 1e-6 * n_sr + 1e-7 * n_written
    assert small["duration_s"] == pytest.approx(expected)
    assert small["measured_on"] == "2026-11-30"


def test_a_plan_without_an_output_checks_none(scene, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out.tif").touch()
    assert invoke("plan", scene, "--model", "bicubic").exit_code == 0
    taken = invoke("plan", scene, tmp_path / "out.tif", "--model", "bicubic")
    assert taken.exit_code == 5
    former = invoke("plan", scene, "-o", tmp_path / "out.tif", "--model", "bicubic")
    assert former.exit_code == 5
    assert "--output is now called OUTPUT" in former.stderr


def test_a_plan_shows_bands_stretch_offset_and_why_the_model(tmp_path):
    scene = make_scene(
        tmp_path / "s.tif",
        16,
        24,
        bands=4,
        nodata=0,
        descriptions=("B02", "B03", "B04", "B08"),
        scales=(1e-4,) * 4,
        offsets=(-0.1,) * 4,
    )
    options = ("--scale", 2, "--model", "e2diffsr-small")
    text = invoke("plan", scene, *options).stdout
    assert "(as asked; 10 m is outside of its " in text
    assert "24 x 16 pixels of 10 m, nodata 0" in text
    assert "blue = 1 (B02), green = 2 (B03), red = 3 (B04), 4 (B08)" in text
    assert "0.0001 x number -0.1" in text
    assert "1000 to 11000 become 0 to 1" in text
    assert "48 x 32 pixels" in text
    assert "unknown; 'rsupres doctor --calibrate'" in text


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("work.find_stretch", "the stretch"),
        ("scene.heed_undeclared", "looking for numbers that are no measurements"),
    ],
)
def test_what_takes_too_long_for_a_plan_is_left_out_and_named(
    scene, monkeypatch, place, name
):
    reached, enough = threading.Event(), threading.Event()

    def slow(scene: object, choice: object) -> object:
        reached.set()
        enough.wait()
        raise InputError("too late to be heard")

    def run_until_slow(limit_s: float, work: Callable[[], None]) -> bool:
        is_done = run_for(0, work)
        reached.wait()
        return is_done

    monkeypatch.setattr("rsupres.upscaling.estimates.planning.run_for", run_until_slow)
    monkeypatch.setattr(f"rsupres.upscaling.preparation.{place}", slow)
    monkeypatch.setattr("rsupres.cli.leave_if_abandoned", lambda code: None)
    told, result = plan(scene)
    enough.set()
    while abandoned():
        time.sleep(0.01)
    assert result.exit_code == 0
    assert told["left_out"] == f"{name} takes longer than 120 s and is left out"
    assert told["output_size"] == [200, 240]
    assert told["memory_bytes"] > 0
    assert 0 < told["output_bytes"] < told["disk_bytes"]


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
        "rsupres.upscaling.estimates.planning.shutil.disk_usage", lambda path: usage
    )
    told, result = plan(scene)
    assert result.exit_code == 6
    assert "too small" in told["refused"][0]


def test_a_plan_of_a_model_without_x4_takes_its_smallest_scale(scene):
    record = json.loads(invoke("plan", scene, "--model", "sgdm-mini", "--json").stdout)
    assert record["scale"] == "8"
    assert find_scale(None, "bicubic") == find_scale(None, None) == 4
    assert find_scale("2.5", "sgdm-mini") == Fraction(5, 2)


def test_a_plan_reads_the_sensor_as_upscale_does(tmp_path):
    random = np.random.default_rng(0)
    pixels = random.integers(500, 3000, (3, 48, 48)).astype(np.uint16)
    scene = make_scene(tmp_path / "scene.tif", pixels=pixels)
    options = (scene, tmp_path / "out.tif", "--scale", 2, "--model", "optical-small")
    text = invoke("plan", *options).stdout
    told = json.loads(invoke("plan", *options, "--json").stdout)
    assert f"noise {told['sensor']['noise']:.2g} of the stretch" in text
    assert invoke("upscale", *options).exit_code == 0
    with rasterio.open(tmp_path / "out.tif") as output:
        tags = output.tags()
    for name, value in told["sensor"].items():
        found = float(tags[f"RSUPRES_FOUND_{name.upper()}"])
        assert found == pytest.approx(value, rel=1e-4)


def test_settling_a_job_loads_neither_torch_nor_scipy():
    code = (
        "import sys, rsupres.upscaling.estimates.planning as p;"
        "print(sorted({'torch', 'scipy', 'pyproj', 'shapely'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


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
    monkeypatch.setattr(
        "rsupres.upscaling.estimates.self_test.list_cards", lambda: cards
    )
    result = invoke("doctor", "--json")
    records = [json.loads(line) for line in result.stdout.splitlines()]
    tests = {r["model"]: r["good"] for r in records if r.get("check") == "self-test"}
    assert tests["bicubic"] is True
    assert tests["damaged"] is False
    assert "absent" not in tests
    assert result.exit_code == 4
    versions = {r["check"]: r["found"] for r in records if "found" in r}
    assert versions["numpy"] == np.__version__


@pytest.mark.parametrize(
    "arguments",
    [
        ("upscale", "LONG", "out.tif"),
        ("plan", "LONG"),
        ("mosaic", "LONG", "out.tif"),
        ("tile", "LONG", "tiles"),
        ("status", "LONG"),
    ],
)
def test_a_name_that_is_too_long_is_no_defect(arguments: tuple[str, ...]) -> None:
    result = invoke(*(text.replace("LONG", "x" * 300) for text in arguments))
    assert result.exit_code == 3
    assert "too long" in result.output or "no such file" in result.output
