"""The numbers that outputs hold: codes, masks of lossy files, figures."""

from __future__ import annotations

import logging
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import rasterio

from rsupres.errors import ModelOutputError
from rsupres.raster.bands import choose_bands
from rsupres.raster.dataset import Raster
from rsupres.raster.stretch import find_stretch, parse_stretch
from rsupres.upscaling.gates import check_finite
from rsupres.upscaling.job import UpscaleJob
from rsupres.upscaling.pipeline import upscale_scene
from tests.fakes import FakeModel, spec
from tests.helpers import make_scene


def _upscaled(scene: Path, output: Path, **options: object) -> Path:
    chosen = {"model": "bicubic", "scale": Fraction(2), **options}
    upscale_scene(UpscaleJob(scenes=(str(scene),), output=output, **chosen))
    return output


@pytest.mark.parametrize("lock", [False, True])
def test_bands_of_codes_are_copied_by_nearest_pixel(tmp_path: Path, lock: bool) -> None:
    rng = np.random.default_rng(1)
    pixels = rng.integers(300, 3000, (4, 20, 20)).astype(np.uint16)
    pixels[3] = rng.choice([21824, 22280, 23888], (20, 20))
    names = ["B04", "B03", "B02", "QA_PIXEL"]
    scene = make_scene(tmp_path / "s.tif", pixels=pixels, descriptions=names)
    out = _upscaled(scene, tmp_path / "o.tif", lock_low_frequencies=lock)
    with rasterio.open(out) as file:
        assert file.descriptions == tuple(names)
        np.testing.assert_array_equal(
            file.read(4), np.kron(pixels[3], np.ones((2, 2), np.uint16))
        )


@pytest.mark.parametrize(
    ("dtype", "lock"),
    [("uint32", False), ("uint64", True), ("int64", False)],
)
def test_codes_of_any_size_are_copied_to_the_last_bit(
    tmp_path: Path, dtype: str, lock: bool, caplog: pytest.LogCaptureFixture
) -> None:
    rng = np.random.default_rng(1)
    pixels = rng.integers(300, 3000, (4, 20, 20)).astype(dtype)
    largest = np.iinfo(dtype).max
    pixels[3] = rng.choice(np.array([largest, largest - 1, 2**24 + 1], dtype), (20, 20))
    pixels[:, 3, :5] = 0
    scene = make_scene(
        tmp_path / "s.tif",
        pixels=pixels,
        nodata=0,
        descriptions=["QA_PIXEL" if k == 3 else f"B0{4 - k}" for k in range(4)],
    )
    with caplog.at_level(logging.INFO):
        out = _upscaled(scene, tmp_path / "o.tif", lock_low_frequencies=lock)
    with rasterio.open(out) as file:
        assert file.dtypes[3] == dtype
        np.testing.assert_array_equal(
            file.read(4), np.kron(pixels[3], np.ones((2, 2), dtype))
        )
    assert "band 4 is of classes or bits" in caplog.text
    assert "bicubically" not in caplog.text
    assert "bits are kept" not in caplog.text


@pytest.mark.parametrize("name", ["SCL.tif", "LC09_X_T1_QA_PIXEL.TIF", "a.Fmask.tif"])
def test_a_file_of_codes_alone_is_known_by_its_name(tmp_path: Path, name: str) -> None:
    pixels = np.random.default_rng(1).choice([3, 4, 9], (1, 20, 20)).astype(np.uint16)
    scene = make_scene(tmp_path / name, pixels=pixels)
    out = _upscaled(scene, tmp_path / "o.tif")
    with rasterio.open(out) as file:
        assert file.descriptions[0] in ("SCL", "QA_PIXEL", "FMASK")
        np.testing.assert_array_equal(
            file.read(1), np.kron(pixels[0], np.ones((2, 2), np.uint16))
        )


def test_chosen_bands_of_codes_are_copied_too(tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).choice([300, 900], (3, 20, 20)).astype(np.uint16)
    names = ["SCL", "B03", "B02"]
    scene = make_scene(tmp_path / "s.tif", pixels=pixels, descriptions=names)
    out = _upscaled(scene, tmp_path / "o.tif", bidx=(3, 1), other_bands="skip")
    with rasterio.open(out) as file:
        codes = file.read(file.descriptions.index("SCL") + 1)
        assert set(np.unique(file.read(file.descriptions.index("B02") + 1))) > {300}
    np.testing.assert_array_equal(codes, np.kron(pixels[0], np.ones((2, 2), np.uint16)))


@pytest.mark.parametrize("compress", ["JPEG", "WEBP"])
def test_lossy_outputs_have_a_mask_instead_of_nodata(
    tmp_path: Path, compress: str
) -> None:
    rng = np.random.default_rng(1)
    pixels = rng.integers(1, 255, (3, 64, 64)).astype(np.uint8)
    hidden = np.add.outer(np.arange(64), np.arange(64)) < 50
    pixels[:, hidden] = 0
    scene = make_scene(tmp_path / "s.tif", pixels=pixels, nodata=0, photometric="RGB")
    creation = (("COMPRESS", compress),)
    out = _upscaled(scene, tmp_path / "o.tif", creation=creation)
    with rasterio.open(out) as file:
        assert file.nodata is None
        np.testing.assert_array_equal(
            file.dataset_mask() == 0, np.kron(hidden, np.ones((2, 2), bool))
        )


@pytest.mark.parametrize("has_hole", [False, True])
def test_pixels_that_one_band_lacks_are_counted_in_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, has_hole: bool
) -> None:
    # Without a nodata value a mask says what is valid, for all bands.
    pixels = np.full((3, 20, 20), 500, np.float32)
    pixels[:, :5] = np.nan
    if has_hole:
        pixels[0, 10:15, :8] = np.nan
    scene = make_scene(tmp_path / "s.tif", pixels=pixels)
    out = _upscaled(scene, tmp_path / "o.tif")
    assert ("10 % of the pixels are nodata in one band" in caplog.text) == has_hole
    with rasterio.open(out) as file:
        hidden = np.isnan(pixels).any(axis=0)
        np.testing.assert_array_equal(
            file.dataset_mask() == 0, np.kron(hidden, np.ones((2, 2), bool))
        )


@pytest.mark.parametrize(
    ("dtype", "nodata", "lock"),
    [
        ("uint16", 0, True),
        pytest.param("uint8", 255, False, marks=pytest.mark.slow),
        pytest.param("float32", float("nan"), True, marks=pytest.mark.slow),
    ],
)
def test_a_band_without_a_number_leaves_the_others_theirs(
    tmp_path: Path, dtype: str, nodata: float, lock: bool
) -> None:
    rng = np.random.default_rng(1)
    whole = rng.integers(1, 200, (3, 24, 20)).astype(dtype)
    holed = whole.copy()
    holed[0, 8:14, :9] = nodata  # dark water in one band
    holed[2, :, 10:] = nodata  # a smaller swath
    options = {"nodata": nodata, "lock_low_frequencies": lock, "tile_size": 13}
    results = {}
    for name, pixels in (("whole", whole), ("holed", holed)):
        scene = make_scene(tmp_path / f"{name}.tif", pixels=pixels, nodata=nodata)
        output = _upscaled(scene, tmp_path / f"{name}_sr.tif", **options)
        with rasterio.open(output) as file:
            results[name] = file.read(masked=True)
            figures = file.tags()
    hidden = np.isnan(holed) if dtype == "float32" else holed == nodata
    np.testing.assert_array_equal(
        results["holed"].mask, np.kron(hidden, np.ones((1, 2, 2), bool))
    )
    assert not np.ma.getmaskarray(results["whole"]).any()
    np.testing.assert_array_equal(results["holed"][1], results["whole"][1])
    assert float(figures["RSUPRES_VALID"]) == 1


def test_other_bands_do_not_blank_those_of_a_model(tmp_path: Path, monkeypatch) -> None:
    rng = np.random.default_rng(1)
    pixels = rng.integers(300, 3000, (4, 20, 20)).astype(np.uint16)
    pixels[2, 2:4, 2:4] = 0  # red, which the model needs
    pixels[0, :, 10:] = 0  # thermal
    names = ["LST", "B03", "B04", "B02"]
    scene = make_scene(tmp_path / "s.tif", pixels=pixels, descriptions=names, nodata=0)
    FakeModel(spec(bands=("red", "green", "blue"))).install(monkeypatch)
    _upscaled(scene, tmp_path / "o.tif")
    hidden = np.zeros((4, 20, 20), bool)
    hidden[0, :, 10:] = True
    hidden[1:, 2:4, 2:4] = True
    with rasterio.open(tmp_path / "o.tif") as file:
        np.testing.assert_array_equal(
            file.read() == 0, np.kron(hidden, np.ones((1, 2, 2), bool))
        )


def test_figures_that_are_not_finite_are_an_error() -> None:
    with pytest.raises(ModelOutputError, match="consistency") as error:
        check_finite({"consistency": float("nan"), "valid": 1.0}, "s.tif")
    assert error.value.exit_code == 7


@pytest.mark.parametrize(
    ("names", "colours", "expected"),
    [
        (["Band 1", "Band 2", "Band 3"], ["red", "green", "blue"], (1, 2, 3)),
        (["Band_1", "Band_2", "Band_3"], ["red", "green", "blue"], (1, 2, 3)),
        (["B01", "B02", "B03"], ["red", "green", "blue"], (1, 2, 3)),
        (["B02", "B03", "B04"], ["red", "green", "blue"], (3, 2, 1)),
        (["Band 1", "Band 2", "Band 3"], ["gray", "undefined", "undefined"], (1, 2, 3)),
    ],
)
def test_colours_beat_names_that_only_number_bands(
    tmp_path: Path,
    names: list[str],
    colours: list[str],
    expected: tuple[int, ...],
) -> None:
    path = make_scene(tmp_path / "s.tif", descriptions=names, colorinterp=colours)
    with Raster.open(path) as scene:
        assert choose_bands(scene, ("red", "green", "blue")).roles == expected


@pytest.mark.parametrize(
    ("name", "bands", "limits"),
    [
        ("LC09_L2SP_198024_20220715_20230408_02_T1_SR_B4", None, (7272.7, 43636.4)),
        ("stack", ["SR_B4", "SR_B3", "QA_PIXEL"], (7272.7, 43636.4)),
        ("LC08_L1TP_198024_20220715_20230408_02_T1_B4", None, (5000, 55000)),
        ("T33TWM_20220715T101559_B04", None, (0, 10000)),
    ],
)
def test_reflectance_is_that_of_the_satellite(
    tmp_path: Path, name: str, bands: list[str] | None, limits: tuple[float, float]
) -> None:
    path = make_scene(tmp_path / f"{name}.tif", descriptions=bands)
    with Raster.open(path) as scene:
        stretch = find_stretch(scene, parse_stretch("auto"))
    assert (stretch.low[0], stretch.high[0]) == pytest.approx(limits, abs=0.1)


@pytest.mark.parametrize(
    ("dtype", "low", "span", "changes"),
    [
        ("uint32", 4e9, 1000, 0),
        ("int32", -2.0000005e9, 500, 0),
        ("int64", 5e9, 1e6, 0),
        ("float64", 4.5e6, 3, 1e-6),
    ],
)
def test_numbers_beyond_float32_stay(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    dtype: str,
    low: float,
    span: float,
    changes: float,
) -> None:
    rng = np.random.default_rng(1)
    pixels = (low + span * rng.random((2, 20, 20))).astype(dtype)
    scene = make_scene(tmp_path / "s.tif", pixels=pixels, nodata=0)
    out = _upscaled(scene, tmp_path / "o.tif", scale=Fraction(1))
    with rasterio.open(out) as file:
        np.testing.assert_allclose(file.read(), pixels, rtol=0, atol=changes)
    assert not caplog.records


def test_numbers_that_span_too_much_to_stay_are_warned_about(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rng = np.random.default_rng(1)
    pixels = rng.integers(-(2**31), 2**31, (1, 20, 20)).astype(np.int32)
    scene = make_scene(tmp_path / "s.tif", pixels=pixels)
    out = _upscaled(scene, tmp_path / "o.tif", scale=Fraction(1))
    assert "of which 24 bits are kept" in caplog.text
    with rasterio.open(out) as file:
        np.testing.assert_allclose(file.read(), pixels, rtol=0, atol=256)


@pytest.mark.parametrize("driver", ["COG", "GTiff"])
def test_what_a_band_is_goes_along_and_what_is_false_does_not(
    tmp_path: Path, driver: str
) -> None:
    scene = make_scene(tmp_path / "s.tif", bands=4)
    with rasterio.open(scene, "r+") as file:
        file.units = ("W",) * 4
        file.update_tags(
            SPATIAL_RESOLUTION="10", NROWS="24", TIFFTAG_XRESOLUTION="72", CLOUDS="3"
        )
        for band in range(1, 5):
            file.update_tags(band, wavelength=str(400 + band), NCOLS="32")
            file.update_tags(band, ns="IMAGERY", FWHM_UM="0.02")
    out = _upscaled(scene, tmp_path / "o.tif", driver=driver, bidx=(3, 2))
    with rasterio.open(out) as file:
        assert file.units == ("W",) * 4
        for band in range(1, 5):
            assert file.tags(band)["wavelength"] == str(400 + band)
            assert "NCOLS" not in file.tags(band)
            assert file.tags(band, ns="IMAGERY") == {"FWHM_UM": "0.02"}
        kept = {k for k in file.tags() if not k.startswith("RSUPRES_")}
        assert kept - {"AREA_OR_POINT"} == {"CLOUDS"}


@pytest.mark.parametrize(
    ("names", "colours"),
    [
        (("B04", "B03", "B02"), ("red", "green", "blue")),
        (("blue", "green", "red", "nir"), ("blue", "green", "red", "nir")),
        (("B01", "B02", "B03"), ("gray", "undefined", "undefined")),
        (("red", "red", "blue"), ("gray", "undefined", "blue")),
        (("red", "green", "blue", "LST"), ("gray", *["undefined"] * 3)),
        (("B02", "B03", "B04", "Fmask"), ("blue", "green", "red", "undefined")),
        (("Fmask", "B04", "B03", "B02"), ("gray", "red", "green", "blue")),
    ],
)
def test_bands_named_like_colours_have_them(
    tmp_path: Path, names: tuple[str, ...], colours: tuple[str, ...]
) -> None:
    scene = make_scene(
        tmp_path / "s.tif", bands=len(names), descriptions=names, nodata=0
    )
    with rasterio.open(_upscaled(scene, tmp_path / "o.tif")) as file:
        assert tuple(colour.name for colour in file.colorinterp) == colours
        # All of the scene is measured, for rasterio, too, which asks only band 4 of
        # four bands that begin with red.
        assert file.dataset_mask().all()
