"""`rsupres change`: where and into what the land changed, on the SR grid of a scene."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rsupres.cli.options.console import console_options
from rsupres.cli.options.output import destination_options, take_writing
from rsupres.cli.options.parameters import check_output_given
from rsupres.cli.options.run import scale_option
from rsupres.cli.options.scene import like_option
from rsupres.cli.terminal.console import Console
from rsupres.cli.terminal.wording import usage_errors

if TYPE_CHECKING:
    from rsupres.change.write import ChangeSummary

_HOW = (
    *("method", "significance", "threshold", "minimum_area", "land_cover"),
    *("class_attribute", "class_table", "output_table"),
)


@click.command()
@click.argument("sources", nargs=-1, metavar="[BEFORE] AFTER")
@click.argument(
    "output",
    type=click.Path(path_type=Path),
    metavar="OUT",
    callback=check_output_given,
)
@like_option
@scale_option
@click.option(
    "--method",
    type=click.Choice(["auto", "irmad", "cva", "built", "learned", "land-cover"]),
    default="auto",
    help="How BEFORE and AFTER are compared: as images by IR-MAD or by change vectors "
    "(CVA), or as land covers. auto sees which they are, and takes CVA where IR-MAD "
    "does not converge. built keeps of that what looks built or begun, without fields, "
    "water, clouds and their shadows; it needs red, green and near infrared. learned "
    "asks a small network for buildings, sites and roads that came or went; it needs "
    "three of red, green, blue and near infrared.",
)
@click.option(
    "--significance",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    metavar="P",
    help="Share of unchanged pixels that may be marked as changed in images. Default: "
    "0.001.",
)
@click.option(
    "--threshold",
    type=click.FloatRange(min=0, min_open=True),
    metavar="K",
    help="Instead of --significance: mark pixels that differ by more than K standard "
    "deviations of unchanged ground. Default: not used.",
)
@click.option(
    "--minimum-area",
    type=click.FloatRange(min=0),
    metavar="M2",
    help="Smallest changed part that counts, square metres. Default: 9 pixels of the "
    "coarser image, 4 of a land cover; 0 keeps all.",
)
@click.option(
    "--land-cover",
    metavar="PATH",
    help="Class raster of the later date; the images say where the land changed, it "
    "says into what. Default: none.",
)
@click.option(
    "--class-attribute",
    metavar="NAME",
    help="Attribute of polygons that holds their class, a code or a name. Default: "
    "none, all polygons mean changed.",
)
@click.option(
    "--class-table",
    metavar="NAME|PATH",
    help="Meaning of the codes: worldcover, dynamic-world, second, cnam-cd, binary, "
    "or a TOML file. Default: as the file says.",
)
@click.option(
    "--output-table",
    metavar="NAME",
    help="Translate the classes into this table, such as second. Default: as they are.",
)
@destination_options
@console_options
def change(
    console: Console, sources: tuple[str, ...], output: Path, **options: Any
) -> None:
    """Write where the land changed, and into what, on the grid of a scene.

    One source holds the change itself: polygons, or a raster of classes in which 0 is
    unchanged. Two sources are compared: an earlier and a later land cover, or two
    images, of any pixel size. OUT holds 0 where nothing changed, the class that is
    there now where it is known, 1 for a change into an unknown class, and 255 where the
    sources say nothing.

    \b
    Examples:
      rsupres change fires.gpkg mask.tif --like scene.tif --scale 8
      rsupres change cover_2020.tif cover_2021.tif mask.tif --like scene.tif \\
          --scale 8 --class-table worldcover --output-table second
      rsupres change before.tif after.tif mask.tif --like after.tif --scale 4 \\
          --significance 0.0001 --minimum-area 1600
    """  # noqa: D301  # Click wants the character, not the two letters
    from rsupres.change.options import choose_options
    from rsupres.change.write import change_mask

    if len(sources) > 2:
        raise click.UsageError("Give one source or two, then OUT.")
    how = {name: options.pop(name) for name in _HOW}
    with usage_errors():
        choose_options(len(sources), **how)
    writing = take_writing(options)
    with console.work() as show:
        summary = change_mask(
            sources, output, on_progress=show, **how, **options, **writing
        )
    console.emit(summary.to_json(), describe(summary))


def describe(summary: ChangeSummary) -> str:
    """Return a summary of a mask as lines of text."""
    from rsupres.change.detection import TITLES

    grid = summary.grid
    by_method = f" by {TITLES[summary.method]}" if summary.method else ""
    lines = [
        f"{summary.output} written in {summary.duration_s:.1f} s: {grid.width} x "
        f"{grid.height} pixels of {grid.gsd_m:.3g} m, {summary.kind}{by_method}.",
        f"Changed: {100 * summary.share:.2f} % of the known ground.",
        *(
            f"  {area.value:>3} {area.name:<26} {_ground(area.area_m2):>14}"
            for area in summary.areas
        ),
    ]
    if summary.unknown_m2:
        lines.append(f"Unknown: {_ground(summary.unknown_m2)}.")
    return "\n".join(lines)


def _ground(area_m2: float) -> str:
    """Return an area in the unit that suits it."""
    if area_m2 >= 1e6:
        return f"{area_m2 / 1e6:,.2f} km2"
    return f"{area_m2 / 1e4:,.2f} ha" if area_m2 >= 1e4 else f"{area_m2:,.0f} m2"
