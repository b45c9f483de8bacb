"""Runs whose strips become packets, and the files that these should become."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np

from rsupres.grid import Grid, PixelWindow
from rsupres.output.run_dir import Run
from rsupres.output.tiff.geotiff import assemble, write_strip
from rsupres.output.tiff.packets import Packets
from rsupres.output.tiff.profile import OutputFormat, OutputMeta
from tests.helpers import NORTH_UP, UTM

SIZE = (2308, 1036)  # no side is a multiple of a block; a quarter of it is odd
EDGES = (0, 700, 1024, 1030, 2307, 2308)


def picture(bands: int, dtype: str) -> np.ndarray:
    rng = np.random.default_rng(1)
    smooth = np.add.outer(np.arange(SIZE[0]), np.arange(SIZE[1])) % 200
    pixels = smooth + rng.integers(1, 40, (bands, *SIZE))
    return (pixels / 7 if np.dtype(dtype).kind == "f" else pixels).astype(dtype)


def make_meta(bands: int, **changes: object) -> OutputMeta:
    meta = OutputMeta(
        grid=Grid(UTM, NORTH_UP, *SIZE),
        descriptions=("B04", *(None,) * (bands - 1)),
        scales=(1e-4,) * bands,
        offsets=(0.0,) * bands,
        colorinterp=("gray", *("undefined",) * (bands - 1)),
        tags={"RSUPRES_SCALE": "4"},
    )
    return replace(meta, **changes)  # type: ignore[arg-type]


class Case:
    """A run whose strips are all written, and the file that they should become."""

    def __init__(
        self,
        folder: Path,
        run: Run,
        meta: OutputMeta,
        form: OutputFormat,
        pixels: np.ndarray,
        valid: np.ndarray | None = None,
    ) -> None:
        self.meta, self.pixels, self.output = meta, pixels, folder / "out.tif"
        self.packets = Packets(run, meta.grid, len(pixels), form, EDGES)
        paths = self.packets.strips
        for strip, (top, stop) in enumerate(itertools.pairwise(EDGES)):
            rows = slice(top, stop)
            grid = meta.grid.crop(PixelWindow(top, 0, stop - top, SIZE[1]))
            seen = None if valid is None else valid[:, rows]
            write_strip(paths[strip], pixels[:, rows], grid, seen, form.nodata)
        wanted = folder / "wanted.tif"
        assemble(paths, meta, form, wanted)
        self.wanted = wanted.read_bytes()

    def finish(self, **changes: object) -> bytes:
        keep = bool(changes.pop("keep", False))
        packets = replace(self.packets, **changes)  # type: ignore[arg-type]
        packets.write_output(self.meta, self.output, keep=keep)
        return self.output.read_bytes()
