"""`rsupres change`: where and into what the land changed, on the SR grid of a scene."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rsupres.cli.console import Console
from rsupres.cli.options.area import like_option
from rsupres.cli.options.console import console_options
from rsupres.cli.options.output import destination_options, make_destination
from rsupres.cli.options.run import scale_option

if TYPE_CHECKING:
    from rsupres.change.mask import ChangeOptions
    from rsupres.change.write import ChangeSummary

_OF_DETECTION = ("significance", "threshold", "land_cover")


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="[BEFORE] AFTER")
@click.argument("output", type=click.Path(path_type=Path), metavar="OUT")
@like_option
@scale_option
@click.option(
    "--method",
    type=click.Choice(["auto", "irmad", "cva", "land-cover"]),
    default="auto",
    show_default=True,
    help="How BEFORE and AFTER are compared: as images by IR-MAD or by change vectors "
    "(CVA), or as land covers; auto sees which they are and takes CVA where IR-MAD "
    "does not converge.",
)
@click.option(
    "--significance",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    metavar="P",
    help="Share of unchanged pixels that may be marked in images. Default: 0.001.",
)
@click.option(
    "--threshold",
    type=click.FloatRange(min=0, min_open=True),
    metavar="K",
    help="Mark pixels that differ by more than K standard deviations of unchanged "
    "ground instead.",
)
@click.option(
    "--minimum-area",
    type=click.FloatRange(min=0),
    metavar="M2",
    help="Smallest part that counts, square metres. Default: 9 pixels of the coarser "
    "image, 4 of a land cover; 0 keeps all.",
)
@click.option(
    "--land-cover",
    metavar="PATH",
    help="Class raster of the later date: images tell where, this tells into what.",
)
@click.option(
    "--class-attribute",
    metavar="NAME",
    help="Attribute of polygons that holds their class, a code or a name.",
)
@click.option(
    "--class-table",
    metavar="NAME|PATH",
    help="What the codes mean: worldcover, dynamic-world, second, cnam-cd, binary, or "
    "a TOML file. Default: by the file, where it tells.",
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

    One source is polygons or a raster of classes in which 0 is unchanged. Two are the
    earlier and the later land cover, or two images, of any pixel size, between which
    change is detected. OUT holds 0 where nothing changed, 255 where nobody knows, else
    the class that is there now, and 1 where no class is known.

    \b
    Examples:
      rsupres change fires.gpkg mask.tif --like scene.tif --scale 8
      rsupres change cover_2020.tif cover_2021.tif mask.tif --like scene.tif \\
          --scale 8 --class-table worldcover --output-table second
      rsupres change before.tif after.tif mask.tif --like after.tif --scale 4 \\
          --significance 0.0001 --minimum-area 1600
    """  # noqa: D301  # Click wants the character, not the two letters
    from rsupres.change.write import ChangeJob, write_change_mask

    if len(sources) > 2:
        raise click.UsageError("Give one source or two, then OUT.")
    job = ChangeJob(
        sources=sources,
        into=make_destination(output, options),
        like=options["like"],
        scale=options["scale"],
        options=_chosen(options, len(sources)),
    )
    with console.work() as show:
        summary = write_change_mask(job, on_progress=show)
    console.emit(summary.to_json(), describe(summary))


def describe(summary: ChangeSummary) -> str:
    """Return what a person wants to know about a mask."""
    from rsupres.change.detection import TITLES

    grid = summary.grid
    told = f" by {TITLES[summary.method]}" if summary.method else ""
    lines = [
        f"{summary.output} written in {summary.duration_s:.1f} s: {grid.height} x "
        f"{grid.width} pixels of {grid.gsd_m:.3g} m, {summary.kind}{told}.",
        f"Changed: {100 * summary.share:.2f} % of the ground known.",
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


def _chosen(options: dict[str, Any], n_sources: int) -> ChangeOptions:
    """Return the library's options; refuse those that would do nothing."""
    from rsupres.change.mask import ChangeOptions, DetectionOptions

    method = options["method"]
    if options["significance"] is not None and options["threshold"] is not None:
        raise click.UsageError("--significance and --threshold exclude each other.")
    useless = [] if n_sources == 2 else [*_OF_DETECTION, "minimum_area"]
    useless += ["class_attribute"] if n_sources == 2 else []
    useless += [*_OF_DETECTION] if method == "land-cover" else []
    for name in useless:
        if options[name] is not None:
            option = "--" + name.replace("_", "-")
            what = "one source" if n_sources == 1 else "two rasters"
            what = "land covers" if method == "land-cover" else what
            raise click.UsageError(f"{option} means nothing for {what}.")
    if n_sources == 1 and method != "auto":
        raise click.UsageError("--method compares two rasters; there is one source.")
    detection = DetectionOptions(least_m2=options["minimum_area"])
    changed = {
        name: options[name]
        for name in ("significance", "threshold")
        if options[name] is not None
    }
    if method in ("irmad", "cva"):
        changed["method"] = method
    return ChangeOptions(
        class_table=options["class_table"],
        output_table=options["output_table"],
        class_attribute=options["class_attribute"],
        land_cover=options["land_cover"],
        covers={"auto": None, "land-cover": True}.get(method, False),
        detection=replace(detection, **changed),
    )
