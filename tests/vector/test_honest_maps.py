"""Maps as people find them: flags, names, long edges, rings, repairs, widths."""

from __future__ import annotations

import geopandas
import numpy as np
import pyproj
import pytest
import rasterio.features
import shapely
from affine import Affine
from rasterio.crs import CRS

from rsupres.change.mask import ChangeMask
from rsupres.grid import Grid
from rsupres.legends.legend_file import load_legend
from rsupres.legends.line_width import width_of_tag
from rsupres.raster.dataset import Raster
from rsupres.raster.place.extent import window_from_aoi
from rsupres.vector.map import VectorMap
from tests.vector.osm_town import FIELD, INNER, LINE, X, Y, save
from tests.vector.town import CLASSES, GRID, SQUARE, codes, write_osm

CASED = (load_legend("maptiler"), load_legend("osm-carto"))


@pytest.mark.parametrize(
    ("suffix", "no"),
    [
        *(("gpkg", no) for no in ("F", "0", "f", "false", "N", "no", 0, " ", "nan")),
        *(("fgb", no) for no in ("no", False, "NULL")),
    ],
)
def test_flags_that_mean_no_hide_and_lift_nothing(tmp_path, no, suffix):
    plain = codes(save(tmp_path / f"a.{suffix}", [LINE], highway=["primary"]))
    flags = {"tunnel": [no], "bridge": [no]}
    path = save(tmp_path / f"b.{suffix}", [LINE], highway=["primary"], **flags)
    with VectorMap.open([str(path)], GRID, CLASSES) as opened:
        assert opened.hidden == 0
        assert np.array_equal(opened.burn(GRID.window)[0], plain)
    assert (plain == 2).sum() > 300


def test_a_building_column_of_booleans_says_which_are_buildings(tmp_path):
    boxes = [shapely.box(X, Y - 20, X + 20, Y), shapely.box(X + 40, Y - 20, X + 60, Y)]
    for values in ([True, False], ["T", "F"], ["yes", "no"], [1, 0]):
        path = save(tmp_path / "b.gpkg", boxes, building=values)
        found = codes(path)
        assert (found == 1).sum() == 100
        assert not found[:10, 20:].any()


@pytest.mark.parametrize(
    "name",
    ["watershed", "foot_trails", "Hollywood", "salt_lake_county_parcels", "road_signs"],
)
def test_parts_of_words_and_other_things_are_not_drawn(tmp_path, name):
    whole = shapely.box(X - 99, Y - 999, X + 999, Y + 99)
    assert not codes(save(tmp_path / f"{name}.geojson", [whole], NAME=["x"])).any()


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("lakes_2020", 3),
        ("USBuildingFootprints", 1),
        ("town-roads", 2),
        ("Trees", 4),
        ("county_roads", 2),
    ],
)
def test_whole_words_are_drawn_with_a_warning(tmp_path, caplog, name, code):
    shape = LINE if code == 2 else shapely.box(X, Y - 50, X + 50, Y)
    found = codes(save(tmp_path / f"{name}.geojson", [shape], NAME=["x"]))
    assert set(np.unique(found)) == {0, code}
    (record,) = [
        r for r in caplog.records if "is taken" in r.msg or "taken as" in r.msg
    ]
    assert record.levelname == "WARNING"
    assert "has no columns of OpenStreetMap tags" in record.message


STATE = shapely.Polygon([(-101, 48), (-93, 48), (-93, 49), (-101, 49)])
AT_49 = pyproj.Transformer.from_crs(4326, 32614, always_xy=True).transform(-97, 49)
PLAINS = Grid(
    CRS.from_epsg(32614),
    Affine(10, 0, AT_49[0] - 500, 0, -10, AT_49[1] + 500),
    100,
    100,
)


def true_state(grid: Grid) -> np.ndarray:
    dense = shapely.segmentize(STATE, 1e-3)
    (moved,) = geopandas.GeoSeries([dense], crs=4326).to_crs(32614)
    return rasterio.features.rasterize(
        [moved], (grid.height, grid.width), transform=grid.transform
    )


def test_long_edges_in_degrees_lie_where_they_lie(tmp_path):
    path = tmp_path / "state.geojson"
    table = geopandas.GeoDataFrame(
        {"landuse": ["farmland"]}, geometry=[STATE], crs=4326
    )
    table.to_file(path)
    true = true_state(PLAINS)
    assert 0.4 < true.mean() < 0.6
    drawn = codes(path, PLAINS) == 7
    assert (drawn != true).mean() < 0.01  # at most the pixels along the edge
    with ChangeMask.open([str(path)], PLAINS) as mask:
        assert ((mask.read(PLAINS.window)[0] == 1) != true).mean() < 0.01


def test_an_area_of_interest_in_degrees_is_cut_where_it_lies(tmp_path):
    geopandas.GeoDataFrame(geometry=[STATE], crs=4326).to_file(tmp_path / "aoi.gpkg")
    with rasterio.open(
        tmp_path / "s.tif", "w", driver="GTiff", height=100, width=100, count=1,
        dtype="uint8", crs=PLAINS.crs, transform=PLAINS.transform,
    ) as file:  # fmt: skip
        file.write(np.ones((1, 100, 100), np.uint8))
    with Raster.open(tmp_path / "s.tif") as scene:
        window, area = window_from_aoi(scene, str(tmp_path / "aoi.gpkg"))
        _, valid = scene.crop(window, area).read(PLAINS.crop(window).window, (1,))
    true = true_state(PLAINS)
    assert abs(int(valid.sum()) - int(true.sum())) < 100


def test_repaired_polygons_keep_areas_only(tmp_path):
    def at(points: list[tuple[int, int]]) -> list[tuple[int, int]]:
        return [(X + x, Y - y) for x, y in points]

    touching = shapely.Polygon(
        at([(20, 20), (180, 20), (180, 180), (20, 180)]),
        [
            at([(40, 60), (100, 60), (100, 140), (40, 140)]),
            at([(100, 60), (160, 60), (160, 140), (100, 140)]),
        ],
    )
    found = codes(save(tmp_path / "wood.gpkg", [touching], landuse=["forest"]))
    assert not found[30:70, 20:80].any()
    spike = at([(20, 20), (60, 20), (60, 40), (150, 40), (60, 40), (60, 80), (20, 80)])
    found = codes(
        save(tmp_path / "l.gpkg", [shapely.Polygon(spike)], natural=["water"])
    )
    assert (found == 3).sum() == 20 * 30
    two = shapely.MultiPolygon(
        [shapely.box(X, Y - 40, X + 40, Y), shapely.box(X + 20, Y - 60, X + 60, Y - 20)]
    )
    found = codes(save(tmp_path / "two.gpkg", [two], natural=["water"]))
    assert (found == 3).sum() == 20 * 20 * 2 - 10 * 10  # the common part is filled


@pytest.mark.parametrize(
    ("tags", "under", "middle"),
    [
        ({"natural": "tree_row"}, {"landuse": "farmland"}, 7),
        pytest.param(
            {"leisure": "track", "sport": "running"},
            {"leisure": "park"},
            5,
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"natural": "cliff"}, {"landuse": "farmland"}, 7, marks=pytest.mark.slow
        ),
        ({"leisure": "track", "area": "yes"}, {"leisure": "park"}, 10),
        ({"natural": "tree_row", "landuse": "grass"}, {"landuse": "farmland"}, 5),
        ({"highway": "footway", "leisure": "park"}, {"landuse": "farmland"}, 5),
        pytest.param(
            {"highway": "pedestrian", "area": "yes"},
            {"landuse": "grass"},
            2,
            marks=pytest.mark.slow,
        ),
    ],
)
def test_closed_ways_that_are_lines_stay_lines(tmp_path, tags, under, middle):
    path = write_osm(tmp_path / "ring.osm", [(FIELD, under), (INNER, tags)])
    found = codes(path)
    assert found[50, 50] == middle
    ring = {"tree_row": 4, "track": 10, "footway": 2}
    kinds = [ring[v] for v in tags.values() if v in ring]
    assert found[50, 30] == (kinds[0] if kinds else middle)
    geopandas.read_file(path, layer="multipolygons").to_file(tmp_path / "ring.gpkg")
    if tags.get("area") != "yes" and "highway" not in tags:
        assert codes(tmp_path / "ring.gpkg")[50, 50] == middle


def test_a_runway_is_wide(tmp_path):
    path = save(tmp_path / "air.gpkg", [LINE, LINE], aeroway=["runway", "taxiway"])
    assert (codes(path)[:, 50] == 2).sum() == pytest.approx(45 / 2, abs=1)
    for legend in CASED:
        with VectorMap.open([str(path)], GRID, legend, ["road"]) as opened:
            column = opened.burn(GRID.window)[:, :, 50]
            wide = (column != np.array(legend.background)[:, None]).any(axis=0).sum()
            assert wide == pytest.approx(45 / 2, abs=2)


@pytest.mark.parametrize(
    ("text", "metres"),
    [
        ("7", 7.0),
        ("3.5 m", 3.5),
        ("3,5", 3.5),
        ("350cm", 3.5),
        ("12 ft", 3.6576),
        ("7'", 2.1336),
        ("7'6\"", 2.286),
        ("0.1 mi", 160.9344),
        ("5; 7", 5.0),
        ("~4", 4.0),
        ("6 metres", 6.0),
        ("narrow", None),
        ("2-3", None),
        ("<2", None),
        ("0", None),
        ("5000", None),
    ],
)
def test_widths_in_the_units_of_osm(text, metres):
    assert width_of_tag(text) == (None if metres is None else pytest.approx(metres))


def test_widths_that_cannot_be_read_are_counted(tmp_path, caplog):
    widths = ["narrow", "2-3", "30 ft"]
    path = save(tmp_path / "r.gpkg", [LINE] * 3, highway=["path"] * 3, width=widths)
    with VectorMap.open([str(path)], GRID, CLASSES) as opened:
        assert dict(opened.unread_widths) == {"narrow": 1, "2-3": 1}
        assert (opened.burn(GRID.window)[0, :, 9] == 2).sum() == pytest.approx(
            4.6, abs=1
        )
    assert "2 lines have a width that cannot be read" in caplog.text


def test_an_empty_layer_is_an_empty_raster(tmp_path, caplog):
    path = write_osm(tmp_path / "town.osm", [(SQUARE, {"building": "yes"})])
    assert not codes(path, layers=["water"]).any()
    assert "no feature in the scene" in caplog.text
    save(tmp_path / "e.gpkg", [LINE], highway=["path"])
    geopandas.read_file(tmp_path / "e.gpkg").iloc[:0].to_file(tmp_path / "none.gpkg")
    assert not codes(tmp_path / "none.gpkg").any()
    with ChangeMask.open([str(tmp_path / "none.gpkg")], GRID) as mask:
        assert not mask.read(GRID.window).any()


@pytest.mark.parametrize("suffix", ["gpkg", "geojson", "shp"])
def test_a_layer_without_geometries_is_an_empty_raster(tmp_path, caplog, suffix):
    path = save(tmp_path / f"e.{suffix}", [None, None], highway=["path", "primary"])
    assert not codes(path).any()
    assert "no feature in the scene" in caplog.text
    with ChangeMask.open([str(path)], GRID) as mask:
        assert not mask.read(GRID.window).any()
