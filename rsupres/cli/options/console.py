"""Options that every command accepts, and the `Console` that it is handed."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import click

from rsupres.cli.options.job_file import effective, job_file_options
from rsupres.cli.options.parameters import files_read, stacked
from rsupres.cli.terminal.console import Console, configure_logging
from rsupres.cli.terminal.log_file import fault_of

logger = logging.getLogger(__name__)


def _keep_log_file(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> str | None:
    """Remember the log file for errors of other options."""
    ctx.meta["rsupres.log_file"] = value
    return value


def _keep_log_format(ctx: click.Context, param: click.Parameter, value: str) -> str:
    """Remember the form of the log for errors of other options."""
    ctx.meta["rsupres.json_logs"] = value == "json"
    return value


_options = stacked(
    job_file_options,
    click.option(
        "-v",
        "--verbose",
        count=True,
        show_default=False,
        help="Log more on stderr: once decisions, twice everything. Default: warnings.",
    ),
    click.option(
        "-q",
        "--quiet",
        count=True,
        show_default=False,
        help="Show errors only, no warnings and no progress.",
    ),
    click.option(
        "--json",
        "as_json",
        is_flag=True,
        help="Write results to stdout as JSON, one object a line.",
    ),
    click.option(
        "--log-file",
        type=click.Path(dir_okay=False),
        is_eager=True,  # known before another option is refused
        callback=_keep_log_file,
        help="Append results, progress and log with times to this file. Default: none.",
    ),
    click.option(
        "--log-format",
        type=click.Choice(["text", "json"]),
        default="text",
        is_eager=True,
        callback=_keep_log_format,
        help="Form of the log on stderr and in the log file; json has one object a "
        "line, with time, run, scene and counters.",
    ),
    click.option("--debug", is_flag=True, help="Show the traceback of an error."),
)


def console_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add the options of every command; pass `console` to the function.

    Use it directly above the function, below ``@click.command`` and its options. The
    function takes a keyword `console` (`rsupres.cli.terminal.console.Console`) and none
    of the options.
    """

    @click.pass_context
    @functools.wraps(function)
    def wrapper(
        ctx: click.Context,
        /,
        verbose: int,
        quiet: int,
        as_json: bool,
        log_file: str | None,
        log_format: str,
        debug: bool,
        print_config: bool,
        **arguments: object,
    ) -> None:
        if print_config:
            click.echo(effective(ctx))
            return
        ctx.meta["rsupres.json"] = as_json
        ctx.meta["rsupres.debug"] = debug
        ctx.meta["rsupres.command"] = ctx.command
        verbosity = verbose - quiet
        if log_file is not None:
            ctx.meta["rsupres.log_file"] = None  # until it is known to be no input
            _check_log_file(log_file, {**arguments, **files_read(ctx)})
        json_logs = log_format == "json"
        undo = configure_logging(verbosity, log_file, ctx.command, as_json=json_logs)
        ctx.find_root().call_on_close(undo)
        ctx.meta["rsupres.logs"] = True
        for given in ctx.meta.get("rsupres.renamed", ()):
            logger.warning(
                "%s is now called %s; version 0.3.0 drops the former name.",
                given.former,
                given.current,
            )
            name = given.current.lstrip("-").replace("-", "_").lower()
            arguments[name] = given.value
        with _protecting(files_read(ctx)):
            function(console=Console(as_json, verbosity, json_logs), **arguments)

    return _options(wrapper)


def _protecting(read: Mapping[str, list[str]]) -> AbstractContextManager[None]:
    """Protect the files that options were read from; there may be none."""
    if not read:  # short commands need not load what protects
        return nullcontext()
    from rsupres.output.protect import also_protected

    return also_protected(read)


def _check_log_file(log_file: str, arguments: Mapping[str, object]) -> None:
    """Check that the log is appended to none of the files that a command is about."""
    from rsupres.output.protect import Inputs

    named = {name: list(_paths(value)) for name, value in arguments.items()}
    place = os.path.realpath(log_file)
    for name, paths in named.items():
        if any(os.path.realpath(path) == place for path in paths):
            raise click.UsageError(f"--log-file {log_file} is also {name}.")
    Inputs(named).check_file(Path(log_file), "log_file")
    if fault := fault_of(log_file):
        raise click.UsageError(f"--log-file {log_file} {fault}; choose another name.")


def _paths(value: object) -> Iterator[str]:
    """Yield the texts in the value of a parameter that may be paths."""
    if isinstance(value, str | Path):
        yield str(value)
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _paths(item)
