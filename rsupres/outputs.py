"""The last step of every command that makes a raster: strips become the output.

Apart from `rsupres.pipeline`, so that commands without a network need not load one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from rsupres.assembly import OutputFormat, OutputMeta, assemble
from rsupres.execution import run_interruptible
from rsupres.publishing import publishing


def write_output(
    strips: Sequence[Path], meta: OutputMeta, form: OutputFormat, output: Path
) -> None:
    """Assemble strips; the output appears when it is whole."""
    _remove_leftovers(output)
    try:
        with publishing(output) as part:
            run_interruptible(lambda: assemble(strips, meta, form, part))
    except KeyboardInterrupt:
        _remove_leftovers(output)
        raise


def _remove_leftovers(output: Path) -> None:
    """Remove what was left beside an output when writing it was broken off.

    The caller holds the lock of the output's run, so nobody writes there now.
    """
    pattern = re.compile(re.escape(output.name) + r"\.[0-9a-f]{8}\.tmp(\..*)?")
    for path in output.absolute().parent.iterdir():
        if pattern.fullmatch(path.name):
            path.unlink(missing_ok=True)
