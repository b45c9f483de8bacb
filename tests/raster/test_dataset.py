"""Scenes: what opens, what is refused, and every pixel where it belongs."""

from __future__ import annotations

import json
import math
import os
import shutil
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import geopandas
import numpy as np
import pytest
import rasterio
import rasterio.shutil
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from rasterio.crs import CRS
from rasterio.env import get_gdal_config
from rasterio.warp import transform_bounds
from rasterio.windows import Window
from shapely.geometry import Point, Polygon, box

from rsupres.errors import InputError
from rsupres.grid import Grid, PixelWindow
from rsupres.raster.dataset import Raster
from rsupres.raster.nodata import FILL_REACH, fill_invalid
from rsupres.raster.open import bounded_cache, read_bands
from rsupres.raster.place.extent import window_from_aoi, window_from_bounds
from rsupres.raster.reading import source as source_module
from tests.helpers import NORTH_UP, UTM, make_scene, ramp, write_vector
from tests.strategies import COSTLY

ROTATED = Affine.translation(4e5, 5.2e6) @ Affine.rotation(30) @ Affine.scale(10, -10)


def test_a_scene_tells_what_the_file_holds(tmp_path: Path) -> None:
    path = make_scene(
        tmp_path / "a.tif",
        bands=2,
        nodata=7,
        descriptions=["B04", None],
        scales=[1e-4, 1.0],
        offsets=[-0.1, 0.0],
        tags={"SOURCE": "here", "STATISTICS_MEAN": "4"},
    )
    with Raster.open(path) as scene:
        assert scene.grid.transform == NORTH_UP
        assert scene.grid.crs == UTM
        assert (scene.grid.height, scene.grid.width) == (24, 32)
        assert (scene.count, scene.dtype, scene.nodata) == (2, "uint16", 7.0)
        assert scene.descriptions == ("B04", None)
        assert (scene.scales, scene.offsets) == ((1e-4, 1.0), (-0.1, 0.0))
        assert scene.colorinterp == ("gray", "undefined")
        assert scene.tags == {"SOURCE": "here"}
        assert scene.data_bands == (1, 2)
        assert not scene.has_mask


@pytest.mark.parametrize("transform", [NORTH_UP, ROTATED])
def test_any_affine_transform_works(tmp_path: Path, transform: Affine) -> None:
    path = make_scene(tmp_path / "a.tif", transform=transform)
    with Raster.open(path) as scene:
        assert_array_equal(scene.grid.transform, transform)
        part = scene.crop(PixelWindow(3, 5, 4, 4))
        corner = part.grid.transform @ (0, 0)
        np.testing.assert_allclose(corner, transform @ (5, 3), rtol=1e-12)


windows = st.builds(
    PixelWindow,
    st.integers(-60, 60),
    st.integers(-60, 60),
    st.integers(1, 70),
    st.integers(1, 70),
)


@given(windows)
def test_windows_beyond_the_scene_are_reflected(
    tmp_path_factory: pytest.TempPathFactory, window: PixelWindow
) -> None:
    path = tmp_path_factory.getbasetemp() / "reflected.tif"
    if not path.exists():
        make_scene(path, 9, 13, 2)
    around = np.pad(ramp(9, 13, 2), ((0, 0), (140, 140), (140, 140)), "symmetric")
    with Raster.open(path) as scene:
        dn, valid = scene.read(window, [2, 1])
    shifted = PixelWindow(window.row + 140, window.col + 140, *window[2:])
    assert_array_equal(dn, around[(slice(None), *shifted.slices())][::-1])
    assert dn.dtype == np.float32
    assert valid.shape == (1, window.height, window.width)
    assert valid.all()


def test_a_crop_reads_its_own_window(tmp_path: Path) -> None:
    path = make_scene(tmp_path / "a.tif")
    with Raster.open(path) as scene:
        part = scene.crop(PixelWindow(4, 6, 10, 12)).crop(PixelWindow(1, 2, 5, 6))
        dn, _ = part.read(PixelWindow(1, 1, 3, 4), [1, 2, 3])
    assert_array_equal(dn, ramp(24, 32)[:, 6:9, 9:13])
    assert part.window == PixelWindow(5, 8, 5, 6)


def test_a_crop_that_leaves_the_scene_is_refused(tmp_path: Path) -> None:
    with (
        Raster.open(make_scene(tmp_path / "a.tif")) as scene,
        pytest.raises(InputError, match="leaves the scene"),
    ):
        scene.crop(PixelWindow(20, 0, 5, 5))


def test_nodata_and_nan_of_any_band_make_a_pixel_invalid(tmp_path: Path) -> None:
    pixels = ramp(6, 8, 2, "float32")
    pixels[0, 1, 2] = -9999
    pixels[1, 3, 4] = np.nan
    pixels[1, 5, 5] = np.inf
    path = make_scene(tmp_path / "a.tif", pixels=pixels, nodata=-9999)
    with Raster.open(path) as scene:
        whole = scene.grid.window
        _, both = scene.read(whole, [1, 2])
        _, second = scene.read(whole, [2])
    assert {tuple(place) for place in np.argwhere(~both[0])} == {(1, 2), (3, 4), (5, 5)}
    assert {tuple(place) for place in np.argwhere(~second[0])} == {(3, 4), (5, 5)}


@pytest.mark.parametrize("nodata", [65535.0, 0.0])
def test_nodata_at_the_ends_of_the_type_is_seen(tmp_path: Path, nodata: float) -> None:
    pixels = ramp(6, 8, 1)
    pixels[0, 2, 3] = int(nodata)
    path = make_scene(tmp_path / "a.tif", pixels=pixels, nodata=nodata)
    with Raster.open(path) as scene:
        _, valid = scene.read(scene.grid.window, [1])
    assert_array_equal(np.argwhere(~valid[0]), [[2, 3]])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("nodata", [-3.4e38, 0.1, -9999.0, 1e20])
def test_floats_are_nodata_where_the_mask_of_gdal_says_so(
    tmp_path: Path, dtype: str, nodata: float
) -> None:
    value = np.array(nodata, dtype)
    near = [value, np.nextafter(value, np.inf), np.nextafter(value, -np.inf)]
    far = value + np.abs(value) * np.array([1e-4, -1e-5, 1e-3]).astype(dtype)
    lowest = np.array(np.finfo(np.float32).min, dtype)
    pixels = np.array([[[*near, *far, lowest, 0.5, 7]]], dtype)
    path = make_scene(tmp_path / "s.tif", pixels=pixels, nodata=nodata)
    with rasterio.open(path) as file:
        expected = file.read_masks(1) > 0
    expected &= np.abs(pixels[0]) < 1e38
    with Raster.open(path) as scene:
        _, valid = scene.read(scene.grid.window, (1,))
    np.testing.assert_array_equal(valid[0], expected)


def test_fill_values_beyond_measurement_are_invalid_undeclared(tmp_path: Path) -> None:
    pixels = np.array([[[np.finfo(np.float32).min, 0.5, 3e37]]], np.float32)
    path = make_scene(tmp_path / "s.tif", pixels=pixels)
    with Raster.open(path) as scene:
        _, valid = scene.read(scene.grid.window, (1,))
    assert valid.ravel().tolist() == [False, True, True]


def test_a_mask_band_makes_pixels_invalid(tmp_path: Path) -> None:
    mask = np.ones((24, 32), bool)
    mask[3:5, 20:] = False
    path = make_scene(tmp_path / "a.tif", mask=mask)
    with Raster.open(path) as scene:
        assert scene.has_mask
        assert scene.nodata is None
        _, valid = scene.read(PixelWindow(2, 18, 4, 10), [1])
    assert_array_equal(valid[0], mask[2:6, 18:28])


def rgba(fourth: np.ndarray) -> np.ndarray:
    pixels = ramp(24, 32, 4, "uint8")
    pixels[3] = fourth
    return pixels


COLOURS = ["red", "green", "blue", "alpha"]


def test_alpha_is_a_mask_and_no_band(tmp_path: Path) -> None:
    alpha = np.full((24, 32), 255)
    alpha[:, :5] = 0
    path = make_scene(tmp_path / "a.tif", pixels=rgba(alpha), colorinterp=COLOURS)
    with Raster.open(path) as scene:
        assert scene.data_bands == (1, 2, 3)
        assert scene.has_mask
        _, valid = scene.read(PixelWindow(0, 3, 4, 4), [1])
    assert_array_equal(valid[0, 0], [False, False, True, True])


@pytest.mark.parametrize("name", ["NIR", None])
def test_near_infrared_that_calls_itself_alpha_is_a_band(
    tmp_path: Path, name: str | None
) -> None:
    nir = np.arange(24 * 32).reshape(24, 32) % 200
    path = make_scene(
        tmp_path / "a.tif",
        pixels=rgba(nir),
        colorinterp=COLOURS,
        descriptions=["R", "G", "B", name],
    )
    with Raster.open(path) as scene:
        assert scene.data_bands == (1, 2, 3, 4)
        assert scene.colorinterp == ("red", "green", "blue", "undefined")
        _, valid = scene.read(scene.grid.window, [1, 4])
    assert valid.all()


@pytest.mark.parametrize("name", ["alpha", "Band_4", "dataMask", "Alpha band"])
def test_an_alpha_is_known_by_its_values(tmp_path: Path, name: str) -> None:
    pixels = np.full((4, 20, 20), 90, np.uint8)
    pixels[3] = 255
    pixels[:, :, 15:] = 0
    path = make_scene(
        tmp_path / "s.tif",
        pixels=pixels,
        photometric="RGB",
        alpha="yes",
        descriptions=["Red", "Green", "Blue", name],
    )
    with Raster.open(path) as scene:
        assert scene.data_bands == (1, 2, 3)
        _, valid = scene.read(scene.grid.window, (1,))
    assert valid.mean() == 0.75


def test_a_picture_with_much_0_is_no_alpha(tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(5, 250, (4, 50, 50)).astype(np.uint8)
    pixels[3, :30] = 0
    path = make_scene(tmp_path / "s.tif", pixels=pixels, photometric="RGB", alpha="yes")
    with Raster.open(path) as scene:
        assert scene.data_bands == (1, 2, 3, 4)
        assert not scene.has_mask


def test_a_virtual_raster_of_virtual_rasters_is_marked_by_the_lowest(
    tmp_path: Path,
) -> None:
    make_scene(tmp_path / "s.tif", 8, 8, 1)
    for outer, inner in (("in.vrt", "s.tif"), ("out.vrt", "in.vrt")):
        (tmp_path / outer).write_text(
            '<VRTDataset rasterXSize="8" rasterYSize="8"><SRS>EPSG:32633</SRS>'
            "<GeoTransform>0,10,0,0,0,-10</GeoTransform>"
            '<VRTRasterBand dataType="UInt16" band="1"><SimpleSource>'
            f'<SourceFilename relativeToVRT="1">{inner}</SourceFilename>'
            "<SourceBand>1</SourceBand></SimpleSource></VRTRasterBand></VRTDataset>"
        )
    with Raster.open(tmp_path / "out.vrt") as scene:
        before = scene.fingerprint()
    make_scene(tmp_path / "s.tif", pixels=np.full((1, 8, 8), 7, np.uint16))
    with Raster.open(tmp_path / "out.vrt") as scene:
        assert scene.fingerprint()["sha256"] != before["sha256"]


def test_a_thinned_scene_keeps_its_mask(tmp_path: Path) -> None:
    pixels = ramp(40, 60, 2)
    pixels[:, :20] = 0
    path = make_scene(tmp_path / "a.tif", pixels=pixels, nodata=0)
    with Raster.open(path) as scene:
        dn, valid = scene.read_decimated([1, 2], 40 * 60 // 16)
    assert dn.shape == (2, 10, 15)
    assert_array_equal(valid[0], dn[0] != 0)
    assert valid.mean() == 0.5


@pytest.mark.parametrize("interleave", ["pixel", "band"])
@pytest.mark.parametrize("height", [99, 200])
def test_a_thinned_scene_is_read_in_parts_that_the_cache_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interleave: str, height: int
) -> None:
    path = make_scene(
        tmp_path / "a.tif", height, 64, 2, tiled=True, blockxsize=16, blockysize=16,
        interleave=interleave,
    )  # fmt: skip
    with rasterio.open(path) as dataset:
        truth = dataset.read(out_shape=(2, math.ceil(height / 3), 22))
    rows: list[float] = []

    def read(dataset: rasterio.DatasetReader, bands: object, **how: Any) -> object:
        rows.append(how["window"].height)
        return read_bands(dataset, bands, **how)  # type: ignore[arg-type]

    monkeypatch.setattr(source_module, "read_bands", read)
    monkeypatch.setattr(
        source_module, "CACHE_BYTES", 2 * 40 * 64 * 4
    )  # 40 rows, 2 blocks
    with Raster.open(path) as scene:
        dn, _ = scene.read_decimated([1, 2], height * 64 // 9 + 1)
    assert_array_equal(dn, truth)
    assert len(rows) == math.ceil(height / 32)
    assert max(rows) <= 32 + 3


def test_reading_from_several_threads_at_once_gives_the_same(tmp_path: Path) -> None:
    truth = np.random.default_rng(0).integers(0, 60000, (2, 512, 512)).astype("uint16")
    path = make_scene(
        tmp_path / "a.tif",
        pixels=truth,
        compress="DEFLATE",
        tiled=True,
        blockxsize=16,
        blockysize=16,
    )
    wrong: list[int] = []
    with bounded_cache(1), Raster.open(path) as scene:

        def work(first: int) -> None:
            for row in range(first, 400, 4):
                dn, _ = scene.read(PixelWindow(row, 3, 100, 400), [1, 2])
                if not np.array_equal(dn, truth[:, row : row + 100, 3:403]):
                    wrong.append(row)

        threads = [threading.Thread(target=work, args=(first,)) for first in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong


# What cannot be used.


def refusal(path: Path | str) -> str:
    with pytest.raises(InputError) as caught:
        Raster.open(path)
    text = str(caught.value)
    assert text.startswith(str(path))
    assert "\n" not in text
    return text


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    assert "no such file" in refusal(tmp_path / "none.tif")


@pytest.mark.parametrize("content", [b"", b"no raster\n" * 99, b"II*\0"])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(content)
    refusal(path)


@pytest.mark.parametrize("compress", ["NONE", "DEFLATE", "JPEG"])
@pytest.mark.parametrize("tiled", [True, False])
@pytest.mark.parametrize("kept", [0.3, 0.9, 0.99])
def test_a_truncated_tiff_is_refused(
    tmp_path: Path, compress: str, tiled: bool, kept: float
) -> None:
    size = {"blockxsize": 64, "blockysize": 64} if tiled else {}
    pixels = np.random.default_rng(0).integers(0, 255, (3, 200, 200)).astype("uint8")
    path = make_scene(
        tmp_path / "a.tif", pixels=pixels, compress=compress, tiled=tiled, **size
    )
    Raster.open(path).close()
    os.truncate(path, int(path.stat().st_size * kept))
    assert "truncated" in refusal(path)


def test_a_tiff_that_lost_its_directory_is_refused(tmp_path: Path) -> None:
    path = make_scene(tmp_path / "a.tif")
    size = path.stat().st_size
    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(NOTE="x" * 9999)  # moves the directory to the end
    os.truncate(path, size)
    assert "truncated" in refusal(path)


def test_a_truncated_tiff_whose_last_pixels_come_first_is_refused(
    tmp_path: Path,
) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (1, 256, 64)).astype("uint8")
    path = tmp_path / "a.tif"
    size = {"blockxsize": 64, "blockysize": 64}
    frame = {"count": 1, "height": 256, "width": 64, "dtype": "uint8", "crs": UTM}
    with rasterio.open(
        *(path, "w"),
        driver="GTiff",
        transform=NORTH_UP,
        tiled=True,
        SPARSE_OK=True,
        **size,
        **frame,
    ):
        pass
    for row in (192, 128, 64, 0):
        with rasterio.open(path, "r+") as dataset:
            block = Window(0, row, 64, 64)
            dataset.write(pixels[:, row : row + 64], window=block)
    Raster.open(path).close()
    os.truncate(path, path.stat().st_size - 2000)
    assert "truncated" in refusal(path)


def test_a_truncated_jpeg2000_is_refused(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 9999, (1, 200, 200)).astype("uint16")
    path = make_scene(
        tmp_path / "a.jp2", pixels=pixels, driver="JP2OpenJPEG", REVERSIBLE="YES"
    )
    Raster.open(path).close()
    os.truncate(path, path.stat().st_size // 3)
    with (
        pytest.raises(InputError, match="truncated or damaged"),
        Raster.open(path) as s,
    ):
        s.read(s.grid.window, [1])


def test_a_file_damaged_in_the_middle_says_where(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 9999, (1, 256, 64)).astype("uint16")
    path = make_scene(
        tmp_path / "a.tif",
        pixels=pixels,
        compress="DEFLATE",
        tiled=True,
        blockxsize=64,
        blockysize=64,
    )
    with open(path, "r+b") as stream:
        stream.seek(path.stat().st_size // 2)
        stream.write(b"\0" * 2000)
    with (
        Raster.open(path) as scene,
        pytest.raises(InputError, match=r"a\.tif: cannot be read at rows 0 to 256"),
    ):
        scene.read(scene.grid.window, [1])


def test_no_crs_is_refused_unless_allowed(tmp_path: Path) -> None:
    path = make_scene(tmp_path / "a.tif", crs=None)
    assert "no CRS" in refusal(path)
    with Raster.open(path, needs_crs=False) as scene:
        assert scene.grid.crs is None


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_no_transform_is_refused(tmp_path: Path) -> None:
    path = make_scene(tmp_path / "a.tif", transform=None)
    assert "no transform" in refusal(path)


def test_a_palette_and_complex_numbers_are_refused(tmp_path: Path) -> None:
    palette = make_scene(tmp_path / "p.tif", bands=1, dtype="uint8")
    with rasterio.open(palette, "r+") as dataset:
        dataset.write_colormap(1, {0: (0, 0, 0, 255), 1: (9, 9, 9, 255)})
    assert "palette" in refusal(palette)
    waves = make_scene(tmp_path / "c.tif", pixels=ramp(4, 4, 1, "complex64"))
    assert "complex" in refusal(waves)


@pytest.mark.parametrize(
    "given", [{"offsets": [0, np.nan, 0]}, {"scales": [np.inf] * 3}]
)
def test_a_scale_or_offset_that_is_no_number_is_refused(tmp_path: Path, given) -> None:
    path = make_scene(tmp_path / "s.tif", **given)
    assert "by which its numbers mean nothing" in refusal(path)


def test_a_folder_without_a_product_is_refused(tmp_path: Path) -> None:
    assert "without a Sentinel-2 product" in refusal(tmp_path)


def test_a_zip_without_a_raster_is_refused(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text("x")
    path = shutil.make_archive(str(tmp_path / "z"), "zip", tmp_path / "in")
    assert "0 rasters" in refusal(path)
    (tmp_path / "bad.zip").write_bytes(b"PK no")
    assert "damaged" in refusal(tmp_path / "bad.zip")


# Products.


def test_a_zip_of_one_raster_opens(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    make_scene(tmp_path / "in" / "a.tif")
    path = shutil.make_archive(str(tmp_path / "z"), "zip", tmp_path / "in")
    with Raster.open(path) as scene:
        assert scene.count == 3


# Fingerprints.


def test_a_fingerprint_is_stable_and_plain(tmp_path: Path) -> None:
    path = make_scene(tmp_path / "a.tif")
    with Raster.open(path) as scene:
        mark = scene.fingerprint()
    with Raster.open(path) as scene:
        assert scene.fingerprint() == mark
        assert scene.crop(PixelWindow(1, 1, 5, 5)).fingerprint() == mark
    assert json.loads(json.dumps(mark)) == mark


def test_other_pixels_under_the_same_name_and_time_are_seen(tmp_path: Path) -> None:
    path = make_scene(tmp_path / "a.tif")
    with Raster.open(path) as scene:
        mark = scene.fingerprint()
    time = path.stat().st_mtime_ns
    pixels = ramp(24, 32)
    pixels[1, 12, 16] += 1
    make_scene(path, pixels=pixels)
    os.utime(path, ns=(time, time))
    with Raster.open(path) as scene:
        other = scene.fingerprint()
    assert other["sha256"] != mark["sha256"]


def test_a_virtual_raster_is_marked_by_its_sources(tmp_path: Path) -> None:
    source = make_scene(tmp_path / "a.tif")
    vrt = tmp_path / "a.vrt"
    rasterio.shutil.copy(source, vrt, driver="VRT")
    with Raster.open(vrt) as scene:
        mark = scene.fingerprint()
    make_scene(source, pixels=ramp(24, 32)[::-1].copy())
    with Raster.open(vrt) as scene:
        assert scene.fingerprint()["sha256"] != mark["sha256"]


# GDAL's cache.


def test_the_cache_is_bounded_inside_and_restored_after() -> None:
    before = get_gdal_config("GDAL_CACHEMAX")
    with bounded_cache(5 * 2**20):
        assert get_gdal_config("GDAL_CACHEMAX") == 5 * 2**20
        with rasterio.Env():
            assert get_gdal_config("GDAL_CACHEMAX") == 5 * 2**20
    assert get_gdal_config("GDAL_CACHEMAX") == before


# Filling.


def hole(height: int = 90, width: int = 100) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(1)
    lr = random.random((2, height, width), np.float32)
    rows, cols = np.mgrid[:height, :width]
    valid = (rows - 40) ** 2 + (cols - 30) ** 2 > 25**2
    valid &= rows + cols < 150
    valid &= random.random((height, width)) > 0.01
    return np.where(valid, lr, np.nan).astype(np.float32), valid[np.newaxis]


def test_filling_keeps_valid_pixels_and_leaves_no_nan() -> None:
    lr, valid = hole()
    filled = fill_invalid(lr, valid)
    assert np.isfinite(filled).all()
    assert_array_equal(filled[:, valid[0]], lr[:, valid[0]])


def test_filling_continues_a_constant_and_then_fades() -> None:
    lr = np.full((1, 5, 100), 0.25, np.float32)
    valid = np.zeros((1, 5, 100), bool)
    valid[:, :, :10] = True
    filled = fill_invalid(lr * valid, valid, background=[0.75])[0, 2]
    half = 10 + FILL_REACH // 2
    np.testing.assert_allclose(filled[:half], 0.25)
    assert (np.diff(filled[half : 10 + FILL_REACH]) > 0).all()
    np.testing.assert_array_equal(filled[10 + FILL_REACH :], 0.75)


def test_filling_without_a_valid_pixel_gives_the_background() -> None:
    filled = fill_invalid(
        np.full((2, 4, 4), np.nan, np.float32), np.zeros((1, 4, 4), bool), [1.0, 2.0]
    )
    assert_array_equal(filled[:, 0, 0], [1, 2])
    assert np.ptp(filled, axis=(1, 2)).max() == 0


@COSTLY
@given(windows)
def test_a_filled_value_depends_on_its_position_alone(
    tmp_path_factory: pytest.TempPathFactory, window: PixelWindow
) -> None:
    path = tmp_path_factory.getbasetemp() / "hole.tif"
    lr, valid = hole()
    if not path.exists():
        make_scene(path, pixels=np.where(valid, lr, -1), nodata=-1)
    window = PixelWindow(window.row + 40, window.col + 40, *window[2:])
    with Raster.open(path) as scene:
        part, part_valid = scene.read_filled(window, [1, 2])
        whole, whole_valid = scene.read_filled(PixelWindow(-30, -30, 210, 210), [1, 2])
    place = window.relative_to(PixelWindow(-30, -30, 210, 210)).slices()
    assert_array_equal(part, whole[(slice(None), *place)])
    assert_array_equal(part_valid, whole_valid[(slice(None), *place)])


# Parts by ground coordinates.


def bounds_of(transform: Affine, window: PixelWindow) -> tuple[float, ...]:
    west, north = transform @ (window.col, window.row)
    east, south = transform @ (window.col_stop, window.row_stop)
    return west, south, east, north


@given(
    st.floats(1e-5, 100),
    st.floats(-180, 180),
    *(st.integers(0, 20), st.integers(0, 20), st.integers(1, 4), st.integers(1, 9)),
)
def test_bounds_on_pixel_edges_give_exactly_these_pixels(
    side: float, origin: float, row: int, col: int, height: int, width: int
) -> None:
    transform = Affine(side, 0, origin, 0, -side, -origin)
    scene = cast(
        Raster, SimpleNamespace(grid=Grid(UTM, transform, 24, 32), path="a.tif")
    )
    window = PixelWindow(row, col, height, width)
    assert window_from_bounds(scene, bounds_of(transform, window)) == window


def test_bounds_take_every_pixel_that_they_touch_and_stop_at_the_edge(
    tmp_path: Path,
) -> None:
    west, south, east, north = bounds_of(NORTH_UP, PixelWindow(3, 4, 5, 6))
    with Raster.open(make_scene(tmp_path / "a.tif")) as scene:
        assert window_from_bounds(
            scene, (west + 1, south - 1, east - 1, north + 1)
        ) == PixelWindow(2, 4, 7, 6)
        assert window_from_bounds(
            scene, (west, south - 1e6, east + 1e6, north)
        ) == PixelWindow(3, 4, 21, 28)


def test_bounds_may_be_degrees(tmp_path: Path) -> None:
    window = PixelWindow(8, 10, 4, 6)
    degrees = transform_bounds(UTM, "EPSG:4326", *bounds_of(NORTH_UP, window))
    with Raster.open(make_scene(tmp_path / "a.tif")) as scene:
        found = window_from_bounds(scene, degrees, "EPSG:4326")
    assert found.intersection(window) == window
    assert found.height <= window.height + 2
    assert found.width <= window.width + 2


def test_bounds_on_a_rotated_scene_are_covered(tmp_path: Path) -> None:
    with Raster.open(make_scene(tmp_path / "a.tif", transform=ROTATED)) as scene:
        x, y = ROTATED @ (10.5, 12.5)
        found = window_from_bounds(scene, (x - 10, y - 10, x + 10, y + 10))
        assert found.row <= 11
        assert found.row_stop >= 14
        assert found.intersection(PixelWindow(12, 10, 1, 1)) is not None
        assert found.height < 8


@pytest.mark.parametrize(
    ("bounds", "crs", "message"),
    [
        ((0, 0, 1, 1), None, r"lies outside .*a\.tif, which covers 399960\.1 "),
        ((1, 0, 0, 1), None, "rising"),
        ((0, 0, 1, 1), "EPSG:0", "bounds_crs 'EPSG:0' is unknown"),
        ((0, 91, 1, 95), "EPSG:4326", "bounds"),
    ],
)
def test_bounds_that_cannot_be_used_are_refused(
    tmp_path: Path, bounds: tuple[float, ...], crs: str | None, message: str
) -> None:
    with (
        Raster.open(make_scene(tmp_path / "a.tif")) as scene,
        pytest.raises(InputError, match=message),
    ):
        window_from_bounds(scene, bounds, crs)


@pytest.mark.parametrize("crs", [UTM, "EPSG:4326"])
def test_an_aoi_gives_its_window_and_hides_the_rest(
    tmp_path: Path, crs: CRS | str
) -> None:
    corners = [NORTH_UP @ place for place in [(5, 4), (15, 4), (5, 14)]]
    shape = geopandas.GeoSeries([Polygon(corners)], crs=UTM).to_crs(crs)[0]
    aoi = write_vector(tmp_path / "a.gpkg", shape, crs=crs)
    with Raster.open(make_scene(tmp_path / "a.tif")) as scene:
        window, area = window_from_aoi(scene, aoi)
        assert window.intersection(PixelWindow(4, 5, 10, 10)) == (4, 5, 10, 10)
        part = scene.crop(window, area)
        assert part.has_mask
        dn, valid = part.read(part.grid.window, [1])
        _, thin = part.read_decimated([1], 10**9)
    rows, cols = np.mgrid[: window.height, : window.width]
    centre = (rows + window.row - 4 + 0.5) + (cols + window.col - 5 + 0.5)
    sure = np.abs(centre - 10) > 0.01  # of centres on the triangle's long side
    inside = (centre < 10) & (rows + window.row >= 4) & (cols + window.col >= 5)
    assert_array_equal(valid[0][sure], inside[sure])
    assert_array_equal(thin, valid)
    assert dn.shape == valid.shape


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (Point(4e5, 5.2e6), "no polygons"),
        (box(0, 0, 9, 9), "lies outside"),
    ],
)
def test_an_aoi_that_cannot_be_used_is_refused(
    tmp_path: Path, shape: object, message: str
) -> None:
    aoi = write_vector(tmp_path / "a.gpkg", shape)
    with (
        Raster.open(make_scene(tmp_path / "a.tif")) as scene,
        pytest.raises(InputError, match=message),
    ):
        window_from_aoi(scene, aoi)


def test_the_polygons_of_all_layers_are_the_area(tmp_path: Path, caplog) -> None:
    """Layers of points and lines do not stand in the way of one with polygons."""
    aoi = tmp_path / "a.gpkg"
    corner = NORTH_UP @ (0, 0)
    parts = {
        "stations": Point(corner),
        "one": box(*(NORTH_UP @ (2, 6)), *(NORTH_UP @ (4, 4))),
        "two": box(*(NORTH_UP @ (10, 9)), *(NORTH_UP @ (12, 7))),
    }
    for name, shape in parts.items():
        crs = UTM if name != "two" else "EPSG:4326"
        series = geopandas.GeoSeries([shape], crs=UTM).to_crs(crs)
        geopandas.GeoDataFrame(geometry=series).to_file(aoi, layer=name)
    with Raster.open(make_scene(tmp_path / "a.tif")) as scene:
        window, area = window_from_aoi(scene, str(aoi))
    assert window.intersection(PixelWindow(4, 2, 5, 10)) == (4, 2, 5, 10)
    assert area.area == pytest.approx(2 * 400, rel=1e-3)
    assert "the polygons of 2 layers are taken together: one, two" in caplog.text


def test_an_aoi_that_is_no_vector_file_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "a.geojson"
    text.write_text("nothing")
    with Raster.open(make_scene(tmp_path / "a.tif")) as scene:
        for path in (text, tmp_path / "missing.gpkg"):
            with pytest.raises(InputError, match="not a vector file"):
                window_from_aoi(scene, str(path))


def test_a_virtual_raster_without_its_sources_is_refused(tmp_path: Path) -> None:
    make_scene(tmp_path / "a.tif")
    for source, virtual in (("a.tif", "in.vrt"), ("in.vrt", "out.vrt")):
        rasterio.shutil.copy(tmp_path / source, tmp_path / virtual, driver="VRT")
    (tmp_path / "a.tif").rename(tmp_path / "gone.tif")
    with pytest.raises(InputError, match=r"out\.vrt: .*a\.tif.* does not exist"):
        Raster.open(tmp_path / "out.vrt")


def test_a_file_of_several_rasters_is_refused_with_their_names(tmp_path: Path) -> None:
    path = tmp_path / "two.tif"
    for append in ("NO", "YES"):
        make_scene(path, APPEND_SUBDATASET=append)
    with pytest.raises(InputError, match=r"2 rasters; .*GTIFF_DIR:1:.*GTIFF_DIR:2:"):
        Raster.open(path)
    with Raster.open(f"GTIFF_DIR:2:{path}") as scene:
        assert scene.count == 3
