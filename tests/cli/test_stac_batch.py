"""STAC collections, catalogs and folders of items as inputs of `rsupres batch`."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import rasterio
from click.testing import CliRunner, Result

from rsupres.cli import main
from rsupres.errors import InputError
from rsupres.products.catalogs import item_names
from tests.companions.test_companions import write_stac
from tests.helpers import make_scene
from tests.miniature_safe import Miniature

OPTIONS = ("--model", "bicubic", "--scale", "2", "-q")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The address of a server of the test's folder.

    A process of its own, because GDAL holds Python's lock while it waits for an answer.
    """
    words = ["-m", "http.server", "0", "--bind", "127.0.0.1", "--directory"]
    with subprocess.Popen(
        [sys.executable, "-u", *words, str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        found = re.search(r"\((http:.*)/\)", process.stdout.readline())
        assert found is not None
        yield found[1]
        process.kill()


def batch(folder: Path, *inputs: object, text: str | None = None) -> Result:
    words = ["batch", *map(str, inputs), "--out-dir", str(folder), *OPTIONS]
    return CliRunner().invoke(main, words, input=text)


def items(folder: Path, *names: str) -> list[dict[str, object]]:
    """Return items with ids, whose assets are named beside the document."""
    found: list[dict[str, object]] = []
    for name in names:
        make_scene(folder / "pixels" / f"{name}.tif", bands=1, dtype="uint16")
        asset = {
            "href": f"./pixels/{name}.tif",
            "roles": ["data"],
            "raster:bands": [{"scale": 1e-4, "offset": 0}],
        }
        found.append(
            {
                "type": "Feature",
                "stac_version": "1.0.0",
                "id": name,
                "geometry": None,
                "properties": {"datetime": "2023-07-12T10:16:01Z"},
                "links": [],
                "assets": {"red": asset},
            }
        )
    return found


def collection(*features: object, **links: str) -> str:
    listed = [{"rel": rel, "href": href} for rel, href in links.items()]
    return json.dumps(
        {"type": "FeatureCollection", "features": features, "links": listed}
    )


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A folder with two pages of a collection, and a catalog of item files."""
    (tmp_path / "pixels").mkdir()
    one, two, three = items(tmp_path, "A_v1.0", "A_v2.0", "B")
    (tmp_path / "items").write_text(collection(one, two, next="page2.json"))
    (tmp_path / "page2.json").write_text(collection(three, next="items"))
    catalog = {"type": "Catalog", "links": [{"rel": "child", "href": "c/c.json"}]}
    (tmp_path / "catalog.json").write_text(json.dumps(catalog))
    links = [{"rel": "item", "href": "../B.json"}]
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "c.json").write_text(
        json.dumps({"type": "Collection", "links": links})
    )
    (tmp_path / "B.json").write_text(json.dumps(three))
    return tmp_path


def test_all_pages_of_a_served_collection_are_scenes(store: Path, server: str) -> None:
    out = store / "out"
    for status in ("written", "existed"):
        done = batch(out, f"{server}/items")
        assert done.exit_code == 0, done.output
        assert done.stdout.count(status) == 3 + 1  # a line each, and the sum
    assert sorted(path.name for path in out.glob("*.tif")) == [
        "A_v1.0.tif",
        "A_v2.0.tif",
        "B.tif",
    ]
    with rasterio.open(out / "B.tif") as found:
        assert found.tags()["STAC_ID"] == "B"
        assert found.descriptions == ("B04",)


def test_files_catalogs_and_stdin_name_their_items(store: Path) -> None:
    assert item_names(str(store / "catalog.json")) == [str(store / "B.json")]
    page = (store / "page2.json").read_text().replace('"next"', '"last"')
    (store / "last.json").write_text(page)
    assert item_names(str(store / "last.json")) == [f"{store}/last.json#B"]
    out = store / "out"
    done = batch(out, "-", text=page.replace("./pixels", f"{store}/pixels"))
    assert done.exit_code == 0, done.output
    assert (out / "B.tif").exists()
    done = batch(store / "planned", "-", "--plan", text=page)
    assert not (store / "planned").exists()


def test_a_folder_of_items_holds_scenes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    product = Miniature().build(tmp_path)
    folder = tmp_path / "items"
    folder.mkdir()
    for name in ("one", "two"):
        write_stac(product, folder / f"{name}.json", offset=-0.1)
    (folder / "area.geojson").write_text('{"type": "FeatureCollection"}')
    done = batch(tmp_path / "out", folder)
    assert done.exit_code == 0, done.output
    assert f"passed over {folder / 'area.geojson'}." in caplog.text
    assert {path.name for path in (tmp_path / "out").glob("*.tif")} == {
        "one.tif",
        "two.tif",
    }


def test_items_beside_rasters_are_no_scenes(tmp_path: Path) -> None:
    """Such as those that `--stac` wrote beside outputs."""
    folder = tmp_path / "sharp"
    folder.mkdir()
    make_scene(folder / "a.tif")
    (folder / "pixels").mkdir()
    (folder / "a.json").write_text(json.dumps(items(folder, "a")[0]))
    done = batch(tmp_path / "out", folder)
    assert done.exit_code == 0, done.output
    assert "1 inputs: 1 written" in done.stdout


def test_a_collection_that_cannot_be_read_costs_one_scene(tmp_path: Path) -> None:
    make_scene(tmp_path / "a.tif")
    (tmp_path / "c.json").write_text(collection())
    done = batch(tmp_path / "out", tmp_path / "c.json", tmp_path / "a.tif")
    assert done.exit_code == 3
    assert "a collection without items" in done.output
    assert (tmp_path / "out" / "a.tif").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "no JSON"),
        ("[]", "no STAC item, collection or catalog"),
        ('{"type": "FeatureCollection", "features": [{}]}', "an item without an id"),
        (
            '{"type": "FeatureCollection", "links": [{"rel": "next", "href": "x", '
            '"method": "POST"}]}',
            "its next page needs a POST request",
        ),
    ],
)
def test_documents_that_name_no_items_are_refused(
    tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "c.json"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        item_names(str(path))
