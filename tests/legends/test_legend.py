"""Legends: what is shipped, how wide lines are, and which line of a file is wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rsupres.errors import InputError
from rsupres.legends.legend import Legend
from rsupres.legends.legend_file import load_legend, shipped_legends
from rsupres.legends.line_width import LineWidth

HEAD = 'kind = "classes"\nbackground = "#000000"\n'
CLASS = """
[[class]]
key = "house"
code = 1
order = 1
colour = "#ff0000"
geometry = "area"
tags = [{ building = true }]
"""


def column(*values: str | None) -> np.ndarray:
    texts = np.empty(len(values), object)
    texts[:] = values
    return texts


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def by_key(legend: Legend) -> dict[str, object]:
    return {entry.key: entry for entry in legend.classes}


def test_three_legends_are_shipped():
    assert shipped_legends() == ("classes", "maptiler", "osm-carto")


def test_classes_has_the_codes_and_the_order_of_its_definition():
    legend = load_legend("classes")
    drawn = [c.code for c in sorted(legend.classes, key=lambda c: c.order)]
    assert list(dict.fromkeys(drawn)) == [8, 9, 7, 5, 4, 10, 3, 6, 2, 1]
    assert {c.code: c.group for c in legend.classes} == {
        **{1: "building", 2: "road", 3: "water", 4: "wood", 5: "grass"},
        **{6: "railway", 7: "farmland", 8: "built_up", 9: "bare", 10: "sports"},
    }
    assert legend.kind == "classes"
    assert legend.palette()[0][0] == "nothing mapped"


def test_maptiler_has_exactly_the_colours_of_the_prompt_rules():
    legend = load_legend("maptiler")
    colours: dict[str, set[tuple[int, int, int]]] = {}
    for entry in legend.classes:
        colours.setdefault(entry.group, set()).add(entry.colour)
    assert colours["building"] == {(226, 224, 210)}
    assert colours["road"] == {(254, 254, 254), (255, 204, 133)}
    assert colours["water"] == {(133, 203, 249)}
    woods = {(217, 233, 198), (228, 236, 213), (208, 230, 190)}
    assert colours["wood"] == {(208, 230, 190)}
    assert colours["grass"] <= woods
    assert legend.background == (245, 240, 228)
    others = set().union(*(v for k, v in colours.items() if k not in ("wood", "grass")))
    assert not others & woods


@pytest.mark.parametrize("name", ["classes", "maptiler", "osm-carto"])
def test_shipped_legends_share_their_layers(name):
    groups = {entry.group for entry in load_legend(name).classes}
    assert groups == {
        *("building", "road", "water", "wood", "grass", "railway", "farmland"),
        *("built_up", "bare", "sports"),
    }


@pytest.mark.parametrize("name", ["classes", "maptiler", "osm-carto"])
def test_every_order_is_taken_once(name):
    orders = [entry.order for entry in load_legend(name).classes]
    assert len(orders) == len(set(orders))


def test_layers_are_chosen_by_key_or_group():
    legend = load_legend("maptiler")
    assert {c.key for c in legend.only(("road",)).classes} == {
        *("path", "road", "runway", "main_road")
    }
    assert [c.key for c in legend.only(("main_road",)).classes] == ["main_road"]
    with pytest.raises(InputError, match=r"no such layer; it has .*building"):
        legend.only(("houses",))


def test_only_rgb_can_be_antialiased():
    assert load_legend("maptiler").antialiased().antialias
    with pytest.raises(InputError, match="cannot blend the class codes"):
        load_legend("classes").antialiased()


@pytest.mark.parametrize(
    ("value", "lanes", "width", "metres"),
    [
        ("primary", None, None, 8.0),
        ("primary", "4", None, 14.5),
        ("primary", "1", None, 4.75),
        ("primary", "nonsense", None, 8.0),
        ("primary", "99", None, 8.0),
        ("primary", "4", "20", 20.0),
        ("primary", None, "12.5 m", 12.5),
        ("primary", None, "6,5", 6.5),
        ("primary", None, "10 ft", 3.048),
        ("primary", None, "20'", 6.096),
        ("primary", None, "5;6", 5.0),
        ("primary", None, "wide", 8.0),
        ("primary", None, "9000", 8.0),
        ("footway", "2", None, 2.0),
        ("other", None, None, 5.5),
        (None, None, None, 5.5),
    ],
)
def test_lanes_and_width_tags_correct_the_width(value, lanes, width, metres):
    usual = LineWidth(
        5.5, "highway", {"primary": (8.0, 2.0), "footway": (2.0, 0.0)}, 3.25
    )
    assert usual.metres(value, lanes, width) == pytest.approx(metres)


def test_a_class_takes_features_that_meet_all_tags_of_an_alternative(tmp_path):
    text = HEAD + CLASS.replace(
        "[{ building = true }]",
        '[{ building = true }, { amenity = ["a", "b"], roof = "flat" }]\n'
        'without = [{ building = "ruin" }]',
    )
    entry = load_legend(write(tmp_path / "own.toml", text)).classes[0]
    columns = {
        "building": column("yes", "no", "ruin", None, None, None),
        "amenity": column(None, None, None, "x;b", "a", "c"),
        "roof": column(None, None, None, "flat", None, "flat"),
    }
    assert entry.meets(columns).tolist() == [True, False, False, True, False, False]


def test_a_legend_may_be_a_file(tmp_path):
    legend = load_legend(write(tmp_path / "own.toml", HEAD + CLASS))
    assert legend.name == "own"
    assert legend.keys == (
        *("area", "bridge", "building", "lanes", "layer", "location", "tunnel"),
        "width",
    )


WRONG = [
    ("kind = ", 1, "not TOML"),
    (HEAD + CLASS.replace('"#ff0000"', '"#ff000"'), 8, "colour '#ff000'"),
    (HEAD + CLASS.replace('"#ff0000"', "[1, 2, 300]"), 8, "0 to 255"),
    (HEAD + CLASS.replace("code = 1", "code = 0"), 6, "code 0"),
    (HEAD + CLASS.replace("code = 1", "code = true"), 6, "code True"),
    (HEAD + CLASS.replace("code = 1\n", ""), 4, "no 'code'"),
    (HEAD + CLASS.replace('"area"', '"polygon"'), 9, "geometry 'polygon'"),
    (HEAD + CLASS.replace('"area"', '"line"'), 4, "no width"),
    (HEAD + CLASS.replace("true }]", "7 }]"), 10, "building = 7"),
    (HEAD + CLASS.replace("[{ building = true }]", '"building"'), 10, "tags must be"),
    (HEAD + CLASS + CLASS, 13, "class 'house' occurs twice"),
    (HEAD + CLASS + "colr = 1\n", 11, "unknown key 'colr'"),
    (HEAD + "colr = 1\n" + CLASS, 3, "unknown key 'colr'"),
    (HEAD.replace("classes", "class") + CLASS, 1, "kind 'class'"),
    (HEAD + "antialias = true\n" + CLASS, 3, "antialias"),
    (HEAD.replace("classes", "rgb") + CLASS, 6, "no codes"),
    (HEAD, 1, r"no \[\[class\]\]"),
    (HEAD + CLASS + "width = -2\n", 11, "default -2"),
    (HEAD + CLASS + "[class.width]\nlane = 3\n", 11, "no 'default'"),
    (
        HEAD + CLASS + "[class.width]\ndefault = 3\nkey = 'x'\n[class.width.values]\n"
        "a = [1, 2, 3]\n",
        15,
        "metres, lanes",
    ),
    (HEAD + CLASS + "casing = { colour = '#000000' }\n", 11, "casing must have"),
    (HEAD + CLASS + "on_top = 1\n", 11, "on_top 1"),
    (HEAD + CLASS.replace('key = "house"', 'key = ""'), 5, "is not a name"),
    (HEAD + CLASS.replace("order = 1", "order = 1.5"), 7, "order 1.5"),
]


@pytest.mark.parametrize(("text", "line", "reason"), WRONG)
def test_a_wrong_legend_is_refused_with_the_line(tmp_path, text, line, reason):
    # Where a value is wrong, its line is named; where one is missing, the class's.
    path = write(tmp_path / "wrong.toml", text)
    with pytest.raises(InputError, match=rf"wrong\.toml, line {line}: .*{reason}"):
        load_legend(path)


def test_a_legend_that_is_missing_names_those_that_are_shipped():
    with pytest.raises(InputError, match=r"classes, maptiler, osm-carto.*No such file"):
        load_legend("nowhere.toml")


def test_a_binary_legend_is_refused(tmp_path):
    path = tmp_path / "legend.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="UTF-8"):
        load_legend(str(path))


def test_classes_in_one_line_are_read_and_refused_by_that_line(tmp_path):
    one = '{key = "a", tags = [{a = true}], colour = "#010203", order = 1, '
    path = tmp_path / "legend.toml"
    path.write_text(f'kind = "rgb"\nclass = [{one}geometry = "area"}}]\n')
    assert load_legend(str(path)).classes[0].colour == (1, 2, 3)
    path.write_text(f'kind = "rgb"\nclass = [{one}geometry = "dot"}}]\n')
    with pytest.raises(InputError, match=r"legend\.toml, line \d: geometry 'dot'"):
        load_legend(str(path))
