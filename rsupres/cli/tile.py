"""`rsupres tile`: cut a scene and its conditions into aligned tiles."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from rsupres.cli.options.conditions import map_options, raster_condition_options
from rsupres.cli.options.console import console_options
from rsupres.cli.options.output import overwrite_option
from rsupres.cli.options.parameters import check_output_given, expand_lists
from rsupres.cli.options.run import model_scale_option
from rsupres.cli.options.scene import (
    bands_out_option,
    bounds_options,
    input_nodata_option,
)
from rsupres.cli.terminal.console import Console
from rsupres.cli.terminal.wording import usage_errors

if TYPE_CHECKING:
    from rsupres.tiles.cut import TileSummary
    from rsupres.tiles.request import TileOptions


@click.command()
@click.argument("scenes", nargs=-1, callback=expand_lists, metavar="SCENE...")
@click.argument(
    "folder",
    type=click.Path(path_type=Path),
    metavar="DIR",
    callback=check_output_given,
)
@model_scale_option
@click.option(
    "--model",
    metavar="NAME|PATH",
    help="Cut for this model: its tile size, halo, multiple, bands, legend and class "
    "table. Default: for none.",
)
@click.option(
    "--tile-size",
    type=click.IntRange(min=1),
    metavar="N",
    help="Side of a tile, LR pixels. Default: the model's, else 128.",
)
@click.option(
    "--overlap",
    type=click.IntRange(min=0),
    metavar="N",
    help="LR pixels that neighbouring tiles share. Default: 16, or more for the halo.",
)
@click.option(
    "--halo",
    type=click.IntRange(min=0),
    metavar="N",
    help="LR pixels at inner sides that get no weight when 'rsupres mosaic' blends "
    "the tiles. Default: the model's, else 0.",
)
@click.option(
    "--stretch",
    default="auto",
    metavar="auto|reflectance|percentile:2,98|LO,HI",
    help="How the scene's numbers become [0, 1]; kept in the LR tiles, so that all "
    "have the same.",
)
@input_nodata_option
@bands_out_option
@bounds_options
@map_options
@raster_condition_options
@click.option(
    "--hr",
    metavar="PATH",
    help="Sharp image on the SR grid, cut along with the scene; it may cover a part "
    "of it. Default: none.",
)
@overwrite_option
@console_options
def tile(
    console: Console,
    scenes: tuple[str, ...],
    folder: Path,
    **options: Any,
) -> None:
    """Cut SCENE into overlapping tiles in DIR, with all that belongs to each.

    DIR holds GeoTIFFs of the same names in the folders lr, map, reference, change and
    hr, those that were asked for, and tiles.gpkg: footprint, window and valid share of
    each tile and how much of it the conditions cover. DIR appears when it is complete;
    after an interruption the same command continues. 'rsupres mosaic DIR OUT' joins
    tiles again.

    \b
    Examples:
      rsupres tile scene.tif tiles --scale 4
      rsupres tile scene.tif tiles --scale 8 --tile-size 64 --overlap 16 \\
          --vector-map town.osm.pbf --reference 2018.tif --change-mask detect
    """  # noqa: D301  # Click wants the character, not the two letters
    from rsupres.tiles.request import check_tile_options
    from rsupres.tiles.request import tile as cut

    if options["bounds_crs"] and not options["bounds"]:
        raise click.UsageError("--bounds-crs needs --bounds.")
    with usage_errors():
        check_tile_options(cast("TileOptions", options))
    with console.work() as show:
        summary = cut(scenes, folder, on_progress=show, **options)
    console.emit(summary.to_json(), describe(summary))


def describe(summary: TileSummary) -> str:
    """Return a summary of a folder of tiles as text."""
    rows, cols = summary.shape
    height, width = summary.tile_shape
    shares = "".join(
        f"; {name.replace('_', ' ')} {100 * value:.1f} %"
        for name, value in summary.shares.items()
    )
    return (
        f"{summary.folder}: {cols} x {rows} tiles of {width} x {height} LR pixels, "
        f"overlap {summary.overlap}, in {', '.join(summary.kinds)}, written in "
        f"{summary.duration_s:.1f} s.\nValid {100 * summary.valid:.1f} %{shares}."
    )
