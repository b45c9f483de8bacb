"""Shards make the bytes of one process, in any order, at once, killed or missing."""

from __future__ import annotations

import errno
import itertools
from pathlib import Path

import numpy as np
import pytest

from rsupres.errors import ResourceError, RunConflictError
from rsupres.output.strip_parts import StripParts
from rsupres.upscaling.pipeline import finish_run, upscale_scene
from rsupres.upscaling.shards import compute
from tests.fakes import FakeModel, PreparingModel, noisy, spec
from tests.upscaling.scenes import job_for

OPTIONS = {"tile_size": 24}  # four rows of four tiles


class Stop(Exception):
    pass


@pytest.fixture
def whole(scene: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """The output of one process, and the model for others."""
    FakeModel(spec(stochastic=True), noisy).install(monkeypatch)
    summary = upscale_scene(job_for(scene, "whole.tif", **OPTIONS))
    assert summary.tiles == 16
    return scene.with_name("whole.tif").read_bytes()


def shard(scene: Path, index: int, count: int):
    return upscale_scene(job_for(scene, shard=(index, count), **OPTIONS))


def files(run: Path) -> list[str]:
    return sorted(path.name for path in run.glob("parts/*"))


@pytest.mark.parametrize("order", [*itertools.permutations((1, 2, 3))][1:])
def test_no_tile_is_computed_twice_in_any_order(scene, whole, order):
    summaries = [shard(scene, index, 3) for index in order]
    assert [s.status for s in summaries] == ["computed", "computed", "written"]
    assert sum(s.tiles for s in summaries) == 16
    assert scene.with_name("out.tif").read_bytes() == whole
    assert not scene.with_name("out.tif.run").exists()


@pytest.mark.parametrize("late", [1, 7])
def test_a_shard_may_come_and_go_while_another_computes(
    scene, whole, monkeypatch, late
):
    tiles = itertools.count(1)

    def run_the_first(sr, batch):
        if next(tiles) == late:
            FakeModel(spec(stochastic=True), noisy).install(monkeypatch)
            assert shard(scene, 1, 2).status == "computed"
        return noisy(sr, batch)

    FakeModel(spec(stochastic=True), run_the_first).install(monkeypatch)
    job = job_for(scene, shard=(2, 2), batch_size=1, **OPTIONS)
    summary = upscale_scene(job)
    assert (summary.status, summary.tiles) == ("written", 8)
    assert scene.with_name("out.tif").read_bytes() == whole


def test_deviations_and_what_is_prepared_once_are_those_of_one_process(
    scene, monkeypatch
):
    model = PreparingModel(spec(stochastic=True)).install(monkeypatch)
    paths = {name: scene.with_name(f"u_{name}") for name in ("whole.tif", "out.tif")}
    options = {**OPTIONS, "samples": 2}
    upscale_scene(
        job_for(scene, "whole.tif", uncertainty=paths["whole.tif"], **options)
    )
    for index in (2, 1):
        job = job_for(scene, shard=(index, 2), uncertainty=paths["out.tif"], **options)
        upscale_scene(job)
    assert model.prepared == 2 * 2  # once a sample, in each of two runs
    assert paths["whole.tif"].read_bytes() == paths["out.tif"].read_bytes()


def test_a_shard_killed_before_it_joined_the_parts_computes_no_tile_again(
    scene, whole, monkeypatch
):
    shard(scene, 2, 2)
    with monkeypatch.context() as patch:
        patch.setattr(compute, "_join", _stopped)
        with pytest.raises(Stop):
            shard(scene, 1, 2)
    run = scene.with_name("out.tif.run")
    assert files(run) == ["0002.above", "0002.own"]
    summary = shard(scene, 1, 2)
    assert (summary.status, summary.tiles) == ("written", 0)
    assert scene.with_name("out.tif").read_bytes() == whole


def _stopped(*arguments: object) -> None:
    raise Stop


def test_a_shard_killed_when_its_part_was_kept_goes_on(scene, whole, monkeypatch):
    end = compute.StripSaver._end

    def stop_at_the_second(saver, strip: int) -> None:
        if strip == 1:
            raise Stop
        end(saver, strip)

    with monkeypatch.context() as patch:
        patch.setattr(compute.StripSaver, "_end", stop_at_the_second)
        with pytest.raises(Stop):
            shard(scene, 1, 2)
    assert files(scene.with_name("out.tif.run")) == ["0002.above"]
    assert shard(scene, 2, 2).tiles == 8
    assert shard(scene, 1, 2).status == "written"
    assert scene.with_name("out.tif").read_bytes() == whole


def test_a_run_with_one_shard_missing_is_finished_without_the_rows_of_others(
    scene, whole, monkeypatch, tmp_path
):
    shard(scene, 2, 2)
    summary = finish_run(scene.with_name("out.tif.run"))
    assert (summary.status, summary.tiles) == ("written", 8)
    assert scene.with_name("out.tif").read_bytes() == whole


def test_a_strip_that_another_process_makes_is_left_to_it(scene, whole):
    shard(scene, 2, 2)
    run = scene.with_name("out.tif.run")
    with StripParts(run).claimed(2) as is_ours:
        assert is_ours
        summary = shard(scene, 1, 2)
        assert (summary.status, summary.missing_strips) == ("computed", 1)
    assert shard(scene, 1, 2).status == "written"
    assert scene.with_name("out.tif").read_bytes() == whole


def test_a_full_disk_leaves_no_half_of_a_part(scene, whole, monkeypatch):
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patch:
        patch.setattr(np, "save", full)
        with pytest.raises(ResourceError, match=r"0002\.own: the disk is full"):
            shard(scene, 2, 2)
    assert files(scene.with_name("out.tif.run")) == []
    assert [shard(scene, index, 2).tiles for index in (2, 1)] == [8, 8]
    assert scene.with_name("out.tif").read_bytes() == whole


def test_a_damaged_part_is_named_and_made_again(scene, whole, caplog):
    shard(scene, 2, 2)
    part = StripParts(scene.with_name("out.tif.run")).path(2, "own")
    part.write_bytes(part.read_bytes()[:-9])
    assert shard(scene, 1, 2).status == "computed"
    assert "0002.own: damaged; made again." in caplog.text
    assert shard(scene, 2, 2).status == "written"
    assert scene.with_name("out.tif").read_bytes() == whole


@pytest.mark.parametrize("late", [(2, 2), (5, 30)])
def test_a_shard_that_begins_when_the_output_is_there_ends_well(scene, whole, late):
    shard(scene, 1, 2)
    assert shard(scene, 2, 2).status == "written"
    output = scene.with_name("out.tif")
    assert shard(scene, *late).status == "existed"
    assert output.read_bytes() == whole
    assert not scene.with_name("out.tif.run").exists()
    with pytest.raises(RunConflictError, match="seed 0 instead of 7"):
        upscale_scene(job_for(scene, shard=late, seed=7, **OPTIONS))
    with pytest.raises(RunConflictError, match="exists"):
        upscale_scene(job_for(scene, **OPTIONS))  # no shard


def test_a_shard_does_not_take_a_damaged_output_for_done(scene, whole):
    shard(scene, 1, 1)
    output = scene.with_name("out.tif")
    output.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RunConflictError, match="damaged"):
        shard(scene, 1, 2)
