"""Vector maps: any file becomes the same pixels, and the right ones."""

from __future__ import annotations

import bz2
import logging
from fractions import Fraction
from pathlib import Path

import numpy as np
import pyproj
import pytest
import rasterio
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from rasterio.crs import CRS

from rsupres.grid import Grid, PixelWindow
from rsupres.legends.legend_file import load_legend
from rsupres.vector.map import VectorMap
from tests.helpers import shared_data
from tests.strategies import COSTLY
from tests.vector.town import (
    ACROSS,
    CLASSES,
    GRID,
    SQUARE,
    TOWN,
    codes,
    frame_of,
    write_map,
    write_osm,
)

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "sample_data"


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
