"""Options about bands, and how their numbers become the [0, 1] of the models."""

from __future__ import annotations

import click

from rsupres.cli.options.parameters import BandsType, NamedBandsType, stacked

band_options = stacked(
    click.option(
        "-b",
        "--bidx",
        type=BandsType(),
        metavar="3,2,1",
        help="File bands for the model's roles, in the model's order. Default: by "
        "description or colour interpretation, else the first ones.",
    ),
    click.option(
        "--bands",
        "named_bands",
        type=NamedBandsType(),
        metavar="red=3,...",
        help="File bands for the model's roles, by role.",
    ),
    click.option(
        "--other-bands",
        type=click.Choice(["skip", "cubic", "inject"]),
        default="cubic",
        show_default=True,
        help="Bands that the model does not take: leave out, enlarge by bicubic "
        "interpolation, or also add the model's detail.",
    ),
    click.option(
        "--stretch",
        default="auto",
        show_default=True,
        metavar="auto|reflectance|percentile:2,98|LO,HI",
        help="How numbers become [0,1]; undone on writing.",
    ),
)
