"""A strip written column by column is the strip written at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio

from rsupres.grid import Grid
from rsupres.output.tiff.geotiff import write_strip
from rsupres.output.tiff.strip import StripWriter
from tests.helpers import NORTH_UP

GRID = Grid(None, NORTH_UP, 70, 1100)
EDGES = (0, 300, 301, 900, 1100)


def pieces(pixels: np.ndarray) -> list[np.ndarray]:
    return np.split(pixels, EDGES[1:-1], axis=2)


@pytest.mark.parametrize("nodata", [None, 0])
@pytest.mark.parametrize("first_hidden", [None, 0, 2, 3])
def test_pixels_and_masks_are_those_of_a_strip_written_at_once(
    tmp_path: Path, nodata: float | None, first_hidden: int | None
) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(1, 4000, (3, 70, 1100), np.uint16)
    valid = np.ones((1, 70, 1100), bool)
    if first_hidden is not None:
        valid[0, 10:20, EDGES[first_hidden] + 50 :: 100] = False
        pixels[:, ~valid[0]] = 0
    write_strip(tmp_path / "whole.tif", pixels, GRID, valid, nodata)
    writer = StripWriter(tmp_path / "parts.tif", GRID, 3, "uint16", nodata)
    for part, shown in zip(pieces(pixels), pieces(valid), strict=True):
        writer.write(part, None if shown.all() else shown)
    writer.finish()
    with (
        rasterio.open(tmp_path / "whole.tif") as whole,
        rasterio.open(tmp_path / "parts.tif") as parts,
    ):
        np.testing.assert_array_equal(parts.read(), whole.read())
        np.testing.assert_array_equal(parts.dataset_mask(), whole.dataset_mask())
        assert parts.mask_flag_enums == whole.mask_flag_enums
        assert parts.block_shapes == whole.block_shapes
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "parts.tif",
        "whole.tif",
    ]
