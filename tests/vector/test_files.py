"""Vector files: their layers, columns and geometries, and those that are refused."""

from __future__ import annotations

import bz2
import json
from pathlib import Path

import geopandas
import numpy as np
import pandas as pd
import pytest
import shapely

from rsupres.errors import ConditionError, InputError
from rsupres.raster.files import file_sha256
from rsupres.vector.map import VectorMap
from tests.vector.town import (
    CLASSES,
    GRID,
    SQUARE,
    TOWN,
    codes,
    degrees,
    frame_of,
    write_map,
    write_osm,
)


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
