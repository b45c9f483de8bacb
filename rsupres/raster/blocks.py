"""Pictures that are made in fixed blocks, so that every window is a cut of one whole.

What a block holds may depend on its size and place (warping, matrix products), so
blocks lie fixed in the frame, whatever window is read. The last ones are kept.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rsupres.errors import GridError
from rsupres.grid import PixelWindow, ceil_div

CACHE_BYTES = 32 * 2**20


class Blocks:
    """A picture of a frame, block by block; reading is safe from several threads.

    Args:
        frame: the whole picture.
        side: pixels of a block's side; blocks at the frame's end are cut.
        make: (c, h, w) for the window of a block.
    """

    def __init__(
        self,
        frame: PixelWindow,
        side: int,
        make: Callable[[PixelWindow], NDArray[Any]],
    ) -> None:
        self.frame = frame
        self.side = side
        self._make = make
        self._kept: OrderedDict[PixelWindow, NDArray[Any]] = OrderedDict()
        self._kept_bytes = 0
        self._lock = threading.RLock()

    def windows(self) -> Iterator[PixelWindow]:
        """Yield the windows of all blocks, row by row."""
        yield from self._touching(self.frame)

    def read(self, window: PixelWindow) -> NDArray[Any]:
        """Return (c, h, w).

        Args:
            window: inside the frame.

        Raises:
            GridError: it is not.
        """
        if window.intersection(self.frame) != window:
            raise GridError(
                f"window {tuple(window)} leaves the frame {tuple(self.frame)}."
            )
        out: NDArray[Any] | None = None
        for place in self._touching(window):
            block = self._block(place)
            part = place.intersection(window)
            assert part is not None
            if part == window:
                return block[:, *part.relative_to(place).slices()]
            if out is None:
                shape = (len(block), window.height, window.width)
                out = np.empty(shape, block.dtype)
            rows, cols = part.relative_to(window).slices()
            out[:, rows, cols] = block[:, *part.relative_to(place).slices()]
        assert out is not None
        return out

    def _touching(self, window: PixelWindow) -> Iterator[PixelWindow]:
        side, whole = self.side, self.frame
        first_row, first_col = window.row - whole.row, window.col - whole.col
        for row in range(first_row // side, ceil_div(first_row + window.height, side)):
            for col in range(
                first_col // side, ceil_div(first_col + window.width, side)
            ):
                place = PixelWindow(
                    whole.row + row * side, whole.col + col * side, side, side
                ).intersection(whole)
                assert place is not None
                yield place

    def _block(self, place: PixelWindow) -> NDArray[Any]:
        with self._lock:
            if place in self._kept:
                self._kept.move_to_end(place)
                return self._kept[place]
            block = self._make(place)
            self._kept[place] = block
            self._kept_bytes += block.nbytes
            while self._kept_bytes > CACHE_BYTES and len(self._kept) > 1:
                _, oldest = self._kept.popitem(last=False)
                self._kept_bytes -= oldest.nbytes
            return block
