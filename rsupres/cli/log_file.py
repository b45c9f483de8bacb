"""Copy results, progress and errors of a command to the log file.

With these lines the file of ``--log-file`` holds everything that stderr shows, and what
was written.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import time
from pathlib import Path

import click

_OURS = re.compile(rb"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} [A-Z]+ ")
_logger = logging.getLogger("rsupres.console")


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
    """Return why a file cannot be a log that lines are appended to, None if it can.

    Pictures, XML and JSON would be destroyed; a new sidecar would be read as a part of
    a picture.

    Args:
        path: of the file, which need not exist.
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
    is_ours = bool(_OURS.match(start))
    if not is_ours and (b"\0" in start or start.lstrip().startswith((b"<", b"{"))):
        return "exists and is no log"
    return None


def note(text: str, level: int = logging.INFO) -> None:
    """Write lines to the log file, if there is one.

    Args:
        text: as it was shown.
        level: of logging.
    """
    # Without a file nobody listens: logging would show errors on stderr once more.
    if _logger.hasHandlers():
        for line in text.splitlines():
            _logger.log(level, "%s", line)


def note_early(path: str, text: str) -> None:
    """Append an error to the log file of a command that was refused before its start.

    The arguments are not known then, so that a file which is no log is left alone.

    Args:
        path: of the log file.
        text: the error, one line.
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
        now = time.time()
        stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now))
        with file.open("a", encoding="utf-8") as opened_text:
            opened_text.write(
                f"{stamp},{int(now % 1 * 1000):03d} ERROR {_logger.name}: {text}\n"
            )
    except OSError:
        return  # the error itself is on stderr
