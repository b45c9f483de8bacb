"""Scenes as files: what they say, and which of their pixels are valid."""

from __future__ import annotations

import math
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from affine import Affine
from hypothesis import given
from numpy.testing import assert_array_equal

from rsupres.errors import InputError
from rsupres.grid import PixelWindow
from rsupres.raster.dataset import Raster
from rsupres.raster.open import bounded_cache, read_bands
from rsupres.raster.reading import source as source_module
from tests.helpers import NORTH_UP, UTM, make_scene, ramp
from tests.raster.scenes import ROTATED, windows


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
