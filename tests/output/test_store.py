"""Scenes from a store of bucket, and outputs into one: s3:// and /vsis3/."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from rsupres.cli import main
from tests.helpers import make_scene
from tests.store_server import Store, store

OPTIONS = ("--model", "bicubic", "--scale", "2", "--tile-size", "24", "-q")


def run(command: str, *arguments: object) -> Result:
    return CliRunner().invoke(main, [command, *map(str, arguments)])


@pytest.fixture(scope="module")
def server():
    with store() as opened:
        yield opened


@pytest.fixture
def bucket(server: Store, monkeypatch, tmp_path) -> Store:
    """A store with an empty bucket, which GDAL finds, and an empty folder."""
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    server.reset()
    # GDAL remembers what it read: each test has a name of its own.
    return replace(server, key=f"{tmp_path.name}/out.tif")


def make_pixels(folder: Path) -> Path:
    pixels = np.random.default_rng(0).integers(1, 4000, (3, 40, 30)).astype(np.uint16)
    return make_scene(folder / "scene.tif", pixels=pixels, nodata=0)


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    return make_pixels(tmp_path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The output, written to a local file."""
    folder = tmp_path_factory.mktemp("whole")
    path = folder / "whole.tif"
    assert run("upscale", make_pixels(folder), path, *OPTIONS).exit_code == 0
    return path.read_bytes()


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize(
    "scheme", ["s3://", pytest.param("/vsis3/", marks=pytest.mark.slow)]
)
def test_an_output_becomes_an_object_with_the_bytes_of_a_file(
    bucket, scene, whole, tmp_path, scheme
):
    name = bucket.output.replace("s3://", scheme)
    done = run("upscale", scene, name, *OPTIONS, "--json")
    assert done.exit_code == 0, done.output
    assert bucket.keys() == {bucket.key: False}
    assert bucket.get(bucket.key) == whole
    assert json.loads(done.stdout)["output"] == f"/vsis3/bucket/{bucket.key}"
    assert names(tmp_path) == ["scene.tif"]


@pytest.mark.parametrize(("scheme", "place"), [("gs", "/vsigs/"), ("az", "/vsiaz/")])
def test_stores_of_google_and_azure(bucket, scene, whole, tmp_path, scheme, place):
    name = bucket.output.replace("s3://", f"{scheme}://")
    done = run("upscale", scene, name, *OPTIONS, "--json")
    assert done.exit_code == 0, done.output
    assert bucket.get(bucket.key) == whole
    assert json.loads(done.stdout)["output"] == f"{place}bucket/{bucket.key}"
    assert names(tmp_path) == ["scene.tif"]
    same = run("upscale", scene, name, *OPTIONS, "--update", "--json")
    assert json.loads(same.stdout)["status"] == "existed"
    bucket.put(f"{bucket.key}.in.tif", scene.read_bytes())
    assert run("upscale", f"{name}.in.tif", "out.tif", *OPTIONS).exit_code == 0
    assert (tmp_path / "out.tif").is_file()
    batch = ("batch", scene, "--out-dir", f"{scheme}://bucket/sharp", *OPTIONS)
    refused = run(*batch)
    assert refused.exit_code == 3
    assert (
        f"--out-dir {scheme}://bucket/sharp: this is written to local" in refused.stderr
    )


@pytest.mark.slow
def test_a_large_output_goes_in_parts(bucket, tmp_path, monkeypatch):
    monkeypatch.setenv("VSIS3_CHUNK_SIZE", "5")  # MB, the least of S3
    pixels = np.random.default_rng(0).integers(1, 60000, (3, 700, 700), np.uint16)
    scene = make_scene(tmp_path / "large.tif", pixels=pixels, nodata=0)
    options = ("--model", "bicubic", "--scale", "2", "-q")
    assert run("upscale", scene, "local.tif", *options).exit_code == 0
    done = run("upscale", scene, bucket.output, *options)
    assert done.exit_code == 0, done.output
    assert bucket.keys() == {bucket.key: True}
    assert bucket.get(bucket.key) == Path("local.tif").read_bytes()


def test_a_scene_is_read_from_a_store(bucket, scene):
    bucket.put("in/scene.tif", scene.read_bytes())
    done = run("upscale", "s3://bucket/in/scene.tif", "out.tif", *OPTIONS)
    assert done.exit_code == 0, done.output
    assert Path("out.tif").is_file()
    missing = run("upscale", "s3://bucket/in/none.tif", "none.tif", *OPTIONS)
    assert missing.exit_code == 3
    assert "s3://bucket/in/none.tif" in missing.stderr


def test_an_object_that_exists_is_treated_as_a_file_is(bucket, scene, whole):
    def upscale(*options: str) -> Result:
        return run("upscale", scene, bucket.output, *OPTIONS, *options)

    bucket.put(bucket.key, whole)
    refused = upscale()
    assert refused.exit_code == 5
    assert f"/vsis3/bucket/{bucket.key} exists" in refused.stderr
    same = upscale("--skip-existing", "--json")
    assert json.loads(same.stdout)["status"] == "existed"
    differs = upscale("--skip-existing", "--scale", "3")
    assert differs.exit_code == 5
    assert "it has scale '2' instead of '3'" in differs.stderr
    assert bucket.get(bucket.key) == whole
    anew = upscale("--update", "--scale", "3", "--json")
    assert json.loads(anew.stdout)["status"] == "written"
    assert bucket.get(bucket.key) != whole
    bucket.put(bucket.key, b"notes")
    assert upscale("--update").exit_code == 5
    assert upscale("--overwrite").exit_code == 0
    assert bucket.get(bucket.key) == whole


def test_an_output_that_cannot_be_copied_is_kept_and_copied_later(
    bucket, scene, whole, tmp_path
):
    bucket.reset(closed=True)
    refused = run("upscale", scene, bucket.output, *OPTIONS)
    assert refused.exit_code == 6, refused.output
    assert f"upload/bucket/{bucket.key}" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    assert (tmp_path / f"upload/bucket/{bucket.key}").read_bytes() == whole
    bucket.reset(empty=False)
    done = run("upscale", scene, bucket.output, *OPTIONS, "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["tiles"] == 0
    assert bucket.keys() == {bucket.key: False}
    assert bucket.get(bucket.key) == whole
    assert names(tmp_path) == ["scene.tif"]


def test_a_store_that_does_not_answer_is_found_before_the_work(
    bucket, scene, tmp_path, monkeypatch
):
    for command, name, endpoint in (
        ("upscale", "s3://nowhere/out.tif", None),
        ("plan", "s3://bucket/other/out.tif", "127.0.0.1:9"),
    ):
        if endpoint:
            monkeypatch.setenv("AWS_S3_ENDPOINT", endpoint)
        refused = run(command, scene, name, *OPTIONS)
        assert refused.exit_code == 6, refused.output
        assert "the store does not answer" in refused.output
    assert names(tmp_path) == ["scene.tif"]


@pytest.mark.slow
def test_shards_end_in_an_object(bucket, scene, whole, tmp_path):
    shards = (*OPTIONS, "--run-dir", "work/run")
    Path("work").mkdir()
    for shard in ("2/2", "1/2"):
        done = run("upscale", scene, bucket.output, *shards, "--shard", shard)
        assert done.exit_code == 0, done.output
    assert bucket.keys() == {bucket.key: False}
    assert bucket.get(bucket.key) == whole
    assert names(tmp_path) == ["scene.tif", "work"]


def test_a_run_is_finished_into_an_object(bucket, scene, whole, tmp_path):
    shard = ("--run-dir", "run", "--shard", "1/2")
    assert run("upscale", scene, "out.tif", *OPTIONS, *shard).exit_code == 0
    done = run("mosaic", "run", bucket.output, "-q")
    assert done.exit_code == 0, done.output
    assert bucket.keys() == {bucket.key: False}
    assert bucket.get(bucket.key) == whole
    assert names(tmp_path) == ["scene.tif"]


@pytest.mark.slow
def test_a_failed_gate_writes_the_object_all_the_same(bucket, scene):
    failed = run("upscale", scene, bucket.output, *OPTIONS, "--fail-if", "valid < 2")
    assert failed.exit_code == 8, failed.output
    assert bucket.keys() == {bucket.key: False}


@pytest.mark.parametrize("option", ["--stac", "--qml", "--report"])
def test_files_beside_an_object_are_refused(bucket, scene, option):
    values = ["page.html"] if option == "--report" else []
    refused = run("upscale", scene, bucket.output, *OPTIONS, option, *values)
    assert refused.exit_code == 2
    assert refused.stderr.startswith(f"Error: {option} ")
    assert not bucket.keys()


@pytest.mark.parametrize(
    "name", ["s3://bucket", "s3://bucket/", "s3://bucket/../a.tif"]
)
def test_the_name_of_an_object_has_a_bucket_and_a_key(bucket, scene, name):
    refused = run("upscale", scene, name, *OPTIONS)
    assert refused.exit_code == 3
    assert "give the name of a bucket and of a file in it" in refused.stderr


REFUSED = {
    "batch": ("scene.tif", "--out-dir", "ADDRESS", "--scale", "2"),
    "tile": ("scene.tif", "ADDRESS", "--scale", "2"),
    "rasterize": ("map.geojson", "ADDRESS.tif", "--like", "scene.tif"),
    "change": ("scene.tif", "scene.tif", "ADDRESS.tif", "--like", "scene.tif"),
    "mosaic": ("tiles", "ADDRESS.tif"),
    "upscale": ("scene.tif", "out.tif", *OPTIONS, "--uncertainty", "ADDRESS.tif"),
}


@pytest.mark.parametrize("address", ["s3://bucket/a", "https://x.org/a", "/vsimem/a"])
@pytest.mark.parametrize("command", REFUSED)
def test_other_outputs_in_a_store_are_refused_by_name(
    bucket, scene, tmp_path, command, address
):
    (tmp_path / "map.geojson").write_text('{"type":"FeatureCollection","features":[]}')
    (tmp_path / "tiles").mkdir()
    make_scene(tmp_path / "tiles/a.tif", pixels=np.ones((1, 9, 9), np.uint16), nodata=0)
    arguments = [part.replace("ADDRESS", address) for part in REFUSED[command]]
    refused = run(command, *arguments)
    assert refused.exit_code == 3, refused.output
    (line,) = refused.stderr.splitlines()
    assert address in line
    assert "local folders only" in line
    assert not bucket.keys()
    assert not os.path.exists("s3:")
