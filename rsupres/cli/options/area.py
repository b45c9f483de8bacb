"""Options of which part of a scene is meant, and on which scene's grid."""

from __future__ import annotations

import click

from rsupres.cli.options.parameters import stacked

bounds_options = stacked(
    click.option(
        "--bounds",
        type=float,
        nargs=4,
        metavar="W S E N",
        help="Only this part of the scene: west, south, east, north in its CRS or "
        "--bounds-crs. Default: all.",
    ),
    click.option(
        "--bounds-crs",
        metavar="CRS",
        help="CRS of --bounds, such as EPSG:4326. Default: the scene's.",
    ),
)
area_options = stacked(
    bounds_options,
    click.option(
        "--aoi",
        metavar="PATH",
        help="Vector file with polygons; the output is nodata outside of them. "
        "Default: none.",
    ),
)
like_option = click.option(
    "--like",
    required=True,
    metavar="SCENE",
    help="Scene whose grid is refined for OUT.",
)
