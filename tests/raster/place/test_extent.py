"""Parts of a scene by bounds and by areas of interest."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import geopandas
import numpy as np
import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from rasterio.crs import CRS
from rasterio.warp import transform_bounds
from shapely.geometry import Point, Polygon, box

from rsupres.errors import InputError
from rsupres.grid import Grid, PixelWindow
from rsupres.raster.dataset import Raster
from rsupres.raster.place.extent import window_from_aoi, window_from_bounds
from tests.helpers import NORTH_UP, UTM, make_scene, write_vector
from tests.raster.scenes import ROTATED


def bounds_of(transform: Affine, window: PixelWindow) -> tuple[float, ...]:
    west, north = transform @ (window.col, window.row)
    east, south = transform @ (window.col_stop, window.row_stop)
    return west, south, east, north


@given(
    st.floats(1e-5, 100),
    st.floats(-180, 180),
    *(st.integers(0, 20), st.integers(0, 20), st.integers(1, 4), st.integers(1, 9)),
)
def test_bounds_on_pixel_edges_give_exactly_these_pixels(
    side: float, origin: float, row: int, col: int, height: int, width: int
) -> None:
    transform = Affine(side, 0, origin, 0, -side, -origin)
    scene = cast(
        Raster, SimpleNamespace(grid=Grid(UTM, transform, 24, 32), path="a.tif")
    )
    window = PixelWindow(row, col, height, width)
    assert window_from_bounds(scene, bounds_of(transform, window)) == window


def test_bounds_take_every_pixel_that_they_touch_and_stop_at_the_edge(
    tmp_path: Path,
) -> None:
    west, south, east, north = bounds_of(NORTH_UP, PixelWindow(3, 4, 5, 6))
    with Raster.open(make_scene(tmp_path / "a.tif")) as scene:
        assert window_from_bounds(
            scene, (west + 1, south - 1, east - 1, north + 1)
        ) == PixelWindow(2, 4, 7, 6)
        assert window_from_bounds(
            scene, (west, south - 1e6, east + 1e6, north)
        ) == PixelWindow(3, 4, 21, 28)


def test_bounds_may_be_degrees(tmp_path: Path) -> None:
    window = PixelWindow(8, 10, 4, 6)
    degrees = transform_bounds(UTM, "EPSG:4326", *bounds_of(NORTH_UP, window))
    with Raster.open(make_scene(tmp_path / "a.tif")) as scene:
        found = window_from_bounds(scene, degrees, "EPSG:4326")
    assert found.intersection(window) == window
    assert found.height <= window.height + 2
    assert found.width <= window.width + 2


def test_bounds_on_a_rotated_scene_are_covered(tmp_path: Path) -> None:
    with Raster.open(make_scene(tmp_path / "a.tif", transform=ROTATED)) as scene:
        x, y = ROTATED @ (10.5, 12.5)
        found = window_from_bounds(scene, (x - 10, y - 10, x + 10, y + 10))
        assert found.row <= 11
        assert found.row_stop >= 14
        assert found.intersection(PixelWindow(12, 10, 1, 1)) is not None
        assert found.height < 8


@pytest.mark.parametrize(
    ("bounds", "crs", "message"),
    [
        ((0, 0, 1, 1), None, r"lies outside .*a\.tif, which covers 399960\.1 "),
        ((1, 0, 0, 1), None, "rising"),
        ((0, 0, 1, 1), "EPSG:0", "bounds_crs 'EPSG:0' is unknown"),
        ((0, 91, 1, 95), "EPSG:4326", "bounds"),
    ],
)
def test_bounds_that_cannot_be_used_are_refused(
    tmp_path: Path, bounds: tuple[float, ...], crs: str | None, message: str
) -> None:
    with (
        Raster.open(make_scene(tmp_path / "a.tif")) as scene,
        pytest.raises(InputError, match=message),
    ):
        window_from_bounds(scene, bounds, crs)


@pytest.mark.parametrize("crs", [UTM, "EPSG:4326"])
def test_an_aoi_gives_its_window_and_hides_the_rest(
    tmp_path: Path, crs: CRS | str
) -> None:
    corners = [NORTH_UP @ place for place in [(5, 4), (15, 4), (5, 14)]]
    shape = geopandas.GeoSeries([Polygon(corners)], crs=UTM).to_crs(crs)[0]
    aoi = write_vector(tmp_path / "a.gpkg", shape, crs=crs)
    with Raster.open(make_scene(tmp_path / "a.tif")) as scene:
        window, area = window_from_aoi(scene, aoi)
        assert window.intersection(PixelWindow(4, 5, 10, 10)) == (4, 5, 10, 10)
        part = scene.crop(window, area)
        assert part.has_mask
        dn, valid = part.read(part.grid.window, [1])
        _, thin = part.read_decimated([1], 10**9)
    rows, cols = np.mgrid[: window.height, : window.width]
    centre = (rows + window.row - 4 + 0.5) + (cols + window.col - 5 + 0.5)
    sure = np.abs(centre - 10) > 0.01  # of centres on the triangle's long side
    inside = (centre < 10) & (rows + window.row >= 4) & (cols + window.col >= 5)
    assert_array_equal(valid[0][sure], inside[sure])
    assert_array_equal(thin, valid)
    assert dn.shape == valid.shape


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (Point(4e5, 5.2e6), "no polygons"),
        (box(0, 0, 9, 9), "lies outside"),
    ],
)
def test_an_aoi_that_cannot_be_used_is_refused(
    tmp_path: Path, shape: object, message: str
) -> None:
    aoi = write_vector(tmp_path / "a.gpkg", shape)
    with (
        Raster.open(make_scene(tmp_path / "a.tif")) as scene,
        pytest.raises(InputError, match=message),
    ):
        window_from_aoi(scene, aoi)


def test_the_polygons_of_all_layers_are_the_area(tmp_path: Path, caplog) -> None:
    """Layers of points and lines do not stand in the way of one with polygons."""
    aoi = tmp_path / "a.gpkg"
    corner = NORTH_UP @ (0, 0)
    parts = {
        "stations": Point(corner),
        "one": box(*(NORTH_UP @ (2, 6)), *(NORTH_UP @ (4, 4))),
        "two": box(*(NORTH_UP @ (10, 9)), *(NORTH_UP @ (12, 7))),
    }
    for name, shape in parts.items():
        crs = UTM if name != "two" else "EPSG:4326"
        series = geopandas.GeoSeries([shape], crs=UTM).to_crs(crs)
        geopandas.GeoDataFrame(geometry=series).to_file(aoi, layer=name)
    with Raster.open(make_scene(tmp_path / "a.tif")) as scene:
        window, area = window_from_aoi(scene, str(aoi))
    assert window.intersection(PixelWindow(4, 2, 5, 10)) == (4, 2, 5, 10)
    assert area.area == pytest.approx(2 * 400, rel=1e-3)
    assert "the polygons of 2 layers are taken together: one, two" in caplog.text


def test_an_aoi_that_is_no_vector_file_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "a.geojson"
    text.write_text("nothing")
    with Raster.open(make_scene(tmp_path / "a.tif")) as scene:
        for path, fault in (
            (text, "not a vector file"),
            (tmp_path / "missing.gpkg", "no such file"),
        ):
            with pytest.raises(InputError, match=fault):
                window_from_aoi(scene, str(path))
