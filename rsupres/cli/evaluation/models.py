"""`rsupres evaluate DATASET --model NAME`: models side by side on a test set."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rsupres.cli.evaluation.pair import refuse_others
from rsupres.cli.options.images import check_classes, check_legend
from rsupres.cli.terminal.console import Console

if TYPE_CHECKING:
    from rsupres.evaluation.comparison.paired import Difference


def evaluate_models(
    console: Console, inputs: tuple[Path, ...], options: Mapping[str, Any]
) -> None:
    """Measure models on the images of `inputs` and print the table.

    Args:
        console: where results go; means only, unless it is verbose.
        inputs: image files, folders or a pack.
        options: of `rsupres evaluate`, by name.

    Raises:
        click.UsageError: an option that is for SR and HR, or two that exclude each
            other.
    """
    from rsupres.evaluation.comparison.limits import check_gates, parse_gates
    from rsupres.evaluation.comparison.paired import compare
    from rsupres.evaluation.measure_models import ModelsRequest, measure_models
    from rsupres.evaluation.report import table_lines

    names = {field.name for field in fields(ModelsRequest)} - {"inputs"}
    refuse_others({*names, "html"}, "SR and HR, not with --model")
    check_legend(options["legend"], options["vector_map_from"])
    check_classes(options["class_table"], options["change_mask_from"])
    if options["style"] and options["style_sample"]:
        raise click.UsageError("--style and --style-sample exclude each other.")
    request = ModelsRequest(inputs, **{name: options[name] for name in names})
    gates = parse_gates(options["fail_if"])
    page: Path | None = options["html"]
    if page is not None:
        from rsupres.report.models_page import check_models_page, write_models_page

        check_models_page(page)
    with console.progress() as show:
        result = measure_models(request, on_progress=show, keep_worst=page is not None)
    shown = [*result.rows, *result.means] if console.verbosity > 0 else result.means
    head, *lines = table_lines(shown)
    if not console.as_json:
        click.echo(head)
    for row, line in zip(shown, lines, strict=True):
        console.emit(row.to_json() | {"degradation": result.degradation}, line)
    found = compare(result.rows, result.means[0].model)
    _show_differences(console, found, is_asked=page is not None)
    if page is not None:
        write_models_page(page, result, found)
    check_gates(gates, result.means)


def _show_differences(
    console: Console, found: Sequence[Difference], *, is_asked: bool
) -> None:
    """Show paired differences if asked for; as text also where an interval is known."""
    from rsupres.evaluation.comparison.paired import difference_lines

    is_asked = is_asked or console.verbosity > 0
    if console.as_json and is_asked:
        for difference in found:
            console.emit(difference.to_json(), "")
    elif found and (is_asked or math.isfinite(found[0].low)):
        console.emit({}, "\n" + "\n".join(difference_lines(found)))
