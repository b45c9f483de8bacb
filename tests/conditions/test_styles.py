"""Style images: cropped, filled, chosen by seed, and refused."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from rsupres.conditions.base import ConditionRequest
from rsupres.conditions.styles import open_styles
from rsupres.errors import BandError, ConditionError, InputError
from rsupres.families.base import STYLE_SIDE
from rsupres.upscaling.pipeline import upscale_scene
from tests.conditions.looking import job_for, looking, tags_of
from tests.helpers import make_scene


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


@pytest.mark.slow
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
