"""`rsupres evaluate`: measure a picture against the truth, or models on a test set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
from click.core import ParameterSource

from rsupres.cli.console import Console
from rsupres.cli.options.conditions import style_options
from rsupres.cli.options.console import console_options
from rsupres.cli.options.evaluation import Options
from rsupres.cli.options.images import (
    DEGRADATIONS,
    check_classes,
    check_legend,
    companion_options,
    file_choice_options,
)
from rsupres.cli.options.parameters import ScaleType
from rsupres.cli.options.run import device_option, precision_option
from rsupres.cli.options.sampling import seed_option

_FOR_PAIRS = (
    *("lr", "resample", "hr_nodata", "align", "match", "stretch"),
    *("tile_size", "overlap", "halo"),
)
_FOR_TESTSETS = (
    *("models", "scales", "every", "glob", "exclude", "degradation", "details"),
    *("steps", "seed", "device", "precision", "max_side", "pictures"),
    *("reference_from", "vector_map_from", "change_mask_from", "class_table"),
    *("legend", "without", "sampler", "style", "style_sample"),
)


def _parse_border(ctx: click.Context, param: click.Parameter, value: str) -> int | None:
    """Return a number of pixels, None for ``auto``."""
    if value == "auto":
        return None
    if value.isdecimal():
        return int(value)
    raise click.BadParameter(f"{value!r} is neither a number from 0 nor auto.")


def _parse_align(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> tuple[float, float] | tuple[()] | None:
    """Return (row, column), () for ``auto``, None when not given."""
    if value is None or value == "auto":
        return None if value is None else ()
    try:
        row, col = (float(part) for part in value.split(","))
    except ValueError:
        raise click.BadParameter(f"{value!r} is neither auto nor DY,DX.") from None
    if not max(abs(row), abs(col)) < 1e4:
        raise click.BadParameter(f"{value!r} is no shift of some pixels.")
    return row, col


@click.command()
@click.argument("inputs", nargs=-1, required=True, metavar="SR HR | DATASET...")
@click.option("--lr", metavar="PATH", help="The input of SR, for the consistency.")
@click.option(
    "--resample", is_flag=True, help="Warp HR to the grid of SR where they differ."
)
@click.option(
    "--hr-nodata",
    type=float,
    metavar="VALUE",
    help="HR pixels with this number in every band are no measurement; for files that "
    "do not say so.",
)
@click.option(
    "--align",
    callback=_parse_align,
    metavar="auto|DY,DX",
    help="Move HR by this many SR pixels (down, right) before measuring; auto is the "
    "shift found by phase correlation. For two sensors; needs --resample.",
)
@click.option(
    "--match-histogram",
    "match",
    is_flag=True,
    help="Give SR the distribution of values of HR, band by band, before measuring; "
    "for pictures of two sensors.",
)
@click.option(
    "--stretch",
    default="auto",
    show_default=True,
    metavar="auto|reflectance|percentile:2,98|LO,HI",
    help="What range of numbers is 1 for the figures.",
)
@click.option(
    "--tile-size",
    type=click.IntRange(min=1),
    metavar="N",
    help="Tile side that SR was made with, LR pixels; measures the seam ratio. Needs "
    "--lr.",
)
@click.option(
    "--overlap",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    metavar="N",
    help="Overlap that SR was made with, LR pixels.",
)
@click.option(
    "--halo",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    metavar="N",
    help="Halo of the model that made SR, LR pixels.",
)
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="NAME|PATH",
    help="Model to run on a test set; may be repeated; bicubic is Pillow's.",
)
@click.option(
    "--scale",
    "scales",
    type=ScaleType(),
    multiple=True,
    default=("4",),
    show_default=True,
    metavar="S",
    help="Scale of the test; may be repeated.",
)
@click.option(
    "--every",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    metavar="N",
    help="Take every N-th image only, from the first.",
)
@file_choice_options
@click.option(
    "--degradation",
    type=click.Choice(DEGRADATIONS),
    help="How LR images are made. Default: a pack's own, else bicubic (Pillow).",
)
@click.option(
    "--detail",
    "details",
    type=click.FloatRange(0, 1),
    multiple=True,
    metavar="0...1",
    help="Detail of the models; repeat it to compare. Default: 0.",
)
@click.option(
    "--steps", type=click.IntRange(min=1), help="Sampling steps of the models."
)
@click.option(
    "--max-side",
    type=click.IntRange(min=24),
    default=1024,
    show_default=True,
    metavar="N",
    help="Cut larger images into parts of at most this side, HR pixels.",
)
@click.option(
    "--pictures",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Write LR, every model and HR side by side there, a PNG per image and scale.",
)
@click.option(
    "--crop-border",
    "border",
    callback=_parse_border,
    default="auto",
    show_default=True,
    metavar="auto|N",
    help="SR pixels left out at every side for PSNR, SSIM, SAM and ERGAS; auto is the "
    "scale, rounded up, for a test set and 0 for SR and HR.",
)
@click.option(
    "--lpips-weights",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Folder of the LPIPS (squeeze) weights. Default: RSUPRES_LPIPS, else the "
    "checkout's shared folder, else no LPIPS.",
)
@click.option("--sampler", metavar="NAME", help="Sampler of the models.")
@companion_options
@click.option(
    "--without",
    type=click.Choice(("reference", "vector-map", "change-mask")),
    multiple=True,
    help="Run every model that looks at it, but does not need it, once more without; "
    "may be repeated.",
)
@style_options
@device_option
@precision_option
@seed_option
@console_options
@click.pass_context
def evaluate(
    ctx: click.Context, /, console: Console, inputs: tuple[str, ...], **chosen: object
) -> None:
    """Measure SR against HR, or models on a test set of HR images.

    With two rasters: figures on their common grid and valid area. With --model: DATASET
    is folders, images or a pack; every image is degraded, every model runs on the same
    LR images, and a table compares them; -v adds a line per image. What a model looks
    at besides LR is found by the image's name: --reference-from 2020=2018 takes
    town_2018_7.tif for town_2020_7.tif. Where there is a map, edges are measured near
    its borders too.

    \b
    Examples:
      rsupres evaluate scene_x4.tif truth.tif --lr scene.tif
      rsupres evaluate chips --model bicubic --model e2diffsr-small --scale 2 --scale 4
      rsupres evaluate chips --glob '*_2020_*' --model my.safetensors --scale 8 \
          --reference-from 2020=2018
    """  # noqa: D301  # Click wants the character, not the two letters
    options = Options(**chosen)  # type: ignore[arg-type]  # Click gives these types
    given = {
        name
        for name in chosen
        if ctx.get_parameter_source(name) == ParameterSource.COMMANDLINE
    }
    if options.models:
        from rsupres.cli.evaluate_testset import evaluate_testset

        _refuse(given, _FOR_PAIRS, "SR and HR, not with --model")
        check_legend(options.legend, options.vector_map_from)
        check_classes(options.class_table, options.change_mask_from)
        evaluate_testset(console, [Path(name) for name in inputs], options)
    elif len(inputs) == 2:
        from rsupres.cli.evaluate_pair import evaluate_pair

        _refuse(given, _FOR_TESTSETS, "a test set, with --model")
        evaluate_pair(console, inputs[0], inputs[1], options)
    else:
        raise click.UsageError("Give SR and HR, or a test set and --model NAME.")


def _refuse(given: set[str], names: Sequence[str], where: str) -> None:
    wrong = sorted(given & set(names))
    if wrong:
        flags = {"models": "model", "scales": "scale", "details": "detail"}
        flags |= {"match": "match-histogram", "exclude": "exclude-glob"}
        flag = flags.get(wrong[0], wrong[0]).replace("_", "-")
        raise click.UsageError(f"--{flag} is for {where}.")
