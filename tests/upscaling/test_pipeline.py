"""The whole chain with models that have no weights."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st

from rsupres.diffusion.noise import NoiseField
from rsupres.errors import (
    BandError,
    InputError,
    ModelOutputError,
    QualityGateError,
    ResourceError,
    RsupresError,
)
from rsupres.families.base import SamplerOptions, SceneContext
from rsupres.grid import PixelWindow
from rsupres.output.tiff.strip import StripWriter
from rsupres.products.sentinel2 import LEAST_MTF
from rsupres.raster.dataset import Raster
from rsupres.upscaling.job import UpscaleJob
from rsupres.upscaling.outputs import INTERVAL, interval_reach
from rsupres.upscaling.pipeline import finish_run, upscale_scene
from rsupres.upscaling.preparation.context import context_of
from rsupres.upscaling.preparation.requirements import sampler_options
from tests.fakes import RANGE, FakeModel, PreparingModel, SureModel, noisy, spec
from tests.helpers import make_scene
from tests.strategies import COSTLY


def textured(height: int = 60, width: int = 50, bands: int = 3) -> np.ndarray:
    rng = np.random.default_rng(3)
    return rng.integers(300, 3000, (bands, height, width)).astype(np.uint16)


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    pixels = textured()
    pixels[:, 12:30, 5:25] = 0
    pixels[0, 40, 40] = 14000  # beyond the stretch
    return make_scene(
        tmp_path / "scene.tif",
        pixels=pixels,
        nodata=0,
        descriptions=("B04", "B03", "B02"),
    )


def job_for(scene: Path, name: str = "out.tif", **options: object) -> UpscaleJob:
    options = {"scale": Fraction(2), "model": "fake", **options}
    return UpscaleJob(scenes=(str(scene),), output=scene.with_name(name), **options)


def read(path: Path) -> np.ndarray:
    with rasterio.open(path) as dataset:
        return dataset.read()


def result(scene: Path, name: str = "out.tif", **options: object) -> np.ndarray:
    job = job_for(scene, name, **options)
    upscale_scene(job)
    return read(job.output)


# --- what comes out ------------------------------------------------------------------


@pytest.mark.parametrize("scale", [Fraction(2), Fraction(5, 2), Fraction(10, 3)])
def test_a_model_without_effect_gives_the_interpolated_scene_whatever_the_tiles(
    scene, monkeypatch, scale
):
    FakeModel().install(monkeypatch)
    steps = {Fraction(10, 3): (24, 12)}.get(scale, (16, 6))
    small = result(scene, "a.tif", scale=scale, tile_size=steps[0], overlap=steps[1])
    whole = result(scene, "b.tif", scale=scale, tile_size=60, overlap=12)
    assert small.shape == (3, int(60 * scale), int(50 * scale))
    np.testing.assert_array_equal(small == 0, whole == 0)
    # Filled pixels differ from valid ones only beyond the halo; rounding may differ.
    assert np.abs(small.astype(int) - whole).max() <= 1


def test_invalid_pixels_are_nodata_exactly_where_they_were(scene, monkeypatch):
    FakeModel().install(monkeypatch)
    sr = result(scene)
    hole = np.zeros((120, 100), bool)
    hole[24:60, 10:50] = True
    np.testing.assert_array_equal((sr == 0).all(axis=0), hole)
    np.testing.assert_array_equal((sr == 0).any(axis=0), hole)


def test_values_beyond_the_stretch_are_carried(scene, monkeypatch):
    seen: list[float] = []

    def watch(sr: torch.Tensor, batch) -> torch.Tensor:
        seen.append(float(batch.lr.max()))
        return sr

    FakeModel(twist=watch).install(monkeypatch)
    sr = result(scene, dtype="float32")
    assert max(seen) == 1.0
    # Bicubic interpolation at the quarter points around the bright pixel.
    assert sr[0, 80:82, 80:82].min() > 10000


def test_a_model_sees_only_its_own_roles_in_its_order(tmp_path, monkeypatch):
    pixels = textured(20, 20, 4)
    scene = make_scene(
        tmp_path / "s.tif", pixels=pixels, descriptions=("B02", "B03", "B04", "B08")
    )
    seen: list[torch.Tensor] = []

    def watch(sr: torch.Tensor, batch) -> torch.Tensor:
        seen.append(batch.lr.clone())
        return sr * 0 + torch.tensor([0.1, 0.2, 0.3])[:, None, None]

    roles = ("red", "green", "blue")
    FakeModel(spec(bands=roles, tile_size=20), watch).install(monkeypatch)
    sr = result(scene)
    np.testing.assert_allclose(seen[0][0].numpy() * 10000, pixels[[2, 1, 0]], atol=0.01)
    # The file's order: blue, green, red, and near infrared by bicubic interpolation.
    assert [int(band.max()) for band in sr[:3]] == [3000, 2000, 1000]
    assert sr[3].std() > 100


def test_skipping_other_bands_gives_the_models_order(tmp_path, monkeypatch):
    scene = make_scene(
        tmp_path / "s.tif",
        pixels=textured(20, 20, 4),
        descriptions=("B02", "B03", "B04", "B08"),
    )
    FakeModel(spec(bands=("red", "green"), tile_size=20)).install(monkeypatch)
    job = job_for(scene, other_bands="skip")
    upscale_scene(job)
    with rasterio.open(job.output) as dataset:
        assert dataset.descriptions == ("B04", "B03")


@pytest.mark.parametrize(
    ("options", "seen_bands"),
    [
        ({}, (1, 2, 3, 4)),
        ({"bidx": (3, 2)}, (3, 2, 1, 4)),
        ({"named_bands": (("red", 3), ("nir", 4))}, (3, 4, 1, 2)),
        ({"bidx": (3, 2), "other_bands": "model"}, (3, 2, 1, 4)),
        ({"bidx": (3, 2), "other_bands": "cubic"}, (3, 2)),
        ({"bidx": (3, 2), "other_bands": "skip"}, (3, 2)),
    ],
)
def test_a_model_of_any_bands_sees_those_chosen_first_and_then_the_rest(
    tmp_path, monkeypatch, options, seen_bands
):
    pixels = np.full((4, 20, 20), 1000, np.uint16) * np.arange(1, 5)[:, None, None]
    scene = make_scene(tmp_path / "s.tif", pixels=pixels.astype(np.uint16))
    seen = []

    def watch(sr: torch.Tensor, batch) -> torch.Tensor:
        seen.append(batch.lr[0, :, 0, 0])
        return sr

    FakeModel(spec(tile_size=20), watch).install(monkeypatch)
    sr = result(scene, stretch="0,10000", **options)
    np.testing.assert_allclose(seen[0].numpy() * 10, seen_bands, rtol=1e-5)
    is_left_out = options.get("other_bands") == "skip"
    written = [3000, 2000] if is_left_out else [1000, 2000, 3000, 4000]
    assert sr[:, 5, 5].tolist() == written


def test_a_model_may_look_beyond_the_stretch(scene, monkeypatch):
    peaks = []

    def watch(sr: torch.Tensor, batch) -> torch.Tensor:
        peaks.append(float(batch.lr.max()))
        return sr

    FakeModel(spec(unclipped=True), watch).install(monkeypatch)
    summary = upscale_scene(job_for(scene))
    assert max(peaks) == pytest.approx(1.4)
    assert summary.figures["clipped"] == 0
    FakeModel(twist=watch).install(monkeypatch)
    peaks.clear()
    assert upscale_scene(job_for(scene, "c.tif")).figures["clipped"] > 0
    assert max(peaks) == 1.0


def test_what_a_model_finds_in_the_scene_is_in_the_tags(scene, monkeypatch):
    model = FakeModel()
    found = SceneContext(numbers={"found_sensor_mtf": 0.25, "own": 3.0})
    monkeypatch.setattr(model, "prepare", lambda *args: found)
    model.install(monkeypatch)
    upscale_scene(job_for(scene))
    with rasterio.open(scene.with_name("out.tif")) as dataset:
        tags = dataset.tags()
    assert tags["RSUPRES_FOUND_SENSOR_MTF"] == "0.25"
    assert "RSUPRES_OWN" not in tags


def test_a_model_of_given_bands_takes_no_others(scene, monkeypatch):
    FakeModel(spec(bands=("red",))).install(monkeypatch)
    with pytest.raises(BandError, match="takes red only"):
        result(scene, other_bands="model")


def test_injected_bands_get_the_models_detail_in_proportion(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    fine = rng.normal(0, 200, (24, 24))
    pixels = np.stack([3000 + fine, 2000 + 0.5 * fine]).astype(np.uint16)
    scene = make_scene(tmp_path / "s.tif", pixels=pixels, descriptions=("B04", "B08"))

    def add_grid(sr: torch.Tensor, batch) -> torch.Tensor:
        sr = sr.clone()
        sr[..., ::2] += 0.02
        return sr

    FakeModel(spec(bands=("red",), tile_size=24), add_grid).install(monkeypatch)
    options = {"dtype": "float32"}
    plain = result(scene, "c.tif", other_bands="cubic", **options)
    inject = result(scene, "i.tif", other_bands="inject", **options)
    added = inject[1] - plain[1]
    np.testing.assert_allclose(added[:, ::2], 100, atol=3)  # 0.5 * 0.02 * 10000
    np.testing.assert_allclose(added[:, 1::2], 0, atol=3)
    np.testing.assert_array_equal(inject[0], plain[0])


@pytest.mark.parametrize(
    "scale", [pytest.param(Fraction(2), marks=pytest.mark.slow), Fraction(5, 2)]
)
def test_locking_makes_every_tiling_average_to_the_input(scene, monkeypatch, scale):
    def bend(sr: torch.Tensor, batch) -> torch.Tensor:
        return sr * 1.2 + 0.03

    FakeModel(twist=bend).install(monkeypatch)
    options = {
        "lock_low_frequencies": True,
        "dtype": "float32",
        "scale": scale,
        "nodata": -1.0,
    }
    summary = upscale_scene(job_for(scene, "a.tif", tile_size=16, **options))
    assert summary.figures["consistency"] < 1e-5
    upscale_scene(job_for(scene, "b.tif", tile_size=60, **options))
    difference = read(scene.with_name("a.tif")) - read(scene.with_name("b.tif"))
    assert np.abs(difference).max() < 0.1  # DN: tiles do not show
    loose = upscale_scene(job_for(scene, "c.tif", tile_size=16, scale=scale))
    assert loose.figures["consistency"] > 0.05


def test_locked_results_are_smooth_across_pixels(tmp_path, monkeypatch):
    """What is added must not be a staircase with the LR pixels as its steps."""
    rows = np.arange(24) * 100.0 + 1000
    pixels = np.broadcast_to(rows[:, None], (1, 24, 24)).astype(np.float32)
    scene = make_scene(tmp_path / "s.tif", pixels=pixels)

    def flatten(sr: torch.Tensor, batch) -> torch.Tensor:
        return sr * 0 + 0.25

    FakeModel(twist=flatten).install(monkeypatch)
    sr = result(scene, scale=Fraction(4), stretch="0,10000", lock_low_frequencies=True)
    steps = np.diff(sr[0, 20:-20, 40])
    np.testing.assert_allclose(steps, 25.0, rtol=0.05)


# --- noise and samples ---------------------------------------------------------------


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


# --- memory, damage ------------------------------------------------------------------


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
    sr = result(scene, batch_size=5)
    assert max(model.batches) == 5
    assert model.batches.count(5) == 1
    assert set(model.batches[2:]) <= {1, 2}
    assert "out of memory with 5 tiles at once; going on with 2" in caplog.text
    model.twist = lambda sr, batch: sr
    np.testing.assert_array_equal(sr, result(scene, "b.tif", batch_size=1))


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


# --- resume and shards ---------------------------------------------------------------


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
    scene = make_scene(tmp_path / "s.tif", pixels=textured(330, 26, 1), nodata=0)
    options = {"model": "bicubic", "scale": Fraction(4), "tile_size": 64}
    upscale_scene(job_for(scene, "whole.tif", **options))
    monkeypatch.setattr("rsupres.output.tiff.packets.PACKED_BYTES", 0)
    for shard in range(1, n_shards):
        upscale_scene(job_for(scene, shard=(shard, n_shards), **options))
    job = job_for(scene, **options)
    with monkeypatch.context() as patch:

        def stop_at_the_last(path: Path, *arguments: object) -> StripWriter:
            if path.name.startswith("0006"):
                raise Stop
            return StripWriter(path, *arguments)  # type: ignore[arg-type]

        patch.setattr("rsupres.upscaling.outputs.StripWriter", stop_at_the_last)
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


# --- refusals and warnings -----------------------------------------------------------


def test_pixel_sizes_and_scales_beyond_training_are_warned_about(
    scene, monkeypatch, caplog
):
    FakeModel(spec(gsd=(0.5, 2.0))).install(monkeypatch)
    with caplog.at_level(logging.WARNING):
        upscale_scene(job_for(scene, scale=Fraction(5)))
    assert "trained on 0.5 to 2 m" in caplog.text
    assert "beyond 4" in caplog.text


@pytest.mark.parametrize(
    ("values", "options", "text"),
    [
        ({"scales": RANGE}, {"scale": Fraction(9)}, "offers 1 to 8"),
        ({"needs": frozenset({"reference"})}, {}, "reference"),
        ({"bands": ("red", "thermal")}, {}, "thermal"),
        (
            {"stochastic": True},
            {"uncertainty": Path("u.tif")},
            "uncertainty needs at least two samples",
        ),
    ],
)
def test_jobs_that_a_model_cannot_do_are_refused(
    scene, monkeypatch, values, options, text
):
    FakeModel(spec(**values)).install(monkeypatch)
    with pytest.raises(RsupresError, match=text):
        upscale_scene(job_for(scene, **options))


def test_choices_about_the_model_reach_it(scene, monkeypatch):
    model = FakeModel(spec(stochastic=True, detail=True, steps=4)).install(monkeypatch)
    given: list[tuple[torch.device, SamplerOptions]] = []

    def load(name: str, device: torch.device, options: SamplerOptions) -> FakeModel:
        given.append((device, options))
        return model

    monkeypatch.setattr("rsupres.upscaling.preparation.model.load_model", load)
    upscale_scene(job_for(scene, steps=3, detail=0.5, precision="bf16", device="cpu"))
    options = SamplerOptions(steps=3, detail=0.5, precision="bf16", least_mtf=0.45)
    assert given == [(torch.device("cpu"), options)]


def test_what_is_known_of_the_sensor_reaches_the_model(scene, monkeypatch):
    model = FakeModel(spec(sensor=True)).install(monkeypatch)
    given: list[SamplerOptions] = []

    def load(name: str, device: torch.device, options: SamplerOptions) -> FakeModel:
        given.append(options)
        return model

    monkeypatch.setattr("rsupres.upscaling.preparation.model.load_model", load)
    job = job_for(scene, sensor_mtf=0.2, noise=50.0, stretch="0,1000")
    upscale_scene(job)
    assert given[0].sensor_mtf == 0.2
    assert given[0].noise == pytest.approx(0.05)
    with rasterio.open(job.output) as dataset:
        assert dataset.tags()["RSUPRES_SENSOR_MTF"] == "0.2"
        assert dataset.tags()["RSUPRES_NOISE"] == "50"


@pytest.mark.parametrize(
    ("name", "gsd", "least"),
    [
        ("S2B_MSIL1C_20230818.tif", 10.0, LEAST_MTF),
        ("sentinel2_town.tif", 9.3, LEAST_MTF),
        ("sentinel2_reduced.tif", 20.0, None),
        ("town.tif", 10.0, None),
    ],
)
def test_a_scene_of_a_known_platform_is_not_taken_for_softer(
    tmp_path, name, gsd, least
):
    grid = Affine(gsd, 0.0, 500000.0, 0.0, -gsd, 5200000.0)
    path = make_scene(tmp_path / name, transform=grid)
    job = job_for(path, lock_low_frequencies=True)
    with Raster.open(str(path)) as opened:
        options = sampler_options(job, "cpu", opened, span=1.0)
    assert options.least_mtf == least
    assert options.lock


def test_tags_tell_how_the_output_was_made(scene, monkeypatch):
    FakeModel(spec(stochastic=True, detail=True, steps=4)).install(monkeypatch)
    job = job_for(scene, seed=7, steps=2, detail=0.5)
    upscale_scene(job)
    with rasterio.open(job.output) as dataset:
        tags = dataset.tags()
    assert tags["RSUPRES_SEED"] == "7"
    assert tags["RSUPRES_STEPS"] == "2"
    assert tags["RSUPRES_DETAIL"] == "0.5"
    assert json.loads(tags["RSUPRES_STRETCH"])["high"] == [10000.0] * 3


def test_a_failed_gate_is_known_after_a_resume_too(scene, monkeypatch):
    FakeModel(twist=lambda sr, batch: sr + 0.1).install(monkeypatch)
    upscale_scene(job_for(scene, shard=(1, 2)))
    job = job_for(scene, shard=(2, 2), fail_if=("consistency>5%",))
    with pytest.raises(QualityGateError, match=r"consistency = 0\.1"):
        upscale_scene(job)
    assert job.output.exists()


def test_progress_ends_with_everything_done(scene, monkeypatch):
    FakeModel().install(monkeypatch)
    steps = []
    upscale_scene(job_for(scene), on_progress=steps.append)
    tiles = [step for step in steps if step.phase == "Tiles"]
    assert [step.done for step in tiles] == list(range(tiles[-1].total + 1))
    assert steps[-1].phase == "Write"


def test_a_rotated_scene_stays_on_its_ground(tmp_path, monkeypatch):
    turned = Affine(8.0, 3.0, 400000.0, 3.0, -8.0, 5000000.0)
    scene = make_scene(tmp_path / "s.tif", pixels=textured(20, 24), transform=turned)
    FakeModel().install(monkeypatch)
    job = job_for(scene)
    upscale_scene(job)
    with rasterio.open(job.output) as dataset:
        assert dataset.transform @ (24, 20) == pytest.approx(turned @ (12, 10))


def test_contexts_are_kept_apart_by_sample():
    from rsupres.families.base import SceneContext

    whole = SceneContext({"s0_a": np.zeros(1), "s1_a": np.ones(1)}, {"s1_n": 2.0})
    part = context_of(whole, 1)
    assert list(part.arrays) == ["a"]
    assert part.arrays["a"][0] == 1
    assert part.numbers == {"n": 2.0}
    assert NoiseField(0, 1) != NoiseField(0)
