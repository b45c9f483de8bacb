"""`rsupres batch`: many scenes or tiles, one summary."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rsupres.cli.batch_request import make_request, show_plan
from rsupres.cli.options.cluster import cluster_options
from rsupres.cli.options.console import console_options
from rsupres.cli.options.parameters import expand_lists
from rsupres.cli.options.run import batch_options, time_option
from rsupres.cli.terminal.console import Console
from rsupres.cli.terminal.log_file import set_scene
from rsupres.cli.terminal.wording import error_line

if TYPE_CHECKING:
    from rsupres.report.batch_index import BatchPages
    from rsupres.tiles.batches.batch import BatchRequest
    from rsupres.tiles.batches.journal import BatchItem


def _check_summary(
    ctx: click.Context, param: click.Parameter, path: Path | None
) -> Path | None:
    """Refuse a summary of which the form is unknown."""
    if path is not None and path.suffix.lower() not in (".csv", ".json", ".md"):
        raise click.BadParameter(f"{path}: name a .csv, .json or .md file.", ctx, param)
    return path


@click.command()
@click.argument("inputs", nargs=-1, required=True, callback=expand_lists)
@click.option(
    "--out-dir",
    "folder",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Folder of the outputs; made if it is missing.",
)
@click.option(
    "--recursive",
    is_flag=True,
    help="Search subfolders of folders, too; outputs lie in folders of the same names. "
    "Default: a folder alone.",
)
@click.option(
    "--report",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Folder for a page of each output and their index, index.html, which begins "
    "with what failed. Default: none.",
)
@click.option(
    "--group-bands/--no-group-bands",
    default=True,
    help="Join files with one band each, whose names differ in the band alone, to one "
    "scene.",
)
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    default=1,
    metavar="N",
    help="Scenes at a time, each in a process of its own that loads the model.",
)
@click.option(
    "--retry",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="Try inputs again up to N times, after all others, when they failed for "
    "reasons that may pass: exit codes 1, 3, 5 and 6.",
)
@click.option(
    "--max-failures",
    type=click.IntRange(min=1),
    metavar="N",
    help="Stop when N inputs have failed. Default: go on to the end.",
)
@click.option(
    "--summary",
    type=click.Path(path_type=Path, dir_okay=False),
    callback=_check_summary,
    metavar="FILE.csv|json|md",
    help="Table of all inputs to write at the end, also of a batch that was stopped. "
    "Default: none.",
)
@click.option(
    "--plan",
    "is_plan",
    is_flag=True,
    help="Say what would be done, with time and disk, and do nothing.",
)
@batch_options
@cluster_options
@time_option
@console_options
@click.pass_context
def batch(
    ctx: click.Context,
    /,
    console: Console,
    inputs: tuple[str, ...],
    folder: Path,
    report: Path | None,
    time_limit_s: float | None,
    is_plan: bool,
    **options: Any,
) -> None:
    """Upscale many INPUTS into DIR and sum up.

    An input is a scene, a folder of scenes (rasters, .SAFE, zips, STAC items, folders
    of tiles), a pattern in quotes, @list.txt, a folder of 'rsupres tile', or a STAC
    collection or catalog (file, address, - for stdin), each item of which is a scene.
    Tiles are upscaled at the scale that they were cut for, with their conditions that
    the model looks at. Each tile is a scene of its own: noise and what is found for a
    whole scene differ between tiles.
    Outputs are DIR/NAME.tif, those of tiles DIR/FOLDER/NAME.tif for 'rsupres mosaic'.

    An output that exists is skipped when it is whole and of the same scene, model and
    options, else made anew (--update, the default). After a failure the other inputs
    are still upscaled; the exit code is that of the first failure.
    --uncertainty, --interval, --rgb8, --reference-coverage and --run-dir name folders
    here. 'rsupres status DIR' shows the progress. [[scene]] tables of --config give
    options to the scenes whose names match.

    \b
    Examples:
      rsupres batch scenes/*.tif --out-dir sharp --scale 4
      rsupres batch tiles --out-dir sharp --model bicubic
      rsupres batch --config night.toml --jobs 2 --time-limit 5h
    """  # noqa: D301  # Click wants the character, not the two letters
    request = make_request(ctx, inputs, folder, options)
    if is_plan:
        show_plan(console, request, ctx)
        return
    code = _run(ctx, console, request, report, time_limit_s)
    if code:
        ctx.exit(code)


def _run(
    ctx: click.Context,
    console: Console,
    request: BatchRequest,
    report: Path | None,
    time_limit_s: float | None,
) -> int:
    """Run a batch, show its items and its sum; return the exit code."""
    from rsupres.tiles.batches.batch import run_batch
    from rsupres.tiles.batches.journal import summarise
    from rsupres.tiles.batches.run import Watch

    pages = _pages(report, request)

    def end(item: BatchItem) -> None:
        if pages is not None:
            pages.add(item)
        console.emit(item.to_json(), describe_item(item))
        set_scene("")

    with console.work(time_limit_s) as show:
        watch = Watch(
            lambda item: set_scene(item.scene),
            end,
            show,
            lambda error: error_line(error, ctx.command),
        )
        items = run_batch(request, watch)
        if pages is not None:
            pages.finish(items)
    summary = summarise(items)
    console.emit(summary, describe(summary))
    return int(str(summary["exit_code"]))


def describe_item(item: BatchItem) -> str:
    """Return an input's row of the table."""
    figures = ", ".join(f"{k} {v:.4g}" for k, v in (item.figures or {}).items())
    rest = item.error or ", ".join(part for part in (item.model, figures) if part)
    return f"{item.status:9} {item.duration_s:8.1f} s  {item.output}  {rest}".rstrip()


def describe(summary: dict[str, object]) -> str:
    """Return the last line of the table."""
    known = ("items", "duration_s", "exit_code")
    counts = [f"{n} {name}" for name, n in summary.items() if name not in known]
    code = f"; exit code {summary['exit_code']}" if summary["exit_code"] else ""
    return (
        f"{summary['items']} inputs: {', '.join(counts) or 'none'}, in "
        f"{summary['duration_s']:.1f} s{code}."
    )


def _pages(folder: Path | None, request: BatchRequest) -> BatchPages | None:
    """Return the maker of the pages of a batch, None when none are asked for."""
    if folder is None:
        return None
    from rsupres.report.batch_index import BatchPages

    return BatchPages(folder, request.job)
