"""Options that two commands or more share, each written once.

`common_options` gives a command what every command accepts and hands it a `Console`;
`upscale_options` gives the options that make an `UpscaleJob`. Parsing only: nothing is
opened or checked against a file here.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rsupres.cli.console import Console, configure_logging
from rsupres.cli.options.conditions import condition_options
from rsupres.cli.options.parameters import (
    BandsType,
    BatchType,
    NamedBandsType,
    ScaleType,
    ShardType,
    split_creation,
    stacked,
)

if TYPE_CHECKING:
    from rsupres.output.strips import Destination
    from rsupres.upscaling.job import UpscaleJob

logger = logging.getLogger(__name__)


def common_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add ``-v -q --json --log-file --debug``; pass `console` to the function.

    Use it directly above the function, below ``@click.command`` and its options. The
    function takes a keyword `console` (`rsupres.cli.console.Console`) and none of the
    five options.
    """

    @click.option(
        "-v",
        "--verbose",
        count=True,
        help="Say more on stderr; twice for everything.",
    )
    @click.option(
        "-q", "--quiet", count=True, help="Show errors only, no progress and warnings."
    )
    @click.option(
        "--json", "as_json", is_flag=True, help="Write results as JSON, one a line."
    )
    @click.option(
        "--log-file",
        type=click.Path(dir_okay=False),
        help="Append the log, with times, to this file.",
    )
    @click.option("--debug", is_flag=True, help="Show the traceback of an error.")
    @click.pass_context
    @functools.wraps(function)
    def wrapper(
        ctx: click.Context,
        /,
        verbose: int,
        quiet: int,
        as_json: bool,
        log_file: str | None,
        debug: bool,
        **arguments: object,
    ) -> None:
        ctx.meta["rsupres.json"] = as_json
        ctx.meta["rsupres.debug"] = debug
        ctx.meta["rsupres.command"] = ctx.command
        verbosity = verbose - quiet
        undo = configure_logging(verbosity, log_file, ctx.command)
        ctx.find_root().call_on_close(undo)
        for given in ctx.meta.get("rsupres.renamed", ()):
            logger.warning(
                "%s is now called %s; version 0.3.0 drops the former name.",
                given.former,
                given.current,
            )
            arguments[given.current.lstrip("-").replace("-", "_")] = given.value
        function(console=Console(as_json, verbosity), **arguments)

    return wrapper


model_option = click.option(
    "--model",
    metavar="NAME|PATH",
    help="Card's name or a checkpoint file. Default: the shipped model that fits bands "
    "and scale.",
)
scale_option = click.option(
    "--scale",
    type=ScaleType(),
    default="4",
    show_default=True,
    metavar="S",
    help="How many times finer: 4, 2.5 or 10/3.",
)
device_option = click.option(
    "--device",
    default="auto",
    show_default=True,
    metavar="auto|cpu|cuda[:i]|mps",
    help="Where the model computes.",
)
precision_option = click.option(
    "--precision",
    type=click.Choice(["auto", "fp32", "bf16", "fp16"]),
    default="auto",
    show_default=True,
    help="Arithmetic of the networks; auto is bf16 on CUDA and fp32 elsewhere.",
)
seed_option = click.option(
    "--seed",
    type=click.IntRange(0, 2**63 - 1),
    default=0,
    show_default=True,
    help="Seed of the noise; the same seed gives the same picture.",
)
overwrite_option = click.option(
    "--overwrite", is_flag=True, help="Replace an output that exists."
)
file_choice_options = stacked(
    click.option(
        "--glob",
        default="*",
        show_default=True,
        metavar="PATTERN",
        help="Which files of a folder; '**/' descends.",
    ),
    click.option(
        "--exclude-glob",
        "exclude",
        multiple=True,
        metavar="PATTERN",
        help="File names to leave out; may be repeated.",
    ),
)
run_options = stacked(
    click.option(
        "--run-dir",
        type=click.Path(file_okay=False),
        metavar="DIR",
        help="Where the unfinished run lives. Default: OUT.run.",
    ),
    click.option(
        "--keep-run", is_flag=True, help="Keep the run directory after success."
    ),
)
driver_options = stacked(
    click.option(
        "--driver",
        type=click.Choice(["COG", "GTiff"], case_sensitive=False),
        default="COG",
        show_default=True,
        help="Format of the output.",
    ),
    click.option(
        "--co",
        "creation",
        multiple=True,
        metavar="KEY=VALUE",
        callback=split_creation,
        help="Creation option of the driver; may be repeated.",
    ),
)
destination_options = stacked(driver_options, overwrite_option, run_options)
like_option = click.option(
    "--like", required=True, metavar="SCENE", help="Scene whose grid OUT lies on."
)
format_options = stacked(
    driver_options,
    click.option(
        "--dtype",
        type=click.Choice(
            [
                "uint8",
                "int8",
                "uint16",
                "int16",
                "uint32",
                "int32",
                "float32",
                "float64",
            ]
        ),
        help="Data type of the output; values are kept, not rescaled. Default: the "
        "scene's.",
    ),
    click.option(
        "--nodata",
        type=float,
        metavar="VALUE",
        help="Value that means no measurement, in the output. Default: the scene's.",
    ),
)
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
coverage_option = click.option(
    "--reference-coverage",
    type=click.Path(dir_okay=False),
    metavar="PATH",
    help="Write here where the model had a reference: 1, 0 without (the fallback), 255 "
    "outside the scene.",
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
work_options = stacked(
    click.option(
        "--tile-size",
        type=click.IntRange(min=1),
        metavar="N",
        help="Side of a tile, LR pixels. Default: the model's.",
    ),
    click.option(
        "--overlap",
        type=click.IntRange(min=0),
        metavar="N",
        help="LR pixels shared by neighbouring tiles. Default: by the model's halo.",
    ),
    click.option(
        "--batch-size",
        type=BatchType(),
        default="auto",
        show_default=True,
        metavar="N|auto",
        help="Tiles in one call of the model; halved when memory runs out.",
    ),
    device_option,
    precision_option,
    click.option(
        "--shard",
        type=ShardType(),
        metavar="I/N",
        help="Compute only this share of the strips; the last share to finish writes "
        "the output.",
    ),
)
gate_option = click.option(
    "--fail-if",
    "fail_if",
    multiple=True,
    metavar="EXPR",
    help="Exit 8 when true, such as 'consistency>0.02' or 'valid<0.9'; repeatable.",
)
skip_option = click.option(
    "--skip-existing", is_flag=True, help="Do nothing when the output exists."
)
batch_options = stacked(
    model_option,
    scale_option,
    band_options,
    area_options,
    condition_options,
    coverage_option,
    sampling_options,
    work_options,
    format_options,
    overwrite_option,
    run_options,
    gate_option,
)
upscale_options = stacked(batch_options, skip_option)


def make_destination(output: Path, options: dict[str, Any]) -> Destination:
    """Return what `destination_options` describe; take them out of `options`."""
    from rsupres.output.strips import Destination

    run_dir = options.pop("run_dir")
    return Destination(
        output=output,
        run_dir=None if run_dir is None else Path(run_dir),
        **{
            name: options.pop(name)
            for name in ("driver", "creation", "overwrite", "keep_run")
        },
    )


def make_job(
    scenes: tuple[str, ...], output: str, options: Mapping[str, Any]
) -> UpscaleJob:
    """Return the job that the options of `upscale_options` describe.

    Raises:
        click.UsageError: options that exclude each other.
    """
    from rsupres.upscaling.job import UpscaleJob

    chosen = dict(options)
    for one, other in (("bidx", "named_bands"), ("overwrite", "skip_existing")):
        if chosen[one] and chosen[other]:
            names = {"bidx": "--bidx", "named_bands": "--bands"}
            raise click.UsageError(
                f"{names.get(one, '--overwrite')} and "
                f"{names.get(other, '--skip-existing')} exclude each other."
            )
    if chosen["bounds_crs"] and not chosen["bounds"]:
        raise click.UsageError("--bounds-crs needs --bounds.")
    for name in ("uncertainty", "reference_coverage", "run_dir"):
        chosen[name] = None if chosen[name] is None else Path(chosen[name])
    return UpscaleJob(scenes=scenes, output=Path(output), **chosen)
