"""Cache of fixed-size blocks: any window is assembled from the same blocks.

What a block holds may depend on its size and place (warping, filters that look at
neighbours), so blocks lie fixed in the frame, whichever window is read. Two windows
then agree where they overlap. The blocks used last stay in memory.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from rsupres.errors import GridError
from rsupres.grid import PixelWindow, ceil_div

CACHE_BYTES = 32 * 2**20

Number = TypeVar("Number", bound=np.generic)


class Blocks(Generic[Number]):
    """The pixels of a frame, computed block by block when they are read.

    Reading is safe from several threads; blocks are computed one at a time.

    Attributes:
        frame: the window that holds all pixels.
        side: pixels of a block's side; blocks at the frame's end are smaller.
    """

    def __init__(
        self,
        frame: PixelWindow,
        side: int,
        make: Callable[[PixelWindow], NDArray[Number]],
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        """Describe the blocks; none is computed yet.

        Args:
            frame: the window that holds all pixels.
            side: pixels of a block's side.
            make: computes the (c, h, w) pixels in the window of one block.
            cache_bytes: how much is kept; the block used last always is.
        """
        self.frame = frame
        self.side = side
        self._make = make
        self._cache_bytes = cache_bytes
        self._cached: OrderedDict[PixelWindow, NDArray[Number]] = OrderedDict()
        self._n_bytes = 0
        self._lock = threading.RLock()

    def windows(self) -> Iterator[PixelWindow]:
        """Yield the windows of all blocks, row by row."""
        yield from self._touching(self.frame)

    def read(self, window: PixelWindow) -> NDArray[Number]:
        """Return the pixels of a window as a new array, (c, h, w).

        Raises:
            GridError: the window is empty or leaves the frame.
        """
        if window.intersection(self.frame) != window:
            raise GridError(
                f"window {tuple(window)} leaves the frame {tuple(self.frame)}."
            )
        out: NDArray[Number] | None = None
        for place in self._touching(window):
            block = self._block(place)
            if out is None:
                shape = (len(block), window.height, window.width)
                out = np.empty(shape, block.dtype)
            part = place.intersection(window)
            assert part is not None
            inside = block[:, *part.relative_to(place).slices()]
            out[:, *part.relative_to(window).slices()] = inside
        assert out is not None
        return out

    def _touching(self, window: PixelWindow) -> Iterator[PixelWindow]:
        """Yield the windows of the blocks that a window touches, row by row."""
        side, frame = self.side, self.frame
        row, col = window.row - frame.row, window.col - frame.col
        for i in range(row // side, ceil_div(row + window.height, side)):
            for j in range(col // side, ceil_div(col + window.width, side)):
                whole = PixelWindow(
                    frame.row + i * side, frame.col + j * side, side, side
                )
                place = whole.intersection(frame)
                assert place is not None
                yield place

    def _block(self, place: PixelWindow) -> NDArray[Number]:
        with self._lock:
            if place in self._cached:
                self._cached.move_to_end(place)
                return self._cached[place]
            block = self._make(place)
            self._cached[place] = block
            self._n_bytes += block.nbytes
            while self._n_bytes > self._cache_bytes and len(self._cached) > 1:
                _, oldest = self._cached.popitem(last=False)
                self._n_bytes -= oldest.nbytes
            return block
