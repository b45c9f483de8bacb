"""Places where nothing can be written are refused before the work, at every door."""

from __future__ import annotations

import os
from pathlib import Path

import geopandas
import numpy as np
import pytest
from click.testing import CliRunner, Result
from shapely.geometry import box

from rsupres.cli import main
from rsupres.output import atomic
from tests.helpers import UTM, make_scene

X2 = ("--scale", "2")
BICUBIC = ("--model", "bicubic", *X2)
BURN = ("rasterize", "m.gpkg")
ONTO = ("--like", "s.tif", *X2)
CHANGE = ("change", "before.tif", "after.tif")
CODES = ("--class-table", "worldcover")
MODELS = ("evaluate", "images", *BICUBIC)
# What is called; {} stands for the place.
DOORS = {
    "output": ("upscale", "s.tif", "{}/o.tif", *BICUBIC),
    "run": ("upscale", "s.tif", "o.tif", *BICUBIC, "--run-dir", "{}/r"),
    "rgb8": ("upscale", "s.tif", "o.tif", *BICUBIC, "--rgb8", "{}/r.png"),
    "report": ("upscale", "s.tif", "o.tif", *BICUBIC, "--report", "{}/r.html"),
    "uncertainty": ("upscale", "s.tif", "o.tif", *X2, "--uncertainty", "{}/u.tif"),
    "interval": ("upscale", "s.tif", "o.tif", *X2, "--interval", ".9", "{}/u", "v.tif"),
    "tile": ("tile", "s.tif", "{}/tiles", *X2),
    "mosaic": ("mosaic", "tiles", "{}/m.tif"),
    "run of a mosaic": ("mosaic", "tiles", "m.tif", "--run-dir", "{}/r"),
    "batch": ("batch", "s.tif", "--out-dir", "{}/b", *BICUBIC),
    "summary": ("batch", "s.tif", "--out-dir", "b", *BICUBIC, "--summary", "{}/s.csv"),
    "pages": ("batch", "s.tif", "--out-dir", "b", *BICUBIC, "--report", "{}/pages"),
    "rasterize": (*BURN, "{}/m.tif", *ONTO),
    "run of a map": (*BURN, "m.tif", *ONTO, "--run-dir", "{}/r"),
    "change": (*CHANGE, "{}/c.tif", *ONTO, *CODES),
    "pack": ("dataset", "build", "{}/p.safetensors", "--hr", "images"),
    "packs": ("dataset", "build", "{}/p", "--hr", "images", "--validation", "b"),
    "comparison": (*MODELS, "--html", "{}/e.html"),
    "pictures": (*MODELS, "--pictures", "{}/pictures"),
    "page": ("report", "s.tif", "{}/r.html"),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(1)
    pixels = rng.integers(500, 3000, (3, 32, 32)).astype(np.uint16)
    names = ("B04", "B03", "B02")
    for name in ("s.tif", "tiles/t.tif"):
        (folder / name).parent.mkdir(exist_ok=True)
        make_scene(folder / name, pixels=pixels, descriptions=names)
    os.utime(folder / "s.tif", (1000, 1000))
    (folder / "images").mkdir()
    for name in ("a", "b"):
        image = rng.integers(0, 255, (3, 128, 128)).astype(np.uint8)
        make_scene(folder / "images" / f"{name}.tif", pixels=image, photometric="RGB")
    codes = np.full((1, 32, 32), 10, np.uint8)
    make_scene(folder / "before.tif", pixels=codes)
    codes[:, 4:20, 4:20] = 50
    make_scene(folder / "after.tif", pixels=codes)
    shapes = [box(400000, 5199800, 400100, 5199900)]
    geopandas.GeoDataFrame({"landuse": ["forest"]}, geometry=shapes, crs=UTM).to_file(
        folder / "m.gpkg"
    )
    return folder


def _refused(folder: Path, place: str, door: str) -> Result:
    names = [part.replace("{}", place) for part in DOORS[door]]
    before = sorted(folder.iterdir())
    result = CliRunner().invoke(main, names)
    made = [path for path in sorted(folder.iterdir()) if path not in before]
    # Of a batch, the folder may be there already; no raster and no page may.
    assert not [path for path in made if path.is_file() or list(path.glob("*.tif"))]
    assert result.exit_code == 3, result.stderr
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: ")
    assert place in line
    return result


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="this system has no /proc")
@pytest.mark.parametrize("door", DOORS)
def test_nothing_is_written_into_proc(
    data: Path, monkeypatch: pytest.MonkeyPatch, door: str
) -> None:
    monkeypatch.chdir(data)
    _refused(data, "/proc", door)


@pytest.mark.parametrize("door", DOORS)
def test_a_read_only_disk_is_refused(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, door: str
) -> None:
    monkeypatch.chdir(data)
    read_only = _ReadOnly(tmp_path)
    monkeypatch.setattr(atomic.os, "statvfs", read_only.statvfs)
    _refused(data, str(tmp_path), door)
    assert not list(tmp_path.iterdir())


class _ReadOnly:
    """A folder that says that its disk is mounted for reading only."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._real = os.statvfs

    def statvfs(self, path: Path) -> os.statvfs_result:
        """Return what the disk of a folder says, with the flag set in this one."""
        found = list(self._real(path))
        if self._folder in (Path(path), *Path(path).parents):
            found[8] |= os.ST_RDONLY
        return os.statvfs_result(found)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="this system has no /proc")
@pytest.mark.parametrize("door", ["output", "run", "rgb8", "uncertainty"])
def test_a_plan_has_the_exit_code_of_the_work(
    data: Path, monkeypatch: pytest.MonkeyPatch, door: str
) -> None:
    monkeypatch.chdir(data)
    names = [part.replace("{}", "/proc") for part in DOORS[door][1:]]
    assert CliRunner().invoke(main, ["plan", *names]).exit_code == 3


@pytest.mark.parametrize(
    "door",
    [
        ("report", "s.tif", "page.tif"),
        ("upscale", "s.tif", "o.tif", *BICUBIC, "--report", "page.png"),
        (*MODELS, "--html", "page.tif"),
    ],
)
def test_a_page_is_named_as_one(
    data: Path, monkeypatch: pytest.MonkeyPatch, door: tuple[str, ...]
) -> None:
    monkeypatch.chdir(data)
    result = CliRunner().invoke(main, list(door))
    assert result.exit_code == 3
    assert "name it page.html" in result.stderr
    assert not list(data.glob("page.*"))


EXISTING = (
    *("upscale", "s.tif", "{}/o.tif", *BICUBIC, "--stac", "--qml"),
    *("--rgb8", "{}/r.png", "--report", "{}/r.html", "--skip-existing"),
)


def write_existing(words: list[str], folder: Path) -> dict[str, int]:
    """Run a command of `EXISTING`; return the time of each file that it wrote.

    The files are ten seconds apart, however coarse the file system's clock is.
    """
    assert CliRunner().invoke(main, words).exit_code == 0
    for k, name in enumerate(("o.tif", "r.png", "o.qml", "o.json", "r.html")):
        os.utime(folder / name, (2000 + 10 * k, 2000 + 10 * k))
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def test_what_is_finished_on_a_read_only_disk_is_left_as_it_is(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(data)
    words = [part.replace("{}", str(tmp_path)) for part in EXISTING]
    before = write_existing(words, tmp_path)
    assert len(before) == 5
    read_only = _ReadOnly(tmp_path)
    monkeypatch.setattr(atomic.os, "statvfs", read_only.statvfs)
    again = CliRunner().invoke(main, words)
    assert again.exit_code == 0, again.output
    assert "left as it is" in again.stdout
    planned = [*words[1:7], "--skip-existing"]
    assert CliRunner().invoke(main, ["plan", *planned]).exit_code == 0
    updated = CliRunner().invoke(main, [*words[:-1], "--update"])
    assert updated.exit_code == 0, updated.output
    # Another job would have to write, and is refused before its work.
    other = CliRunner().invoke(main, [*words[:-1], "--update", "--dtype", "float32"])
    assert other.exit_code == 3
    assert "is read-only" in other.stderr
    after = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert after == before


def test_companions_that_are_missing_or_older_are_made_beside_what_exists(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(data)
    words = [part.replace("{}", str(tmp_path)) for part in EXISTING]
    made = write_existing(words, tmp_path)
    (tmp_path / "o.qml").unlink()
    os.utime(tmp_path / "r.png", ns=(0, 0))
    assert CliRunner().invoke(main, words).exit_code == 0
    new = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    changed = {name for name in made if new[name] != made[name]}
    assert changed == {"o.qml", "r.png", "o.json"}  # the item names the picture
