"""Whole products through `upscale`: bands, numbers, masks, and what the output says."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.testing import assert_array_equal
from numpy.typing import NDArray
from rasterio.crs import CRS
from shapely import box

import rsupres
from rsupres.errors import InputError, RsupresError
from rsupres.products.sentinel2 import ALL_TEN
from rsupres.raster.stack import open_scenes
from rsupres.upscaling.preparation import scene as scenes
from tests.helpers import make_scene, write_vector
from tests.miniature_safe import CIRRUS, CLOUD, SHADOW, Miniature, write_jp2

LATE, EARLY = Miniature(), Miniature("L2A", "02.12", None)
CLOUDY = np.isin(LATE.classes, (CLOUD, SHADOW, CIRRUS))


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return LATE.build(tmp_path_factory.mktemp("product"))


def upscaled(
    scene: Path | list[Path], output: Path, **options: object
) -> rasterio.DatasetReader:
    """Upscale twice by bicubic interpolation and open the result."""
    rsupres.upscale(scene, output, scale=2, model="bicubic", **options)  # type: ignore[arg-type]
    return rasterio.open(output)


def enlarged(mask: NDArray[Any], factor: int) -> NDArray[Any]:
    return mask.repeat(factor, 0).repeat(factor, 1)


def test_ten_bands_keep_what_numbers_mean(product: Path, tmp_path: Path) -> None:
    with upscaled(product, tmp_path / "x2.tif", bands_out="all") as found:
        assert found.descriptions == ALL_TEN
        assert found.shape == (192, 192)
        assert (found.nodata, found.dtypes[0]) == (0, "uint16")
        np.testing.assert_allclose(found.scales, [1e-4] * 10)
        np.testing.assert_allclose(found.offsets, [-0.1] * 10)
        tags = found.tags()
        pixels = found.read()
    assert tags["RSUPRES_SHARPENED_BY"] == "s2-bands-small"
    assert tags["PROCESSING_BASELINE"] == "05.09"
    for band, name in ((1, "B03"), (9, "B12")):
        factor = 192 // len(LATE.bands[name])
        means = pixels[band].reshape(192 // factor, factor, -1, factor).mean((1, 3))
        inner = (slice(20, 40), slice(10, 40))
        difference = means[inner] - LATE.bands[name][inner].astype(float)
        assert abs(difference.mean()) < 25  # of about 2,000


def test_baselines_with_and_without_offset_give_the_same_reflectance(
    product: Path, tmp_path: Path
) -> None:
    early = EARLY.build(tmp_path)
    found = []
    for path, name in ((product, "late"), (early, "early")):
        with upscaled(path, tmp_path / f"{name}.tif") as result:
            dn = result.read(masked=True).astype(float)
            found.append(dn * result.scales[0] + result.offsets[0])
    np.testing.assert_allclose(found[0].filled(0), found[1].filled(0), atol=2e-4)


@pytest.mark.slow
def test_the_network_is_better_than_the_regression_is_used(
    product: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with upscaled(product, tmp_path / "a.tif", bands_out="B11,B05") as found:
        network = found.read()
        assert found.descriptions == ("B11", "B05")
    monkeypatch.setattr(scenes, "sharpened_by", lambda scene: None)
    monkeypatch.setattr(
        "rsupres.upscaling.preparation.work.sharpened_by", lambda scene: None
    )
    with upscaled(product, tmp_path / "b.tif", bands_out="B11,B05") as found:
        regression = found.read()
        assert "RSUPRES_SHARPENED_BY" not in found.tags()
    assert 0 < np.abs(network.astype(float) - regression).mean() < 100


@pytest.mark.parametrize(
    ("scale", "offset", "wanted"),
    [(None, 0.0, (1e-4, 0.0)), (2e-4, None, (2e-4, -0.2)), (1e-3, 5, (1e-3, 5e-3))],
)
def test_a_user_overrides_what_numbers_mean(
    product: Path,
    tmp_path: Path,
    scale: float | None,
    offset: float | None,
    wanted: tuple[float, float],
) -> None:
    given = {"dn_scale": scale, "dn_offset": offset}
    with upscaled(product, tmp_path / "a.tif", **given) as found:
        assert (found.scales[0], found.offsets[0]) == pytest.approx(wanted)


def test_undecided_numbers_need_both_options(tmp_path: Path) -> None:
    path = tmp_path / "T32UNU_20230712T101601_B04_10m.jp2"
    write_jp2(path, LATE.bands["B04"], 10)
    with pytest.raises(InputError, match="offset of B04 are unknown") as error:
        upscaled(path, tmp_path / "a.tif")
    assert error.value.exit_code == 3
    assert error.value.remedies[:2] == ("dn_scale=0.0001", "dn_offset=-1000")
    given = {"dn_scale": 1e-4, "dn_offset": -1000}
    with upscaled(path, tmp_path / "a.tif", **given) as found:
        assert found.offsets[0] == pytest.approx(-0.1)


# Masks.


def test_clouds_become_nodata_and_their_classes_stay(
    product: Path, tmp_path: Path
) -> None:
    options = {"bands_out": "10m,SCL", "mask": "scl"}
    with upscaled(product, tmp_path / "a.tif", **options) as found:
        pixels, tags = found.read(), found.tags()
    hidden = enlarged(CLOUDY, 4) | enlarged(LATE.bands["B04"] == 0, 2)
    assert_array_equal(pixels[0] == 0, hidden)
    assert_array_equal(pixels[4], enlarged(LATE.classes, 4))
    assert tags["RSUPRES_MASK"] == "scl: nodata,saturated,shadow,clouds,cirrus: nodata"


@pytest.mark.slow
def test_the_model_sees_no_cloud(product: Path, tmp_path: Path) -> None:
    clouds = tmp_path / "clouds"
    clouds.mkdir()
    other = Miniature()
    for name in other.bands:
        factor = 2 * len(other.bands[name]) // 96
        cloudy = CLOUDY if factor == 1 else enlarged(CLOUDY, 2)
        if cloudy.shape == other.bands[name].shape:
            other.bands[name][cloudy] = 9_000
    changed = other.build(clouds)
    results = []
    for number, path in enumerate((product, changed)):
        options = {"bands_out": "all", "mask": "scl"}
        with upscaled(path, tmp_path / f"{number}.tif", **options) as found:
            results.append(found.read())
    assert_array_equal(*results)


def test_hidden_pixels_may_be_interpolated(product: Path, tmp_path: Path) -> None:
    options = {"mask": "scl", "mask_action": "keep-bicubic"}
    with upscaled(product, tmp_path / "plain.tif") as found:
        plain = found.read()
    with upscaled(product, tmp_path / "kept.tif", **options) as found:
        kept = found.read()
    deep = np.zeros((192, 192), bool)
    deep[16:56, 24:72] = True
    difference = np.abs(kept.astype(int) - plain)
    assert difference[:, deep].max() <= 1
    assert_array_equal(kept == 0, plain == 0)
    near = enlarged(CLOUDY, 4) ^ np.roll(enlarged(CLOUDY, 4), 2)
    assert difference[:, near].max() > 1  # cut from other surroundings


def test_a_tile_of_nothing_but_clouds_is_kept(product: Path, tmp_path: Path) -> None:
    corner = tmp_path / "all.tif"
    make_scene(
        corner,
        pixels=np.ones((1, 4, 4), np.uint8),
        crs=CRS.from_epsg(32632),
        transform=rasterio.Affine(300, 0, 563000, 0, -300, 5393300),
    )
    options = {"mask": str(corner), "mask_action": "keep-bicubic"}
    with upscaled(product, tmp_path / "plain.tif") as found:
        plain = found.read()
    with upscaled(product, tmp_path / "kept.tif", **options) as found:
        assert np.abs(found.read().astype(int) - plain).max() <= 1


@pytest.mark.parametrize("baseline", ["02.09", "05.09"])
def test_the_cloud_mask_of_level_1c(tmp_path: Path, baseline: str) -> None:
    wanted = Miniature("L1C", baseline, None if baseline < "04" else -1000)
    path = wanted.build(tmp_path)
    with upscaled(path, tmp_path / "a.tif", mask="qa60") as found:
        hidden = found.read(1) == 0
    cloudy = np.isin(wanted.classes, (CLOUD, CIRRUS))
    if baseline == "05.09":  # pixels of 60 m
        cloudy = enlarged(cloudy[::3, ::3], 3)
    assert_array_equal(
        hidden, enlarged(cloudy, 4) | enlarged(wanted.bands["B04"] == 0, 2)
    )


def test_masks_of_ones_own(product: Path, tmp_path: Path) -> None:
    grid = rasterio.Affine(20, 0, 563200, 0, -20, 5393120)
    own = np.zeros((1, 48, 48), np.uint8)
    own[0, :10, :10], own[0, 20:30, :10] = 1, 2
    crs = CRS.from_epsg(32632)
    raster = make_scene(tmp_path / "m.tif", pixels=own, crs=crs, transform=grid)
    west, north = 563200, 5393120
    shapes = box(west, north - 200, west + 200, north)
    vector = write_vector(tmp_path / "m.gpkg", shapes, crs=crs)
    missing = enlarged(LATE.bands["B04"] == 0, 2)
    for name, mask, classes, wanted in (
        ("a", str(raster), None, own[0] > 0),
        ("b", str(raster), ["2"], own[0] == 2),
        ("c", vector, None, own[0] == 1),
    ):
        options = {"mask": mask, "mask_classes": classes}
        with upscaled(product, tmp_path / f"{name}.tif", **options) as found:
            assert_array_equal(found.read(1) == 0, enlarged(wanted, 4) | missing)


def test_saturated_pixels_are_hidden_with_a_mask(tmp_path: Path) -> None:
    wanted = Miniature()
    wanted.bands["B04"][50, 20] = 65535
    path = wanted.build(tmp_path)
    with upscaled(path, tmp_path / "a.tif", mask="scl") as found:
        assert (found.read(1)[100:102, 40:42] == 0).all()
    options = {"mask": "scl", "mask_classes": ["clouds"]}
    with upscaled(path, tmp_path / "b.tif", **options) as found:
        assert (found.read(1)[100:102, 40:42] > 20_000).any()


@pytest.mark.parametrize(
    ("options", "argument", "message"),
    [
        ({"mask": "qa60"}, "mask", "no such layer; it has SCL"),
        ({"mask": "scl", "mask_classes": ["fog"]}, "mask_classes", "'fog' is unknown"),
        ({"mask_classes": ["clouds"]}, "mask_classes", "needs a mask"),
        ({"bands_out": "B13"}, "bands_out", "'B13' is no band"),
        ({"dn_scale": -1.0}, "dn_scale", "-1 is not positive"),
        ({"mask": "nowhere.tif"}, "mask", "nowhere.tif: no such file"),
        ({"mask_action": "keep-bicubic"}, "mask_action", "needs a mask"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    product: Path,
    tmp_path: Path,
    options: dict[str, object],
    argument: str,
    message: str,
) -> None:
    with pytest.raises(RsupresError, match=message) as error:
        upscaled(product, tmp_path / "a.tif", **options)
    assert (error.value.argument, error.value.exit_code) == (argument, 3)
    assert not (tmp_path / "a.tif").exists()


def test_another_mask_is_another_job(product: Path, tmp_path: Path) -> None:
    upscaled(product, tmp_path / "a.tif", mask="scl").close()
    with pytest.raises(RsupresError, match="differs from what is asked"):
        upscaled(product, tmp_path / "a.tif", skip_existing=True)


def test_the_log_says_how_coarse_bands_were_sharpened(
    product: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        upscaled(product, tmp_path / "a.tif", bands_out="B12").close()
    assert "20 m bands are sharpened by s2-bands-small" in caplog.text


def test_files_with_bands_of_20_m_are_joined(product: Path, tmp_path: Path) -> None:
    files = [next(product.rglob(f"*_{name}.jp2")) for name in ("B04_10m", "B11_20m")]
    with open_scenes([str(file) for file in files]) as scene:
        assert scenes.sharpened_by(scene) is None  # which needs all ten bands
    with upscaled(files, tmp_path / "a.tif") as found:
        assert found.descriptions == ("B04", "B11")
        assert found.shape == (192, 192)
        assert found.offsets == pytest.approx((-0.1, -0.1))
