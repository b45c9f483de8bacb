"""Options of a run of a model over scenes, and the `UpscaleJob` that they describe.

`upscale_options` are those of `upscale` and `plan`, `batch_options` those of `batch`.
Parsing only: no file is opened and nothing is checked against one.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from rsupres.cli.options.conditions import condition_options
from rsupres.cli.options.output import (
    coverage_option,
    format_options,
    overwrite_option,
    picture_option,
    report_option,
    run_options,
    sidecar_options,
    skip_option,
    update_option,
)
from rsupres.cli.options.parameters import (
    BatchType,
    DurationType,
    ScaleType,
    ShardType,
    stacked,
)
from rsupres.cli.options.sampling import sampling_options
from rsupres.cli.options.scene import area_options, band_options, mask_options
from rsupres.execution import limited_threads

if TYPE_CHECKING:
    from rsupres.upscaling.job import UpscaleJob
    from rsupres.upscaling.request import UpscaleOptions


model_option = click.option(
    "--model",
    metavar="NAME|PATH",
    help="Name of a model ('rsupres models list' shows them) or a "
    "checkpoint file. Default: the shipped model that fits bands and "
    "scale.",
)
scale_option = click.option(
    "--scale",
    type=ScaleType(),
    default="4",
    metavar="S",
    help="SR pixels along one LR pixel: 4, 2.5 or 10/3.",
)
model_scale_option = click.option(
    "--scale",
    type=ScaleType(),
    metavar="S",
    help="SR pixels along one LR pixel: 4, 2.5 or 10/3. Default: the only one of the "
    "--model, else 4.",
)
device_option = click.option(
    "--device",
    default="auto",
    metavar="auto|cpu|cuda[:i]|mps",
    help="Where the model computes; auto is CUDA, else MPS, else the CPU.",
)
devices_option = click.option(
    "--device",
    default="auto",
    metavar="auto|cpu|cuda[:i]|mps[,...]",
    help="Where the model computes; auto is CUDA, else MPS, else the CPU. Several, "
    "with commas between them, compute in a process each.",
)
precision_option = click.option(
    "--precision",
    type=click.Choice(["auto", "fp32", "bf16", "fp16"]),
    default="auto",
    help="Arithmetic of the networks; auto is bf16 on CUDA and on processors with "
    "AVX-512 BF16 or AMX, and fp32 elsewhere.",
)


def _limit_threads(
    ctx: click.Context, param: click.Parameter, value: int | None
) -> int | None:
    """Limit the threads of this process until the command ends."""
    if value is not None:
        ctx.with_resource(limited_threads(value))
    return value


threads_option = click.option(
    "--threads",
    type=click.IntRange(min=1),
    callback=_limit_threads,
    metavar="N",
    help="Threads of each process on the CPU, for networks, compression and decoding. "
    "Default: one for each processor core, shared among processes.",
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
        help="LR pixels that neighbouring tiles share. Default: by the model's halo.",
    ),
    click.option(
        "--batch-size",
        type=BatchType(),
        default="auto",
        metavar="N|auto",
        help="Tiles in one call of the model; auto chooses by the device. Halved when "
        "memory runs out.",
    ),
    devices_option,
    precision_option,
    threads_option,
    click.option(
        "--shard",
        type=ShardType(),
        metavar="I/N",
        help="Compute only the I-th of N shares of the strips; the last share to "
        "finish writes the output. Default: all strips.",
    ),
)
time_option = click.option(
    "--time-limit",
    "time_limit_s",
    type=DurationType(),
    metavar="5h|90m|45s",
    help="Stop after this time with exit code 142; the same command continues. "
    "Default: none.",
)
gate_option = click.option(
    "--fail-if",
    "fail_if",
    multiple=True,
    metavar="EXPR",
    help="Exit 8, and keep the output, when this is true, such as "
    "'consistency>0.02' or 'valid<0.9'; may be repeated. Default: none.",
)
batch_options = stacked(
    model_option,
    model_scale_option,
    band_options,
    mask_options,
    area_options,
    condition_options,
    coverage_option,
    sampling_options,
    work_options,
    format_options,
    overwrite_option,
    sidecar_options,
    picture_option,
    run_options,
    gate_option,
    skip_option,
    update_option,
)
upscale_options = stacked(batch_options, report_option)


_EXCLUDE_EACH_OTHER = (
    ("bidx", "bands"),
    ("overwrite", "skip_existing"),
    ("overwrite", "update"),
)


def kept_item(output: str, *, may_replace: bool) -> str:
    """Keep the STAC item that stands on stdin beside the output; return the file.

    From that file, the same command continues an unfinished run. A plan, which writes
    nothing, keeps it in a temporary folder.

    Args:
        output: of the command.
        may_replace: replace an item that was kept before.

    Raises:
        click.UsageError: stdin holds no JSON.
        RunConflictError: the file holds another item.
    """
    from rsupres.errors import RunConflictError
    from rsupres.output.store import store_name

    text = sys.stdin.buffer.read()
    try:
        json.loads(text)
    except ValueError as error:
        raise click.UsageError(
            f"SCENE -: stdin holds no STAC item ({error})."
        ) from error
    path = Path(f"{output}.item.json")
    if store_name(output) is not None:
        path = Path(path.name)
    ctx = click.get_current_context()
    if ctx.info_name == "plan" or ctx.params.get("is_plan"):
        folder = ctx.with_resource(tempfile.TemporaryDirectory())
        path = Path(folder) / path.name
    elif path.exists() and path.read_bytes() != text and not may_replace:
        raise RunConflictError(
            f"{path} exists and holds another item.", remedies=("overwrite", "restart")
        )
    path.write_bytes(text)
    return str(path)


def make_job(
    scenes: tuple[str, ...], output: str, options: Mapping[str, Any]
) -> UpscaleJob:
    """Return the job that the options of `upscale_options` describe.

    Args:
        scenes: files that are joined to one scene.
        output: the file to write.
        options: of `upscale_options`, by their name.

    Raises:
        click.UsageError: options that exclude each other.
    """
    from rsupres.upscaling import request

    chosen = dict(options)
    chosen.pop("report", None)  # the command makes it of the output
    chosen.pop("threads", None)  # in effect since it was read
    for one, other in _EXCLUDE_EACH_OTHER:
        if chosen.get(one) and chosen.get(other):
            option = other.replace("_", "-")
            raise click.UsageError(f"--{one} and --{option} exclude each other.")
    if chosen["bounds_crs"] and not chosen["bounds"]:
        raise click.UsageError("--bounds-crs needs --bounds.")
    scale = chosen.pop("scale")
    may_replace = bool(chosen.get("overwrite") or chosen.get("restart"))
    scenes = tuple(
        kept_item(output, may_replace=may_replace) if name == "-" else name
        for name in scenes
    )
    return request.make_job(scenes, output, scale, cast("UpscaleOptions", chosen))
