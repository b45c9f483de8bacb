"""`rsupres mosaic`: blend a folder of tiles, or finish a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from rsupres.cli.options.console import console_options
from rsupres.cli.options.output import (
    format_options,
    overwrite_option,
    run_options,
    take_writing,
)
from rsupres.cli.options.scene import input_nodata_option
from rsupres.cli.terminal.console import Console
from rsupres.cli.upscale import describe

_OF_TILES = {
    name: f"--{name.replace('_', '-')}"
    for name in (
        *("driver", "co", "dtype", "nodata", "input_nodata"),
        *("run_dir", "restart"),
    )
}


@click.command()
@click.argument("source", type=click.Path(path_type=Path), metavar="DIR|RUN_DIR")
@click.argument("output", type=click.Path(path_type=Path), required=False)
@format_options
@input_nodata_option
@overwrite_option
@run_options
@console_options
def mosaic(console: Console, source: Path, output: Path | None, **options: Any) -> None:
    """Blend the georeferenced tiles of DIR, or finish the run in RUN_DIR.

    Tiles may overlap and come in any order; they must share CRS, pixel size and grid.
    Where they overlap, they are blended with weights that fall towards their borders.
    An interrupted or sharded run is computed to its end with the options that it was
    started with; without OUTPUT, its output is written where that command said.

    \b
    Examples:
      rsupres mosaic tiles scene.tif
      rsupres mosaic scene_x4.tif.run
    """  # noqa: D301  # Click wants the character, not the two letters
    from rsupres.tiles.request import is_run
    from rsupres.tiles.request import mosaic as blend

    if is_run(source):
        _refuse_format()
        for name in _OF_TILES:
            options[name] = None
    writing = take_writing(options)
    with console.work() as show:
        summary = blend(source, output, on_progress=show, **options, **writing)
    console.emit(summary.to_json(), describe(summary))


def _refuse_format() -> None:
    """Refuse options that were fixed when a run was started."""
    context = click.get_current_context()
    for name, option in _OF_TILES.items():
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            raise click.UsageError(
                f"{option} was fixed when the run started; it is for folders of tiles."
            )
