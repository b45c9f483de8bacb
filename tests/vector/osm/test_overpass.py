"""OpenStreetMap live, against a server of our own; nothing here needs a network."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs

import numpy as np
import pytest
import shapely
from affine import Affine
from rasterio.crs import CRS

from rsupres.errors import ConditionError
from rsupres.grid import Grid
from rsupres.legends.legend_file import load_legend
from rsupres.vector.map import VectorMap
from rsupres.vector.osm import overpass
from rsupres.vector.osm.copies import download_date
from rsupres.vector.osm.overpass import bbox_area, download, footprint, wanted_tags

LEGEND = load_legend("classes")
GRID = Grid(CRS.from_epsg(32632), Affine(2, 0, 563200, 0, -2, 5393120), 100, 120)


@dataclass
class Server:
    """What the fake server shall do, and what it was asked."""

    url: str = ""
    refusals: list[tuple[int, str]] = field(default_factory=list)
    biggest: float = 1e9  # degrees; larger questions get 504
    queries: list[str] = field(default_factory=list)
    pauses: list[float] = field(default_factory=list)
    elements: list[dict[str, object]] = field(default_factory=list)


def building(number: int, lon: float, lat: float) -> list[dict[str, object]]:
    corners = [(0, 0), (0, 1), (1, 1), (1, 0)]
    nodes = [10 * number + i for i in range(4)]
    return [
        *(
            {"type": "node", "id": n, "lon": lon + 3e-4 * x, "lat": lat + 2e-4 * y}
            for n, (x, y) in zip(nodes, corners, strict=True)
        ),
        {
            "type": "way",
            "id": number,
            "nodes": [*nodes, nodes[0]],
            "tags": {"building": "yes", "Name": "a", "name": "b"},
        },
    ]


def handler_of(state: Server) -> type[BaseHTTPRequestHandler]:
    """Return what answers questions out of `state`, and notes them there."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            text = (
                "Connected as: 1\nCurrent time: x\nx\nRate limit: 2\n2 slots available"
            )
            self._answer(200, text.encode())

        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            query = parse_qs(self.rfile.read(length).decode())["data"][0]
            state.queries.append(query)
            outline = re.findall(r"poly:'([^']+)'", query)[0].split()
            lats, lons = np.array(outline, float).reshape(-1, 2).T
            if state.refusals:
                status, wait = state.refusals.pop(0)
                self._answer(status, b"busy", {"Retry-After": wait} if wait else {})
            elif max(np.ptp(lons), np.ptp(lats)) > state.biggest:
                self._answer(504, b"too much", {})
            else:
                self._answer(200, json.dumps({"elements": state.elements}).encode())

        def _answer(
            self, status: int, body: bytes, headers: dict[str, str] | None = None
        ) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            for key, value in (headers or {}).items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    return Handler


@pytest.fixture
def server(monkeypatch) -> Iterator[Server]:
    state = Server()
    http = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(state))
    thread = threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{http.server_address[1]}/api"
    state.elements = [
        *building(1, 9.8588, 48.6869),
        *building(2, 9.8600, 48.6865),
        {
            "type": "node",
            "id": 1,
            "lon": 9.859,
            "lat": 48.6869,
            "tags": {"natural": "spring"},
        },
    ]
    monkeypatch.setenv("RSUPRES_OVERPASS_URL", state.url)
    monkeypatch.setattr(overpass, "pause", state.pauses.append)
    yield state
    http.shutdown()
    http.server_close()
    thread.join()


def test_the_scenes_surroundings_are_downloaded_drawn_and_kept(server, tmp_path):
    with VectorMap.open(["overpass"], GRID, LEGEND, folder=tmp_path) as opened:
        assert opened.counts["building"] == 2
        assert (opened.burn(GRID.window) == 1).sum() > 100
        (path,) = opened.paths
        (record,) = opened.fingerprint()["files"]
    kept = json.loads(Path(path).with_suffix(".json").read_text())
    assert kept["sha256"] == record["sha256"]
    assert kept["sha256"][:8] in path
    assert kept["date"] == record["date"] == download_date(path)
    assert kept["source"] == server.url
    assert "OpenStreetMap contributors" in kept["attribution"]
    assert sorted(p.suffix for p in tmp_path.iterdir()) == [".gpkg", ".json"]
    assert len(server.queries) == 1
    assert "building" in server.queries[0]


def test_a_kept_copy_serves_again_without_a_network(server, tmp_path, monkeypatch):
    first = download(footprint(GRID), LEGEND, tmp_path)
    monkeypatch.setenv("RSUPRES_OVERPASS_URL", "http://127.0.0.1:9/api")
    assert download(footprint(GRID), LEGEND, tmp_path) == first
    smaller = footprint(GRID).buffer(-1e-4)
    assert download(smaller, LEGEND.only(("building",)), tmp_path) == first
    with pytest.raises(ConditionError, match="cannot be reached"):
        download(footprint(GRID).buffer(1e-3), LEGEND, tmp_path)
    other = tmp_path / "ruins.toml"
    other.write_text(
        'kind = "rgb"\n[[class]]\nkey = "ruin"\norder = 1\ncolour = "#ff0000"\n'
        'geometry = "area"\ntags = [{ historic = "ruins" }]\n'
    )
    with pytest.raises(ConditionError, match="cannot be reached"):
        download(footprint(GRID), load_legend(str(other)), tmp_path)


def test_a_copy_with_fewer_tags_or_changed_bytes_does_not_serve(server, tmp_path):
    from osmnx import settings

    before = {k: v for k, v in vars(settings).items() if k.islower()}
    few = download(footprint(GRID), LEGEND.only(("building",)), tmp_path)
    assert {k: v for k, v in vars(settings).items() if k.islower()} == before
    both = download(footprint(GRID), LEGEND, tmp_path)
    assert both.path != few.path
    with both.path.open("ab") as stream:
        stream.write(b"x")
    download(footprint(GRID), LEGEND, tmp_path)
    assert len(server.queries) == 3


def test_429_is_waited_for_as_long_as_the_server_says(server, tmp_path):
    server.refusals = [(429, "7"), (429, ""), (429, "9999")]
    download(footprint(GRID), LEGEND, tmp_path)
    assert server.pauses == [7.0, overpass.FIRST_PAUSE_S * 2, overpass.MAX_PAUSE_S]
    assert len(server.queries) == 4
    assert len({*server.queries}) == 1


def test_large_areas_are_split_and_features_on_a_seam_are_kept_once(server, tmp_path):
    import geopandas

    server.biggest = 0.3
    seam = 9.85895  # through the first building
    area = shapely.box(seam - 0.25, 48.6, seam + 0.25, 49.1)
    copy = download(area, LEGEND, tmp_path)
    assert len(server.queries) == 4
    assert len(geopandas.read_file(copy.path)) == 2


def test_504_splits_the_question(server, tmp_path):
    server.biggest = 0.15
    download(shapely.box(9.8, 48.6, 10.02, 48.82), LEGEND, tmp_path)
    assert len(server.queries) == 1 + 4
    assert len(server.pauses) == 1


def test_a_server_that_refuses_for_long_is_an_error_that_says_what_to_do(
    server, tmp_path
):
    server.refusals = [(429, "")] * 50
    with pytest.raises(ConditionError, match=r"stays busy.*offline"):
        download(footprint(GRID), LEGEND, tmp_path)
    assert len(server.queries) == overpass.ATTEMPTS
    assert not list(tmp_path.glob("osm_*"))


def test_an_unreachable_server_is_an_error_that_says_how_to_work_offline(
    monkeypatch, tmp_path
):
    monkeypatch.setenv("RSUPRES_OVERPASS_URL", "http://127.0.0.1:9/api")
    with pytest.raises(ConditionError, match=r"cannot be reached.*offline.*geofabrik"):
        VectorMap.open(["overpass"], GRID, LEGEND, folder=tmp_path)
    assert not list(tmp_path.iterdir())


def test_nothing_there_is_an_error(server, tmp_path):
    server.elements = []
    with pytest.raises(ConditionError, match="none of the legend's features"):
        download(footprint(GRID), LEGEND, tmp_path)


def test_the_question_names_few_values_and_asks_for_many_whole():
    query = wanted_tags(LEGEND)
    assert query["building"] is True
    assert query["landuse"] is True
    assert query["place"] == ["square"]
    assert wanted_tags(LEGEND.only(("railway",))) == {
        "railway": [
            *("funicular", "light_rail", "miniature", "monorail", "narrow_gauge"),
            *("preserved", "rail", "subway", "tram"),
        ]
    }


def test_a_box_is_cut_to_the_scene_and_refused_elsewhere():
    west, south, east, north = footprint(GRID).bounds
    area = bbox_area((west - 1, south - 1, (west + east) / 2, north + 1), GRID)
    assert area.bounds == pytest.approx((west, south, (west + east) / 2, north))
    with pytest.raises(ConditionError, match="does not touch the scene"):
        bbox_area((0, 0, 1, 1), GRID)
    with pytest.raises(ConditionError, match="rising"):
        bbox_area((2, 0, 1, 1), GRID)


def test_a_place_is_cut_to_the_scene(monkeypatch):
    import geopandas
    import osmnx
    import requests

    west, south, east, north = footprint(GRID).bounds
    place = shapely.box(west + (east - west) / 2, south - 1, east + 1, north + 1)
    monkeypatch.setattr(
        osmnx,
        "geocode_to_gdf",
        lambda name: geopandas.GeoDataFrame(geometry=[place], crs=4326),
    )
    area = overpass.place_area("Lautertal", GRID)
    assert area.bounds == pytest.approx(((west + east) / 2, south, east, north))
    place = shapely.box(0, 0, 1, 1)
    with pytest.raises(ConditionError, match=r"Lautertal.*does not touch"):
        overpass.place_area("Lautertal", GRID)

    def fail(name: str) -> None:
        raise requests.exceptions.ConnectionError("no route")

    monkeypatch.setattr(osmnx, "geocode_to_gdf", fail)
    with pytest.raises(ConditionError, match=r"cannot be reached.*offline"):
        overpass.place_area("Lautertal", GRID)
    monkeypatch.setattr(
        osmnx,
        "geocode_to_gdf",
        lambda name: (_ for _ in ()).throw(
            osmnx._errors.InsufficientResponseError("nothing")
        ),
    )
    with pytest.raises(ConditionError, match="no such place"):
        overpass.place_area("Lautertal", GRID)
