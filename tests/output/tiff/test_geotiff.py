"""Strips become one whole GeoTIFF or COG."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from affine import Affine
from numpy.testing import assert_array_equal
from rasterio.crs import CRS
from rio_cogeo import cog_validate

from rsupres.grid import Grid
from rsupres.output.tiff.geotiff import read_tags
from rsupres.output.tiff.profile import OutputFormat
from tests.helpers import ramp
from tests.output.tiff.strips import DRIVERS, SIZE, build, make_meta


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize(
    ("dtype", "nodata"),
    [
        ("uint8", None),
        ("int8", -128),
        ("uint16", 0),
        ("int16", -32768),
        ("uint32", 4294967295),
        ("int32", -9999),
        ("float32", math.nan),
        ("float64", -1.7976931348623157e308),
    ],
)
def test_every_type_comes_back(
    tmp_path: Path, driver: str, dtype: str, nodata: float | None
) -> None:
    pixels = ramp(*SIZE, 2, dtype)
    form = OutputFormat(driver, {}, dtype, nodata)  # type: ignore[arg-type]
    meta = make_meta(2)
    with rasterio.open(build(tmp_path, pixels, meta, form)) as dataset:
        assert_array_equal(dataset.read(), pixels)
        assert dataset.dtypes == (dtype, dtype)
        assert dataset.transform == meta.grid.transform
        assert dataset.crs == meta.grid.crs
        np.testing.assert_equal(dataset.nodata, nodata)
        assert dataset.compression.name == "deflate"
        assert dataset.block_shapes[0] == (512, 512)


@pytest.mark.parametrize("driver", DRIVERS)
def test_what_the_file_says_is_kept(tmp_path: Path, driver: str) -> None:
    meta = make_meta(
        4,
        descriptions=("B04", None, 'a<b>&"c"', "Äther"),
        scales=(1e-4, 1.0, 0.1, 2.75e-5),
        offsets=(-0.1, 0.0, 0.3, -0.2),
        colorinterp=("red", "green", "blue", "nir"),
        tags={"RSUPRES_SCALE": "4", "A<&>": '"x" & <y>\nnew line', "odd": "a\x01b"},
    )
    form = OutputFormat(driver, {}, "uint16", 0)  # type: ignore[arg-type]
    path = build(tmp_path, ramp(*SIZE, 4), meta, form)
    with rasterio.open(path) as dataset:
        assert dataset.descriptions == meta.descriptions
        assert dataset.scales == meta.scales
        assert dataset.offsets == meta.offsets
        assert [c.name for c in dataset.colorinterp] == list(meta.colorinterp)
    tags = read_tags(path)
    assert tags["RSUPRES_SCALE"] == "4"
    assert tags["A<&>"] == '"x" & <y>\nnew line'
    assert tags["odd"] == "ab"


def test_gray_in_every_band_is_written_without_a_side_file(tmp_path: Path) -> None:
    meta = make_meta(3, colorinterp=("gray",) * 3)
    with rasterio.open(build(tmp_path, ramp(*SIZE), meta, OutputFormat())) as dataset:
        names = [colour.name for colour in dataset.colorinterp]
    assert names == ["gray", "undefined", "undefined"]


@pytest.mark.parametrize(
    "transform",
    [
        Affine(
            0.000108124373766, 0, 13.0720996857, 0, -0.000108194558921, 42.8068621736
        ),
        Affine.translation(4e5, 5.2e6) @ Affine.rotation(17) @ Affine.scale(2.5, -2.5),
    ],
)
def test_transforms_are_exact(tmp_path: Path, transform: Affine) -> None:
    crs = CRS.from_epsg(4326 if transform.c < 1000 else 32633)
    meta = make_meta(1, grid=Grid(crs, transform, *SIZE))
    with rasterio.open(
        build(tmp_path, ramp(*SIZE, 1), meta, OutputFormat())
    ) as dataset:
        assert dataset.transform[:6] == transform[:6]


@pytest.mark.parametrize("nodata", [0, None])
def test_a_cog_is_valid_with_overviews(tmp_path: Path, nodata: float | None) -> None:
    valid = np.ones((1, *SIZE), bool)
    valid[:, 90:300, :200] = False
    pixels = np.where(valid, ramp(*SIZE), 0).astype("uint16")
    form = OutputFormat("COG", {}, "uint16", nodata)
    path = build(tmp_path, pixels, make_meta(), form, valid)
    is_valid, errors, warnings = cog_validate(path, strict=True, quiet=True)
    assert is_valid, (errors, warnings)
    with rasterio.open(path) as dataset:
        assert dataset.overviews(1) == [2]
        assert_array_equal(dataset.read_masks(1) > 0, valid[0])
    with rasterio.open(path, overview_level=0) as half:
        small, seen = half.read(1), half.read_masks(1) > 0
    # Overviews average 2 x 2 pixels; ramps rise by 1 a column and 530 a row.
    np.testing.assert_allclose(small[0, :4], [267, 269, 271, 273], atol=1)
    assert_array_equal(seen, valid[0, ::2, ::2])
    assert small[seen].min() > 0


@pytest.mark.parametrize("driver", DRIVERS)
def test_the_mask_goes_where_no_nodata_value_can(tmp_path: Path, driver: str) -> None:
    valid = np.ones((1, *SIZE), bool)
    valid[:, 120:, 7:300] = False  # the first strip has no mask of its own
    form = OutputFormat(driver, {}, "uint16", None)  # type: ignore[arg-type]
    path = build(tmp_path, ramp(*SIZE), make_meta(), form, valid)
    with rasterio.open(path) as dataset:
        assert dataset.nodata is None
        for band in (1, 2, 3):
            assert_array_equal(dataset.read_masks(band) > 0, valid[0])


def test_a_picture_without_invalid_pixels_gets_no_mask(tmp_path: Path) -> None:
    form = OutputFormat("COG", {}, "uint16", None)
    valid = np.ones((1, *SIZE), bool)
    path = build(tmp_path, ramp(*SIZE), make_meta(), form, valid)
    with rasterio.open(path) as dataset:
        assert dataset.mask_flag_enums[0] == [rasterio.enums.MaskFlags.all_valid]


def test_overviews_of_codes_hold_codes(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    pixels = rng.choice([3, 9], (2, SIZE[0], SIZE[1])).astype("uint16")
    form = OutputFormat("COG", {}, "uint16", None)
    path = build(tmp_path, pixels, make_meta(2, descriptions=("B04", "SCL")), form)
    with rasterio.open(path, overview_level=0) as dataset:
        assert set(np.unique(dataset.read(2))) == {3, 9}


@pytest.mark.parametrize("driver", DRIVERS)
def test_the_same_strips_give_the_same_bytes(tmp_path: Path, driver: str) -> None:
    form = OutputFormat(driver, {}, "uint16", 0)  # type: ignore[arg-type]
    pixels = np.random.default_rng(3).integers(0, 9000, (3, *SIZE)).astype("uint16")
    digests = set()
    for turn in range(3):
        folder = tmp_path / str(turn)
        folder.mkdir()
        path = build(folder, pixels, make_meta(), form)
        digests.add(hashlib.sha256(path.read_bytes()).hexdigest())
    assert len(digests) == 1
