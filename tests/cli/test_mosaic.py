"""A mosaic neither reads earlier ones nor is written among its tiles."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import rasterio
from affine import Affine

from tests.cli.commands import NAMES, contents, run
from tests.helpers import make_scene


def test_a_mosaic_is_not_written_among_its_tiles(
    lone_scene: Path, tmp_path: Path
) -> None:
    for output in (lone_scene, lone_scene.with_name("all.tif")):
        before = contents(tmp_path)
        assert run("mosaic", lone_scene.parent, output, "--overwrite").exit_code == 2
        assert contents(tmp_path) == before


def test_a_mosaic_does_not_read_an_earlier_one(
    lone_scene: Path, tmp_path: Path
) -> None:
    assert run("mosaic", lone_scene.parent, tmp_path / "all.tif").exit_code == 0
    moved = (tmp_path / "all.tif").rename(lone_scene.with_name("all.tif"))
    result = run("mosaic", lone_scene.parent, tmp_path / "again.tif", "--json")
    assert result.exit_code == 0, result.output
    assert '"tiles": 1' in result.stdout
    assert f"{moved}: is an earlier mosaic" in result.stderr


def _renamed(tiles: Path, mosaic: Path) -> None:
    for number, path in enumerate(sorted(tiles.glob("*.tif"))):
        path.rename(tiles / f"renamed_{number}.tif")
    mosaic.rename(tiles / "all.tif")


def _without_some(tiles: Path, mosaic: Path) -> None:
    first, *_, last = sorted(tiles.glob("*.tif"))
    first.unlink()
    last.unlink()
    mosaic.rename(tiles / "all.tif")


def _copied(tiles: Path, mosaic: Path) -> None:
    with rasterio.open(mosaic) as opened:
        profile = {**opened.profile, "driver": "GTiff"}
        with rasterio.open(tiles / "zz.tif", "w", **profile) as copy:
            copy.write(opened.read())
            copy.update_tags(**opened.tags())


# How an earlier mosaic comes among the tiles.
WAYS: dict[str, Callable[[Path, Path], object]] = {
    "moved": lambda tiles, mosaic: mosaic.rename(tiles / "all.tif"),
    "symlink": lambda tiles, mosaic: (tiles / "all.tif").symlink_to(mosaic),
    "hard link": lambda tiles, mosaic: (tiles / "0.tif").hardlink_to(mosaic),
    "copied by GDAL": _copied,
    "tiles renamed": _renamed,
    "first and last tile gone": _without_some,
}


@pytest.fixture(scope="module")
def loose(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the folder `loose` of tiles without an index, and their mosaic."""
    folder = tmp_path_factory.mktemp("mosaic")
    lone_scene = make_scene(folder / "scene.tif", 16, 16, descriptions=NAMES)
    sides = ("--tile-size", 8, "--overlap", 2, "--scale", 1)
    assert run("tile", lone_scene, folder / "tiles", *sides).exit_code == 0
    tiles = (folder / "tiles" / "lr").rename(folder / "loose")
    assert run("mosaic", tiles, folder / "all.tif").exit_code == 0
    return folder


@pytest.mark.parametrize("way", WAYS)
def test_a_mosaic_never_reads_its_own_output(
    loose: Path, tmp_path: Path, way: str
) -> None:
    folder = Path(shutil.copytree(loose / "loose", tmp_path / "loose"))
    n_tiles = len(list(folder.glob("*.tif")))
    assert n_tiles >= 8
    WAYS[way](folder, Path(shutil.copy(loose / "all.tif", tmp_path)))
    result = run("mosaic", folder, tmp_path / "again.tif", "--nodata", 0, "--json")
    assert result.exit_code == 0, result.output
    n_left = n_tiles - 2 * (way == "first and last tile gone")
    assert json.loads(result.stdout)["tiles"] == n_left
    assert "is an earlier mosaic" in result.stderr


def test_a_mosaic_of_other_tiles_is_a_tile(lone_scene: Path, tmp_path: Path) -> None:
    """Mosaics of two areas are blended into one, beside a file of a tile's name."""
    east = tmp_path / "east"
    east.mkdir()
    with rasterio.open(lone_scene) as opened:
        moved = opened.transform @ Affine.translation(8, 0)
    make_scene(east / "scene.tif", 16, 16, transform=moved, descriptions=NAMES)
    make_scene(east / "more.tif", 16, 16, transform=moved, descriptions=NAMES)
    both = tmp_path / "both"
    both.mkdir()
    assert run("mosaic", lone_scene.parent, both / "west.tif").exit_code == 0
    assert run("mosaic", east, both / "east.tif").exit_code == 0
    result = run("mosaic", both, tmp_path / "all.tif", "--json")
    assert json.loads(result.stdout)["tiles"] == 2


def test_tiles_do_not_replace_a_folder_that_holds_more(
    lone_scene: Path, tmp_path: Path
) -> None:
    tiles = tmp_path / "tiles"
    assert run("tile", lone_scene, tiles).exit_code == 0
    (tiles / "notes.txt").write_text("mine")
    result = run("tile", lone_scene, tiles, "--overwrite")
    assert result.exit_code == 5
    assert "notes.txt" in result.stderr
    (tiles / "notes.txt").unlink()
    part = next((tiles / "lr").iterdir())
    assert run("tile", part, tiles, "--overwrite").exit_code == 2
    assert part.exists()
    assert run("tile", lone_scene, tiles, "--overwrite").exit_code == 0


def test_a_run_knows_its_output_and_a_folder_of_tiles_does_not(
    lone_scene: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out.tif"
    job = (lone_scene, output, "--scale", "2", "--model", "bicubic", "--tile-size", "8")
    assert run("upscale", *job, "--shard", "1/3", "--overlap", "5").exit_code == 0
    result = run("mosaic", tmp_path / "out.tif.run")
    assert result.exit_code == 0, result.output
    assert output.exists()
    result = run("mosaic", lone_scene.parent)
    assert result.exit_code == 2
    assert "OUTPUT" in result.stderr
    assert "name a file" in result.stderr
