"""OSM files that lack nodes, are cut, hold histories, or come from BBBike."""

from __future__ import annotations

import bz2
import gzip
import re
from pathlib import Path

import geopandas
import numpy as np
import osmium
import pyproj
import pytest
import shapely

from rsupres.errors import InputError
from tests.vector.osm_town import FIELD, INNER, LINE, X, Y, save
from tests.vector.town import SQUARE, codes, write_osm


@pytest.mark.parametrize(
    "suffix", [pytest.param("osm", marks=pytest.mark.slow), "osm.pbf"]
)
@pytest.mark.parametrize(
    ("tags", "node", "is_cut"),
    [
        ({"building": "yes"}, None, True),
        ({"highway": "primary"}, None, True),
        ({"note": "is not drawn"}, None, False),
        ({"building": "yes"}, '<node action="delete"', True),
        ({"building": "yes"}, "<node visible='false'", True),
        ({"building": "yes"}, "<node", False),
    ],
)
def test_ways_that_lack_nodes_are_counted(tmp_path, caplog, suffix, tags, node, is_cut):
    """They are drawn without these nodes, as in an extract that was cut hard."""
    ways = [(INNER, {"building": "yes"}), (FIELD, tags)]
    path = write_osm(tmp_path / "town.osm", ways)
    text = path.read_text()
    last = re.findall(r"<node[^>]*/>", text)[-1]
    kept = "" if node is None else last.replace("<node", node)
    path.write_text(text.replace(last, kept))
    if suffix == "osm.pbf":  # has no deleted objects
        path.write_text(text.replace(last, kept if kept == last else ""))
        path = as_pbf(path)
    codes(path)
    assert ("1 ways lack nodes" in caplog.text) is is_cut


def test_new_nodes_and_ways_before_their_nodes_are_not_missing(tmp_path, caplog):
    path = write_osm(tmp_path / "town.osm", [(INNER, {"building": "yes"})])
    plain, text = codes(path), path.read_text()
    nodes = "\n".join(re.findall(r"<node[^>]*/>", text))
    assert nodes in text
    path.write_text(text.replace(nodes, "").replace("</osm>", nodes + "</osm>"))
    assert np.array_equal(codes(path), plain)
    path.write_text(re.sub(r'\b(id|ref)="', r'\1="-', text))
    assert np.array_equal(codes(path), plain)
    assert "lack nodes" not in caplog.text


@pytest.mark.parametrize("epsg", [32632, 4326])
@pytest.mark.parametrize("turn", [False, True])
def test_one_straight_street_touches_the_scene(tmp_path, epsg, turn):
    ends = (
        [(X + 100, Y), (X + 100, Y - 200)] if turn else [(X, Y - 99), (X + 240, Y - 99)]
    )
    if epsg == 4326:
        to = pyproj.Transformer.from_crs(32632, 4326, always_xy=True)
        (a, b), (c, d) = (to.transform(*end) for end in ends)
        ends = [(a, b), (a, d)] if turn else [(a, b), (c, b)]
    table = geopandas.GeoDataFrame(
        {"highway": ["residential"]}, geometry=[shapely.LineString(ends)], crs=epsg
    )
    table.to_file(tmp_path / "street.gpkg")
    assert (codes(tmp_path / "street.gpkg") == 2).sum() >= 200


@pytest.mark.parametrize(
    ("mark", "suffix"),
    [
        ('visible="false"', "osm"),
        ('visible="false"', "osm.gz"),
        ("action='delete'", "osm.bz2"),
    ],
)
def test_deleted_objects_are_left_out(tmp_path, mark, suffix):
    town = [(INNER, {"building": "yes"}), (SQUARE, {"building": "yes"})]
    plain = write_osm(tmp_path / "plain.osm", town)
    drawn = codes(plain)
    assert drawn[50, 50] == drawn[15, 15] == 1
    text = plain.read_text().replace('<way id="1">', f'<way id="1" {mark}>')
    text = text.replace("<way", f'<node id="99" lat="1" lon="1" {mark}/><way', 1)
    pack = {"osm": bytes, "osm.gz": gzip.compress, "osm.bz2": bz2.compress}[suffix]
    path = tmp_path / f"town.{suffix}"
    path.write_bytes(pack(text.encode()))
    found = codes(path)
    assert found[50, 50] == 0
    assert found[15, 15] == 1


@pytest.mark.parametrize(
    ("suffix", "tag", "members", "is_cut"),
    [
        ("osm", "water", (1,), False),
        ("osm.pbf", "water", (1, 77), True),
        ("osm", "water", (1, 77), True),
        ("osm.pbf", "cliff=x", (1, 77), False),
    ],
)
def test_cut_areas_of_what_is_drawn_are_counted(
    tmp_path, caplog, suffix, tag, members, is_cut
):
    key, value = ("natural", tag) if "=" not in tag else tag.split("=")
    parts = "".join(f'<member type="way" ref="{m}" role="outer"/>' for m in members)
    tags = f'<tag k="type" v="multipolygon"/><tag k="{key}" v="{value}"/>'
    relation = f'<relation id="5">{parts}{tags}</relation>'
    path = write_osm(tmp_path / "lake.osm", [(INNER, {"note": "x"})], relation)
    path = as_pbf(path) if suffix == "osm.pbf" else path
    assert int(codes(path)[50, 50]) == (3 if value == "water" and not is_cut else 0)
    assert ("1 areas (relations) lack members" in caplog.text) is is_cut


def as_pbf(path: Path, form: str = "pbf") -> Path:
    """Write an OSM file as PBF; the form "osh.pbf" is a history."""
    target = path.with_suffix(".osm.pbf")
    with osmium.SimpleWriter(osmium.io.File(str(target), form)) as writer:
        for thing in osmium.FileProcessor(str(path)):
            writer.add(thing)
    return target


def versions(path: Path) -> Path:
    """Write a town in which one way has two versions."""
    write_osm(path, [(SQUARE, {"building": "yes"})])
    text = path.read_text()
    way = text[text.index("<way") : text.index("</way>") + 6]
    path.write_text(text.replace(way, way + way.replace("building", "natural")))
    return path


@pytest.mark.parametrize(
    "kind", ["town.osm", "town.osm.pbf", "town.osh", "town.osh.pbf", "town.osc.gz"]
)
def test_histories_and_changes_are_refused(tmp_path, kind):
    path = versions(tmp_path / "town.osm")
    if kind == "town.osm.pbf":
        path = as_pbf(path, "osh.pbf")
    elif kind != "town.osm":
        path = path.rename(tmp_path / kind)
    with pytest.raises(InputError, match=r"history or changes.*osmium time-filter"):
        codes(path)


def test_changes_called_a_map_are_refused(tmp_path):
    path = tmp_path / "day.osm"
    path.write_text('<osmChange version="0.6"><modify/></osmChange>')
    with pytest.raises(InputError, match="history or changes"):
        codes(path)


@pytest.mark.parametrize(
    ("layer", "kind", "value", "shape", "code"),
    [
        ("roads", "primary", "secondary", LINE, 2),
        ("waterways", "river", "stream", LINE, 3),
        ("natural", "water", "riverbank", shapely.box(X, Y - 90, X + 90, Y), 3),
        ("natural", "forest", "forest", shapely.box(X, Y - 90, X + 90, Y), 4),
        ("buildings", "house", None, shapely.box(X, Y - 90, X + 90, Y), 1),
    ],
)
def test_types_of_bbbike_are_tags(tmp_path, caplog, layer, kind, value, shape, code):
    path = save(
        tmp_path / f"{layer}.shp",
        [shape, shape],
        osm_id=["1", "2"],
        type=[kind, value],
    )
    found = codes(path)
    assert set(np.unique(found)) == {0, code}
    assert "no columns of OpenStreetMap tags" not in caplog.text


def test_types_of_bbbike_are_tags_in_layers_but_not_beside_tags(tmp_path):
    path = tmp_path / "town.gpkg"
    table = geopandas.GeoDataFrame({"type": ["motorway"]}, geometry=[LINE], crs=32632)
    table.to_file(path, layer="roads")
    wide = (codes(path) == 2).sum()
    table.assign(highway=["footway"]).to_file(path, layer="roads")
    assert 0 < (codes(path) == 2).sum() < wide / 2


def test_the_class_of_a_bbbike_road_sets_its_width(tmp_path):
    wide, narrow, none = (
        (codes(save(tmp_path / "roads.shp", [LINE], type=[kind])) == 2).sum()
        for kind in ("motorway", "footway", "proposed")
    )
    assert wide > 2 * narrow > 0
    assert none > 0  # no type of BBBike: the name of the layer decides, and warns
