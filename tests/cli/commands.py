"""The command line, and the bands of its small scenes."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner, Result

from rsupres.cli import main

NAMES = ("B04", "B03", "B02")


def run(*arguments: object, **environment: str) -> Result:
    texts = [str(argument) for argument in arguments]
    return CliRunner().invoke(main, texts, env=environment)


def evaluate(*arguments: object) -> Result:
    return run("evaluate", *arguments)


def rows_of(result: Result) -> list[dict[str, object]]:
    """Return the objects that a command printed, which ended well."""
    assert result.exit_code == 0, result.output
    return lines(result.stdout)


def lines(text: str) -> list[dict[str, object]]:
    """Return the objects of lines of JSON."""
    return [json.loads(line) for line in text.splitlines()]


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }
