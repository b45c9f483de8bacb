"""Strips of a picture, and the file that is built from them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from rsupres.grid import Grid, PixelWindow
from rsupres.output.tiff.geotiff import assemble, write_strip
from rsupres.output.tiff.profile import OutputFormat, OutputMeta
from tests.helpers import NORTH_UP, UTM

HEIGHTS = (100, 30, 470)  # of strips; no multiples of a block
WIDTH = 530
SIZE = (sum(HEIGHTS), WIDTH)
DRIVERS = ["COG", "GTiff"]


def make_meta(bands: int = 3, **changes: object) -> OutputMeta:
    meta = OutputMeta(
        grid=Grid(UTM, NORTH_UP, *SIZE),
        descriptions=(None,) * bands,
        scales=(1.0,) * bands,
        offsets=(0.0,) * bands,
        colorinterp=("gray", *("undefined",) * (bands - 1)),
    )
    return replace(meta, **changes)  # type: ignore[arg-type]


def write_strips(
    folder: Path,
    pixels: np.ndarray,
    meta: OutputMeta,
    valid: np.ndarray | None = None,
    nodata: float | None = None,
) -> list[Path]:
    paths, row = [], 0
    for number, height in enumerate(HEIGHTS):
        rows = slice(row, row + height)
        paths.append(folder / f"{number:04d}.tif.0a1b2c3d.tmp")
        write_strip(
            paths[-1],
            pixels[:, rows],
            meta.grid.crop(PixelWindow(row, 0, height, WIDTH)),
            None if valid is None else valid[:, rows],
            nodata,
        )
        row += height
    return paths


def build(
    folder: Path,
    pixels: np.ndarray,
    meta: OutputMeta,
    form: OutputFormat,
    valid: np.ndarray | None = None,
) -> Path:
    strips = write_strips(folder, pixels, meta, valid, form.nodata)
    part = folder / "out.tif.12345678.tmp"
    assemble(strips, meta, form, part)
    assert list(folder.glob("out*")) == [part]
    return part
