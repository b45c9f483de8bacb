"""Several reference files: their dates, order, gaps, bands and types."""

from __future__ import annotations

import logging
import os
from datetime import UTC, datetime

import numpy as np
import pytest
from affine import Affine

from rsupres.grid import Grid
from rsupres.raster.dataset import Raster
from rsupres.raster.files import date_in, date_of
from tests.conditions.ground import FRAMES, flat, ground, opened, whole, write
from tests.helpers import UTM, make_scene


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_latest_file_lies_on_top_whatever_the_order(tmp_path, lr, order):
    left = Grid(UTM, FRAMES["same grid"].transform, 160, 120)
    files = [
        flat(
            tmp_path / "one.tif",
            FRAMES["same grid"],
            50,
            tags={"ACQUISITION_DATE": "2019-03-04"},
        ),
        flat(
            tmp_path / "two.tif",
            left,
            200,
            tags={"TIFFTAG_DATETIME": "2020:01:02 10:00:00"},
        ),
    ]
    with opened(lr, *(files[place] for place in order)) as reference:
        got = np.round(whole(reference)[0] * 255)
        names = [file.name for file in reference.files]
        files_read = reference.fingerprint()["files"]
    assert names == ["two.tif", "one.tif"]
    assert [file["date"] for file in files_read] == ["2020-01-02", "2019-03-04"]
    assert (got[:, :119] == 200).all()
    assert (got[:, 121:] == 50).all()


def test_dates_come_from_tags_then_names_then_the_files_time(tmp_path):
    plain = make_scene(tmp_path / "image.tif")
    os.utime(plain, (1_500_000_000, 1_500_000_000))
    cases = {
        plain: (datetime(2017, 7, 14, 2, 40, tzinfo=UTC), "file time"),
        make_scene(tmp_path / "S2A_20210805T1.tif"): (
            datetime(2021, 8, 5, tzinfo=UTC),
            "name",
        ),
        make_scene(tmp_path / "naip_2016_0.tif"): (
            datetime(2016, 1, 1, tzinfo=UTC),
            "name",
        ),
        make_scene(
            tmp_path / "of_2016-02-30_2018.tif", tags={"DATE_ACQUIRED": "2015-12-31"}
        ): (datetime(2015, 12, 31, tzinfo=UTC), "tag DATE_ACQUIRED"),
    }
    for path, expected in cases.items():
        with Raster.open(path) as scene:
            assert date_of(scene) == expected


@pytest.mark.parametrize(
    ("name", "date"),
    [
        ("HLS.S30.T32TQM.2020123T101559.v2.0.B04.tif", "2020-05-02"),
        ("MOD09GA.A2019365.h18v04.tif", "2019-12-31"),
        ("LC08_L1TP_198011_20200314_20200822_02_T1_B4.TIF", "2020-03-14"),
        ("LC08_L1TP_199012_20200314_02_T1.tif", "2020-03-14"),
        ("S2A_MSIL2A_20170621T110651_T30UWU_B02.jp2", "2017-06-21"),
        ("20220715103000_x.tif", "2022-07-15"),
        ("a_2019-03-04.tif", "2019-03-04"),
        ("tile_2001234.tif", None),
        ("2020400T101559.tif", None),
    ],
)
def test_dates_in_names_of_archives(name, date):
    found = date_in(name)
    assert (found and f"{found:%Y-%m-%d}") == date


def test_missing_parts_are_nan_never_black(tmp_path, lr, caplog):
    unit = ground(FRAMES["same grid"])
    unit[:, 40:80, 100:] = 0
    path = write(tmp_path / "r.tif", FRAMES["same grid"], unit, nodata=0)
    with caplog.at_level(logging.WARNING), opened(lr, path) as reference:
        got = whole(reference)
    hole = np.zeros(got.shape[1:], bool)
    hole[40:80, 100:] = True
    np.testing.assert_array_equal(np.isnan(got), np.broadcast_to(hole, got.shape))
    assert "covers 88.0 % of the scene" in caplog.text
    assert reference.coverage == pytest.approx(1 - 40 * 92 / (160 * 192), abs=0.01)
    assert np.nanmin(got) > 0.09


@pytest.mark.parametrize("value", [0.0, -9999.0, 1e20])
def test_undeclared_gaps_are_missing_and_warned_about(tmp_path, lr, caplog, value):
    grid = FRAMES["same grid"]
    unit = ground(grid)
    unit[:, :, 100:] = np.nan
    older = write(tmp_path / "older_2016.tif", grid, 0.5 * ground(grid))
    path = tmp_path / "newer_2018.tif"
    level = np.where(np.isnan(unit), value, unit * 200)
    make_scene(path, pixels=level.astype(np.float32), transform=grid.transform)
    with caplog.at_level(logging.WARNING), opened(lr, path) as reference:
        assert reference.coverage == pytest.approx(100 / 192, abs=0.01)
        got = whole(reference)
    assert np.isnan(got[:, :, 104:]).all()
    assert np.isfinite(got[:, :, :96]).all()
    assert np.nanstd(got) > 0.1  # the contrast is that of the measured pixels
    assert "47.9 % of its pixels are exactly" in caplog.text
    with opened(lr, path, older) as reference:
        assert np.isfinite(whole(reference)).all()


def test_dark_pixels_inside_are_measured(tmp_path, lr, caplog):
    grid = FRAMES["same grid"]
    unit = ground(grid)
    unit[:, 60:90, 60:90] = 0
    path = write(tmp_path / "r.tif", grid, unit)
    with caplog.at_level(logging.WARNING), opened(lr, path) as reference:
        assert np.isfinite(whole(reference)).all()
    assert "declares no nodata" not in caplog.text


def test_a_mask_band_and_alpha_hide_pixels_as_nodata_does(tmp_path, lr):
    grid = FRAMES["same grid"]
    mask = np.ones((160, 192), bool)
    mask[:, :50] = False
    masked = write(tmp_path / "m.tif", grid, ground(grid), mask=mask)
    alpha = np.concatenate([ground(grid), mask[np.newaxis]])
    names = ("red", "green", "blue", "alpha")
    with_alpha = write(tmp_path / "a.tif", grid, alpha, colorinterp=names)
    for path in (masked, with_alpha):
        with opened(lr, path) as reference:
            np.testing.assert_array_equal(np.isfinite(whole(reference)[1]), mask)


def test_filling_takes_the_scene_with_the_references_contrast(tmp_path, lr):
    unit = 0.3 + 0.4 * ground(FRAMES["same grid"])
    holed = unit.copy()
    holed[:, 60:100, 60:120] = 0
    path = write(tmp_path / "r.tif", FRAMES["same grid"], holed, nodata=0)
    with opened(lr, path, fill=True) as reference:
        got = whole(reference)
        assert reference.fingerprint()["fill"] is True
        assert "filled" in reference.describe()
    assert np.isfinite(got).all()
    inside = (slice(None), slice(60, 100), slice(60, 120))
    assert np.abs(got[inside] - unit[inside]).max() < 0.03
    with opened(lr, path) as reference:
        seen = whole(reference)
    outside = np.isfinite(seen)
    np.testing.assert_array_equal(got[outside], seen[outside])


def test_bands_are_found_by_role(tmp_path, lr):
    unit = np.stack([np.full((160, 192), level) for level in (0.2, 0.4, 0.6, 0.8)])
    path = write(
        tmp_path / "r.tif",
        FRAMES["same grid"],
        unit,
        descriptions=("nir", "blue", "green", "red"),
    )
    with opened(lr, path) as reference:
        np.testing.assert_allclose(
            whole(reference)[:, 80, 80], [0.8, 0.6, 0.4], atol=2e-3
        )
        assert reference.fingerprint()["files"][0]["bands"] == [4, 3, 2]


def test_files_of_one_type_share_the_widest_stretch(tmp_path, lr):
    whole_grid = FRAMES["same grid"]
    left = Grid(UTM, whole_grid.transform, 160, 96)
    right = Grid(UTM, whole_grid.transform @ Affine.translation(96, 0), 160, 96)
    dark = write(tmp_path / "l.tif", left, 0.1 + 0.2 * ground(left), dtype="uint16")
    light = write(tmp_path / "r.tif", right, 0.5 + 0.2 * ground(right), dtype="uint16")
    with opened(lr, dark, light) as reference:
        stretches = reference.settings.stretches
        got = whole(reference)[:, :, [94, 97]]
    assert stretches[0] == stretches[1]
    assert stretches[0].low[0] == pytest.approx(1200, abs=60)
    assert stretches[0].high[0] == pytest.approx(6800, abs=60)
    assert (got[..., 1] - got[..., 0] > 0.5).all()  # one is lighter, still
