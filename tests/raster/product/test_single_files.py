"""Single band files and old granules of products."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from numpy.testing import assert_array_equal
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.shutil import copy
from rasterio.transform import from_bounds
from rasterio.vrt import WarpedVRT

from rsupres.errors import BandError, InputError
from rsupres.products.sentinel2 import ALL_TEN, BANDS, TEN_METRES
from rsupres.raster.bands import choose_bands
from rsupres.raster.dataset import Raster
from rsupres.raster.product.find import find_product
from rsupres.raster.stack import open_scenes
from rsupres.raster.stretch import find_stretch, parse_stretch
from rsupres.upscaling.preparation.scene import sharpened_by
from tests.helpers import make_scene
from tests.miniature_safe import Miniature, frame_of, write_jp2
from tests.old_safe import OldMiniature
from tests.raster.product.products import opened


def test_a_band_file_alone_knows_its_product(product: Path) -> None:
    with Raster.open(next(product.rglob("*_B11_20m.jp2"))) as scene:
        assert scene.descriptions == ("B11",)
        assert scene.offsets == pytest.approx((-0.1,))
        assert (scene.grid.gsd_m, scene.nodata) == (20, 0)


def test_a_band_file_without_metadata_is_undecided(tmp_path: Path) -> None:
    path = tmp_path / "T32UNU_20230712T101601_B04_10m.jp2"
    write_jp2(path, Miniature().bands["B04"], 10)
    with Raster.open(path) as scene:
        for choice in ("auto", "reflectance"):
            with pytest.raises(InputError, match="scale and offset of B04"):
                find_stretch(scene, parse_stretch(choice))
        assert find_stretch(scene, parse_stretch("1000,4000")).low == (1000,)


def test_band_files_of_two_pixel_sizes_are_joined_on_the_finest(
    product: Path,
) -> None:
    names = ["B02_10m", "B04_10m", "B03_10m", "B11_20m", "SCL_20m", "B08_10m"]
    files = [str(next(product.rglob(f"*_{name}.jp2"))) for name in names]
    with open_scenes(files) as scene, opened(product, "B02,B11,SCL") as whole:
        assert scene.descriptions == ("B02", "B04", "B03", "B11", "SCL", "B08")
        assert scene.grid == whole.grid
        assert scene.offsets[3] == pytest.approx(-0.1)
        dn, valid = scene.read(scene.grid.window, (1, 4, 5))
        wanted, _ = whole.read(scene.grid.window, (1, 2, 3))
    # The guides stand in another order, so sums are rounded otherwise.
    np.testing.assert_allclose(dn, wanted, atol=1)
    coarse = Miniature().bands["B11"].repeat(2, 0).repeat(2, 1)
    assert_array_equal(valid[0], coarse > 0)


def test_a_coarse_file_that_misses_the_last_column_leaves_it_invalid(
    tmp_path: Path,
) -> None:
    bands = Miniature().bands
    write_jp2(tmp_path / "B04.jp2", bands["B04"][24:, 24:], 10)
    write_jp2(tmp_path / "B11.jp2", bands["B11"][12:, 12:-1], 20)
    with open_scenes([str(tmp_path / "B04.jp2"), str(tmp_path / "B11.jp2")]) as scene:
        _, valid = scene.read(scene.grid.window, (1, 2))
        _, fine = scene.read(scene.grid.window, (1,))
    assert valid[0, :, :-2].all()
    assert not valid[0, :, -2:].any()
    assert fine.all()


def test_pixels_that_do_not_nest_are_refused(tmp_path: Path) -> None:
    bands = Miniature().bands
    write_jp2(tmp_path / "B04.jp2", bands["B04"], 10)
    write_jp2(tmp_path / "B11.jp2", bands["B11"], 25)
    names = [str(tmp_path / "B04.jp2"), str(tmp_path / "B11.jp2")]
    with pytest.raises(InputError, match=r"2\.5 x 2\.5 of the finest") as refused:
        open_scenes(names).__enter__()
    words = str(refused.value).split()
    west, south, east, north = map(float, words[words.index("-te") + 1 :][:4])
    width, height = map(int, words[words.index("-ts") + 1 :][:2])
    with (
        rasterio.open(names[1]) as coarse,
        WarpedVRT(
            coarse,
            transform=from_bounds(west, south, east, north, width, height),
            width=width,
            height=height,
            resampling=Resampling.cubic,
        ) as resampled,
    ):
        copy(resampled, tmp_path / "RESAMPLED_B11.tif", driver="GTiff")
    with open_scenes([names[0], str(tmp_path / "RESAMPLED_B11.tif")]) as scene:
        pixels, valid = scene.read(scene.grid.window, (1, 2))
    assert len(pixels) == 2
    assert valid.all()


def test_bands_of_20_m_alone_are_no_colours(product: Path) -> None:
    files = [str(next(product.rglob(f"*_{n}_20m.jp2"))) for n in ("B05", "B06", "B07")]
    with (
        open_scenes(files) as scene,
        pytest.raises(BandError, match="no band for red, green, blue; the file has 3"),
    ):
        choose_bands(scene, ("red", "green", "blue"))


def test_bands_of_a_file_that_is_no_product_are_not_chosen(tmp_path: Path) -> None:
    path = make_scene(tmp_path / "a.tif")
    with (
        pytest.raises(BandError, match="neither") as error,
        open_scenes([str(path)], bands_out="all"),
    ):
        pass
    assert error.value.argument == "bands_out"


def test_a_subdataset_of_20_m_is_no_picture_in_colours(product: Path) -> None:
    name = f"SENTINEL2_L2A:{product}/MTD_MSIL2A.xml:20m:EPSG_32632"
    with Raster.open(name) as scene:
        assert scene.grid.gsd_m == 20
        assert set(scene.descriptions) == {"B05", "B06", "B07", "B8A", "B11", "B12"}
        assert scene.offsets == pytest.approx((-0.1,) * 6)
        with pytest.raises(BandError, match="no band for red, green, blue"):
            choose_bands(scene, ("red", "green", "blue"))


FOUR, SIX = ("B02", "B03", "B04", "B08"), ("B05", "B06", "B07", "B8A", "B11", "B12")


def write_bands(
    path: Path, names: tuple[str, ...], *, labels: bool = True, south_m: int = 0
) -> str:
    """Write bands of the miniature into one file, with their names."""
    planes = [Miniature().bands[name] for name in names]
    gsd = BANDS[names[0]].gsd
    frame = Affine.translation(0, -south_m) @ frame_of(gsd)
    return str(
        make_scene(
            path,
            pixels=np.stack(planes),
            nodata=0,
            crs=CRS.from_epsg(32632),
            transform=frame,
            descriptions=names if labels else None,
            scales=[1e-4] * len(names),
            offsets=[-0.1] * len(names),
        )
    )


def test_files_of_several_bands_and_sizes_are_the_product(
    product: Path, tmp_path: Path
) -> None:
    files = [
        write_bands(tmp_path / "six.tif", SIX),
        write_bands(tmp_path / "four.tif", FOUR),
    ]
    with open_scenes(files) as scene, opened(product, ",".join(SIX + FOUR)) as whole:
        assert scene.descriptions == SIX + FOUR
        assert (scene.grid, scene.offsets) == (whole.grid, whole.offsets)
        assert choose_bands(scene, ("red", "green", "blue")).roles == (9, 8, 7)
        dn, valid = scene.read(scene.grid.window, scene.data_bands)
        wanted, measured = whole.read(scene.grid.window, scene.data_bands)
        assert sharpened_by(scene) == "s2-bands-small"
    # The guides stand in another order, so sums are rounded otherwise.
    np.testing.assert_allclose(dn, wanted, atol=1)
    assert_array_equal(valid, measured)


def test_files_of_different_bands_on_one_grid_are_joined(tmp_path: Path) -> None:
    files = [
        write_bands(tmp_path / "a.tif", FOUR[:2]),
        write_bands(tmp_path / "b.tif", FOUR[2:]),
    ]
    with open_scenes(files) as scene:
        assert scene.descriptions == FOUR
        dn, _ = scene.read(scene.grid.window, (3,))
    assert_array_equal(dn[0], Miniature().bands["B04"])


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        (("B8A", "B8A"), {}, "B8A is there twice"),
        (SIX, {"labels": False}, "some have none"),
        (SIX, {"south_m": 2000}, "lies beside the files with finer pixels"),
    ],
)
def test_bands_that_cannot_be_told_apart_are_refused(
    tmp_path: Path, names: tuple[str, ...], options: dict[str, Any], message: str
) -> None:
    files = [
        write_bands(tmp_path / "four.tif", FOUR),
        write_bands(tmp_path / "six.tif", names, **options),
    ]
    with pytest.raises(InputError, match=message), open_scenes(files):
        pass


@pytest.mark.parametrize("level", [pytest.param("L1C", marks=pytest.mark.slow), "L2A"])
def test_granules_of_one_zone_are_joined(level: str, tmp_path: Path) -> None:
    old = OldMiniature(level)
    folder = old.build(tmp_path)
    archive = shutil.make_archive(str(folder), "zip", tmp_path, folder.name)
    for path in (folder, folder / old.metadata, archive):
        with opened(path, "all") as scene:
            assert scene.descriptions == ALL_TEN
            assert scene.scales == pytest.approx((1e-4,) * 10)
            dn, _ = scene.read(scene.grid.window, (1, 7))
        assert_array_equal(dn, [old.pixels.bands[name] for name in ("B02", "B08")])


def test_granules_of_several_zones_are_opened_one_by_one(tmp_path: Path) -> None:
    old = OldMiniature(zones=(32, 33))
    folder = old.build(tmp_path)
    south = folder / "GRANULE" / old.granule("T32UNV")
    with pytest.raises(InputError, match="several UTM zones") as error:
        opened(folder)
    assert str(south) in str(error.value)
    name = f"SENTINEL2_L1C:{folder / old.metadata}:10m:EPSG_32633"
    for path in (south, name):
        with Raster.open(path) as scene:
            assert scene.grid.crs == CRS.from_epsg(32633)
            assert scene.descriptions[:1] in (("B04",), ("B02",))
            assert scene.grid.height == 60
    with opened(south, "B02,B11,B01") as scene:
        dn, _ = scene.read(scene.grid.window, (1,))
    assert_array_equal(dn[0], old.pixels.bands["B02"][36:])


def test_one_granule_has_its_mask_and_its_band_files(tmp_path: Path) -> None:
    old = OldMiniature(tiles=("T32UNU",))
    folder = old.build(tmp_path)
    found = find_product(str(folder))
    assert found is not None
    assert list(found.layers) == ["CLOUDS"]
    with Raster.open(next(folder.rglob("*_B11.jp2"))) as scene:
        assert scene.descriptions == ("B11",)
        assert scene.scales == pytest.approx((1e-4,))


def test_the_granule_of_a_new_product_is_the_product(product: Path) -> None:
    with Raster.open(next((product / "GRANULE").iterdir())) as scene:
        assert scene.descriptions == TEN_METRES
        assert scene.offsets == pytest.approx((-0.1,) * 4)


def test_an_old_band_file_without_metadata_is_undecided(tmp_path: Path) -> None:
    old = OldMiniature(tiles=("T32UNU",))
    band = next(old.build(tmp_path).rglob("*_B04.jp2"))
    alone = shutil.copy(band, tmp_path / band.name)
    with Raster.open(alone) as scene:
        assert scene.undecided == ("B04",)
