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
        help="Only this part, in the scene's CRS or --bounds-crs.",
    ),
    click.option(
        "--bounds-crs", metavar="CRS", help="CRS of --bounds, such as EPSG:4326."
    ),
)
area_options = stacked(
    bounds_options,
    click.option(
        "--aoi",
        metavar="PATH",
        help="Only inside these polygons (any vector file); the rest is nodata.",
    ),
)
like_option = click.option(
    "--like", required=True, metavar="SCENE", help="Scene whose grid OUT lies on."
)
