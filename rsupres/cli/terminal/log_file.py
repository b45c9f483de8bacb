"""Copy results, progress and errors of a command to the log file.

With these lines the file of ``--log-file`` holds everything that stderr shows, and what
was written. Lines are text, or JSON objects with time, run, scene and counters.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import click

_OURS = re.compile(
    rb"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} [A-Z]+ |\{\"time\": \"\d{4}-"
)
_logger = logging.getLogger("rsupres.console")


class _Now:
    """Values that all lines of this process share."""

    run = os.urandom(6).hex()  # identifies it in a log that several append to
    scene = ""  # that a batch is at, "" outside of scenes


def set_scene(scene: str) -> None:
    """Name the scene that the next lines are about, "" for none."""
    _Now.scene = scene


def json_line(level: str, message: str, fields: Mapping[str, object]) -> str:
    """Return a line of a log in JSON.

    Args:
        level: of logging, such as "INFO".
        message: as text logs have it.
        fields: more keys, such as the counters of a progress.
    """
    content = {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "level": level,
        "run": _Now.run,
        "scene": _Now.scene,
        "message": message,
        **fields,
    }
    import json

    return json.dumps(content, default=str)


class JsonFormatter(logging.Formatter):
    """Write records as JSON objects, one a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return a record as a line of JSON."""
        fields = {"logger": record.name, **getattr(record, "fields", {})}
        if scene := getattr(record, "scene", ""):
            fields["scene"] = scene
        return json_line(record.levelname, record.getMessage(), fields)


class LogFile(logging.FileHandler):
    """Append records to a file; when it cannot be written, say so once and go on."""

    _is_lost = False

    def handleError(self, record: logging.LogRecord) -> None:  # logging's
        """Say on stderr that the file lacks lines, instead of a traceback for each."""
        if not self._is_lost:
            self._is_lost = True
            reason = sys.exc_info()[1]
            click.echo(
                f"Warning: {self.baseFilename} lacks lines from here on ({reason}).",
                err=True,
            )

    def close(self) -> None:
        """Close the file; what it still had to write may be lost."""
        try:
            super().close()
        except OSError:
            self.handleError(logging.makeLogRecord({}))


class NotOnStderr(logging.Filter):
    """Let no line pass that was shown otherwise already."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the record is shown."""
        return record.name != _logger.name


def fault_of(path: str) -> str | None:
    """Return why a file, which need not exist, cannot be a log; None if it can.

    Pictures, XML and JSON would be destroyed; a new sidecar would be read as a part of
    a picture.
    """
    if path.lower().endswith((".aux.xml", ".ovr", ".msk")):
        return "is named like a part of a raster"
    if not os.path.isfile(path):  # new, or a device or pipe
        return None
    try:
        with Path(path).open("rb") as opened:
            start = opened.read(4096)
    except OSError:
        return None
    if not _OURS.match(start) and (
        b"\0" in start or start.lstrip().startswith((b"<", b"{"))
    ):
        return "exists and is no log"
    return None


def note(
    text: str,
    level: int = logging.INFO,
    fields: Mapping[str, object] | None = None,
) -> None:
    """Write lines to the log file, if there is one.

    Args:
        text: as it was shown.
        level: of logging.
        fields: more keys of a line in JSON.
    """
    # Without a log file there is no handler: logging would repeat errors on stderr.
    if _logger.hasHandlers():
        for line in text.splitlines():
            _logger.log(level, "%s", line, extra={"fields": fields or {}})


def note_early(path: str, text: str, *, as_json: bool = False) -> None:
    """Append an error to the log file of a command that was refused before its start.

    The arguments are not known then, so that a file which is no log is left alone.

    Args:
        path: of the log file.
        text: the error, one line.
        as_json: the log is in JSON.
    """
    file = Path(path)
    try:
        if file.exists():
            with file.open("rb") as opened:
                start = opened.read(64)
            if start and not _OURS.match(start):
                return
        if fault_of(path):
            return
        with file.open("a", encoding="utf-8") as opened_text:
            opened_text.write(f"{_early_line(text, as_json=as_json)}\n")
    except OSError:
        return  # the error itself is on stderr


def _early_line(text: str, *, as_json: bool) -> str:
    if as_json:
        return json_line("ERROR", text, {"logger": _logger.name})
    now = time.time()
    stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now))
    return f"{stamp},{int(now % 1 * 1000):03d} ERROR {_logger.name}: {text}"
