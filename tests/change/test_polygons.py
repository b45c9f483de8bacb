"""Change masks from polygons."""

from __future__ import annotations

import geopandas
import numpy as np
import pytest
from rasterio.crs import CRS
from rasterio.features import rasterize
from shapely.affinity import translate
from shapely.geometry import LineString, Polygon, box

from rsupres.errors import ConditionError, InputError
from tests.change.masks import SR, ground, polygon, read, refused, write_polygons
from tests.helpers import UTM


def test_polygons_fill_the_pixels_whose_centre_they_hold(tmp_path):
    shapes = [
        polygon(2, 3, 9, 11),
        Polygon([ground(*p) for p in ((12, 2), (23, 9), (14, 30))]),
    ]
    path = write_polygons(tmp_path / "new.gpkg", shapes, kind=[5, 3])
    mask = read([path], class_attribute="kind")
    wanted = rasterize(
        zip(shapes, (5, 3), strict=True),
        out_shape=(SR.height, SR.width),
        transform=SR.transform,
    )
    assert (mask != wanted).mean() < 0.001
    assert (mask[8:36, 12:44] == 5).all()
    assert not mask[:8].any()


@pytest.mark.parametrize("suffix", ["gpkg", "geojson", "shp", "fgb"])
def test_polygons_come_from_any_vector_file_and_crs(tmp_path, suffix):
    other = CRS.from_epsg(4326 if suffix == "geojson" else 3857)
    shapes = geopandas.GeoSeries([polygon(2, 3, 9, 11)], crs=UTM).to_crs(other)
    path = write_polygons(tmp_path / f"new.{suffix}", shapes, crs=other)
    mask = read([path])
    wanted = np.zeros_like(mask)
    wanted[8:36, 12:44] = 1
    assert (mask != wanted).mean() < 0.002


def test_classes_of_polygons_may_be_names_of_a_table(tmp_path):
    shapes = [polygon(0, 0, 5, 5), polygon(6, 6, 9, 9), polygon(10, 0, 12, 3)]
    names = ["Building", "water", None]
    path = write_polygons(tmp_path / "new.gpkg", shapes, kind=names)
    mask = read([path], class_attribute="kind", class_table="second")
    assert (mask[:20, :20] == 5).all()
    assert (mask[24:36, 24:36] == 1).all()
    assert (mask[40:48, :12] == 255).all()  # 1 would be water
    with pytest.raises(
        ConditionError, match="kind 'Building' is not a code of 0 to 254"
    ):
        read([path], class_attribute="kind")
    with pytest.raises(ConditionError, match=r"'Building' is neither .* worldcover"):
        read([path], class_attribute="kind", class_table="worldcover")


def test_codes_of_polygons_can_be_brought_to_another_table(tmp_path):
    path = write_polygons(tmp_path / "new.gpkg", [polygon(0, 0, 24, 32)], kind=[80])
    options = {"class_table": "worldcover", "output_table": "second"}
    assert (read([path], class_attribute="kind", **options) == 1).all()


def test_an_attribute_that_no_feature_has_is_refused_with_those_that_there_are(
    tmp_path,
):
    path = write_polygons(tmp_path / "new.gpkg", [polygon(0, 0, 5, 5)], kind=[1])
    refused(
        [path],
        r"'klass': no feature of .* has it; its attributes are kind",
        argument="class_attribute",
        class_attribute="klass",
    )
    refused(
        [path],
        "no effect without the attribute",
        argument="class_table",
        remedies=("class_attribute",),
        class_table="second",
    )


def test_the_later_of_two_polygons_wins_and_the_log_says_so(tmp_path, caplog):
    shapes = [polygon(0, 0, 9, 9), polygon(5, 5, 12, 12)]
    path = write_polygons(tmp_path / "new.gpkg", shapes, kind=[5, 3])
    assert read([path], class_attribute="kind")[24, 24] == 3
    assert "1 pairs of polygons of different classes overlap" in caplog.text


def test_broken_and_foreign_geometries_are_counted_and_the_rest_is_used(
    tmp_path, caplog
):
    bow = Polygon([ground(*p) for p in ((2, 2), (8, 8), (8, 2), (2, 8))])
    line = LineString([ground(0, 0), ground(20, 20)])
    path = write_polygons(tmp_path / "new.gpkg", [bow, line, polygon(10, 10, 12, 12)])
    mask = read([path])
    assert (mask[40:48, 40:48] == 1).all()
    assert mask[12, 20] == 1
    assert "1 broken geometries were repaired" in caplog.text
    assert "1 features are not polygons" in caplog.text


def test_polygons_with_holes_and_z_leave_the_hole(tmp_path):
    ring = polygon(2, 2, 12, 12).difference(polygon(5, 5, 9, 9))
    path = write_polygons(tmp_path / "new.gpkg", [ring])
    mask = read([path])
    assert mask[12, 12] == 1
    assert not mask[20:36, 20:36].any()


def test_polygons_of_another_place_and_swapped_ones_are_told_apart(tmp_path):
    far = translate(polygon(0, 0, 5, 5), 90_000, 0)
    path = write_polygons(tmp_path / "far.gpkg", [far])
    with pytest.raises(ConditionError, match=r"far\.gpkg: covers .* do not touch"):
        read([path])
    degrees = geopandas.GeoSeries([polygon(0, 0, 24, 32)], crs=UTM).to_crs(4326)
    west, south, east, north = degrees.total_bounds
    path = write_polygons(
        tmp_path / "swapped.gpkg", [box(south, west, north, east)], crs=4326
    )
    with pytest.raises(ConditionError, match="latitude before longitude"):
        read([path])


def test_polygons_without_crs_are_refused_and_none_at_all_mark_nothing(
    tmp_path, caplog
):
    with pytest.warns(UserWarning, match="crs"):
        path = write_polygons(tmp_path / "none.gpkg", [polygon(0, 0, 5, 5)], crs=None)
    with pytest.raises(InputError, match="CRS"):
        read([path])
    path = write_polygons(tmp_path / "empty.gpkg", [])
    assert not read([path]).any()
    assert "the mask marks no change" in caplog.text
