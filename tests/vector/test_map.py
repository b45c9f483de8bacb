"""Vector maps: any file becomes the same pixels, and the right ones."""

from __future__ import annotations

import bz2
import json
import logging
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import geopandas
import numpy as np
import pandas as pd
import pyproj
import pytest
import rasterio
import shapely
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from rasterio.crs import CRS

from rsupres.errors import ConditionError, InputError
from rsupres.grid import Grid, PixelWindow
from rsupres.legends.legend_file import load_legend
from rsupres.raster.files import file_sha256
from rsupres.vector.map import VectorMap
from tests.helpers import shared_data
from tests.strategies import COSTLY

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "sample_data"
CLASSES = load_legend("classes")
# 2 m pixels; (x, y) below are metres right of and below the corner.
GRID = Grid(CRS.from_epsg(32632), Affine(2, 0, 563200, 0, -2, 5393120), 100, 120)
TO_DEGREES = pyproj.Transformer.from_crs(32632, 4326, always_xy=True)
Tags = dict[str, str]
Feature = tuple[Sequence[tuple[float, float]], Tags]

SQUARE = [(20, 20), (60, 20), (60, 50), (20, 50), (20, 20)]
ACROSS = [(-50, 100), (300, 100)]


def degrees(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    return [TO_DEGREES.transform(563200 + x, 5393120 - y) for x, y in points]


def write_osm(path: Path, features: Sequence[Feature], extra: str = "") -> Path:
    """Write ways as OSM XML."""
    nodes: list[str] = []
    ways: list[str] = []
    for number, (points, tags) in enumerate(features, start=1):
        refs: dict[tuple[float, float], int] = {}
        way = [f'<way id="{number}">']
        for point, (lon, lat) in zip(points, degrees(points), strict=True):
            if point not in refs:
                refs[point] = len(nodes) + 1
                nodes.append(
                    f'<node id="{len(nodes) + 1}" lat="{lat:.8f}" lon="{lon:.8f}"/>'
                )
            way.append(f'<nd ref="{refs[point]}"/>')
        way += [f'<tag k="{k}" v="{v}"/>' for k, v in tags.items()]
        ways.append("".join([*way, "</way>"]))
    path.write_text("\n".join(['<osm version="0.6">', *nodes, *ways, extra, "</osm>"]))
    return path


def frame_of(features: Sequence[Feature]) -> geopandas.GeoDataFrame:
    """Return the same features as a table, closed ones as areas."""
    shapes = [
        shapely.Polygon(degrees(points))
        if points[0] == points[-1]
        else shapely.LineString(degrees(points))
        for points, _ in features
    ]
    keys = sorted({key for _, tags in features for key in tags})
    columns = {key: [tags.get(key) for _, tags in features] for key in keys}
    return geopandas.GeoDataFrame(columns, geometry=shapes, crs=4326)


def write_map(path: Path, features: Sequence[Feature]) -> Path:
    """Write features as FlatGeobuf, which opens much faster than OSM."""
    frame_of(features).to_file(path, driver="FlatGeobuf")
    return path


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The town as OSM XML."""
    return write_osm(tmp_path_factory.mktemp("town") / "town.osm", TOWN)


@pytest.fixture(scope="module")
def expected(town: Path) -> np.ndarray:
    """Its codes on the grid."""
    return codes(town)


def codes(path: Path | str, grid: Grid = GRID, **options: object) -> np.ndarray:
    with VectorMap.open([str(path)], grid, CLASSES, **options) as opened:  # type: ignore[arg-type]
        return opened.burn(grid.window)[0]


TOWN: list[Feature] = [
    (SQUARE, {"building": "yes"}),
    (ACROSS, {"highway": "residential", "width": "12"}),
    ([(130, -40), (130, 260)], {"waterway": "river", "width": "16"}),
    ([(150, 10), (230, 10), (230, 90), (150, 90), (150, 10)], {"landuse": "forest"}),
]


def test_features_come_out_where_they_are(expected):
    found = expected
    assert (found[10:25, 10:30] == 1).all()
    assert (found == 1).sum() == 300
    assert (found[48:52, 0:60] == 2).all()  # 12 m, of 94 to 106
    assert not (found[:46] == 2).any()
    assert (found[0:40, 61:69] == 3).all()
    assert (found[6:44, 76:114] == 4).all()
    assert (found[70:, :55] == 0).all()


SUFFIXES = (
    *("osm.bz2", "gpkg", "geojson", "geojsonl", "fgb", "shp", "parquet"),
    *("osm.gz", "shp.zip"),
)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_format_gives_the_same_pixels(tmp_path, suffix, town, expected):
    path = tmp_path / f"town.{suffix}"
    table = frame_of(TOWN)
    if suffix.startswith("osm."):
        import gzip

        packed = bz2.compress if suffix == "osm.bz2" else gzip.compress
        path.write_bytes(packed(town.read_bytes()))
    elif suffix == "parquet":
        pytest.importorskip("pyarrow")
        table.to_parquet(path)
    elif suffix.startswith("shp"):  # one kind of geometry a file
        table[table.geom_type == "Polygon"].to_file(tmp_path / "areas.shp")
        table[table.geom_type != "Polygon"].to_file(tmp_path / "lines.shp")
        names = [str(tmp_path / "areas.shp"), str(tmp_path / "lines.shp")]
        if suffix == "shp.zip":
            names = [pack(tmp_path, Path(name)) for name in names]
        with VectorMap.open(names, GRID, CLASSES) as opened:
            assert np.array_equal(opened.burn(GRID.window)[0], expected)
        return
    else:
        driver = "GeoJSONSeq" if suffix == "geojsonl" else None
        table.to_file(path, driver=driver)
    found = codes(path)
    # GeoJSON keeps 7 decimals of a degree, about a centimetre.
    assert (found != expected).mean() < (2e-3 if "json" in suffix else 1e-9)


def pack(folder: Path, shapefile: Path) -> str:
    import zipfile

    path = folder / f"{shapefile.stem}.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for part in folder.glob(f"{shapefile.stem}.*"):
            if part.suffix != ".zip":
                archive.write(part, part.name)
    return str(path)


def test_several_files_are_drawn_as_one(tmp_path):
    whole = codes(write_map(tmp_path / "town.fgb", TOWN))
    names = [
        str(write_map(tmp_path / f"part{i}.fgb", [feature]))
        for i, feature in enumerate(reversed(TOWN))
    ]
    with VectorMap.open(names, GRID, CLASSES) as opened:
        assert np.array_equal(opened.burn(GRID.window)[0], whole)
        assert opened.counts["building"] == opened.counts["road"] == 1


@pytest.mark.parametrize("epsg", [4326, 3857, 25832, 2056, 3035])
def test_vectors_of_any_crs_fall_on_the_same_pixels(tmp_path, epsg, expected):
    path = tmp_path / "town.gpkg"
    frame_of(TOWN).to_crs(epsg).to_file(path)
    assert (codes(path) != expected).mean() < 1e-3  # datum shifts of a few decimetres


def test_a_multipolygon_relation_keeps_its_hole(tmp_path):
    outer = ([(20, 20), (180, 20), (180, 150), (20, 150), (20, 20)], {"note": "outer"})
    inner = ([(60, 60), (120, 60), (120, 100), (60, 100), (60, 60)], {"note": "inner"})
    relation = (
        '<relation id="1"><member type="way" ref="1" role="outer"/>'
        '<member type="way" ref="2" role="inner"/><tag k="type" v="multipolygon"/>'
        '<tag k="natural" v="wood"/></relation>'
    )
    found = codes(write_osm(tmp_path / "wood.osm", [outer, inner], relation))
    assert (found == 4).sum() == 80 * 65 - 30 * 20
    assert (found[30:50, 30:60] == 0).all()


def test_classes_are_drawn_in_their_order_whatever_the_files(tmp_path):
    area = [(20, 20), (180, 20), (180, 150), (20, 150), (20, 20)]
    kinds = [
        {"landuse": "residential"},
        {"natural": "sand"},
        {"landuse": "farmland"},
        {"landuse": "grass"},
        {"natural": "wood"},
        {"leisure": "pitch"},
        {"natural": "water"},
        {"highway": "pedestrian", "area": "yes"},
        {"building": "house"},
    ]
    order = [8, 9, 7, 5, 4, 10, 3, 2, 1]
    for last in range(1, len(kinds) + 1):
        features = [(area, tags) for tags in reversed(kinds[:last])]
        found = codes(write_map(tmp_path / f"{last}.fgb", features))
        assert found[40, 40] == order[last - 1]


def test_bridges_lie_over_what_they_cross_by_layer(tmp_path):
    road = (ACROSS, {"highway": "primary"})
    rail = ([(100, -40), (100, 260)], {"railway": "rail", "width": "8"})
    over = ([(100, -40), (100, 260)], {**rail[1], "bridge": "yes", "layer": "1"})
    high = (ACROSS, {"highway": "primary", "bridge": "yes", "layer": "2"})
    tower = ([(95, 95), (105, 95), (105, 105), (95, 105), (95, 95)], {"building": "y"})
    for number, (features, code) in enumerate(
        [
            ([road, rail], 2),
            ([road, over], 6),
            ([high, over], 2),
            ([road, (over[0], {**over[1], "bridge": "no"})], 2),
            ([high, over, tower], 1),
        ]
    ):
        found = codes(write_map(tmp_path / f"{number}.fgb", features))
        assert found[50, 50] == code


def test_tunnels_are_not_seen_and_counted(tmp_path):
    features = [
        (ACROSS, {"highway": "primary", "tunnel": "yes"}),
        (ACROSS, {"waterway": "stream", "tunnel": "culvert"}),
        (SQUARE, {"building": "yes", "location": "underground"}),
        ([(10, 10), (10, 90)], {"highway": "service", "tunnel": "building_passage"}),
    ]
    path = write_map(tmp_path / "town.fgb", features)
    with VectorMap.open([str(path)], GRID, CLASSES) as opened:
        assert opened.hidden == 3
        assert opened.counts["road"] == 1
        assert set(np.unique(opened.burn(GRID.window))) == {0, 2}


def test_what_no_class_takes_is_ignored_and_counted(tmp_path):
    features = [
        *TOWN,
        ([(5, 5), (50, 5)], {"barrier": "fence"}),
        ([(5, 7), (50, 7)], {"barrier": "fence"}),
        ([(5, 9), (50, 9)], {"highway": "proposed"}),
        ([(5, 9), (50, 9)], {"building": "yes"}),  # a building that is no area
    ]
    path = write_osm(tmp_path / "town.osm", features)
    with VectorMap.open([str(path)], GRID, CLASSES) as opened:
        assert opened.ignored == 4
        assert opened.ignored_tags == {
            "barrier=fence": 2,
            "highway=proposed": 1,
            "building=yes": 1,
        }
        assert {k: v for k, v in opened.counts.items() if v} == {
            **{"building": 1, "road": 1, "water": 1, "wood": 1},
        }


def test_layers_draw_only_what_is_named(tmp_path):
    path = write_map(tmp_path / "town.fgb", TOWN)
    assert set(np.unique(codes(path, layers=("building", "wood")))) == {0, 1, 4}


def test_rgb_and_antialiased_edges(tmp_path):
    slanted = ([(5, 195), (95, 110)], {"highway": "service"})
    path = str(write_map(tmp_path / "town.fgb", [*TOWN, slanted]))
    legend = load_legend("maptiler")
    with VectorMap.open([path], GRID, legend) as opened:
        plain = opened.burn(GRID.window)
    with VectorMap.open([path], GRID, legend.antialiased()) as opened:
        soft = opened.burn(GRID.window)
        part = opened.burn(PixelWindow(7, 31, 50, 60))
    assert plain.shape == soft.shape == (3, 100, 120)
    assert tuple(plain[:, 20, 20]) == (226, 224, 210)
    assert tuple(soft[:, 20, 20]) == (226, 224, 210)
    plain_colours = len(np.unique(plain.reshape(3, -1), axis=1).T)
    assert plain_colours == 5
    assert len(np.unique(soft.reshape(3, -1), axis=1).T) > plain_colours
    assert np.array_equal(part, soft[:, 7:57, 31:91])
    assert abs(soft.mean() - plain.mean()) < 1.0


def test_casings_border_the_roads(tmp_path):
    road = (ACROSS, {"highway": "primary", "width": "12"})
    path = str(write_map(tmp_path / "road.fgb", [road]))
    fine = GRID.refine(Fraction(4))  # 0.5 m
    with VectorMap.open([path], fine, load_legend("osm-carto")) as opened:
        column = opened.burn(fine.window)[:, :, 200].T
    rows = np.flatnonzero((column == (0xFC, 0xD6, 0xA4)).all(axis=1))
    border = np.flatnonzero((column == (0xA0, 0x6B, 0x00)).all(axis=1))
    assert len(rows) == 24
    assert border.tolist() == [rows[0] - 1, rows[-1] + 1]


crss = st.sampled_from([32632, 3857, 4326, 2056])
angles = st.sampled_from([0.0, 17.0, 90.0, 211.0])


@COSTLY
@given(crss, angles, st.data())
def test_a_window_is_a_cut_of_the_whole_on_any_grid(
    tmp_path_factory, epsg, angle, data
):
    folder = tmp_path_factory.mktemp("map")
    path = str(write_map(folder / "town.fgb", TOWN))
    grid = turned_grid(epsg, angle)
    legend = data.draw(st.sampled_from(["classes", "maptiler", "soft"]))
    chosen = load_legend("maptiler" if legend == "soft" else legend)
    chosen = chosen.antialiased() if legend == "soft" else chosen
    with VectorMap.open([path], grid, chosen) as opened:
        whole = opened.burn(PixelWindow(-40, -40, 180, 200))
        assert len(np.unique(whole)) > 3
        for _ in range(10):
            row, col = (data.draw(st.integers(-40, 100)) for _ in range(2))
            window = PixelWindow(
                row, col, data.draw(st.integers(1, 40)), data.draw(st.integers(1, 60))
            )
            cut = whole[:, row + 40 : row + 40 + window.height, col + 40 :]
            part = opened.burn(window)
            assert np.array_equal(part, cut[:, :, : window.width])


def turned_grid(epsg: int, angle: float) -> Grid:
    """Return a grid over the same ground in another CRS, turned about its centre."""
    to_crs = pyproj.Transformer.from_crs(32632, epsg, always_xy=True)
    x, y = to_crs.transform(563320, 5393020)
    x1, _ = to_crs.transform(563440, 5393020)
    size = abs(x1 - x) / 60
    transform = (
        Affine.translation(x, y)
        @ Affine.rotation(angle)
        @ Affine.scale(size, -size)
        @ Affine.translation(-60, -50)
    )
    return Grid(CRS.from_epsg(epsg), transform, 100, 120)


def test_the_ground_is_the_same_on_a_turned_grid(tmp_path):
    path = write_map(tmp_path / "town.fgb", TOWN)
    straight = codes(path, turned_grid(32632, 0))
    turned = codes(path, turned_grid(32632, 90))
    # Turned about its centre: what was at the right is at the top.
    middle = straight[:, 10:110]
    assert (np.rot90(middle, -1) == turned[:, 10:110]).mean() > 0.98


def test_outside_the_grid_the_map_goes_on_for_the_margin_only(tmp_path):
    path = str(write_map(tmp_path / "town.fgb", TOWN))
    with VectorMap.open([path], GRID, CLASSES) as opened:
        assert (opened.burn(PixelWindow(50, -24, 1, 24)) == 2).all()
        assert not opened.burn(PixelWindow(0, 5000, 30, 30)).any()


def test_only_what_the_footprint_needs_is_read(tmp_path):
    far = [
        (
            [(x, y) for x, y in np.add(SQUARE, (900 * i, 900)).tolist()],
            {"building": "y"},
        )
        for i in range(1, 30)
    ]
    for suffix in ("osm", "gpkg", "parquet"):
        path = tmp_path / f"town.{suffix}"
        if suffix == "osm":
            write_osm(path, [*TOWN, *far])
        elif suffix == "gpkg":
            frame_of([*TOWN, *far]).to_file(path)
        else:
            frame_of([*TOWN, *far]).to_parquet(path)
        with VectorMap.open([str(path)], GRID, CLASSES) as opened:
            assert opened.n_read == len(TOWN)


def sample_grid(scale: int) -> Grid:
    with rasterio.open(SAMPLE / "town_s2.tif") as scene:
        grid = Grid(scene.crs, scene.transform, scene.height, scene.width)
    return grid.refine(Fraction(scale))


def test_the_sample_town_lies_on_its_picture_to_within_a_pixel():
    with rasterio.open(SAMPLE / "town_aerial.tif") as aerial:
        grid = Grid(aerial.crs, aerial.transform, aerial.height, aerial.width)
        picture = aerial.read().astype(float).mean(axis=0)
    found = codes(SAMPLE / "town.osm", grid, layers=("building", "road"))
    rows, cols = (np.abs(np.diff(picture, axis=axis)) for axis in (0, 1))
    for code in (1, 2):
        mask = found == code
        above = mask[1:] != mask[:-1]
        beside = mask[:, 1:] != mask[:, :-1]
        sharp = {
            (dy, dx): rows[np.roll(above, (dy, dx), (0, 1))].mean()
            + cols[np.roll(beside, (dy, dx), (0, 1))].mean()
            for dy in range(-4, 5)
            for dx in range(-4, 5)
        }
        dy, dx = max(sharp, key=sharp.__getitem__)
        assert max(abs(dy), abs(dx)) <= 1, (code, dy, dx)
        assert sharp[0, 0] > 1.3 * np.mean([sharp[4, 4], sharp[-4, -4], sharp[4, -4]])


def test_the_sample_town_counts_its_features():
    with VectorMap.open([str(SAMPLE / "town.osm")], sample_grid(8), CLASSES) as opened:
        assert opened.counts["building"] == 359
        assert opened.coverage == 1.0
        assert (opened.ignored, opened.repaired, opened.dropped) == (0, 0, 0)


def test_the_fingerprint_follows_files_and_legend(tmp_path):
    path = write_map(tmp_path / "town.fgb", TOWN)

    def fingerprint(**options: object) -> str:
        with VectorMap.open([str(path)], GRID, CLASSES, **options) as opened:  # type: ignore[arg-type]
            return json.dumps(opened.fingerprint())

    first = fingerprint()
    assert first == fingerprint()
    assert first != fingerprint(layers=("road",))
    assert file_sha256(path) in first
    write_map(path, TOWN[:3])
    assert first != fingerprint()


def test_unsorted_ids_are_read_another_way(tmp_path, town, expected):
    path = tmp_path / "town.osm"
    lines = town.read_text().splitlines()
    nodes = [line for line in lines if line.startswith("<node")]
    rest = [line for line in lines if not line.startswith(("<node", "<osm"))]
    path.write_text("\n".join([lines[0], *reversed(nodes), *rest]))
    assert np.array_equal(codes(path), expected)


def test_hstore_json_and_map_columns_are_tags(tmp_path):
    expected = codes(write_osm(tmp_path / "town.osm", TOWN))
    table = frame_of(TOWN)
    keys = [name for name in table.columns if name != "geometry"]
    tags = [
        {key: row[key] for key in keys if isinstance(row[key], str)}
        for _, row in table.iterrows()
    ]
    hstore = [",".join(f'"{k}"=>"{v}"' for k, v in t.items()) for t in tags]
    as_json = [json.dumps(t) for t in tags]
    for number, (column, values) in enumerate(
        [("other_tags", hstore), ("tags", as_json)]
    ):
        path = tmp_path / f"{number}.gpkg"
        plain = geopandas.GeoDataFrame({column: values}, geometry=table.geometry)
        plain.set_crs(4326).to_file(path)
        assert np.array_equal(codes(path), expected)


def test_geofabrik_layers_are_understood(tmp_path):
    table = frame_of(TOWN)
    path = tmp_path / "gis_osm_buildings_a_free_1.shp"
    table.iloc[[0]].assign(fclass="building")[["fclass", "geometry"]].to_file(path)
    assert (codes(path) == 1).sum() == 300
    path = tmp_path / "gis_osm_landuse_a_free_1.shp"
    table.iloc[[0]].assign(fclass="park")[["fclass", "geometry"]].to_file(path)
    assert (codes(path) == 5).sum() == 300


def test_a_layer_without_tags_is_known_by_its_name(tmp_path):
    path = tmp_path / "my_footprints.geojson"
    frame_of(TOWN[:1])[["geometry"]].to_file(path)
    assert (codes(path) == 1).sum() == 300


def test_mixed_three_dimensional_and_point_geometries(tmp_path):
    polygon = shapely.force_3d(shapely.Polygon(degrees(SQUARE)), 12.0)
    table = geopandas.GeoDataFrame(
        {"building": ["yes"] * 3},
        geometry=[
            shapely.GeometryCollection([polygon, shapely.Point(9.86, 48.68, 3)]),
            shapely.Point(degrees(SQUARE)[0]),
            None,
        ],
        crs=4326,
    )
    table.to_file(tmp_path / "mixed.gpkg")
    with VectorMap.open([str(tmp_path / "mixed.gpkg")], GRID, CLASSES) as opened:
        assert (opened.burn(GRID.window) == 1).sum() == 300
        assert opened.counts["building"] == 1


def test_broken_geometries_are_repaired_counted_and_said(tmp_path, caplog):
    bow = shapely.Polygon(degrees([(20, 20), (60, 60), (60, 20), (20, 60)]))
    geopandas.GeoDataFrame(
        {"building": ["yes"] * 2},
        geometry=[bow, shapely.Polygon(degrees(SQUARE))],
        crs=4326,
    ).to_file(tmp_path / "broken.gpkg")
    with VectorMap.open([str(tmp_path / "broken.gpkg")], GRID, CLASSES) as opened:
        assert opened.repaired == 1
        assert opened.counts["building"] == 2
    assert "1 broken geometries were repaired" in caplog.text


def test_a_part_that_is_covered_is_a_warning_with_the_share(tmp_path, caplog):
    west = [
        (
            [(-20, -20), (120, -20), (120, 260), (-20, 260), (-20, -20)],
            {"landuse": "grass"},
        )
    ]
    path = str(write_map(tmp_path / "west.fgb", west))
    with VectorMap.open([path], GRID, CLASSES) as opened:
        assert opened.coverage == pytest.approx(0.5, abs=0.01)
    assert "covers 50." in caplog.text or "covers 49." in caplog.text


def refusal(path: Path | str, kind: type[Exception] = InputError) -> str:
    with pytest.raises(kind) as caught:
        VectorMap.open([str(path)], GRID, CLASSES)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def test_a_map_of_another_place_names_both_footprints(tmp_path):
    for suffix in ("osm", "gpkg"):
        far = [(np.add(p, 50_000).tolist(), t) for p, t in TOWN]
        far = [([tuple(xy) for xy in p], t) for p, t in far]
        path = tmp_path / f"far.{suffix}"
        if suffix == "osm":
            write_osm(path, far)
        else:
            frame_of(far).to_file(path)
        message = refusal(path, ConditionError)
        assert "does not touch the scene" in message
        assert "EPSG:4326" in message
        assert "EPSG:32632" in message
        assert "5392920" in message
        assert message.count("(EPSG:4326)") == (2 if suffix == "osm" else 1)


def test_swapped_coordinates_are_recognised(tmp_path):
    table = frame_of(TOWN)
    table.geometry = shapely.transform(table.geometry.values, lambda xy: xy[:, ::-1])
    table.to_file(tmp_path / "swapped.gpkg")
    assert "look swapped" in refusal(tmp_path / "swapped.gpkg", ConditionError)


def test_unusable_files_are_refused_in_one_line(tmp_path):
    assert "no such file" in refusal(tmp_path / "nowhere.osm.pbf")
    (tmp_path / "text.gpkg").write_text("hello")
    refusal(tmp_path / "text.gpkg")
    (tmp_path / "text.txt").write_text("hello")
    assert "not a vector file" in refusal(tmp_path / "text.txt")
    (tmp_path / "broken.osm.pbf").write_bytes(b"\x00\x00\x00\x0dgarbage garbage")
    refusal(tmp_path / "broken.osm.pbf")
    (tmp_path / "cut.osm").write_text('<osm version="0.6"><node id="1" lat="4')
    refusal(tmp_path / "cut.osm")
    (tmp_path / "cut.osm.bz2").write_bytes(bz2.compress(b"x" * 9999)[:-9])
    assert "unpacked" in refusal(tmp_path / "cut.osm.bz2")
    table = frame_of(TOWN)
    with pytest.warns(UserWarning, match="not have projection"):
        table.set_crs(None, allow_override=True).to_file(tmp_path / "nocrs.gpkg")
    assert "no CRS" in refusal(tmp_path / "nocrs.gpkg")


def test_unusable_parquet_files_are_refused(tmp_path):
    pytest.importorskip("pyarrow")
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "plain.parquet")
    assert "without geometries" in refusal(tmp_path / "plain.parquet")
    (tmp_path / "text.parquet").write_text("hello")
    assert "not a Parquet file" in refusal(tmp_path / "text.parquet")
    table = frame_of(TOWN).set_crs(None, allow_override=True)
    table.to_parquet(tmp_path / "nocrs.parquet")
    assert "no CRS" in refusal(tmp_path / "nocrs.parquet")


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, monkeypatch):
    pytest.importorskip("pyarrow")
    frame_of(TOWN).to_parquet(tmp_path / "town.parquet")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    assert "rsupres[parquet]" in refusal(tmp_path / "town.parquet")


def test_gdal_options_are_restored(tmp_path):
    import pyogrio

    codes(write_osm(tmp_path / "town.osm", TOWN))
    for key in ("OSM_CONFIG_FILE", "OSM_USE_CUSTOM_INDEXING"):
        assert pyogrio.get_gdal_config_option(key) is None


def test_helsinki_is_read_though_rings_are_not_closed(caplog):
    caplog.set_level(logging.INFO)
    grid = real_grid(24.9351, 60.1641, 24.9534, 60.1791, 32635)
    path = shared_data("osm", "helsinki_centre.osm.pbf")
    with VectorMap.open([str(path)], grid, CLASSES) as opened:
        assert opened.repaired > 10
        assert 0 < opened.dropped < 60  # also areas that are lines
        assert opened.counts["building"] > 500
        assert opened.counts["road"] > 2000
        found = opened.burn(grid.window)[0]
    assert 0.2 < (found == 1).mean() < 0.4


def test_valencia_is_the_same_with_unsorted_ids():
    grid = real_grid(-0.3799, 39.4625, -0.3583, 39.4725, 32630)
    sorted_ids = codes(shared_data("osm", "valencia_centre_sorted.osm"), grid)
    unsorted_ids = codes(shared_data("osm", "valencia_centre_unsorted_ids.osm"), grid)
    assert np.array_equal(sorted_ids, unsorted_ids)
    assert (sorted_ids == 2).mean() > 0.1


def real_grid(west: float, south: float, east: float, north: float, epsg: int) -> Grid:
    to_crs = pyproj.Transformer.from_crs(4326, epsg, always_xy=True)
    left, bottom, right, top = to_crs.transform_bounds(west, south, east, north)
    height, width = int((top - bottom) / 2.5), int((right - left) / 2.5)
    return Grid(CRS.from_epsg(epsg), Affine(2.5, 0, left, 0, -2.5, top), height, width)
