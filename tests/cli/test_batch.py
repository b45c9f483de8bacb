"""`rsupres batch`: many inputs, one summary, and what a failure leaves."""

from __future__ import annotations

import fcntl
import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from click.testing import Result

from rsupres.errors import RunConflictError
from rsupres.execution import Interrupted
from rsupres.output.locks import Lock
from rsupres.tiles.batches.batch import BatchRequest, run_batch
from rsupres.tiles.batches.journal import JOURNAL, LOCK, read_batch
from rsupres.tiles.cut import TileJob, tile_scene
from rsupres.upscaling.job import UpscaleJob
from rsupres.upscaling.pipeline import upscale_scene
from rsupres.upscaling.preparation import model as models
from tests.cli.commands import run
from tests.fakes import LookingModel, spec
from tests.helpers import NORTH_UP, make_scene, read

SR = NORTH_UP @ Affine.scale(0.5)
LOOKS = frozenset({"reference", "vector_map", "change_mask"})


def lines(result: Result) -> list[dict[str, object]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    folder = tmp_path / "scenes"
    folder.mkdir()
    make_scene(folder / "a.tif")
    (folder / "b.tif").write_text("no raster")
    make_scene(folder / "c.tif", height=30)
    return folder


def test_a_bad_scene_does_not_stop_the_others(tmp_path, scenes):
    out = tmp_path / "out"
    command = ("batch", scenes, "--out-dir", out, "--model", "bicubic", "--scale", 2)
    done = run(*command, "--json")
    assert done.exit_code == 3, done.output
    *items, summary = lines(done)
    assert [item["status"] for item in items] == ["written", "failed", "written"]
    assert items[1]["exit_code"] == 3
    assert "b.tif" in items[1]["error"]
    assert (summary["written"], summary["failed"], summary["exit_code"]) == (2, 1, 3)
    assert sorted(p.name for p in out.iterdir()) == ["a.tif", JOURNAL, "c.tif"]
    expected = scenes.parent / "alone.tif"
    upscale_scene(
        UpscaleJob(
            scenes=(str(scenes / "c.tif"),),
            output=expected,
            scale=Fraction(2),
            model="bicubic",
        )
    )
    np.testing.assert_array_equal(read(out / "c.tif"), read(expected))


@pytest.mark.parametrize("bad", ["raster", "model"])
def test_a_model_is_loaded_once_for_all_scenes(tmp_path, scenes, monkeypatch, bad):
    loads = []
    model = LookingModel(spec(bands=("red", "green", "blue"))).install(monkeypatch)
    if bad == "model":  # one that fails is still the one for the next scene
        make_scene(scenes / "b.tif", height=40)
        model.twist = lambda sr, batch: sr * (np.nan if len(model.batches) == 1 else 1)

    def load(*arguments):
        loads.append(arguments)
        return model

    monkeypatch.setattr(models, "load_model", load)
    job = UpscaleJob(scenes=(), output=tmp_path, scale=Fraction(2), model="fake")
    items = run_batch(BatchRequest([str(scenes)], tmp_path / "out", job))
    assert [item.status for item in items].count("written") == 2
    assert len(loads) == 1
    upscale_scene(replace(job, scenes=(items[0].scene,), output=tmp_path / "o.tif"))
    assert len(loads) == 2  # nothing is kept beyond the batch


def test_another_model_takes_the_place_of_the_one_kept(scenes, monkeypatch):
    loads = []
    model = LookingModel(spec(bands=("red", "green", "blue"))).install(monkeypatch)
    monkeypatch.setattr(
        models, "load_model", lambda name, *_: (loads.append(name), model)[1]
    )
    with models.keeping_model():
        for k, name in enumerate(("one", "one", "two", "one")):
            output = scenes.with_name(f"{k}.tif")
            upscale_scene(
                UpscaleJob(
                    scenes=(str(scenes / "a.tif"),),
                    output=output,
                    scale=Fraction(2),
                    model=name,
                )
            )
    assert loads == ["one", "two", "one"]


def test_what_is_done_is_skipped_and_what_failed_is_tried_again(tmp_path, scenes):
    out = tmp_path / "out"
    command = ("batch", scenes, "--out-dir", out, "--model", "bicubic", "--scale", 2)
    run(*command)
    time_ns = (out / "a.tif").stat().st_mtime_ns
    make_scene(scenes / "b.tif")
    done = run(*command)
    assert done.exit_code == 0, done.output
    assert "3 inputs: 2 existed, 1 written" in done.stdout
    assert (out / "a.tif").stat().st_mtime_ns == time_ns
    done = run(*command, "--overwrite", "--json")
    assert lines(done)[-1]["written"] == 3
    assert (out / "a.tif").stat().st_mtime_ns > time_ns


def test_lists_and_the_folders_of_deviations_and_runs(tmp_path, monkeypatch):
    model = LookingModel(spec(bands=("red", "green", "blue"), stochastic=True))
    model.install(monkeypatch)
    paths = [make_scene(tmp_path / f"{name}.tif") for name in "xy"]
    (tmp_path / "list.txt").write_text("\n".join(map(str, paths)))
    command = (
        *("batch", f"@{tmp_path / 'list.txt'}", "--out-dir", tmp_path / "out"),
        *("--model", "fake", "--scale", 2, "--samples", 2, "--keep-run"),
        *("--uncertainty", tmp_path / "std", "--run-dir", tmp_path / "runs"),
        *("--rgb8", tmp_path / "shown"),
    )
    for word in ("written", "existed"):  # the second night
        done = run(*command)
        assert done.exit_code == 0, done.output
        assert f"2 {word}" in done.output
    for folder in ("std", "shown"):
        found = sorted(p.name for p in (tmp_path / folder).iterdir())
        assert found == ["x.tif", "y.tif"]
    names = sorted(p.name for p in (tmp_path / "runs").iterdir())
    assert names == ["x.tif.run", "y.tif.run"]


def test_a_gate_fails_the_batch_again_until_it_is_met(tmp_path):
    scene = make_scene(tmp_path / "a.tif")
    command = ("batch", scene, "--out-dir", tmp_path / "out", "--model", "bicubic")
    gate = ("--fail-if", "valid<2")
    assert run(*command, *gate).exit_code == 8
    assert (tmp_path / "out" / "a.tif").exists()
    assert run(*command, *gate).exit_code == 8
    assert run(*command).exit_code == 0


def test_two_inputs_of_one_name_are_refused(tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        make_scene(tmp_path / folder / "a.tif")
    done = run("batch", tmp_path / "one", tmp_path / "two", "--out-dir", tmp_path / "o")
    assert done.exit_code == 3
    assert "both become" in done.stderr
    assert not (tmp_path / "o").exists()


def test_status_tells_what_is_done_failed_and_left(
    tmp_path, scenes, monkeypatch, hasty
):
    job = UpscaleJob(scenes=(), output=tmp_path, scale=Fraction(2), model="bicubic")
    out = tmp_path / "out"

    def stop_at_c(job, **options):
        if job.scenes[0].endswith("c.tif"):
            raise Interrupted(15)
        return upscale_scene(job, **options)

    monkeypatch.setattr("rsupres.tiles.batches.attempts.upscale_scene", stop_at_c)
    with pytest.raises(Interrupted, match="same command"):
        run_batch(BatchRequest([str(scenes)], out, job))
    statuses = [item.status for item in read_batch(out)]
    assert statuses == ["written", "failed", "waiting"]
    told = run("status", out)
    assert "1 failed, 1 waiting, 1 written" in told.stdout
    assert "b.tif" in told.stdout
    assert [
        line["status"] for line in lines(run("status", out, "--json"))[:3]
    ] == statuses
    lock = Lock.take(out / LOCK, [fcntl.LOCK_EX], 0)
    try:
        assert [i.status for i in read_batch(out)] == ["written", "failed", "running"]
        with pytest.raises(RunConflictError):
            run_batch(BatchRequest([str(scenes)], out, job))
    finally:
        lock.release()


@pytest.fixture
def tiles(tmp_path: Path) -> Path:
    """Tiles of a scene with a reference, a mask and a map; one without a pixel."""
    pixels = np.random.default_rng(2).integers(200, 6000, (3, 38, 38)).astype(np.uint16)
    pixels[:, :22, :22] = 0
    names = ("B04", "B03", "B02")
    scene = make_scene(
        tmp_path / "scene.tif", pixels=pixels, nodata=0, descriptions=names
    )
    rng = np.random.default_rng(4)
    reference = rng.integers(1, 255, (3, 76, 76)).astype(np.uint8)
    make_scene(tmp_path / "ref_2019-01-02.tif", pixels=reference, transform=SR)
    codes = np.zeros((1, 76, 76), np.uint8)
    codes[0, 30:60, 40:70] = 3
    make_scene(tmp_path / "change.tif", pixels=codes, transform=SR, nodata=255)
    drawn = rng.integers(0, 255, (3, 76, 76)).astype(np.uint8)
    make_scene(tmp_path / "map.tif", pixels=drawn, transform=SR)
    done = run(
        *("tile", scene, tmp_path / "tiles", "--scale", 2, "--tile-size", 22),
        *("--overlap", 6, "--reference", tmp_path / "ref_2019-01-02.tif"),
        *("--change-mask", tmp_path / "change.tif", "--vector-map"),
        tmp_path / "map.tif",
    )
    assert done.exit_code == 0, done.output
    return tmp_path / "tiles"


def test_tiles_go_through_the_model_with_their_conditions(tmp_path, tiles, monkeypatch):
    model = LookingModel(spec(bands=("red", "green", "blue"), accepts=LOOKS))
    model.install(monkeypatch)
    monkeypatch.setattr("rsupres.tiles.batches.jobs.read_card", models.read_card)
    done = run("batch", tiles, "--out-dir", tmp_path / "o", "--model", "fake", "--json")
    assert done.exit_code == 0, done.output
    *items, _ = lines(done)
    assert len(items) == 3  # of 2 x 2 tiles, one is empty
    assert all(set(item["conditions"]) == LOOKS for item in items)
    whole = tmp_path / "whole.tif"
    job = UpscaleJob(
        scenes=(str(tmp_path / "scene.tif"),),
        output=whole,
        scale=Fraction(2),
        model="fake",
        reference=(str(tmp_path / "ref_2019-01-02.tif"),),
        change_mask=str(tmp_path / "change.tif"),
        vector_map=(str(tmp_path / "map.tif"),),
    )
    upscale_scene(job)
    back = run("mosaic", tmp_path / "o" / "tiles", tmp_path / "back.tif")
    assert back.exit_code == 0, back.output
    one, other = read(whole).astype(int), read(tmp_path / "back.tif").astype(int)
    known = (one[0] > 0) & (other[0] > 0)
    assert known.mean() > 0.6
    # Bicubic edges of a tile see reflected pixels; inside, both show the same model.
    assert np.median(np.abs(one - other)[:, known]) <= 1


def test_a_model_that_does_not_look_gets_no_conditions(tmp_path, tiles):
    done = run("batch", tiles, "--out-dir", tmp_path / "o", "--model", "bicubic")
    assert done.exit_code == 0, done.output
    items = read_batch(tmp_path / "o")
    assert {tuple(item.conditions) for item in items} == {()}
    assert {item.output.parent for item in items} == {tmp_path / "o" / "tiles"}


def test_tiles_have_their_own_scale(tmp_path, tiles):
    out = ("--out-dir", tmp_path / "o", "--model", "bicubic")
    done = run("batch", tiles, *out, "--scale", 4)
    assert done.exit_code == 3
    assert "cut for scale 2" in done.stderr
    assert run("batch", tiles, *out, "--scale", 2).exit_code == 0


def test_tiles_of_another_cut_are_not_mixed(tmp_path, tiles):
    command = ("batch", tiles, "--out-dir", tmp_path / "o", "--model", "bicubic")
    assert run(*command).exit_code == 0
    scene = str(tmp_path / "scene.tif")
    tile_scene(TileJob((scene,), tiles, Fraction(2), 26, 6, overwrite=True))
    done = run(*command)
    assert done.exit_code == 5
    assert "cut otherwise" in done.stderr


@pytest.mark.parametrize(
    ("values", "options", "text"),
    [
        ({"transform": NORTH_UP}, (), "must lie on the SR grid"),
        ({"height": 40}, (), "does not cover"),
        ({"bands": 4}, (), "no map in colours"),
        (
            {"tags": {"RSUPRES_LEGEND": "maptiler"}},
            ("--legend", "osm-carto"),
            "draw it again",
        ),
        ({}, ("--layers", "road"), "--layers cannot be chosen"),
    ],
)
def test_drawn_maps_that_do_not_fit_are_refused(
    tmp_path, values, options, text, monkeypatch
):
    LookingModel(spec(accepts=LOOKS, bands=("red", "green", "blue"))).install(
        monkeypatch
    )
    scene = make_scene(tmp_path / "scene.tif")
    plain = {"height": 48, "width": 64, "dtype": "uint8", "transform": SR, **values}
    make_scene(tmp_path / "map.tif", **plain)
    done = run(
        *("upscale", scene, tmp_path / "out.tif", "--scale", 2, "--model", "fake"),
        *("--vector-map", tmp_path / "map.tif", *options),
    )
    assert done.exit_code == 3, done.output
    assert text in done.stderr
