"""Kinds of values that options take: scales, shards, bands, lists of paths.

Texts become values here; nothing is opened but the files that ``@list.txt`` names.
`stacked` makes one decorator of several parameters, so that they are written once.
"""

from __future__ import annotations

import codecs
import os
import re
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import click

from rsupres.errors import GridError

Command = TypeVar("Command", bound=Callable[..., Any])


def stacked(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Return a decorator that adds options or arguments, shown in this order."""

    def add(function: Command) -> Command:
        for option in reversed(options):
            function = option(function)
        return function

    return add


class Renamed(NamedTuple):
    """An option that was given under its former name.

    Attributes:
        former: as it was typed, such as "--change-classes".
        current: such as "--class-table".
        value: what was given.
    """

    former: str
    current: str
    value: object


def former_option(
    former: str, current: str, *, short: str | None = None, **kind: Any
) -> Callable[[Command], Command]:
    """Return a decorator that keeps accepting an option under its former name.

    The help does not show it. `console_options` hands its value to the command as that
    of the current option, and warns.

    Args:
        former: such as "--change-classes".
        current: such as "--class-table", an option or argument of the same command.
        short: a short form that is accepted, too.
        **kind: type and number of its values, for Click.
    """

    def keep(ctx: click.Context, param: click.Parameter, value: object) -> None:
        if value is not None:
            renamed = ctx.meta.setdefault("rsupres.renamed", [])
            renamed.append(Renamed(former, current, value))

    return click.option(
        *([short] if short else []),
        former,
        hidden=True,
        expose_value=False,
        callback=keep,
        help=f"Former name of {current}.",
        **kind,
    )


class TextType(click.ParamType[Any]):
    """A value that is given as text; values of other types are taken as they are."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Any:  # of the subclass
        """Return the value of a text."""
        return self.parse(value) if isinstance(value, str) else value

    def parse(self, text: str) -> Any:  # of the subclass
        """Return the value of a text, or refuse it with `click.BadParameter`."""
        raise NotImplementedError


class ScaleType(TextType):
    """A positive factor: ``4``, ``2.5`` or ``10/3``, kept exact."""

    name = "scale"

    def parse(self, text: str) -> Fraction:
        """Return the factor as a `Fraction`."""
        from rsupres.grid import as_scale

        try:
            return as_scale(text)
        except GridError as error:
            raise click.BadParameter(str(error)) from error


class BatchType(TextType):
    """A number of tiles, or ``auto``."""

    name = "batch"

    def parse(self, text: str) -> int | None:
        """Return the number, None for ``auto``."""
        if text == "auto":
            return None
        try:
            number = int(text)
        except ValueError:
            number = 0
        if number < 1:
            raise click.BadParameter(f"{text!r} is neither a number from 1 nor auto.")
        return number


class ShardType(TextType):
    """A share of the work, ``I/N`` with 1 <= I <= N."""

    name = "shard"

    def parse(self, text: str) -> tuple[int, int]:
        """Return (I, N)."""
        first, _, second = text.partition("/")
        if first.isdecimal() and second.isdecimal() and 1 <= int(first) <= int(second):
            return int(first), int(second)
        raise click.BadParameter(f"{text!r} is not I/N with 1 <= I <= N, such as 2/8.")


class BandsType(TextType):
    """File bands by number, ``3,2,1``."""

    name = "bands"

    def parse(self, text: str) -> tuple[int, ...]:
        """Return the numbers, 1-based."""
        parts = [part.strip() for part in text.split(",")]
        if all(part.isdecimal() and int(part) > 0 for part in parts):
            return tuple(int(part) for part in parts)
        raise click.BadParameter(
            f"{text!r} is not a list of band numbers such as 3,2,1."
        )


class NamedBandsType(TextType):
    """File bands by role, ``red=3,green=2,blue=1``."""

    name = "role=band,..."

    def parse(self, text: str) -> tuple[tuple[str, int], ...]:
        """Return pairs of role and 1-based band number, in the given order."""
        pairs: list[tuple[str, int]] = []
        for part in text.split(","):
            role, _, number = (piece.strip() for piece in part.partition("="))
            if not role or not number.isdecimal() or int(number) < 1:
                raise click.BadParameter(f"{part!r} is not ROLE=BAND such as red=3.")
            if role.lower() in dict(pairs):
                raise click.BadParameter(f"{text!r} gives {role.lower()} two bands.")
            pairs.append((role.lower(), int(number)))
        return tuple(pairs)


class DurationType(TextType):
    """A time such as ``5h``, ``90m``, ``1h30m`` or ``45s``, in seconds."""

    name = "duration"

    def parse(self, text: str) -> float:
        """Return the seconds."""
        found = re.fullmatch(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", text)
        if found is None or not any(found.groups()):
            raise click.BadParameter(
                f"{text!r} is no time such as 5h, 90m, 1h30m or 45s."
            )
        days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
        total_s = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
        if total_s == 0:
            raise click.BadParameter(f"{text!r} is no time at all.")
        return float(total_s)


class LayersType(TextType):
    """Classes of a legend, ``building,road``."""

    name = "layers"

    def parse(self, text: str) -> tuple[str, ...]:
        """Return the keys in the given order."""
        keys = tuple(part.strip().lower() for part in text.split(","))
        if not all(keys):
            raise click.BadParameter(
                f"{text!r} is not a list of classes such as building,road."
            )
        return keys


def split_creation(
    ctx: click.Context, param: click.Parameter, values: tuple[str, ...]
) -> tuple[tuple[str, str], ...]:
    """Return KEY=VALUE texts as pairs; keys in capitals, as GDAL wants them.

    Args:
        ctx: of the command.
        param: the option.
        values: KEY=VALUE texts.
    """
    pairs = []
    for text in values:
        key, sign, value = text.partition("=")
        if not sign or not key.strip():
            raise click.BadParameter(f"{text!r} is not KEY=VALUE.", ctx, param)
        pairs.append((key.strip().upper(), value.strip()))
    return tuple(pairs)


def note_read(ctx: click.Context, name: str, path: str) -> None:
    """Note a file that options are read from, so that no output replaces it.

    Args:
        ctx: of the command.
        name: of the option or argument.
        path: of the file.
    """
    files_read(ctx).setdefault(name, []).append(path)


def files_read(ctx: click.Context) -> dict[str, list[str]]:
    """Return the files that options were read from, by parameter."""
    found: dict[str, list[str]] = ctx.meta.setdefault("rsupres.read", {})
    return found


def expand_lists(
    ctx: click.Context, param: click.Parameter, values: tuple[str, ...]
) -> tuple[str, ...]:
    """Return paths, each ``@list.txt`` replaced by those in that file, one a line.

    Blank lines and those that begin with ``#`` are left out, and so is a comment after
    a path and a space. The file may begin with a byte order mark and end its lines as
    on Windows.

    Args:
        ctx: of the command.
        param: the argument.
        values: paths, and lists marked by ``@``.
    """
    paths: list[str] = []
    for text in values:
        if not text.startswith("@"):
            paths.append(text)
            continue
        try:
            note_read(ctx, f"list of {param.name}", text[1:])
            stored = Path(text[1:]).read_bytes()
        except OSError as error:
            reason = error.strerror or error
            raise click.BadParameter(f"{text} cannot be read: {reason}.") from error
        found = [name for line in _lines(stored) if (name := _without_comment(line))]
        if not found:
            raise click.BadParameter(f"{text} names no path.")
        paths += found
    return tuple(paths)


def check_output_given(
    ctx: click.Context, param: click.Parameter, value: object
) -> object:
    """Refuse a single path, which Click takes for the output; else return it.

    A callback of the last argument of commands whose first takes any number of paths.

    Args:
        ctx: of the command.
        param: the argument.
        value: of the argument.
    """
    first = next(p for p in ctx.command.params if isinstance(p, click.Argument))
    if value is not None and not ctx.params.get(first.name or ""):
        raise click.MissingParameter(ctx=ctx, param=param)
    return value


def _lines(stored: bytes) -> list[str]:
    """Return the lines of a text file; names that are no UTF-8 are kept as they are."""
    is_utf16 = stored.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = stored.decode("utf-16") if is_utf16 else os.fsdecode(stored)
    except UnicodeDecodeError:
        text = os.fsdecode(stored)
    return text.removeprefix("\ufeff").replace("\r", "\n").split("\n")


def _without_comment(line: str) -> str:
    """Return the path in a line of a list, "" without one."""
    line = line.strip()
    if line.startswith("#"):
        return ""
    if os.path.exists(line):  # also when its name holds " #"
        return line
    return line.partition(" #")[0].strip()
