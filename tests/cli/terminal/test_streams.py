"""Readers of a command's output may go away; its work and its exit code stay true."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from rsupres.cli import main
from rsupres.cli.terminal.streams import LOST, TolerantStream, tolerant_streams
from tests.helpers import make_scene

RSUPRES = (sys.executable, "-m", "rsupres")
TILE = ("tile", "scene.tif", "tiles", "--scale", "2")  # starts without torch


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_scene(tmp_path / "scene.tif", 12, 12)
    return tmp_path


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}


def test_work_goes_on_when_nobody_reads(folder: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [*RSUPRES, *TILE], cwd=folder, stdout=writer, stderr=writer,
        env=environment(), check=False,
    )  # fmt: skip
    os.close(writer)
    assert any((folder / "tiles").iterdir())
    assert done.returncode == LOST  # its last line, on stdout, did not arrive


def test_a_lost_progress_alone_is_no_failure(folder: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [*RSUPRES, *TILE], cwd=folder, stdout=subprocess.PIPE, stderr=writer,
        env=environment(), check=False,
    )  # fmt: skip
    os.close(writer)
    assert done.returncode == 0
    assert b"tiles" in done.stdout


def test_closed_standard_streams_do_no_harm(folder: Path) -> None:
    command = shlex.join([*RSUPRES, *TILE])
    done = subprocess.run(
        ["sh", "-c", f"exec {command} <&- 2>&-"], cwd=folder,
        stdout=subprocess.PIPE, env=environment(), check=False,
    )  # fmt: skip
    assert done.returncode == 0
    assert any((folder / "tiles").iterdir())


def test_names_that_are_no_utf8_can_be_printed(tmp_path: Path) -> None:
    with open(tmp_path / "log", "w", encoding="utf-8") as file:
        TolerantStream(file).write("caf\udce9.tif")
    assert (tmp_path / "log").read_text() == "caf\\udce9.tif"


def test_streams_are_restored() -> None:
    before = sys.stdout, sys.stderr
    with tolerant_streams():
        assert sys.stdout is not before[0]
    assert (sys.stdout, sys.stderr) == before


@pytest.mark.skipif(
    not Path("/dev/full").exists(), reason="this system has no /dev/full"
)
def test_a_log_file_on_a_full_disk_costs_a_line_not_the_work(tmp_path):
    scene = make_scene(tmp_path / "s.tif", 16, 16)
    log = tmp_path / "log"
    log.symlink_to("/dev/full")
    result = CliRunner().invoke(
        main,
        [
            *("upscale", str(scene), str(tmp_path / "o.tif"), "--model", "bicubic"),
            *("--scale", "2", "--log-file", str(log)),
        ],
    )
    assert result.exit_code == 0, result.output
    assert result.stderr.count("lacks lines from here on") == 1
    assert "Traceback" not in result.stderr
    assert (tmp_path / "o.tif").exists()
