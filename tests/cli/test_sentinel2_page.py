"""The commands of docs/how-to/sentinel2.md run as they stand, on a small product."""

from __future__ import annotations

import glob
import json
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import rasterio
from click.testing import CliRunner, Result

from rsupres.cli import main
from rsupres.products.sentinel2 import ALL_TEN
from tests.companions.test_companions import write_stac
from tests.forkserver import Commands
from tests.miniature_safe import Miniature

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/how-to/sentinel2.md").read_text(encoding="utf-8")


def commands() -> Iterator[str]:
    """Yield the commands of the page, each on one line."""
    for block in re.findall(r"```bash\n(.*?)```", PAGE, flags=re.DOTALL):
        yield from block.replace("\\\n", " ").strip().splitlines()


def run(command: str) -> Result:
    """Run a command as a shell would: patterns of names and one input file."""
    program, *words = shlex.split(command)
    text = b""
    if "<" in words:
        text = Path(words.pop()).read_bytes()
        words.pop()
    found = [
        name
        for word in words
        for name in (sorted(glob.glob(word)) if "*" in word else [word])
    ]
    if program == "rio":
        from rasterio.rio.main import main_group as rio

        return CliRunner().invoke(rio, found, input=text)
    return CliRunner().invoke(main, found, input=text)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, _server: Commands) -> Path:
    """Return a folder with what the page speaks of, in which its commands ran."""
    folder = tmp_path_factory.mktemp("page")
    product = Miniature().build(folder)
    band = next(product.rglob("*_B04_10m.jp2"))
    shutil.copy(band, folder / band.name)
    write_stac(product, folder / "item.json", offset=-0.1)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for command in commands():
            if command.startswith("rsupres plan"):  # which may leave a thread behind
                words = shlex.split(command)[1:]
                assert _server.run(*words, folder=folder).code == 0
                continue
            result = run(command)
            assert result.exit_code == 0, f"{command}\n{result.output}"
    return folder


@pytest.mark.slow
def test_ten_sharp_bands_with_mask_item_picture_and_style(work: Path) -> None:
    with rasterio.open(work / "x4.tif") as sharp:
        assert sharp.descriptions == ALL_TEN
        assert sharp.res == (2.5, 2.5)
        assert sharp.offsets == pytest.approx((-0.1,) * 10)
        assert sharp.tags()["RSUPRES_MODEL"] == "optical-small"
        assert (sharp.read(1) == 0).any()
    item = json.loads((work / "x4.json").read_text())
    assert item["properties"]["mlm:name"] == "optical-small"
    assert (work / "x4_rgb.png").exists()
    assert (work / "x4.qml").exists()


@pytest.mark.slow
def test_files_of_two_pixel_sizes(work: Path) -> None:
    with rasterio.open(work / "bands_x2.tif") as joined:
        assert joined.descriptions == ("B02", "B03", "B04", "B11")
        assert joined.shape == (192, 192)


def test_clouds_are_kept_by_interpolation(work: Path) -> None:
    with rasterio.open(work / "clouds_x2.tif") as kept:
        cloud = kept.read(5) == 9
        assert cloud.any()
        assert (kept.read(1)[cloud] > 0).all()


def test_numbers_that_the_user_tells(work: Path) -> None:
    with rasterio.open(work / "b04_x2.tif") as told:
        np.testing.assert_allclose(told.offsets, [-0.1])


def test_an_item_on_stdin_is_kept(work: Path) -> None:
    assert (work / "item_x2.tif.item.json").read_text() == (
        work / "item.json"
    ).read_text()
    item = json.loads((work / "item_x2.json").read_text())
    links = {link["rel"]: link["href"] for link in item["links"]}
    assert links["derived_from"] == "https://x.org/items/s2"
