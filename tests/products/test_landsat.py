"""Scale and offset of Landsat: from MTL files, names, and STAC items."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rsupres.products.landsat import mtl_radiometry, named_radiometry
from rsupres.products.model import Radiometry
from rsupres.products.stac import open_item, read_items

LEVEL_2 = Radiometry(2.75e-05, -0.2)
TEXT = """GROUP = LEVEL2_SURFACE_REFLECTANCE_PARAMETERS
    REFLECTANCE_MULT_BAND_4 = 2.75e-05
    REFLECTANCE_ADD_BAND_4 = -0.2
GROUP = LEVEL1_RADIOMETRIC_RESCALING
    REFLECTANCE_MULT_BAND_4 = 2.0000E-05
    REFLECTANCE_ADD_BAND_4 = -0.100000
"""
XML = """<REFLECTANCE_MULT_BAND_4>2.75e-05</REFLECTANCE_MULT_BAND_4>
<REFLECTANCE_ADD_BAND_4>-0.2</REFLECTANCE_ADD_BAND_4>"""
JSON = '{"REFLECTANCE_MULT_BAND_4": "2.75e-05", "REFLECTANCE_ADD_BAND_4": "-0.2"}'


@pytest.mark.parametrize("text", [TEXT, XML, JSON])
def test_an_mtl_file_of_any_format(tmp_path: Path, text: str) -> None:
    path = tmp_path / "MTL"
    path.write_text(text)
    rule = mtl_radiometry(str(path))
    assert rule is not None
    assert (rule("SR_B4"), rule("B4"), rule("B5")) == (LEVEL_2, LEVEL_2, None)


def test_a_file_without_factors_tells_nothing(tmp_path: Path) -> None:
    path = tmp_path / "MTL"
    path.write_text("GROUP = OTHER")
    assert mtl_radiometry(str(path)) is None


@pytest.mark.parametrize(
    ("name", "names", "wanted"),
    [
        ("LC08_L2SP_028030_20200114_20200824_02_T1_SR_B4.TIF", (None,), LEVEL_2),
        ("LC09_L1TP_028030_20230114_20230114_02_T1_B4.TIF", (), Radiometry(2e-5, -0.1)),
        ("x.tif", ("SR_B4", "QA_PIXEL"), LEVEL_2),
        ("x.tif", ("B4",), None),
    ],
)
def test_names_of_collection_2(
    name: str, names: tuple[str | None, ...], wanted: Radiometry | None
) -> None:
    assert named_radiometry(name, {}, names) == wanted


def write_item(path: Path, name: str, assets: dict[str, object]) -> str:
    item: dict[str, object] = {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": name,
        "geometry": None,
        "properties": {"datetime": "2020-01-14T00:00:00Z"},
        "links": [],
        "assets": assets,
    }
    path.write_text(json.dumps(item))
    return str(path)


def test_bands_of_a_landsat_item_have_common_names(tmp_path: Path) -> None:
    (tmp_path / "MTL.txt").write_text(TEXT)
    named = {"red": "B4", "nir08": "B5"}
    assets: dict[str, object] = {
        key: {"href": f"{code}.TIF", "eo:bands": [{"name": code, "common_name": key}]}
        for key, code in named.items()
    }
    assets |= {"MTL.txt": {"href": "MTL.txt"}, "qa_pixel": {"href": "QA_PIXEL.TIF"}}
    path = write_item(tmp_path / "i.json", "LC08_L2SP_028030_20200114_02_T1", assets)
    product = open_item(read_items(path)[0], path)
    assert [band.name for band in product.bands] == ["red", "nir"]
    assert list(product.layers) == ["QA_PIXEL"]
    assert product.bands[0].path == str(tmp_path / "B4.TIF")
    assert [band.radiometry for band in product.bands] == [LEVEL_2, None]


@pytest.mark.parametrize(
    ("name", "wanted"),
    [("HLS.L30.T10SEG", ["red", "nir"]), ("HLS.S30.T10SEG", ["B04", "B05"])],
)
def test_codes_of_hls_items_mean_the_bands_of_their_satellite(
    tmp_path: Path, name: str, wanted: list[str]
) -> None:
    assets: dict[str, object] = {
        code: {"href": f"{name}.{code}.tif"} for code in ("B04", "B05", "Fmask")
    }
    path = write_item(tmp_path / "i.json", name, assets)
    product = open_item(read_items(path)[0], path)
    assert [band.name for band in product.bands] == wanted
    assert list(product.layers) == ["FMASK"]
