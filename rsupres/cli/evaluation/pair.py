"""`rsupres evaluate SR HR`: figures of a picture against the truth."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from rsupres.cli.terminal.console import Console
from rsupres.cli.terminal.wording import option_of, usage_errors
from rsupres.errors import RunConflictError

if TYPE_CHECKING:
    from rsupres.evaluation.measure_pair import PairRequest
    from rsupres.evaluation.measures.calibration import Calibration

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
    from rsupres.evaluation.measure_pair import PairRequest, check_request, measure_pair
    from rsupres.evaluation.report import table_lines

    names = {field.name for field in fields(PairRequest)} - {"sr", "hr"}
    refuse_others({*names, "calibration_plot"}, "a test set, with --model")
    request = PairRequest(sr, hr, **{name: options[name] for name in names})
    with usage_errors():
        check_request(request)
    gates = parse_gates(options["fail_if"])
    plot: Path | None = options["calibration_plot"]
    if plot is not None:
        _check_plot_place(plot, request)
    result = measure_pair(request)
    lines = table_lines([result.row])
    if result.calibration is not None:
        lines += result.calibration.lines()
        if plot is not None:
            _write_plot(plot, result.calibration)
    console.emit(result.to_json(), "\n".join(lines))
    check_gates(gates, [result.row], result.more_figures)


def _check_plot_place(path: Path, request: PairRequest) -> None:
    """Check that the plot can be written and replaces only an older plot."""
    from rsupres.output.atomic import check_writable
    from rsupres.report.plots import RELIABILITY

    if request.calibration is None:
        raise click.UsageError("--calibration-plot needs --calibration.")
    if path.suffix.lower() != ".svg":
        raise click.UsageError(f"{path}: an SVG is written; name it {path.stem}.svg.")
    check_writable(path, "calibration_plot")
    if path.exists() and RELIABILITY.encode() not in path.read_bytes():
        raise RunConflictError(
            f"{path} exists and is no plot of rsupres; choose another name."
        )


def _write_plot(path: Path, calibration: Calibration) -> None:
    from rsupres.output.atomic import publishing
    from rsupres.report.plots import reliability_plot

    with publishing(path) as part:
        part.write_text(reliability_plot(calibration.bins), encoding="utf-8")


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
