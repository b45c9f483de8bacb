"""Files beside an output: STAC item, picture in true colours, style for QGIS."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pystac
import pytest
import rasterio
from affine import Affine
from PIL import Image
from pystac.extensions.mlm import MLMExtension
from pystac.extensions.projection import ProjectionExtension
from pystac.extensions.raster import RasterExtension
from pystac.stac_object import STACObjectType
from pystac.validation.stac_validator import JsonSchemaSTACValidator
from rasterio.crs import CRS

import rsupres
from rsupres.companions.stac_item import footprint
from rsupres.errors import BandError, InputError, QualityGateError, RunConflictError
from rsupres.grid import Grid
from rsupres.products.sentinel2 import ALL_TEN
from tests.helpers import make_scene
from tests.miniature_safe import Miniature


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Miniature().build(tmp_path_factory.mktemp("product"))


def upscale(scene: Path, output: Path, **options: object) -> None:
    given = {"scale": 2, "model": "bicubic", **options}
    rsupres.upscale(scene, output, **given)  # type: ignore[arg-type]


def read_item(path: Path) -> pystac.Item:
    """Return an item that is valid by the schema of STAC, which pystac holds."""
    document = json.loads(path.read_text())
    JsonSchemaSTACValidator().validate_core(document, STACObjectType.ITEM, "1.1.0")
    return pystac.Item.from_dict(document, href=str(path))


def test_the_item_of_a_product(product: Path, tmp_path: Path) -> None:
    output, picture = tmp_path / "x2.tif", tmp_path / "x2.png"
    upscale(product, output, bands_out="all", stac=True, rgb8=picture)
    item = read_item(tmp_path / "x2.json")
    assert item.id == "x2"
    assert str(item.datetime) == "2023-07-12 10:16:01.024000+00:00"
    assert item.properties["platform"] == "sentinel-2a"
    assert item.properties["gsd"] == 5
    data = item.assets["data"]
    assert data.get_absolute_href() == str(output)
    assert item.assets["visual"].href == "./x2.png"
    projection = ProjectionExtension.ext(item)
    assert (projection.code, projection.shape) == ("EPSG:32632", [192, 192])
    assert projection.transform is not None
    assert projection.transform[:6] == [5, 0, 563200, 0, -5, 5393120]
    bands = RasterExtension.ext(data).bands
    assert bands is not None
    assert len(bands) == 10
    assert bands[0].scale == pytest.approx(1e-4)
    assert bands[0].nodata == 0
    assert bands[0].offset == pytest.approx(-0.1)
    assert [band["name"] for band in data.extra_fields["bands"]] == list(ALL_TEN)
    assert item.properties["processing:software"]["rsupres"] == rsupres.__version__
    assert item.get_single_link("derived_from").target == str(product)  # type: ignore[union-attr]
    assert item.bbox is not None
    west, south, east, north = item.bbox
    assert west < 9.87 < east
    assert south < 48.68 < north


def test_the_item_names_model_weights_and_licence(
    product: Path, tmp_path: Path
) -> None:
    output = tmp_path / "a.tif"
    upscale(
        product,
        output,
        model="slimdiffsr-mini",
        scale=4,
        stac=True,
        bounds=(563300, 5392800, 563500, 5393000),
        other_bands="skip",
    )
    item = read_item(tmp_path / "a.json")
    assert MLMExtension.has_extension(item)
    assert item.properties["mlm:name"] == "slimdiffsr-mini"
    assert item.properties["mlm:architecture"] == "slimdiffsr"
    weights = item.assets["model"]
    assert weights.roles == ["mlm:model"]
    assert weights.extra_fields["license"] == "Apache-2.0"
    with rasterio.open(output) as dataset:
        sha256 = dataset.tags()["RSUPRES_MODEL_SHA256"]
    assert weights.extra_fields["file:checksum"] == "1220" + sha256


def test_an_item_is_derived_from_the_item_of_its_input(
    product: Path, tmp_path: Path
) -> None:
    source = write_stac(product, tmp_path / "source.json", offset=-0.1)
    upscale(source, tmp_path / "a.tif", stac=True)
    item = read_item(tmp_path / "a.json")
    assert item.get_single_link("derived_from").target == "https://x.org/items/s2"  # type: ignore[union-attr]
    assert item.properties["constellation"] == "sentinel-2"


def write_stac(product: Path, path: Path, **band: object) -> Path:
    """Write an item of a product's bands by common names; return its path."""
    assets: dict[str, dict[str, object]] = {}
    for name, code in (("red", "B04_10m"), ("green", "B03_10m"), ("blue", "B02_10m")):
        assets[name] = {
            "href": str(next(product.rglob(f"*_{code}.jp2"))),
            "roles": ["data"],
            "raster:bands": [{"nodata": 0, "scale": 1e-4, **band}],
        }
    assets["rededge1"] = {**assets["red"], "href": find(product, "B05_20m"), "gsd": 20}
    assets["scl"] = {"href": find(product, "SCL_20m"), "roles": ["data"]}
    item = {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": path.stem,
        "geometry": None,
        "properties": {
            "datetime": "2023-07-12T10:16:01Z",
            "constellation": "sentinel-2",
            "earthsearch:boa_offset_applied": band.get("offset") == -0.2,
        },
        "links": [{"rel": "self", "href": "https://x.org/items/s2"}],
        "assets": assets,
    }
    path.write_text(json.dumps(item))
    return path


def find(product: Path, name: str) -> str:
    return str(next(product.rglob(f"*_{name}.jp2")))


@pytest.mark.parametrize(("offset", "wanted"), [(-0.1, -0.1), (-0.2, 0.0)])
def test_items_are_scenes(
    product: Path, tmp_path: Path, offset: float, wanted: float
) -> None:
    item = write_stac(product, tmp_path / "source.json", offset=offset)
    upscale(item, tmp_path / "a.tif", bands_out="B04,B05,SCL", mask="scl")
    with rasterio.open(tmp_path / "a.tif") as dataset:
        assert dataset.descriptions == ("B04", "B05", "SCL")
        assert dataset.offsets[:2] == pytest.approx((wanted, wanted))
        assert dataset.nodata == 0


def test_one_item_of_a_collection_is_named(product: Path, tmp_path: Path) -> None:
    items = [
        json.loads(write_stac(product, tmp_path / f"{name}.json").read_text())
        for name in ("one", "two")
    ]
    path = tmp_path / "both.json"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    with pytest.raises(InputError, match=r"2 items where one is wanted.*one, two"):
        upscale(path, tmp_path / "a.tif")
    rsupres.upscale(f"{path}#two", tmp_path / "a.tif", scale=2, model="bicubic")
    with rasterio.open(tmp_path / "a.tif") as dataset:
        assert dataset.tags()["STAC_ID"] == "two"


def test_a_footprint_across_the_antimeridian_is_cut() -> None:
    frame = Affine(100, 0, 580000, 0, -100, 7400040)  # zone 60, on both sides
    grid = Grid(CRS.from_epsg(32660), frame, 1098, 1098)
    geometry, (west, south, east, north) = footprint(grid)
    assert geometry["type"] == "MultiPolygon"
    assert west > 178 > 0 > -177 > east
    assert 65 < south < north < 67


def test_the_picture_is_a_cog_with_statistics(product: Path, tmp_path: Path) -> None:
    upscale(product, tmp_path / "a.tif", rgb8=tmp_path / "rgb.tif", mask="scl")
    with (
        rasterio.open(tmp_path / "a.tif") as full,
        rasterio.open(tmp_path / "rgb.tif") as dataset,
    ):
        assert dataset.dtypes == ("uint8",) * 3
        assert [color.name for color in dataset.colorinterp] == ["red", "green", "blue"]
        assert dataset.nodata == 0
        assert dataset.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert float(dataset.tags(1)["STATISTICS_MAXIMUM"]) > 100
        picture = dataset.read()
        numbers = full.read((1, 2, 3)).astype(float)
    shown = (numbers != 0).all(axis=0)
    assert ((picture != 0).all(axis=0) == shown).all()
    wanted = np.clip(1 + 254 * (numbers - 1000) / 3000, 1, 255)
    np.testing.assert_allclose(picture[:, shown], wanted[:, shown], atol=1)
    assert not list(tmp_path.glob("*.aux.xml"))


def test_the_style_stretches_as_the_picture(product: Path, tmp_path: Path) -> None:
    upscale(product, tmp_path / "a.tif", qml=True)
    root = ElementTree.parse(tmp_path / "a.qml").getroot()
    renderer = root.find("pipe/rasterrenderer")
    assert renderer is not None
    assert [renderer.get(f"{c}Band") for c in ("red", "green", "blue")] == list("123")
    assert root.findtext(".//redContrastEnhancement/minValue") == "1000"
    assert root.findtext(".//redContrastEnhancement/maxValue") == "4000"


def test_a_scene_without_colours_is_refused_before_it_is_upscaled(
    product: Path, tmp_path: Path
) -> None:
    with pytest.raises(BandError, match="no band for red, green, blue"):
        upscale(product, tmp_path / "a.tif", bands_out="B11", rgb8=tmp_path / "p.png")
    assert not list(tmp_path.glob("a.tif*"))


def test_a_picture_of_another_format_is_refused_at_once(
    product: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"give a name with \.tif or \.png"):
        upscale(product, tmp_path / "a.tif", rgb8=tmp_path / "p.jpg")
    assert not list(tmp_path.glob("a.tif*"))


def test_files_of_others_are_not_replaced(product: Path, tmp_path: Path) -> None:
    other = tmp_path / "a.json"
    other.write_text("{}")
    with pytest.raises(RunConflictError, match="not written by this command"):
        upscale(product, tmp_path / "a.tif", stac=True)
    assert other.read_text() == "{}"
    upscale(product, tmp_path / "a.tif", stac=True, overwrite=True)
    before = other.read_text()
    upscale(product, tmp_path / "a.tif", stac=True, qml=True, skip_existing=True)
    assert before != "{}"
    assert (tmp_path / "a.qml").exists()


def test_a_failed_gate_keeps_the_files(product: Path, tmp_path: Path) -> None:
    with pytest.raises(QualityGateError):
        upscale(product, tmp_path / "a.tif", stac=True, fail_if=["valid>0"])
    assert read_item(tmp_path / "a.json").id == "a"


def test_a_picture_of_8_bits_keeps_its_numbers(tmp_path: Path) -> None:
    scene = make_scene(tmp_path / "s.tif", dtype="uint8", photometric="RGB")
    upscale(scene, tmp_path / "a.tif", rgb8=tmp_path / "p.png")
    with Image.open(tmp_path / "p.png") as picture:
        shown = np.asarray(picture)
    with rasterio.open(tmp_path / "a.tif") as dataset:
        numbers = dataset.read().transpose(1, 2, 0).astype(float)
    np.testing.assert_allclose(shown, 1 + 254 / 255 * numbers, atol=1)
