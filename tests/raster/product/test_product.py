"""Products as scenes: bands of several pixel sizes on one grid."""

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
from rsupres.grid import PixelWindow
from rsupres.products.sentinel2 import ALL_TEN, BANDS, TEN_METRES
from rsupres.raster.bands import choose_bands
from rsupres.raster.dataset import Raster
from rsupres.raster.product.describe import open_product
from rsupres.raster.product.find import find_product
from rsupres.raster.stack import open_scenes
from rsupres.raster.stretch import find_stretch, parse_stretch
from rsupres.upscaling.preparation.scene import sharpened_by
from tests.helpers import make_scene
from tests.miniature_safe import ALL, Miniature, frame_of, write_jp2
from tests.old_safe import OldMiniature


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Miniature().build(tmp_path_factory.mktemp("product"))


def opened(path: Path | str, bands_out: str | None = None) -> Raster:
    found = find_product(str(path))
    assert found is not None
    return Raster.open_product(open_product(found, bands_out))


@pytest.mark.parametrize("wanted", ALL, ids=lambda item: item.name)
def test_folder_zip_and_metadata_open_as_10_m_bands(
    wanted: Miniature, tmp_path: Path
) -> None:
    folder = wanted.build(tmp_path)
    archive = shutil.make_archive(str(folder), "zip", tmp_path, folder.name)
    for path in (folder, folder / f"MTD_MSI{wanted.level}.xml", archive):
        with Raster.open(path) as scene:
            assert scene.descriptions == TEN_METRES
            assert scene.colorinterp == ("red", "green", "blue", "nir")
            assert scene.nodata == 0
            np.testing.assert_allclose(scene.scales, [1e-4] * 4)
            np.testing.assert_allclose(scene.offsets, [(wanted.offset or 0) / 1e4] * 4)
            assert scene.tags["PROCESSING_BASELINE"] == wanted.baseline
            dn, valid = scene.read(scene.grid.window, (1, 2, 3, 4))
            stretch = find_stretch(scene, parse_stretch("auto"))
        assert_array_equal(dn, [wanted.bands[name] for name in TEN_METRES])
        assert_array_equal(valid[0], wanted.bands["B02"] > 0)
        np.testing.assert_allclose(stretch.low, [-(wanted.offset or 0)] * 4)
        np.testing.assert_allclose(stretch.high, [10_000 - (wanted.offset or 0)] * 4)


FORMS = ("/vsizip/{}/{}", "zip://{}!/{}", "zip+file://{}!{}")


@pytest.mark.parametrize("form", [*FORMS, "file://{1}", "{1}"])
def test_names_of_any_kind_find_the_metadata_of_their_product(
    product: Path, form: str
) -> None:
    archive = Path(f"{product}.zip")
    if not archive.exists():
        shutil.make_archive(str(product), "zip", product.parent, product.name)
    files = [next(product.rglob(f"*_{code}_10m.jp2")) for code in ("B04", "B03")]
    inside = [str(file.relative_to(product.parent)) for file in files]
    in_zip = "{1}" not in form
    names = [
        form.format(archive, member) if in_zip else form.format("", file)
        for file, member in zip(files, inside, strict=True)
    ]
    whole = form.format(archive if in_zip else "", product.name if in_zip else product)
    ends = [whole, form.format(archive, "").rstrip("/!")] if in_zip else [whole]
    with Raster.open(names[0]) as one, open_scenes(names) as joined:
        assert (one.descriptions, joined.descriptions) == (("B04",), ("B04", "B03"))
        assert joined.offsets == pytest.approx((-0.1, -0.1))
        assert (one.offsets[0], one.nodata) == (pytest.approx(-0.1), 0)
        assert joined.fingerprint()["sha256"]
    for name in ends:
        with Raster.open(name) as scene:
            assert (scene.path, scene.descriptions) == (name, TEN_METRES)
            assert scene.offsets == pytest.approx((-0.1,) * 4)


def test_products_of_two_baselines_are_joined_at_the_same_reflectance(
    tmp_path: Path,
) -> None:
    new = Miniature().build(tmp_path / "new")
    old = Miniature(baseline="03.00", offset=None).build(tmp_path / "old")
    for path in old.rglob("*_10m.jp2"):  # 960 m farther east
        band = path.stem.split("_")[-2]
        numbers = np.maximum(Miniature(offset=None).bands[band], 1)
        write_jp2(path, numbers, 10, col=96)
    with open_scenes([str(new), str(old)]) as scene:
        assert scene.offsets == pytest.approx((-0.1,) * 4)
        dn, _ = scene.read_stored(scene.grid.window, (1, 2, 3, 4))
    wanted = [Miniature().bands[name] for name in TEN_METRES]
    shown = np.array(wanted) > 0
    assert_array_equal(dn[:, :, :96][shown], np.array(wanted)[shown])
    assert_array_equal(dn[:, :, 96:][shown], np.array(wanted)[shown])


def test_all_ten_bands_keep_what_was_measured(product: Path) -> None:
    with opened(product, "all") as scene:
        assert scene.descriptions == ALL_TEN
        dn, valid = scene.read(scene.grid.window, scene.data_bands)
    wanted = Miniature().bands
    for plane, name in zip(dn, ALL_TEN, strict=True):
        factor = BANDS[name].gsd // 10
        coarse = plane.reshape(96 // factor, factor, -1, factor).mean(axis=(1, 3))
        hidden = wanted[name] == 0
        error = np.abs(coarse - wanted[name])[~hidden]
        # Beside nodata the neighbours are filled, so that means differ a little.
        assert np.percentile(error, 98) <= (0 if factor == 1 else 6)
    assert_array_equal(valid[0], wanted["B05"].repeat(2, 0).repeat(2, 1) > 0)


@pytest.mark.parametrize("window", [(31, 17, 25, 40), (0, 0, 7, 9), (80, 60, 16, 36)])
def test_sharpened_pixels_do_not_depend_on_the_window(
    product: Path, window: tuple[int, int, int, int]
) -> None:
    part = PixelWindow(*window)
    with opened(product, "B11,B01,B04") as scene:
        whole, _ = scene.read(scene.grid.window, (1, 2, 3))
        crop, _ = scene.crop(part).read(PixelWindow(0, 0, *part[2:]), (1, 2, 3))
        piece, _ = scene.read(part, (1, 2, 3))
    rows, cols = part.slices()
    assert_array_equal(piece, whole[:, rows, cols])
    assert_array_equal(crop, piece)


def test_coarse_bands_alone_lie_on_the_fine_grid(product: Path) -> None:
    with opened(product, "B11") as scene:
        assert scene.grid.gsd_m == 10
        assert [scene.descriptions[band - 1] for band in scene.data_bands] == ["B11"]


def test_classes_go_along_unchanged(product: Path) -> None:
    with opened(product, "10m,SCL") as scene:
        dn, _ = scene.read(scene.grid.window, (5,))
    assert_array_equal(dn[0], Miniature().classes.repeat(2, 0).repeat(2, 1))


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


def test_a_product_without_quantification_is_undecided(tmp_path: Path) -> None:
    folder = Miniature().build(tmp_path)
    path = folder / "MTD_MSIL2A.xml"
    path.write_text(path.read_text().replace("BOA_QUANTIFICATION", "OTHER"))
    with (
        Raster.open(folder) as scene,
        pytest.raises(InputError, match="B04, B03, B02, B08"),
    ):
        find_stretch(scene, parse_stretch("auto"))


def test_a_missing_band_file_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = Miniature().build(tmp_path)
    next(folder.rglob("*_B11_20m.jp2")).unlink()
    with pytest.raises(BandError, match="no band B11; the product has"):
        opened(folder, "all")
    assert "the image of B11 is missing" in caplog.text


def test_new_metadata_are_another_input(tmp_path: Path) -> None:
    folder = Miniature().build(tmp_path)
    with Raster.open(folder) as scene:
        before = scene.fingerprint()["sha256"]
    path = folder / "MTD_MSIL2A.xml"
    path.write_text(path.read_text().replace("-1000", "-2000"))
    with Raster.open(folder) as scene:
        assert scene.fingerprint()["sha256"] != before


# Band files given one by one.


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


# Files of several bands each.

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


# Products of before December 2016.


@pytest.mark.parametrize("level", ["L1C", "L2A"])
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
