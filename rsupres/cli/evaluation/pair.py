"""`rsupres evaluate SR HR`: figures of a picture against the truth."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import fields
from typing import Any

import click
from click.core import ParameterSource

from rsupres.cli.terminal.console import Console
from rsupres.cli.terminal.wording import option_of, usage_errors

_OF_EVERY_COMMAND = frozenset(
    {
        *("inputs", "verbose", "quiet", "as_json", "log_file", "log_format", "debug"),
        *("print_config", "fail_if"),
    }
)


def evaluate_pair(
    console: Console, sr: str, hr: str, options: Mapping[str, Any]
) -> None:
    """Measure SR against HR on their common grid and print the figures.

    Args:
        console: where results go.
        sr: the picture under test.
        hr: the truth.
        options: of `rsupres evaluate`, by name.

    Raises:
        click.UsageError: an option that is for test sets, or one without the option
            that it needs.
    """
    from rsupres.evaluation.comparison.limits import check_gates, parse_gates
    from rsupres.evaluation.measure_pair import (
        PairRequest,
        check_request,
        measure_pair,
    )
    from rsupres.evaluation.report import table_lines

    names = {field.name for field in fields(PairRequest)} - {"sr", "hr"}
    refuse_others(names, "a test set, with --model")
    request = PairRequest(sr, hr, **{name: options[name] for name in names})
    with usage_errors():
        check_request(request)
    gates = parse_gates(options["fail_if"])
    result = measure_pair(request)
    lines = table_lines([result.row])
    if result.calibration is not None:
        lines += result.calibration.lines()
    console.emit(result.to_json(), "\n".join(lines))
    check_gates(gates, [result.row], result.more_figures)


def refuse_others(names: Collection[str], use: str) -> None:
    """Refuse options that belong to the other use of the command that runs.

    Args:
        names: the options of this use.
        use: what the others are for, to finish "--every is for ...".

    Raises:
        click.UsageError: another option was given.
    """
    ctx = click.get_current_context()
    for parameter in ctx.command.params:
        name = parameter.name or ""
        if not parameter.expose_value or name in (*names, *_OF_EVERY_COMMAND):
            continue
        if ctx.get_parameter_source(name) != ParameterSource.DEFAULT:
            raise click.UsageError(f"{option_of(name, ctx.command)} is for {use}.")
