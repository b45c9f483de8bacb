"""`rsupres dataset`: pack HR images into training crops, and check packs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rsupres.cli.console import Console
from rsupres.cli.options.console import console_options
from rsupres.cli.options.images import (
    DEGRADATIONS,
    check_classes,
    check_legend,
    companion_options,
    file_choice_options,
)
from rsupres.cli.options.output import overwrite_option
from rsupres.cli.options.parameters import ScaleType
from rsupres.cli.options.sampling import seed_option
from rsupres.errors import InputError, RunConflictError

if TYPE_CHECKING:
    from rsupres.datasets.packing import PackPlan, PackReport


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
    "tile' with hr, and SECOND's and CNAM-CD's of Ref-Diff (HR_512, Ref, CD_mask, "
    "*_LR_D8_*), bring what belongs to each.",
)
@file_choice_options
@click.option(
    "--gsd",
    "gsds_m",
    metavar="M,M,...",
    help="Metres per pixel to bring the images to by area averaging, such as "
    "0.6,1.2,2.5,5; those finer than an image are left out for it. Default: as they "
    "are.",
)
@click.option(
    "--crop-size",
    "side",
    type=click.IntRange(min=24),
    default=256,
    show_default=True,
    metavar="N",
    help="Largest side of a crop, HR pixels.",
)
@click.option(
    "--degradation",
    type=click.Choice(DEGRADATIONS),
    default="bicubic",
    show_default=True,
    help="How LR images are made of the crops: Pillow's bicubic; a Sentinel-2-like "
    "sensor (blur by band, noise, small shifts, 12 bits); or chains of blur, resizing, "
    "noise and JPEG of drawn strengths: Ref-Diff's, Real-ESRGAN's second-order.",
)
@click.option(
    "--params",
    multiple=True,
    metavar="KEY=VALUE",
    help="Parameter of the degradation, such as mtf=0.2,0.3; may be repeated.",
)
@click.option(
    "--scale",
    type=ScaleType(),
    metavar="S",
    help="Store LR crops of this scale as well. Default: none, LR is made in training.",
)
@click.option(
    "--lr-from",
    multiple=True,
    metavar="OLD=NEW",
    help="LR of another sensor instead of a degradation: an image's path with OLD "
    "replaced by NEW, --scale times coarser, on the same ground; may be repeated.",
)
@companion_options
@click.option(
    "--split-by",
    metavar="REGEX",
    help="What part of a file's name is its place, such as '^(.+)_20'; of tiles, of "
    "their folder's name. Default: the name without suffix.",
)
@click.option(
    "--validation",
    multiple=True,
    metavar="PLACE",
    help="Place (or pattern of places) kept out of training; may be repeated; then OUT "
    "is a folder.",
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
    metavar="TEXT",
    help="Licence and attribution of the images, kept in the pack.",
)
@seed_option
@overwrite_option
@console_options
def build(
    console: Console,
    out: Path,
    inputs: tuple[Path, ...],
    glob: str,
    exclude: tuple[str, ...],
    split_by: str | None,
    validation: tuple[str, ...],
    overwrite: bool,
    **chosen: object,
) -> None:
    """Pack sharp images into training crops.

    OUT is a .safetensors file, or a folder for train.safetensors and
    validation.safetensors. The split is by place, never by file. What a model shall
    look at besides LR is found by the image's name and cut with it.

    \b
    Examples:
      rsupres dataset build packs --hr chips --split-by '^(.+)_20' --validation bath
      rsupres dataset build s2.safetensors --hr chips --gsd 2.5 --degradation sentinel2
      rsupres dataset build ref.safetensors --hr chips --glob '*_2020_*' \
          --reference-from 2020=2018
      rsupres dataset build packs --hr tiles_ulm --hr tiles_bath \
          --validation tiles_bath
    """  # noqa: D301  # Click wants the character, not the two letters
    from rsupres.datasets.packing import split_by_place
    from rsupres.raster.files import find_images

    inputs = _apply_layout(inputs, chosen)
    plan = _make_plan(**chosen)  # type: ignore[arg-type]  # Click gives these types
    pattern = _compile(split_by)
    splits = split_by_place(find_images(inputs, glob, exclude), pattern, validation)
    targets = _targets(out, bool(validation), overwrite)
    _build_all(console, splits, targets, pattern, plan)


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

    Headers, sizes, types and value ranges, and places or crops that are in both splits;
    exits 3 at the first fault. Crops that a pack repeats are counted.

    \b
    Example:
      rsupres dataset check packs/train.safetensors packs/validation.safetensors
    """  # noqa: D301  # Click wants the character, not the two letters
    from rsupres.datasets.packing import check_packs

    paths = [p for path in packs for p in _packs_in(path)]
    _show(console, check_packs(paths))


def _apply_layout(
    inputs: tuple[Path, ...], chosen: dict[str, object]
) -> tuple[Path, ...]:
    """Return the folders of sharp images; add to `chosen` what their layout says.

    Rules that the user gave count more.
    """
    from rsupres.datasets.layouts import find_layout

    scale = chosen["scale"]
    assert scale is None or isinstance(scale, Fraction)
    layout = find_layout(inputs, scale)
    if layout is None:
        return inputs
    if layout.needs_classes and not chosen["class_table"]:
        raise click.UsageError(
            f"{inputs[0]}: what its masks' values mean is not in the files; name their "
            "class table with --class-table (second, cnam-cd, or a TOML file by its "
            "CLASS_Table.txt)."
        )
    wanted: dict[str, object] = {
        f"{name}_from": rules for name, rules in layout.rules.items()
    }
    if layout.lr_from:
        wanted |= {"lr_from": layout.lr_from, "scale": layout.scale}
    chosen |= {name: value for name, value in wanted.items() if not chosen[name]}
    return layout.inputs


def _make_plan(
    *,
    gsds_m: str | None,
    side: int,
    degradation: str,
    params: tuple[str, ...],
    scale: Fraction | None,
    lr_from: tuple[str, ...],
    reference_from: tuple[str, ...],
    vector_map_from: tuple[str, ...],
    change_mask_from: tuple[str, ...],
    class_table: str | None,
    legend: str | None,
    max_bytes: int | None,
    licence: str,
    seed: int,
) -> PackPlan:
    """Return how crops are made, as the options of ``build`` say."""
    from rsupres.datasets.packing import PackPlan
    from rsupres.datasets.sidecars import Sidecars
    from rsupres.legends.legend import DEFAULT_COLOUR_LEGEND

    check_legend(legend, vector_map_from)
    check_classes(class_table, change_mask_from)
    if lr_from and (scale is None or gsds_m or params or degradation != "bicubic"):
        raise click.UsageError(
            "--lr-from needs --scale, and goes with none of --degradation, --params and"
            " --gsd."
        )
    return PackPlan(
        gsds_m=_parse_gsds(gsds_m),
        side=side,
        max_bytes=max_bytes,
        degradation="stored" if lr_from else degradation,
        parameters=_parse_params(degradation, params),
        licence=licence,
        seed=seed,
        scale=scale,
        lr_from=lr_from,
        companions=Sidecars(
            reference_from,
            vector_map_from,
            change_mask_from,
            legend or DEFAULT_COLOUR_LEGEND,
            class_table,
        ),
    )


def _build_all(
    console: Console,
    splits: Mapping[str, list[Path]],
    targets: Mapping[str, Path],
    pattern: re.Pattern[str] | None,
    plan: PackPlan,
) -> None:
    from rsupres.datasets.packing import build_pack, check_apart, check_packs
    from rsupres.execution import Progress

    frames = {}
    written: list[Path] = []
    try:
        with console.progress() as show:
            for split, path in targets.items():
                images = splits[split]

                def advance(
                    done: int, split: str = split, n: int = len(images)
                ) -> None:
                    show(Progress(split, done, n, "images"))

                partial = path.with_name(path.name + ".part")
                written.append(partial)
                frames[split] = build_pack(
                    partial, images, pattern, split, plan, advance
                )
        if len(frames) == 2:
            check_apart(frames["train"], frames["validation"])
        check_packs(written)
        for partial, path in zip(written, targets.values(), strict=True):
            partial.replace(path)
    finally:
        for partial in written:
            partial.unlink(missing_ok=True)
    _show(console, check_packs(list(targets.values())))


def _show(console: Console, reports: list[PackReport]) -> None:
    if not console.as_json:
        click.echo(
            f"{'pack':32} {'split':10} {'crops':>6} {'MB':>7} {'places':>6} "
            f"{'sides':>9} {'repeats':>7} {'mean':>6}  crops by GSD"
        )
    for report in reports:
        by_gsd = ", ".join(f"{gsd:g} m: {n}" for gsd, n in report.by_gsd.items())
        sides = f"{report.sides[0]}-{report.sides[1]}"
        console.emit(
            {
                "pack": report.path,
                "split": report.split,
                "crops": report.n_crops,
                "bytes": report.n_bytes,
                "places": report.places,
                "by_gsd": {f"{gsd:g}": n for gsd, n in report.by_gsd.items()},
                "sides": list(report.sides),
                "repeats": report.repeats,
                "mean": round(report.mean, 3),
                "layers": list(report.layers),
            },
            f"{Path(report.path).name:32} {report.split:10} {report.n_crops:6} "
            f"{report.n_bytes / 1e6:7.1f} {report.places:6} {sides:>9} "
            f"{report.repeats:7} {report.mean:6.1f}  {by_gsd}"
            + "".join(f", {name}" for name in report.layers),
        )


def _packs_in(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = sorted(path.glob("*.safetensors"))
    if not found:
        raise InputError(f"{path}: no .safetensors packs in this folder.")
    return found


def _targets(out: Path, is_split: bool, overwrite: bool) -> dict[str, Path]:
    if out.suffix == ".safetensors":
        if is_split:
            raise click.UsageError(
                f"--validation makes two packs; {out} must be a folder."
            )
        targets = {"train": out}
    else:
        names = ("train", "validation") if is_split else ("train",)
        targets = {name: out / f"{name}.safetensors" for name in names}
    for path in targets.values():
        if path.exists() and not overwrite:
            raise RunConflictError(f"{path} exists; use --overwrite to replace it.")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"{path.parent}: cannot be made ({error.strerror})."
            ) from error
    return targets


def _parse_gsds(text: str | None) -> tuple[float, ...]:
    if text is None:
        return ()
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if not values or not all(0 < value < 1e5 for value in values):
        raise click.BadParameter(f"{text!r} is not a list of metres such as 0.6,2.5.")
    return tuple(dict.fromkeys(values))


def _parse_params(degradation: str, params: tuple[str, ...]) -> dict[str, object]:
    """Return every parameter of the degradation as JSON, defaults included."""
    if degradation == "bicubic":
        if params:
            raise click.BadParameter("the bicubic degradation has no --params.")
        return {}
    from rsupres.degradations.registry import DEGRADATIONS as KNOWN

    values: dict[str, object] = {}
    for text in params:
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
    return KNOWN[degradation].from_json(values).to_json()


def _compile(text: str | None) -> re.Pattern[str] | None:
    try:
        return re.compile(text) if text is not None else None
    except re.error as error:
        raise click.BadParameter(f"--split-by {text!r}: {error}.") from error
