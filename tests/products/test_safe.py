"""Metadata of miniature products, damaged ones among them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rsupres.errors import BandError, InputError
from rsupres.products.model import Radiometry, overridden
from rsupres.products.safe import find_metadata, open_safe, read_metadata
from rsupres.products.sentinel2 import ALL_TEN, BANDS, bands_of
from tests.miniature_safe import ALL, Miniature


@pytest.mark.parametrize("wanted", ALL, ids=lambda item: item.name)
def test_a_product_lists_its_bands_and_layers(
    wanted: Miniature, tmp_path: Path
) -> None:
    product = wanted.build(tmp_path)
    metadata = read_metadata(str(product / f"MTD_MSI{wanted.level}.xml"))
    assert metadata is not None
    found = open_safe(str(product), metadata)
    assert {band.name for band in found.bands} == set(wanted.bands)
    assert all(band.gsd == BANDS[band.name].gsd for band in found.bands)
    told = Radiometry(1e-4, (wanted.offset or 0) / 10_000)
    assert {band.radiometry for band in found.bands} == {told}
    layer = "SCL" if wanted.level == "L2A" else "CLASSI"
    layer = "CLOUDS" if wanted.baseline == "02.09" else layer
    assert list(found.layers) == [layer]


def edited(tmp_path: Path, pattern: str, text: str) -> str:
    """Return the metadata file of a product with a part of it replaced."""
    path = Miniature().build(tmp_path) / "MTD_MSIL2A.xml"
    path.write_text(re.sub(pattern, text, path.read_text()))
    return str(path)


def test_the_number_is_not_taken_from_a_group_of_the_same_name(tmp_path: Path) -> None:
    path = edited(
        tmp_path, r"(BOA_QUANTIFICATION_VALUE unit=.none.>)10000", r"\g<1>7000"
    )
    metadata = read_metadata(path)
    assert metadata is not None
    assert metadata.radiometry("B02") == Radiometry(1 / 7000, -1000 / 7000)


def test_a_band_without_an_offset_among_others_is_undecided(tmp_path: Path) -> None:
    pattern = r'<BOA_ADD_OFFSET band_id="8">-1000</BOA_ADD_OFFSET>'
    metadata = read_metadata(edited(tmp_path, pattern, ""))
    assert metadata is not None
    assert metadata.radiometry("B8A") is None
    assert metadata.radiometry("B09") == Radiometry(1e-4, -0.1)


def test_no_quantification_is_undecided(tmp_path: Path) -> None:
    metadata = read_metadata(edited(tmp_path, "BOA_QUANTIFICATION_VALUE", "OTHER"))
    assert metadata is not None
    assert metadata.radiometry("B02") is None


@pytest.mark.parametrize(
    ("pattern", "text", "message"),
    [
        ("</n1:General_Info>.*", "", "damaged metadata"),
        (">10000<", ">ten<", "'ten' is no number"),
        ('band_id="12"', 'band_id="13"', "an offset without a known band"),
    ],
)
def test_damaged_metadata_are_refused(
    tmp_path: Path, pattern: str, text: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        read_metadata(edited(tmp_path, f"(?s){pattern}", text))


def test_metadata_are_found_for_a_band_file(tmp_path: Path) -> None:
    product = Miniature().build(tmp_path)
    band = next(product.rglob("*_B11_20m.jp2"))
    found = find_metadata(str(band))
    assert found is not None
    assert found.path == str(product / "MTD_MSIL2A.xml")
    stray = product / "T33UUU_20200101T000000_B11_20m.jp2"
    stray.touch()
    assert find_metadata(str(stray)) is None


def test_lists_of_bands() -> None:
    assert bands_of("all") == ALL_TEN
    assert bands_of("b4, B8a,SCL") == ("B04", "B8A", "SCL")
    with pytest.raises(BandError, match="'B13' is no band"):
        bands_of("B13")
    with pytest.raises(BandError, match="names B04 twice"):
        bands_of("10m,B04")


@pytest.mark.parametrize(
    ("told", "scale", "offset", "wanted"),
    [
        (Radiometry(1e-4, -0.1), None, 0, Radiometry(1e-4, 0)),
        (Radiometry(1e-4, -0.1), 2e-4, None, Radiometry(2e-4, -0.2)),
        (None, 1e-4, -1000, Radiometry(1e-4, -0.1)),
    ],
)
def test_a_user_overrides_a_part(
    told: Radiometry | None,
    scale: float | None,
    offset: float | None,
    wanted: Radiometry,
) -> None:
    found = overridden("x", told, scale, offset, is_undecided=True)
    assert (found.scale, found.offset) == pytest.approx((wanted.scale, wanted.offset))


@pytest.mark.parametrize(("scale", "offset"), [(1e-4, None), (None, -1000)])
def test_half_of_an_undecided_radiometry_is_refused(
    scale: float | None, offset: float | None
) -> None:
    with pytest.raises(InputError, match="scale and offset of") as error:
        overridden("x", None, scale, offset, is_undecided=True)
    assert error.value.remedies[:2] == ("dn_scale=0.0001", "dn_offset=-1000")
