"""Print results to stdout, logs and progress to stderr.

Results are one JSON object a line with ``--json``, else plain text; logs and progress
never reach stdout. Nothing here knows what a command does.
"""

from __future__ import annotations

import io
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from rsupres.cli.log_file import LogFile, NotOnStderr, note
from rsupres.cli.streams import TolerantStream
from rsupres.cli.wording import WordingFilter

if TYPE_CHECKING:
    from rsupres.execution import Progress

_PLAIN_EVERY_S = 10.0


@dataclass(frozen=True)
class Console:
    """Where a command's results and progress go, by ``-v``, ``-q`` and ``--json``.

    Attributes:
        as_json: results are JSON lines.
        verbosity: times ``-v`` less times ``-q``.
    """

    as_json: bool = False
    verbosity: int = 0

    def emit(self, record: Mapping[str, object], text: str) -> None:
        """Write one result to stdout: `record` with ``--json``, else `text`."""
        if self.as_json:
            click.echo(json.dumps(record, allow_nan=False, default=str))
        elif text:
            click.echo(text)
        note(text)

    @contextmanager
    def work(self) -> Iterator[Callable[[Progress], None]]:
        """Stop on signals, keep libraries quiet and show progress during long work."""
        from rsupres.execution import stop_signals

        with stop_signals(), _native_messages_to_log(), self.progress() as show:
            yield show

    @contextmanager
    def progress(self) -> Iterator[Callable[[Progress], None]]:
        """Show progress on stderr: a bar on a terminal, plain lines elsewhere."""
        if self.verbosity < 0:
            yield _PlainLines(is_shown=False)
        elif sys.stderr.isatty():
            lines = _PlainLines(is_shown=False)
            with _bar() as bar:

                def show(step: Progress) -> None:
                    bar(step)
                    lines(step)

                yield show
        else:
            yield _PlainLines()


class _PlainLines:
    """Print a line when a phase starts or ends and every ten seconds between.

    The log file has the lines, too, also where a bar or nothing is shown instead.
    """

    def __init__(self, *, is_shown: bool = True) -> None:
        self._is_shown = is_shown
        self._phase = ""
        self._started = self._last = 0.0
        self._offset = 0
        self._ended = False

    def __call__(self, step: Progress) -> None:
        now = time.monotonic()
        if step.phase != self._phase:
            self._phase, self._started, self._offset = step.phase, now, step.done
            self._last, self._ended = now, step.total == 1
            size = f": {step.total} {step.unit}" if step.total > 1 else ""
            self._print(f"{step.phase}{size}")
        elif step.done == step.total:
            if not self._ended:
                self._ended = True
                self._say(step, now)
        elif now - self._last >= _PLAIN_EVERY_S:
            self._last = now
            self._say(step, now)

    def _say(self, step: Progress, now: float) -> None:
        rate = (step.done - self._offset) / max(now - self._started, 1e-6)
        left = (step.total - step.done) / rate if rate > 0 else float("nan")
        self._print(
            f"{step.phase}: {step.done}/{step.total} {step.unit}, "
            f"{rate:.3g} {step.unit}/s, {_clock(left)} left"
        )

    def _print(self, line: str) -> None:
        if self._is_shown:
            click.echo(line, err=True)
        note(line)


@contextmanager
def _bar() -> Iterator[Callable[[Progress], None]]:
    from rich.console import Console as Terminal
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        ProgressColumn,
        Task,
        TaskID,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Bar
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            unit = task.fields.get("unit", "")
            return Text(f"{speed:.3g} {unit}/s" if speed else "")

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(),
    )
    terminal = Terminal(stderr=True, highlight=False)
    with Bar(*columns, console=terminal, transient=True) as bar:
        tasks: dict[str, TaskID] = {}

        def show(step: Progress) -> None:
            task = tasks.get(step.phase)
            if task is None:
                for old in tasks.values():
                    bar.update(old, visible=False)
                task = bar.add_task(
                    step.phase, total=step.total, completed=step.done, unit=step.unit
                )
                tasks[step.phase] = task
            bar.update(task, completed=step.done, total=step.total)

        yield show


def _clock(seconds: float) -> str:
    if seconds != seconds:
        return "unknown time"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"


@contextmanager
def _native_messages_to_log() -> Iterator[None]:
    """Log at DEBUG the lines that C libraries write straight to stderr.

    libtiff reports a full disk this way, beside the error that we report. Where
    Python's stderr is not that of the process, nothing is done.
    """
    before = sys.stderr
    inner = before.stream if isinstance(before, TolerantStream) else before
    if inner is not sys.__stderr__ or not isinstance(inner, io.TextIOWrapper):
        yield
        return
    before.flush()
    ours, (reader, writer) = os.dup(2), os.pipe()
    os.dup2(writer, 2)
    os.close(writer)
    sys.stderr = TolerantStream(
        os.fdopen(ours, "w", buffering=1, encoding=inner.encoding)
    )

    def log() -> None:
        with os.fdopen(reader, errors="replace") as lines:
            for line in lines:
                logging.getLogger("native").debug("%s", line.rstrip())

    thread = threading.Thread(target=log, name="rsupres-native", daemon=True)
    thread.start()
    try:
        yield
    finally:
        os.dup2(ours, 2)
        sys.stderr.close()
        sys.stderr = before
        thread.join(1.0)


class _ByVerbosity(logging.Filter):
    """Pass our records from `level` up, those of other libraries from 20 above it."""

    def __init__(self, level: int) -> None:
        super().__init__()
        self._level = level

    def filter(self, record: logging.LogRecord) -> bool:
        ours = record.name.partition(".")[0] == "rsupres"
        return record.levelno >= self._level + (0 if ours else 20)


class _OneLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        level = record.levelname.capitalize()
        return f"{level}: {' '.join(record.getMessage().split())}"


class _Stderr(logging.Handler):
    """Write to the stderr of the moment, because Click's test runner replaces it."""

    def emit(self, record: logging.LogRecord) -> None:
        click.echo(self.format(record), err=True)


def configure_logging(
    verbosity: int, log_file: str | None, command: click.Command | None = None
) -> Callable[[], None]:
    """Send logs to stderr and to `log_file`; return a function that undoes it.

    Args:
        verbosity: 0 shows warnings, 1 what is decided, 2 everything, below 0 errors.
        log_file: appended to, with times, everything from INFO.
        command: whose options warnings name.

    Raises:
        click.UsageError: the log file cannot be written.
    """
    level = {-1: logging.ERROR, 0: logging.WARNING, 1: logging.INFO}.get(
        max(verbosity, -1), logging.DEBUG
    )
    root = logging.getLogger()
    stderr = _Stderr()
    stderr.addFilter(_ByVerbosity(level))
    stderr.addFilter(NotOnStderr())
    stderr.setFormatter(_OneLine())
    handlers: list[logging.Handler] = [stderr]
    if log_file:
        try:
            to_file = LogFile(log_file, encoding="utf-8")
        except OSError as error:
            raise click.UsageError(
                f"--log-file {log_file} cannot be written: {error.strerror}."
            ) from error
        to_file.addFilter(_ByVerbosity(min(level, logging.INFO)))
        to_file.setFormatter(
            logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
        )
        handlers.append(to_file)
    before = root.level
    root.setLevel(min(level, logging.INFO))
    for handler in handlers:
        handler.addFilter(WordingFilter(command))
        root.addHandler(handler)
    logging.captureWarnings(True)

    def undo() -> None:
        logging.captureWarnings(False)
        root.setLevel(before)
        for handler in handlers:
            root.removeHandler(handler)
            handler.close()

    return undo
