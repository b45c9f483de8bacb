"""`rsupres batch`: many scenes or tiles, one summary."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from rsupres.cli.console import Console
from rsupres.cli.options.console import console_options
from rsupres.cli.options.parameters import expand_lists
from rsupres.cli.options.run import batch_options, make_job
from rsupres.cli.wording import error_line

if TYPE_CHECKING:
    from rsupres.tiles.journal import BatchItem


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
@batch_options
@console_options
@click.pass_context
def batch(
    ctx: click.Context,
    /,
    console: Console,
    inputs: tuple[str, ...],
    folder: Path,
    recursive: bool,
    report: Path | None,
    **options: object,
) -> None:
    """Upscale many INPUTS into DIR, one after the other, and sum up.

    An input is a scene, a folder of scenes (rasters, .SAFE, zips, folders of tiles),
    @list.txt, or a folder of 'rsupres tile'.
    Tiles are upscaled at the scale that they were cut for, with those of their maps,
    references and change masks that the model looks at. Each tile counts as a scene of
    its own, so that noise and values found for a whole scene differ between tiles.
    Outputs are DIR/NAME.tif, those of tiles DIR/FOLDER/NAME.tif for 'rsupres mosaic'.

    An output that exists is skipped when it is whole and of the same scene, model and
    options, else made anew (--update, the default). After a failure the other inputs
    are still upscaled; the exit code is that of the first failure.
    --uncertainty, --reference-coverage and --run-dir name folders here. 'rsupres status
    DIR' shows the progress.

    \b
    Examples:
      rsupres batch scenes/*.tif --out-dir sharp --scale 4
      rsupres batch tiles --out-dir sharp --model bicubic
    """  # noqa: D301  # Click wants the character, not the two letters
    from rsupres.tiles.batch import run_batch
    from rsupres.tiles.journal import summarise

    source = ctx.get_parameter_source("scale")
    job = make_job((), str(folder), options)
    made = None
    if report is not None:
        from rsupres.report.batch_index import BatchPages

        made = BatchPages(report, job)

    def done(item: BatchItem) -> None:
        if made is not None:
            made.add(item)
        console.emit(item.to_json(), describe_item(item))

    with console.work() as show:
        items = run_batch(
            inputs,
            folder,
            job,
            scale_is_given=source is not None and source.name == "COMMANDLINE",
            recursive=recursive,
            on_item=done,
            on_progress=show,
            word_error=lambda error: error_line(error, ctx.command),
        )
        if made is not None:
            made.finish(items)
    summary = summarise(items)
    console.emit(summary, describe(summary))
    if summary["exit_code"]:
        ctx.exit(int(str(summary["exit_code"])))


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
