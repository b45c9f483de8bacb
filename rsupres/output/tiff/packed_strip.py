"""Write a strip into packets while its columns come, and the rest into its file.

Rows that fill packets are compressed at once and are never stored otherwise. The rows
below the last packet become the strip's file; the next strip reads them to complete the
packet that they begin. So a strip's file holds its last rows, or nothing.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import numpy as np
from numpy.typing import NDArray

from rsupres.execution import threads_beside
from rsupres.grid import PixelWindow
from rsupres.output.atomic import publishing
from rsupres.output.damage.seals import sealed
from rsupres.output.tiff.geotiff import StripFile
from rsupres.output.tiff.packets import Packets
from rsupres.output.tiff.profile import BLOCK
from rsupres.output.tiff.strip import COLS, PacketWriter, StripWriter, read_rows

_Columns = tuple[NDArray[np.generic], NDArray[np.bool_] | None]


class PackedStrip:
    """The open files of a strip, which take columns from left to right."""

    def __init__(
        self, packets: Packets, strip: int, stack: ExitStack, first_here: int
    ) -> None:
        """Create the files.

        Args:
            packets: of the run.
            strip: its number, from 0.
            stack: publishes the files when it ends, the strip's own last.
            first_here: first of the strips, up to this one, that this process wrote.

        Raises:
            InputError: the file of the strip above is damaged.
            ResourceError: the disk is full, or writing fails otherwise.
        """
        windows, first = packets.share(strip, first_here)
        self._top, stop = packets.edges[strip], packets.edges[strip + 1]
        self._width = packets.grid.width
        self._rest = first - self._top  # rows before those of the strip's file
        self._file: StripWriter | None = None
        path, form = packets.run.strip_path(strip), packets.form
        if first == stop:
            stack.enter_context(publishing(path.with_suffix(".packed")))
        else:
            part = stack.enter_context(sealed(path))
            grid = packets.grid.crop(PixelWindow(first, 0, stop - first, self._width))
            self._file = StripWriter(
                part, grid, packets.n_bands, form.dtype, form.nodata
            )
            stack.callback(self._file.close)
        self._packets = [
            (window, packets.create(0, window, stack)) for window in windows
        ]
        self._threads = stack.enter_context(ThreadPoolExecutor(threads_beside()))
        self._above: list[StripFile] = []  # that hold the first rows of a packet
        if windows and windows[0].row < self._top:
            n_above = self._top - windows[0].row
            self._above = packets.opened(0, windows[0]._replace(height=n_above))
        self._waiting: list[_Columns] = []
        self._col = 0

    def write(
        self, pixels: NDArray[np.generic], valid: NDArray[np.bool_] | None = None
    ) -> None:
        """Write the next columns.

        Args:
            pixels: (c, H, W), all rows of the strip, in the type of the output; kept,
                not changed.
            valid: (1, H, W) bool; None when all are valid.

        Raises:
            ResourceError: the disk is full, or writing fails otherwise.
        """
        if self._file is not None:
            shown = None if valid is None else valid[:, self._rest :]
            self._file.write(pixels[:, self._rest :], shown)
        if not self._packets:
            return
        self._waiting.append((pixels, valid))
        n_waiting = sum(part.shape[2] for part, _ in self._waiting)
        while n_waiting:
            width = min(n_waiting, COLS)
            if self._col + width < self._width:
                width = width // BLOCK * BLOCK  # of whole blocks
            if not width:
                break
            self._pack(self._take(width), width)
            n_waiting -= width

    def _take(self, width: int) -> list[_Columns]:
        """Remove the first of the waiting columns, and return them."""
        taken: list[_Columns] = []
        while width:
            pixels, valid = self._waiting.pop(0)
            n = min(width, pixels.shape[2])
            if n < pixels.shape[2]:
                rest = pixels[:, :, n:], None if valid is None else valid[:, :, n:]
                self._waiting.insert(0, rest)
            taken.append((pixels[:, :, :n], None if valid is None else valid[:, :, :n]))
            width -= n
        return taken

    def _pack(self, columns: list[_Columns], width: int) -> None:
        """Write columns of every packet."""

        def write(item: tuple[PixelWindow, PacketWriter]) -> None:
            place = item[0]._replace(col=self._col, width=width)
            item[1].write(*self._joined(columns, place))

        for _ in self._threads.map(write, self._packets):
            pass  # what a thread raised is raised here
        self._col += width

    def _joined(self, columns: list[_Columns], place: PixelWindow) -> _Columns:
        """Return the pixels of a packet in some columns, and which are valid."""
        n_above = max(0, self._top - place.row)
        rows = slice(place.row + n_above - self._top, place.row_stop - self._top)
        if len(columns) == 1 and not n_above:
            pixels, valid = columns[0]
            return pixels[:, rows], None if valid is None else valid[:, rows]
        parts = []
        if n_above:
            above = read_rows(self._above, place._replace(height=n_above))
            parts.append((slice(0, n_above), slice(0, place.width), *above))
        col = 0
        for pixels, valid in columns:
            cols = slice(col, col + pixels.shape[2])
            shown = None if valid is None else valid[:, rows]
            parts.append((slice(n_above, None), cols, pixels[:, rows], shown))
            col = cols.stop
        shape = (place.height, place.width)
        whole = np.empty((len(columns[0][0]), *shape), columns[0][0].dtype)
        whole_valid = np.ones((1, *shape), bool)
        for down, across, pixels, valid in parts:
            whole[:, down, across] = pixels
            if valid is not None:
                whole_valid[:, down, across] = valid
        return whole, whole_valid

    def finish(self) -> None:
        """Close the files, and check that all of them is on disk.

        Raises:
            ResourceError: the disk is full, or writing fails otherwise.
        """
        assert not self._waiting, "columns are missing"
        for _, packet in self._packets:
            packet.finish()
        if self._file is not None:
            self._file.finish()
