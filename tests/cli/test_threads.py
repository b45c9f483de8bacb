"""`--threads`, and that `plan` takes all arguments of `upscale`."""

from __future__ import annotations

import os
from pathlib import Path

import click
import pytest
import rasterio
import torch
from click.testing import CliRunner

from rsupres.cli import main
from rsupres.output.tiff.creation import output_options
from rsupres.output.tiff.profile import OutputFormat
from rsupres.upscaling import pipeline
from tests.helpers import make_scene


def options(command: str) -> set[str]:
    found = main.get_command(click.Context(main), command)
    assert found is not None
    return {name for parameter in found.params for name in parameter.opts}


def test_plan_takes_the_arguments_of_upscale(tmp_path: Path) -> None:
    places = {"scenes", "output"}  # PATHS of plan
    assert options("upscale") - places <= options("plan")
    scene = make_scene(tmp_path / "scene.tif")
    command = ["plan", str(scene), str(tmp_path / "out.tif"), "--model", "bicubic"]
    plain = CliRunner().invoke(main, command)
    assert plain.exit_code == 0, plain.output
    for more in (
        ["--dask-local", "2"],
        ["--device", "cpu,cpu"],
        ["--time-limit", "5h"],
    ):
        found = CliRunner().invoke(main, [*command, *more])
        assert found.exit_code == 0, found.output
        assert found.stdout.splitlines()[0] == plain.stdout.splitlines()[0]


def test_threads_hold_for_the_command_and_change_no_pixel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = make_scene(tmp_path / "scene.tif")
    seen: list[tuple[int, str, str]] = []

    def spy(*given: object, **named: object) -> object:
        compress = output_options(OutputFormat("COG", {}, "uint8"))["NUM_THREADS"]
        seen.append((torch.get_num_threads(), os.environ["OMP_NUM_THREADS"], compress))
        return upscale(*given, **named)

    upscale = pipeline.upscale_scene
    monkeypatch.setattr(pipeline, "upscale_scene", spy)
    before = dict(os.environ), torch.get_num_threads()
    outputs = []
    for threads in ("1", "3"):
        out = tmp_path / f"out{threads}.tif"
        command = ["upscale", str(scene), str(out), "--threads", threads]
        result = CliRunner().invoke(main, [*command, "--model", "bicubic"])
        assert result.exit_code == 0, result.output
        with rasterio.open(out) as file:
            outputs.append(file.read())
    assert seen == [(1, "1", "1"), (3, "3", "3")]
    assert (outputs[0] == outputs[1]).all()
    assert (dict(os.environ), torch.get_num_threads()) == before
