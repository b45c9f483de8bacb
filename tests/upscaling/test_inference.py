"""Noise and samples, batches that do not fit, and models that fail."""

from __future__ import annotations

import itertools
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import rasterio
import torch

from rsupres.errors import ModelOutputError, ResourceError
from rsupres.grid import PixelWindow
from rsupres.upscaling.finishing import Finisher
from rsupres.upscaling.outputs import INTERVAL, interval_reach
from rsupres.upscaling.pipeline import upscale_scene
from tests.fakes import FakeModel, PreparingModel, SureModel, noisy, spec
from tests.helpers import make_scene, read
from tests.upscaling.scenes import job_for, result, textured


def test_the_noise_belongs_to_the_ground_not_to_the_tiles(scene, monkeypatch):
    FakeModel(spec(stochastic=True), noisy).install(monkeypatch)
    small = result(scene, "a.tif", tile_size=16)
    whole = result(scene, "b.tif", tile_size=60)
    other = result(scene, "c.tif", tile_size=60, seed=1)
    assert np.abs(small.astype(int) - whole).max() <= 1
    assert np.abs(other.astype(int) - whole).max() > 50


def test_samples_give_the_mean_and_the_standard_deviation(scene, monkeypatch):
    FakeModel(spec(stochastic=True), noisy).install(monkeypatch)
    deviation = scene.with_name("u.tif")
    mean = result(scene, samples=4, uncertainty=deviation, dtype="float32", nodata=-1.0)
    singles = []
    for k in range(4):
        model = FakeModel(
            spec(stochastic=True),
            lambda sr, batch, k=k: noisy(
                sr, replace(batch, noise=replace(batch.noise, sample=k))
            ),
        )
        model.install(monkeypatch)
        singles.append(result(scene, f"s{k}.tif", dtype="float32", nodata=-1.0))
    valid = singles[0] != -1
    np.testing.assert_allclose(mean[valid], np.mean(singles, axis=0)[valid], rtol=1e-5)
    with rasterio.open(deviation) as dataset:
        spread = dataset.read()
        assert dataset.dtypes[0] == "float32"
        assert np.isnan(dataset.nodata)
        assert dataset.descriptions == ("B04", "B03", "B02")
    np.testing.assert_array_equal(np.isnan(spread), ~valid)
    np.testing.assert_allclose(
        spread[valid], np.std(singles, axis=0, ddof=1)[valid], rtol=1e-2, atol=0.1
    )
    assert np.nanmean(spread) == pytest.approx(92, abs=10)  # 0.01 * 10000, ddof 1


def test_a_predicted_error_gives_its_deviation_and_an_interval(scene, monkeypatch):
    tails = (0.5, 1.0, 2.0, 3.0, 4.0)
    SureModel(spec(bands=("red", "green", "blue"), tails=tails)).install(monkeypatch)
    names = {k: scene.with_name(f"{k}.tif") for k in ("uncertainty", *INTERVAL)}
    sr = result(scene, interval=0.9, dtype="float32", nodata=-1.0, **names)
    spread, low, high = (read(path) for path in names.values())
    valid = sr != -1
    np.testing.assert_allclose(spread[valid], 100.0, rtol=1e-5)  # 0.01 of 10000
    # The output has the file's bands, the limits the model's.
    np.testing.assert_allclose(low[valid], (sr - 200.0)[valid], rtol=1e-4)
    np.testing.assert_allclose(high[valid], (sr + 200.0)[valid], rtol=1e-4)
    assert np.isnan(high[~valid]).all()
    assert not [*scene.parent.glob("*.run")]


@pytest.mark.parametrize(("share", "reach"), [(0.5, 0.5), (0.9, 2.0), (0.925, 2.415)])
def test_intervals_between_known_shares_are_interpolated(share, reach):
    found = interval_reach(share, (0.5, 1.0, 2.0, 3.0, 4.0))
    assert found == pytest.approx(reach, abs=1e-3)


def test_every_sample_is_prepared_with_its_own_noise(scene, monkeypatch):
    model = PreparingModel(spec(stochastic=True)).install(monkeypatch)
    summary = upscale_scene(
        job_for(scene, samples=3, uncertainty=scene.with_name("u.tif"))
    )
    assert model.prepared == 3
    assert summary.figures["uncertainty"] == pytest.approx(0.02 * 0.6, rel=0.4)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"),
        MemoryError(),
    ],
)
def test_the_batch_is_halved_until_it_fits(scene, monkeypatch, caplog, error):
    model = FakeModel()

    def greedy(sr: torch.Tensor, batch) -> torch.Tensor:
        if len(batch.lr) > 2:
            raise error
        return sr

    model.twist = greedy
    model.install(monkeypatch)
    sr = result(scene, batch_size=5, tile_size=16)
    assert max(model.batches) == 5
    assert model.batches.count(5) == 1
    assert set(model.batches[2:]) <= {1, 2}
    assert "out of memory with 5 tiles at once; going on with 2" in caplog.text
    model.twist = lambda sr, batch: sr
    same = result(scene, "b.tif", batch_size=1, tile_size=16)
    np.testing.assert_array_equal(sr, same)


def test_a_tile_that_never_fits_ends_the_run(scene, monkeypatch):
    def greedy(sr: torch.Tensor, batch) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    FakeModel(twist=greedy).install(monkeypatch)
    with pytest.raises(ResourceError, match="smaller tiles") as error:
        upscale_scene(job_for(scene))
    assert error.value.remedies == ("tile_size",)
    assert not scene.with_name("out.tif").exists()


def test_other_errors_of_the_model_are_not_taken_for_memory(scene, monkeypatch):
    def broken(sr: torch.Tensor, batch) -> torch.Tensor:
        raise RuntimeError("shapes do not match")

    FakeModel(twist=broken).install(monkeypatch)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        upscale_scene(job_for(scene))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nan_from_the_model_names_the_tile_and_writes_nothing(scene, monkeypatch, bad):
    def spoil(sr: torch.Tensor, batch) -> torch.Tensor:
        for pixels, window in zip(sr, batch.windows_lr, strict=True):
            if window.intersection(PixelWindow(40, 40, 1, 1)):
                pixels[0, 5, 5] = bad
        return sr

    FakeModel(twist=spoil).install(monkeypatch)
    with pytest.raises(ModelOutputError, match=r"tile \d, \d \(LR rows") as error:
        upscale_scene(job_for(scene))
    assert error.value.exit_code == 7
    assert not scene.with_name("out.tif").exists()


def test_a_wrong_shape_from_the_model_is_refused(scene, monkeypatch):
    FakeModel(twist=lambda sr, batch: sr[..., 1:]).install(monkeypatch)
    with pytest.raises(ModelOutputError, match="shape"):
        upscale_scene(job_for(scene))


def test_the_model_runs_in_inference_mode(scene, monkeypatch):
    modes: list[bool] = []

    def watch(sr: torch.Tensor, batch) -> torch.Tensor:
        modes.append(torch.is_inference_mode_enabled())
        return sr

    FakeModel(twist=watch).install(monkeypatch)
    upscale_scene(job_for(scene))
    assert modes
    assert all(modes)


def test_tiles_without_valid_pixels_never_reach_the_model(tmp_path, monkeypatch):
    pixels = textured(48, 48)
    pixels[:, :, 20:] = 0
    scene = make_scene(tmp_path / "s.tif", pixels=pixels, nodata=0)
    model = FakeModel()
    model.install(monkeypatch)
    summary = upscale_scene(job_for(scene, stretch="0,3000", tile_size=16, overlap=6))
    assert summary.skipped > 0
    assert sum(model.batches) == summary.tiles - summary.skipped


def test_pieces_that_are_finished_in_several_threads_keep_their_order(
    scene, monkeypatch
):
    FakeModel().install(monkeypatch)
    wanted = result(scene, "wanted.tif", tile_size=16, overlap=6)
    push, numbers = Finisher.push, itertools.count()
    seen = set()

    def slow_at_first(*given):
        time.sleep(0.02 if next(numbers) % 4 == 0 else 0)
        seen.add(threading.get_ident())
        return push(*given)

    monkeypatch.setattr(Finisher, "push", slow_at_first)
    monkeypatch.setenv("GDAL_NUM_THREADS", "16")
    found = result(scene, "found.tif", tile_size=16, overlap=6)
    np.testing.assert_array_equal(found, wanted)
    assert len(seen) > 1


@pytest.mark.parametrize("threads", ["1", "16"])
def test_an_error_while_finishing_reaches_the_caller(scene, monkeypatch, threads):
    FakeModel().install(monkeypatch)
    push, numbers = Finisher.push, itertools.count()

    def fail_once(*given):
        if next(numbers) == 3:
            raise MemoryError("no room for a piece")
        return push(*given)

    monkeypatch.setattr(Finisher, "push", fail_once)
    monkeypatch.setenv("GDAL_NUM_THREADS", threads)
    with pytest.raises(MemoryError, match="no room"):
        result(scene, tile_size=16, overlap=6)
    assert not scene.with_name("out.tif").exists()
    monkeypatch.setattr(Finisher, "push", push)
    result(scene, tile_size=16, overlap=6)  # goes on, with every strip
