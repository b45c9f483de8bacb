"""`rsupres upscale`: every bad input has its exit code and one line."""

from __future__ import annotations

import os
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from rasterio.crs import CRS

from tests.cli.commands import run as invoke
from tests.cli.scenes import X2, textured
from tests.helpers import NORTH_UP, make_scene


def test_an_option_that_would_do_nothing_is_refused(scene, tmp_path):
    for options in (
        ("--detail", "0.5"),
        ("--sensor-mtf", "0.2"),
        ("--noise", "3"),
        ("--steps", "3"),
        ("--samples", "4"),
        ("--uncertainty", tmp_path / "u.tif"),
        ("--reference-coverage", tmp_path / "c.tif"),
    ):
        result = invoke("upscale", scene, tmp_path / "o.tif", *X2, *options)
        assert result.exit_code == 3, (options, result.output)
        assert not (tmp_path / "o.tif").exists()


def truncated(path: Path) -> Path:
    make_scene(path, pixels=textured(200, 200), compress="DEFLATE")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    return path


def text_file(path: Path) -> Path:
    path.write_text("no raster")
    return path


BAD_SCENES = {
    "missing": (lambda p: p / "no.tif", "no such file"),
    "text": (lambda p: text_file(p / "t.tif"), "not a raster"),
    "truncated": (lambda p: truncated(p / "t.tif"), "truncated"),
    "no CRS": (lambda p: make_scene(p / "t.tif", crs=None), "CRS"),
    "all nodata": (
        lambda p: make_scene(
            p / "t.tif", pixels=np.zeros((3, 20, 20), np.uint16), nodata=0
        ),
        "no valid pixel",
    ),
}


@pytest.mark.parametrize("what", BAD_SCENES)
def test_a_bad_scene_ends_in_3_with_one_line_and_no_output(commands, tmp_path, what):
    make, text = BAD_SCENES[what]
    output = tmp_path / "out.tif"
    done = commands.run("upscale", make(tmp_path), output, *X2, "-q")
    assert done.code == 3, done.err
    (line,) = done.err.splitlines()
    assert text in line
    assert done.out == ""
    assert not output.exists()
    assert not (tmp_path / "out.tif.run").exists()


def test_a_fully_invalid_scene_with_fixed_stretch_ends_in_3(commands, tmp_path):
    zeros = np.zeros((3, 20, 20), np.uint16)
    scene = make_scene(tmp_path / "z.tif", pixels=zeros, nodata=0)
    options = (*X2, "-q", "--stretch", "0,100")
    done = commands.run("upscale", scene, tmp_path / "out.tif", *options)
    assert done.code == 3, done.err
    assert "no valid pixel" in done.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["z.tif"]


BAD_OPTIONS = [
    (("--scale", "100"), 3, "offers"),
    (("--scale", "0.5"), 3, "offers"),
    (("--scale", "0"), 2, "scale"),
    (("--scale", "four"), 2, "scale"),
    (("--scale", "3.14159"), 2, "scale"),
    (("--model", "bicubik"), 4, "bicubic"),
    (("--model", "missing.safetensors"), 4, "no such checkpoint"),
    (("--bounds", "0", "0", "1", "1"), 3, "bounds"),
    (("--bounds-crs", "EPSG:4326"), 2, "--bounds"),
    (("--bounds", "1", "2", "3"), 2, "--bounds"),
    (("--aoi", "missing.geojson"), 3, "missing.geojson"),
    (("-b", "1,2,9"), 3, "band"),
    (("-b", "red"), 2, "band"),
    (("--bands", "red"), 2, "ROLE"),
    (("--stretch", "often"), 3, "stretch"),
    (("--tile-size", "4"), 3, "tile-size"),
    (("--tile-size", "32", "--overlap", "2"), 3, "overlap"),
    (("--batch-size", "0"), 2, "batch"),
    (("--device", "tpu"), 3, "device"),
    (("--device", "cuda:7"), 6, "device"),
    (("--precision", "fp8"), 2, "precision"),
    (("--shard", "3/2"), 2, "shard"),
    (("--bands", "red=1,red=2"), 2, "gives red two bands"),
    (("--driver", "PNG"), 2, "driver"),
    (("--co", "COMPRESS"), 2, "KEY=VALUE"),
    (("--co", "COMPRESS=NONSENSE"), 3, "--co"),
    (("--co", "NO_SUCH=1"), 3, "--co"),
    (("--dtype", "uint8"), 3, "rescaled"),
    (("--nodata", "-1"), 3, "nodata"),
    (("--fail-if", "beauty<1"), 3, "beauty"),
    (("--fail-if", "__import__('os')"), 3, "comparison"),
    (("--fail-if", "uncertainty>1"), 3, "--uncertainty"),
    (("--overwrite", "--skip-existing"), 2, "exclude"),
    (("--overwrite", "--update"), 2, "exclude"),
    (("--no-such-option",), 2, "no-such-option"),
    (("--log-file", "/no/where.log"), 2, "log-file"),
]


@pytest.mark.parametrize(("options", "code", "text"), BAD_OPTIONS)
def test_a_bad_option_has_its_code_and_one_line(
    commands, scene, tmp_path, options, code, text
):
    output = tmp_path / "out.tif"
    done = commands.run("upscale", scene, output, *X2, *options, "-q")
    assert done.code == code, done.err
    (line,) = done.err.splitlines()
    assert text.lower() in line.lower()
    assert not output.exists()
    assert not (tmp_path / "out.tif.run").exists()


def test_a_missing_folder_is_refused_before_work(commands, scene, tmp_path):
    done = commands.run("upscale", scene, tmp_path / "no" / "out.tif", *X2)
    assert done.code == 3
    assert "no folder" in done.err


def test_a_folder_as_output_is_refused(commands, scene, tmp_path):
    assert commands.run("upscale", scene, tmp_path, *X2, "--overwrite").code == 3


@pytest.mark.skipif(
    os.geteuid() == 0 and sys.platform != "linux", reason="root may write everywhere"
)
def test_a_read_only_folder_is_refused(commands, scene, tmp_path):
    folder = tmp_path / "ro"
    folder.mkdir(mode=0o555)
    output = folder / "out.tif"
    done = commands.run("upscale", scene, output, *X2, is_restricted=True)
    assert done.code == 3
    assert "read-only" in done.err


def damaged(path: Path) -> Path:
    path.write_bytes(np.random.default_rng(0).bytes(200))
    return path


def pickled(path: Path) -> Path:
    path.write_bytes(pickle.dumps({"a": 1}))
    return path


@pytest.mark.parametrize("make", [damaged, pickled])
def test_a_bad_checkpoint_ends_in_4(commands, scene, tmp_path, make):
    checkpoint = make(tmp_path / "x.safetensors")
    output = tmp_path / "out.tif"
    done = commands.run("upscale", scene, output, "--model", checkpoint)
    assert done.code == 4, done.err
    (line,) = done.err.splitlines()
    assert str(checkpoint) in line
    assert not output.exists()


def test_scenes_that_do_not_fit_together_are_refused(commands, tmp_path):
    first = make_scene(tmp_path / "a.tif")
    crs = CRS.from_epsg(32634)
    moved = NORTH_UP @ Affine.translation(10.4, 0)
    others = {
        "CRS": make_scene(tmp_path / "b.tif", crs=crs),
        "grid": make_scene(tmp_path / "c.tif", transform=moved),
        "pixels of": make_scene(
            tmp_path / "d.tif", transform=NORTH_UP @ Affine.scale(2)
        ),
        "Leave out what is no band": make_scene(tmp_path / "e.tif"),
        "gaps": make_scene(
            tmp_path / "f.tif", transform=NORTH_UP @ Affine.translation(100, 50)
        ),
    }
    for text, other in others.items():
        done = commands.run("upscale", first, other, tmp_path / "o.tif", *X2)
        assert done.code == 3, text
        assert text in done.err
        assert len(done.err.splitlines()) == 1
