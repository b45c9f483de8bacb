"""Read tables of land-cover classes: code, name, colour and value in a change mask.

    table = load_class_table("worldcover")
    mask_values = table.to_mask(codes, "cover.tif")

A table is a TOML file. In a change mask 0 means unchanged and 255 unknown, so a class
whose code is one of these has another value there. This module reads no rasters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeGuard

import numpy as np
from numpy.typing import NDArray

from rsupres.errors import ConditionError
from rsupres.legends.toml_table import Colour, Shelf, TableFile, parse_hex

UNCHANGED = 0
CHANGED = 1  # into an unknown class
NODATA = 255
MAX_CODE = 65_535
# Tag of a raster of classes: the name of its table.
TABLE_TAG = "RSUPRES_CLASS_TABLE"

_HEAD_KEYS = {"title", "kind", "nodata", "unchanged", "class", "to"}
_CLASS_KEYS = {"code", "mask", "name", "colour"}
_NAMED_FEW = 6
_SHELF = Shelf("rsupres.legends.classes", "class table")


@dataclass(frozen=True)
class LandClass:
    """One class of a table.

    Attributes:
        code: in rasters of the table.
        name: shown to people.
        colour: (r, g, b).
        mask: value in a change mask, 1 to 254.
    """

    code: int
    name: str
    colour: Colour
    mask: int


@dataclass(frozen=True)
class ClassTable:
    """The classes that the codes of a raster stand for.

    Attributes:
        name: of the shipped table, or of the file.
        title: shown to people.
        kind: "cover" for land cover at one date; "change" for labels of change, where
            code 0 is unchanged.
        classes: in the file's order.
        nodata: codes that mean no observation.
        unchanged: colour of unchanged ground in RGB labels, None when it has none.
        crosswalks: name of another table -> code here -> code there.
        sha256: of the file.
    """

    name: str
    title: str
    kind: Literal["cover", "change"]
    classes: tuple[LandClass, ...]
    nodata: tuple[int, ...]
    unchanged: Colour | None
    crosswalks: Mapping[str, Mapping[int, int]]
    sha256: str

    @property
    def codes(self) -> tuple[int, ...]:
        """Codes of the classes."""
        return tuple(entry.code for entry in self.classes)

    def mask_classes(self) -> dict[int, LandClass]:
        """Return the classes by their value in a change mask."""
        return {entry.mask: entry for entry in self.classes}

    @property
    def unknown(self) -> int:
        """Mask value of changed ground whose class is not known.

        1 where no class has that value, else 255.
        """
        return NODATA if CHANGED in self.mask_classes() else CHANGED

    def palette(self) -> dict[int, Colour]:
        """Return the colours of mask values 0, the classes and 255."""
        colours = {UNCHANGED: (255, 255, 255), CHANGED: (255, 0, 255)}
        colours |= {entry.mask: entry.colour for entry in self.classes}
        return colours | {NODATA: (0, 0, 0)}

    def names(self) -> dict[int, str]:
        """Return the names of the mask values above 0."""
        names = {CHANGED: "changed"} if self.unknown == CHANGED else {}
        return names | {entry.mask: entry.name for entry in self.classes}

    def find(self, text: str) -> int | None:
        """Return the mask value of a class given by code or name, None for neither."""
        try:
            number = float(text)
        except ValueError:
            wanted = text.strip().casefold()
            found = [e.mask for e in self.classes if e.name.casefold() == wanted]
            return found[0] if found else None
        if self.kind == "change" and number == UNCHANGED:
            return UNCHANGED
        masks = [entry.mask for entry in self.classes if entry.code == number]
        return masks[0] if masks else None

    def as_table(self, target: ClassTable) -> ClassTable:
        """Return this table with the mask values, names and colours of another.

        Raises:
            ConditionError: there is no crosswalk to it, or one with unknown codes.
        """
        if target.name == self.name:
            return self
        crosswalk = self.crosswalks.get(target.name)
        if crosswalk is None:
            known = ", ".join(self.crosswalks) or "none"
            raise ConditionError(
                f"class table {self.name}: there is no crosswalk to {target.name}, "
                f"only to: {known}."
            )
        there = {entry.code: entry for entry in target.classes}
        lost = sorted({*crosswalk.values()} - there.keys())
        if lost:
            raise ConditionError(
                f"class table {self.name}: its crosswalk to {target.name} names code "
                f"{lost[0]}, which that table does not have."
            )
        classes = tuple(
            replace(there[crosswalk[code]], code=code) for code in self.codes
        )
        return replace(
            self, name=target.name, title=target.title, classes=classes, crosswalks={}
        )

    def to_mask(
        self, codes: NDArray[np.integer[Any]], where: str, *, as_labels: bool = False
    ) -> NDArray[np.uint8]:
        """Return codes as values of a change mask, of the same shape.

        Args:
            codes: of a raster of this table; any shape.
            where: name of the file, for messages.
            as_labels: the codes are values of a change mask already: 0 unchanged, 255
                unknown. Always true for tables of kind "change".

        Raises:
            ConditionError: codes that the table does not have; the message names some.
        """
        values = np.full(MAX_CODE + 2, -1, np.int16)
        values[list(self.nodata)] = NODATA
        if as_labels or self.kind == "change":
            values[NODATA] = NODATA
            values[UNCHANGED] = UNCHANGED
            values[self.unknown] = self.unknown
            values[[entry.mask for entry in self.classes]] = [
                entry.mask for entry in self.classes
            ]
        if not as_labels or self.kind == "change":
            values[list(self.codes)] = [entry.mask for entry in self.classes]
        strange = MAX_CODE + 1
        inside = np.where((codes < 0) | (codes > MAX_CODE), strange, codes)
        found = values[inside]
        if (found < 0).any():
            raise self._refusal(np.unique(codes[found < 0]), where)
        return found.astype(np.uint8)

    def from_rgb(self, rgb: NDArray[np.integer[Any]], where: str) -> NDArray[np.int32]:
        """Return codes (h, w) of a picture in the table's colours, 0 where unchanged.

        Args:
            rgb: (3, h, w), 0 to 255.
            where: name of the file, for messages.

        Raises:
            ConditionError: a colour that the table does not have.
        """
        red, green, blue = (band.astype(np.int32) for band in rgb)
        packed = (red << 16) | (green << 8) | blue
        codes = np.full(packed.shape, -1, np.int32)
        colours = {entry.colour: entry.code for entry in reversed(self.classes)}
        if self.unchanged is not None:
            colours[self.unchanged] = UNCHANGED
        for (r, g, b), code in colours.items():
            codes[packed == (r << 16) | (g << 8) | b] = code
        strange = np.unique(packed[codes < 0])
        if len(strange):
            raise ConditionError(
                f"{where}: colour #{strange[0]:06x} is not in class table "
                f"{self.name}; use a file stored without loss, or another table."
            )
        return codes

    def _refusal(self, strange: NDArray[np.integer[Any]], where: str) -> ConditionError:
        """Return the error for codes that the table does not have."""
        few = ", ".join(str(code) for code in strange[:_NAMED_FEW])
        more = (
            f" and {len(strange) - _NAMED_FEW} more"
            if len(strange) > _NAMED_FEW
            else ""
        )
        noun = "class" if len(strange) == 1 else "classes"
        known = ", ".join(str(code) for code in self.codes)
        guess = guess_table(strange)
        hint = "" if guess in (None, self.name) else f" It may be {guess}."
        return ConditionError(
            f"{where}: {noun} {few}{more} not in class table {self.name} ({known}); "
            f"choose another table.{hint}",
            remedies=("class_table",),
        )


def shipped_class_tables() -> tuple[str, ...]:
    """Return the names of the tables that come with the package."""
    return _SHELF.names()


def load_class_table(name_or_path: str) -> ClassTable:
    """Read a class table: a shipped one by its name, or a TOML file.

    Raises:
        InputError: there is none, or the file is wrong, with the line at fault.
    """
    return _parse(_SHELF.find(name_or_path))


def guess_table(codes: Sequence[int] | NDArray[np.integer[Any]]) -> str | None:
    """Return the only shipped land-cover table that has all of the codes, else None.

    Only WorldCover has codes that no other shipped table has. Tables that are not
    shipped have the same codes with other meanings, so this is a guess.
    """
    present = {int(code) for code in codes}
    worldcover = load_class_table("worldcover")
    known = {*worldcover.codes, *worldcover.nodata, NODATA}
    return "worldcover" if present <= known and max(present, default=0) >= 10 else None


def _parse(source: TableFile) -> ClassTable:
    document = source.read()
    source.check_keys(document, _HEAD_KEYS, None)
    kind = document.get("kind", "cover")
    if kind not in ("cover", "change"):
        source.refuse(f"kind {kind!r} is neither 'cover' nor 'change'.", None, "kind")
    entries = document.get("class")
    if not isinstance(entries, list) or not entries:
        source.refuse("there are no [[class]] tables.", None, "class")
    classes = tuple(_class(entry, i, kind, source) for i, entry in enumerate(entries))
    nodata = document.get("nodata", [])
    if not isinstance(nodata, list) or not all(_is_code(code) for code in nodata):
        source.refuse(f"nodata {nodata!r} is not a list of codes.", None, "nodata")
    _check_unique(classes, nodata, source)
    unchanged = document.get("unchanged")
    return ClassTable(
        name=source.name,
        title=str(document.get("title", source.name)),
        kind=kind,
        classes=classes,
        nodata=tuple(nodata),
        unchanged=None
        if unchanged is None
        else _colour(unchanged, None, "unchanged", source),
        crosswalks=_crosswalks(document.get("to", {}), classes, source),
        sha256=source.sha256,
    )


def _class(entry: object, index: int, kind: str, source: TableFile) -> LandClass:
    if not isinstance(entry, dict):
        source.refuse("[[class]] is not a table.", index)
    source.check_keys(entry, _CLASS_KEYS, index)
    code = entry.get("code")
    if not _is_code(code) or (kind == "change" and code == UNCHANGED):
        smallest = 1 if kind == "change" else 0
        source.refuse(
            f"code {code!r} is not a whole number from {smallest} to {MAX_CODE}.",
            index,
            "code",
        )
    mask = entry.get("mask", code)
    if not _is_code(mask) or not UNCHANGED < mask < NODATA:
        source.refuse(
            f"mask {mask!r}: in a change mask a class is 1 to 254; 0 is unchanged and "
            "255 unknown.",
            index,
            "mask" if "mask" in entry else "code",
        )
    name = entry.get("name")
    if not isinstance(name, str) or not name.strip():
        source.refuse(f"name {name!r} is not a text.", index, "name")
    colour = _colour(entry.get("colour"), index, "colour", source)
    return LandClass(int(code), name.strip(), colour, int(mask))


def _check_unique(
    classes: Sequence[LandClass], nodata: Sequence[int], source: TableFile
) -> None:
    seen = set(nodata)
    names: dict[int, str] = {}
    for index, entry in enumerate(classes):
        if entry.code in seen:
            source.refuse(f"code {entry.code} occurs twice.", index, "code")
        if names.setdefault(entry.mask, entry.name) != entry.name:
            source.refuse(f"mask value {entry.mask} has two names.", index, "mask")
        seen.add(entry.code)


def _crosswalks(
    tables: object, classes: Sequence[LandClass], source: TableFile
) -> dict[str, dict[int, int]]:
    if not isinstance(tables, dict):
        source.refuse("[to] is not a table.", None, "to")
    crosswalks: dict[str, dict[int, int]] = {}
    codes = {str(entry.code) for entry in classes}
    for name, pairs in tables.items():
        if not isinstance(pairs, dict) or pairs.keys() != codes:
            source.refuse(
                f"[to.{name}] must have each code of the table once.",
                None,
                f"to.{name}",
            )
        if name not in shipped_class_tables():
            source.refuse(f"[to.{name}]: no such table.", None, f"to.{name}")
        wrong = [v for v in pairs.values() if not _is_code(v)]
        if wrong:
            source.refuse(
                f"[to.{name}]: {wrong[0]!r} is not a code.", None, f"to.{name}"
            )
        crosswalks[name] = {int(key): int(value) for key, value in pairs.items()}
    return crosswalks


def _colour(value: object, index: int | None, key: str, source: TableFile) -> Colour:
    colour = parse_hex(value)
    if colour is None:
        source.refuse(f"{key} {value!r} is not like '#80ff00'.", index, key)
    return colour


def _is_code(value: object) -> TypeGuard[int]:
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    return is_whole and 0 <= int(str(value)) <= MAX_CODE
