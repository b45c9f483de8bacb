"""The whole chain with models that have no weights: pixels, bands, and refusals."""

from __future__ import annotations

import json
import logging
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine

from rsupres.errors import BandError, RsupresError
from rsupres.families.base import SamplerOptions, SceneContext
from rsupres.products.sentinel2 import MIN_MTF
from rsupres.raster.dataset import Raster
from rsupres.upscaling.pipeline import upscale_scene
from rsupres.upscaling.preparation.requirements import sampler_options
from tests.fakes import RANGE, FakeModel, spec
from tests.helpers import make_scene, read
from tests.upscaling.scenes import job_for, result, textured


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
        ("S2B_MSIL1C_20230818.tif", 10.0, MIN_MTF),
        ("sentinel2_town.tif", 9.3, MIN_MTF),
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
