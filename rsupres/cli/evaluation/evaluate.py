"""`rsupres evaluate`: measure a picture against the truth, or models on a test set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from rsupres.cli.evaluation.models import evaluate_models
from rsupres.cli.evaluation.pair import evaluate_pair
from rsupres.cli.evaluation.protocol import evaluate_protocol
from rsupres.cli.options.console import console_options
from rsupres.cli.options.evaluation import (
    figure_options,
    models_options,
    pair_options,
    protocol_option,
)
from rsupres.cli.terminal.console import Console


@click.command()
@click.argument("inputs", nargs=-1, required=True, metavar="SR HR | DATASET...")
@pair_options
@models_options
@protocol_option
@figure_options
@console_options
def evaluate(console: Console, inputs: tuple[str, ...], **options: Any) -> None:
    """Measure SR against HR, or models on a test set of HR images.

    With two rasters: figures on the grid that they share, where both are valid. With
    --model: DATASET is folders, images or a pack; every image is degraded, every model
    runs on the same LR images, and a table compares them; -v adds a line for each
    image. The conditions of a model are found by the image's name: with
    --reference-from 2020=2018, town_2018_7.tif is the reference of town_2020_7.tif.
    With a map, edges are also measured near its borders. Of several models, the others
    are compared with the first, image by image. --protocol runs the test of a paper.

    \b
    Examples:
      rsupres evaluate scene_x4.tif truth.tif --lr scene.tif
      rsupres evaluate chips --model bicubic --model e2diffsr-small --scale 2 --scale 4
      rsupres evaluate chips --glob '*_2020_*' --model my.safetensors --scale 8 \\
          --reference-from 2020=2018
      rsupres evaluate data --protocol e2diffsr --models bicubic,e2diffsr-small
    """  # noqa: D301  # Click wants the character, not the two letters
    if options["protocol"]:
        evaluate_protocol(console, tuple(map(Path, inputs)), options)
    elif options["models"]:
        evaluate_models(console, tuple(map(Path, inputs)), options)
    elif len(inputs) == 2:
        evaluate_pair(console, inputs[0], inputs[1], options)
    else:
        raise click.UsageError("Give SR and HR, or a test set and --model NAME.")
