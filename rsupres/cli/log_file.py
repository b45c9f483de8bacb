"""Copy results, progress and errors of a command to the log file.

With these lines the file of ``--log-file`` holds everything that stderr shows, and what
was written.
"""

from __future__ import annotations

import logging
import re
import time
from pathlib import Path

_OURS = re.compile(rb"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} [A-Z]+ ")
_logger = logging.getLogger("rsupres.console")


class NotOnStderr(logging.Filter):
    """Let no line pass that was shown otherwise already."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the record is shown."""
        return record.name != _logger.name


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
        now = time.time()
        stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now))
        with file.open("a", encoding="utf-8") as opened_text:
            opened_text.write(
                f"{stamp},{int(now % 1 * 1000):03d} ERROR {_logger.name}: {text}\n"
            )
    except OSError:
        return  # the error itself is on stderr
