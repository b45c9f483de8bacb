"""What metadata of 30 real products say about their numbers, row by row.

The table was written by people who read the files; it lies with the shared data.
"""

from __future__ import annotations

import csv
import zipfile
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet

from rsupres.errors import InputError
from rsupres.products import stac
from rsupres.products.model import Product, Radiometry
from rsupres.products.safe import read_metadata
from rsupres.products.sentinel2 import BANDS
from tests.helpers import shared_data, why_not_shared

Row = dict[str, str]


def rows(kind: str) -> list[ParameterSet]:
    """Return the rows of a kind of metadata; without the data, one that is skipped."""
    if reason := why_not_shared("s2products", "truth.csv"):
        return [pytest.param({}, marks=pytest.mark.skip(reason=reason))]
    with shared_data("s2products", "truth.csv").open() as opened:
        found = [row for row in csv.DictReader(opened) if kind in row["kind"]]
    return [
        pytest.param(row, id="-".join(Path(row["file"]).parts[-2:])) for row in found
    ]


def open_row(row: Row) -> str:
    """Return the name of a row's file; zips lie one folder higher than it says."""
    name, _, inside = row["file"].partition("!")
    folder = shared_data("s2products")
    path = folder / name
    if not inside:
        return str(path)
    path = path if path.exists() else path.parents[1] / path.name
    with zipfile.ZipFile(path) as archive:
        member = next(name for name in archive.namelist() if name.endswith(inside))
    return f"/vsizip/{path}/{member}"


def test_the_table_is_there() -> None:
    shared_data("s2products", "truth.csv")
    assert (len(rows("MTD")), len(rows("STAC"))) == (15, 40)


@pytest.mark.parametrize("row", rows("MTD"))
def test_radiometry_of_metadata_files(row: Row) -> None:
    metadata = read_metadata(open_row(row))
    assert metadata is not None
    assert metadata.tags["PROCESSING_BASELINE"] == row["baseline"]
    assert metadata.tags["SPACECRAFT_NAME"] == row["craft"]
    assert metadata.tags["PRODUCT_URI"] == row["uri"]
    assert (metadata.nodata, metadata.saturated) == (
        float(row["nodata"]),
        float(row["saturated"]),
    )
    unity = float(row["boa_quant"] or row["quant"])
    assert len(metadata.offsets) == int(row["n_offsets"])
    offset = float(row["offset_values"] or 0)
    for name in BANDS:
        assert metadata.radiometry(name) == Radiometry(1 / unity, offset / unity)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no item read what it links from the net."""

    def refuse(address: str) -> None:
        raise InputError(f"{address}: not in a test.")

    monkeypatch.setattr(stac, "_read_linked", refuse)


def open_item(path: str) -> Product:
    return stac.open_item(stac.read_items(path)[0], path)


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("row", rows("STAC"))
def test_radiometry_of_stac_items(row: Row) -> None:
    said = dict(part.split("=", 1) for part in row["stac"].split(" "))
    product = open_item(open_row(row))
    wanted = None
    if said["scale"]:
        is_applied = said["boa_offset_applied"] == "True"
        wanted = Radiometry(
            float(said["scale"]), 0.0 if is_applied else float(said["offset"])
        )
    assert {band.radiometry for band in product.bands} == {wanted}
    if row["nodata"]:
        assert product.nodata == float(row["nodata"])
    if said["href"] != "None":  # the table cuts long addresses off
        assert said["href"].removeprefix("./") in product.find("B02").path
    layers = [band.name for band in product.bands if band.name in ("AOT", "WVP")]
    assert not layers  # whose numbers are no reflectance


def test_granule_metadata_under_the_name_of_a_product_are_told_apart() -> None:
    folder = "S2A_MSIL2A_20181229T095411_N0211_R079_T33SVB_20181229T112231"
    path = shared_data(
        "s2products", "mapchete_eo", "SAFE", folder, f"{folder}.SAFE", "MTD_MSIL2A.xml"
    )
    assert read_metadata(str(path)) is None
