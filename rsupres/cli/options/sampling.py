"""Options of how a model draws its result: seed, steps, sampler, samples, detail."""

from __future__ import annotations

import click

from rsupres.cli.options.parameters import stacked

seed_option = click.option(
    "--seed",
    type=click.IntRange(0, 2**63 - 1),
    metavar="N",
    default=0,
    help="Seed of the noise; the same seed gives the same result.",
)
steps_option = click.option(
    "--steps",
    type=click.IntRange(min=1),
    metavar="N",
    help="Network evaluations for a tile or an image. Default: the model's.",
)
sampler_option = click.option(
    "--sampler",
    metavar="NAME",
    help="Sampler, one of those that the model offers. Default: the model's.",
)
sampling_options = stacked(
    seed_option,
    steps_option,
    sampler_option,
    click.option(
        "--samples",
        type=click.IntRange(min=1),
        metavar="N",
        default=1,
        help="Number of results to draw; their mean is written.",
    ),
    click.option(
        "--uncertainty",
        type=click.Path(),
        metavar="PATH",
        help="Raster to write, the standard deviation of the error where the model "
        "predicts it, else over the samples (float32, units of the output). "
        "Default: none.",
    ),
    click.option(
        "--interval",
        type=(float, click.Path(), click.Path()),
        metavar="SHARE LOW HIGH",
        help="Two rasters to write, between which this share of the true values is "
        "expected to lie (float32), such as 0.9 low.tif high.tif; for models that "
        "predict their error. Default: none.",
    ),
    click.option(
        "--detail",
        type=click.FloatRange(0.0, 1.0),
        metavar="0...1",
        help="0 = most faithful pixels, 1 = most natural texture. Default: 0.",
    ),
    click.option(
        "--sensor-mtf",
        type=click.FloatRange(0.0, 1.0, min_open=True, max_open=True),
        metavar="0...1",
        help="Modulation transfer of the sensor at the Nyquist frequency of the "
        "scene's pixels. Default: estimated from the scene.",
    ),
    click.option(
        "--noise",
        type=click.FloatRange(min=0.0),
        metavar="DN",
        help="Standard deviation of the noise in the scene's digital numbers. "
        "Default: estimated from the scene.",
    ),
    click.option(
        "--lock-low-frequencies/--no-lock-low-frequencies",
        default=False,
        help="Correct the result so that it reduces to the input: through the sensor's "
        "blur where the model knows it, else by means over each LR pixel.",
    ),
)
