"""Find the frame that holds several rasters on one pixel grid, and their places."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from affine import Affine

from rsupres.errors import InputError
from rsupres.grid import Grid, PixelWindow

# Pixels by which origins may miss a whole number of pixels, for rounding in headers.
MISALIGNED = 1e-3


class Placed(Protocol):
    """An object with a name and a frame, such as an open scene."""

    @property
    def path(self) -> str:
        """As the user gave it."""

    @property
    def grid(self) -> Grid:
        """Its frame."""


@dataclass(frozen=True)
class NamedGrid:
    """A frame that is no file's, with a name for messages.

    Attributes:
        path: the name, such as "the SR grid".
        grid: the frame.
    """

    path: str
    grid: Grid


def union_grid(scenes: Sequence[Placed]) -> tuple[Grid, list[PixelWindow]]:
    """Return the smallest frame that holds all scenes, and where each lies in it.

    Raises:
        InputError: their CRS, pixel sizes or origins do not fit, naming the first.
    """
    first = scenes[0].grid
    offsets = [_offset(scene, scenes[0]) for scene in scenes]
    top = min(row for row, _ in offsets)
    left = min(col for _, col in offsets)
    places = [
        PixelWindow(row - top, col - left, scene.grid.height, scene.grid.width)
        for (row, col), scene in zip(offsets, scenes, strict=True)
    ]
    height = max(place.row_stop for place in places)
    width = max(place.col_stop for place in places)
    transform = first.transform @ Affine.translation(left, top)
    return Grid(first.crs, transform, height, width), places


def _offset(scene: Placed, first: Placed) -> tuple[int, int]:
    """Return the row and column of a scene's corner in the pixels of another's."""
    here, there = scene.grid, first.grid
    if here.crs != there.crs:
        raise InputError(
            f"{scene.path}: CRS {_name(here)} differs from {_name(there)} of "
            f"{first.path}; reproject one, for example with rio warp."
        )
    a, b, _, d, e, _ = here.transform[:6]
    a0, b0, c0, d0, e0, f0 = there.transform[:6]
    side = max(abs(a0), abs(b0))
    limit = MISALIGNED * side / max(here.height, here.width)
    if max(abs(a - a0), abs(b - b0), abs(d - d0), abs(e - e0)) > limit:
        raise InputError(
            f"{scene.path}: pixels of {a:g} by {e:g} differ from {a0:g} by {e0:g} of "
            f"{first.path}; resample one first."
        )
    col, row = ~Affine(a0, b0, c0, d0, e0, f0) @ (here.transform.c, here.transform.f)
    if max(abs(col - round(col)), abs(row - round(row))) > MISALIGNED:
        raise InputError(
            f"{scene.path}: its pixels lie {col - round(col):+.3f}, "
            f"{row - round(row):+.3f} pixels off the grid of {first.path}; resample it "
            "to that grid first, for example with gdalwarp -tap."
        )
    return round(row), round(col)


def covers(grid: Grid, places: Sequence[PixelWindow]) -> bool:
    """Return whether windows cover every pixel of a frame.

    Args:
        grid: the frame.
        places: windows inside it.
    """
    rows = sorted(
        {0, grid.height, *(edge for p in places for edge in (p.row, p.row_stop))}
    )
    cols = sorted(
        {0, grid.width, *(edge for p in places for edge in (p.col, p.col_stop))}
    )
    covered = np.zeros((len(rows) - 1, len(cols) - 1), bool)
    for place in places:
        covered[
            rows.index(place.row) : rows.index(place.row_stop),
            cols.index(place.col) : cols.index(place.col_stop),
        ] = True
    return bool(covered.all())


def _name(grid: Grid) -> str:
    return str(grid.crs.to_string()) if grid.crs else "none"
