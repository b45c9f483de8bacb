"""`rsupres evaluate DATA --protocol NAME`: the test of a family's paper."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from rsupres.cli.evaluation.pair import refuse_others
from rsupres.cli.terminal.console import Console

if TYPE_CHECKING:
    from rsupres.evaluation.comparison.protocols import Table

# Options that a protocol leaves to its user.
_OPEN = (
    *("models", "scales", "device", "precision", "seed", "steps", "sampler", "details"),
    *("class_table", "legend", "lpips_weights", "metric_weights", "all_figures"),
)


def evaluate_protocol(
    console: Console, inputs: tuple[Path, ...], options: Mapping[str, Any]
) -> None:
    """Run the test of a paper on its data, and print its figures beside ours.

    Args:
        console: where results go.
        inputs: the folder of the data.
        options: of `rsupres evaluate`, by name.

    Raises:
        click.UsageError: several folders, or an option that the protocol decides.
    """
    from rsupres.evaluation.comparison.limits import check_gates, parse_gates
    from rsupres.evaluation.comparison.protocols import run_protocol
    from rsupres.evaluation.measure_models import ModelsRequest
    from rsupres.evaluation.report import COLUMNS

    if len(inputs) != 1:
        raise click.UsageError("--protocol takes one folder of data.")
    refuse_others({*_OPEN, "protocol"}, "tests of your own, not with --protocol")
    chosen = {name: options[name] for name in _OPEN}
    chosen["models"] = chosen["models"] or ("bicubic",)
    source = click.get_current_context().get_parameter_source("scales")
    given = source == ParameterSource.COMMANDLINE
    known = {field.name for field in fields(ModelsRequest)}
    request = ModelsRequest(inputs, **{k: v for k, v in chosen.items() if k in known})
    gates = parse_gates(options["fail_if"])
    headings = {name: column.heading for name, column in COLUMNS.items()}

    def show(table: Table) -> None:
        console.emit(table.to_json(), "\n".join(table.lines(headings)) + "\n")

    with console.progress() as progress:
        tables = run_protocol(
            options["protocol"],
            inputs[0],
            request,
            options["scales"] if given else (),
            on_progress=progress,
            on_table=show,
        )
    for table in tables:
        check_gates(gates, table.ours)
