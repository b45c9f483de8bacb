"""Read a legend from TOML; refuse a wrong one with the line at fault.

`rsupres.legends.legend` defines what its keys mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from rsupres.legends.legend import Legend, LegendClass, Wanted
from rsupres.legends.line_width import LineWidth
from rsupres.legends.toml_table import Colour, Shelf, TableFile, parse_hex

_HEAD_KEYS = {"kind", "title", "background", "antialias", "class"}
_CLASS_KEYS = {
    *("key", "layer", "tags", "without", "colour", "code", "order", "geometry"),
    *("width", "on_top", "casing"),
}
_WIDTH_KEYS = {"default", "key", "values", "lane"}
_SHELF = Shelf("rsupres.legends", "legend", argument="legend")


@dataclass(frozen=True)
class _Head:
    """The keys before the classes."""

    kind: Literal["rgb", "classes"]
    background: Colour
    antialias: bool


def shipped_legends() -> tuple[str, ...]:
    """Return the names of the legends that come with the package."""
    return _SHELF.names()


def load_legend(name_or_path: str) -> Legend:
    """Read a legend: a shipped one by its name, or a TOML file.

    Raises:
        InputError: there is none, or the file is wrong, with the line at fault.
    """
    source = _SHELF.find(name_or_path)
    document = source.read()
    head = _head(document, source)
    classes: list[LegendClass] = []
    for index, table in enumerate(document["class"]):
        entry = _class(table, index, head, source)
        if entry.key in {other.key for other in classes}:
            source.refuse(f"class {entry.key!r} occurs twice.", index, "key")
        classes.append(entry)
    return Legend(
        name=source.name,
        kind=head.kind,
        classes=tuple(classes),
        background=head.background,
        antialias=head.antialias,
        sha256=source.sha256,
    )


def _head(document: Mapping[str, Any], source: TableFile) -> _Head:
    source.check_keys(document, _HEAD_KEYS, None)
    kind = document.get("kind")
    if kind not in ("rgb", "classes"):
        source.refuse(f"kind {kind!r} is neither 'rgb' nor 'classes'.", None, "kind")
    tables = document.get("class")
    if not isinstance(tables, list) or not tables:
        source.refuse("there are no [[class]] tables.", None, "class")
    antialias = document.get("antialias", False)
    if not isinstance(antialias, bool) or (antialias and kind == "classes"):
        source.refuse(
            f"antialias {antialias!r}: true or false, and only false for classes.",
            None,
            "antialias",
        )
    background = _colour(
        document.get("background", "#000000"), source, None, "background"
    )
    return _Head("rgb" if kind == "rgb" else "classes", background, antialias)


def _class(
    table: Mapping[str, Any], index: int, head: _Head, source: TableFile
) -> LegendClass:
    source.check_keys(table, _CLASS_KEYS, index)
    for key in ("key", "tags", "colour", "order", "geometry"):
        if key not in table:
            source.refuse(f"this class has no {key!r}.", index)
    name, group = table["key"], table.get("layer", table["key"])
    for key, text in (("key", name), ("layer", group)):
        if not isinstance(text, str) or not text or "," in text:
            source.refuse(f"{key} {text!r} is not a name.", index, key)
    geometry = table["geometry"]
    if geometry not in ("area", "line", "any"):
        source.refuse(
            f"geometry {geometry!r} is not 'area', 'line' or 'any'.", index, "geometry"
        )
    width = _width(table, index, source)
    if geometry != "area" and width is None:
        source.refuse(f"class {name!r} draws lines and has no width.", index)
    return LegendClass(
        key=name,
        group=group,
        tags=_tags(table["tags"], source, index, "tags"),
        without=_tags(table.get("without", []), source, index, "without", True),
        colour=_colour(table["colour"], source, index, "colour"),
        code=_code(table, index, head, source),
        order=_integer(table["order"], -(10**6), 10**6, source, index, "order"),
        geometry=geometry,
        width=width,
        on_top=_boolean(table.get("on_top", False), source, index, "on_top"),
        casing=_casing(table, index, source),
    )


def _code(table: Mapping[str, Any], index: int, head: _Head, source: TableFile) -> int:
    if head.kind == "rgb":
        if "code" in table:
            source.refuse("an rgb legend has no codes.", index, "code")
        return 0
    if "code" not in table:
        source.refuse("this class has no 'code'.", index)
    return _integer(table["code"], 1, 254, source, index, "code")


def _tags(
    value: object, source: TableFile, index: int, key: str, may_be_empty: bool = False
) -> tuple[Wanted, ...]:
    if not isinstance(value, list) or not (value or may_be_empty):
        source.refuse(
            f'{key} must be a list such as [{{ building = true }}, {{ landuse = ["re'
            'sidential"] }].',
            index,
            key,
        )
    return tuple(_wanted(item, source, index, key) for item in value)


def _wanted(item: object, source: TableFile, index: int, key: str) -> Wanted:
    if not isinstance(item, dict) or not item:
        source.refuse(f"{key}: {item!r} is not a table of tags.", index, key)
    wanted: dict[str, frozenset[str] | None] = {}
    for tag, value in item.items():
        values = [value] if isinstance(value, str) else value
        if value is True:
            wanted[tag] = None
        elif (
            isinstance(values, list)
            and values
            and all(isinstance(v, str) and v for v in values)
        ):
            wanted[tag] = frozenset(values)
        else:
            source.refuse(
                f"{key}: {tag} = {value!r} is neither true (any value) nor a text nor "
                "a list of texts.",
                index,
                key,
            )
    return wanted


def _width(table: Mapping[str, Any], index: int, source: TableFile) -> LineWidth | None:
    value = table.get("width")
    if value is None:
        return None
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = {"default": value}
    if not isinstance(value, dict):
        source.refuse(f"width {value!r} is neither metres nor a table.", index, "width")
    source.check_keys(value, _WIDTH_KEYS, index)
    if "default" not in value:
        source.refuse("width has no 'default'.", index, "width")
    if ("values" in value) != ("key" in value):
        source.refuse("width needs both 'key' and 'values', or none.", index, "width")
    entries = value.get("values", {})
    if not isinstance(entries, dict):
        source.refuse(f"values {entries!r} is not a table.", index, "values")
    by_value = {}
    for name, entry in entries.items():
        pair = entry if isinstance(entry, list) else [entry, 0]
        if len(pair) != 2:
            source.refuse(
                f"{name} = {entry!r} is not metres or [metres, lanes].", index, name
            )
        by_value[name] = (
            _metres(pair[0], source, index, name),
            _number(pair[1], 0, 16, source, index, name),
        )
    return LineWidth(
        default_m=_metres(value["default"], source, index, "default"),
        key=value.get("key", ""),
        by_value=by_value,
        lane_m=_number(value.get("lane", 0), 0, 10, source, index, "lane"),
    )


def _casing(
    table: Mapping[str, Any], index: int, source: TableFile
) -> tuple[Colour, float] | None:
    value = table.get("casing")
    if value is None:
        return None
    if not isinstance(value, dict) or set(value) != {"colour", "width"}:
        source.refuse("casing must have 'colour' and 'width'.", index, "casing")
    return (
        _colour(value["colour"], source, index, "casing"),
        _metres(value["width"], source, index, "casing"),
    )


def _colour(value: object, source: TableFile, index: int | None, key: str) -> Colour:
    colour = parse_hex(value)
    if colour is not None:
        return colour
    if (
        isinstance(value, list)
        and len(value) == 3
        and all(type(part) is int and 0 <= part <= 255 for part in value)
    ):
        return value[0], value[1], value[2]
    source.refuse(
        f"{key} {value!r} is neither '#rrggbb' nor [r, g, b] of 0 to 255.", index, key
    )


def _metres(value: object, source: TableFile, index: int, key: str) -> float:
    return _number(value, 0.1, 1000, source, index, key)


def _number(
    value: object, low: float, high: float, source: TableFile, index: int, key: str
) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        source.refuse(f"{key} {value!r} is not a number.", index, key, "width")
    if not low <= value <= high:
        source.refuse(
            f"{key} {value!r} is not in {low:g}...{high:g}.", index, key, "width"
        )
    return float(value)


def _integer(
    value: object, low: int, high: int, source: TableFile, index: int, key: str
) -> int:
    if type(value) is not int or not low <= value <= high:
        source.refuse(
            f"{key} {value!r} is not a whole number of {low} to {high}.", index, key
        )
    return value


def _boolean(value: object, source: TableFile, index: int, key: str) -> bool:
    if not isinstance(value, bool):
        source.refuse(f"{key} {value!r} is neither true nor false.", index, key)
    return value
