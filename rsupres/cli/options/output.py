"""Options of outputs: format, run directory, further rasters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import click

from rsupres.cli.options.parameters import split_creation, stacked

if TYPE_CHECKING:
    from rsupres.output.strips import WritingOptions

_TYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64")

overwrite_option = click.option(
    "--overwrite", is_flag=True, help="Replace an output that exists."
)
skip_option = click.option(
    "--skip-existing",
    is_flag=True,
    help="Do nothing when the output exists, is whole and is of the same scene, model "
    "and options; exit 5 when it is not.",
)
update_option = click.option(
    "--update",
    is_flag=True,
    help="As --skip-existing, but make an output anew when it is damaged or of another "
    "scene, model or options; files that are no outputs stay.",
)
coverage_option = click.option(
    "--reference-coverage",
    type=click.Path(),
    metavar="PATH",
    help="Raster to write: 1 where the model had a reference, 0 "
    "where it had none, 255 outside the scene. Default: none.",
)
sidecar_options = stacked(
    click.option(
        "--stac",
        is_flag=True,
        help="Write a STAC item beside the output, as OUT.json with the output's name.",
    ),
    click.option(
        "--qml",
        is_flag=True,
        help="Write a style for QGIS beside the output: true colours, OUT.qml.",
    ),
)
picture_option = click.option(
    "--rgb8",
    type=click.Path(),
    metavar="PATH",
    help="Picture of 8 bits in true colours to write: a COG (.tif) with statistics, or "
    "PNG (.png). Default: none.",
)
report_option = click.option(
    "--report",
    type=click.Path(dir_okay=False),
    metavar="OUT.html",
    help="Page to write about the result, see 'rsupres report'. Default: none.",
)
run_options = stacked(
    click.option(
        "--run-dir",
        type=click.Path(file_okay=False),
        metavar="DIR",
        help="Folder of the unfinished run. Default: OUT.run.",
    ),
    click.option(
        "--keep-run", is_flag=True, help="Keep the run directory after success."
    ),
    click.option(
        "--restart",
        is_flag=True,
        help="Drop an unfinished run of another job and begin anew; --overwrite "
        "implies it.",
    ),
)
driver_options = stacked(
    click.option(
        "--driver",
        type=click.Choice(["COG", "GTiff"], case_sensitive=False),
        default="COG",
        help="Format of the output.",
    ),
    click.option(
        "--co",
        multiple=True,
        metavar="KEY=VALUE",
        callback=split_creation,
        help="Creation option of the driver, such as COMPRESS=ZSTD; may be repeated. "
        "Default: none but ours, which compress and tile.",
    ),
)
destination_options = stacked(driver_options, overwrite_option, run_options)
format_options = stacked(
    driver_options,
    click.option(
        "--dtype",
        type=click.Choice(_TYPES),
        help="Data type of the output; values are kept, not rescaled. Default: the "
        "scene's.",
    ),
    click.option(
        "--nodata",
        type=float,
        metavar="VALUE",
        help="Value of invalid pixels in the output. Default: the scene's.",
    ),
)


def take_writing(options: dict[str, Any]) -> WritingOptions:
    """Take the values of `destination_options` out of `options`, by the API's names."""
    names = ("driver", "co", "overwrite", "run_dir", "keep_run", "restart")
    return cast("WritingOptions", {name: options.pop(name) for name in names})
