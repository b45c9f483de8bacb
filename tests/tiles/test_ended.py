"""`mosaic RUN OUT`, killed when OUT was there and only locks of RUN were left."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import rsupres
from rsupres.cli import main
from rsupres.errors import QualityGateError
from tests.helpers import make_scene


def mosaic(run: Path, output: object) -> Result:
    return CliRunner().invoke(main, ["mosaic", str(run), str(output)])


@pytest.fixture
def output(tmp_path: Path) -> Path:
    scene = make_scene(tmp_path / "scene.tif")
    path = tmp_path / "out.tif"
    rsupres.upscale(scene, path, scale=2, model="bicubic")
    return path


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Return a folder as a process leaves it that is killed while it removes locks."""
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("run", "assembly", "shard-2-of-2"):
        (folder / f"{name}.lock").touch()
    return folder


def test_the_same_command_says_that_the_run_is_finished(output: Path, run: Path):
    before = output.read_bytes()
    result = mosaic(run, output)
    assert result.exit_code == 0, result.output
    assert f"{output} exists; left as it is." in result.output
    assert not run.exists()
    assert output.read_bytes() == before


@pytest.mark.parametrize("kind", ["missing", "of others", "cut off"])
def test_without_the_output_the_run_is_not_finished(output: Path, run: Path, kind: str):
    if kind == "cut off":
        output.write_bytes(output.read_bytes()[:-400])
    else:
        output.unlink()
    if kind == "of others":
        make_scene(output)
    result = mosaic(run, output)
    assert result.exit_code == 3
    assert "has ended or was given up" in result.output
    assert run.exists()


def test_a_process_that_begins_a_run_there_is_left_alone(output: Path, run: Path):
    with (run / "run.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert mosaic(run, output).exit_code == 5
    assert (run / "run.lock").exists()


def test_a_gate_that_failed_stays_failed(tmp_path: Path, run: Path):
    scene, path = make_scene(tmp_path / "scene.tif"), tmp_path / "gate.tif"
    with pytest.raises(QualityGateError):
        rsupres.upscale(scene, path, scale=2, model="bicubic", fail_if=["valid<2"])
    result = mosaic(run, path)
    assert result.exit_code == 8
    assert "valid" in result.output
    assert not run.exists()


def test_folders_of_others_are_no_runs_that_ended(output: Path, run: Path):
    make_scene(run / "tile.tif")
    assert mosaic(run, output).exit_code == 5  # a folder of tiles, and OUT exists
    assert (run / "run.lock").exists()


def test_a_run_that_is_gone_may_have_ended(output: Path, tmp_path: Path):
    result = mosaic(tmp_path / "out.tif.run", output)
    assert result.exit_code == 3
    assert f"{output} is there, so its run may have ended" in result.output
    assert "may have ended" not in mosaic(tmp_path / "tiles", output).output
