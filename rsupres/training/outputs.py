"""The files that a training run reads and writes, and the card of its checkpoint.

A run never overwrites a file that it reads, and keeps the lines that were added to a
card by hand.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from rsupres.output.atomic import publishing
from rsupres.output.protect import check_apart
from rsupres.training.config import TrainConfig, resolve_path

STATE = "state.safetensors"
LOG = "log.jsonl"
_SHA256 = re.compile(r'^(sha256\s*=\s*)(["\'])[0-9a-f]{64}\2', re.MULTILINE)


def check_outputs(config: TrainConfig, root: Path, source: Path | None) -> None:
    """Check that a run overwrites none of the files that it reads.

    Args:
        config: the run.
        root: directory to which the paths of `config` are relative.
        source: the file that `config` was read from; None = no file.

    Raises:
        ArgumentError: names the file.
    """
    out = resolve_path(config.out, root)
    weights = out / f"{config.name}.safetensors"
    files = [weights, weights.with_suffix(".toml"), out / STATE, out / LOG]
    files += [out / f"stage_{i + 1}.safetensors" for i in range(len(config.stage))]
    inputs: dict[str, Sequence[str]] = {
        "config": [] if source is None else [str(source)],
        "data.train": _existing(config.data.train, root),
        "data.validation": _existing(config.data.validation, root),
        "start_from": _existing([config.start_from or ""], root),
        "options": _existing(_texts(config.options), root),
    }
    for file in files:
        check_apart({"out": file}, inputs)


def write_card(path: Path, text: str, sha256: str) -> None:
    """Write the card of a finished checkpoint; keep one that is there already.

    Of a card that exists, only the hash of the weights is brought up to date.

    Args:
        path: of the card.
        text: of a new card.
        sha256: of the weights.
    """
    if path.exists():
        there = path.read_text(encoding="utf-8")
        text = _SHA256.sub(rf"\g<1>\g<2>{sha256}\g<2>", there, count=1)
        if text == there:
            return
    with publishing(path) as part:
        part.write_text(text, encoding="utf-8")


def _existing(names: Sequence[str], root: Path) -> list[str]:
    """Return those of the names that are files, as a run finds them."""
    paths = [resolve_path(name, root) for name in names if name]
    return [str(path) for path in paths if path.is_file()]


def _texts(options: Mapping[str, object]) -> list[str]:
    """Return all texts among the values of options, which may name files."""

    def walk(value: object) -> Iterator[str]:
        if isinstance(value, str):
            yield value
        elif isinstance(value, Mapping):
            for item in value.values():
                yield from walk(item)
        elif isinstance(value, list | tuple):
            for item in value:
                yield from walk(item)

    return list(walk(options))
