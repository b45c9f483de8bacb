"""`rsupres status`: show how far runs and batches are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from rsupres.cli.console import Console
from rsupres.cli.options.console import console_options

if TYPE_CHECKING:
    from rsupres.output.run_dir import RunState


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@console_options
def status(console: Console, folder: Path) -> None:
    """Tell how far the run in FOLDER is, or the batch and all runs in it.

    Reads only; a running process is not disturbed.

    \b
    Examples:
      rsupres status scene_x4.tif.run
      rsupres status outputs --json
    """  # noqa: D301  # Click wants the character, not the two letters
    from rsupres.errors import InputError
    from rsupres.output.run_dir import read_state

    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder.")
    has_batch = (folder / "batch.json").is_file()
    if has_batch:
        _show_batch(console, folder)
    runs = [folder] if (folder / "run.json").exists() else sorted(folder.glob("*.run"))
    for run in runs:
        state = read_state(run)
        console.emit(_record(run, state), _describe(run, state))
    if not (runs or has_batch):
        console.emit({"folder": str(folder), "runs": 0}, f"{folder}: no runs.")


def _show_batch(console: Console, folder: Path) -> None:
    from rsupres.cli.batch import describe, describe_item
    from rsupres.tiles.journal import FAILED, RUNNING, read_batch, summarise

    items = read_batch(folder)
    for item in items:
        if console.as_json or item.status in (FAILED, RUNNING):
            console.emit(item.to_json(), describe_item(item))
    summary = summarise(items)
    console.emit(summary, f"{folder}: {describe(summary)}")


def _record(run: Path, state: RunState) -> dict[str, object]:
    owner = state.owner
    return {
        "run": str(run),
        "state": _name(state),
        "strips": state.n_strips,
        "done": len(state.done),
        "pid": None if owner is None else owner.pid,
        "host": None if owner is None else owner.host,
        "started": state.started.isoformat(),
        "updated": state.updated.isoformat(),
    }


def _describe(run: Path, state: RunState) -> str:
    who = "" if state.owner is None else f" by pid {state.owner.pid}"
    return (
        f"{run}: {_name(state)}{who}, {len(state.done)} of {state.n_strips} strips, "
        f"begun {state.started:%Y-%m-%d %H:%M:%S} UTC, "
        f"last strip {state.updated:%Y-%m-%d %H:%M:%S} UTC"
    )


def _name(state: RunState) -> str:
    if state.owner is not None:
        return "running"
    if state.n_strips is not None and len(state.done) == state.n_strips:
        return "computed"
    return "stopped"
