"""`rsupres plan`: sizes, memory, disk and time of `upscale`, without running it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from rsupres.cli.console import Console
from rsupres.cli.options.console import console_options
from rsupres.cli.options.parameters import expand_lists
from rsupres.cli.options.run import make_job, upscale_options
from rsupres.cli.wording import error_line

if TYPE_CHECKING:
    from rsupres.upscaling.planning import Plan


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
    from rsupres.upscaling.planning import plan_job

    found = plan_job(make_job(scenes, output, options))
    ctx = click.get_current_context()
    refused = [error_line(error, ctx.command) for error in found.refusals]
    record = {key: value for key, value in vars(found).items() if key != "refusals"}
    console.emit({**record, "refused": refused}, describe(found, refused))
    if found.exit_code:
        ctx.exit(found.exit_code)


def describe(plan: Plan, refused: Sequence[str]) -> str:
    """Return a plan as lines for a person.

    Args:
        plan: of `rsupres.upscaling.planning.plan_job`.
        refused: its refusals, worded.
    """
    from rsupres.upscaling.planning import size_text

    lines = [f"model      {plan.model or 'none'}, x{plan.scale}"]
    if plan.lr_shape and plan.sr_shape and plan.tile_shape and plan.tiles:
        rows, cols = plan.tiles
        lines += [
            f"scene      {plan.lr_shape[1]} x {plan.lr_shape[0]} pixels",
            f"output     {plan.sr_shape[1]} x {plan.sr_shape[0]} pixels, "
            f"{plan.bands} band(s), about {size_text(plan.output_bytes or 0)}",
            f"tiles      {rows * cols} ({rows} rows of {cols}), each "
            f"{plan.tile_shape[1]} x {plan.tile_shape[0]} pixels",
            f"memory     about {size_text(plan.memory_bytes or 0)}",
            f"disk       about {size_text(plan.disk_bytes or 0)} at the most, "
            f"{size_text(plan.free_bytes or 0)} free",
        ]
    for name, text in plan.conditions.items():
        lines.append(f"{name.replace('_', ' '):<10} {text}")
    if plan.duration_s is None:
        lines.append("time       unknown")
    else:
        share = ""
        if plan.conditions_s:
            share = f", {_duration(plan.conditions_s)} of it for conditions"
        lines.append(f"time       about {_duration(plan.duration_s)}{share}")
    lines += [f"refused    {reason}" for reason in refused]
    return "\n".join(lines)


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
