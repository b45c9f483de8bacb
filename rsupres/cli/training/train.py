"""`rsupres train`: train a family from a TOML configuration."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rsupres.cli.options.console import console_options
from rsupres.cli.options.parameters import stacked
from rsupres.cli.terminal.console import Console
from rsupres.cli.terminal.log_file import note

if TYPE_CHECKING:
    from rsupres.training.config import TrainConfig


training_options = stacked(
    click.argument("settings", type=click.Path(path_type=Path), metavar="CONFIG"),
    click.option(
        "--device",
        default="auto",
        metavar="auto|cpu|cuda[:i]",
        help="Where to train; auto is CUDA, else MPS, else the CPU.",
    ),
    click.option(
        "--minutes",
        type=click.FloatRange(min=0, min_open=True),
        help="Save the state and stop after this many minutes; the same command "
        "continues. Default: train to the end.",
    ),
)


@click.command()
@training_options
@console_options
def train(settings: Path, device: str, minutes: float | None, console: Console) -> None:
    """Train a model as CONFIG, a TOML file, says; continue if it was stopped.

    The output directory holds the state from which the command continues, a log
    (log.jsonl), validation pictures, and at the end the checkpoint.

    \b
    Examples:
      rsupres train models/recipes/e2diffsr-small.1.toml
      rsupres train config.toml --minutes 9 --device cuda
    """  # noqa: D301  # Click wants the character, not the two letters
    from rsupres.training.config import read_config

    run_training(read_config(settings), settings, device, minutes, console)


def run_training(
    config: TrainConfig,
    source: Path,
    device: str,
    minutes: float | None,
    console: Console,
) -> None:
    """Train as a configuration says, and print the progress and the result.

    Args:
        config: what to train.
        source: its file; relative paths of the configuration start in its folder.
        device: such as "auto" or "cuda:0".
        minutes: stop after this time; None = at the end.
        console: where progress and result go.
    """
    import torch

    from rsupres.training.loop import train as run_loop
    from rsupres.upscaling.preparation.devices import find_device

    def report(stage: str, k: int, total: int, figures: Mapping[str, float]) -> None:
        if console.verbosity >= 0:
            values = (f"{name}={value:.4g}" for name, value in figures.items())
            line = f"{stage} {k}/{total} {' '.join(values)}"
            click.echo(line, err=True)
            note(line)

    path = run_loop(
        config,
        source.parent,
        torch.device(find_device(device)),
        source=source,
        on_progress=report,
        stop_after_s=None if minutes is None else 60.0 * minutes,
    )
    console.emit(
        {"finished": path is not None, "checkpoint": path and str(path)},
        f"Wrote {path}." if path else "Stopped; the same command continues.",
    )
