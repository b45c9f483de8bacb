"""`rsupres distill`: teach a one-step student, from a TOML configuration."""

from __future__ import annotations

from pathlib import Path

import click

from rsupres.cli.options.console import console_options
from rsupres.cli.terminal.console import Console
from rsupres.cli.training.train import run_training, training_options


@click.command()
@training_options
@console_options
def distill(
    settings: Path, device: str, minutes: float | None, console: Console
) -> None:
    """Distil a student from a teacher as CONFIG, a TOML file, says.

    Its [options] name the teacher, any checkpoint that offers the student's scale; one
    of its stages is 'distill'. The student starts with the teacher's weights where
    shapes agree, and learns to match the teacher's pictures, features and distribution.
    The output is that of 'rsupres train'.

    \b
    Example:
      rsupres distill student.toml --minutes 30
    """  # noqa: D301  # Click wants the character, not the two letters
    from rsupres.training.config import read_config
    from rsupres.training.families.slimdiffsr.distillation import check_distillation

    config = read_config(settings)
    check_distillation(config)
    run_training(config, settings, device, minutes, console)
