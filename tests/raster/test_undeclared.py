"""Numbers that nothing measured, in files that do not declare them."""

from __future__ import annotations

import logging
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from affine import Affine

import rsupres
from rsupres.errors import InputError
from rsupres.evaluation.pairs import Preparation, load_pair
from rsupres.raster.dataset import Raster
from rsupres.raster.stack import open_scenes
from rsupres.raster.stretch import parse_stretch
from rsupres.raster.undeclared import heed_undeclared
from rsupres.tiles.cut import TileJob, tile_scene
from rsupres.upscaling.job import UpscaleJob
from rsupres.upscaling.pipeline import upscale_scene
from tests.helpers import NORTH_UP, make_scene

ALL = (1, 2, 3)


def holed(value: float, dtype: str, *, at_edge: bool = False) -> np.ndarray:
    rng = np.random.default_rng(1)
    pixels = rng.integers(1, 200, (3, 20, 24)).astype(dtype)
    place = (slice(0, 4), slice(None)) if at_edge else (slice(5, 9), slice(6, 10))
    pixels[:, *place] = value
    return pixels


@pytest.mark.parametrize(
    ("value", "dtype"),
    [(-9999, "int16"), (-32768, "int16"), (1e20, "float32"), (-9999, "float64")],
)
def test_numbers_that_no_sensor_measures_become_nodata(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, value: float, dtype: str
) -> None:
    pixels = holed(value, dtype)
    scene = make_scene(tmp_path / "s.tif", pixels=pixels)
    output = tmp_path / "o.tif"
    job = UpscaleJob(
        scenes=(str(scene),), output=output, model="bicubic", scale=Fraction(2)
    )
    upscale_scene(job)
    assert "3.3 % of its pixels" in caplog.text
    with rasterio.open(output) as file:
        assert file.nodata == pytest.approx(value)
        expected = np.kron(pixels == pixels.dtype.type(value), np.ones((1, 2, 2)))
        np.testing.assert_array_equal(file.read_masks() == 0, expected > 0)


@pytest.mark.parametrize(
    ("nodata", "shown"),
    [(None, "exactly 0 in all bands along the edge"), (0, ""), (255, "")],
)
def test_a_black_collar_stays_and_is_warned_about(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    nodata: float | None,
    shown: str,
) -> None:
    pixels = holed(0, "uint8", at_edge=True)
    path = make_scene(tmp_path / "s.tif", pixels=pixels, nodata=nodata)
    with Raster.open(path) as opened:
        scene = heed_undeclared(opened, ("input_nodata",))
        assert scene.nodata == nodata
    assert len(caplog.records) == bool(shown)
    assert shown in caplog.text


@pytest.mark.parametrize("value", [-9999, 1e20])
def test_numbers_that_one_band_lacks_are_kept_out_of_its_neighbours(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, value: float
) -> None:
    pixels = holed(7, "float32")
    pixels[0, 5:9, 6:10] = value
    scene = make_scene(tmp_path / "s.tif", pixels=pixels)
    output = tmp_path / "o.tif"
    upscale_scene(
        UpscaleJob(
            scenes=(str(scene),), output=output, model="bicubic", scale=Fraction(2)
        )
    )
    assert f"3.3 % of its pixels are exactly {value:g} in a band" in caplog.text
    with rasterio.open(output) as file:
        masks, numbers = file.read_masks(), file.read()
    hidden = np.kron(pixels[0] == np.float32(value), np.ones((2, 2))) > 0
    np.testing.assert_array_equal(masks[0] == 0, hidden)
    assert masks[1:].all()
    assert np.abs(numbers[0][~hidden]).max() < 300


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_a_white_collar_is_warned_about(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, dtype: str
) -> None:
    white = np.iinfo(dtype).max
    path = make_scene(tmp_path / "s.tif", pixels=holed(white, dtype, at_edge=True))
    with Raster.open(path) as opened:
        assert heed_undeclared(opened, ("input_nodata",)).nodata is None
    assert f"exactly {white} in all bands along the edge" in caplog.text


def test_what_the_user_knows_of_nodata_counts(tmp_path: Path) -> None:
    pixels = holed(0, "uint8", at_edge=True)
    one = make_scene(tmp_path / "a.tif", pixels=pixels, nodata=7)
    east = NORTH_UP @ Affine.translation(24, 0)
    two = make_scene(tmp_path / "b.tif", pixels=pixels, transform=east)
    with open_scenes([str(one)], 0) as scene:
        assert scene.nodata == 0
        _, valid = scene.read(scene.grid.window, ALL)
        np.testing.assert_array_equal(valid[0], (pixels != 0).all(axis=0))
    with open_scenes([str(one), str(two)], 0) as scene:
        assert scene.nodata == 0
        _, valid = scene.read(scene.grid.window, ALL)
        assert valid.mean() == pytest.approx(16 / 20)
    with (
        pytest.raises(InputError, match=r"no pixel of .*uint8"),
        open_scenes([str(one)], -9999),
    ):
        pass


def test_tiles_keep_the_nodata_value_that_the_user_knows(tmp_path: Path) -> None:
    pixels = holed(0, "uint8", at_edge=True)
    scene = make_scene(tmp_path / "s.tif", pixels=pixels)
    job = TileJob(scenes=(str(scene),), folder=tmp_path / "tiles", input_nodata=0)
    tile_scene(job)
    (tile,) = (tmp_path / "tiles" / "lr").glob("*.tif")
    with rasterio.open(tile) as file:
        assert file.nodata == 0


def test_a_nodata_value_that_no_pixel_takes_is_warned_about(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = {"model": "bicubic", "scale": Fraction(2), "nodata": 255.0}
    for name, nodata in (("plain", None), ("declared", 0)):
        scene = make_scene(tmp_path / f"{name}.tif", dtype="uint8", nodata=nodata)
        upscale_scene(
            UpscaleJob(
                scenes=(str(scene),), output=tmp_path / f"{name}_sr.tif", **options
            )
        )
    warned = [record.getMessage() for record in caplog.records]
    assert [text for text in warned if "no pixel becomes nodata" in text] == warned
    assert len(warned) == 1


def test_a_sharp_image_is_not_compared_where_it_has_no_number(tmp_path: Path) -> None:
    pixels = holed(-9999, "float32")
    whole = np.where(pixels == -9999, 100, pixels).astype("float32")
    sr = make_scene(tmp_path / "sr.tif", pixels=whole)
    hr = make_scene(tmp_path / "hr.tif", pixels=pixels)
    pair, *_ = load_pair(str(sr), str(hr), Preparation(parse_stretch("auto")))
    np.testing.assert_array_equal(pair.valid, (pixels != -9999).all(axis=0))


def test_tiles_that_hide_what_they_lack_are_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "in").mkdir()
    for index, value in enumerate((-9999, 5)):
        make_scene(
            tmp_path / "in" / f"{index}.tif",
            pixels=holed(value, "int16"),
            transform=NORTH_UP @ Affine.translation(24 * index, 0),
        )
    with caplog.at_level(logging.WARNING):
        rsupres.mosaic(tmp_path / "in", tmp_path / "out.tif")
    assert "1 of 2 tiles" in caplog.text


def test_tiles_of_bands_with_other_nodata_values_have_one(tmp_path: Path) -> None:
    pixels = np.full((2, 8, 8), 50, np.uint16)
    pixels[0, 1, 1], pixels[1, 2, 2], pixels[1, 3, 3] = 7, 14, 7
    make_scene(tmp_path / "a.tif", pixels=pixels)
    rasterio.shutil.copy(tmp_path / "a.tif", tmp_path / "a.vrt", driver="VRT")
    text = (tmp_path / "a.vrt").read_text()
    for band, value in ((1, 7), (2, 14)):
        start = f'<VRTRasterBand dataType="UInt16" band="{band}">'
        text = text.replace(start, f"{start}<NoDataValue>{value}</NoDataValue>")
        start = f'<VRTRasterBand dataType="UInt16" band="{band}" '
        assert start not in text
    (tmp_path / "a.vrt").write_text(text)
    tile_scene(TileJob(scenes=(str(tmp_path / "a.vrt"),), folder=tmp_path / "tiles"))
    (tile,) = (tmp_path / "tiles" / "lr").glob("*.tif")
    with rasterio.open(tile) as file:
        found = file.read()
        assert file.nodata == 7
    expected = pixels.copy()
    expected[1, 2, 2], expected[1, 3, 3] = 7, 8  # nodata; measured, so no longer 7
    np.testing.assert_array_equal(found, expected)
