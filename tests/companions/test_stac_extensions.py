"""Items hold what the STAC extensions that they name require, field by field.

pystac brings the schema of STAC itself; those of extensions are on the net. So the
requirements stand here as a table, each from the page of its extension
(github.com/stac-extensions: projection 2.0.0, raster 1.1.0, processing 1.2.0, mlm
1.4.0, file 2.1.0). Where the schemas lie in a folder, pystac uses them, too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pystac
import pytest
from affine import Affine
from pystac.validation.stac_validator import JsonSchemaSTACValidator
from rasterio.crs import CRS

import rsupres
from tests.helpers import make_scene, shared_data
from tests.miniature_safe import Miniature

Json = Mapping[str, Any]
SITE = "https://stac-extensions.github.io"
DATA_TYPES = {
    *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64", "cint16", "cint32", "cfloat32", "cfloat64"),
    "other",
}
LAMBERT = "+proj=lcc +lat_1=33 +lat_2=45 +lat_0=39 +lon_0=-96 +datum=NAD83 +units=m"


def is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def matches(pattern: str) -> Callable[[object], bool]:
    return lambda value: isinstance(value, str) and bool(re.fullmatch(pattern, value))


def is_list(item: Callable[[Any], bool], *lengths: int) -> Callable[[object], bool]:
    return lambda value: (
        isinstance(value, list)
        and all(map(item, value))
        and (not lengths or len(value) in lengths)
    )


def is_whole(value: object) -> bool:
    return isinstance(value, int) and value >= 0


def is_raster_band(band: Json) -> bool:
    """Tables "Raster Band Object" and "Data Types" of raster."""
    nodata = band.get("nodata", 0)
    return (
        band.get("data_type") in DATA_TYPES
        and (is_number(nodata) or nodata in ("nan", "inf", "-inf"))
        and all(is_number(band[n]) for n in ("spatial_resolution", "scale", "offset"))
    )


def is_structure(value: Json) -> bool:
    """Tables "Input Structure Object" and "Result Structure Object" of mlm."""
    shape, order = value["shape"], value["dim_order"]
    return (
        len(shape) == len(order) == len(set(order))
        and all(isinstance(side, int) and side >= -1 for side in shape)
        and all(map(matches("[a-z-_]+"), order))
        and value["data_type"] in DATA_TYPES
    )


def is_input(value: Json) -> bool:
    """Table "Model Input Object" of mlm."""
    named = is_text(value["name"]) and all(map(is_text, value["bands"]))
    return named and is_structure(value["input"])


def is_output(value: Json) -> bool:
    """Table "Model Output Object" of mlm."""
    is_known = set(value["tasks"]) == {"super-resolution"}
    return is_text(value["name"]) and is_known and is_structure(value["result"])


# Fields of the item's properties, by the tables of each extension's page.
PROPERTIES = {
    "proj:code": lambda value: value is None or matches(r"[A-Z]+:\d+")(value),
    "proj:wkt2": lambda value: value is None or is_text(value),
    "proj:shape": is_list(is_whole, 2),
    "proj:transform": is_list(is_number, 6, 9),
    "processing:lineage": is_text,
    "processing:software": lambda value: all(map(is_text, value.values())),
    "mlm:name": matches(r"[a-zA-Z][a-zA-Z0-9_.\-\s]+[a-zA-Z0-9]"),
    "mlm:architecture": is_text,
    "mlm:framework": lambda value: value == "PyTorch",  # a name that the page lists
    "mlm:tasks": lambda value: value == ["super-resolution"],
    "mlm:input": is_list(is_input, 1),
    "mlm:output": is_list(is_output, 1),
    "mlm:accelerator": lambda value: value is None,  # as the page allows
    "mlm:pretrained_source": lambda value: value is None,
}
ASSET_FIELDS = {
    "raster:bands": lambda bands: bool(bands) and all(map(is_raster_band, bands)),
    "mlm:artifact_type": is_text,
    "file:checksum": matches("1220[a-f0-9]{64}"),  # a multihash of SHA-256
}
REQUIRED = {
    "projection": {"proj:code", "proj:shape", "proj:transform"},
    "processing": {"processing:lineage", "processing:software"},
    "mlm": {f"mlm:{n}" for n in ("name", "architecture", "tasks", "input", "output")},
}
PREFIXES = {"proj": "projection"}


def problems(item: Json) -> Iterator[str]:
    """Yield what an item lacks or states wrongly of its extensions."""
    named = [uri.removeprefix(f"{SITE}/").split("/")[0] for uri in names_of(item)]
    yield from (f"{name} twice" for name in named if named.count(name) > 1)
    for name in named:
        yield from sorted(REQUIRED.get(name, set()) - item["properties"].keys())
    used = set()
    places = [(item["properties"], PROPERTIES)]
    places += [(asset, ASSET_FIELDS) for asset in item["assets"].values()]
    for place, rules in places:
        for field, value in place.items():
            prefix, colon, _ = field.partition(":")
            if colon:
                used.add(PREFIXES.get(prefix, prefix))
                if field not in rules or not rules[field](value):
                    yield f"{field} {value}"
    yield from (f"{name} is named or used alone" for name in used ^ set(named))
    if "mlm" in named:
        yield from problems_of_model(item)


def problems_of_model(item: Json) -> Iterator[str]:
    """Yield what is wrong with a model's asset and the description of its bands."""
    for key, asset in item["assets"].items():
        is_model = "mlm:model" in asset["roles"]
        if is_model != ("mlm:artifact_type" in asset):
            yield f"{key}: an artifact type belongs to the asset of the model"
    # "Bands and Statistics" of mlm: what the input names is described in the item.
    known = [band["name"] for band in item["properties"].get("bands", [])]
    if known != item["properties"]["mlm:input"][0]["bands"]:
        yield "bands of the input that nothing describes"


def names_of(item: Json) -> list[str]:
    names: list[str] = item["stac_extensions"]
    return names


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Json]:
    """Return items of outputs of many kinds, read as JSON without NaN."""
    folder = tmp_path_factory.mktemp("items")
    product = Miniature().build(folder)
    part = {"bounds": (563300, 5392800, 563500, 5393000)}
    make_scene(folder / "lambert.tif", 20, 30, crs=CRS.from_proj4(LAMBERT))
    make_scene(folder / "float.tif", 20, 30, dtype="float32", nodata=float("nan"))
    east = Affine(0.0001, 0, 179.998, 0, -0.0001, 60)
    make_scene(folder / "east.tif", 20, 30, crs=CRS.from_epsg(4326), transform=east)
    jobs: dict[str, tuple[Path, dict[str, object]]] = {
        "ten bands": (product, {"bands_out": "all", "rgb8": folder / "p.png"}),
        "classes": (product, {"bands_out": "10m,SCL", **part}),
        "default model": (product, {"model": "optical-small", **part}),
        "three bands": (
            product,
            {"model": "slimdiffsr-mini", "scale": 4, "other_bands": "skip", **part},
        ),
        "picture": (
            product,
            {"model": "optical-small", "rgb8": folder / "q.tif", **part},
        ),
        "no code": (folder / "lambert.tif", {}),
        "nan": (folder / "float.tif", {}),
        "antimeridian": (folder / "east.tif", {}),
        "plain TIFF": (folder / "float.tif", {"driver": "GTiff"}),
    }
    found: dict[str, Json] = {}
    for name, (scene, options) in jobs.items():
        output = folder / f"{name}.tif"
        given = {"scale": 2, "model": "bicubic", "stac": True, **options}
        rsupres.upscale(scene, output, **given)  # type: ignore[arg-type]
        text = output.with_suffix(".json").read_text()
        found[name] = json.loads(text, parse_constant=refuse)
    return found


def refuse(word: str) -> None:
    raise AssertionError(f"{word} is no JSON")


NAMES = (
    *("ten bands", "classes", "default model", "three bands", "picture", "no code"),
    *("nan", "antimeridian", "plain TIFF"),
)


@pytest.mark.parametrize("name", NAMES)
def test_items_hold_what_their_extensions_require(items: Mapping[str, Json], name: str):
    assert list(problems(items[name])) == []


def test_items_of_models_with_weights_name_five_extensions(items):
    named = [re.sub(r".*github\.io/|/v.*", "", u) for u in names_of(items["picture"])]
    assert named == ["projection", "raster", "processing", "mlm", "file"]
    assert len(names_of(items["ten bands"])) == 3


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("bands", [], "nothing describes"),
        ("proj:shape", [20.5, 30], "proj:shape"),
        ("proj:transform", [1, 0, 0, 0, 1], "proj:transform"),
        ("processing:software", {"rsupres": 0.1}, "processing:software"),
        ("mlm:tasks", ["sharpen"], "mlm:tasks"),
        ("eo:cloud_cover", 3, "eo is named or used alone"),
    ],
)
def test_wrong_items_are_noticed(items, field: str, value: object, said: str) -> None:
    item = json.loads(json.dumps(items["default model"]))
    item["properties"][field] = value
    assert any(said in line for line in problems(item))


def test_numbers_that_json_lacks_are_words(items) -> None:
    bands = items["nan"]["assets"]["data"]["raster:bands"]
    assert [band["nodata"] for band in bands] == ["nan"] * len(bands)


def test_the_media_type_is_that_of_the_file(items) -> None:
    cog = "image/tiff; application=geotiff; profile=cloud-optimized"
    assert items["nan"]["assets"]["data"]["type"] == cog
    plain = items["plain TIFF"]["assets"]["data"]
    assert plain["type"] == "image/tiff; application=geotiff"
    assert items["picture"]["assets"]["visual"]["type"] == cog
    assert items["ten bands"]["assets"]["visual"]["type"] == "image/png"


@pytest.mark.parametrize("name", ["projection", "raster", "processing", "mlm", "file"])
def test_items_are_valid_by_the_schemas_themselves(items, name: str) -> None:
    """The folder holds a copy of each schema as NAME.json, as of projection.json."""
    place = shared_data(f"{name}.json", kind="schemas").parent
    schemas = [json.loads(path.read_text()) for path in sorted(place.glob("*.json"))]
    validator = JsonSchemaSTACValidator()
    validator.schema_cache |= {s["$id"].removesuffix("#"): s for s in schemas}
    checked = 0
    for item in items.values():
        for uri in names_of(item):
            if uri.startswith(f"{SITE}/{name}/"):
                kind, version = pystac.STACObjectType.ITEM, item["stac_version"]
                validator.validate_extension({**item}, kind, version, uri)
                checked += 1
    assert checked == (3 if name in ("mlm", "file") else len(items))
