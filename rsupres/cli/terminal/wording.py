"""Word errors and warnings for the command line: names of arguments become options.

The library names arguments as the Python API does (`vector_map`); a user of the command
line typed ``--vector-map``. The command that runs knows its own spelling.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import click

from rsupres.errors import InputError, RsupresError

# Arguments that are values of one option.
_PARTS = {"interval_low": "interval", "interval_high": "interval"}


def error_line(error: RsupresError, command: click.Command | None) -> str:
    """Return an error as a line for a user of `command`.

    Args:
        error: what went wrong.
        command: whose options are meant; None when none was reached.
    """
    return worded(error.problem, error.argument, error.remedies, command)


def worded(
    problem: str, argument: str, remedies: Sequence[str], command: click.Command | None
) -> str:
    """Return a problem with the options concerned.

    Args:
        problem: one or two sentences.
        argument: name of the argument at fault, "" when none is.
        remedies: names that help, each "name" or "name=value".
        command: whose options are meant; None when none was reached.

    >>> worded("out.tif exists.", "", ("overwrite", "nodata=0"), None)
    'out.tif exists. See --overwrite, --nodata 0.'
    """
    start = f"{option_of(argument, command)} " if argument else ""
    named = [option_of(remedy, command) for remedy in remedies]
    return f"{start}{problem}" + (f" See {', '.join(named)}." if named else "")


def option_of(name: str, command: click.Command | None) -> str:
    """Return an argument as it is typed: "scale=4" becomes "--scale 4".

    Args:
        name: of the argument, or a name and a value joined by "=".
        command: whose options are looked through; None = spell it like an option.
    """
    name, _, value = name.partition("=")
    name = _PARTS.get(name, name)
    spelled = "--" + name.replace("_", "-")
    parameters = command.params if command else []
    if not any(parameter.name == name for parameter in parameters):
        for parameter in parameters:  # such as DIR|RUN_DIR
            words = re.findall(r"\w+", parameter.metavar or "")
            if isinstance(parameter, click.Argument) and name.upper() in words:
                return name.upper()
    for parameter in parameters:
        if parameter.name == name:
            spelled = (
                max(parameter.opts, key=len)
                if isinstance(parameter, click.Option)
                else parameter.human_readable_name
            )
    return f"{spelled} {value}" if value else spelled


@contextmanager
def usage_errors() -> Iterator[None]:
    """Turn an `InputError` about a combination of options into a usage error."""
    try:
        yield
    except InputError as error:
        command = click.get_current_context().command
        raise click.UsageError(error_line(error, command)) from error


class WordingFilter(logging.Filter):
    """Word log records that name arguments as errors do.

    A warning of the library carries them as
    ``logger.warning(text, extra={"argument": "reference", "remedies": ("align",)})``.
    """

    def __init__(self, command: click.Command | None) -> None:
        super().__init__()
        self._command = command

    def filter(self, record: logging.LogRecord) -> bool:
        """Rewrite the record's message once; every record passes."""
        argument = getattr(record, "argument", "")
        remedies = getattr(record, "remedies", ())
        if argument or remedies:
            record.msg = worded(record.getMessage(), argument, remedies, self._command)
            record.args = ()
            record.argument, record.remedies = "", ()
        return True
