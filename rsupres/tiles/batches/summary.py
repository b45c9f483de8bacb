"""Write the summary of a batch: a table of its inputs in CSV, JSON or Markdown."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rsupres.output.atomic import publishing
from rsupres.tiles.batches.journal import BatchItem, summarise

SUFFIXES = (".csv", ".json", ".md")
_TEXT: dict[str, Any] = {"encoding": "utf-8", "errors": "backslashreplace"}
_COLUMNS = ("scene", "output", "status", "exit_code", "model", "duration_s", "finished")


def write_summary(path: Path, items: Sequence[BatchItem]) -> None:
    """Write the outcomes of the inputs of a batch.

    Args:
        path: with one of `SUFFIXES`.
        items: in the order of the inputs.

    Raises:
        ResourceError: the disk is full.
    """
    figures = sorted({name for item in items for name in item.figures or {}})
    rows = [_row(item, figures) for item in items]
    with publishing(path) as part:
        if path.suffix.lower() == ".json":
            content = {**summarise(items), "inputs": [i.to_json() for i in items]}
            part.write_text(json.dumps(content, indent=1))
        elif path.suffix.lower() == ".csv":
            with part.open("w", newline="", **_TEXT) as opened:
                writer = csv.writer(opened)
                writer.writerow([*_COLUMNS, *figures, "error"])
                writer.writerows(rows)
        else:
            text = _markdown([*_COLUMNS, *figures, "error"], rows, items)
            part.write_text(text, **_TEXT)


def _row(item: BatchItem, figures: Sequence[str]) -> list[str]:
    stored = item.to_json()
    values = [str(stored[name]) for name in _COLUMNS]
    found = item.figures or {}
    values += [f"{found[name]:.6g}" if name in found else "" for name in figures]
    return [*values, item.error]


def _markdown(
    head: Sequence[str], rows: Sequence[Sequence[str]], items: Sequence[BatchItem]
) -> str:
    known = ("items", "duration_s", "exit_code")
    summary = summarise(items)
    counts = [f"{n} {name}" for name, n in summary.items() if name not in known]
    lines = [f"{len(items)} inputs: {', '.join(counts)}.", ""]
    lines += [_line(head), _line(["---"] * len(head)), *map(_line, rows)]
    return "\n".join([*lines, ""])


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
