"""A token file shows whether another process sees a folder and may write there."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from rsupres.output.atomic import translate_os_errors
from rsupres.output.temporary import temporary

# Network file systems show a new file to other machines after some seconds.
_DELAY_S = 10.0
_PAUSE_S = 0.2


@dataclass(frozen=True)
class Token:
    """A file with a random text that cannot be guessed.

    Attributes:
        path: of the file, absolute.
        text: in it.
    """

    path: str
    text: str

    def fault(self) -> str:
        """Return what is wrong with the folder as this process sees it, "" if nothing.

        The folder must show the token, and a file must be writable there.
        """
        path = Path(self.path)
        if not self._is_seen(path):
            return f"does not see {path.parent}"
        try:
            with temporary(path.with_name("probe")) as probe:
                probe.write_text(self.text)
        except OSError as error:
            return f"cannot write to {path.parent} ({error.strerror})"
        return ""

    def _is_seen(self, path: Path) -> bool:
        until = time.monotonic() + (_DELAY_S if path.parent.is_dir() else 0)
        while True:
            try:
                if path.read_text() == self.text:
                    return True
            except OSError:
                pass
            if time.monotonic() >= until:
                return False
            time.sleep(_PAUSE_S)


@contextmanager
def token_in(folder: Path) -> Iterator[Token]:
    """Keep a token in a folder.

    Raises:
        InputError: the folder cannot be written.
        ResourceError: the disk is full.
    """
    path = folder.absolute() / "workers"
    with ExitStack() as stack:
        with translate_os_errors(path):
            # A run directory takes it for a temporary file of its own.
            file = stack.enter_context(temporary(path))
            token = Token(str(file), secrets.token_hex(16))
            file.write_text(token.text)
        yield token
