"""Arrays as datasets: what GDAL makes of them, wherever they lie."""

from __future__ import annotations

import numpy as np
import pytest
from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import Resampling
from shapely.geometry import Polygon

from rsupres.grid import Grid
from rsupres.raster.virtual import as_dataset, is_inside, warp_array

UTM = CRS.from_epsg(32633)
# The identity, upright or flipped, is to rasterio no transform at all.
AWAY = Affine(1, 0, 4, 0, -1, 8)
UPRIGHT, FLIPPED = Affine.identity(), Affine.scale(1, -1)


def ramp(height: int, width: int) -> np.ndarray:
    rows, cols = np.mgrid[:height, :width]
    return (rows * 10.0 + cols).astype(np.float32)[None]


@pytest.mark.parametrize("transform", [AWAY, UPRIGHT, FLIPPED], ids=str)
def test_an_array_lies_where_its_transform_says(transform):
    with as_dataset(ramp(5, 7), transform, UTM, np.nan) as dataset:
        assert dataset.transform.almost_equals(transform, 1e-11)
        assert dataset.crs == UTM
        assert np.isnan(dataset.nodata)
        np.testing.assert_array_equal(dataset.read(), ramp(5, 7))


@pytest.mark.parametrize("transform", [AWAY, UPRIGHT, FLIPPED], ids=str)
@pytest.mark.parametrize("kernel", [Resampling.cubic, Resampling.average])
def test_pixels_arrive_wherever_the_frame_lies(transform, kernel):
    frame = Grid(UTM, transform, 6, 8)
    target = Grid(UTM, transform @ Affine.translation(2, 1), 4, 5)
    warped = warp_array(ramp(6, 8), frame, target, kernel)
    np.testing.assert_allclose(warped, ramp(6, 8)[:, 1:5, 2:7], atol=1e-5)


def test_nan_is_no_pixel_and_stays_so():
    pixels = ramp(6, 8)
    pixels[:, 2, 3] = np.nan
    frame = Grid(UTM, AWAY, 6, 8)
    warped = warp_array(pixels, frame, frame, Resampling.nearest)
    np.testing.assert_array_equal(warped, pixels)


def test_beyond_the_frame_integers_are_zero_and_floats_nan():
    frame = Grid(UTM, AWAY, 6, 8)
    beyond = Grid(UTM, AWAY @ Affine.translation(6, 0), 6, 8)
    ones = np.ones((1, 6, 8), np.uint8)
    assert warp_array(ones, frame, beyond, Resampling.nearest).sum() == 6 * 2
    floats = warp_array(ramp(6, 8), frame, beyond, Resampling.nearest)
    assert np.isnan(floats[:, :, 2:]).all()
    np.testing.assert_array_equal(floats[:, :, :2], ramp(6, 8)[:, :, 6:])


@pytest.mark.parametrize("transform", [AWAY, UPRIGHT, FLIPPED], ids=str)
def test_a_pixel_is_inside_when_its_centre_is(transform):
    # In pixels; on the other side of the diagonal lie as many.
    corners = [transform @ corner for corner in ((-1, -1), (7, 7), (7, -1))]
    inside = is_inside(Polygon(corners), (4, 6), transform)
    rows, cols = np.mgrid[:4, :6]
    np.testing.assert_array_equal(inside[rows != cols], (cols > rows)[rows != cols])
