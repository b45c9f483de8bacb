"""Conditions on their way from files to a model, through the whole chain."""

from __future__ import annotations

import json
import logging
import shutil
import threading
import warnings
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
from shapely.geometry import Polygon

from rsupres.checkpoints.catalogue import Card
from rsupres.checkpoints.file import spec_from_json, spec_to_json
from rsupres.cli.plan import describe
from rsupres.conditions.base import ConditionRequest
from rsupres.conditions.open import ConditionSet
from rsupres.conditions.styles import open_styles
from rsupres.errors import BandError, ConditionError, InputError, RunConflictError
from rsupres.families.base import STYLE_SIDE, Conditions, SamplerOptions
from rsupres.grid import PixelWindow
from rsupres.upscaling import inference
from rsupres.upscaling.estimates.planning import plan_job
from rsupres.upscaling.job import UpscaleJob
from rsupres.upscaling.pipeline import finish_run, upscale_scene
from rsupres.upscaling.preparation.requirements import check_conditions
from tests.fakes import LookingModel, noisy, spec
from tests.helpers import NORTH_UP, UTM, make_scene, write_vector
from tests.pictures import texture

SR = NORTH_UP @ Affine.scale(0.5)
LOOKS = frozenset({"reference", "vector_map", "style", "change_mask"})


GROUND = texture(120, 100, 1)  # the SR grid


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    unit = GROUND.reshape(3, 60, 2, 50, 2).mean((2, 4))
    pixels = np.round(unit * 6000).astype(np.uint16)
    pixels[:, 12:30, 5:25] = 0
    return make_scene(
        tmp_path / "scene.tif",
        pixels=pixels,
        nodata=0,
        descriptions=("B04", "B03", "B02"),
    )


@pytest.fixture
def reference(tmp_path: Path) -> Path:
    """On the SR grid, with a hole; displaced by 1 and 3 SR pixels."""
    pixels = np.round(np.roll(GROUND, (1, 3), (1, 2)) * 255).astype(np.uint8)
    pixels[:, 70:90, 60:] = 0
    return make_scene(
        tmp_path / "ref_2020-05-06.tif", pixels=pixels, transform=SR, nodata=0
    )


@pytest.fixture
def roads(tmp_path: Path) -> Path:
    """A map: one building in UTM coordinates, and one road."""
    x, y = NORTH_UP.c, NORTH_UP.f
    ring = [
        [x + 100, y - 100],
        [x + 200, y - 100],
        [x + 200, y - 180],
        [x + 100, y - 180],
    ]
    features = [
        {
            "type": "Feature",
            "properties": {"building": "yes"},
            "geometry": {"type": "Polygon", "coordinates": [[*ring, ring[0]]]},
        },
        {
            "type": "Feature",
            "properties": {"highway": "primary"},
            "geometry": {
                "type": "LineString",
                "coordinates": [[x + 10, y - 300], [x + 480, y - 320]],
            },
        },
    ]
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32633"}}
    text = {"type": "FeatureCollection", "crs": crs, "features": features}
    path = tmp_path / "map.geojson"
    path.write_text(json.dumps(text))
    return path


def looking(monkeypatch, needs: tuple[str, ...] = (), **values: object) -> LookingModel:
    plain = {"bands": ("red", "green", "blue"), "accepts": LOOKS, **values}
    return LookingModel(spec(needs=frozenset(needs), **plain)).install(monkeypatch)


def job_for(scene: Path, name: str = "out.tif", **options: object) -> UpscaleJob:
    tiles = {"tile_size": 16, "overlap": 6}
    options = {"scale": Fraction(2), "model": "fake", **tiles, **options}
    for key in ("reference", "vector_map"):
        if key in options:
            options[key] = (str(options[key]),)
    return UpscaleJob(scenes=(str(scene),), output=scene.with_name(name), **options)


def read(path: Path) -> np.ndarray:
    with rasterio.open(path) as dataset:
        return dataset.read()


def tags_of(path: Path) -> dict[str, str]:
    with rasterio.open(path) as dataset:
        return dataset.tags()


# --- what a model sees ---------------------------------------------------------------


def test_each_tile_sees_its_own_cut_of_the_reference(scene, reference, monkeypatch):
    model = looking(monkeypatch)
    upscale_scene(job_for(scene, reference=reference))
    truth = read(reference)
    n_seen = 0
    for batch in model.seen:
        assert batch.reference.dtype == torch.float32
        assert batch.reference_valid.dtype == torch.bool
        assert batch.vector_map is batch.change_mask is batch.style is None
        for unit, valid in zip(batch.reference, batch.reference_valid, strict=True):
            window = model.windows[n_seen]
            cut = truth[:, *window.slices()]
            np.testing.assert_array_equal(valid[0], cut[0] > 0)
            np.testing.assert_allclose(unit, cut / 255, atol=1e-6)
            n_seen += 1
    assert n_seen == len(model.windows) > 20
    assert sum(model.batches) == n_seen


def test_a_missing_part_is_told_and_never_shown_as_black(scene, reference, monkeypatch):
    model = looking(monkeypatch)
    upscale_scene(job_for(scene, reference=reference, dtype="float32"))
    hidden = [batch for batch in model.seen if not bool(batch.reference_valid.all())]
    assert hidden
    for batch in hidden:
        inside = ~batch.reference_valid.expand_as(batch.reference)
        assert (batch.reference[inside] == 0).all()
        assert (batch.reference[~inside] > 0.05).all()


def test_a_map_arrives_as_legend_colours_on_the_right_ground(scene, roads, monkeypatch):
    model = looking(monkeypatch)
    upscale_scene(job_for(scene, vector_map=roads, legend="maptiler"))
    whole = model.prepared[0].vector_map[0].numpy()
    assert whole.shape == (3, 120, 100)
    assert 0 <= whole.min() < whole.max() <= 1
    background = whole[:, 2, 2]
    building = whole[:, 20:36, 20:40]  # 5 m pixels; 100 m to 200 m, 100 m to 180 m
    assert np.ptp(building.reshape(3, -1), axis=1).max() == 0
    assert (np.abs(whole[:, 18, 30] - building[:, 0, 0]) > 0).any()
    assert (np.abs(building[:, 0, 0] - background) > 0).any()
    road = whole[:, 62, 50]
    assert (np.abs(road - background) > 0).any()
    for number, window in enumerate(model.windows):
        tile = torch.cat([batch.vector_map for batch in model.seen])[number]
        np.testing.assert_array_equal(tile, whole[:, *window.slices()])


def test_layers_of_the_legend_are_left_out(scene, roads, monkeypatch):
    model = looking(monkeypatch)
    upscale_scene(job_for(scene, vector_map=roads, layers=("building",)))
    whole = model.prepared[0].vector_map[0].numpy()
    assert (whole[:, 62, 50] == whole[:, 2, 2]).all()
    assert (whole[:, 25, 30] != whole[:, 2, 2]).any()


def test_a_models_legend_is_the_default(scene, roads, monkeypatch):
    pictures = []
    for values in ({}, {"legend": "osm-carto"}):
        model = looking(monkeypatch, **values)
        upscale_scene(job_for(scene, vector_map=roads, overwrite=True))
        pictures.append(model.prepared[0].vector_map)
    assert (pictures[0] != pictures[1]).any()


def test_a_legend_of_codes_is_refused(scene, roads, monkeypatch):
    looking(monkeypatch)
    with pytest.raises(ConditionError, match="legend classes: draws codes"):
        upscale_scene(job_for(scene, vector_map=roads, legend="classes"))


def test_preparing_sees_the_whole_reference_and_the_style(
    scene, reference, tmp_path, monkeypatch
):
    style = make_scene(tmp_path / "style.tif", 30, 40, dtype="uint8", crs=None)
    model = looking(monkeypatch)
    upscale_scene(job_for(scene, reference=reference, style=str(style)))
    seen = model.prepared[0]
    truth = read(reference) / 255
    np.testing.assert_allclose(seen.reference[0], truth, atol=1e-6)
    assert seen.style.shape == (3, 30, 40)
    np.testing.assert_allclose(model.seen[0].style, read(style) / 255, atol=1e-6)
    assert all((batch.style == model.seen[0].style).all() for batch in model.seen)


def test_padding_beyond_the_scene_is_reflected(scene, reference, monkeypatch):
    # Tiles must be multiples of 16 SR pixels, the scene has 100 columns.
    model = looking(monkeypatch, multiple=16, halo=1)
    upscale_scene(job_for(scene, reference=reference, tile_size=16, overlap=8))
    whole = model.prepared[0].reference[0].numpy()
    assert whole.shape == (3, 128, 112)
    np.testing.assert_array_equal(whole[:, :, 100:112], whole[:, :, 88:100][:, :, ::-1])
    np.testing.assert_array_equal(whole[:, 120:128], whole[:, 112:120][:, ::-1])


class _Positions:
    """A condition whose value is its position."""

    def read(self, window: PixelWindow) -> np.ndarray:
        assert window.row >= 0 <= window.col
        assert window.row_stop <= 7
        assert window.col_stop <= 9
        rows = np.arange(window.row, window.row_stop, dtype=np.uint8)[:, None]
        cols = np.arange(window.col, window.col_stop, dtype=np.uint8)
        return (rows * 16 + cols)[None]

    def fingerprint(self) -> dict[str, object]:
        return {}

    def describe(self) -> str:
        return ""


@given(st.tuples(st.integers(-30, 30), st.integers(-30, 30)), st.integers(1, 25))
def test_any_window_is_a_cut_of_the_reflected_frame(corner, side):
    conditions = ConditionSet(PixelWindow(0, 0, 7, 9), {"change_mask": _Positions()})
    row, col = corner
    got = conditions.read(PixelWindow(row, col, side, side))["change_mask"][0]
    frame = _Positions().read(PixelWindow(0, 0, 7, 9))[0]
    wide = np.pad(frame, 70, mode="symmetric")
    np.testing.assert_array_equal(
        got, wide[70 + row : 70 + row + side, 70 + col : 70 + col + side]
    )


def test_nothing_given_costs_and_shows_nothing(scene, monkeypatch):
    model = looking(monkeypatch)
    upscale_scene(job_for(scene))
    assert all(batch == Conditions() for batch in [*model.seen, *model.prepared])
    assert not any(
        k.startswith("RSUPRES_REF") for k in tags_of(scene.with_name("out.tif"))
    )


# --- change masks --------------------------------------------------------------------


def mask_of(model: LookingModel) -> np.ndarray:
    seen = model.prepared[-1].change_mask
    assert seen.dtype == torch.uint8
    return seen[0, 0].numpy()


def test_a_class_raster_arrives_as_codes_on_the_sr_grid(scene, tmp_path, monkeypatch):
    codes = np.zeros((1, 60, 50), np.uint8)
    codes[:, 5:15, 20:30] = 3
    codes[:, 40:, :10] = 255
    path = make_scene(tmp_path / "mask.tif", pixels=codes, nodata=255)
    model = looking(monkeypatch)
    upscale_scene(job_for(scene, change_mask=str(path)))
    whole = mask_of(model)
    np.testing.assert_array_equal(whole, codes[0].repeat(2, 0).repeat(2, 1))
    tiles = torch.cat([batch.change_mask for batch in model.seen])
    assert tiles.dtype == torch.uint8
    for tile, window in zip(tiles, model.windows, strict=True):
        np.testing.assert_array_equal(tile[0], whole[window.slices()])
    marks = json.loads(tags_of(scene.with_name("out.tif"))["RSUPRES_CHANGE_MASK"])
    assert marks["files"][0]["file"] == "mask.tif"


def polygon_mask(tmp_path: Path) -> Path:
    """A square from 100 m to 200 m in both directions, of class 4 by `cover`."""
    x, y = NORTH_UP.c, NORTH_UP.f
    near, far = (100, -100), (200, -200)
    corners = [
        (near[0], near[1]),
        (far[0], near[1]),
        (far[0], far[1]),
        (near[0], far[1]),
    ]
    ring = [[x + east, y + north] for east, north in [*corners, corners[0]]]
    feature = {
        "type": "Feature",
        "properties": {"cover": 4},
        "geometry": {"type": "Polygon", "coordinates": [ring]},
    }
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32633"}}
    path = tmp_path / "changed.geojson"
    path.write_text(
        json.dumps({"type": "FeatureCollection", "crs": crs, "features": [feature]})
    )
    return path


def test_polygons_mean_changed_or_the_class_that_they_tell(
    scene, tmp_path, monkeypatch
):
    model = looking(monkeypatch)
    path = str(polygon_mask(tmp_path))
    square = np.zeros((120, 100), bool)
    square[20:40, 20:40] = True
    for options, value in (
        ({}, 1),
        ({"class_attribute": "cover", "class_table": "second"}, 4),
    ):
        upscale_scene(job_for(scene, change_mask=path, overwrite=True, **options))
        np.testing.assert_array_equal(mask_of(model), square * value)


def test_what_is_wrong_with_a_mask_names_the_arguments_of_a_job(
    scene, tmp_path, monkeypatch
):
    looking(monkeypatch)
    job = job_for(scene, change_mask=str(polygon_mask(tmp_path)), class_table="second")
    with pytest.raises(ConditionError, match="no effect without") as caught:
        upscale_scene(job)
    assert caught.value.argument == "class_table"
    assert caught.value.remedies == ("class_attribute",)


@pytest.mark.parametrize("coregister", [False, True])
def test_change_is_detected_between_the_reference_and_the_scene(
    tmp_path, monkeypatch, coregister
):
    before = texture(160, 160, 8, bands=4)
    after = before.copy()
    after[:, 60:90, 60:90] = texture(30, 30, 9, bands=4) * 0.3 + 0.6
    small = after.reshape(4, 80, 2, 80, 2).mean((2, 4))
    names = ("B04", "B03", "B02", "B08")
    scene = make_scene(
        tmp_path / "scene.tif",
        pixels=np.round(small * 5000).astype(np.uint16),
        descriptions=names,
    )
    reference = make_scene(
        tmp_path / "r.tif",
        pixels=np.round(np.roll(before, (3, -2), (1, 2)) * 255).astype(np.uint8),
        descriptions=names,
        transform=SR if coregister else SR @ Affine.translation(2, -3),
    )
    model = looking(monkeypatch)
    upscale_scene(
        job_for(scene, reference=reference, change_mask="detect", coregister=coregister)
    )
    mask = mask_of(model)[8:-8, 8:-8] == 1
    truth = np.zeros((160, 160), bool)
    truth[60:90, 60:90] = True
    truth = truth[8:-8, 8:-8]
    assert (mask & truth).sum() > 0.6 * truth.sum()
    assert (mask & ~truth).sum() < 0.02 * truth.size


# --- runs ----------------------------------------------------------------------------


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


@pytest.mark.parametrize("change_mask", ["roads", "detect"])
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


# --- what is refused, and what is said -----------------------------------------------


@pytest.mark.parametrize(
    ("options", "values", "text"),
    [
        ({"reference": "r.tif"}, {"accepts": frozenset()}, "does not look at a refer"),
        ({}, {"needs": ("reference",)}, r"needs a reference image\.$"),
        ({}, {"needs": ("vector_map",)}, "needs a vector map"),
        ({"style_sample": True}, {"accepts": frozenset()}, "draws no style"),
        ({"coregister": True}, {}, "coregister needs a reference image"),
        ({"fill_reference": True}, {}, "fill_reference needs a reference image"),
        ({"legend": "maptiler"}, {}, "legend needs a vector map"),
        ({"layers": ("road",)}, {}, "layers needs a vector map"),
        ({"class_table": "second"}, {}, "class_table needs a change mask"),
        ({"class_attribute": "c"}, {}, "class_attribute needs a change mask"),
        ({"change_mask": "detect"}, {}, "change_mask=detect needs a reference"),
        ({"style": "s.tif", "style_sample": True}, {}, "style_sample draws a style"),
    ],
)
def test_conditions_that_do_not_fit_the_model_are_refused(
    scene, monkeypatch, options, values, text
):
    looking(monkeypatch, **values)
    with pytest.raises(ConditionError, match=text):
        upscale_scene(job_for(scene, **options))
    assert not scene.with_name("out.tif.run").exists()


def test_models_that_accept_a_condition_are_named(scene, monkeypatch):
    looks = Card("looks", spec(accepts=frozenset({"reference"})))
    needs = Card("needs", spec(needs=frozenset({"reference"})))
    blind = Card("blind", spec())
    absent = Card("absent", spec(accepts=frozenset({"reference"})), file=Path("/no"))
    monkeypatch.setattr(
        "rsupres.upscaling.preparation.requirements.list_cards",
        lambda: [blind, looks, needs, absent],
    )
    job = job_for(scene, reference="r.tif")
    with pytest.raises(ConditionError, match=r"these do: looks, needs\."):
        check_conditions(job, blind.spec, "blind")
    with pytest.raises(ConditionError, match="no model on this machine does"):
        check_conditions(job_for(scene, style="s.tif"), blind.spec, "blind")


def test_a_drawn_style_serves_a_model_that_needs_one(scene, monkeypatch):
    model = looking(monkeypatch, needs=("style",))
    options: list[SamplerOptions] = []

    def load(name: str, device: torch.device, chosen: SamplerOptions) -> LookingModel:
        options.append(chosen)
        return model

    monkeypatch.setattr("rsupres.upscaling.preparation.model.load_model", load)
    upscale_scene(job_for(scene, style_sample=True))
    assert options[0].style_sample is True
    assert tags_of(scene.with_name("out.tif"))["RSUPRES_STYLE_SAMPLE"] == "yes"


def test_a_sampler_reaches_a_model_that_samples_only(scene, monkeypatch):
    looking(monkeypatch)
    with pytest.raises(InputError, match="sampler heun"):
        upscale_scene(job_for(scene, sampler="heun"))


def test_a_spec_keeps_its_legend_and_classes():
    full = spec(legend="maptiler", classes="second", accepts=LOOKS)
    assert spec_from_json(json.loads(json.dumps(spec_to_json(full)))) == full
    old = {
        k: v for k, v in spec_to_json(spec()).items() if k not in ("legend", "classes")
    }
    assert spec_from_json(old) == spec()


@pytest.mark.usefixtures("patient")
def test_a_plan_shows_conditions_their_cost_and_what_is_refused(
    scene, reference, monkeypatch
):
    looking(monkeypatch)
    plan = plan_job(job_for(scene, reference=reference))
    assert plan.exit_code == 0
    assert "ref_2020-05-06.tif (2020-05-06); covers" in plan.conditions["reference"]
    assert plan.conditions_s > 0
    assert plan.duration_s is None  # the model was not measured
    text = describe(plan, ())
    assert "reference  ref_2020-05-06.tif" in text
    assert "of it for conditions" in text
    bare = plan_job(job_for(scene))
    assert plan.memory_bytes > bare.memory_bytes
    assert not bare.conditions
    assert "conditions" not in describe(bare, ())
    assert not scene.with_name("out.tif.run").exists()
    refused = plan_job(job_for(scene, reference="/no/such.tif"))
    assert refused.exit_code == 3
    assert "such.tif" in str(refused.refusals[0])


# --- styles --------------------------------------------------------------------------


def test_a_style_keeps_its_pixels_and_loses_its_rim(tmp_path):
    pixels = np.random.default_rng(0).integers(1, 255, (3, 1100, 40)).astype(np.uint8)
    path = make_scene(tmp_path / "s.tif", pixels=pixels, crs=None)
    image = open_styles(str(path), ("red", "green", "blue"), 3).pick(0)
    assert image.dtype == np.float32
    middle = pixels[:, 38 : 38 + STYLE_SIDE]
    np.testing.assert_allclose(image, middle / 255, atol=1e-6)


def test_nodata_of_a_style_is_filled(tmp_path):
    pixels = np.full((3, 40, 40), 100, np.uint8)
    pixels[:, :10] = 0
    path = make_scene(tmp_path / "s.tif", pixels=pixels, nodata=0)
    image = open_styles(str(path), ("red", "green", "blue"), 3).pick(0)
    np.testing.assert_allclose(image, 100 / 255, atol=1e-6)


def test_the_seed_and_the_sample_choose_from_a_folder(scene, tmp_path, monkeypatch):
    folder = tmp_path / "styles"
    folder.mkdir()
    for level in (10, 60, 110):
        pixels = np.full((3, 20, 20), level, np.uint8)
        make_scene(folder / f"{level:03}.tif", pixels=pixels)
    model = looking(monkeypatch, stochastic=True)
    job = job_for(scene, style=str(folder), seed=1, samples=2)
    upscale_scene(job)
    levels = [round(float(batch.style.mean()) * 255) for batch in model.seen]
    assert levels == [60, 110] * (len(levels) // 2)
    assert [round(float(c.style.mean()) * 255) for c in model.prepared] == [60, 110]
    upscale_scene(replace(job, seed=5, overwrite=True))
    assert round(float(model.seen[-2].style.mean()) * 255) == 110
    marks = json.loads(tags_of(job.output)["RSUPRES_STYLE"])
    assert [mark["file"] for mark in marks["images"]] == [
        "010.tif",
        "060.tif",
        "110.tif",
    ]


def test_styles_that_cannot_be_followed_are_refused(tmp_path):
    rgb = ("red", "green", "blue")
    grey = make_scene(tmp_path / "grey.tif", bands=1, dtype="uint8")
    tiny = make_scene(tmp_path / "tiny.tif", 4, 4, dtype="uint8")
    empty = tmp_path / "empty"
    empty.mkdir()
    black = make_scene(
        tmp_path / "b.tif", pixels=np.zeros((3, 20, 20), np.uint8), nodata=0
    )
    for path, kind, text in (
        (grey, BandError, "3 bands"),
        (tiny, ConditionError, "show no texture"),
        (empty, InputError, "no image"),
        (tmp_path / "none.tif", InputError, "no such file"),
        (black, ConditionError, "no valid pixel"),
    ):
        with pytest.raises(kind, match=text):
            open_styles(str(path), rgb, 3).pick(0)


def test_a_request_knows_what_it_asks_for():
    request = ConditionRequest(reference=("a",), style="s")
    assert request.given == ("reference", "style")
    assert ConditionRequest().given == ()


def test_a_reference_in_another_crs_than_the_scenes_works_in_a_run(
    tmp_path, scene, monkeypatch, caplog
):
    """The reference is in degrees: the picture follows the scene, not the file."""
    from rasterio.crs import CRS
    from rasterio.warp import Resampling, calculate_default_transform, reproject

    fine = np.round(GROUND * 255).astype(np.float32)
    wgs84 = CRS.from_epsg(4326)
    left, top = SR.c, SR.f
    transform, width, height = calculate_default_transform(
        UTM, wgs84, 100, 120, left, top - 600, left + 500, top, resolution=2e-5
    )
    out = np.zeros((3, height, width), np.float32)
    reproject(
        fine,
        out,
        src_transform=SR,
        src_crs=UTM,
        dst_transform=transform,
        dst_crs=wgs84,
        resampling=Resampling.cubic,
    )
    path = make_scene(
        tmp_path / "degrees.tif",
        pixels=np.clip(np.round(out), 0, 255).astype(np.uint8),
        crs=wgs84,
        transform=transform,
        nodata=0,
    )
    model = looking(monkeypatch)
    with caplog.at_level(logging.INFO):
        upscale_scene(job_for(scene, reference=path))
    seen = model.prepared[0]
    inner = (slice(None), slice(8, 112), slice(8, 92))
    valid = seen.reference_valid[0].expand_as(seen.reference[0]).numpy()[inner]
    error = np.abs(seen.reference[0].numpy() - fine / 255)[inner]
    assert valid.mean() > 0.99
    assert error[valid].mean() < 0.02
    assert "LR pixels down" in caplog.text
