"""Show progress on stderr: bars on a terminal, lines elsewhere and in the log file."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rsupres.cli.terminal.log_file import json_line, note

if TYPE_CHECKING:
    from rich.progress import ProgressColumn

    from rsupres.execution import Progress

_PLAIN_EVERY_S = 10.0


@dataclass
class _Phase:
    """The phase of a scene: its begin, the time of its last line, units done before."""

    name: str
    started: float
    said: float
    offset: int
    is_over: bool = False


class PlainLines:
    """Print a line when a phase starts or ends and every ten seconds between.

    The log file has the lines, too, also where a bar or nothing is shown instead.
    """

    def __init__(self, *, is_shown: bool = True, as_json: bool = False) -> None:
        self._is_shown = is_shown
        self._as_json = as_json
        self._phases: dict[str, _Phase] = {}

    def __call__(self, step: Progress) -> None:
        """Take how far a phase is."""
        now = time.monotonic()
        phase = self._phases.get(step.scene)
        if phase is None or step.phase != phase.name:
            phase = _Phase(step.phase, now, now, step.done)
            self._phases[step.scene] = phase
            size = f": {step.total} {step.unit}" if step.total > 1 else ""
            self._print(f"{step.phase}{size}", step)
        elif step.done == step.total:
            is_short = step.total == 1 and not self._as_json  # its start was said
            if not (phase.is_over or is_short):
                phase.is_over = True
                self._say(phase, step, now)
        elif now - phase.said >= _PLAIN_EVERY_S:
            phase.said = now
            self._say(phase, step, now)

    def _say(self, phase: _Phase, step: Progress, now: float) -> None:
        rate = (step.done - phase.offset) / max(now - phase.started, 1e-6)
        left = (step.total - step.done) / rate if rate > 0 else float("nan")
        self._print(
            f"{step.phase}: {step.done}/{step.total} {step.unit}, "
            f"{rate:.3g} {step.unit}/s, {_clock(left)} left",
            step,
        )

    def _print(self, line: str, step: Progress) -> None:
        if step.scene and not self._as_json:  # several may be worked on
            line = f"{Path(step.scene).name}: {line}"
        fields = {name: value for name, value in vars(step).items() if value != ""}
        if self._is_shown:
            shown = json_line("INFO", line, fields) if self._as_json else line
            click.echo(shown, err=True)
        note(line, fields=fields)


def _rate_column() -> ProgressColumn:
    """Return a column of how many units are done in a second."""
    from rich.progress import ProgressColumn, Task
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            unit = task.fields.get("unit", "")
            return Text(f"{speed:.3g} {unit}/s" if speed else "")

    return Rate()


@contextmanager
def progress_bars() -> Iterator[Callable[[Progress], None]]:
    """Show a bar for each scene that is worked on, and one for the batch."""
    from rich.console import Console as Terminal
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        TaskID,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _rate_column(),
        TimeRemainingColumn(),
    )
    terminal = Terminal(stderr=True, highlight=False)
    with Bar(*columns, console=terminal, transient=True) as bar:
        tasks: dict[tuple[str, str], TaskID] = {}

        def show(step: Progress) -> None:
            key = step.scene, step.phase
            if key not in tasks:
                for (scene, _), old in tasks.items():
                    if scene == step.scene:
                        bar.update(old, visible=False)
                name = Path(step.scene).name
                tasks[key] = bar.add_task(
                    f"{name}: {step.phase}" if name else step.phase,
                    total=step.total,
                    completed=step.done,
                    unit=step.unit,
                )
            bar.update(tasks[key], completed=step.done, total=step.total)
            if not step.scene:  # a scene of the batch has ended
                for (scene, _), old in tasks.items():
                    bar.update(old, visible=not scene)
            else:
                bar.update(tasks[key], visible=True)

        yield show


def _clock(seconds: float) -> str:
    if seconds != seconds:
        return "unknown time"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
