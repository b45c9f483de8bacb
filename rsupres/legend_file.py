"""The TOML of a legend: read, checked key by key, refused with the line at fault.

`rsupres.legend` gives what is read here its meaning.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

from rsupres.errors import InputError

_HEAD_KEYS = {"kind", "title", "background", "antialias", "class"}
_CLASS_KEYS = {
    *("key", "layer", "tags", "without", "colour", "code", "order", "geometry"),
    *("width", "on_top", "casing"),
}
_WIDTH_KEYS = {"default", "key", "values", "lane"}
_HEX = re.compile(r"#([0-9a-fA-F]{6})")
_TOML_LINE = re.compile(r"at line (\d+)")

Colour = tuple[int, int, int]
Wanted = Mapping[str, frozenset[str] | None]


@dataclass(frozen=True)
class Head:
    """What stands before the classes."""

    kind: Literal["rgb", "classes"]
    background: Colour
    antialias: bool


@dataclass(frozen=True)
class ClassTable:
    """One `[[class]]`, checked."""

    key: str
    group: str
    tags: tuple[Wanted, ...]
    without: tuple[Wanted, ...]
    colour: Colour
    code: int
    order: int
    geometry: Literal["area", "line", "any"]
    width: dict[str, Any] | None
    on_top: bool
    casing: tuple[Colour, float] | None


class _Source:
    """The text of a legend file, to find lines in."""

    def __init__(self, text: str, where: str) -> None:
        self.where = where
        self._lines = text.splitlines()
        self._starts = [
            number
            for number, line in enumerate(self._lines)
            if re.match(r"\s*\[\[\s*class\s*\]\]", line)
        ]

    def line(self, index: int | None, *keys: str) -> int:
        """Return the line, from 1, of a key in the head (None) or in a class.

        The first of several keys that is found; else where the part begins.
        """
        if index is None:
            first, last = 0, (self._starts or [len(self._lines)])[0]
        else:
            stops = [*self._starts[1:], len(self._lines)]
            first, last = self._starts[index], stops[index]
        for key in keys:
            pattern = re.compile(
                rf"""\s*\[?(?:class\s*\.\s*)?["']?{re.escape(key)}["']?\s*[=\].]"""
            )
            for number in range(first, last):
                if pattern.match(self._lines[number]):
                    return number + 1
        return first + 1

    def refuse(self, message: str, index: int | None, *keys: str) -> NoReturn:
        """Raise with the file and the line of the first of the keys that is there."""
        raise InputError(f"{self.where}, line {self.line(index, *keys)}: {message}")


def read_classes(content: bytes, where: str) -> tuple[Head, list[ClassTable]]:
    """Read a legend file.

    Args:
        content: of the file.
        where: its name, for messages.

    Raises:
        InputError: not TOML, or a key or value is wrong; names the line.
    """
    try:
        text = content.decode("utf-8")
        document = tomllib.loads(text)
    except UnicodeDecodeError as error:
        raise InputError(f"{where}: is not UTF-8 text.") from error
    except tomllib.TOMLDecodeError as error:
        found = _TOML_LINE.search(str(error))
        line = found[1] if found else str(len(text.splitlines()) or 1)
        raise InputError(f"{where}, line {line}: not TOML: {error}.") from error
    source = _Source(text, where)
    head = _head(document, source)
    tables = document["class"]
    classes = [_class(table, i, head, source) for i, table in enumerate(tables)]
    seen: set[str] = set()
    for index, entry in enumerate(classes):
        if entry.key in seen:
            source.refuse(f"a second class {entry.key!r}.", index, "key")
        seen.add(entry.key)
    return head, classes


def _head(document: Mapping[str, Any], source: _Source) -> Head:
    for key in document:
        if key not in _HEAD_KEYS:
            source.refuse(f"unknown key {key!r}{_known(_HEAD_KEYS)}", None, key)
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
    return Head("rgb" if kind == "rgb" else "classes", background, antialias)


def _class(
    table: Mapping[str, Any], index: int, head: Head, source: _Source
) -> ClassTable:
    for key in table:
        if key not in _CLASS_KEYS:
            source.refuse(f"unknown key {key!r}{_known(_CLASS_KEYS)}", index, key)
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
    return ClassTable(
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


def _code(table: Mapping[str, Any], index: int, head: Head, source: _Source) -> int:
    if head.kind == "rgb":
        if "code" in table:
            source.refuse("an rgb legend has no codes.", index, "code")
        return 0
    if "code" not in table:
        source.refuse("this class has no 'code'.", index)
    return _integer(table["code"], 1, 254, source, index, "code")


def _tags(
    value: object, source: _Source, index: int, key: str, may_be_empty: bool = False
) -> tuple[Wanted, ...]:
    if not isinstance(value, list) or not (value or may_be_empty):
        source.refuse(
            f'{key} must be a list such as [{{ building = true }}, {{ landuse = ["re'
            'sidential"] }].',
            index,
            key,
        )
    return tuple(_wanted(item, source, index, key) for item in value)


def _wanted(item: object, source: _Source, index: int, key: str) -> Wanted:
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


def _width(
    table: Mapping[str, Any], index: int, source: _Source
) -> dict[str, Any] | None:
    value = table.get("width")
    if value is None:
        return None
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = {"default": value}
    if not isinstance(value, dict):
        source.refuse(f"width {value!r} is neither metres nor a table.", index, "width")
    for key in value:
        if key not in _WIDTH_KEYS:
            source.refuse(f"unknown key {key!r}{_known(_WIDTH_KEYS)}", index, key)
    if "default" not in value:
        source.refuse("width has no 'default'.", index, "width")
    if ("values" in value) != ("key" in value):
        source.refuse("width needs both 'key' and 'values', or none.", index, "width")
    entries = value.get("values", {})
    if not isinstance(entries, dict):
        source.refuse(f"values {entries!r} is no table.", index, "values")
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
    return {
        "default_m": _metres(value["default"], source, index, "default"),
        "key": value.get("key", ""),
        "by_value": by_value,
        "lane_m": _number(value.get("lane", 0), 0, 10, source, index, "lane"),
    }


def _casing(
    table: Mapping[str, Any], index: int, source: _Source
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


def _colour(value: object, source: _Source, index: int | None, key: str) -> Colour:
    if isinstance(value, str) and (found := _HEX.fullmatch(value)):
        number = int(found[1], 16)
        return number >> 16, number >> 8 & 255, number & 255
    if (
        isinstance(value, list)
        and len(value) == 3
        and all(type(part) is int and 0 <= part <= 255 for part in value)
    ):
        return value[0], value[1], value[2]
    source.refuse(
        f"{key} {value!r} is neither '#rrggbb' nor [r, g, b] of 0 to 255.", index, key
    )


def _metres(value: object, source: _Source, index: int, key: str) -> float:
    return _number(value, 0.1, 1000, source, index, key)


def _number(
    value: object, low: float, high: float, source: _Source, index: int, key: str
) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        source.refuse(f"{key} {value!r} is not a number.", index, key, "width")
    if not low <= value <= high:
        source.refuse(
            f"{key} {value!r} is not in {low:g}...{high:g}.", index, key, "width"
        )
    return float(value)


def _integer(
    value: object, low: int, high: int, source: _Source, index: int, key: str
) -> int:
    if type(value) is not int or not low <= value <= high:
        source.refuse(
            f"{key} {value!r} is not a whole number of {low} to {high}.", index, key
        )
    return value


def _boolean(value: object, source: _Source, index: int, key: str) -> bool:
    if not isinstance(value, bool):
        source.refuse(f"{key} {value!r} is neither true nor false.", index, key)
    return value


def _known(keys: set[str]) -> str:
    return f"; known are {', '.join(sorted(keys))}."
