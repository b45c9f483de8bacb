"""`rsupres tile`: options, what is said, and the way back with `rsupres mosaic`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio

from rsupres.raster.stack import open_scenes
from rsupres.tiles.index import read_index
from rsupres.upscaling.preparation.scene import with_network
from tests.cli.commands import run
from tests.helpers import make_scene
from tests.miniature_safe import Miniature


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    return make_scene(tmp_path / "scene.tif", height=50, width=60, dtype="uint8")


def test_the_command_cuts_and_mosaic_puts_together(tmp_path, scene):
    tiles = tmp_path / "tiles"
    done = run("tile", scene, tiles, "--tile-size", 24, "--overlap", 8, "--json")
    assert done.exit_code == 0, done.output
    record = json.loads(done.stdout)
    assert (record["rows"], record["cols"], record["overlap"]) == (3, 4, 8)
    assert record["kinds"] == ["lr"]
    back = run("mosaic", tiles, tmp_path / "back.tif")
    assert back.exit_code == 0, back.output
    with rasterio.open(scene) as one, rasterio.open(tmp_path / "back.tif") as other:
        np.testing.assert_array_equal(one.read(), other.read())
        assert one.transform == other.transform
        assert not any(key.startswith("RSUPRES_TILE") for key in other.tags())
    assert run("tile", scene, tiles).exit_code == 5
    again = run("tile", scene, tiles, "--overwrite", "--halo", 3)
    assert again.exit_code == 0, again.output
    assert "1 x 1 tiles of 60 x 50 LR pixels, overlap 16" in again.stdout
    assert read_index(tiles / "tiles.gpkg").plan.halo == 3


def test_tiles_of_a_product_hold_the_bands_that_are_asked_for(tmp_path):
    product = Miniature().build(tmp_path)
    bands = ("--bands-out", "B04,B11,SCL", "--scale", 2)
    done = run("tile", product, tmp_path / "t", *bands, "--tile-size", 64)
    assert done.exit_code == 0, done.output
    back = run("mosaic", tmp_path / "t", tmp_path / "back.tif")
    assert back.exit_code == 0, back.output
    with open_scenes([str(product)], bands_out="B04,B11,SCL") as scene:
        scene = with_network(scene, "cpu")
        dn, valid = scene.read(scene.grid.window, scene.data_bands, joint=0)
    with rasterio.open(tmp_path / "back.tif") as found:
        assert found.descriptions == ("B04", "B11", "SCL")
        wanted = np.where(valid, dn, 0)
        np.testing.assert_allclose(found.read(), wanted, atol=1)
    refused = run("tile", tmp_path / "back.tif", tmp_path / "u", "--bands-out", "all")
    assert refused.exit_code == 3
    assert "chooses bands of products" in refused.output


def test_a_part_of_the_scene_by_bounds(tmp_path, scene):
    with rasterio.open(scene) as dataset:
        west, south, east, north = dataset.bounds
    bounds = (west + 100, south + 50, east - 100, north)
    done = run("tile", scene, tmp_path / "t", "--bounds", *bounds)
    assert done.exit_code == 0, done.output
    plan = read_index(tmp_path / "t" / "tiles.gpkg").plan
    assert (plan.scene.height, plan.scene.width) == (45, 40)
    done = run(
        *("tile", scene, tmp_path / "u", "--bounds", *bounds),
        *("--bounds-crs", "EPSG:4326"),
    )
    assert done.exit_code == 3


def test_conditions_and_their_options_reach_the_tiles(tmp_path, scene):
    codes = np.zeros((1, 200, 240), np.uint8)
    codes[0, 20:90, 30:80] = 3
    with rasterio.open(scene) as dataset:
        fine = dataset.transform @ rasterio.Affine.scale(0.25)
    make_scene(tmp_path / "change.tif", pixels=codes, transform=fine, nodata=255)
    pixels = np.random.default_rng(1).integers(1, 255, (3, 100, 240)).astype("uint8")
    make_scene(tmp_path / "ref.tif", pixels=pixels, transform=fine)
    command = (
        *("tile", scene, tmp_path / "t", "--scale", 4, "--reference"),
        *(tmp_path / "ref.tif", "--change-mask", tmp_path / "change.tif"),
    )
    done = run(*command, "--class-table", "second", "--json")
    assert done.exit_code == 0, done.output
    record = json.loads(done.stdout)
    assert record["shares"]["reference"] == pytest.approx(0.5, abs=0.02)
    with rasterio.open(tmp_path / "t" / "change" / "000_000.tif") as mask:
        assert mask.tags()["RSUPRES_CLASS_TABLE"] == "second"
    done = run(*command, "--overwrite", "--fill-reference", "--json")
    assert json.loads(done.stdout)["shares"]["reference"] == pytest.approx(1, abs=0.01)


def test_a_model_says_how_tiles_are_cut(tmp_path, scene):
    done = run("tile", scene, tmp_path / "t", "--model", "e2diffsr-small", "--json")
    assert done.exit_code == 0, done.output
    plan = read_index(tmp_path / "t" / "tiles.gpkg").plan
    assert plan.halo > 0
    assert run("tile", scene, tmp_path / "u", "--model", "none-such").exit_code == 4


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--legend", "maptiler"), "--legend needs a vector map. See --vector-map"),
        (("--coregister",), "--coregister needs a reference image. See --reference"),
        (("--change-mask", "detect"), "--change-mask detect needs a reference"),
        (("--bounds-crs", "EPSG:4326"), "needs --bounds"),
    ],
)
def test_options_without_company_are_wrong_usage(tmp_path, scene, options, text):
    done = run("tile", scene, tmp_path / "t", *options)
    assert done.exit_code == 2
    assert text in done.stderr
    assert not (tmp_path / "t").exists()


def test_a_condition_of_another_place_leaves_nothing(tmp_path, scene):
    far = rasterio.Affine(10, 0, 900_000, 0, -10, 5_900_000)
    make_scene(tmp_path / "far.tif", transform=far)
    done = run("tile", scene, tmp_path / "t", "--reference", tmp_path / "far.tif")
    assert done.exit_code == 3
    assert "do not touch" in done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"scene.tif", "far.tif"}


@pytest.mark.parametrize("name", ["tiles/lr/*.tif", "rows/0001.json"])
def test_a_tile_that_was_damaged_before_the_end_is_cut_again(
    tmp_path: Path, scene: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    arguments = ("--tile-size", 24, "--overlap", 8)
    assert run("tile", scene, tmp_path / "whole", *arguments).exit_code == 0
    with monkeypatch.context() as patch:
        patch.delattr("rsupres.tiles.cut._publish")
        assert run("tile", scene, tmp_path / "tiles", *arguments).exit_code == 1
    file = sorted((tmp_path / "tiles.run").glob(name))[0]
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    done = run("tile", scene, tmp_path / "tiles", *arguments)
    assert done.exit_code == 0, done.output
    assert "this row of tiles is damaged" in done.stderr
    for tile in (tmp_path / "whole/lr").iterdir():
        assert (tmp_path / "tiles/lr" / tile.name).read_bytes() == tile.read_bytes()
