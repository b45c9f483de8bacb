"""`rsupres upscale`: upscale a scene into a georeferenced raster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rsupres.cli.options.cluster import cluster_options, take_cluster
from rsupres.cli.options.console import console_options
from rsupres.cli.options.parameters import check_output_given, expand_lists
from rsupres.cli.options.run import make_job, time_option, upscale_options
from rsupres.cli.terminal.console import Console
from rsupres.cli.terminal.log_file import set_scene

if TYPE_CHECKING:
    from rsupres.upscaling.job import UpscaleJob
    from rsupres.upscaling.pipeline import RunSummary


@click.command()
@click.argument("scenes", nargs=-1, callback=expand_lists, metavar="SCENE...")
@click.argument("output", type=click.Path(), callback=check_output_given)
@upscale_options
@cluster_options
@time_option
@console_options
def upscale(
    console: Console,
    scenes: tuple[str, ...],
    output: str,
    time_limit_s: float | None,
    **options: Any,
) -> None:
    """Upscale SCENE into OUTPUT, a georeferenced raster.

    Several files are joined to one scene: a file for each band, or neighbours on one
    grid. A SCENE may also be a Sentinel-2 product or a STAC item; - reads an item from
    stdin and keeps it as OUTPUT.item.json. @list.txt stands for the paths in a file,
    one a line. The output appears under its name only when it is complete; after an
    interruption the same command continues.

    \b
    Examples:
      rsupres upscale scene.tif scene_x4.tif --scale 4
      rsupres upscale scene.tif part.tif --bounds 5.1 52.0 5.2 52.1 \\
          --bounds-crs EPSG:4326 --model bicubic
    """  # noqa: D301  # Click wants the character, not the two letters
    from rsupres.upscaling.pipeline import upscale_scene

    elsewhere = take_cluster(options)
    job = make_job(scenes, output, options)
    set_scene(scenes[0])
    with console.work(time_limit_s) as show, _reporting(job, options["report"]):
        summary = upscale_scene(job, on_progress=show, elsewhere=elsewhere)
    console.emit(summary.to_json(), describe(summary))


@contextmanager
def _reporting(job: UpscaleJob, path: object) -> Iterator[None]:
    """Write the page of a result when its output is there, also after a failed gate."""
    if path is None:
        yield
        return
    import time

    from rsupres.errors import ArgumentError, QualityGateError
    from rsupres.report.request import (
        check_job_page,
        given_of,
        is_page_kept,
        write_report,
    )

    if job.store is not None:
        raise ArgumentError(
            f"{path}: a page is made of an output in a local folder.", argument="report"
        )
    page, started = Path(str(path)), time.monotonic()
    check_job_page(page, job)
    failure = None
    try:
        yield
    except QualityGateError as error:  # the output is there, and marked
        failure = error
    if job.output.exists() and not is_page_kept(page, job):
        duration = f"{time.monotonic() - started:.1f} s"
        write_report(given_of(job), page, {"Run time": duration})
    if failure is not None:
        raise failure


def describe(summary: RunSummary) -> str:
    """Return the result of a run in one or two lines."""
    if summary.status == "existed":
        return f"{summary.output} exists; left as it is."
    if summary.status == "computed":
        return (
            f"This shard is done; {summary.missing_strips} strips are left to others. "
            "The last one writes the output."
        )
    figures = ", ".join(
        f"{name} {value:.4g}" for name, value in summary.figures.items()
    )
    return (
        f"{summary.output} written in {summary.duration_s:.1f} s by {summary.model}"
        + (f" ({figures})." if figures else ".")
    )
