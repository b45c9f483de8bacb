"""`rsupres evaluate`: measure a picture against the truth, or models on a test set."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from rsupres.cli.console import Console
from rsupres.cli.options import (
    ScaleType,
    common_options,
    device_option,
    file_choice_options,
    precision_option,
    seed_option,
)
from rsupres.errors import CheckpointError, InputError

if TYPE_CHECKING:
    import numpy as np
    import torch

    from rsupres.chips import Chip
    from rsupres.evaluation.lpips import LpipsSqueeze
    from rsupres.evaluation.pairs import Layer
    from rsupres.evaluation.report import Row
    from rsupres.evaluation.testset import Candidate, Degradation
    from rsupres.training.packs import Pack
    from rsupres.training.sensor import Sentinel2Params

logger = logging.getLogger(__name__)

_FOR_PAIRS = (
    *("lr", "resample", "hr_nodata", "align", "match", "stretch"),
    *("tile_size", "overlap", "halo"),
)
_FOR_TESTSETS = (
    *("models", "scales", "every", "glob", "exclude", "degradation", "details"),
    *("steps", "seed", "device", "precision", "max_side", "pictures"),
)


@dataclass(frozen=True)
class _Options:
    """What the user chose; see the help of the options."""

    lr: str | None
    resample: bool
    hr_nodata: float | None
    align: tuple[float, float] | tuple[()] | None
    match: bool
    stretch: str
    tile_size: int | None
    overlap: int
    halo: int
    models: tuple[str, ...]
    scales: tuple[Fraction, ...]
    every: int
    glob: str
    exclude: tuple[str, ...]
    degradation: str | None
    details: tuple[float, ...]
    steps: int | None
    seed: int
    device: str
    precision: str
    max_side: int
    pictures: Path | None
    border: int | None
    lpips_weights: Path | None


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
    type=click.Choice(["bicubic", "sentinel2"]),
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
@device_option
@precision_option
@seed_option
@common_options
@click.pass_context
def evaluate(
    ctx: click.Context, /, console: Console, inputs: tuple[str, ...], **chosen: object
) -> None:
    """Measure SR against HR, or models on a test set of HR images.

    With two rasters: figures on their common grid and valid area. With --model: DATASET
    is folders, images or a pack; every image is degraded, every model runs on the same
    LR images, and a table compares them; -v adds a line per image.

    \b
    Examples:
      rsupres evaluate scene_x4.tif truth.tif --lr scene.tif
      rsupres evaluate chips --model bicubic --model e2diffsr-small --scale 2 --scale 4
    """  # noqa: D301  # Click wants the character, not the two letters
    options = _Options(**chosen)  # type: ignore[arg-type]  # Click gives these types
    given = {
        name
        for name in chosen
        if ctx.get_parameter_source(name) == ParameterSource.COMMANDLINE
    }
    if options.models:
        _refuse(given, _FOR_PAIRS, "SR and HR, not with --model")
        _evaluate_testset(console, [Path(name) for name in inputs], options)
    elif len(inputs) == 2:
        _refuse(given, _FOR_TESTSETS, "a test set, with --model")
        _evaluate_pair(console, inputs[0], inputs[1], options)
    else:
        raise click.UsageError("Give SR and HR, or a test set and --model NAME.")


def _refuse(given: set[str], names: Sequence[str], where: str) -> None:
    wrong = sorted(given & set(names))
    if wrong:
        flags = {"models": "model", "scales": "scale", "details": "detail"}
        flags |= {"match": "match-histogram", "exclude": "exclude-glob"}
        flag = flags.get(wrong[0], wrong[0]).replace("_", "-")
        raise click.UsageError(f"--{flag} is for {where}.")


def _evaluate_pair(
    console: Console, sr_path: str, hr_path: str, options: _Options
) -> None:
    from rsupres.evaluation.metrics import consistency
    from rsupres.evaluation.pairs import (
        Request,
        load_lr,
        load_pair,
        match_histogram,
        shrink_to,
    )
    from rsupres.evaluation.report import Row, score, table_lines
    from rsupres.radiometry import parse_stretch

    if options.tile_size is not None and options.lr is None:
        raise click.UsageError("--tile-size needs --lr, whose grid the tiles lie on.")
    if options.align is not None and not options.resample:
        raise click.UsageError("--align warps HR; give --resample with it.")
    request = Request(
        parse_stretch(options.stretch),
        options.resample,
        options.hr_nodata,
        options.align,
    )
    pair, sr, stretch = load_pair(sr_path, hr_path, request)
    scale, extra = Fraction(1), {}
    if options.lr is not None:
        shrunk, lr, scale = shrink_to(load_lr(options.lr, sr_path, stretch), sr)
        found = consistency(shrunk.pixels, lr.pixels, lr.valid)
        extra = {"consistency": found.mean_abs, "consistency_rms": found.rms}
        if options.tile_size is not None:
            extra["seam"] = _seam(sr, lr, scale, options)
    tested = pair.sr
    if options.match:
        tested = match_histogram(pair.sr, pair.hr, pair.valid)
    figures = score(
        tested,
        pair.hr,
        float(scale),
        border=options.border or 0,
        valid=pair.valid,
        lpips=_find_lpips(options, "cpu"),
    )
    if options.lr is None:
        figures.pop("ergas")  # needs the scale
    name = Path(sr_path).name
    row = Row(
        name, str(scale) if options.lr else "-", Path(hr_path).name, 1, figures | extra
    )
    record = row.to_json() | {
        "valid_pixels": int(pair.valid.sum()),
        "hr_moved_by": list(pair.moved),
    }
    console.emit(record, "\n".join(table_lines([row])))


def _seam(sr: Layer, lr: Layer, scale: Fraction, options: _Options) -> float:
    from rsupres.evaluation.metrics import seam_ratio, tile_borders
    from rsupres.grid import TileGrid

    assert options.tile_size is not None
    tiles = TileGrid.plan(
        lr.grid, scale, options.tile_size, options.overlap, options.halo
    )
    rows, cols = tile_borders(tiles)
    return seam_ratio(sr.pixels, rows, cols, sr.valid)


def _evaluate_testset(
    console: Console, inputs: Sequence[Path], options: _Options
) -> None:
    from rsupres.devices import find_device
    from rsupres.evaluation.report import mean_rows, table_lines
    from rsupres.evaluation.testset import run_testset
    from rsupres.execution import Progress

    device = find_device(options.device)
    candidates = _load_candidates(options, device)
    chips, n_chips, degradation = _find_chips(inputs, options)
    if options.pictures is not None:
        options.pictures.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    seen: set[str] = set()
    with console.progress() as show:
        for row in run_testset(
            chips,
            candidates,
            options.scales,
            degradation,
            border=options.border,
            lpips=_find_lpips(options, str(device)),
            pictures=options.pictures,
        ):
            rows.append(row)
            seen.add((row.image or "").partition("@")[0])
            show(Progress("Images", len(seen) - 1, n_chips, "images"))
    if not rows:
        raise InputError(f"{inputs[0]}: no image is fit for the test.")
    means = sorted(mean_rows(rows), key=lambda row: -Fraction(row.scale))
    shown = [*rows, *means] if console.verbosity > 0 else means
    head, *lines = table_lines(shown)
    if not console.as_json:
        click.echo(head)
    for row, line in zip(shown, lines, strict=True):
        console.emit(row.to_json() | {"degradation": degradation.name}, line)


def _load_candidates(options: _Options, device: torch.device) -> list[Candidate]:
    from rsupres.checkpoints import load_model
    from rsupres.evaluation.testset import (
        BICUBIC,
        bicubic_candidate,
        model_candidate,
    )
    from rsupres.families.base import SamplerOptions

    automatic = "bf16" if device.type == "cuda" else "fp32"
    precision = automatic if options.precision == "auto" else options.precision
    candidates = []
    for name in dict.fromkeys(options.models):
        if name == BICUBIC:
            candidates.append(bicubic_candidate())
            continue
        for detail in options.details or (0.0,):
            sampling = SamplerOptions(
                steps=options.steps,
                detail=detail,
                precision=precision,  # type: ignore[arg-type]  # Click checked it
            )
            model = load_model(name, device, sampling)
            label = Path(name).stem if name.endswith(".safetensors") else name
            label += f" detail {detail:g}" if model.spec.detail else ""
            candidates.append(model_candidate(label, model, device, options.seed))
    return candidates


def _find_chips(
    inputs: Sequence[Path], options: _Options
) -> tuple[Iterator[Chip], int, Degradation]:
    """Return the images, their number (before cutting), and the degradation."""
    from rsupres.chips import find_images
    from rsupres.evaluation.testset import load_chips
    from rsupres.training.packs import Pack

    if len(inputs) == 1 and inputs[0].suffix == ".safetensors":
        pack = Pack.load(inputs[0])
        chips = _chips_of(pack)[:: options.every]
        name = options.degradation or pack.meta.degradation
        is_own = name == pack.meta.degradation
        params = pack.meta.parameters if is_own else {}
        return iter(chips), len(chips), _degradation(name, options.seed, params)
    images = find_images(inputs, options.glob, options.exclude)[:: options.every]
    name = options.degradation or "bicubic"
    found = load_chips(images, options.max_side)
    return found, len(images), _degradation(name, options.seed, {})


def _chips_of(pack: Pack) -> list[Chip]:
    import numpy as np

    from rsupres.chips import Chip

    return [
        Chip(
            crop,
            np.ones(crop.shape[1:], bool),
            origin.gsd_m,
            f"{origin.source} {origin.gsd_m:g} m",
        )
        for crop, origin in zip(pack.crops, pack.meta.crops, strict=True)
    ]


def _degradation(name: str, seed: int, params: Mapping[str, object]) -> Degradation:
    """Return Pillow's bicubic, or the simulated sensor with draws of its own per image.

    SR is brought back by the same sensor with the mean MTF, without shift and noise.
    """
    import numpy as np
    import torch

    from rsupres.chips import to_uint8
    from rsupres.evaluation.testset import Degradation, bicubic_degradation
    from rsupres.training.sensor import Sentinel2Params, degrade_sentinel2

    if name == "bicubic":
        return bicubic_degradation()
    drawn = Sentinel2Params.from_json(params)
    still = drawn.still()

    def record(
        image: np.ndarray, size: tuple[int, int], number: int, sensor: Sentinel2Params
    ) -> np.ndarray:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + number)
        hr = torch.from_numpy(np.ascontiguousarray(image, np.float32))[None]
        return degrade_sentinel2(hr, size, generator, sensor)[0].numpy()

    return Degradation(
        name,
        lambda hr, size, number: to_uint8(
            record(hr / np.float32(255), size, number, drawn)
        ),
        lambda sr, size: record(sr, size, 0, still),
    )


def _find_lpips(options: _Options, device: str) -> LpipsSqueeze | None:
    """Return the module; None when nobody named weights and the default has none."""
    from rsupres.evaluation.lpips import ENVIRONMENT, LpipsSqueeze, find_weights

    try:
        folder = find_weights(options.lpips_weights)
    except CheckpointError as error:
        if options.lpips_weights is not None or os.environ.get(ENVIRONMENT):
            raise
        logger.info("No LPIPS: %s", error)
        return None
    return LpipsSqueeze.load(folder).to(device)
