"""Reference images on the SR grid: against known ground, GDAL alone, and themselves."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.warp import reproject

from rsupres.conditions.references import References, Settings
from rsupres.errors import BandError, ConditionError, InputError
from rsupres.grid import Grid, PixelWindow
from rsupres.raster.place.registration import Shift, find_common_shift
from tests.conditions.ground import (
    FRAMES,
    SCALE,
    WGS84,
    flat,
    ground,
    opened,
    whole,
    write,
)
from tests.helpers import NORTH_UP, UTM, make_scene
from tests.pictures import texture
from tests.strategies import COSTLY


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


@pytest.mark.slow
@COSTLY
@given(window=windows(320, 360))
def test_a_window_is_a_cut_of_the_whole(pieces, window):
    everything = whole(pieces)
    again = pieces.with_settings(pieces.settings)  # nothing cached
    np.testing.assert_array_equal(
        again.read(window), everything[:, *window.slices()], strict=True
    )


@pytest.mark.slow
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
