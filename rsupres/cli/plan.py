"""`rsupres plan`: what `upscale` would do with the same options."""

from __future__ import annotations

from dataclasses import asdict

import click

from rsupres.cli.console import Console
from rsupres.cli.options.console import console_options
from rsupres.cli.options.parameters import expand_lists
from rsupres.cli.options.run import make_job, upscale_options


@click.command()
@click.argument("scenes", nargs=-1, required=True, callback=expand_lists)
@click.option(
    "-o",
    "--output",
    type=click.Path(),
    default="out.tif",
    show_default=True,
    help="The output that would be written.",
)
@upscale_options
@console_options
def plan(
    console: Console, scenes: tuple[str, ...], output: str, **options: object
) -> None:
    """Say what `upscale` would do with SCENES and the same options; write nothing.

    Prints tiles, sizes, memory, disk, a time estimate, and why the job would be
    refused, with the exit code that `upscale` would have.

    \b
    Examples:
      rsupres plan scene.tif --scale 4 --model bicubic
      rsupres plan scene.tif --output scene_x2.tif --scale 2 --json
    """  # noqa: D301  # Click wants the character, not the two letters
    from rsupres.upscaling.planning import describe_plan, plan_job

    result = plan_job(make_job(scenes, output, options))
    console.emit(asdict(result), describe_plan(result))
    if result.exit_code:
        click.get_current_context().exit(result.exit_code)
