"""Products as scenes: bands of several pixel sizes on one grid."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from rsupres.errors import BandError, InputError
from rsupres.grid import PixelWindow
from rsupres.products.sentinel2 import ALL_TEN, BANDS, TEN_METRES
from rsupres.raster.dataset import Raster
from rsupres.raster.stack import open_scenes
from rsupres.raster.stretch import find_stretch, parse_stretch
from tests.miniature_safe import ALL, Miniature, write_jp2
from tests.raster.product.products import opened


@pytest.mark.parametrize(
    "wanted",
    [
        pytest.param(item, marks=() if n in (1, 2) else pytest.mark.slow)
        for n, item in enumerate(ALL)
    ],
    ids=lambda item: item.name,
)
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
