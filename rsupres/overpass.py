"""OpenStreetMap live (placeholder until the download is in)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rsupres.errors import InputError
from rsupres.grid import Grid
from rsupres.legend import Legend

LIVE = "overpass"


def resolve(
    paths: Sequence[str], grid: Grid, legend: Legend, folder: Path | None
) -> tuple[str, ...]:
    """Return the files to read."""
    if LIVE in paths:
        raise InputError("overpass: the live download is not there yet; give a file.")
    return tuple(paths)
