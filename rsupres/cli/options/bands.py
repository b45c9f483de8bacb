"""Options about bands, and how their numbers become the [0, 1] of the models."""

from __future__ import annotations

import click

from rsupres.cli.options.parameters import BandsType, NamedBandsType, stacked

input_nodata_option = click.option(
    "--input-nodata",
    type=float,
    metavar="VALUE",
    help="Value of pixels in the scene that hold no measurement. Default: as the file "
    "declares.",
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
        show_default=True,
        help="What becomes of the bands besides those chosen: model runs each through "
        "the model, if it takes any band, cubic enlarges them by bicubic "
        "interpolation, inject also adds the model's detail, skip leaves them out. "
        "auto is model where that is possible, else cubic.",
    ),
    input_nodata_option,
    click.option(
        "--stretch",
        default="auto",
        show_default=True,
        metavar="auto|reflectance|percentile:2,98|LO,HI",
        help="How the scene's numbers become the models' [0, 1]; undone on writing. "
        "auto is 0,255 for bytes, reflectance where the file tells, else percentiles.",
    ),
)
