"""Read options from a TOML file (``--config``) and print them (``--print-config``).

A job file gives values as options on the command line do: Click's own types check them.
The command line counts most, then the environment (``RSUPRES_BATCH_SCALE``), then the
file, then the defaults. `scene_rules` has the tables that give options to some scenes.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from fractions import Fraction
from pathlib import Path
from typing import cast

import click
from click.core import ParameterSource

from rsupres.cli.options.parameters import (
    BandsType,
    DurationType,
    LayersType,
    ShardType,
    note_read,
    stacked,
)
from rsupres.version import __version__

SCENE_TABLES = "scene"  # [[scene]] of a job file
_NOT_STORED = ("config", "print_config", "help")
_SOURCES = {
    ParameterSource.COMMANDLINE: "command line",
    ParameterSource.ENVIRONMENT: "environment",
    ParameterSource.DEFAULT_MAP: "job file",
}


def option_keys(command: click.Command) -> dict[str, click.Parameter]:
    """Return the options and arguments of a command by their keys in a job file."""
    keys: dict[str, click.Parameter] = {}
    for parameter in command.params:
        hidden = isinstance(parameter, click.Option) and parameter.hidden
        if parameter.name not in _NOT_STORED and not hidden:
            names = [opt[2:] for opt in parameter.opts if opt.startswith("--")]
            for name in names or [str(parameter.name)]:
                keys[name.replace("_", "-")] = parameter
    return keys


def as_typed(parameter: click.Parameter, value: object, where: str) -> object:
    """Return a value of a job file as Click takes it from the command line.

    Args:
        parameter: that it is for.
        value: of TOML: a table of `bands` or `co`, an array, text, a number, a boolean.
        where: file and key, for messages.

    Raises:
        click.UsageError: it cannot be a value of the parameter.
    """
    is_flag = isinstance(parameter, click.Option) and parameter.is_flag
    if is_flag != isinstance(value, bool):
        kind = "true or false" if is_flag else "a value, not true or false"
        raise click.UsageError(f"{where} takes {kind}.")
    if is_flag or (isinstance(parameter, click.Option) and parameter.count):
        return value
    if isinstance(value, Mapping):
        value = [f"{key}={text}" for key, text in value.items()]
    is_list = parameter.multiple or parameter.nargs != 1
    if isinstance(value, list):
        texts = [_text(item, where) for item in value]
        return texts if is_list else ",".join(texts)
    return [_text(value, where)] if is_list else _text(value, where)


def _text(value: object, where: str) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise click.UsageError(f"{where}: {value!r} is neither text nor a number.")
    text = str(value)
    if text == "~" or text.startswith("~/"):  # no shell has seen it
        text = os.path.expanduser(text)
        if text.startswith("~"):
            raise click.UsageError(f"{where}: {value} has no home folder to begin in.")
    return text


def _load(ctx: click.Context, param: click.Parameter, path: str | None) -> None:
    """Make the values of a job file the defaults of the command that runs."""
    if path is None:
        return
    stored = _read(path)
    note_read(ctx, "config", path)
    rules = stored.pop(SCENE_TABLES, [])
    if not isinstance(rules, list) or not all(isinstance(rule, dict) for rule in rules):
        raise click.UsageError(f"{path}: [[scene]] stands in two brackets.")
    ctx.meta["rsupres.scene_tables"] = (path, rules)
    ctx.default_map = dict(_values(ctx, path, stored))


def _read(path: str) -> dict[str, object]:
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
        return tomllib.loads(text)
    except OSError as error:
        raise click.UsageError(
            f"--config {path} cannot be read: {error.strerror}."
        ) from error
    except UnicodeDecodeError as error:
        raise click.UsageError(
            f"--config {path} is no UTF-8 text; save it as UTF-8."
        ) from error
    except tomllib.TOMLDecodeError as error:
        raise click.UsageError(f"--config {path} is no TOML: {error}.") from error


def _values(
    ctx: click.Context, path: str, stored: Mapping[str, object]
) -> Iterator[tuple[str, object]]:
    """Yield parameters that a job file sets: in its head, or in the command's table."""
    keys = option_keys(ctx.command)
    words = _words(ctx)
    own: Mapping[str, object] = stored
    for word in words:
        own = cast(Mapping[str, object], own.get(word, {}))
    for table, where in ((stored, path), (own, f"{path}, [{'.'.join(words)}]")):
        for key, value in table.items():
            is_table = table is stored and isinstance(value, Mapping)
            if is_table and key in _commands(ctx):
                continue
            parameter = find_key(keys, key, where, ctx)
            yield str(parameter.name), as_typed(parameter, value, f"{where}: {key}")


def find_key(
    keys: Mapping[str, click.Parameter], key: str, where: str, ctx: click.Context
) -> click.Parameter:
    """Return the parameter that a key of a job file names.

    Args:
        keys: parameters of the command by their key.
        key: as the job file spells it.
        where: it stands, for messages.
        ctx: of the command.

    Raises:
        click.UsageError: there is none.
    """
    parameter = keys.get(key.replace("_", "-"))
    if parameter is None:
        near = get_close_matches(key.replace("_", "-"), keys, 1)
        hint = f"; did you mean {near[0]}?" if near else "."
        raise click.UsageError(
            f"{where}: {key} is no option of '{ctx.command_path}'{hint}"
        )
    return parameter


def _words(ctx: click.Context) -> list[str]:
    """Return the words of the command below `rsupres`, such as dataset and build."""
    words: list[str] = []
    at: click.Context | None = ctx
    while at is not None and at.info_name and at.command.name != "rsupres":
        words.insert(0, str(at.command.name))
        at = at.parent
    return words


def _commands(ctx: click.Context) -> list[str]:
    """Return the names of all commands of `rsupres`."""
    at: click.Context | None = ctx
    while at is not None:
        if at.command.name == "rsupres" and isinstance(at.command, click.Group):
            return at.command.list_commands(at)
        at = at.parent
    return []


def effective(ctx: click.Context) -> str:
    """Return the options in effect as a job file that gives the same ones again."""
    lines = [
        f"# {ctx.command_path}, version {__version__}",
        f"[{'.'.join(_words(ctx))}]",
    ]
    for key, parameter in option_keys(ctx.command).items():
        value = _as_stored(parameter, ctx.params.get(str(parameter.name)))
        if value is not None:
            source = ctx.get_parameter_source(str(parameter.name))
            note = _SOURCES.get(source, "default") if source else "default"
            lines.append(f"{key} = {_toml(value)}  # {note}")
    for rule in ctx.meta.get("rsupres.scene_tables", ("", []))[1]:
        lines += ["", "[[scene]]", *(f"{k} = {_toml(v)}" for k, v in rule.items())]
    return "\n".join(lines)


def _as_stored(parameter: click.Parameter, value: object) -> object:
    """Return a parameter's value as a job file holds it; None for no value."""
    if value is None or value == ():
        return None
    if isinstance(parameter.type, ShardType):
        return "/".join(map(str, cast(tuple[int, int], value)))
    if isinstance(parameter.type, DurationType):
        return f"{value:.0f}s"
    if isinstance(parameter.type, BandsType | LayersType):
        return ",".join(map(str, cast(tuple[object, ...], value)))
    if isinstance(value, tuple) and value and isinstance(value[0], tuple):  # pairs
        pairs = [f"{name}={text}" for name, text in value]
        return pairs if parameter.multiple else ",".join(pairs)
    return value


def _toml(value: object) -> str:
    """Return a value as TOML writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, Mapping):
        return f"{{ {', '.join(f'{k} = {_toml(v)}' for k, v in value.items())} }}"
    text = str(value) if isinstance(value, str | Path | Fraction) else repr(value)
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


job_file_options = stacked(
    click.option(
        "--config",
        type=click.Path(dir_okay=False),
        is_eager=True,  # its values are the defaults of the others
        expose_value=False,
        callback=_load,
        metavar="FILE.toml",
        help="Job file with options, as keys without the dashes; the command line and "
        "variables such as RSUPRES_UPSCALE_SCALE take precedence. Default: none.",
    ),
    click.option(
        "--print-config",
        is_flag=True,
        help="Print the options in effect as a job file and do nothing else.",
    ),
)
