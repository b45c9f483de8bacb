"""`rsupres evaluate DATASET --model NAME`: models side by side on a test set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from rsupres.cli.console import Console
from rsupres.cli.evaluate_pair import refuse_others
from rsupres.cli.options.images import check_classes, check_legend


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
    from rsupres.evaluation.measure_models import ModelsRequest, measure_models
    from rsupres.evaluation.report import table_lines

    names = {field.name for field in fields(ModelsRequest)} - {"inputs"}
    refuse_others(names, "SR and HR, not with --model")
    check_legend(options["legend"], options["vector_map_from"])
    check_classes(options["class_table"], options["change_mask_from"])
    if options["style"] and options["style_sample"]:
        raise click.UsageError("--style and --style-sample exclude each other.")
    request = ModelsRequest(inputs, **{name: options[name] for name in names})
    with console.progress() as show:
        result = measure_models(request, on_progress=show)
    shown = [*result.rows, *result.means] if console.verbosity > 0 else result.means
    head, *lines = table_lines(shown)
    if not console.as_json:
        click.echo(head)
    for row, line in zip(shown, lines, strict=True):
        console.emit(row.to_json() | {"degradation": result.degradation}, line)
