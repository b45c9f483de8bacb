"""The command line, and the bands of its small scenes."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner, Result

from rsupres.cli import main

NAMES = ("B04", "B03", "B02")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }
