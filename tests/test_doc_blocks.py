"""Every command block of README.md and docs runs as it is written.

Each block runs in a folder of its own that holds what the pages speak of: the sample
data, and small scenes, chips and masks made of them. Blocks that upscale are slow;
blocks that cannot run here are listed with the reason.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
import shapely
from click.testing import CliRunner

from rsupres.cli import main
from tests.helpers import make_scene, write_image
from tests.test_docs import PAGES, ROOT

# What a block holds, and why it is not run here.
NOT_RUN = {
    "make install": "installs; `rsupres doctor` has tests of its own",
    "models import": "the authors' weights are not here; imports are tested",
    "sgdm-real": "the authors' weights are not here",
    "overpass": "downloads; downloads have tests of their own",
    "$RSUPRES_DATA": "images that are too large to commit",
    "S2A_MSIL2A": "a product of Sentinel-2; products have tests of their own",
    ".SAFE": "a product of Sentinel-2",
    "T32UNU": "a file of a product of Sentinel-2",
    "rsupres view": "serves pages until it is stopped",
    "rsupres train": "trains for minutes",
    "runs/my-model": "a model that the page trains",
    "--config night.toml": "job files have tests of their own",
    "--protocol": "a data set that is too large to commit",
    "/shared/": "folders and schedulers of a cluster",
    "--dask-local": "starts workers, which have tests of their own",
    "< item.json": "an item of a catalogue; items have tests of their own",
    "make lint": "checks the checkout itself",
}
# Blocks with these run for long: networks, or a whole chain that has tests of its own.
LONG = re.compile(r"rsupres (upscale|batch|evaluate \S+ .*--model|models verify)")
_OTHER_TOOLS = ("rio cogeo",)  # of libraries that rsupres does not need


def blocks() -> list[pytest.param]:
    """Return the command blocks of all pages."""
    found = []
    for page, text in PAGES.items():
        if page != "README.md" and not page.startswith("docs"):
            continue
        pattern = r"^( *)```bash\n(.*?)^ *```"
        for number, match in enumerate(re.finditer(pattern, text, re.S | re.M)):
            block = re.sub(rf"^{match[1]}", "", match[2], flags=re.M)
            joined = block.replace("\\\n", " ")
            marks = [pytest.mark.slow] if LONG.search(joined) else []
            name = f"{page} {number}"
            found.append(pytest.param(joined, id=name, marks=marks))
    return found


BLOCKS = blocks()


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the files that the pages speak of."""
    folder = tmp_path_factory.mktemp("material")
    sample = ROOT / "sample_data"
    (folder / "sample_data").symlink_to(sample)
    with rasterio.open(sample / "town_s2.tif") as town:
        pixels, profile, names = town.read(), town.profile, town.descriptions
    (folder / "scenes").mkdir()
    for name, side in (("scene", 32), ("scenes/one", 24), ("scenes/two", 24)):
        profile.update(height=side, width=side)
        with rasterio.open(folder / f"{name}.tif", "w", **profile) as scene:
            scene.write(pixels[:, :side, :side])
            scene.descriptions = names
    (folder / "chips").mkdir()
    with rasterio.open(sample / "town_aerial.tif") as aerial:
        sharp = aerial.read((1, 2, 3))
    for name in ("bath_2018_1", "bath_2020_1", "leeds_2018_1", "leeds_2020_1"):
        col = 256 * name.startswith("leeds")
        part, east = sharp[:, :256, col : col + 256], 5e5 + 5000 * bool(col)
        path = folder / "chips" / f"{name}.tif"
        write_image(path, part, gsd_m=2.5, origin=(east, 5e6))
    with rasterio.open(sample / "town_change.tif") as change:
        shape, crs, place, bounds = (
            change.shape,
            change.crs,
            change.transform,
            change.bounds,
        )
    for year, code in ((2020, 10), (2021, 50)):
        cover = np.full((1, *shape), 10, np.uint8)
        cover[:, :40, :40] = code
        make_scene(folder / f"cover_{year}.tif", pixels=cover, crs=crs, transform=place)
    west, south, east, north = bounds
    box = shapely.box(west, (south + north) / 2, (west + east) / 2, north)
    import geopandas

    houses = geopandas.GeoDataFrame({"class": ["building"]}, geometry=[box], crs=crs)
    houses.to_file(folder / "new_buildings.gpkg", engine="pyogrio")
    for name in ("town_x4", "town_bicubic_x4"):
        upscaled = [str(sample / "town_s2.tif"), str(folder / f"{name}.tif")]
        done = CliRunner().invoke(main, ["upscale", *upscaled, "--model", "bicubic"])
        assert done.exit_code == 0, done.output
    return folder


@pytest.mark.parametrize("block", BLOCKS)
def test_a_command_block_runs_as_written(
    block: str,
    material: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if any(text in block for text in NOT_RUN):
        return  # `test_what_is_not_run_is_in_a_page` keeps the list short
    for path in material.iterdir():
        if not re.search(rf"upscale .*\b{re.escape(path.name)}\b", block) or (
            path.name in ("sample_data", "scene.tif")
        ):
            (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    for line in block.splitlines():
        words = shlex.split(os.path.expandvars(line), comments=True)
        if words and not line.startswith(_OTHER_TOOLS):
            run(words)


def run(words: list[str]) -> None:
    """Run a command: ours in this process, others in one of their own."""
    if words[0] == "rsupres":
        arguments = [found for word in words[1:] for found in expanded(word)]
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 0, f"{shlex.join(words)}: {result.output}"
        return
    program = (
        [sys.executable] if words[0] == "python" else [f"{sys.prefix}/bin/{words[0]}"]
    )
    done = subprocess.run([*program, *words[1:]], capture_output=True, text=True)
    assert done.returncode == 0, f"{shlex.join(words)}: {done.stderr}"


def expanded(word: str) -> list[str]:
    """Return the files that a pattern means, as a shell does."""
    if "*" not in word:
        return [word]
    return sorted(str(path) for path in Path().glob(word)) or [word]


def test_what_is_not_run_is_in_a_page():
    texts = [str(block.values[0]) for block in BLOCKS]
    contributing = PAGES["CONTRIBUTING.md"]
    unused = [w for w in NOT_RUN if not any(w in t for t in [*texts, contributing])]
    assert unused == []
    assert len(texts) > 30
