"""`rsupres dataset`: pack HR images into training crops, and check packs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rsupres.cli.options.console import console_options
from rsupres.cli.options.images import (
    DEGRADATIONS,
    check_classes,
    check_legend,
    file_choice_options,
    sidecar_options,
)
from rsupres.cli.options.output import overwrite_option
from rsupres.cli.options.parameters import BandsType, ScaleType
from rsupres.cli.options.sampling import seed_option
from rsupres.cli.terminal.console import Console

if TYPE_CHECKING:
    from rsupres.datasets.chips import ChipOptions
    from rsupres.datasets.inspection import PackReport
    from rsupres.datasets.packing import PackOptions


def _parse_gsds(
    ctx: click.Context, param: click.Parameter, text: str | None
) -> tuple[float, ...]:
    """Return metres, each once, in the given order."""
    if text is None:
        return ()
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if not values or not all(0 < value < 1e5 for value in values):
        raise click.BadParameter(f"{text!r} is not a list of metres such as 0.6,2.5.")
    return tuple(dict.fromkeys(values))


def _parse_parameters(
    ctx: click.Context, param: click.Parameter, texts: tuple[str, ...]
) -> dict[str, object]:
    """Return numbers, or lists of numbers, by key."""
    values: dict[str, object] = {}
    for text in texts:
        key, sign, value = text.partition("=")
        try:
            numbers = [
                int(part) if part.strip().isdecimal() else float(part)
                for part in value.split(",")
            ]
        except ValueError:
            numbers = []
        if not sign or not numbers:
            raise click.BadParameter(f"{text!r} is not KEY=NUMBER or KEY=LOW,HIGH.")
        values[key.strip()] = numbers if len(numbers) > 1 else numbers[0]
    return values


def _parse_pattern(
    ctx: click.Context, param: click.Parameter, text: str | None
) -> re.Pattern[str] | None:
    """Return a compiled regular expression."""
    try:
        return re.compile(text) if text is not None else None
    except re.error as error:
        raise click.BadParameter(f"{text!r}: {error}.") from error


@click.group()
def dataset() -> None:
    """Make and check packs of training crops."""


@dataset.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--hr",
    "inputs",
    multiple=True,
    required=True,
    metavar="DIR|FILE",
    type=click.Path(path_type=Path),
    help="Folder of sharp images, or one image; may be repeated. Folders of 'rsupres "
    "tile' with hr, and those of SECOND and CNAM-CD as Ref-Diff arranges them "
    "(HR_512, Ref, CD_mask, *_LR_D8_*), bring the conditions of each image.",
)
@file_choice_options
@click.option(
    "--gsd",
    "gsds_m",
    callback=_parse_gsds,
    metavar="M,M,...",
    help="Metres per pixel that the images are brought to by area averaging, such as "
    "0.6,1.2,2.5,5; for an image, those finer than itself are left out. Default: as "
    "they are.",
)
@click.option(
    "--crop-size",
    "side",
    type=click.IntRange(min=24),
    default=256,
    metavar="N",
    help="Largest side of a crop, HR pixels.",
)
@click.option(
    "-b",
    "--bidx",
    "triples",
    type=BandsType(),
    multiple=True,
    metavar="4,3,2",
    help="Three bands of each file as the bands of its crops; repeated, each triple "
    "makes crops of its own, so that a model sees near infrared too. Default: red, "
    "green and blue.",
)
@click.option(
    "--stretch",
    default="auto",
    metavar="auto|reflectance|percentile:2,98|LO,HI",
    help="How the numbers of an image become [0, 1]. auto is 0,255 for bytes, "
    "reflectance where its scale is known, else percentiles.",
)
@click.option(
    "--bits",
    type=click.Choice(["8", "16"]),
    default="8",
    help="Bits of a stored number; 16 keep the tones of 12-bit and reflectance images.",
)
@click.option(
    "--degradation",
    type=click.Choice(DEGRADATIONS),
    default="bicubic",
    help="How LR images are made of the crops: Pillow's bicubic; a Sentinel-2-like "
    "sensor (blur by band, noise, small shifts, 12 bits); chains of blur, "
    "resizing, noise and JPEG of random strength: Ref-Diff's, or Real-ESRGAN's "
    "second-order; or any-sensor: blur of any strength or thinning, noise, JPEG.",
)
@click.option(
    "--params",
    "parameters",
    multiple=True,
    callback=_parse_parameters,
    metavar="KEY=VALUE",
    help="Parameter of the degradation, such as mtf=0.2,0.3; may be repeated. "
    "Default: the degradation's own.",
)
@click.option(
    "--scale",
    type=ScaleType(),
    metavar="S",
    help="Store LR crops of this scale too. Default: none, LR is made in training.",
)
@click.option(
    "--lr-from",
    multiple=True,
    metavar="OLD=NEW",
    help="LR of another sensor instead of a degradation: an image's path with OLD "
    "replaced by NEW, --scale times coarser, on the same ground; may be repeated. "
    "Default: none.",
)
@sidecar_options
@click.option(
    "--split-by",
    callback=_parse_pattern,
    metavar="REGEX",
    help="Regular expression that finds an image's place in its file name, such as "
    "'^(.+)_20'; for tiles, in the name of their folder. Default: the name without "
    "suffix.",
)
@click.option(
    "--validation",
    multiple=True,
    metavar="PLACE",
    help="Place (or pattern of places) that is kept out of training; may be repeated; "
    "OUT is then a folder. Default: none.",
)
@click.option(
    "--max-bytes",
    type=click.IntRange(min=1),
    metavar="N",
    help="Largest size of the crops of one pack, bytes. Default: no limit.",
)
@click.option(
    "--licence",
    default="",
    show_default=False,
    metavar="TEXT",
    help="Licence and attribution of the images, kept in the pack. Default: none.",
)
@seed_option
@overwrite_option
@console_options
def build(
    console: Console, out: Path, inputs: tuple[Path, ...], **options: Any
) -> None:
    """Pack sharp images into training crops.

    OUT is a .safetensors file, or a folder for train.safetensors and
    validation.safetensors. Images are split by place, never by file. The conditions of
    an image are found by its name and cut with it.

    \b
    Examples:
      rsupres dataset build packs --hr chips --split-by '^(.+)_20' --validation bath
      rsupres dataset build s2.safetensors --hr chips --gsd 2.5 --degradation sentinel2
      rsupres dataset build ref.safetensors --hr chips --glob '*_2020_*' \\
          --reference-from 2020=2018
      rsupres dataset build packs --hr tiles_ulm --hr tiles_bath \\
          --validation tiles_bath
      rsupres dataset build s2.safetensors --hr sentinel2 --bits 16 \\
          --bidx 3,2,1 --bidx 4,3,2
    """  # noqa: D301  # Click wants the character, not the two letters
    from rsupres.datasets.build import BuildRequest, build_packs, follow_layout
    from rsupres.datasets.layouts import find_layout

    plan = _make_plan(options)
    layout = find_layout(inputs, options["scale"])
    if layout is not None:
        if layout.needs_classes and not options["class_table"]:
            raise click.UsageError(
                f"{inputs[0]}: the files do not say what the values of the masks mean;"
                " name their class table with --class-table (second, cnam-cd, or a"
                " TOML file by its CLASS_Table.txt)."
            )
        inputs, plan = layout.inputs, follow_layout(plan, layout)
    check_legend(options["legend"], plan.sidecars.vector_map)
    check_classes(options["class_table"], plan.sidecars.change_mask)
    _check_stored_lr(plan, options)
    if options["validation"] and out.suffix == ".safetensors":
        raise click.UsageError(f"--validation makes two packs; {out} must be a folder.")
    names = ("glob", "exclude", "split_by", "validation", "overwrite")
    chosen = {name: options[name] for name in names}
    with console.progress() as show:
        reports = build_packs(
            BuildRequest(out, inputs, plan, **chosen), on_progress=show
        )
    _show(console, reports)


@dataset.command()
@click.argument(
    "packs",
    nargs=-1,
    required=True,
    type=click.Path(path_type=Path),
)
@console_options
def check(console: Console, packs: tuple[Path, ...]) -> None:
    """Check packs, each alone and training against validation.

    Headers, sizes, types and values are checked, and that no place and no crop is in
    both splits; exits 3 at the first fault. Crops that a pack repeats are counted.

    \b
    Example:
      rsupres dataset check packs/train.safetensors packs/validation.safetensors
    """  # noqa: D301  # Click wants the character, not the two letters
    from rsupres.datasets.build import packs_in
    from rsupres.datasets.inspection import check_packs

    _show(console, check_packs(packs_in(packs)))


def _make_plan(options: dict[str, Any]) -> PackOptions:
    """Return how crops are made, as the options of ``build`` say."""
    from rsupres.datasets.packing import PackOptions
    from rsupres.datasets.sidecars import Sidecars
    from rsupres.degradations.registry import make_degradation
    from rsupres.legends.legend import DEFAULT_COLOUR_LEGEND

    degradation, parameters = options["degradation"], options["parameters"]
    if degradation == "bicubic":
        if parameters:
            raise click.BadParameter("the bicubic degradation has no --params.")
    else:  # with the defaults of those that are not given
        parameters = make_degradation(degradation, parameters).to_json()
    names = ("gsds_m", "side", "max_bytes", "licence", "seed", "scale", "lr_from")
    return PackOptions(
        degradation=degradation,
        parameters=parameters,
        sidecars=Sidecars(
            reference=options["reference_from"],
            vector_map=options["vector_map_from"],
            change_mask=options["change_mask_from"],
            legend=options["legend"] or DEFAULT_COLOUR_LEGEND,
            class_table=options["class_table"],
        ),
        readings=_readings(options),
        **{name: options[name] for name in names},
    )


def _readings(options: dict[str, Any]) -> tuple[ChipOptions, ...]:
    """Return how the files are read, once for each triple of bands."""
    from rsupres.datasets.chips import ChipOptions
    from rsupres.raster.stretch import parse_stretch

    triples = dict.fromkeys(options["triples"] or (None,))
    for triple in triples:
        if triple is not None and len(triple) != 3:
            raise click.BadParameter(
                f"{','.join(map(str, triple))}: a crop has three bands, such as 4,3,2.",
                param_hint="--bidx",
            )
    stretch, bits = parse_stretch(options["stretch"]), int(options["bits"])
    return tuple(ChipOptions(triple, stretch, bits) for triple in triples)


def _check_stored_lr(plan: PackOptions, options: dict[str, Any]) -> None:
    """Refuse options that LR of another sensor leaves without effect."""
    made = options["gsds_m"] or options["parameters"]
    made = made or options["degradation"] != "bicubic"
    if plan.lr_from and (plan.scale is None or made or len(plan.readings) > 1):
        raise click.UsageError(
            "--lr-from needs --scale, and goes with none of --degradation, --params,"
            " --gsd and more than one --bidx."
        )


def _show(console: Console, reports: Sequence[PackReport]) -> None:
    if not console.as_json:
        click.echo(
            f"{'pack':32} {'split':10} {'crops':>6} {'MB':>7} {'places':>6} "
            f"{'sides':>9} {'repeats':>7} {'mean':>6}  crops by GSD"
        )
    for report in reports:
        console.emit(report.to_json(), _describe(report))


def _describe(report: PackReport) -> str:
    by_gsd = ", ".join(f"{gsd:g} m: {n}" for gsd, n in report.by_gsd.items())
    sides = f"{report.sides[0]}-{report.sides[1]}"
    return (
        f"{Path(report.path).name:32} {report.split:10} {report.n_crops:6} "
        f"{report.n_bytes / 1e6:7.1f} {report.places:6} {sides:>9} "
        f"{report.repeats:7} {report.mean:6.1f}  {by_gsd}"
        + "".join(f", {name}" for name in report.layers)
    )
