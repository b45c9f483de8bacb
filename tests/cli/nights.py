"""The command line as batches use it, and its lines of JSON."""

from __future__ import annotations

import json

from click.testing import CliRunner, Result

from rsupres.cli import main

NAMES = ("B04", "B03", "B02")


def run(*arguments: object, **environment: str) -> Result:
    texts = [str(argument) for argument in arguments]
    return CliRunner().invoke(main, texts, env=environment)


def lines(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]
