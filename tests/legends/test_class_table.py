"""Class tables: what ships, what they mean in a mask, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsupres.errors import ConditionError, InputError
from rsupres.legends.class_table import (
    NODATA,
    guess_table,
    load_class_table,
    shipped_class_tables,
)

TABLES = shipped_class_tables()
TOML = """title = "mine"
kind = "cover"

[[class]]
code = 7
name = "moor"
colour = "#102030"
"""


def write(tmp_path, text):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    return str(path)


def test_the_tables_that_the_documentation_names_are_there():
    assert {"worldcover", "dynamic-world", "second", "cnam-cd"} <= set(TABLES)
    second = load_class_table("second")
    assert second.names() == {
        1: "water",
        2: "ground",
        3: "low vegetation",
        4: "tree",
        5: "building",
        6: "playground",
    }
    assert second.mask_classes()[5].colour == (128, 0, 0)
    assert second.unchanged == (255, 255, 255)
    assert load_class_table("cnam-cd").names()[1] == "impervious"
    assert load_class_table("worldcover").codes == (
        *(10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 100),
    )


@pytest.mark.parametrize("name", TABLES)
def test_every_class_of_a_table_has_a_mask_value_that_is_neither_0_nor_255(name):
    table = load_class_table(name)
    values = table.to_mask(np.array(table.codes), "x.tif")
    assert set(values.tolist()) == set(table.mask_classes())
    assert values.min() > 0
    assert values.max() < NODATA
    assert set(table.palette()) >= {0, *values.tolist(), NODATA}


def test_water_of_dynamic_world_is_not_taken_for_unchanged():
    table = load_class_table("dynamic-world")
    assert table.to_mask(np.array([0, 8]), "x.tif").tolist() == [1, 9]


@pytest.mark.parametrize("name", ["worldcover", "dynamic-world"])
@pytest.mark.parametrize("target", ["second", "cnam-cd"])
def test_land_covers_can_be_brought_to_the_tables_of_models(name, target):
    there = load_class_table(target)
    table = load_class_table(name).as_table(there)
    values = table.to_mask(np.array(table.codes), "x.tif")
    assert set(values.tolist()) <= set(there.names())
    assert table.names().items() <= there.names().items()
    water = {"worldcover": 80, "dynamic-world": 0}[name]
    named = there.names()[int(table.to_mask(np.array([water]), "x.tif")[0])]
    assert named == "water"


def test_nodata_of_a_land_cover_is_unknown_in_the_mask():
    table = load_class_table("worldcover").as_table(load_class_table("second"))
    assert table.to_mask(np.array([0, 50]), "x.tif").tolist() == [NODATA, 5]


def test_a_table_without_a_crosswalk_is_refused():
    with pytest.raises(ConditionError, match="no crosswalk to worldcover"):
        load_class_table("second").as_table(load_class_table("worldcover"))


def test_codes_of_another_table_are_refused_with_a_guess():
    with pytest.raises(ConditionError, match=r"x\.tif: classes 10, 95 not in .*second"):
        load_class_table("second").to_mask(np.array([0, 10, 95]), "x.tif")
    with pytest.raises(ConditionError, match="It may be worldcover"):
        load_class_table("second").to_mask(np.array([10]), "x.tif")
    for code in (-3, 70_000, 255):
        with pytest.raises(ConditionError, match=f"class {code} not in"):
            load_class_table("worldcover").to_mask(np.array([10, code]), "x.tif")


def test_labels_of_a_mask_are_read_as_they_are():
    table = load_class_table("dynamic-world")
    values = np.array([0, 1, 9, 255])
    assert table.to_mask(values, "x.tif", as_labels=True).tolist() == values.tolist()
    with pytest.raises(ConditionError):
        table.to_mask(np.array([10]), "x.tif", as_labels=True)


def test_both_usual_codes_of_binary_masks_mean_changed():
    table = load_class_table("binary")
    assert table.to_mask(np.array([0, 1, 255]), "x.tif").tolist() == [0, 1, 1]


@given(st.lists(st.integers(0, 6), min_size=1, max_size=30))
def test_colours_of_second_become_their_codes(codes):
    table = load_class_table("second")
    colours = {0: table.unchanged} | {e.code: e.colour for e in table.classes}
    rgb = np.array([[colours[code] for code in codes]]).transpose(2, 0, 1)
    assert table.from_rgb(rgb, "x.png").tolist() == [codes]


def test_a_colour_that_compression_changed_is_refused():
    rgb = np.array([127, 1, 0]).reshape(3, 1, 1)
    with pytest.raises(ConditionError, match=r"x\.png: colour #7f0100 .* without loss"):
        load_class_table("second").from_rgb(rgb, "x.png")


def test_only_codes_that_one_table_has_are_guessed():
    assert guess_table([10, 50, 0]) == "worldcover"
    assert guess_table([0, 1, 5]) is None
    assert guess_table([10, 11]) is None
    assert guess_table([]) is None


def test_classes_are_found_by_code_and_by_name():
    table = load_class_table("second")
    assert table.find("5") == table.find("5.0") == table.find(" Building ") == 5
    assert table.find("0") == 0
    assert table.find("house") is table.find("17") is None
    assert load_class_table("dynamic-world").find("0") == 1


def test_a_table_of_ones_own_is_read(tmp_path):
    table = load_class_table(write(tmp_path, TOML))
    assert (table.name, table.title, table.codes) == ("mine", "mine", (7,))
    assert table.unknown == 1
    assert table.palette()[7] == (0x10, 0x20, 0x30)


@pytest.mark.parametrize(
    ("change", "line", "message"),
    [
        (("code = 7", "code = -7"), 5, "code -7 is not a whole number"),
        (("code = 7", "code = true"), 5, "code True"),
        (("code = 7", "code = 255"), 5, "mask 255: in a change mask"),
        (("code = 7", "code = 300\nmask = 0"), 6, "mask 0: in a change mask"),
        (('"#102030"', '"blue"'), 7, "colour 'blue' is not like"),
        (('name = "moor"', "name = 3"), 6, "name 3 is not a text"),
        (('kind = "cover"', 'kind = "map"'), 2, "kind 'map'"),
        (('title = "mine"', "nodata = 4"), 1, "nodata 4 is not a list"),
        (('title = "mine"', "colour = 4"), 1, "unknown key 'colour'"),
        (("code = 7", "code = 7\nkey = 1"), 6, "unknown key 'key'"),
        (('title = "mine"', "nodata = [7]"), 5, "code 7 occurs twice"),
        (('"#102030"', '"#102030"\n[to.second]\n8 = 1'), 8, "each code of the table"),
        (('"#102030"', '"#102030"\n[to.mars]\n7 = 1'), 8, "no such table"),
        (("[[class]]", "[[class"), 4, "not TOML"),
    ],
)
def test_a_wrong_table_is_refused_with_its_line(tmp_path, change, line, message):
    path = write(tmp_path, TOML.replace(*change))
    with pytest.raises(InputError) as caught:
        load_class_table(path)
    assert f"mine.toml, line {line}:" in str(caught.value)
    assert message in str(caught.value)


def test_a_table_that_is_not_there_is_refused_with_the_names_of_those_that_are():
    with pytest.raises(InputError, match=r"nowhere: .*worldcover"):
        load_class_table("nowhere")
