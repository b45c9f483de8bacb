"""Several devices, batches on Dask workers, and shards by themselves."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from rsupres.cli import main
from rsupres.cluster.shards import cut
from rsupres.cluster.token import Token, token_in
from rsupres.cluster.workers import Demands, examine
from rsupres.errors import CheckpointError, InputError, ResourceError
from rsupres.tile_grid import split_strips
from rsupres.upscaling.job import UpscaleJob
from rsupres.upscaling.pipeline import compute_shard, finish_run, upscale_scene
from tests.helpers import make_scene

OPTIONS = ["--scale", "3", "--model", "bicubic", "--tile-size", "24", "-q"]


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(1, 4000, (3, 90, 60)).astype("uint16")
    pixels[:, 40:60, 20:50] = 0
    return make_scene(tmp_path / "scene.tif", pixels=pixels, nodata=0)


@pytest.fixture
def job(scene: Path, tmp_path: Path) -> UpscaleJob:
    return UpscaleJob(
        scenes=(str(scene),),
        output=tmp_path / "out.tif",
        scale=Fraction(3),
        model="bicubic",
        tile_size=24,
    )


def whole_of(job: UpscaleJob) -> bytes:
    """Return the output of one process."""
    path = job.output.with_name("whole.tif")
    upscale_scene(replace(job, output=path))
    return path.read_bytes()


@pytest.mark.parametrize(("n_processes", "done"), [(1, {0, 3}), (3, set()), (9, {1})])
def test_shards_hold_all_missing_strips_and_none_that_is_done(n_processes, done):
    shards = cut(7, frozenset(done), n_processes)
    held = {s for i, n in shards for s in split_strips(7, n)[i - 1].strips}
    assert set(range(7)) - done <= held
    assert all(set(split_strips(7, n)[i - 1].strips) - done for i, n in shards)


def test_a_run_that_is_complete_has_no_shards():
    assert cut(5, frozenset(range(5)), 4) == []


def test_a_token_shows_a_folder_and_leaves_nothing(tmp_path):
    with token_in(tmp_path) as token:
        assert token.fault() == ""
        elsewhere = replace(token, path=str(tmp_path / "other" / "workers.tmp"))
        assert elsewhere.fault() == f"does not see {tmp_path / 'other'}"
    assert list(tmp_path.iterdir()) == []


def demands(token: Token, **values: object) -> Demands:
    return replace(Demands({"bicubic": None}, token, "cpu"), **values)


def test_a_worker_is_refused_for_each_thing_that_differs(tmp_path):
    with token_in(tmp_path) as token:
        assert examine(demands(token), "Worker a") == "cpu"
        with pytest.raises(
            ResourceError, match=r"Worker a has rsupres .* and not 0\.0"
        ):
            examine(demands(token, version="0.0"), "Worker a")
        with pytest.raises(CheckpointError, match=r"other weights of model bicubic"):
            examine(demands(token, weights={"bicubic": "ab"}), "Worker a")
        with pytest.raises(CheckpointError, match="Worker a: "):
            examine(demands(token, weights={"no-such-model": "ab"}), "Worker a")
        away = replace(token, path=str(tmp_path / "away" / "workers.tmp"))
        with pytest.raises(ResourceError, match="Worker a does not see"):
            examine(demands(away), "Worker a")
        with pytest.raises(InputError, match="Worker a: tpu is none of"):
            examine(demands(token, device="tpu"), "Worker a")


def test_a_shard_for_another_process_is_computed_and_not_assembled(job):
    def elsewhere(work, run, show, counts):
        for shard in ((2, 2), (1, 2)):
            summary = compute_shard(replace(job, run_dir=run.path, shard=shard))
            assert not job.output.exists()
            counts.tiles += summary.tiles

    summary = upscale_scene(job, elsewhere=elsewhere)
    assert summary.status == "written"
    assert summary.tiles > 10
    assert job.output.read_bytes() == whole_of(job)
    assert not job.run_path.exists()


def test_a_shard_without_a_run_begins_none(job):
    with pytest.raises(InputError):
        compute_shard(replace(job, shard=(1, 2)))
    assert not job.run_path.exists()


def test_strips_that_others_failed_to_compute_are_kept(job):
    def elsewhere(work, run, show, counts):
        compute_shard(replace(job, run_dir=run.path, shard=(1, 3)))
        raise ResourceError("lost")

    with pytest.raises(ResourceError, match="lost"):
        upscale_scene(job, elsewhere=elsewhere)
    assert list(job.run_path.glob("strips/*"))
    finish_run(job.run_path)
    assert job.output.read_bytes() == whole_of(job)


@pytest.mark.slow
def test_two_devices_make_the_bytes_of_one(commands, job):
    arguments = ("upscale", job.scenes[0], job.output, *OPTIONS, "--json")
    done = commands.run(*arguments, "--device", "cpu,cpu")
    assert done.code == 0, done.err
    assert json.loads(done.out)["tiles"] > 10
    assert job.output.read_bytes() == whole_of(job)


@pytest.mark.slow
def test_a_batch_gives_scenes_to_a_process_for_each_device(commands, job, tmp_path):
    scenes = [tmp_path / f"{name}.tif" for name in "abc"]
    for path in scenes:
        path.write_bytes(Path(job.scenes[0]).read_bytes())
    workers: set[str] = set()

    def watch(pid: int) -> None:
        children = Path(f"/proc/{pid}/task/{pid}/children")
        while "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2]:
            workers.update(p for p in children.read_text().split() if is_worker(p))

    done = commands.run(
        *("batch", *scenes, "--out-dir", tmp_path / "sharp", *OPTIONS, "--json"),
        *("--device", "cpu,cpu"),
        while_running=watch,
    )
    assert done.code == 0, done.err
    assert len(workers) == 2
    one = tmp_path / "one"
    assert commands.run("batch", *scenes, "--out-dir", one, *OPTIONS).code == 0
    for path in scenes:
        made = (tmp_path / "sharp" / path.name).read_bytes()
        assert made == (one / path.name).read_bytes()


def is_worker(pid: str) -> bool:
    """Return whether a process attempts scenes of a batch."""
    try:
        return b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


@pytest.mark.slow
def test_a_device_that_is_not_there_is_named(commands, job):
    done = commands.run(
        *("upscale", job.scenes[0], job.output, *OPTIONS, "--device", "cpu,tpu")
    )
    assert done.code == 3, done.err
    assert "--device tpu is none of" in done.err


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--device", "cpu,cpu", "--shard", "1/2"), "exclude each other"),
        (("--device", "cpu,cpu", "--dask", "a:1"), "exclude each other"),
    ],
)
def test_devices_that_cannot_be_meant(job, options, text):
    arguments = ["upscale", job.scenes[0], str(job.output), *options]
    refused = CliRunner().invoke(main, arguments)
    assert refused.exit_code == 2, refused.output
    assert text in refused.output


@pytest.mark.slow
def test_a_batch_on_dask_makes_the_same_files_and_goes_on_after_a_failure(
    commands, scheduler, job, tmp_path
):
    folder = tmp_path / "scenes"
    folder.mkdir()
    for name in ("a.tif", "b.tif"):
        (folder / name).write_bytes(Path(job.scenes[0]).read_bytes())
    (folder / "c.tif").write_bytes(b"no raster")
    inputs = [folder / name for name in ("a.tif", "b.tif", "c.tif")]
    done = commands.run(
        *("batch", *inputs, "--out-dir", tmp_path / "sharp", *OPTIONS, "--json"),
        *("--dask-scheduler-file", scheduler),
    )
    assert done.code == 3, done.err
    items = [json.loads(line) for line in done.out.splitlines()[:3]]
    became = {Path(item["scene"]).name: item["status"] for item in items}
    assert became == {"a.tif": "written", "b.tif": "written", "c.tif": "failed"}
    one = tmp_path / "one"
    assert commands.run("batch", inputs[0], "--out-dir", one, *OPTIONS).code == 0
    assert (tmp_path / "sharp" / "a.tif").read_bytes() == (one / "a.tif").read_bytes()


@pytest.mark.parametrize(
    "number", [pytest.param(signal.SIGTERM, marks=pytest.mark.slow), signal.SIGUSR1]
)
def test_a_shard_that_is_preempted_continues(commands, job, number):
    def preempt(pid: int) -> None:
        commands.wait_until(lambda: list(job.run_path.glob("strips/*")), pid)
        os.kill(pid, number)

    arguments = ("upscale", job.scenes[0], job.output, *OPTIONS, "--shard")
    stopped = commands.run(*arguments, "1/2", while_running=preempt, n_batches=1)
    assert stopped.code == 128 + number, stopped.err
    assert "the same command continues" in stopped.err
    assert commands.run(*arguments, "2/2").code == 0
    assert commands.run(*arguments, "1/2").code == 0
    assert job.output.read_bytes() == whole_of(job)
