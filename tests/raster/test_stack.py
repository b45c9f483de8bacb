"""Several files as one scene: what the joined scene still says."""

from __future__ import annotations

import logging
import zipfile
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from affine import Affine
from rasterio.crs import CRS

from rsupres.errors import InputError
from rsupres.raster.stack import open_scenes
from tests.helpers import NORTH_UP, make_scene
from tests.miniature_safe import Miniature


@pytest.mark.parametrize("dtype", ["int64", "uint64", "int16", "float64"])
@pytest.mark.parametrize("nodata", [None, 0])
def test_neighbours_keep_numbers_types_and_tags(
    tmp_path: Path, dtype: str, nodata: float | None
) -> None:
    tags = {'SAID "SO"': 'a < b & "c"'}
    paths = [
        make_scene(
            tmp_path / f"{k}.tif",
            *(8, 10, 3, dtype),
            transform=NORTH_UP @ Affine.translation(10 * k, 0),
            nodata=nodata,
            scales=(0.5,) * 3,
            offsets=(k + 1.0 for k in range(3)),
            tags=tags,
        )
        for k in range(2)
    ]
    with open_scenes([str(path) for path in paths]) as scene:
        dn, valid = scene.read_stored(scene.grid.window, scene.data_bands)
        assert dict(scene.tags) == tags
        assert (scene.dtype, scene.nodata) == (dtype, nodata)
        assert (scene.scales, scene.offsets) == ((0.5,) * 3, (1.0, 2.0, 3.0))
    parts = []
    for path in paths:
        with rasterio.open(path) as file:
            parts.append(file.read())
    np.testing.assert_array_equal(dn, np.concatenate(parts, axis=2))
    assert valid.all()


def test_where_files_overlap_a_pixel_of_the_lower_one_shows_through(
    tmp_path: Path,
) -> None:
    low, high = (np.full((1, 4, 6), value, np.int16) for value in (5, 7))
    high[0, :, :2] = 0
    paths = [
        make_scene(
            tmp_path / f"{k}.tif",
            pixels=np.repeat(pixels, 2, axis=0),
            transform=NORTH_UP @ Affine.translation(2 * k, 0),
            nodata=0,
        )
        for k, pixels in enumerate((low, high))
    ]
    with open_scenes([str(path) for path in paths]) as scene:
        dn, valid = scene.read_stored(scene.grid.window, (1,))
    np.testing.assert_array_equal(dn[0], [[5, 5, 5, 5, 7, 7, 7, 7]] * 4)
    assert valid.all()


def _shifted(col: int) -> Affine:
    return NORTH_UP @ Affine.translation(col, 0)


@pytest.mark.parametrize("kind", ["mask", "alpha"])
def test_masked_pixels_stay_invalid_and_show_the_file_below(
    tmp_path: Path, kind: str
) -> None:
    low, high = (np.full((3, 4, 6), value, np.uint8) for value in (5, 7))
    shown = np.full((4, 6), True)
    shown[:, :3] = False
    high[:, ~shown] = 0
    low_path = make_scene(tmp_path / "low.tif", pixels=low)
    if kind == "mask":
        options: dict[str, object] = {"pixels": high, "mask": shown}
    else:
        alpha = np.where(shown, 255, 0).astype(np.uint8)[None]
        options = {
            "pixels": np.concatenate([high, alpha]),
            "colorinterp": ["red", "green", "blue", "alpha"],
            "alpha": "yes",
            "photometric": "RGB",
        }
    high_path = make_scene(tmp_path / "high.tif", transform=_shifted(4), **options)
    with open_scenes([str(low_path), str(high_path)]) as scene:
        dn, valid = scene.read_stored(scene.grid.window, (1, 2, 3))
    np.testing.assert_array_equal(dn[1, 0][valid[0, 0]], [5, 5, 5, 5, 5, 5, 7, 7, 7])
    np.testing.assert_array_equal(valid[0], [[True] * 6 + [False] + [True] * 3] * 4)


def test_bands_in_files_keep_their_masks(tmp_path: Path) -> None:
    names = []
    for k in range(3):
        mask = np.full((8, 10), True)
        mask[k, :] = False
        path = make_scene(tmp_path / f"S_B0{k + 2}.tif", 8, 10, 1, mask=mask)
        names.append(str(path))
    with open_scenes(names) as scene:
        assert scene.has_mask
        assert scene.read(scene.grid.window, (1, 2, 3))[1][0, :, 0].tolist() == (
            [False] * 3 + [True] * 5
        )
        assert scene.read(scene.grid.window, (2,))[1][0, :, 0].tolist() == (
            [True, False] + [True] * 6
        )


def test_neighbours_with_other_nodata_values_are_joined_by_a_mask(
    tmp_path: Path,
) -> None:
    pixels = np.full((1, 4, 6), 0, np.uint16)
    pixels[:, :, :3] = 65535
    paths = [
        make_scene(
            tmp_path / f"{k}.tif", pixels=pixels, transform=_shifted(6 * k), nodata=no
        )
        for k, no in enumerate((0, 65535))
    ]
    with open_scenes([str(path) for path in paths]) as scene:
        dn, valid = scene.read_stored(scene.grid.window, (1,))
    np.testing.assert_array_equal(valid[0, 0], [True] * 3 + [False] * 6 + [True] * 3)
    np.testing.assert_array_equal(dn[0, 0][valid[0, 0]], [65535] * 3 + [0] * 3)


def test_nan_is_the_same_nodata_value(tmp_path: Path) -> None:
    pixels = np.ones((1, 4, 6), np.float32)
    pixels[0, 1, 2] = np.nan
    paths = [
        make_scene(
            tmp_path / f"{k}.tif",
            pixels=pixels,
            transform=_shifted(6 * k),
            nodata=np.nan,
        )
        for k in range(2)
    ]
    with open_scenes([str(path) for path in paths]) as scene:
        assert repr(scene.nodata) == "nan"
        _, valid = scene.read(scene.grid.window, (1,))
    assert np.argwhere(~valid[0]).tolist() == [[1, 2], [1, 8]]


def test_bands_in_another_order_are_matched_by_name(tmp_path: Path) -> None:
    pixels = np.arange(1, 4, dtype=np.uint16)[:, None, None] * np.ones((3, 4, 6), "u2")
    names = ["B04", "B03", "B02"]
    one = make_scene(tmp_path / "a.tif", pixels=pixels, descriptions=names)
    two = make_scene(
        tmp_path / "b.tif",
        pixels=pixels[::-1],
        descriptions=names[::-1],
        transform=_shifted(6),
    )
    with open_scenes([str(one), str(two)]) as scene:
        dn, _ = scene.read(scene.grid.window, (1, 2, 3))
    np.testing.assert_array_equal(dn, pixels[:, :, :1] * np.ones((3, 4, 12)))


@pytest.mark.parametrize(
    ("other", "text"),
    [
        ({"scales": (1.5e-4,) * 3}, "scale 0.00015"),
        ({"descriptions": ["B04", "B03", "B08"]}, "B08"),
    ],
)
def test_numbers_that_mean_something_else_are_not_joined(
    tmp_path: Path, other: dict[str, object], text: str
) -> None:
    same = {"descriptions": ["B04", "B03", "B02"], "scales": (1e-4,) * 3}
    one = make_scene(tmp_path / "a.tif", 8, 8, **same)
    two = make_scene(tmp_path / "b.tif", 8, 8, transform=_shifted(8), **same | other)
    with (
        pytest.raises(InputError, match=text),
        open_scenes([str(one), str(two)]),
    ):
        pass


@pytest.mark.parametrize("form", ["/vsizip/{}/{}", "zip://{}!/{}", "zip+file://{}!{}"])
def test_files_inside_a_zip_are_joined(tmp_path: Path, form: str) -> None:
    with zipfile.ZipFile(tmp_path / "s.zip", "w") as archive:
        for k in (2, 3, 4):
            path = make_scene(tmp_path / f"B0{k}.tif", 8, 10, 1)
            archive.write(path, path.name)
            path.unlink()
    names = [form.format(tmp_path / "s.zip", f"B0{k}.tif") for k in (4, 3, 2)]
    with open_scenes(names) as scene:
        assert scene.descriptions == ("B04", "B03", "B02")
        dn, _ = scene.read(scene.grid.window, (1, 2, 3))
    np.testing.assert_array_equal(dn[2].ravel(), np.arange(1, 81))


@pytest.mark.parametrize("form", ["NETCDF:{}:Band1", 'NETCDF:"{}":Band1'])
def test_variables_of_netcdf_files_are_joined(tmp_path: Path, form: str) -> None:
    names = []
    for k in (4, 3, 2):
        path = make_scene(tmp_path / f"B0{k}.tif", 8, 10, 1)
        rasterio.shutil.copy(path, tmp_path / f"B0{k}.nc", driver="netCDF")
        names.append(form.format(tmp_path / f"B0{k}.nc"))
    with open_scenes(names) as scene:
        dn, valid = scene.read(scene.grid.window, (1, 2, 3))
    assert valid.all()
    np.testing.assert_array_equal(dn[2].ravel(), np.arange(1, 81))


def test_products_are_joined(tmp_path: Path) -> None:
    product = Miniature().build(tmp_path)
    east = np.full((4, 96, 96), 3001, np.uint16)
    other = make_scene(
        tmp_path / "east.tif",
        pixels=east,
        crs=CRS.from_epsg(32632),
        descriptions=["B04", "B03", "B02", "B08"],
        transform=Affine(10, 0, 563200 + 960, 0, -10, 5393120),
        scales=(1e-4,) * 4,
        offsets=(-0.1,) * 4,
        nodata=0,
    )
    with open_scenes([str(product), str(other)]) as scene:
        assert scene.offsets == (-0.1,) * 4
        dn, _ = scene.read(scene.grid.window, (1,))
    west = Miniature().bands["B04"]
    np.testing.assert_array_equal(dn[0], np.concatenate([west, east[0]], axis=1))


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (("X_20240501_B04", "X_20240611_B03"), "different dates"),
        (("a_B04", "b_B04"), "the same band name, B04"),
    ],
)
def test_two_dates_given_as_bands_are_noticed(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    names: tuple[str, str],
    text: str,
) -> None:
    paths = [str(make_scene(tmp_path / f"{name}.tif", 8, 8, 1)) for name in names]
    with caplog.at_level(logging.WARNING), open_scenes(paths):
        pass
    assert text in caplog.text
