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
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from rsupres.cli.terminal.log_file import JsonFormatter, LogFile, NotOnStderr, note
from rsupres.cli.terminal.progress import PlainLines, progress_bars
from rsupres.cli.terminal.streams import TolerantStream
from rsupres.cli.terminal.wording import WordingFilter

if TYPE_CHECKING:
    from rsupres.execution import Progress


@dataclass(frozen=True)
class Console:
    """Outlets of a command's results and progress, by ``-v``, ``-q`` and ``--json``.

    Attributes:
        as_json: results are JSON lines.
        verbosity: times ``-v`` less times ``-q``.
        json_logs: logs and progress are JSON lines.
    """

    as_json: bool = False
    verbosity: int = 0
    json_logs: bool = False

    def emit(self, record: Mapping[str, object], text: str) -> None:
        """Write one result to stdout: `record` with ``--json``, else `text`.

        Args:
            record: the result as JSON.
            text: the result as people read it.
        """
        if self.as_json:
            click.echo(json.dumps(record, allow_nan=False, default=str))
        elif text:
            click.echo(text)
        note(text, fields={"result": dict(record)})

    @contextmanager
    def work(
        self, time_limit_s: float | None = None
    ) -> Iterator[Callable[[Progress], None]]:
        """Stop on signals and at `time_limit_s`, quieten libraries, show progress."""
        from rsupres.execution import stop_signals

        with (
            stop_signals(time_limit_s),
            _native_messages_to_log(),
            self.progress() as show,
        ):
            yield show

    @contextmanager
    def progress(self) -> Iterator[Callable[[Progress], None]]:
        """Show progress on stderr: a bar on a terminal, plain lines elsewhere."""
        if self.verbosity < 0:
            yield PlainLines(is_shown=False, as_json=self.json_logs)
        elif sys.stderr.isatty() and not self.json_logs:
            lines = PlainLines(is_shown=False)
            with progress_bars() as bar:

                def show(step: Progress) -> None:
                    bar(step)
                    lines(step)

                yield show
        else:
            yield PlainLines(as_json=self.json_logs)


@contextmanager
def _native_messages_to_log() -> Iterator[None]:
    """Log at DEBUG what C libraries write to stderr, such as libtiff on a full disk."""
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


class _Once(logging.Filter):
    """Pass a warning the first time that a command makes it."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno != logging.WARNING:
            return True
        text = record.getMessage()
        is_new = text not in self._seen
        self._seen.add(text)
        return is_new


class _OneLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        level = record.levelname.capitalize()
        return f"{level}: {' '.join(record.getMessage().split())}"


class _Stderr(logging.Handler):
    """Write to the stderr of the moment, because Click's test runner replaces it."""

    def emit(self, record: logging.LogRecord) -> None:
        click.echo(self.format(record), err=True)


def _log_file(name: str, level: int, *, as_json: bool) -> LogFile:
    """Open a log file, which gets everything from INFO."""
    try:
        to_file = LogFile(name, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise click.UsageError(
            f"--log-file {name} cannot be written: {error.strerror}."
        ) from error
    to_file.addFilter(_ByVerbosity(min(level, logging.INFO)))
    text = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    to_file.setFormatter(JsonFormatter() if as_json else text)
    return to_file


def configure_logging(
    verbosity: int,
    log_file: str | None,
    command: click.Command | None = None,
    *,
    as_json: bool = False,
) -> Callable[[], None]:
    """Send logs to stderr and to `log_file`; return a function that undoes it.

    Args:
        verbosity: 0 shows warnings, 1 what is decided, 2 everything, below 0 errors.
        log_file: appended to, with times, everything from INFO.
        command: whose options warnings name.
        as_json: each record is a JSON object.

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
    stderr.setFormatter(JsonFormatter() if as_json else _OneLine())
    handlers: list[logging.Handler] = [stderr]
    if log_file:
        handlers.append(_log_file(log_file, level, as_json=as_json))
    before = root.level
    root.setLevel(min(level, logging.INFO))
    for handler in handlers:
        handler.addFilter(WordingFilter(command))
        handler.addFilter(_Once())
        root.addHandler(handler)
    logging.captureWarnings(True)

    def undo() -> None:
        logging.captureWarnings(False)
        root.setLevel(before)
        for handler in handlers:
            root.removeHandler(handler)
            handler.close()

    return undo
