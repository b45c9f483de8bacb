"""`rsupres status`: show how far runs and batches are."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rsupres.cli.options.console import console_options
from rsupres.cli.terminal.console import Console

if TYPE_CHECKING:
    from rsupres.output.run_state import RunState


@click.command()
@click.argument("folder", type=click.Path(path_type=Path), metavar="FOLDER|OUT")
@console_options
def status(console: Console, folder: Path) -> None:
    """Tell how far the run in FOLDER is, or the batch and all runs in it.

    OUT, an output, is finished, or its run is shown. Reads only; a running process is
    not disturbed.

    \b
    Examples:
      rsupres status scene_x4.tif.run
      rsupres status scene_x4.tif
      rsupres status outputs --json
    """  # noqa: D301  # Click wants the character, not the two letters
    from rsupres.errors import InputError

    if not folder.is_dir():
        output = folder.with_suffix("") if folder.suffix == ".run" else folder
        run = output.with_name(output.name + ".run")
        if (run / "run.json").exists():
            _show_runs(console, [run])
        elif not output.is_file():
            raise InputError(f"{folder}: no such folder or output.")
        elif not _show_output(console, output):
            raise InputError(f"{output}: is no output of a run.")
        return
    has_batch = (folder / "batch.json").is_file()
    if has_batch:
        _show_batch(console, folder)
    runs = [folder] if (folder / "run.json").exists() else sorted(folder.glob("*.run"))
    _show_runs(console, runs)
    if has_batch or (folder / "run.json").exists():
        return
    shown = [
        path for path in sorted(folder.glob("*.tif")) if _show_output(console, path)
    ]
    if not (runs or shown):
        console.emit({"folder": str(folder), "runs": 0}, f"{folder}: no runs.")


def _show_runs(console: Console, runs: Sequence[Path]) -> None:
    from rsupres.output.run_state import read_state

    for run in runs:
        state = read_state(run)
        console.emit(_record(run, state), _describe(run, state))


def _show_output(console: Console, path: Path) -> bool:
    """Show an output that is there; return whether the file is one."""
    from rsupres.output.tiff.geotiff import read_tags
    from rsupres.output.tiff.verify import find_damage
    from rsupres.upscaling.preparation.existing import GATE, is_output, stored_figures

    if not is_output(path):
        return False
    tags, damage = read_tags(path), find_damage(path)
    figures = stored_figures(path)
    state = "damaged" if damage else "finished"
    record = {
        "output": str(path),
        "state": state,
        "percent": 0.0 if damage else 100.0,
        "model": tags.get("RSUPRES_MODEL", ""),
        "version": tags.get("RSUPRES_VERSION", ""),
        "gate": tags.get(GATE, ""),
        "figures": figures,
        "written": datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat(),
    }
    values = ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
    gate = ", quality gates failed" if record["gate"] == "failed" else ""
    console.emit(
        record,
        f"{path}: {damage or 'finished'}, by {record['model']} on "
        f"{str(record['written'])[:19].replace('T', ' ')} UTC ({values}){gate}",
    )
    return True


def _show_batch(console: Console, folder: Path) -> None:
    from rsupres.cli.batch import describe, describe_item
    from rsupres.tiles.batches.journal import (
        FAILED,
        RUNNING,
        WAITING,
        read_batch,
        summarise,
    )

    items = read_batch(folder)
    for item in items:
        if console.as_json or item.status in (FAILED, RUNNING):
            console.emit(item.to_json(), describe_item(item))
    summary = summarise(items)
    left = [item for item in items if item.status in (RUNNING, WAITING)]
    times_s = [item.duration_s for item in items if item.status == "written"]
    percent = 100 * (1 - len(left) / len(items)) if items else 100.0
    left_s = sum(times_s) / len(times_s) * len(left) if times_s else None
    progress = {"percent": round(percent, 1), "left_s": left_s if left else 0.0}
    text = f"{folder}: {describe(summary)} {percent:.0f} % done{_left(left_s, left)}."
    console.emit({**summary, **progress}, text)


def _record(run: Path, state: RunState) -> dict[str, object]:
    owner = state.owner
    return {
        "run": str(run),
        "state": _name(state),
        "strips": state.n_strips,
        "done": len(state.done),
        "percent": None if state.percent is None else round(state.percent, 1),
        "left_s": state.left_s,
        "pid": None if owner is None else owner.pid,
        "host": None if owner is None else owner.host,
        "started": state.started.isoformat(),
        "updated": state.updated.isoformat(),
    }


def _describe(run: Path, state: RunState) -> str:
    who = "" if state.owner is None else f" by pid {state.owner.pid}"
    share = "" if state.percent is None else f" ({state.percent:.0f} %)"
    is_left = state.n_strips is not None and len(state.done) < state.n_strips
    left = _left(state.left_s, is_left)
    return (
        f"{run}: {_name(state)}{who}, {len(state.done)} of {state.n_strips} strips"
        f"{share}{left}, "
        f"begun {state.started:%Y-%m-%d %H:%M:%S} UTC, "
        f"last strip {state.updated:%Y-%m-%d %H:%M:%S} UTC"
    )


def _name(state: RunState) -> str:
    if state.owner is not None:
        return "running"
    if state.n_strips is not None and len(state.done) == state.n_strips:
        return "computed"
    return "stopped"


def _left(seconds: float | None, is_left: object) -> str:
    """Return how long the rest takes, in words."""
    if not is_left or seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f", about {hours}:{minutes:02d}:{rest:02d} left"
