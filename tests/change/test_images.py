"""Change masks from two images."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from affine import Affine

from rsupres.change.mask import ChangeMask
from rsupres.errors import BandError, InputError
from rsupres.grid import PixelWindow
from rsupres.raster.dataset import Raster
from tests.change.masks import (
    SR,
    codes,
    cover_pair,
    image_pair,
    options_of,
    polygon,
    read,
    refused,
    write_polygons,
)
from tests.helpers import make_scene, shared_data

NEW = np.zeros((96, 128), bool)
NEW[24:48, 40:80] = True


def f1(mask, truth):
    return 2 * (mask & truth).sum() / (mask.sum() + truth.sum())


@pytest.mark.parametrize("method", ["irmad", "cva", "auto"])
@pytest.mark.parametrize("fine", [1, 3])
def test_what_is_new_between_two_images_is_found(tmp_path, method, fine):
    mask = read(image_pair(tmp_path, fine=fine), method=method)
    assert f1(mask == 1, NEW) > 0.9
    assert set(np.unique(mask)) == {0, 1}


def test_the_smallest_part_is_in_square_metres(tmp_path):
    paths = image_pair(tmp_path)
    big = read(paths, minimum_area_m2=6300)
    assert f1(big == 1, NEW) > 0.9
    refused(paths, "1e.06: that is", argument="minimum_area", minimum_area_m2=1e6)


def test_images_of_different_bands_are_compared_by_colour(tmp_path):
    before, after = image_pair(tmp_path)
    with rasterio.open(before) as file:
        rgb = file.read((3, 1, 2))  # blue, red, green
        transform = file.transform
    make_scene(
        before, pixels=rgb, transform=transform, descriptions=("B02", "B04", "B03")
    )
    mask = read([before, after], method="cva")
    assert f1(mask == 1, NEW) > 0.85
    make_scene(before, pixels=rgb[:1], transform=transform, descriptions=("B05",))
    with pytest.raises(BandError, match="CVA"):
        read([before, after], method="cva")


def test_nodata_of_either_image_is_unknown(tmp_path):
    before, after = image_pair(tmp_path)
    with rasterio.open(before, "r+") as file:
        pixels = file.read()
        pixels[:, :10] = 0
        file.write(pixels)
        file.nodata = 0
    mask = read([before, after])
    assert (mask[:10] == 255).all()
    assert (mask[10:] != 255).all()


def test_the_land_cover_says_into_what(tmp_path):
    paths = image_pair(tmp_path)
    cover = np.full((24, 32), 30, np.uint8)
    cover[:, 15:] = 50
    cover[8, 18] = 0
    path = str(codes(tmp_path / "cover.tif", cover))
    mask = read(paths, land_cover=path)
    assert mask[30, 45] == 30
    assert mask[30, 65] == 50
    assert mask[34, 74] == 1  # no land cover there
    assert set(np.unique(mask)) == {0, 1, 30, 50}
    second = read(paths, land_cover=path, output_table="second")
    assert set(np.unique(second)) == {0, 3, 5, 255}


def test_options_that_would_do_nothing_are_refused(tmp_path):
    images, covers = image_pair(tmp_path), cover_pair(tmp_path)
    for sources, name, value in (
        (images, "class_table", "second"),
        (images, "output_table", "second"),
        (covers, "significance", 0.1),
        (covers, "threshold", 3.0),
        (covers, "land_cover", "cover.tif"),
    ):
        refused(
            sources,
            "has no effect",
            argument=name,
            remedies=("method",),
            **{name: value},
        )
    with pytest.raises(InputError, match="polygons say what changed by themselves"):
        read([write_polygons(tmp_path / "p.gpkg", [polygon(0, 0, 5, 5)]), covers[0]])
    with pytest.raises(InputError, match="one source or two, not 3"):
        read([*covers, covers[0]])


def test_images_that_lie_off_each_other_are_worth_a_warning(tmp_path, caplog):
    before, after = image_pair(tmp_path)
    with rasterio.open(after, "r+") as file:
        file.transform = file.transform @ Affine.translation(2, -1)
    read([before, after])
    assert "right; edges will look changed" in caplog.text


def test_an_earlier_image_that_is_coarser_is_worth_a_warning(tmp_path, caplog):
    before, after = image_pair(tmp_path, fine=3)
    read([after, before])
    assert "Are the two swapped" in caplog.text


def test_open_scenes_are_left_open(tmp_path):
    before, after = image_pair(tmp_path)
    with Raster.open(before) as one, Raster.open(after) as other:
        with ChangeMask.open([one, other], SR) as mask:
            found = mask.read(SR.window)
        assert one.read(PixelWindow(0, 0, 1, 1), (1,))[0].shape == (1, 1, 1)
    assert np.array_equal(found[0], read([before, after]))


def test_the_fingerprint_tells_files_options_and_dates(tmp_path):
    before, after = image_pair(tmp_path)
    found = []
    for options in ({}, {"significance": 0.5}, {"method": "cva"}):
        chosen = options_of(options)
        with ChangeMask.open([str(before), str(after)], SR, chosen) as mask:
            found.append(mask.fingerprint())
    assert len({repr(one) for one in found}) == 3
    assert [file["file"] for file in found[0]["files"]] == ["before.tif", "after.tif"]
    assert all(len(file["sha256"]) == 64 for file in found[0]["files"])
    assert (found[0]["method"], found[2]["method"]) == ("irmad", "cva")


def test_a_line_for_people_tells_the_share(tmp_path):
    paths = cover_pair(tmp_path)
    with ChangeMask.open([str(path) for path in paths], SR) as mask:
        assert mask.describe() == (
            "a.tif and b.tif: land cover, ESA WorldCover; about 10.4 % changed"
        )


@pytest.mark.slow
def test_real_pairs_are_detected_better_than_by_difference_and_otsu(monkeypatch):
    monkeypatch.setenv("RSUPRES_DATA", str(shared_data("change", "oscd").parents[1]))
    from bench_change import PAIRS, measure

    rows = [measure(pair, "irmad") for pair in PAIRS[1:3]]  # the benchmark has all six
    ours, theirs = (np.mean([row[who].f1 for row in rows]) for who in ("ours", "otsu"))
    assert ours > 1.5 * theirs
    assert ours > 0.3
