"""Runs that stop and continue, shards, and what a run directory keeps."""

from __future__ import annotations

import json
import shutil
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rsupres.diffusion.noise import NoiseField
from rsupres.errors import InputError, QualityGateError, RunConflictError
from rsupres.output.tiff.packed_strip import PackedStrip
from rsupres.output.tiff.packets import Packets
from rsupres.upscaling.pipeline import finish_run, upscale_scene
from rsupres.upscaling.preparation.context import context_of
from tests.fakes import FakeModel, PreparingModel, spec
from tests.helpers import make_scene
from tests.strategies import COSTLY
from tests.upscaling.scenes import job_for, textured


class Stop(Exception):
    pass


@COSTLY
@given(
    first=st.integers(0, 30),
    lock=st.booleans(),
    scale=st.sampled_from([Fraction(2), Fraction(5, 2)]),
    removed=st.sets(st.integers(0, 4)),
)
def test_a_run_stopped_anywhere_ends_in_the_same_bytes(
    tmp_path_factory, first, lock, scale, removed
):
    folder = tmp_path_factory.mktemp("resume")
    scene = make_scene(folder / "s.tif", pixels=textured(44, 26), nodata=0)
    options = {"lock_low_frequencies": lock, "scale": scale, "tile_size": 16}
    with pytest.MonkeyPatch.context() as patch:
        model = PreparingModel(spec(stochastic=True)).install(patch)
        upscale_scene(job_for(scene, "whole.tif", **options))
        n_calls = len(model.batches)

        def stop(sr: torch.Tensor, batch) -> torch.Tensor:
            raise Stop

        plain = model.upscale

        def counting(batch, s):
            if len(model.batches) - n_calls >= first:
                raise Stop
            return plain(batch, s)

        model.upscale = counting  # type: ignore[method-assign]
        job = job_for(scene, "out.tif", **options)
        prepared = model.prepared
        try:
            upscale_scene(job)
        except Stop:
            model.upscale = plain  # type: ignore[method-assign]
            for strip in removed:
                (job.run_path / "strips" / f"{strip:04d}.tif").unlink(missing_ok=True)
            upscale_scene(job)
        assert model.prepared == prepared + 1
    assert (folder / "out.tif").read_bytes() == (folder / "whole.tif").read_bytes()
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("n_shards", "lock"), [(3, True), pytest.param(9, False, marks=pytest.mark.slow)]
)
def test_shards_in_any_order_make_the_same_bytes(scene, monkeypatch, n_shards, lock):
    PreparingModel(spec(stochastic=True)).install(monkeypatch)
    options = {"lock_low_frequencies": lock, "tile_size": 16, "samples": 2}
    deviations = [scene.with_name("u1.tif"), scene.with_name("u2.tif")]
    upscale_scene(job_for(scene, "whole.tif", uncertainty=deviations[0], **options))
    order = [2, *range(3, n_shards + 1), 1]
    summaries = [
        upscale_scene(
            job_for(scene, shard=(i, n_shards), uncertainty=deviations[1], **options)
        )
        for i in order
    ]
    assert [s.status for s in summaries] == ["computed"] * (n_shards - 1) + ["written"]
    one, other = (scene.with_name(name) for name in ("whole.tif", "out.tif"))
    assert one.read_bytes() == other.read_bytes()
    assert deviations[0].read_bytes() == deviations[1].read_bytes()


@pytest.mark.parametrize("n_shards", [1, 2])
def test_an_output_of_packets_has_the_same_bytes(tmp_path, monkeypatch, n_shards):
    scene = make_scene(tmp_path / "s.tif", pixels=textured(400, 26, 1), nodata=0)
    options = {"model": "bicubic", "scale": Fraction(4), "tile_size": 64, "overlap": 12}
    upscale_scene(job_for(scene, "whole.tif", **options))
    monkeypatch.setattr("rsupres.output.tiff.packets.PACKED_BYTES", 0)
    for shard in range(1, n_shards):
        upscale_scene(job_for(scene, shard=(shard, n_shards), **options))
    job = job_for(scene, **options)
    with monkeypatch.context() as patch:

        def stop_at_the_last(packets: Packets, strip: int, *arguments, **options):
            if strip == 7:
                raise Stop
            return PackedStrip(packets, strip, *arguments, **options)

        patch.setattr("rsupres.upscaling.outputs.PackedStrip", stop_at_the_last)
        with pytest.raises(Stop):
            upscale_scene(job)
    packed = [path.name for path in (job.run_path / "strips").glob("*.packed")]
    assert len(packed) == (4 if n_shards == 1 else 2)
    upscale_scene(job)
    one, other = (scene.with_name(name) for name in ("whole.tif", "out.tif"))
    assert one.read_bytes() == other.read_bytes()
    assert not job.run_path.exists()


def test_figures_do_not_depend_on_shards(scene, monkeypatch):
    FakeModel(twist=lambda sr, batch: sr * 1.01).install(monkeypatch)
    whole = upscale_scene(job_for(scene, "whole.tif"))
    upscale_scene(job_for(scene, shard=(1, 2)))
    shared = upscale_scene(job_for(scene, shard=(2, 2)))
    assert shared.figures == whole.figures


def test_a_run_of_another_output_can_be_finished_from_its_directory(
    scene, monkeypatch, tmp_path
):
    FakeModel().install(monkeypatch)
    upscale_scene(job_for(scene, "whole.tif"))
    upscale_scene(job_for(scene, shard=(1, 2)))
    summary = finish_run(tmp_path / "out.tif.run", tmp_path / "else.tif")
    assert summary.status == "written"
    whole = (tmp_path / "whole.tif").read_bytes()
    assert (tmp_path / "else.tif").read_bytes() == whole


def test_a_folder_that_is_no_run_cannot_be_finished(tmp_path):
    with pytest.raises(InputError):
        finish_run(tmp_path, tmp_path / "o.tif")


def test_a_failed_gate_is_known_after_a_resume_too(scene, monkeypatch):
    FakeModel(twist=lambda sr, batch: sr + 0.1).install(monkeypatch)
    upscale_scene(job_for(scene, shard=(1, 2)))
    job = job_for(scene, shard=(2, 2), fail_if=("consistency>5%",))
    with pytest.raises(QualityGateError, match=r"consistency = 0\.1"):
        upscale_scene(job)
    assert job.output.exists()


def test_contexts_are_kept_apart_by_sample():
    from rsupres.families.base import SceneContext

    whole = SceneContext({"s0_a": np.zeros(1), "s1_a": np.ones(1)}, {"s1_n": 2.0})
    part = context_of(whole, 1)
    assert list(part.arrays) == ["a"]
    assert part.arrays["a"][0] == 1
    assert part.numbers == {"n": 2.0}
    assert NoiseField(0, 1) != NoiseField(0)


def test_locks_that_a_killed_process_left_go_away_with_the_next_call(
    scene, monkeypatch
):
    FakeModel(spec()).install(monkeypatch)
    job = job_for(scene, update=True)
    upscale_scene(job)
    job.run_path.mkdir()
    for name in ("run", "assembly", "context"):
        (job.run_path / f"{name}.lock").touch()
    assert upscale_scene(job).status == "existed"
    assert not job.run_path.exists()


@pytest.mark.parametrize(
    "damage",
    [
        {"stretch": {"low": [0.0] * 6, "high": [255.0] * 3}},
        {"stretch": {"low": [0.0] * 3, "high": [255.0] * 6}},
        {"stretch": {"low": [0.0] * 6, "high": [255.0] * 6}},
        {"stretch": {"low": [9.0] * 3, "high": [9.0] * 3}},
        {"stretch": None},
        {"gains": [1.0]},
        {"gains": 1},
    ],
)
def test_findings_in_a_damaged_manifest_are_refused(scene, monkeypatch, damage):
    FakeModel().install(monkeypatch)
    upscale_scene(job_for(scene, shard=(1, 2)))
    job = job_for(scene, shard=(2, 2))
    file = job.run_path / "run.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | damage))
    with pytest.raises(RunConflictError, match="damaged"):
        upscale_scene(job)


@pytest.mark.parametrize(
    "name",
    ["context/context.json", "context/*.npy", "deviation/0001.tif", "sums/0001.json"],
)
@pytest.mark.parametrize("is_lost", [False, True])
def test_damage_beside_the_strips_is_mended(scene, monkeypatch, name, is_lost):
    model = PreparingModel(spec(stochastic=True)).install(monkeypatch)
    one, other = (scene.with_name(name) for name in ("u1.tif", "u2.tif"))
    options = {"tile_size": 16, "samples": 2}
    upscale_scene(job_for(scene, "whole.tif", uncertainty=one, **options))
    job = job_for(scene, uncertainty=other, **options)

    def stop(*arguments: object) -> None:
        raise Stop

    with monkeypatch.context() as patch:
        patch.setattr("rsupres.upscaling.pipeline._publish", stop)
        with pytest.raises(Stop):
            upscale_scene(job)
    n_prepared = model.prepared
    file = sorted(job.run_path.glob(name))[0]
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    if is_lost:
        file.unlink()
    upscale_scene(job)
    assert model.prepared == n_prepared + 2 * ("context" in name)
    assert job.output.read_bytes() == scene.with_name("whole.tif").read_bytes()
    assert other.read_bytes() == one.read_bytes()
