"""Reference images on the SR grid: against known ground, GDAL alone, and themselves."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.warp import reproject, transform

from rsupres.conditions.base import TargetScene
from rsupres.conditions.references import References, Settings, open_references
from rsupres.errors import BandError, ConditionError, InputError
from rsupres.grid import Grid, PixelWindow
from rsupres.raster.dataset import Raster
from rsupres.raster.files import date_in, date_of
from rsupres.raster.place.registration import Shift, find_common_shift
from rsupres.raster.stretch import Stretch
from tests.helpers import NORTH_UP, UTM, make_scene
from tests.pictures import texture
from tests.strategies import COSTLY

LR = Grid(UTM, NORTH_UP, 40, 48)  # 10 m
SCALE = Fraction(4)
RGB = ("red", "green", "blue")
WGS84 = CRS.from_epsg(4326)
FRAMES = {
    "same grid": Grid(UTM, NORTH_UP @ Affine.scale(0.25), 160, 192),
    "other zone": Grid(
        CRS.from_epsg(32632), Affine(2.1, 0.3, 856254.0, 0.3, -2.1, 5210037.0), 420, 460
    ),
    "degrees": Grid(WGS84, Affine(3e-5, 0, 13.6845, 0, -2e-5, 46.9466), 220, 280),
    "finer": Grid(UTM, Affine(1.0, 0, 399900.0, 0, -1.0, 5200100.0), 620, 640),
    "coarser": Grid(UTM, Affine(7.0, 0, 399907.0, 0, -7.0, 5200091.0), 90, 90),
}


def ground(grid: Grid, waves_m: float = 120.0) -> np.ndarray:
    """A smooth picture in [0.1, 0.9] that is a function of UTM metres: (3, H, W)."""
    cols, rows = np.meshgrid(np.arange(grid.width) + 0.5, np.arange(grid.height) + 0.5)
    x, y = grid.transform @ (cols.ravel(), rows.ravel())
    if grid.crs != UTM:
        x, y = (np.array(v) for v in transform(grid.crs, UTM, x, y))
    x, y = ((v.reshape(grid.height, grid.width) / waves_m * 2 * np.pi) for v in (x, y))
    return 0.5 + 0.4 * np.stack([np.sin(x), np.cos(y), np.sin(0.7 * x + 0.6 * y)])


def write(path: Path, grid: Grid, unit: np.ndarray, **options: object) -> Path:
    """Write values in [0, 1] as uint8, or as `dtype` with 10,000 as 1."""
    dtype = options.pop("dtype", "uint8")
    dn = unit * 255 if dtype == "uint8" else unit * 10000
    return make_scene(
        path,
        pixels=np.round(dn).astype(dtype),
        crs=grid.crs,
        transform=grid.transform,
        **options,
    )


@pytest.fixture
def lr(tmp_path: Path) -> Path:
    pixels = np.round(ground(LR) * 10000).astype(np.uint16)
    return make_scene(
        tmp_path / "scene.tif", pixels=pixels, descriptions=("B04", "B03", "B02")
    )


@contextmanager
def opened(
    lr: Path,
    *names: Path,
    scale: Fraction = SCALE,
    coregister: bool = False,
    fill: bool = False,
) -> Iterator[References]:
    with Raster.open(lr) as scene:
        stretch = Stretch((0.0,) * 3, (10000.0,) * 3)
        frame = TargetScene(scene, (1, 2, 3), RGB, stretch, scale)
        texts = [str(name) for name in names]
        with open_references(texts, frame, coregister=coregister, fill=fill) as found:
            yield found


def whole(reference: References) -> np.ndarray:
    return reference.read(reference.frame.sr.window)


# --- where pixels come to lie --------------------------------------------------------


@pytest.mark.parametrize("name", FRAMES)
def test_a_reference_of_any_grid_shows_the_ground_that_an_sr_pixel_covers(
    tmp_path, lr, name
):
    path = write(tmp_path / "r.tif", FRAMES[name], ground(FRAMES[name]))
    with opened(lr, path) as reference:
        got = whole(reference)
        truth = ground(reference.frame.sr)
        assert reference.coverage == 1
    # 8 bits, the kernel, and the mean over a pixel; a shift of half an SR pixel: 0.026.
    np.testing.assert_allclose(got, truth, atol=0.006)
    assert np.abs(got - truth).mean() < 0.002


@pytest.mark.parametrize("name", ["other zone", "finer", "degrees"])
def test_the_picture_is_that_of_one_exact_warp_by_gdal(tmp_path, lr, name):
    frame = FRAMES[name]
    unit = texture(frame.height, frame.width)
    path = write(tmp_path / "r.tif", frame, unit)
    with opened(lr, path) as reference:
        got, sr, ratio = whole(reference), reference.frame.sr, reference.files[0].ratio
    expected = np.zeros_like(got)
    reproject(
        np.round(unit * 255).astype(np.float32) / np.float32(255),
        expected,
        src_transform=frame.transform,
        src_crs=frame.crs,
        dst_transform=sr.transform,
        dst_crs=sr.crs,
        resampling=Resampling.average if ratio > 1.5 else Resampling.cubic,
        tolerance=0,
        **({} if ratio > 1.5 else {"XSCALE": "1", "YSCALE": "1"}),
    )
    assert np.abs(got - np.clip(expected, 0, 1)).max() < 0.01
    assert np.abs(got - np.clip(expected, 0, 1)).mean() < 2e-4


@st.composite
def windows(draw: st.DrawFn, height: int, width: int) -> PixelWindow:
    row, col = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
    return PixelWindow(
        row,
        col,
        draw(st.integers(1, height - row)),
        draw(st.integers(1, width - col)),
    )


@pytest.fixture(scope="module")
def pieces(tmp_path_factory: pytest.TempPathFactory) -> Iterator[References]:
    """Two files of other grids with holes over a scene of several blocks."""
    folder = tmp_path_factory.mktemp("pieces")
    lr_grid = Grid(UTM, NORTH_UP, 80, 90)
    lr = make_scene(
        folder / "s.tif",
        pixels=np.round(ground(lr_grid) * 10000).astype(np.uint16),
        descriptions=("B04", "B03", "B02"),
    )
    tilted = Grid(
        CRS.from_epsg(32632), Affine(2.1, 0.3, 856505.0, 0.3, -2.1, 5209775.0), 700, 800
    )
    unit = texture(tilted.height, tilted.width, 1)
    unit[:, 100:140, 200:260] = 0
    first = write(folder / "a_2020-01-01.tif", tilted, unit, nodata=0)
    fine = Grid(UTM, Affine(1.0, 0, 400300.0, 0, -1.0, 5199800.0), 900, 700)
    unit = texture(fine.height, fine.width, 2)
    unit[:, 300:500, 100:300] = 0
    second = write(folder / "b_2022-01-01.tif", fine, unit, nodata=0)
    with opened(lr, first, second, fill=True) as reference:
        yield reference


@COSTLY
@given(window=windows(320, 360))
def test_a_window_is_a_cut_of_the_whole(pieces, window):
    everything = whole(pieces)
    again = pieces.with_settings(pieces.settings)  # nothing cached
    np.testing.assert_array_equal(
        again.read(window), everything[:, *window.slices()], strict=True
    )


def test_blocks_meet_without_a_seam(tmp_path, lr, monkeypatch):
    frame = FRAMES["other zone"]
    path = write(tmp_path / "r.tif", frame, texture(frame.height, frame.width))
    with opened(lr, path) as reference:
        large = whole(reference)
        monkeypatch.setattr("rsupres.conditions.references.BLOCK_SIDE", 16)
        small = whole(reference.with_settings(reference.settings))
    assert np.abs(large - small).max() < 0.01  # a hundredth of a source pixel


def test_a_far_finer_reference_is_read_in_smaller_blocks(tmp_path, lr):
    grid = Grid(UTM, Affine(0.125, 0, 400000.0, 0, -0.125, 5200000.0), 900, 900)
    path = write(tmp_path / "r.tif", grid, texture(900, 900))
    with opened(lr, path) as reference:
        assert reference.files[0].ratio == pytest.approx(20)
        assert reference.block_side == 64
        assert np.isfinite(whole(reference)).any()


# --- several files, missing parts ----------------------------------------------------


def flat(path: Path, grid: Grid, level: int, **options: object) -> Path:
    unit = np.full((3, grid.height, grid.width), level / 255)
    return write(path, grid, unit, **options)


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


# --- bands and numbers ---------------------------------------------------------------


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


# --- displacement --------------------------------------------------------------------


def displaced(tmp_path: Path, row: float, col: float) -> tuple[Path, np.ndarray]:
    """A reference that lies (row, col) LR pixels off, and what it should show."""
    grid = Grid(UTM, NORTH_UP, 96, 104)
    fine = grid.refine(SCALE)
    unit = texture(fine.height, fine.width, 5)
    small = unit.reshape(3, 96, 4, 104, 4).mean((2, 4))
    make_scene(
        tmp_path / "scene.tif",
        pixels=np.round(small * 6000 + 500).astype(np.uint16),
        descriptions=("B04", "B03", "B02"),
    )
    moved = fine.transform @ Affine.translation(4 * col, 4 * row)
    path = write(tmp_path / "r.tif", Grid(UTM, moved, *unit.shape[1:]), unit)
    return path, unit


@pytest.mark.parametrize(("row", "col"), [(1.25, -0.75), (-3.0, 2.0)])
def test_a_displacement_is_measured_warned_about_and_taken_out(
    tmp_path, caplog, row, col
):
    path, truth = displaced(tmp_path, row, col)
    lr = tmp_path / "scene.tif"
    with caplog.at_level(logging.WARNING), opened(lr, path) as reference:
        assert reference.settings.shift == pytest.approx((row, col), abs=0.06)
        before = np.nanmean(np.abs(whole(reference) - truth))
    warning = next(r for r in caplog.records if "LR pixels down" in r.getMessage())
    assert warning.remedies == ("coregister",)
    caplog.clear()
    with (
        caplog.at_level(logging.WARNING),
        opened(lr, path, coregister=True) as reference,
    ):
        after = np.nanmean(np.abs(whole(reference) - truth))
        assert "corrected" in reference.describe()
    assert "displace" not in caplog.text
    assert "lies" not in caplog.text
    assert after < 0.15 * before


def test_a_small_displacement_is_no_warning(tmp_path, caplog):
    path, _ = displaced(tmp_path, 0.3, 0.2)
    lr = tmp_path / "scene.tif"
    with caplog.at_level(logging.INFO), opened(lr, path) as reference:
        assert reference.settings.shift == pytest.approx((0.3, 0.2), abs=0.06)
    said = [r for r in caplog.records if "LR pixels down" in r.getMessage()]
    assert [r.levelname for r in said] == ["INFO"]


def test_what_cannot_be_measured_is_said_and_not_corrected(tmp_path, lr):
    path = flat(tmp_path / "r.tif", FRAMES["same grid"], 90)
    with opened(lr, path) as reference:
        assert reference.settings.shift is None
        assert "unknown" in reference.describe()
    with (
        pytest.raises(ConditionError, match="cannot be measured"),
        opened(lr, path, coregister=True),
    ):
        pass


def test_wrong_windows_do_not_move_the_common_displacement():
    base = texture(128, 128, 4)
    valid = np.ones((96, 96), bool)
    still = base[:, 16:112, 16:112]
    moved = base[:, 14:110, 17:113]  # content 2 down, 1 to the left
    other = texture(96, 96, 9)
    found = find_common_shift(
        [(moved, still, valid), (moved, still, valid), (other, still, valid)]
    )
    assert found.shift == pytest.approx((2, -1), abs=0.03)
    assert (found.n_agree, found.n_windows) == (2, 2)
    far = base[:, 8:104, 20:116]
    mixed = [(moved, still, valid)] * 2 + [(far, still, valid)]
    found = find_common_shift(mixed)
    assert found.shift == pytest.approx((2, -1), abs=0.03)
    assert (found.n_agree, found.n_windows) == (2, 3)
    assert not find_common_shift(mixed[1:]).is_known
    for seed in range(5):
        unrelated = texture(96, 96, 20 + seed)
        assert not find_common_shift([(unrelated, still, valid)]).is_known
    assert not find_common_shift([]).is_known


def test_settings_survive_json_and_decide_the_picture(tmp_path):
    path, _ = displaced(tmp_path, 0.5, 0.25)
    with opened(tmp_path / "scene.tif", path, coregister=True, fill=True) as reference:
        kept = Settings.from_json(json.loads(json.dumps(reference.settings.to_json())))
        assert kept == reference.settings
        other = Settings(kept.stretches, Shift(0.0, 0.0))
        moved = whole(reference.with_settings(other))
        assert np.abs(moved - whole(reference)).max() > 0.1
        again = whole(reference.with_settings(kept))
        np.testing.assert_array_equal(again, whole(reference))


# --- what is refused -----------------------------------------------------------------


def test_a_reference_of_another_place_is_refused_with_both_footprints(tmp_path, lr):
    far = Grid(WGS84, Affine(1e-4, 0, -70.5, 0, -1e-4, -33.2), 50, 50)
    path = write(tmp_path / "far.tif", far, ground(FRAMES["coarser"])[:, :50, :50])
    with pytest.raises(ConditionError) as error, opened(lr, path):
        pass
    assert "-70.5000 -33.2050 -70.4950 -33.2000" in str(error.value)
    assert "13.68" in str(error.value)


def test_a_reference_without_a_valid_pixel_over_the_scene_is_refused(tmp_path, lr):
    path = flat(tmp_path / "r.tif", FRAMES["same grid"], 0, nodata=0)
    expected = pytest.raises(ConditionError, match=r"no valid pixel over .*nodata")
    with expected, opened(lr, path):
        pass


def test_a_reference_coarser_than_the_scene_is_refused(tmp_path, lr):
    grid = Grid(UTM, Affine(20.0, 0, 399000.0, 0, -20.0, 5201000.0), 100, 100)
    path = write(tmp_path / "r.tif", grid, ground(grid))
    with (
        pytest.raises(ConditionError, match=r"20 m are coarser .* \(10 m\).*swapped"),
        opened(lr, path),
    ):
        pass


def test_missing_bands_files_and_crs_are_refused(tmp_path, lr):
    grid = FRAMES["same grid"]
    grey = write(tmp_path / "g.tif", grid, ground(grid)[:1])
    lost = make_scene(tmp_path / "lost.tif", crs=None)
    for path, kind, text in (
        (grey, BandError, "3 bands"),
        (tmp_path / "none.tif", InputError, "none.tif"),
        (lost, InputError, "no CRS"),
    ):
        with pytest.raises(kind, match=text), opened(lr, path):
            pass


def test_the_sample_reference_lies_on_the_sample_scene():
    folder = Path(__file__).parents[2] / "sample_data"
    with (
        opened(folder / "town_s2.tif", folder / "town_reference.tif") as reference,
        rasterio.open(folder / "town_reference.tif") as file,
    ):
        np.testing.assert_allclose(whole(reference), file.read() / 255, atol=1e-6)
        assert reference.settings.shift == pytest.approx((0, 0), abs=0.15)
