"""Codes and colours of class rasters: nothing is guessed by codes alone."""

from __future__ import annotations

import logging
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from rasterio.crs import CRS

from rsupres.change.mask import ChangeMask
from rsupres.change.options import ChangeOptions
from rsupres.datasets.chips import read_chip
from rsupres.datasets.sidecars import Sidecars
from rsupres.errors import ConditionError
from rsupres.grid import Grid
from rsupres.legends.class_table import load_class_table
from rsupres.raster.dataset import Raster
from rsupres.raster.files import date_of

CRS_ = CRS.from_epsg(32632)
GRID = Grid(CRS_, Affine(10, 0, 500000, 0, -10, 5700000), 20, 20)
WORLDCOVER = {e.code: (*e.colour, 255) for e in load_class_table("worldcover").classes}
Palette = dict[int, tuple[int, int, int, int]]


def write(
    path: Path,
    pixels: np.ndarray,
    palette: Palette | None = None,
    tags: dict[str, str] | None = None,
    **options: object,
) -> str:
    bands = pixels if pixels.ndim == 3 else pixels[np.newaxis]
    with rasterio.open(
        path, "w", driver="GTiff", height=20, width=20, count=len(bands),
        dtype=bands.dtype, crs=CRS_, transform=GRID.transform, **options,
    ) as file:  # fmt: skip
        file.write(bands)
        if palette:
            file.write_colormap(1, palette)
        file.update_tags(**(tags or {}))
    return str(path)


def cover(value: int) -> np.ndarray:
    pixels = np.full((20, 20), 10, np.uint8)
    pixels[5:15, 5:15] = value
    return pixels


def mask(*sources: str, **options: str) -> np.ndarray:
    with ChangeMask.open(sources, GRID, ChangeOptions(**options)) as opened:  # type: ignore[arg-type]
        return opened.read(GRID.window)[0]


@pytest.mark.parametrize("value", [80, 60, 130, 7])
def test_codes_alone_do_not_say_which_table_it_is(tmp_path, value):
    before = write(tmp_path / "GlobeLand30_2010.tif", cover(20), nodata=0)
    after = write(tmp_path / "GlobeLand30_2020.tif", cover(value), nodata=0)
    with pytest.raises(ConditionError, match="several class tables") as caught:
        mask(before, after)
    assert caught.value.remedies == ("class_table",)


@pytest.mark.parametrize("by", ["palette", "name"])
def test_codes_with_their_colours_or_name_are_worldcover(tmp_path, by):
    names = (
        ("a_2020", "a_2021") if by == "palette" else ("ESA_WorldCover_1", "WorldCover2")
    )
    palette = WORLDCOVER if by == "palette" else None
    one = write(tmp_path / f"{names[0]}.tif", cover(40), palette)
    two = write(tmp_path / f"{names[1]}.tif", cover(50), palette)
    found = mask(one, two)
    assert (found[6:14, 6:14] == 50).all()
    assert not found[:4].any()


def test_codes_with_other_colours_are_not_worldcover(tmp_path):
    other = {code: (code, 0, 0, 255) for code in WORLDCOVER}
    one = write(tmp_path / "a.tif", cover(40), other)
    two = write(tmp_path / "b.tif", cover(50), other)
    with pytest.raises(ConditionError, match="several class tables"):
        mask(one, two)


SECOND = {0: (255, 255, 255, 255), 1: (128, 0, 0, 255), 2: (0, 255, 0, 255)}


def labels() -> np.ndarray:
    pixels = np.zeros((20, 20), np.uint8)
    pixels[2:6, 2:6], pixels[10:14, 10:14] = 1, 2
    return pixels


def test_palette_labels_are_read_by_their_colours(tmp_path):
    found = mask(write(tmp_path / "l.tif", labels(), SECOND), class_table="second")
    assert (found[2:6, 2:6] == 5).all()  # building
    assert (found[10:14, 10:14] == 4).all()  # tree
    assert (found > 0).sum() == 32


def test_palette_labels_beside_images_are_read_by_their_colours(tmp_path):
    image = write(tmp_path / "im2.tif", np.zeros((3, 20, 20), np.uint8) + 9)
    write(tmp_path / "label2.tif", labels(), SECOND)
    rules = Sidecars(change_mask=("im2=label2",), class_table="second")
    chip = rules.attach(read_chip(Path(image)), Path(image))
    assert np.unique(chip.layers["change_mask"]).tolist() == [0, 4, 5]


def test_a_palette_of_other_colours_leaves_the_codes(tmp_path):
    grey = {i: (i, i, i, 255) for i in range(256)}
    for palette in (None, grey, {1: (1, 2, 3, 255), 2: (9, 9, 9, 255)}):
        found = mask(write(tmp_path / "l.tif", labels(), palette), class_table="second")
        assert (found[2:6, 2:6] == 1).all()
        assert (found[10:14, 10:14] == 2).all()


def test_a_palette_half_in_the_tables_colours_is_refused(tmp_path):
    path = write(tmp_path / "l.tif", labels(), {**SECOND, 2: (1, 2, 3, 255)})
    with pytest.raises(ConditionError, match="pixels are palette entries"):
        mask(path, class_table="second")


@pytest.mark.parametrize("options", [{}, {"nodata": 255}])
def test_255_of_a_mask_beside_an_image_is_never_taken_for_unknown(tmp_path, options):
    image = write(tmp_path / "im.tif", np.zeros((3, 20, 20), np.uint8) + 9)
    changed = (labels() > 0) * np.uint8(255)
    write(tmp_path / "mask.tif", changed, **options)
    path = Path(image)
    if options:  # declared as nodata: unknown
        chip = Sidecars(change_mask=("im=mask",)).attach(read_chip(path), path)
        assert np.array_equal(chip.layers["change_mask"][0], changed)
        return
    with pytest.raises(ConditionError, match="if 255 means changed") as caught:
        Sidecars(change_mask=("im=mask",)).attach(read_chip(path), path)
    assert caught.value.remedies == ("class_table=binary",)
    binary = Sidecars(change_mask=("im=mask",), class_table="binary")
    chip = binary.attach(read_chip(path), path)
    assert np.array_equal(
        chip.layers["change_mask"][0], (labels() > 0).astype(np.uint8)
    )


def test_attributes_that_a_shapefile_cut_are_refused_when_several_may_be_meant(
    tmp_path, caplog
):
    box = shapely.box(500000, 5699900, 500100, 5700000)
    table = geopandas.GeoDataFrame(
        {"classification_old": [3], "classification_new": [4]}, geometry=[box], crs=CRS_
    )
    with pytest.warns(match="laundered|10 characters"):
        table.to_file(tmp_path / "c.shp")
    path = str(tmp_path / "c.shp")
    with pytest.raises(ConditionError, match="classifica, classifi_1"):
        mask(path, class_attribute="classification_new")
    assert "whose names the format cut" in caplog.text
    assert mask(path, class_attribute="classifi_1").max() == 4
    assert mask(path, class_attribute="classifica").max() == 3
    alone = table[["classification_new", "geometry"]]
    with pytest.warns(match="laundered|10 characters"):
        alone.to_file(tmp_path / "d.shp")
    one = str(tmp_path / "d.shp")
    assert mask(one, class_attribute="classification_new").max() == 4


@pytest.mark.parametrize(
    ("name", "tags", "date", "source"),
    [
        (
            "a_20180501",
            {"TIFFTAG_DATETIME": "2023:04:05 10:00:00"},
            "2018-05-01",
            "name",
        ),
        ("a_2018", {"TIFFTAG_DATETIME": "2023:04:05 10:00:00"}, "2018-01-01", "name"),
        (
            "a",
            {"TIFFTAG_DATETIME": "2023:04:05 10:00:00"},
            "2023-04-05",
            "DateTime tag",
        ),
        (
            "a_2018",
            {"ACQUISITION_DATE": "2017-02-03"},
            "2017-02-03",
            "tag ACQUISITION_DATE",
        ),
    ],
)
def test_the_datetime_tag_never_overrules_the_name(tmp_path, name, tags, date, source):
    path = write(tmp_path / f"{name}.tif", cover(10), tags=tags)
    with Raster.open(path) as scene:
        found, by = date_of(scene)
    assert (f"{found:%Y-%m-%d}", by) == (date, source)


def test_the_datetime_tag_never_refuses(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    late = {"TIFFTAG_DATETIME": "2024:01:01 00:00:00"}
    soon = {"TIFFTAG_DATETIME": "2023:01:01 00:00:00"}
    one = write(tmp_path / "before.tif", cover(40), WORLDCOVER, late)
    two = write(tmp_path / "after.tif", cover(50), WORLDCOVER, soon)
    assert (mask(one, two) == 50).sum() == 100
    assert "Are they swapped?" in caplog.text
