"""`rsupres report`: a page to look at, of one result."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from rsupres.cli.options.console import console_options
from rsupres.cli.options.images import legend_option
from rsupres.cli.options.output import overwrite_option
from rsupres.cli.options.parameters import expand_lists, stacked
from rsupres.cli.terminal.console import Console

if TYPE_CHECKING:
    from rsupres.report.request import Summary

_compared = stacked(
    click.option(
        "--lr",
        multiple=True,
        metavar="PATH",
        callback=expand_lists,
        help="Input of the result; may be repeated where several files made it. "
        "Default: that of RUN_DIR, else none.",
    ),
    click.option(
        "--hr",
        metavar="PATH",
        help="The truth, on any grid; adds it to the pictures, and figures against it. "
        "Default: none.",
    ),
    click.option(
        "--vector-map",
        "--map",
        "vector_map",
        multiple=True,
        metavar="PATH",
        help="Map that the model was given: vector files, or one .tif in a legend's "
        "colours; may be repeated. Default: that of RUN_DIR, else none.",
    ),
    legend_option,
    click.option(
        "--reference",
        multiple=True,
        metavar="PATH",
        callback=expand_lists,
        help="Earlier image that the model was given; may be repeated. Default: that "
        "of RUN_DIR, else none.",
    ),
    click.option(
        "--change-mask",
        "--mask",
        "mask",
        metavar="PATH",
        help="Change mask that the model was given: polygons or a class raster. "
        "Default: that of RUN_DIR, else none.",
    ),
    click.option(
        "--uncertainty",
        metavar="PATH",
        help="Standard deviation over the samples, as 'upscale --uncertainty' wrote "
        "it. Default: that of RUN_DIR, else none.",
    ),
)


@click.command()
@click.argument("target", metavar="RUN_DIR|SR")
@click.argument("output", type=click.Path(dir_okay=False), metavar="OUT.html")
@_compared
@overwrite_option
@console_options
def report(console: Console, target: str, output: str, **options: object) -> None:
    """Write a page about SR: before and after, figures, conditions, provenance.

    The page is one file that any browser opens without network; it also holds all its
    numbers as JSON. RUN_DIR is the directory of a finished run (upscale --keep-run),
    which tells the input and the conditions.

    \b
    Examples:
      rsupres report scene_x4.tif scene_x4.html --lr scene.tif
      rsupres report scene_x4.tif.run scene_x4.html --hr truth.tif
    """  # noqa: D301  # Click wants the character, not the two letters
    from rsupres.report.request import make_report

    with console.work():
        summary = make_report(target, output, **options)  # type: ignore[arg-type]
    console.emit(summary.to_json(), describe(summary))


def describe(summary: Summary) -> str:
    """Return one line about a page."""
    looks = [name for name, verdict in summary.verdicts.items() if verdict[0] == "l"]
    rest = f"; look closer at {', '.join(looks)}" if looks else ""
    return f"{summary.output} written, {summary.n_bytes / 1e6:.1f} MB{rest}."
