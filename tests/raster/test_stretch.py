"""Stretches: exact there and back, found from what the file tells."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rsupres.errors import InputError
from rsupres.raster.dataset import Raster
from rsupres.raster.nodata import to_dtype
from rsupres.raster.stack import open_scenes
from rsupres.raster.stretch import (
    Stretch,
    StretchChoice,
    find_stretch,
    parse_stretch,
    split_excess,
)
from tests.helpers import make_scene, ramp

INTEGERS = ["uint8", "int8", "uint16", "int16"]
WHOLE = ["uint8", "int8", "uint16", "int16", "uint32", "int32"]


@st.composite
def pixels_and_stretch(draw: st.DrawFn) -> tuple[np.ndarray, Stretch]:
    dtype = draw(st.sampled_from(INTEGERS))
    pixels = draw(hnp.arrays(dtype, (2, 3, 5)))
    low = draw(st.tuples(st.integers(-2000, 2000), st.integers(-2000, 2000)))
    span = draw(st.tuples(st.integers(1, 20_000), st.integers(1, 20_000)))
    high = tuple(float(a + b) for a, b in zip(low, span, strict=True))
    return pixels, Stretch((float(low[0]), float(low[1])), high)


@given(pixels_and_stretch())
def test_integers_come_back_exactly(case: tuple[np.ndarray, Stretch]) -> None:
    pixels, stretch = case
    unit = stretch.to_unit(pixels)
    assert unit.dtype == np.float32
    back = stretch.to_pixels(unit, pixels.dtype.name)
    np.testing.assert_array_equal(back, pixels)


@given(pixels_and_stretch())
def test_one_step_equals_two(case: tuple[np.ndarray, Stretch]) -> None:
    pixels, stretch = case
    unit = stretch.to_unit(pixels)
    valid = (pixels[:1] % 3) > 0
    name = pixels.dtype.name
    low, high = np.array([stretch.low, stretch.high])[:, :, None, None]
    span, low = (high - low).astype(np.float32), low.astype(np.float32)
    np.testing.assert_array_equal(
        stretch.to_pixels(unit, name, 7, valid),
        to_dtype(unit * span + low, name, 7, valid),
    )


def test_limits_become_zero_and_one_per_band() -> None:
    stretch = Stretch((0.0, 1000.0), (255.0, 11000.0))
    dn = np.array([[[0.0, 255.0]], [[1000.0, 11000.0]]])
    np.testing.assert_array_equal(stretch.to_unit(dn), [[[0, 1]], [[0, 1]]])


def test_a_stretch_for_other_bands_is_refused() -> None:
    with pytest.raises(ValueError, match="2 bands"):
        Stretch((0.0, 0.0), (1.0, 1.0)).to_unit(np.zeros((3, 4, 4)))


def test_bands_are_counted_from_one_and_reordered() -> None:
    stretch = Stretch((1.0, 2.0, 3.0), (11.0, 12.0, 13.0))
    assert stretch.for_bands([3, 1]) == Stretch((3.0, 1.0), (13.0, 11.0))


@given(
    st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=4),
    st.floats(1e-6, 1e6),
)
def test_json_keeps_every_bit(low: list[float], span: float) -> None:
    stretch = Stretch(tuple(low), tuple(value + span for value in low))
    assert Stretch.from_json(json.loads(json.dumps(stretch.to_json()))) == stretch


@given(hnp.arrays(np.float32, (1, 4, 4), elements=st.floats(-8, 8, width=32)))
def test_what_is_clipped_is_carried_as_excess(unit: np.ndarray) -> None:
    clipped, excess = split_excess(unit)
    assert clipped.min() >= 0
    assert clipped.max() <= 1
    np.testing.assert_allclose(clipped + excess, unit, rtol=1e-6, atol=1e-7)
    assert not excess[(unit >= 0) & (unit <= 1)].any()


@pytest.mark.parametrize("dtype", WHOLE)
def test_numbers_beyond_the_type_stop_at_its_limits(dtype: str) -> None:
    limits = np.iinfo(dtype)
    dn = np.array([[[-1e12, 1e12]]], np.float32)
    low, high = to_dtype(dn, dtype)[0, 0]
    assert low == limits.min
    assert int(high) == int(np.float32(limits.max)) or int(high) > 0.9999 * limits.max


def test_halves_are_rounded_to_even() -> None:
    dn = np.array([[[0.5, 1.5, 2.5, -0.5]]], np.float32)
    np.testing.assert_array_equal(to_dtype(dn, "int16"), [[[0, 2, 2, 0]]])


@pytest.mark.parametrize(
    ("dtype", "nodata", "moved"),
    [
        ("uint16", 0, 1),
        ("uint16", 65535, 65534),
        ("uint8", 255, 254),
        ("int16", -32768, -32767),
        ("int16", -5, -4),
    ],
)
def test_a_valid_pixel_never_becomes_nodata(
    dtype: str, nodata: int, moved: int
) -> None:
    dn = np.array([[[nodata, 100.0]]], np.float32)
    np.testing.assert_array_equal(to_dtype(dn, dtype, nodata), [[[moved, 100]]])


def test_a_valid_float_never_becomes_nodata() -> None:
    dn = np.array([[[-9999.0, 3.5]]], np.float32)
    out = to_dtype(dn, "float32", -9999.0)
    assert out[0, 0, 0] == np.nextafter(np.float32(-9999), np.float32(0))
    assert out[0, 0, 1] == 3.5


@pytest.mark.parametrize(("nodata", "outside"), [(9, 9), (None, 0), (-1, 0)])
def test_invalid_pixels_become_nodata_or_zero(
    nodata: float | None, outside: int
) -> None:
    dn = np.array([[[np.nan, 5.0]], [[7.0, 6.0]]], np.float32)
    valid = np.array([[[False, True]]])
    out = to_dtype(dn, "uint8", nodata, valid)
    np.testing.assert_array_equal(out, [[[outside, 5]], [[outside, 6]]])


def test_nan_is_the_nodata_of_invalid_floats() -> None:
    dn = np.array([[[1.0, 5.0]]], np.float32)
    out = to_dtype(dn, "float32", float("nan"), np.array([[[False, True]]]))
    np.testing.assert_array_equal(out, [[[np.nan, 5]]])


def test_long_rows_are_worked_on_in_parts_without_a_seam() -> None:
    dn = ramp(5, 70_000, 1, "float32") / 7
    np.testing.assert_array_equal(to_dtype(dn, "uint32"), np.rint(dn).astype(np.uint32))


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("auto", StretchChoice("auto")),
        (" Reflectance ", StretchChoice("reflectance")),
        ("percentile:2,98", StretchChoice("percentile", (2, 98))),
        ("0,3000", StretchChoice("limits", (0, 3000))),
        ("-0.1,0.9", StretchChoice("limits", (-0.1, 0.9))),
    ],
)
def test_stretches_are_read_and_written(text: str, choice: StretchChoice) -> None:
    assert parse_stretch(text) == choice
    assert parse_stretch(str(choice)) == choice


@pytest.mark.parametrize(
    "text", ["", "linear", "3000,0", "5,5", "1,2,3", "percentile:-1,98", "nan,1", "0,"]
)
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="stretch"):
        parse_stretch(text)


def found(path: Path, text: str = "auto") -> Stretch:
    with Raster.open(path) as scene:
        return find_stretch(scene, parse_stretch(text))


def test_auto_is_0_to_255_for_bytes(tmp_path: Path) -> None:
    path = make_scene(tmp_path / "a.tif", bands=2, dtype="uint8")
    assert found(path) == Stretch((0.0, 0.0), (255.0, 255.0))


def test_auto_takes_reflectance_from_scale_and_offset(tmp_path: Path) -> None:
    path = make_scene(
        tmp_path / "a.tif", bands=2, scales=[1e-4, 2e-4], offsets=[-0.1, 0.0]
    )
    stretch = found(path)
    np.testing.assert_allclose(stretch.low, [1000, 0])
    np.testing.assert_allclose(stretch.high, [11000, 5000])


def test_auto_does_not_take_metres_for_reflectance(tmp_path: Path) -> None:
    path = make_scene(tmp_path / "dem.tif", bands=1, scales=[0.1], offsets=[-100.0])
    low, high = found(path).low[0], found(path).high[0]
    assert 0 < low < 20
    assert 740 < high < 768


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("a.tif", {"descriptions": ["B04", "B03"]}),
        ("a.tif", {"tags": {"SATELLITE": "Sentinel-2A"}}),
        ("T30UWU_20170621T110651_B02.tif", {}),
    ],
)
def test_auto_knows_sentinel2_by_names(
    tmp_path: Path, name: str, kept: dict[str, object]
) -> None:
    path = make_scene(tmp_path / name, bands=2, **kept)  # type: ignore[arg-type]
    assert found(path) == Stretch((0.0, 0.0), (10_000.0, 10_000.0))


def test_auto_takes_percentiles_of_valid_pixels_of_anything_else(
    tmp_path: Path,
) -> None:
    pixels = ramp(40, 50, 2)
    pixels[0, :20] = 60_000
    path = make_scene(tmp_path / "a.tif", pixels=pixels, nodata=60_000)
    stretch = found(path)
    inside = pixels[0, 20:], pixels[1]  # each band has pixels of its own
    for band in range(2):
        low, high = np.percentile(inside[band].astype(float), (0.5, 99.5))
        np.testing.assert_allclose((stretch.low[band], stretch.high[band]), (low, high))


@pytest.mark.parametrize("scales", [None, (1e-4, 1e-4, 1.0)])
def test_a_band_of_codes_leaves_the_others_reflectance(
    tmp_path: Path, scales: tuple[float, ...] | None
) -> None:
    pixels = ramp(40, 50, 3)
    pixels[2] = 9
    path = make_scene(
        tmp_path / "a.tif",
        pixels=pixels,
        descriptions=("B04", "B03", "SCL"),
        scales=scales,
        offsets=None if scales is None else (0.0,) * 3,
    )
    stretch = found(path)
    np.testing.assert_allclose(stretch.low[:2], 0)
    np.testing.assert_allclose(stretch.high[:2], 10_000)


def test_heat_beside_reflectance_has_limits_of_its_own(tmp_path: Path) -> None:
    pixels = np.full((2, 20, 20), 12_000, np.uint16)
    pixels[1] = np.arange(40_000, 40_400).reshape(20, 20)
    path = make_scene(
        tmp_path / "a.tif",
        pixels=pixels,
        descriptions=("SR_B4", "ST_B10"),
        scales=(2.75e-5, 0.00341802),
        offsets=(-0.2, 149.0),
    )
    stretch = found(path)
    np.testing.assert_allclose(
        (stretch.low[0], stretch.high[0]), (0.2 / 2.75e-5, 1.2 / 2.75e-5)
    )
    limits = np.percentile(pixels[1].astype(float), (0.5, 99.5))
    np.testing.assert_allclose((stretch.low[1], stretch.high[1]), limits)


def test_a_constant_band_still_has_a_stretch(tmp_path: Path) -> None:
    path = make_scene(tmp_path / "a.tif", pixels=np.full((1, 8, 8), 7, np.uint16))
    assert found(path) == Stretch((7.0,), (8.0,))


def test_percentiles_need_a_valid_pixel(tmp_path: Path) -> None:
    pixels = np.zeros((1, 8, 8), np.uint16)
    path = make_scene(tmp_path / "a.tif", pixels=pixels, nodata=0)
    with pytest.raises(InputError, match=r"a\.tif: no valid pixel"):
        found(path)


def test_floats_are_reflectance_or_ten_thousandths_of_it(tmp_path: Path) -> None:
    small = make_scene(tmp_path / "s.tif", pixels=ramp(8, 8, 1, "float32") / 64)
    large = make_scene(tmp_path / "l.tif", pixels=ramp(8, 8, 1, "float32") * 100)
    assert found(small, "reflectance") == Stretch((0.0,), (1.0,))
    assert found(large, "reflectance") == Stretch((0.0,), (10_000.0,))


def test_given_limits_hold_for_every_band(tmp_path: Path) -> None:
    path = make_scene(tmp_path / "a.tif", bands=2)
    assert found(path, "5,90") == Stretch((5.0, 5.0), (90.0, 90.0))


def test_heat_of_landsat_is_no_reflectance(tmp_path: Path) -> None:
    stem = "LC09_L2SP_198024_20220715_20230408_02_T1"
    pixels = np.linspace(30_000, 50_000, 64, dtype=np.uint16).reshape(1, 8, 8)
    heat = make_scene(tmp_path / f"{stem}_ST_B10.TIF", pixels=pixels)
    red = make_scene(tmp_path / f"{stem}_SR_B4.TIF", pixels=pixels // 4)
    with Raster.open(heat) as scene:
        alone = find_stretch(scene, parse_stretch("auto"))
    assert 30_000 <= alone.low[0] < alone.high[0] <= 50_000
    with open_scenes([str(red), str(heat)]) as scene:
        assert scene.descriptions == ("SR_B4", "ST_B10")
        joined = find_stretch(scene, parse_stretch("auto"))
    assert joined.high[0] == pytest.approx(1.2 / 2.75e-05)
    assert (joined.low[1], joined.high[1]) == pytest.approx(
        (alone.low[0], alone.high[0])
    )
