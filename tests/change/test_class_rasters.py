"""Change masks from the land cover of two dates."""

from __future__ import annotations

import numpy as np
import pytest
from affine import Affine

from rsupres.errors import ConditionError
from tests.change.masks import codes, cover_pair, random_codes, read, refused
from tests.helpers import NORTH_UP


def test_two_land_covers_give_the_later_class_where_they_differ(tmp_path):
    paths = cover_pair(tmp_path)
    mask = read(paths)
    wanted = np.zeros((96, 128), np.uint8)
    wanted[16:48, 24:64] = 50
    assert np.array_equal(mask, wanted)
    assert set(np.unique(read(paths, output_table="second"))) == {0, 5}


def test_what_is_one_class_in_the_output_table_did_not_change(tmp_path):
    paths = cover_pair(tmp_path, before=30, after=40)  # grass and crops
    assert read(paths).any()
    assert not read(paths, output_table="second").any()


def test_edges_that_disagree_by_a_pixel_are_no_change(tmp_path):
    a, b = cover_pair(tmp_path)
    late = np.full((24, 32), 10, np.uint8)
    late[:, 20] = 80
    late[2, 2] = 80
    codes(b, late)
    assert not read([a, b]).any()
    assert read([a, b], minimum_area_m2=0).any()


def test_missing_land_cover_is_unknown(tmp_path):
    a, b = cover_pair(tmp_path)
    late = np.full((24, 32), 10, np.uint8)
    late[3, 3] = 0
    codes(b, late)
    mask = read([a, b])
    assert (mask[12:16, 12:16] == 255).all()
    assert (mask == 255).sum() == 16


def test_land_covers_on_different_grids_meet_on_the_coarser(tmp_path):
    a, b = cover_pair(tmp_path)
    fine = NORTH_UP @ Affine.scale(0.5)
    late = np.full((48, 64), 80, np.uint8)
    codes(b, late, transform=fine)
    assert (read([a, b]) == 80).all()
    late[1::2, 1::2] = 10  # the fine pixels in which centres of coarse pixels lie
    codes(b, late, transform=fine)
    assert not read([a, b], minimum_area_m2=0).any()


def test_land_covers_of_different_tables_are_refused(tmp_path):
    a, b = cover_pair(tmp_path)
    codes(b, random_codes([0, 1, 6]))
    with pytest.raises(
        ConditionError, match=r"different class tables \(worldcover and"
    ):
        read([a, b])
    with pytest.raises(
        ConditionError, match=r"b\.tif: classes 1, 6 not in .*worldcover"
    ):
        read([a, b], class_table="worldcover")
    with pytest.raises(ConditionError, match=r"a\.tif: class 10 not in .*dynamic"):
        read([a, b], class_table="dynamic-world")


def test_codes_that_several_tables_have_need_the_name_of_theirs(tmp_path):
    paths = [codes(tmp_path / f"{s}.tif", random_codes([1, 2], seed=s)) for s in (0, 1)]
    refused(paths, "name theirs", remedies=("class_table",), covers=True)
    mask = read(paths, class_table="dynamic-world", minimum_area_m2=0)
    assert set(np.unique(mask)) == {0, 2, 3}


def test_labels_of_second_at_two_dates_become_one_mask(tmp_path):
    early, late = random_codes([0, 3, 4]), random_codes([1, 5], seed=1)
    late[early == 0] = 0
    paths = codes(tmp_path / "1.tif", early), codes(tmp_path / "2.tif", late)
    mask = read(paths, class_table="second")
    assert np.array_equal(mask[::4, ::4], late)


def test_land_covers_of_two_places_are_refused(tmp_path):
    a, b = cover_pair(tmp_path)
    far = NORTH_UP @ Affine.translation(4000, 0)
    codes(b, random_codes([10, 50]), transform=far)
    with pytest.raises(ConditionError, match="do not touch"):
        read([a, b], class_table="worldcover")


def test_dates_the_wrong_way_round_are_refused(tmp_path):
    early, late = np.full((24, 32), 10, np.uint8), np.full((24, 32), 50, np.uint8)
    dates = {"ACQUISITION_DATE": "2020-05-01"}, {"ACQUISITION_DATE": "2023-05-01"}
    a = codes(tmp_path / "a.tif", early, tags=dates[0])
    b = codes(tmp_path / "b.tif", late, tags=dates[1])
    assert (read([a, b]) == 50).all()
    with pytest.raises(ConditionError, match=r"of 2023-05-01 .* swap them"):
        read([b, a])
