"""Conditions on their way from files to a model: each tile sees its own cut."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rsupres.conditions.open import ConditionSet
from rsupres.errors import ConditionError
from rsupres.families.base import Conditions
from rsupres.grid import PixelWindow
from rsupres.upscaling.pipeline import upscale_scene
from tests.conditions.looking import GROUND, SR, job_for, looking, tags_of
from tests.helpers import UTM, make_scene, read


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
