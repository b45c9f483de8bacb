"""Conditions in runs that are tiled, stopped, continued, and short of memory."""

from __future__ import annotations

import json
import shutil
import threading
import warnings

import numpy as np
import pytest
import rasterio
import torch
from shapely.geometry import Polygon

from rsupres.conditions.open import ConditionSet
from rsupres.errors import RunConflictError
from rsupres.grid import PixelWindow
from rsupres.upscaling import inference
from rsupres.upscaling.pipeline import finish_run, upscale_scene
from tests.conditions.looking import LOOKS, job_for, looking, tags_of
from tests.fakes import LookingModel, noisy
from tests.helpers import NORTH_UP, make_scene, read, write_vector


def test_tiles_batches_and_shards_do_not_change_the_picture(
    scene, reference, roads, monkeypatch
):
    looking(monkeypatch, stochastic=True).twist = noisy
    given = {"reference": reference, "vector_map": roads, "dtype": "float32"}
    jobs = [
        job_for(scene, "a.tif", tile_size=60, overlap=12, **given),
        job_for(scene, "b.tif", tile_size=24, batch_size=1, **given),
        job_for(scene, "c.tif", tile_size=24, batch_size=3, **given),
    ]
    pictures = []
    for job in jobs:
        upscale_scene(job)
        pictures.append(read(job.output))
    np.testing.assert_array_equal(pictures[1], pictures[2])
    assert np.abs(pictures[0] - pictures[1]).max() < 1.0  # DN, of 10,000; rounding
    for number in (2, 1):
        upscale_scene(job_for(scene, "d.tif", shard=(number, 2), **given, tile_size=24))
    np.testing.assert_array_equal(read(scene.with_name("d.tif")), pictures[1])


class _Stop(Exception):
    """A process that ends."""


def stop_after(model: LookingModel, n_batches: int) -> None:
    """Let a model die after so many batches."""

    def die(sr: torch.Tensor, batch) -> torch.Tensor:
        if len(model.batches) > n_batches:
            raise _Stop
        return noisy(sr, batch)

    model.twist = die


@pytest.mark.parametrize("n_batches", [pytest.param(1, marks=pytest.mark.slow), 6])
def test_an_interrupted_run_continues_to_the_same_bits(
    scene, reference, roads, tmp_path, monkeypatch, n_batches
):
    style = make_scene(tmp_path / "style.tif", 30, 40, dtype="uint8")
    given = {
        "reference": reference,
        "vector_map": roads,
        "style": str(style),
        "coregister": True,
        "fill_reference": True,
        "batch_size": 2,
    }
    model = looking(monkeypatch, stochastic=True)
    model.twist = noisy
    upscale_scene(job_for(scene, "whole.tif", **given))
    stop_after(model, len(model.batches) + n_batches)
    job = job_for(scene, "parts.tif", **given)
    with pytest.raises(_Stop):
        upscale_scene(job)
    model.twist = noisy
    settings = json.loads((job.run_path / "run.json").read_text())["conditions"]
    assert settings["reference"]["shift"] == pytest.approx([0.5, 1.5], abs=0.15)
    # What was measured is not measured again.
    monkeypatch.setattr(
        "rsupres.conditions.references.measure_displacement", lambda *a, **k: None
    )
    if n_batches == 6:
        upscale_scene(job)
    else:  # as `rsupres mosaic RUN_DIR` does
        finish_run(job.run_path)
    np.testing.assert_array_equal(read(job.output), read(scene.with_name("whole.tif")))


@pytest.mark.parametrize(
    "change_mask", [pytest.param("roads", marks=pytest.mark.slow), "detect"]
)
def test_only_the_main_thread_changes_which_warnings_are_shown(
    scene, reference, roads, tmp_path, monkeypatch, change_mask
):
    # `catch_warnings` acts on the whole process, so threads undo each other's.
    threads = set()

    class Watched(warnings.catch_warnings):
        def __enter__(self):
            threads.add(threading.current_thread())
            return super().__enter__()

    model = looking(monkeypatch)
    monkeypatch.setattr(warnings, "catch_warnings", Watched)
    style = make_scene(tmp_path / "style.tif", 30, 40, dtype="uint8")
    x, y = NORTH_UP.c, NORTH_UP.f
    corners = [(x + 5, y - 5), (x + 495, y - 5), (x + 495, y - 595)]
    upscale_scene(
        job_for(
            scene,
            aoi=str(write_vector(tmp_path / "aoi.gpkg", Polygon(corners))),
            reference=reference,
            vector_map=roads,
            change_mask=str(roads) if change_mask == "roads" else change_mask,
            style=str(style),
        )
    )
    for layer in LOOKS:
        assert all(getattr(batch, layer) is not None for batch in model.seen)
    assert threads == {threading.main_thread()}


def test_another_reference_is_another_run(scene, reference, tmp_path, monkeypatch):
    model = looking(monkeypatch)
    stop_after(model, 2)
    with pytest.raises(_Stop):
        upscale_scene(job_for(scene, reference=reference))
    moved = tmp_path / "folder" / reference.name
    moved.parent.mkdir()
    shutil.copy(reference, moved)
    with rasterio.open(reference, "r+") as dataset:
        dataset.write(np.full((3, 9, 9), 99, np.uint8), window=((0, 9), (0, 9)))
    model.twist = lambda sr, batch: sr
    with pytest.raises(RunConflictError):
        upscale_scene(job_for(scene, reference=reference))
    upscale_scene(job_for(scene, reference=moved))  # the same content, elsewhere


def test_the_output_says_which_conditions_it_was_made_with(
    scene, reference, roads, tmp_path, monkeypatch
):
    style = make_scene(tmp_path / "style.tif", 30, 40, dtype="uint8")
    looking(monkeypatch, steps=3)
    job = job_for(
        scene,
        reference=reference,
        vector_map=roads,
        style=str(style),
        coregister=True,
        sampler="heun",
    )
    upscale_scene(job)
    tags = tags_of(job.output)
    marks = json.loads(tags["RSUPRES_REFERENCE"])
    assert marks["coregister"] is True
    measured = json.loads(tags["RSUPRES_MEASURED"])["reference"]
    assert measured["shift"] == pytest.approx([0.5, 1.5], abs=0.15)
    assert marks["files"][0]["file"] == reference.name
    assert marks["files"][0]["date"] == "2020-05-06"
    assert len(marks["files"][0]["sha256"]) == 64
    assert json.loads(tags["RSUPRES_VECTOR_MAP"])["legend"] == "maptiler"
    assert json.loads(tags["RSUPRES_STYLE"])["images"][0]["file"] == "style.tif"
    assert tags["RSUPRES_SAMPLER"] == "heun"


def test_out_of_memory_keeps_tiles_and_conditions_together(
    scene, reference, monkeypatch
):
    model = looking(monkeypatch)
    upscale_scene(job_for(scene, "a.tif", reference=reference, batch_size=4))

    def too_much(sr: torch.Tensor, batch) -> torch.Tensor:
        if len(batch.lr) > 1:
            raise torch.OutOfMemoryError
        return sr

    model.twist = too_much
    upscale_scene(job_for(scene, "b.tif", reference=reference, batch_size=4))
    np.testing.assert_array_equal(
        read(scene.with_name("a.tif")), read(scene.with_name("b.tif"))
    )


def test_conditions_are_read_ahead_in_another_thread_and_not_far(
    scene, reference, monkeypatch
):
    threads, ahead = set(), []
    model = looking(monkeypatch)
    plain = ConditionSet.read

    def watch(self: ConditionSet, window: PixelWindow) -> dict[str, np.ndarray]:
        threads.add(threading.current_thread().name)
        ahead.append(len(ahead) + 1 - sum(model.batches))
        return plain(self, window)

    monkeypatch.setattr(ConditionSet, "read", watch)
    model.prepare = lambda *a: inference.SceneContext()
    upscale_scene(job_for(scene, reference=reference, batch_size=2))
    assert threads == {"rsupres-read-ahead"}
    # Two in the model, two in the queue, one at hand; one more handed over unseen.
    assert max(ahead) <= 6
