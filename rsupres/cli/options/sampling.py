"""Options of how a model draws its result: seed, steps, sampler, samples, detail."""

from __future__ import annotations

import click

from rsupres.cli.options.parameters import stacked

seed_option = click.option(
    "--seed",
    type=click.IntRange(0, 2**63 - 1),
    default=0,
    show_default=True,
    help="Seed of the noise; the same seed gives the same picture.",
)
sampling_options = stacked(
    seed_option,
    click.option(
        "--steps",
        type=click.IntRange(min=1),
        help="Network evaluations a tile. Default: the model's.",
    ),
    click.option(
        "--sampler",
        metavar="NAME",
        help="Way of sampling, of those that the model offers. Default: the model's.",
    ),
    click.option(
        "--samples",
        type=click.IntRange(min=1),
        default=1,
        show_default=True,
        help="Draw the picture this many times and write the mean.",
    ),
    click.option(
        "--uncertainty",
        type=click.Path(dir_okay=False),
        metavar="PATH",
        help="Write the standard deviation over the samples here (float32, units of "
        "the output).",
    ),
    click.option(
        "--detail",
        type=click.FloatRange(0.0, 1.0),
        metavar="0...1",
        help="0 = most faithful pixels, 1 = most natural texture. Default: 0.",
    ),
    click.option(
        "--lock-low-frequencies/--no-lock-low-frequencies",
        default=False,
        show_default=True,
        help="After blending, make the result downscale back to the input.",
    ),
)
