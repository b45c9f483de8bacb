"""`rsupres tile`: cut a scene, and what a model may look at, into aligned tiles."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rsupres.cli.console import Console
from rsupres.cli.options.area import bounds_options
from rsupres.cli.options.conditions import map_options, raster_condition_options
from rsupres.cli.options.console import console_options
from rsupres.cli.options.output import overwrite_option
from rsupres.cli.options.parameters import expand_lists
from rsupres.cli.options.run import scale_option
from rsupres.cli.wording import option_of

if TYPE_CHECKING:
    from rsupres.conditions.base import ConditionRequest
    from rsupres.families.base import ModelSpec
    from rsupres.tiles.cut import TileSummary


@click.command()
@click.argument("scenes", nargs=-1, required=True, callback=expand_lists)
@click.argument("folder", type=click.Path(path_type=Path), metavar="DIR")
@scale_option
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
    help="LR pixels shared by neighbouring tiles. Default: 16, or more for the halo.",
)
@click.option(
    "--halo",
    type=click.IntRange(min=0),
    metavar="N",
    help="LR pixels at inner sides that weigh nothing when 'rsupres mosaic' puts the "
    "tiles together. Default: the model's, else 0.",
)
@click.option(
    "--stretch",
    default="auto",
    show_default=True,
    metavar="auto|reflectance|percentile:2,98|LO,HI",
    help="How numbers of the scene become [0,1]; kept in the LR tiles, so that one "
    "stretch serves all.",
)
@bounds_options
@map_options
@raster_condition_options
@click.option(
    "--hr",
    metavar="PATH",
    help="Sharp image on the SR grid, cut along; it may cover the scene in part.",
)
@overwrite_option
@console_options
def tile(
    console: Console,
    scenes: tuple[str, ...],
    folder: Path,
    model: str | None,
    tile_size: int | None,
    halo: int | None,
    **options: Any,
) -> None:
    """Cut SCENE into overlapping tiles in DIR, with all that belongs to each.

    DIR holds GeoTIFFs of the same names in lr, map, reference, change and hr, as far as
    given, and tiles.gpkg: footprints, windows, valid share and what the conditions
    cover. It appears when it is complete; after an interruption the same command
    continues. 'rsupres mosaic DIR OUT' undoes it.

    \b
    Examples:
      rsupres tile scene.tif tiles --scale 4
      rsupres tile scene.tif tiles --scale 8 --tile-size 64 --overlap 16 \\
          --vector-map town.osm.pbf --reference 2018.tif --change-mask detect
    """  # noqa: D301  # Click wants the character, not the two letters
    from rsupres.tiles.cut import TileJob, tile_scene

    if options["bounds_crs"] and not options["bounds"]:
        raise click.UsageError("--bounds-crs needs --bounds.")
    spec = None if model is None else _spec(model, options["scale"])
    names = ("scale", "overlap", "stretch", "bounds", "bounds_crs", "hr", "overwrite")
    chosen = {name: options.pop(name) for name in names}
    if spec is not None:
        size = -(-spec.tile_size // _step(chosen["scale"], spec.multiple))
        tile_size = tile_size or size * _step(chosen["scale"], spec.multiple)
        halo = spec.halo if halo is None else halo
        chosen |= {"multiple": spec.multiple, "roles": spec.bands or None}
    job = TileJob(
        scenes=scenes,
        folder=folder,
        tile_size=tile_size,
        halo=halo or 0,
        conditions=_request(folder, spec, options),
        **chosen,
    )
    with console.work() as show:
        summary = tile_scene(job, on_progress=show)
    console.emit(summary.to_json(), describe(summary))


def describe(summary: TileSummary) -> str:
    """Return what a person wants to know about a folder of tiles."""
    rows, cols = summary.shape
    height, width = summary.tile_shape
    shares = "".join(
        f"; {name.replace('_', ' ')} {100 * value:.1f} %"
        for name, value in summary.shares.items()
    )
    return (
        f"{summary.folder}: {rows} x {cols} tiles of {height} x {width} LR pixels, "
        f"overlap {summary.overlap}, in {', '.join(summary.kinds)}, written in "
        f"{summary.duration_s:.1f} s.\nValid {100 * summary.valid:.1f} %{shares}."
    )


def _step(scale: Fraction, multiple: int) -> int:
    from rsupres.tile_grid import lr_step

    return lr_step(scale, multiple)


def _spec(model: str, scale: Fraction) -> ModelSpec:
    from rsupres.checkpoints.catalogue import read_card
    from rsupres.errors import InputError

    card = read_card(model)
    if not card.spec.scales.offers(scale):
        raise InputError(
            f"{scale}: model {card.name} offers {card.spec.scales}.", argument="scale"
        )
    return card.spec


def _request(
    folder: Path, spec: ModelSpec | None, options: dict[str, Any]
) -> ConditionRequest:
    """Return which conditions are asked for; refuse options without their condition."""
    from rsupres.conditions.base import ConditionRequest
    from rsupres.upscaling.requirements import missing_companion

    request = ConditionRequest(folder=folder.absolute().parent, **options)
    if missing := missing_companion(request):
        command = click.get_current_context().command
        option, condition = (option_of(name, command) for name in missing)
        raise click.UsageError(f"{option} needs {condition}.")
    if spec is None:
        return request
    legend = request.legend or spec.legend
    return replace(request, legend=legend, change_table=spec.classes)
