"""Options of `rsupres evaluate`, by which of its two uses they belong to."""

from __future__ import annotations

from pathlib import Path

import click

from rsupres.cli.options.conditions import style_options
from rsupres.cli.options.images import (
    DEGRADATIONS,
    file_choice_options,
    sidecar_options,
)
from rsupres.cli.options.parameters import ScaleType, stacked
from rsupres.cli.options.run import device_option, precision_option
from rsupres.cli.options.sampling import sampler_option, seed_option, steps_option


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


def _split_models(
    ctx: click.Context, param: click.Parameter, values: tuple[str, ...]
) -> tuple[str, ...]:
    """Return the names in texts such as ``a,b``, in their order."""
    return tuple(name for value in values for name in value.split(",") if name)


def _parse_conditions(
    ctx: click.Context, param: click.Parameter, values: tuple[str, ...]
) -> tuple[str, ...]:
    """Return the names of conditions as the library spells them."""
    return tuple(value.replace("-", "_") for value in values)


INDICES = ("ndvi", "ndwi")
pair_options = stacked(
    click.option(
        "--lr",
        metavar="PATH",
        help="The LR scene that SR was made of; measures the consistency and ERGAS. "
        "Default: not measured.",
    ),
    click.option(
        "--resample",
        is_flag=True,
        help="Warp HR to the grid of SR where the grids differ. Default: other grids "
        "are refused.",
    ),
    click.option(
        "--hr-nodata",
        type=float,
        metavar="VALUE",
        help="HR pixels with this number in every band are invalid; for files that "
        "name no nodata value. Default: as the file says.",
    ),
    click.option(
        "--align",
        callback=_parse_align,
        metavar="auto|DY,DX",
        help="Move HR by this many SR pixels (down, right) before measuring; auto is "
        "the shift found by phase correlation. For pictures of two sensors; needs "
        "--resample. Default: HR stays.",
    ),
    click.option(
        "--match-histogram",
        is_flag=True,
        help="Give SR the distribution of values of HR, band by band, before "
        "measuring; for pictures of two sensors.",
    ),
    click.option(
        "--calibration",
        type=click.Path(),
        metavar="UNCERTAINTY",
        help="The raster that --uncertainty wrote for SR: say whether errors are as "
        "large as it predicts, and where. Default: none.",
    ),
    click.option(
        "--calibration-plot",
        type=click.Path(dir_okay=False, path_type=Path),
        metavar="OUT.svg",
        help="Drawing to write of predicted errors against those made; needs "
        "--calibration. Default: none.",
    ),
    click.option(
        "--index",
        "indices",
        type=click.Choice(INDICES),
        multiple=True,
        help="Measure the error of this index of reflectance (ndvi: near infrared and "
        "red; ndwi: green and near infrared); may be repeated. Default: none.",
    ),
    click.option(
        "--stretch",
        default="auto",
        metavar="auto|reflectance|percentile:2,98|LO,HI",
        help="Which range of the files' numbers is 0 to 1 in the figures.",
    ),
    click.option(
        "--tile-size",
        type=click.IntRange(min=1),
        metavar="N",
        help="Side of the tiles that SR was made with, LR pixels; measures the seam "
        "ratio. Needs --lr. Default: not measured.",
    ),
    click.option(
        "--overlap",
        type=click.IntRange(min=0),
        default=0,
        metavar="N",
        help="Overlap of the tiles that SR was made with, LR pixels.",
    ),
    click.option(
        "--halo",
        type=click.IntRange(min=0),
        default=0,
        metavar="N",
        help="Halo of the model that made SR, LR pixels.",
    ),
)
models_options = stacked(
    click.option(
        "--model",
        "--models",
        "models",
        multiple=True,
        callback=_split_models,
        metavar="NAME|PATH,...",
        help="Models to run on a test set, bicubic for Pillow's: a,b,c, or repeated. "
        "With several, the others are compared with the first, image by image. "
        "Default: none, SR and HR are compared.",
    ),
    click.option(
        "--html",
        type=click.Path(dir_okay=False, path_type=Path),
        metavar="OUT.html",
        help="Page to write: means, differences with intervals, wins, and the ten "
        "images on which each model is worst. Default: none.",
    ),
    click.option(
        "--scale",
        "scales",
        type=ScaleType(),
        multiple=True,
        default=("4",),
        metavar="S",
        help="Scale of the test, SR pixels along one LR pixel; may be repeated.",
    ),
    click.option(
        "--every",
        type=click.IntRange(min=1),
        default=1,
        metavar="N",
        help="Take only every N-th image, from the first.",
    ),
    file_choice_options,
    click.option(
        "--degradation",
        type=click.Choice(DEGRADATIONS),
        help="How LR images are made. Default: as a pack says, else bicubic (Pillow).",
    ),
    click.option(
        "--detail",
        "details",
        type=click.FloatRange(0, 1),
        multiple=True,
        metavar="0...1",
        help="Detail of the models, 0 = most faithful, 1 = most natural; repeat it to "
        "compare. Default: 0.",
    ),
    steps_option,
    sampler_option,
    click.option(
        "--max-side",
        type=click.IntRange(min=24),
        default=1024,
        metavar="N",
        help="Cut larger images into parts of at most this side, HR pixels.",
    ),
    click.option(
        "--pictures",
        type=click.Path(file_okay=False, path_type=Path),
        metavar="DIR",
        help="Folder for a PNG of each image and scale that shows LR, every model and "
        "HR side by side. Default: none.",
    ),
    click.option(
        "--middle",
        type=click.IntRange(min=24),
        metavar="N",
        help="Take only the middle N x N HR pixels of each image. Default: all.",
    ),
    click.option(
        "--lr-from",
        multiple=True,
        metavar="OLD=NEW",
        help="The LR image of an image: its path with OLD replaced by NEW, such as "
        "HR_512=Bic_LR_D8_32; may be repeated. Default: LR is computed.",
    ),
    sidecar_options,
    click.option(
        "--without",
        type=click.Choice(("reference", "vector-map", "change-mask")),
        multiple=True,
        callback=_parse_conditions,
        help="Run every model that accepts this condition, but does not need it, once "
        "more without it; may be repeated. Default: none.",
    ),
    style_options,
    device_option,
    precision_option,
    seed_option,
)
PROTOCOLS = ("e2diffsr", "sgdm", "refdiff", "slimdiffsr")
protocol_option = click.option(
    "--protocol",
    type=click.Choice(PROTOCOLS),
    help="Run the test of this family's paper on the folder of its data, and print the "
    "paper's figures beside ours; --scale chooses among its scales. Default: none.",
)
figure_options = stacked(
    click.option(
        "--crop-border",
        "border",
        callback=_parse_border,
        default="auto",
        metavar="auto|N",
        help="SR pixels left out at every side for PSNR, SSIM, SAM, ERGAS and edges; "
        "auto is the scale, rounded up, for a test set and 0 for SR and HR.",
    ),
    click.option(
        "--lpips-weights",
        type=click.Path(file_okay=False, path_type=Path),
        metavar="DIR",
        help="Folder of the two weight files of LPIPS (squeeze). Default: the folder "
        "that the environment variable RSUPRES_LPIPS names; without it LPIPS is not "
        "measured.",
    ),
    click.option(
        "--metric-weights",
        type=click.Path(file_okay=False, path_type=Path),
        metavar="DIR",
        help="Folder, searched with its subfolders, of weights of LPIPS (squeeze, "
        "alex, vgg), DISTS, CLIP-IQA, MUSIQ, NIQE and, for a test set, FID and KID; "
        "what is there is measured, and a line names the files that are missing. "
        "Default: the folder that the environment variable RSUPRES_METRIC_WEIGHTS "
        "names, else none.",
    ),
    click.option(
        "--all-figures",
        is_flag=True,
        help="Measure also MS-SSIM, UIQI (torchmetrics), NIQE by a model of aerial "
        "images and, where LR is known, what opensr-test measures: synthesis, "
        "improvement, omission, hallucination, angle and shift against LR. Default: "
        "the usual figures.",
    ),
    click.option(
        "--fail-if",
        multiple=True,
        metavar="EXPR",
        help="Exit 8, after the table, when this is true of a row, such as 'psnr<30' "
        "or 'ssim<0.8 and shift_row>0.5'; may be repeated. Default: none.",
    ),
)
