"""Files that are refused, damaged ones, archives, and fingerprints."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from rasterio.env import get_gdal_config
from rasterio.windows import Window

from rsupres.errors import InputError
from rsupres.grid import PixelWindow
from rsupres.raster.dataset import Raster
from rsupres.raster.open import bounded_cache
from tests.helpers import NORTH_UP, UTM, make_scene, ramp


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


def test_a_zip_of_one_raster_opens(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    make_scene(tmp_path / "in" / "a.tif")
    path = shutil.make_archive(str(tmp_path / "z"), "zip", tmp_path / "in")
    with Raster.open(path) as scene:
        assert scene.count == 3


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


def test_the_cache_is_bounded_inside_and_restored_after() -> None:
    before = get_gdal_config("GDAL_CACHEMAX")
    with bounded_cache(5 * 2**20):
        assert get_gdal_config("GDAL_CACHEMAX") == 5 * 2**20
        with rasterio.Env():
            assert get_gdal_config("GDAL_CACHEMAX") == 5 * 2**20
    assert get_gdal_config("GDAL_CACHEMAX") == before


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
