"""Keep a command at work when the readers of its output go away.

`rsupres ... 2>&1 | head -1` closes the pipe after one line, a cron job may start
without stderr. Work goes on without them. When results written to stdout were lost,
the process ends with 141, as one that SIGPIPE kills: code 0 would promise that they
arrived.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

LOST = 141  # 128 + SIGPIPE
_GONE = frozenset({errno.EPIPE, errno.EBADF, errno.EIO, errno.ECONNRESET})


class TolerantStream:
    """A text stream that drops text when its reader has gone.

    Attributes:
        stream: where the text goes.
        is_broken: whether something was dropped.
    """

    def __init__(self, stream: IO[str]) -> None:
        self.stream = stream
        self.is_broken = False

    def __getattr__(self, name: str) -> Any:  # the stream's own
        """Return everything else as the stream has it."""
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        """Write `text`; return its length, also when the reader has gone."""
        self._try(lambda: self.stream.write(_printable(text)))
        return len(text)

    def flush(self) -> None:
        """Pass on buffered text, while there is a reader."""
        self._try(self.stream.flush)

    def _try(self, act: Any) -> None:  # a write or a flush
        if self.is_broken:
            return
        try:
            act()
        except OSError as error:
            if error.errno not in _GONE:
                raise
            self.is_broken = True
            _silence(self.stream)


@contextmanager
def tolerant_streams() -> Iterator[TolerantStream]:
    """Make stdout and stderr tolerant within the block; yield stdout.

    Standard descriptors that are closed are opened on the null device first, so that
    no file that is opened later takes the number of stderr and native messages.
    """
    for descriptor in (0, 1, 2):
        _open_if_closed(descriptor)
    before = sys.stdout, sys.stderr
    output = TolerantStream(before[0] or open(os.devnull, "w"))  # noqa: SIM115
    sys.stdout = output
    sys.stderr = TolerantStream(
        before[1] or open(os.devnull, "w")  # noqa: SIM115
    )
    try:
        yield output
    finally:
        output.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = before


def _open_if_closed(descriptor: int) -> None:
    try:
        os.fstat(descriptor)
    except OSError:
        null = os.open(os.devnull, os.O_RDWR)
        if null != descriptor:
            os.dup2(null, descriptor)
            os.close(null)


def _silence(stream: IO[str]) -> None:
    """Point a stream without a reader at the null device, for the exit's flush."""
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)
    except (OSError, ValueError):
        return


def _printable(text: str) -> str:
    """Return text with bytes of names that are no UTF-8 shown as escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
