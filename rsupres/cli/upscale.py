"""`rsupres upscale`: upscale a scene into a georeferenced raster."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from rsupres.cli.console import Console
from rsupres.cli.options.console import console_options
from rsupres.cli.options.parameters import expand_lists
from rsupres.cli.options.run import make_job, upscale_options

if TYPE_CHECKING:
    from rsupres.upscaling.pipeline import RunSummary


@click.command()
@click.argument("scenes", nargs=-1, required=True, callback=expand_lists)
@click.argument("output", type=click.Path())
@upscale_options
@console_options
def upscale(
    console: Console, scenes: tuple[str, ...], output: str, **options: object
) -> None:
    """Upscale SCENE into OUTPUT, a georeferenced raster.

    Several files are joined to one scene: a file for each band, or neighbours on one
    grid. @list.txt stands for the paths in a file, one a line. The output appears under
    its name only when it is complete; after an interruption the same command continues.

    \b
    Examples:
      rsupres upscale scene.tif scene_x4.tif --scale 4
      rsupres upscale scene.tif part.tif --bounds 5.1 52.0 5.2 52.1 \\
          --bounds-crs EPSG:4326 --model bicubic
    """  # noqa: D301  # Click wants the character, not the two letters
    from rsupres.upscaling.pipeline import upscale_scene

    job = make_job(scenes, output, options)
    with console.work() as show:
        summary = upscale_scene(job, on_progress=show)
    console.emit(summary.to_json(), describe(summary))


def describe(summary: RunSummary) -> str:
    """Return one or two lines about what a run did."""
    if summary.status == "existed":
        return f"{summary.output} exists; left as it is."
    if summary.status == "computed":
        return (
            f"This shard is done; {summary.missing_strips} strips are left to others. "
            "The last one writes the output."
        )
    figures = ", ".join(
        f"{name} {value:.4g}" for name, value in summary.figures.items()
    )
    return (
        f"{summary.output} written in {summary.duration_s:.1f} s by {summary.model}"
        + (f" ({figures})." if figures else ".")
    )
