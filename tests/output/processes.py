"""Python processes that open run directories, and strips to put there."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rsupres.output.atomic import publishing
from rsupres.output.run_dir import Run

PRELUDE = """
import sys, time, resource, os
from pathlib import Path
import numpy as np
from rsupres.output.atomic import publishing
from rsupres.output.run_dir import Run
from rsupres.errors import RsupresError
path, manifest = Path(sys.argv[1]), {"job": {"scale": 4}}
def tell(text): print(text, flush=True)
"""


@contextmanager
def child(
    path: Path, body: str, within: Sequence[str] = ()
) -> Iterator[subprocess.Popen[str]]:
    """Run Python code in a process of its own, killed at the end of the block."""
    code = PRELUDE + textwrap.dedent(body)
    command = [*within, sys.executable, "-c", code, str(path)]
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": root}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def finish(path: Path, body: str, within: Sequence[str] = ()) -> str:
    with child(path, body, within) as process:
        output, _ = process.communicate()
    return output.strip()


JOB = {"job": {"scale": 4}}


def put_strip(run: Run, strip: int) -> None:
    with publishing(run.strip_path(strip)) as part:
        part.write_bytes(b"pixels")


def names(path: Path) -> list[str]:
    return sorted(str(file.relative_to(path)) for file in path.rglob("*"))
