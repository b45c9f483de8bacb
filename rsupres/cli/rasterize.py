"""`rsupres rasterize`: burn a vector map on the SR grid of a scene."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rsupres.cli.options.console import console_options
from rsupres.cli.options.output import destination_options, take_writing
from rsupres.cli.options.parameters import LayersType, expand_lists, former_option
from rsupres.cli.options.run import scale_option
from rsupres.cli.options.scene import like_option
from rsupres.cli.terminal.console import Console

if TYPE_CHECKING:
    from rsupres.vector.rasterize import RasterizeSummary

_TOP_IGNORED = 5


@click.command()
@click.argument("maps", nargs=-1, callback=expand_lists, metavar="MAP...")
@click.argument("output", type=click.Path(path_type=Path), metavar="OUT")
@like_option
@scale_option
@click.option(
    "--legend",
    default="classes",
    metavar="NAME|PATH",
    help="What is drawn and how: classes (one band of codes), maptiler or osm-carto "
    "(RGB), or a TOML file.",
)
@click.option(
    "--layers",
    type=LayersType(),
    metavar="A,B",
    help="Draw only these classes of the legend, such as building,road. Default: all.",
)
@click.option(
    "--place",
    metavar="NAME",
    help="Download OpenStreetMap of this place, where the scene covers it. Default: "
    "none.",
)
@click.option(
    "--bounds",
    type=float,
    nargs=4,
    metavar="W S E N",
    help="Download OpenStreetMap of this box, degrees, where the scene covers it. "
    "Default: none.",
)
@former_option("--bbox", "--bounds", type=float, nargs=4)
@click.option("--antialias", is_flag=True, help="Blend the edges of an RGB legend.")
@destination_options
@console_options
def rasterize(
    console: Console, maps: tuple[str, ...], output: Path, **options: Any
) -> None:
    """Burn the vector map MAP on the grid of a scene, SCALE times finer, into OUT.

    MAP is OSM (.osm.pbf, .osm, .osm.bz2), GeoPackage, GeoJSON, FlatGeobuf, Shapefile or
    GeoParquet; several are drawn as one. The word overpass downloads OpenStreetMap for
    the scene and keeps a dated copy beside OUT, which later calls read offline. Roads
    and rivers are as wide as on the ground, and at least one pixel.

    \b
    Examples:
      rsupres rasterize town.osm.pbf classes.tif --like scene.tif --scale 8
      rsupres rasterize town.gpkg map.tif --like scene.tif --scale 16 \\
          --legend maptiler --layers building,road --antialias
      rsupres rasterize overpass map.tif --like scene.tif --scale 8
    """  # noqa: D301  # Click wants the character, not the two letters
    from rsupres.vector import LIVE
    from rsupres.vector.rasterize import rasterize as burn

    if not (maps or options["place"] or options["bounds"]):
        if output.exists() or output.name == LIVE:
            raise click.UsageError("Missing argument 'OUT'.")
        raise click.UsageError("Give a MAP before OUT, --place or --bounds.")
    if options["place"] and options["bounds"]:
        raise click.UsageError("--place and --bounds exclude each other.")
    writing = take_writing(options)
    with console.work() as show:
        summary = burn(maps, output, on_progress=show, **options, **writing)
    console.emit(summary.to_json(), describe(summary))


def describe(summary: RasterizeSummary) -> str:
    """Return a summary of the drawn features as lines of text."""
    grid = summary.grid
    lines = [
        f"{summary.output} written in {summary.duration_s:.1f} s: {grid.width} x "
        f"{grid.height} pixels of {grid.gsd_m:.3g} m, legend {summary.legend}.",
        *(
            f"  {name:<16} {count:>9,}"
            for name, count in summary.counts.items()
            if count
        ),
    ]
    if summary.ignored:
        top = list(summary.ignored_tags.items())[:_TOP_IGNORED]
        named = ", ".join(f"{tag} {count:,}" for tag, count in top)
        lines.append(f"Not in the legend: {summary.ignored:,} features ({named}).")
    if summary.hidden:
        lines.append(f"In tunnels or underground: {summary.hidden:,} features.")
    return "\n".join(lines)
