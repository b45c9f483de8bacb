"""`rsupres rasterize` as a user calls it."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import rasterio
from click.testing import CliRunner, Result

from rsupres.cli import main
from rsupres.grid import Grid
from rsupres.legends.legend_file import load_legend
from rsupres.output import scene_grid
from rsupres.vector import rasterize as rasterizing
from rsupres.vector.map import VectorMap
from rsupres.vector.osm import overpass
from tests.helpers import make_scene
from tests.vector.osm.test_overpass import Server, server  # noqa: F401  # a fixture

SAMPLE = Path(__file__).parents[2] / "sample_data"
TOWN, SCENE = str(SAMPLE / "town.osm"), str(SAMPLE / "town_s2.tif")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["rasterize", *map(str, arguments)])


def wanted(scale: str, legend: str, *layers: str, soft: bool = False) -> np.ndarray:
    """Return the picture as the library draws it in one go."""
    with rasterio.open(SCENE) as scene:
        grid = Grid(scene.crs, scene.transform, scene.height, scene.width)
    grid = grid.refine(Fraction(scale))
    chosen = load_legend(legend)
    with VectorMap.open(
        [TOWN], grid, chosen.antialiased() if soft else chosen, layers or None
    ) as opened:
        return opened.burn(grid.window)


def test_classes_on_the_scenes_grid(tmp_path):
    out = tmp_path / "classes.tif"
    result = run(TOWN, out, "--like", SCENE, "--scale", "8")
    assert result.exit_code == 0, result.output
    assert "legend classes" in result.stdout
    assert "building               359" in result.stdout
    with rasterio.open(out) as raster, rasterio.open(SCENE) as scene:
        assert raster.crs == scene.crs
        assert raster.transform == scene.transform @ rasterio.Affine.scale(1 / 8)
        assert raster.shape == (768, 768)
        assert raster.dtypes == ("uint8",)
        assert raster.nodata is None
        assert raster.colorinterp[0].name == "palette"
        assert raster.colormap(1)[3][:3] == (0x6F, 0xA8, 0xD6)
        assert raster.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert raster.block_shapes == [(512, 512)]
        tags = raster.tags()
        found = raster.read()
        small = raster.read(1, out_shape=(192, 192))
    assert np.array_equal(found, wanted("8", "classes"))
    assert json.loads(tags["RSUPRES_CLASSES"])["1"] == "building"
    assert json.loads(tags["RSUPRES_VECTOR_MAP"])[0]["name"] == "town.osm"
    assert set(np.unique(small)) <= set(np.unique(found))  # no mean of classes
    assert [p.name for p in tmp_path.iterdir()] == ["classes.tif"]


@pytest.mark.slow
def test_rgb_by_strips_is_the_same_picture(tmp_path, monkeypatch):
    monkeypatch.setattr(scene_grid, "STRIP_VALUES", 384 * 3 * 50)
    out = tmp_path / "map.tif"
    result = run(
        *(TOWN, out, "--like", SCENE, "--scale", "4", "--legend", "maptiler"),
        *("--antialias", "--driver", "GTiff", "--co", "COMPRESS=LZW"),
    )
    assert result.exit_code == 0, result.output
    with rasterio.open(out) as raster:
        assert [c.name for c in raster.colorinterp] == ["red", "green", "blue"]
        assert raster.compression.name == "lzw"
        assert "LAYOUT" not in raster.tags(ns="IMAGE_STRUCTURE")
        found = raster.read()
    assert np.array_equal(found, wanted("4", "maptiler", soft=True))
    assert not np.array_equal(found, wanted("4", "maptiler"))


@pytest.mark.slow
def test_fractional_scales_and_layers(tmp_path):
    out = tmp_path / "map.tif"
    result = run(
        *(TOWN, out, "--like", SCENE, "--scale", "10/3", "--layers", "building,water"),
        "--json",
    )
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    assert (record["height"], record["width"]) == (320, 320)
    assert set(record["features"]) == {"building", "water"}
    assert record["ignored"] > 50
    with rasterio.open(out) as raster:
        found = raster.read()
    assert np.array_equal(found, wanted("10/3", "classes", "building", "water"))
    assert set(np.unique(found)) == {0, 1, 3}


def test_an_interrupted_run_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(scene_grid, "STRIP_VALUES", 384 * 50)
    out, run_dir = tmp_path / "map.tif", tmp_path / "elsewhere"
    arguments = (TOWN, out, "--like", SCENE, "--scale", "4", "--run-dir", run_dir)
    original, done = VectorMap.burn, []

    def burn(self, window):
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(window)
        return original(self, window)

    monkeypatch.setattr(VectorMap, "burn", burn)
    assert run(*arguments).exit_code == 130
    assert not out.exists()
    assert len(list(run_dir.rglob("*.tif"))) == 3
    monkeypatch.setattr(
        VectorMap, "burn", lambda self, w: done.append(w) or original(self, w)
    )
    assert run(*arguments, "--keep-run").exit_code == 0
    assert len(done) == len(set(done)) == 8  # no strip twice
    assert run_dir.exists()
    with rasterio.open(out) as raster:
        assert np.array_equal(raster.read(), wanted("4", "classes"))
    elsewhere = (TOWN, tmp_path / "b.tif", *arguments[2:], "--layers", "road")
    other = run(*elsewhere)
    assert other.exit_code == 5
    assert "elsewhere" in other.stderr
    assert run(*elsewhere, "--restart").exit_code == 0


def test_nothing_is_overwritten_unasked(tmp_path):
    out = tmp_path / "map.tif"
    out.write_text("mine")
    result = run(TOWN, out, "--like", SCENE)
    assert result.exit_code == 5
    assert out.read_text() == "mine"
    assert run(TOWN, out, "--like", SCENE, "--overwrite").exit_code == 0
    with rasterio.open(out) as raster:
        assert raster.shape == (384, 384)


def refused(code: int, *arguments: object) -> str:
    result = run(*arguments)
    assert result.exit_code == code, result.output
    lines = [x for x in result.stderr.splitlines() if x.startswith("Error")]
    assert len(lines) == 1, result.stderr
    return lines[0]


def test_bad_input_is_one_line_and_leaves_nothing(tmp_path):
    out = tmp_path / "map.tif"
    like = ("--like", SCENE)
    far = make_scene(tmp_path / "far.tif")
    legend = tmp_path / "own.toml"
    legend.write_text('kind = "rgb"\n[[class]]\nkey = 3\n')
    broken = tmp_path / "broken.osm.pbf"
    broken.write_bytes(b"\x00\x00\x00\x0dnothing of the kind")
    assert "no such file" in refused(3, tmp_path / "no.osm", out, *like)
    assert "broken.osm.pbf" in refused(3, broken, out, *like)
    message = refused(3, TOWN, out, "--like", far)
    assert "does not touch the scene" in message
    assert "EPSG:32633" in message
    assert "own.toml, line 2" in refused(3, TOWN, out, *like, "--legend", legend)
    assert "no such layer" in refused(3, TOWN, out, *like, "--layers", "houses")
    assert "--antialias cannot blend" in refused(3, TOWN, out, *like, "--antialias")
    assert "--co" in refused(3, TOWN, out, *like, "--co", "NONSENSE=1")
    assert "no folder" in refused(3, TOWN, tmp_path / "no" / "map.tif", *like)
    assert "MAP" in refused(2, out, *like)
    assert "Missing argument 'OUT'" in refused(2, TOWN, *like)
    assert "exclude" in refused(2, out, *like, "--place", "x", "--bounds", 1, 2, 3, 4)
    assert "rising" in refused(3, out, *like, "--bounds", 3, 2, 1, 4)
    refused(2, TOWN, out)
    kept = {"far.tif", "own.toml", "broken.osm.pbf"}
    assert {path.name for path in tmp_path.iterdir()} == kept


def test_warnings_reach_the_user(tmp_path):
    with rasterio.open(SCENE) as scene:
        west = scene.transform @ rasterio.Affine.translation(-300, 0)
        wide = make_scene(tmp_path / "wide.tif", 96, 396, crs=scene.crs, transform=west)
    result = run(TOWN, tmp_path / "map.tif", "--like", wide, "--scale", "1")
    assert result.exit_code == 0
    assert "Warning" in result.stderr
    assert "of the scene; the rest has no map" in result.stderr


@pytest.mark.slow
def test_openstreetmap_live_keeps_a_copy_beside_the_output(server: Server, tmp_path):  # noqa: F811
    out = tmp_path / "map.tif"
    result = run("overpass", out, "--like", SCENE, "--scale", "2")
    assert result.exit_code == 0, result.output
    assert len(list(tmp_path.glob("osm_*.gpkg"))) == 1
    with rasterio.open(out) as raster:
        assert (raster.read() == 1).sum() > 10
        (source,) = json.loads(raster.tags()["RSUPRES_VECTOR_MAP"])
    assert source["date"].startswith("20")
    asked = len(server.queries)
    again = run("overpass", out, "--like", SCENE, "--scale", "2", "--overwrite")
    assert again.exit_code == 0
    assert len(server.queries) == asked
    assert "OpenStreetMap of 20" in again.stderr


def test_a_box_or_a_place_is_downloaded(server: Server, tmp_path, monkeypatch):  # noqa: F811
    out = tmp_path / "map.tif"
    box = (9.858, 48.6865, 9.8595, 48.6875)
    result = run(out, "--like", SCENE, "--scale", "2", "--bounds", *box)
    assert result.exit_code == 0, result.output
    asked = server.queries[-1]
    assert "9.858" in asked
    assert "9.8595" in asked
    monkeypatch.setattr(
        rasterizing, "place_area", lambda name, grid: overpass.bbox_area(box, grid)
    )
    result = run(out, "--like", SCENE, "--place", "Lautertal", "--overwrite")
    assert result.exit_code == 0, result.output


def test_offline_is_told_with_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("RSUPRES_OVERPASS_URL", "http://127.0.0.1:9/api")
    message = refused(3, "overpass", tmp_path / "map.tif", "--like", SCENE)
    assert "offline" in message
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", ["osm", "txt"])
def test_a_list_of_maps_may_be_in_a_file(tmp_path, suffix):
    names = tmp_path / f"maps.{suffix}"
    names.write_text(f"{TOWN}\n")
    result = run(f"@{names}", tmp_path / "map.tif", "--like", SCENE, "-q")
    assert result.exit_code == 0
    assert result.stderr == ""
