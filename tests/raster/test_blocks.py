"""Every window of `Blocks` is a cut of one picture, and few blocks stay in memory."""

from __future__ import annotations

import numpy as np
import pytest

from rsupres.errors import GridError
from rsupres.grid import PixelWindow
from rsupres.raster.blocks import Blocks

FRAME = PixelWindow(-3, 5, 20, 17)


def place_in_block(window: PixelWindow) -> np.ndarray:
    """Return pixels that tell where in their block they lie."""
    rows, cols = np.indices((window.height, window.width))
    return np.stack([rows, cols]).astype(np.uint8)


def test_windows_are_cuts_of_the_same_blocks() -> None:
    blocks = Blocks(FRAME, 8, place_in_block)
    whole = blocks.read(FRAME)
    assert whole[0, :, 0].tolist() == [*range(8), *range(8), *range(4)]
    assert whole[1, 0].tolist() == [*range(8), *range(8), 0]
    for window in (
        PixelWindow(-3, 5, 1, 1),
        PixelWindow(3, 10, 4, 4),
        PixelWindow(4, 12, 13, 10),
    ):
        cut = whole[:, *window.relative_to(FRAME).slices()]
        assert np.array_equal(blocks.read(window), cut)


def test_what_is_read_belongs_to_the_reader() -> None:
    blocks = Blocks(FRAME, 8, place_in_block)
    window = PixelWindow(-3, 5, 2, 2)
    blocks.read(window)[:] = 99
    assert blocks.read(window).max() == 1


def test_the_cache_holds_the_blocks_used_last() -> None:
    made: list[PixelWindow] = []

    def make(window: PixelWindow) -> np.ndarray:
        made.append(window)
        return place_in_block(window)

    blocks = Blocks(PixelWindow(0, 0, 4, 16), 4, make, cache_bytes=2 * 2 * 4 * 4)
    first, second, third, _ = blocks.windows()
    for window in (first, second, first, third, first, second):
        blocks.read(window)
    assert made == [first, second, third, second]


@pytest.mark.parametrize("window", [PixelWindow(-4, 5, 2, 2), PixelWindow(0, 5, 1, 18)])
def test_windows_outside_the_frame_are_refused(window: PixelWindow) -> None:
    with pytest.raises(GridError, match="leaves the frame"):
        Blocks(FRAME, 8, place_in_block).read(window)
