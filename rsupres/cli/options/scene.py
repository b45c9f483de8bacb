"""Options of how a scene is read: the part, the bands, the units of its numbers."""

from __future__ import annotations

import click

from rsupres.cli.options.parameters import (
    BandsType,
    LayersType,
    NamedBandsType,
    stacked,
)

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
input_nodata_option = click.option(
    "--input-nodata",
    type=float,
    metavar="VALUE",
    help="Value of pixels in the scene that hold no measurement. Default: as the file "
    "declares.",
)
bands_out_option = click.option(
    "--bands-out",
    metavar="10m|all|B02,B8A,...",
    help="Bands of a Sentinel-2 product or a STAC item, also of 20 and 60 m, which are "
    "brought to the grid of 10 m; SCL adds the scene classification. Default: the four "
    "of 10 m.",
)
band_options = stacked(
    click.option(
        "-b",
        "--bidx",
        type=BandsType(),
        metavar="3,2,1",
        help="Bands of the file for the model's roles, in the model's order. Default: "
        "by description or colour interpretation, else the first ones.",
    ),
    click.option(
        "--bands",
        type=NamedBandsType(),
        metavar="red=3,...",
        help="Bands of the file for the model's roles, by role. Default: as for "
        "--bidx.",
    ),
    click.option(
        "--other-bands",
        type=click.Choice(["auto", "model", "cubic", "inject", "skip"]),
        default="auto",
        help="How the bands besides those chosen are made: model runs each through "
        "the model, if it takes any band, cubic enlarges them by bicubic "
        "interpolation, inject also adds the model's detail, skip leaves them out. "
        "auto is model where that is possible, else cubic.",
    ),
    input_nodata_option,
    bands_out_option,
    click.option(
        "--dn-scale",
        type=float,
        metavar="VALUE",
        help="Scale of digital numbers, where metadata lack it: reflectance = (DN + "
        "offset) * VALUE. Default: from the metadata.",
    ),
    click.option(
        "--dn-offset",
        type=float,
        metavar="DN",
        help="The offset of --dn-scale, such as -1000. Default: from the metadata.",
    ),
    click.option(
        "--stretch",
        default="auto",
        metavar="auto|reflectance|percentile:2,98|LO,HI",
        help="How the scene's numbers become the models' [0, 1]; undone on writing. "
        "auto is 0,255 for bytes, reflectance where its scale is known, else "
        "percentiles.",
    ),
)
mask_options = stacked(
    click.option(
        "--mask",
        metavar="scl|qa60|PATH",
        help="Hide pixels from the model: by the scene classification of the product, "
        "its cloud mask, or a raster or polygons of your own. Default: none is hidden.",
    ),
    click.option(
        "--mask-classes",
        type=LayersType(),
        metavar="NAME,...",
        help="Classes of the mask that are hidden, by name or number; of a raster "
        "without known classes all but 0. Default: "
        "nodata,saturated,shadow,clouds,cirrus.",
    ),
    click.option(
        "--mask-action",
        type=click.Choice(["nodata", "keep-bicubic"]),
        default="nodata",
        help="Values of hidden pixels: nodata, or bicubic interpolation.",
    ),
)
