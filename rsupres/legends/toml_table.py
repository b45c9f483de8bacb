"""Find and read TOML files with a head and `[[class]]` entries.

Shipped files are found by name, those of users by path. A wrong one is refused with the
line at fault. The callers define what the keys mean.
"""

from __future__ import annotations

import codecs
import hashlib
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any, NoReturn

from rsupres.errors import InputError

Colour = tuple[int, int, int]

_HEX = re.compile(r"#([0-9a-fA-F]{6})")
_TOML_LINE = re.compile(r"at line (\d+)")
_CLASS = re.compile(r"\s*\[\[\s*class\s*\]\]")


def _decode_toml(content: bytes, where: str) -> str:
    """Return UTF-8 text of a TOML file; a byte order mark is dropped."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise InputError(f"{where}: UTF-16 text; save it as UTF-8.")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise InputError(
            f"{where}, line {line}: not UTF-8 text; save it as UTF-8."
        ) from error


def read_content(path: Path) -> bytes:
    """Return the bytes of a file.

    Raises:
        InputError: it is missing, a folder, or unreadable.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file.") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from error


def read_toml(path: Path) -> dict[str, Any]:
    """Return the keys and values of a TOML file.

    Raises:
        InputError: it is missing, a folder, unreadable, or not TOML in UTF-8.
    """
    return parse_toml(path, read_content(path))


def parse_toml(path: Path, content: bytes) -> dict[str, Any]:
    """Return the keys and values of a TOML file whose bytes were read.

    Args:
        path: of the file, for messages.
        content: its bytes.

    Raises:
        InputError: it is not TOML in UTF-8.
    """
    try:
        return tomllib.loads(_decode_toml(content, str(path)))
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}: not valid TOML: {error}.") from error


@dataclass(frozen=True)
class TableFile:
    """The content of a TOML file.

    Attributes:
        name: of the shipped file, or the stem of the path.
        where: its name in messages.
        content: the bytes of the file.
    """

    name: str
    where: str
    content: bytes

    @property
    def sha256(self) -> str:
        """The hash of the file as hexadecimal text."""
        return hashlib.sha256(self.content).hexdigest()

    @cached_property
    def lines(self) -> list[str]:
        """The text, line by line."""
        return _decode_toml(self.content, self.where).splitlines()

    @cached_property
    def _starts(self) -> list[int]:
        """Index of the line where each `[[class]]` begins."""
        return [i for i, line in enumerate(self.lines) if _CLASS.match(line)]

    def read(self) -> Mapping[str, Any]:
        """Return the keys and values of the file.

        Raises:
            InputError: it is not UTF-8 text, or not TOML.
        """
        try:
            return tomllib.loads("\n".join(self.lines))
        except tomllib.TOMLDecodeError as error:
            found = _TOML_LINE.search(str(error))
            line = found[1] if found else str(len(self.lines) or 1)
            message = f"{self.where}, line {line}: not TOML: {error}."
            raise InputError(message) from error

    def line(self, index: int | None, *keys: str) -> int:
        """Return the number of the line, from 1, where a key is set.

        Args:
            index: of the class; None = the head of the file.
            keys: the first of them that is found counts; if none is, the line where
                the part begins.
        """
        first, last = 0, len(self.lines)
        if index is not None and index < len(self._starts):
            first, last = ([*self._starts, last])[index : index + 2]
        for key in keys:
            pattern = re.compile(
                rf"""\s*\[*\s*(?:class\s*\.\s*)?["']?{re.escape(key)}["']?\s*[=\].]"""
            )
            for number in range(first, last):
                if pattern.match(self.lines[number]):
                    return number + 1
        return first + 1

    def check_keys(
        self, keys: Iterable[str], known: set[str], index: int | None
    ) -> None:
        """Refuse unknown keys.

        Args:
            keys: those of the file.
            known: those that are allowed.
            index: of the class; None = the head of the file.

        Raises:
            InputError: a key is unknown.
        """
        for key in keys:
            if key not in known:
                names = ", ".join(sorted(known))
                self.refuse(f"unknown key {key!r}; known are {names}.", index, key)

    def refuse(self, message: str, index: int | None, *keys: str) -> NoReturn:
        """Raise an error that names the file and the line of a key.

        Args:
            message: what is wrong.
            index: of the class; None = the head of the file.
            keys: as for `line`.

        Raises:
            InputError: always.
        """
        raise InputError(f"{self.where}, line {self.line(index, *keys)}: {message}")


@dataclass(frozen=True)
class Shelf:
    """TOML files of one kind that come with the package.

    Attributes:
        package: that holds them.
        noun: how messages call one of them.
        argument: name of the argument that chooses one; "" when several do.
    """

    package: str
    noun: str
    argument: str = ""

    def names(self) -> tuple[str, ...]:
        """Return the names of the files, sorted."""
        entries = (Path(entry.name) for entry in files(self.package).iterdir())
        return tuple(sorted(path.stem for path in entries if path.suffix == ".toml"))

    def find(self, name_or_path: str) -> TableFile:
        """Return a shipped file by its name, or the file under a path.

        Raises:
            InputError: it is neither.
        """
        if name_or_path in self.names():
            place = files(self.package) / f"{name_or_path}.toml"
            return TableFile(name_or_path, name_or_path, place.read_bytes())
        path = Path(name_or_path)
        try:
            return TableFile(path.stem, str(path), path.read_bytes())
        except OSError as error:
            known = ", ".join(self.names())
            start = "" if self.argument else f"{self.noun} "
            raise InputError(
                f"{start}{name_or_path}: neither a shipped {self.noun} ({known}) nor a "
                f"file that can be read ({error.strerror}).",
                argument=self.argument,
            ) from error


def parse_hex(value: object) -> Colour | None:
    """Return (r, g, b) of a text like #80ff00, None for anything else."""
    found = _HEX.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        return None
    red, green, blue = bytes.fromhex(found[1])
    return red, green, blue
