"""`rsupres status`: how far runs are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from rsupres.cli.console import Console
from rsupres.cli.options import common_options

if TYPE_CHECKING:
    from rsupres.runs import RunState


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@common_options
def status(console: Console, folder: Path) -> None:
    """Tell how far the run in FOLDER is, or all runs in it.

    Reads only; a running process is not disturbed.

    \b
    Examples:
      rsupres status scene_x4.tif.run
      rsupres status outputs --json
    """  # noqa: D301  # Click wants the character, not the two letters
    from rsupres.errors import InputError
    from rsupres.runs import read_state

    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder.")
    runs = [folder] if (folder / "run.json").exists() else sorted(folder.glob("*.run"))
    for run in runs:
        state = read_state(run)
        console.emit(_record(run, state), _describe(run, state))
    if not runs:
        console.emit({"folder": str(folder), "runs": 0}, f"{folder}: no runs.")


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
