"""Folders of tiles become one raster, whatever their order and overlap."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from rasterio.crs import CRS

import rsupres
from rsupres.cli import main
from rsupres.errors import InputError, RunConflictError
from rsupres.tiles import mosaic as mosaics
from rsupres.tiles.cut import TileJob, tile_scene
from rsupres.tiles.index import read_index
from tests.helpers import NORTH_UP, make_scene, read
from tests.strategies import COSTLY


def picture(height: int, width: int, bands: int = 2) -> np.ndarray:
    rng = np.random.default_rng(5)
    return rng.integers(1, 60000, (bands, height, width)).astype(np.uint16)


def cut(
    folder: Path, name: str, pixels: np.ndarray, row: int, col: int, shape, **more
) -> Path:
    folder.mkdir(exist_ok=True)
    return make_scene(
        folder / name,
        pixels=pixels[:, row : row + shape[0], col : col + shape[1]],
        transform=NORTH_UP @ Affine.translation(col, row),
        **more,
    )


@COSTLY
@given(
    tile=st.integers(12, 30),
    overlap=st.integers(0, 7),
    order=st.randoms(use_true_random=False),
)
def test_a_picture_cut_into_tiles_comes_back(tmp_path_factory, tile, overlap, order):
    folder = tmp_path_factory.mktemp("tiles")
    pixels = picture(40, 53)
    stride = max(1, tile - overlap)
    places = [
        (row, col) for row in range(0, 40, stride) for col in range(0, 53, stride)
    ]
    order.shuffle(places)
    for number, place in enumerate(places):
        cut(folder / "in", f"{number:03}.tif", pixels, *place, (tile, tile))
    rsupres.mosaic(folder / "in", folder / "out.tif", driver="GTiff")
    with rasterio.open(folder / "out.tif") as dataset:
        assert dataset.transform.almost_equals(NORTH_UP, 1e-9)
        np.testing.assert_array_equal(dataset.read(), pixels)


def test_overlaps_are_feathered_smoothly_and_edges_are_not(tmp_path):
    low = np.full((1, 10, 30), 1000, np.uint16)
    high = np.full((1, 10, 30), 2000, np.uint16)
    cut(tmp_path / "in", "a.tif", low, 0, 0, (10, 20))
    cut(tmp_path / "in", "b.tif", high, 0, 10, (10, 20))
    rsupres.mosaic(tmp_path / "in", tmp_path / "out.tif")
    row = read(tmp_path / "out.tif")[0, 5].astype(int)
    assert (row[:10] == 1000).all()
    assert (row[20:] == 2000).all()
    steps = np.diff(row[9:21])
    assert (steps > 0).all()
    assert steps.max() < 170
    assert row[14] + row[15] == pytest.approx(3000, abs=2)


def test_nodata_weighs_nothing(tmp_path):
    pixels = picture(10, 20)
    holed = pixels.copy()
    holed[:, :, 8:12] = 0
    cut(tmp_path / "in", "a.tif", holed, 0, 0, (10, 14), nodata=0)
    cut(tmp_path / "in", "b.tif", pixels, 0, 8, (10, 12), nodata=0)
    rsupres.mosaic(tmp_path / "in", tmp_path / "out.tif")
    np.testing.assert_array_equal(read(tmp_path / "out.tif"), pixels)


def test_nodata_in_one_band_leaves_the_others_theirs(tmp_path):
    pixels = picture(10, 20)
    holed = pixels.copy()
    holed[0, 2:8, 4:16] = 0
    cut(tmp_path / "in", "a.tif", holed, 0, 0, (10, 14), nodata=0)
    cut(tmp_path / "in", "b.tif", holed, 0, 8, (10, 12), nodata=0)
    rsupres.mosaic(tmp_path / "in", tmp_path / "out.tif")
    np.testing.assert_array_equal(read(tmp_path / "out.tif"), holed)
    cut(tmp_path / "in", "b.tif", pixels, 0, 8, (10, 12), nodata=0)
    rsupres.mosaic(tmp_path / "in", tmp_path / "two.tif")
    holed[:, :, 8:] = pixels[:, :, 8:]
    np.testing.assert_array_equal(read(tmp_path / "two.tif"), holed)


def test_numbers_beyond_float32_are_blended(tmp_path):
    pixels = np.full((1, 10, 20), 4_000_000_001, np.uint32)
    cut(tmp_path / "in", "a.tif", pixels, 0, 0, (10, 12))
    cut(tmp_path / "in", "b.tif", pixels + np.uint32(2), 0, 8, (10, 12))
    rsupres.mosaic(tmp_path / "in", tmp_path / "out.tif")
    out = read(tmp_path / "out.tif").astype(np.int64) - 4_000_000_001
    np.testing.assert_array_equal(out[0, 0, :8], 0)
    np.testing.assert_array_equal(out[0, 0, 12:], 2)
    assert set(out[0, 0, 8:12]) <= {0, 1, 2}


@pytest.mark.parametrize("nodata", [None, 0])
def test_codes_are_those_of_one_tile(tmp_path, nodata):
    rng = np.random.default_rng(5)
    options = {"descriptions": ["B04", "SCL"], "nodata": nodata}
    tiles = []
    for col in (0, 8):
        pixels = rng.choice([3, 9], (2, 10, 12)).astype(np.uint8)
        cut(
            tmp_path / "in",
            f"{col}.tif",
            np.pad(pixels, ((0, 0), (0, 0), (col, 0))),
            0,
            col,
            (10, 12),
            **options,
        )
        tiles.append(pixels[1])
    rsupres.mosaic(tmp_path / "in", tmp_path / "out.tif")
    codes = read(tmp_path / "out.tif")[1]
    np.testing.assert_array_equal(codes[:, :10], tiles[0][:, :10])
    np.testing.assert_array_equal(codes[:, 10:], tiles[1][:, 2:])


def test_gaps_become_nodata_or_are_refused(tmp_path):
    pixels = picture(10, 40)
    cut(tmp_path / "in", "a.tif", pixels, 0, 0, (10, 10))
    cut(tmp_path / "in", "b.tif", pixels, 0, 30, (10, 10))
    with pytest.raises(InputError, match="gaps"):
        rsupres.mosaic(tmp_path / "in", tmp_path / "out.tif")
    rsupres.mosaic(tmp_path / "in", tmp_path / "out.tif", nodata=0)
    out = read(tmp_path / "out.tif")
    assert (out[:, :, 10:30] == 0).all()
    np.testing.assert_array_equal(out[:, :, 30:], pixels[:, :, 30:])


def test_tiles_with_other_nodata_values_get_that_of_the_result(tmp_path):
    pixels = picture(10, 20)
    one, two = pixels.copy(), pixels.copy()
    one[:, :5, :5] = 0
    two[:, :5, 15:] = 65535
    two[:, 7, 15:] = 0
    cut(tmp_path / "in", "a.tif", one, 0, 0, (10, 10), nodata=0)
    cut(tmp_path / "in", "b.tif", two, 0, 10, (10, 10), nodata=65535)
    rsupres.mosaic(tmp_path / "in", tmp_path / "out.tif")
    expected = pixels.copy()
    expected[:, :5, :5] = expected[:, :5, 15:] = 0
    expected[:, 7, 15:] = 1  # measured, and no longer nodata
    np.testing.assert_array_equal(read(tmp_path / "out.tif"), expected)


def test_pixels_that_a_mask_hides_become_nodata(tmp_path):
    pixels = picture(10, 20)
    shown = np.full((10, 10), True)
    shown[:5, 5:] = False
    cut(tmp_path / "in", "a.tif", pixels, 0, 0, (10, 10), nodata=0)
    cut(tmp_path / "in", "b.tif", pixels, 0, 10, (10, 10), mask=shown)
    rsupres.mosaic(tmp_path / "in", tmp_path / "out.tif")
    expected = pixels.copy()
    expected[:, :5, 15:] = 0
    np.testing.assert_array_equal(read(tmp_path / "out.tif"), expected)


def test_tiles_with_bands_in_another_order_are_matched_by_name(tmp_path):
    pixels = picture(10, 20)
    cut(tmp_path / "in", "a.tif", pixels, 0, 0, (10, 12), descriptions=["B04", "B03"])
    turned = pixels[::-1]
    cut(tmp_path / "in", "b.tif", turned, 0, 8, (10, 12), descriptions=["B03", "B04"])
    rsupres.mosaic(tmp_path / "in", tmp_path / "out.tif")
    np.testing.assert_array_equal(read(tmp_path / "out.tif"), pixels)


def test_strips_of_any_height_give_the_same_picture(tmp_path, monkeypatch):
    pixels = picture(40, 30)
    for row in (0, 15, 25):
        cut(tmp_path / "in", f"{row}.tif", pixels, row, 0, (18, 30))
    rsupres.mosaic(tmp_path / "in", tmp_path / "one.tif")
    monkeypatch.setattr(mosaics, "_STRIP_VALUES", 7 * 30 * 2)
    rsupres.mosaic(tmp_path / "in", tmp_path / "many.tif")
    assert (tmp_path / "one.tif").read_bytes() == (tmp_path / "many.tif").read_bytes()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"crs": CRS.from_epsg(32634)}, "CRS"),
        ({"transform": NORTH_UP @ Affine.scale(2)}, "pixels of"),
        ({"transform": NORTH_UP @ Affine.translation(0.3, 0)}, "off the grid"),
        ({"bands": 3}, "bands"),
        ({"dtype": "int16"}, "type"),
        ({"offsets": (-0.1, -0.1)}, "offset -0.1"),
    ],
)
def test_tiles_that_do_not_fit_are_named(tmp_path, change, text):
    folder = tmp_path / "in"
    folder.mkdir()
    make_scene(folder / "a.tif", bands=2)
    make_scene(folder / "b.tif", **{"bands": 2, **change})
    with pytest.raises(InputError, match=text) as error:
        rsupres.mosaic(folder, tmp_path / "out.tif")
    assert "b.tif" in str(error.value)
    assert not (tmp_path / "out.tif").exists()


def test_folders_without_tiles_are_refused(tmp_path):
    with pytest.raises(InputError, match="no rasters"):
        rsupres.mosaic(tmp_path, tmp_path / "out.tif")
    with pytest.raises(InputError, match="no such folder"):
        rsupres.mosaic(tmp_path / "no", tmp_path / "out.tif")


def test_the_command_blends_a_folder(tmp_path):
    pixels = picture(20, 20)
    cut(tmp_path / "in", "a.tif", pixels, 0, 0, (20, 12))
    cut(tmp_path / "in", "b.tif", pixels, 0, 8, (20, 12))
    output = tmp_path / "out.tif"
    arguments = ["mosaic", str(tmp_path / "in"), str(output), "--json"]
    done = CliRunner().invoke(main, [*arguments, "--co", "COMPRESS=LZW"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["tiles"] == 2
    np.testing.assert_array_equal(read(output), pixels)
    assert CliRunner().invoke(main, arguments).exit_code == 5
    assert not (tmp_path / "out.tif.run").exists()


@pytest.fixture
def planned(tmp_path) -> Path:
    """A scene cut with a halo, and the same tiles brightened by their column."""
    scene = make_scene(tmp_path / "scene.tif", pixels=picture(30, 40))
    job = TileJob((str(scene),), tmp_path / "in", Fraction(2), 16, 8, 2)
    tile_scene(job)
    return tmp_path / "in"


def brighten(folder: Path, output: Path) -> None:
    """Write SR tiles whose numbers are those of their columns."""
    output.mkdir()
    index = read_index(folder / "tiles.gpkg")
    for tile in index.tiles:
        pixels = np.full((1, *tile.sr[2:]), 1000 * (tile.col + 1), np.float32)
        place = index.plan.sr.crop(tile.sr).transform
        make_scene(output / tile.name, pixels=pixels, transform=place)
    (output / "tiles.gpkg").write_bytes((folder / "tiles.gpkg").read_bytes())


def test_processed_tiles_are_blended_by_the_planned_halo(tmp_path, planned):
    brighten(planned, tmp_path / "sr")
    rsupres.mosaic(tmp_path / "sr", tmp_path / "out.tif", driver="GTiff")
    rows = read(tmp_path / "out.tif")[0]
    assert rows.shape == (60, 80)
    assert (rows == rows[:1]).all()
    # Tiles begin at LR columns 0, 8, 16, 24; the halo of 2 hides the overlap's ends.
    assert (rows[0, : 2 * 10] == 1000).all()
    assert (np.diff(rows[0, 2 * 10 - 1 : 2 * 14 + 1]) > 0).all()
    assert (rows[0, 2 * 14 : 2 * 18] == 2000).all()


def test_a_halo_counts_where_no_other_tile_is(tmp_path, planned):
    brighten(planned, tmp_path / "sr")
    for path in (tmp_path / "sr").glob("*_001.tif"):
        path.unlink()
    rsupres.mosaic(tmp_path / "sr", tmp_path / "out.tif", nodata=0, driver="GTiff")
    row = read(tmp_path / "out.tif")[0, 7]
    assert (row[:32] == 1000).all()
    assert (row[32:48] == 3000).all()


def test_tiles_that_are_not_where_the_index_says_are_named(tmp_path, planned):
    brighten(planned, tmp_path / "sr")
    (tmp_path / "sr" / "000_001.tif").rename(tmp_path / "sr" / "000_002.tif")
    with pytest.raises(InputError, match=r"000_002\.tif.*elsewhere"):
        rsupres.mosaic(tmp_path / "sr", tmp_path / "out.tif", nodata=0)
    (tmp_path / "sr" / "000_002.tif").rename(tmp_path / "sr" / "extra.tif")
    with pytest.raises(InputError, match=r"extra\.tif.*no tile of"):
        rsupres.mosaic(tmp_path / "sr", tmp_path / "out.tif", nodata=0)


def test_an_existing_output_is_kept(tmp_path):
    cut(tmp_path / "in", "a.tif", picture(8, 8), 0, 0, (8, 8))
    (tmp_path / "out.tif").touch()
    with pytest.raises(RunConflictError):
        rsupres.mosaic(tmp_path / "in", tmp_path / "out.tif")
