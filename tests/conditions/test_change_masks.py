"""Change masks on their way from files to a model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from affine import Affine

from rsupres.errors import ConditionError
from rsupres.upscaling.pipeline import upscale_scene
from tests.conditions.looking import SR, job_for, looking, tags_of
from tests.fakes import LookingModel
from tests.helpers import NORTH_UP, make_scene
from tests.pictures import texture


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


@pytest.mark.parametrize(
    "coregister", [False, pytest.param(True, marks=pytest.mark.slow)]
)
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
