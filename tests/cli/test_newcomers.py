"""First tries after reading only the README: products, masks, devices."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import rasterio
from click.testing import CliRunner, Result

from rsupres.cli import main
from tests.helpers import make_scene
from tests.miniature_safe import Miniature, write_jp2

PLAIN = "--model bicubic --scale 2"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with two products, with all that real ones have of 10 m."""
    folder = tmp_path_factory.mktemp("first_day")
    for miniature in (Miniature(), Miniature("L1C", "03.01", None)):
        product = miniature.build(folder)
        product.rename(folder / f"{miniature.level}.SAFE")
    images = next((folder / "L2A.SAFE").rglob("R10m"))
    with rasterio.open(next(images.glob("*_B04_*"))) as dataset:
        red = dataset.read()
    picture = np.clip(red // 40, 1, 255).astype(np.uint8).repeat(3, axis=0)
    for name, pixels in (("TCI", picture), ("AOT", red // 20), ("WVP", red // 10)):
        write_jp2(images / f"T32UNU_20230712T101601_{name}_10m.jp2", pixels, 10)
    make_scene(folder / "scene.tif")
    (folder / "notes.txt").write_text("no raster")
    return folder


@pytest.fixture(autouse=True)
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(folder)
    yield
    for path in folder.glob("*.tif"):
        if path.name != "scene.tif":
            path.unlink()


def run(words: str) -> Result:
    found = [
        str(path)
        for word in shlex.split(words)
        for path in (sorted(Path().glob(word)) if "*" in word else [word])
    ]
    return CliRunner().invoke(main, found)


@pytest.mark.parametrize("name", ["manifest.safe", "GRANULE/*/MTD_TL.xml"])
@pytest.mark.parametrize("level", ["L1C", "L2A"])
def test_files_that_describe_a_product_open_it(level: str, name: str) -> None:
    assert run(f"upscale {level}.SAFE/{name} a.tif {PLAIN}").exit_code == 0
    assert run(f"upscale {level}.SAFE b.tif {PLAIN}").exit_code == 0
    with rasterio.open("a.tif") as one, rasterio.open("b.tif") as other:
        assert one.descriptions == ("B04", "B03", "B02", "B08")
        assert (one.offsets, one.scales) == (other.offsets, other.scales)
        np.testing.assert_array_equal(one.read(), other.read())


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        # a folder inside of a product
        ("L2A.SAFE/GRANULE/*/IMG_DATA/R10m a.tif", 3, "L2A.SAFE, or a file in it"),
        ("L2A.SAFE/GRANULE a.tif", 3, "the product around it"),
        # all files of 10 m, a picture and two other layers among them
        ("L2A.SAFE/GRANULE/*/IMG_DATA/R10m/*.jp2 a.tif", 3, "TCI_10m.jp2 has 3 bands"),
        ("L1C.SAFE L2A.SAFE a.tif", 3, "L1C.SAFE has 4 bands on the ground of L2A"),
        # masks
        ("L2A.SAFE a.tif --mask cloud", 3, "--mask cloud: no such file; give scl"),
        ("L2A.SAFE a.tif --mask gone.geojson", 3, "--mask gone.geojson: no such file"),
        ("L2A.SAFE a.tif --mask L1C.SAFE", 3, "--mask L1C.SAFE: no such file; give"),
        ("L2A.SAFE a.tif --mask-action keep-bicubic", 3, "--mask-action needs a mask"),
        (
            "scene.tif a.tif --mask scene.tif --mask-classes clouds",
            3,
            "--mask-classes clouds: scene.tif tells no such class; its numbers have no",
        ),
        ("scene.tif a.tif --mask scene.tif", 3, "if nodata value and mask are right"),
        (
            "scene.tif a.tif --mask scene.tif --stretch 0,99",
            3,
            "is the mask scene.tif right?",
        ),
        (
            "L1C.SAFE a.tif --mask qa60 --mask-classes clouds,snow",
            3,
            "tells no such class; it has clouds, cirrus",
        ),
        ("L1C.SAFE a.tif --mask qa60 --mask-classes 1", 3, "1: L1C.SAFE/GRANULE"),
        ("L1C.SAFE a.tif --mask qa60 --mask-classes clouds,saturated", 0, "written"),
        ("L2A.SAFE a.tif --mask scl --mask-classes 8,clouds,nodata", 0, "written"),
        # an area
        ("L2A.SAFE a.tif --aoi gone.gpkg", 3, "gone.gpkg: no such file."),
        # devices that are not there
        ("scene.tif a.tif --device cpu,cuda:7", 6, "--device cuda:7: this machine has"),
    ],
)
def test_what_cannot_be_done_is_told_with_what_can(
    words: str, code: int, said: str
) -> None:
    result = run(f"upscale {words} {PLAIN}")
    assert result.exit_code == code, result.output
    assert said in result.output
    assert not list(Path().glob("*.run"))


def test_polygons_have_no_classes(folder: Path) -> None:
    import geopandas
    from shapely import box

    with rasterio.open("scene.tif") as dataset:
        place, crs = box(*dataset.bounds).buffer(-50), dataset.crs
    geopandas.GeoSeries([place], crs=crs).to_file("own.geojson")
    refused = run(
        f"upscale scene.tif a.tif --mask own.geojson --mask-classes 1 {PLAIN}"
    )
    assert refused.exit_code == 3
    assert "all of its polygons hide what they cover" in refused.output
    assert run(f"upscale scene.tif a.tif --mask own.geojson {PLAIN}").exit_code == 0


@pytest.mark.parametrize("command", ["upscale", "plan"])
def test_a_scene_in_the_place_of_the_output_is_noticed(command: str) -> None:
    result = run(f"{command} L1C.SAFE scene.tif {PLAIN}")
    assert result.exit_code == 5
    assert (
        "scene.tif exists and is no output of a run; is a name missing?"
        in result.output
    )
    assert run(f"upscale L1C.SAFE a.tif {PLAIN}").exit_code == 0
    again = run(f"upscale L1C.SAFE a.tif {PLAIN}")
    assert "a.tif exists. See --overwrite" in again.output


def test_devices_are_looked_for_before_a_batch_begins(folder: Path) -> None:
    result = run(f"batch scene.tif --out-dir out --device cpu,cuda:7 {PLAIN}")
    assert result.exit_code == 6
    assert not (folder / "out").exists()
