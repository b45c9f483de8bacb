"""Compress finished rows of a large COG into packets, and make the COG of these.

A packet is a file with one row of blocks of one resolution, compressed with the options
of the output. `rsupres.output.tiff.packed_strip.PackedStrip` writes packets of the full
resolution while strips are computed. Those that it cannot write are written as soon as
all their strips are done; the files of these are then emptied. Beside each packet lie
its rows at half the resolution, of which the packets of the next overview are made, and
so on. GDAL makes the smallest overviews. The output is a header and the compressed
blocks of all packets. A packet of the full resolution is removed once it is copied, so
that the disk never holds the pixels twice.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from rsupres.execution import write_behind
from rsupres.grid import Grid, PixelWindow, ceil_div, round_up
from rsupres.output.atomic import publishing
from rsupres.output.damage.seals import note_part, read_json, sealed, write_json
from rsupres.output.run_dir import Run
from rsupres.output.temporary import sync
from rsupres.output.tiff.cog import begin_cog, check_copied, copy_blocks, empty_cog
from rsupres.output.tiff.creation import PREDICTABLE
from rsupres.output.tiff.geotiff import StripFile, assemble, open_strip, unreadable
from rsupres.output.tiff.profile import BLOCK, OutputFormat, OutputMeta
from rsupres.output.tiff.strip import COLS, PacketWriter, read_rows, write_half
from rsupres.output.tiff.verify import check_output

ROWS = BLOCK  # rows of a packet
_LEVELS = 2  # resolutions that are packed, at most
PACKED_BYTES = 64 * 2**20  # below, one copy by GDAL costs less than packets
_BEGUN = "output.part"
_KNOWN = {"COMPRESS", "LEVEL", "NUM_THREADS", "BIGTIFF"}  # creation options


@dataclass(frozen=True)
class Packets:
    """Packets of the strips of a run.

    Attributes:
        run: with the strips.
        grid: frame of the output.
        n_bands: of the output.
        form: how it is stored.
        edges: first row of each strip, and the height of the output.
        has_codes: a band holds classes or bits, whose overview is no average.
    """

    run: Run
    grid: Grid
    n_bands: int
    form: OutputFormat
    edges: Sequence[int]
    has_codes: bool = False

    @property
    def folder(self) -> Path:
        """Where packets lie."""
        return self.run.path / "packets"

    @property
    def serve(self) -> bool:
        """Whether the output is made of packets: a large COG with usual options."""
        given = {
            key.upper(): value.upper() for key, value in self.form.creation.items()
        }
        n_bytes = self.grid.height * self.grid.width * self.n_bands
        return (
            self.form.driver == "COG"
            and not self.has_codes
            and given.keys() <= _KNOWN
            and given.get("COMPRESS", "DEFLATE").upper() in PREDICTABLE
            and self.grid.height % 2 == self.grid.width % 2 == 0
            and n_bytes * np.dtype(self.form.dtype).itemsize >= PACKED_BYTES
        )

    @property
    def _n_levels(self) -> int:
        """Number of resolutions that are packed; each has even sides."""
        sides = self.grid.height | self.grid.width
        return max(n for n in range(_LEVELS + 1) if sides % 2**n == 0)

    def share(self, strip: int, first_here: int) -> tuple[list[PixelWindow], int]:
        """Return the packets to write with a strip, and its first row that is in none.

        Packets that are there are not written again. The rows from the second value on
        become the strip's file.

        Args:
            strip: its number, from 0.
            first_here: first of the strips, up to this one, that this process wrote.
        """
        top, stop = self.edges[strip], self.edges[strip + 1]
        first = top // ROWS * ROWS
        # A packet may begin several strips above.
        has_head = first >= self.edges[first_here] or self.path(0, first).exists()
        if not (has_head and self.serve and self._is_of_this_form()):
            return [], top
        last = self._last_packed(0, stop)
        windows = [
            window
            for window in self._windows(0, first, last)
            if not self.path(0, window.row).exists()
        ]
        return windows, max(top, last)

    def pack(self, strips: range) -> None:
        """Write the packets whose rows all lie in some strips, and empty these.

        Args:
            strips: consecutive, all of them done; no other process packs them.

        Raises:
            ResourceError: the disk is full.
        """
        if self.serve and self._is_of_this_form():
            self._pack(strips)

    @property
    def strips(self) -> list[Path]:
        """The files of all strips, from top to bottom."""
        return [self.run.strip_path(strip) for strip in range(len(self.edges) - 1)]

    def write_output(self, meta: OutputMeta, output: Path, *, keep: bool) -> None:
        """Make the output of strips that are all done.

        Args:
            meta: description of the output.
            output: the file to write; replaced if it exists.
            keep: leave the packets in the run directory.

        Raises:
            InputError: a strip is damaged.
            ResourceError: the disk is full.
        """
        assert meta.palette is None, "overviews of classes are no averages"
        begun = self.run.path / _BEGUN
        is_current = self._is_of_this_form()
        if not begun.exists():
            self._noted()._pack(range(len(self.edges) - 1))
            packets = self._packets_of(0)
            is_masked = any(self._opened_packet(0, p).has_mask for p in packets)
            if not is_current or is_masked:
                with publishing(output) as part:
                    assemble(packets, meta, self.form, part)
                return
            there = output.absolute().parent.stat().st_dev
            if keep or self.run.path.stat().st_dev != there:
                with publishing(output) as part:
                    self._begin(meta, part)
                    self._fill(part, keep=True)
                    check_output(part, meta, self.form)
                return
            with publishing(begun) as part:
                size = self._begin(meta, part)
                note_part(self.folder / "header.copied", part, 0, size)
        # From here on packets are removed, and a later call goes on with this file.
        self._remove_overviews()
        self._fill(begun, keep=False)
        check_copied(begun)
        if is_current:
            check_output(begun, meta, self.form)
            os.replace(begun, output)
            sync(output.absolute().parent)
        else:
            with publishing(output) as part:
                assemble([begun], meta, self.form, part)

    def _noted(self) -> Packets:
        """Return these packets in the form in which those on disk are stored."""
        try:
            file = self.folder / "form.json"
            form = read_json(file, unsealed=self.run.is_unsealed)
            return replace(self, form=OutputFormat(**form))  # type: ignore[arg-type]
        except (TypeError, ValueError):  # unknown: no packet is used as it is
            return self

    def _is_of_this_form(self) -> bool:
        """Whether packets are stored as the output will be; note it for the first."""
        file = self.folder / "form.json"
        form = json.dumps(asdict(self.form), sort_keys=True)
        if not file.exists():
            self.folder.mkdir(exist_ok=True)
            write_json(file, asdict(self.form))
        with suppress(ValueError):  # damaged
            noted = read_json(file, unsealed=self.run.is_unsealed)
            return json.dumps(noted, sort_keys=True) == form
        return False

    def _pack(self, strips: range) -> None:
        top, stop = self.edges[strips.start], self.edges[strips.stop]
        for level in range(self._n_levels):
            first, last = round_up(top, ROWS), self._last_packed(level, stop)
            for window in self._windows(level, first, last):
                if not self.path(level, window.row).exists():
                    self._write(level, window)
                self._remove_packed(level, window)
            # Rows of the next resolution that are there.
            top, stop = first // 2, max(first, last) // 2

    def _last_packed(self, level: int, stop: int) -> int:
        """Return up to which row there are whole packets, of rows up to `stop`."""
        return stop if stop == self._frame(level).height else stop // ROWS * ROWS

    def _windows(self, level: int, first: int, last: int) -> list[PixelWindow]:
        """Return the windows of packets between two of their edges."""
        return [
            PixelWindow(row, 0, min(ROWS, last - row), self._frame(level).width)
            for row in range(first, last, ROWS)
        ]

    def _remove_packed(self, level: int, window: PixelWindow) -> None:
        """Remove the files with the rows of a packet that is there, if none is left."""
        if level:
            for path, *_ in self._sources(level, window):
                path.unlink(missing_ok=True)
            return
        for strip, (top, stop) in enumerate(itertools.pairwise(self.edges)):
            if top < window.row_stop and stop > window.row:
                rows = range(top // ROWS * ROWS, stop, ROWS)
                if all(self.path(0, row).exists() for row in rows):
                    self.run.empty_strip(strip)

    def _write(self, level: int, window: PixelWindow) -> None:
        """Write one packet and its rows of the next overview."""
        files = self.opened(level, window)
        with ExitStack() as stack:
            packet = self.create(level, window, stack)
            for left in range(0, window.width, COLS):
                width = min(COLS, window.width - left)
                packet.write(*read_rows(files, window._replace(col=left, width=width)))
            packet.finish()

    def _halve(self, level: int, row: int) -> None:
        """Write rows of the next overview again, from the packet of the same rows."""
        packet = self._opened_packet(level, self.path(level, row))
        half = PixelWindow(0, 0, packet.height // 2, self._frame(level + 1).width)
        path, grid = self.raw_path(level + 1, row // 2), self.grid.crop(half)
        write_half(packet, path, grid, self.n_bands, self.form)

    def _opened_packet(self, level: int, path: Path) -> StripFile:
        """Check a packet, and return where it lies."""
        width = self._frame(level).width
        return open_strip(path, 0, self.n_bands, width, self.form.dtype)

    def create(self, level: int, window: PixelWindow, stack: ExitStack) -> PacketWriter:
        """Create a packet, which appears with its rows of the next overview.

        Args:
            level: resolution of its rows.
            window: of its rows.
            stack: publishes both when it ends; after an exception it removes both.

        Returns:
            The packet, open.
        """
        return PacketWriter(
            self.path(level, window.row),
            self.raw_path(level + 1, window.row // 2),
            self.grid.crop(window._replace(row=0)),  # where it lies does not matter
            self.n_bands,
            self.form,
            stack,
        )

    def opened(self, level: int, window: PixelWindow) -> list[StripFile]:
        """Check the files that hold rows of a window, and return where these lie.

        Args:
            level: 0 = files of strips; else what packets of the one before left.
            window: of the rows.

        Raises:
            InputError: one is missing, damaged or does not fit.
        """
        width, kind = window.width, self.form.dtype
        placed, row = [], window.row
        for path, top, end in self._sources(level, window):
            if level and not path.exists():
                self._halve(level - 1, 2 * top)
            file = open_strip(path, top, self.n_bands, width, kind)
            # A strip's file holds its last rows; those above, if any, are in packets.
            file = file._replace(top=end - file.height)
            if file.top > row:
                raise unreadable(self.path(level, window.row), "it is gone")
            placed.append(file)
            row = end
        return placed

    def _begin(self, meta: OutputMeta, part: Path) -> int:
        """Write the header and the overviews of the output; return their size."""
        overviews, n_levels = self.folder / "overviews.cog", self._n_levels
        with ThreadPoolExecutor(1) as beside:
            header = beside.submit(empty_cog, meta, self.form)
            if not overviews.exists():
                smaller = replace(meta, grid=self._frame(n_levels))
                window = PixelWindow(0, 0, smaller.grid.height, smaller.grid.width)
                rest = [file.path for file in self.opened(n_levels, window)]
                with sealed(overviews) as file:
                    assemble(rest, smaller, self.form, file)
                for path in rest:
                    path.unlink()
        packets = [self._packets_of(level) for level in range(n_levels)]
        return begin_cog(header.result(), packets, overviews, part)

    def _remove_overviews(self) -> None:
        """Remove what is in the output by now: all but the full resolution."""
        (self.folder / "overviews.cog").unlink(missing_ok=True)
        for level in range(1, self._n_levels):
            for path in self._packets_of(level):
                path.unlink()

    def _fill(self, part: Path, *, keep: bool) -> None:
        """Copy the packets of the full resolution; remove those that are on disk."""
        n_cols = ceil_div(self.grid.width, BLOCK)

        def settle(copied: tuple[Path, range]) -> None:
            sync(part)
            if not keep:
                packet, place = copied
                note_part(packet.with_suffix(".copied"), part, place.start, place.stop)
                packet.unlink()

        with write_behind(settle) as behind:
            for window in self._windows(0, 0, self.grid.height):
                path = self.path(0, window.row)
                if not (path.exists() or self.is_copied(window.row)):
                    self._write(0, window)  # it was damaged
                if path.exists():
                    first = window.row // BLOCK * n_cols
                    behind.put((path, copy_blocks(path, first, part)))

    def is_copied(self, row: int) -> bool:
        """Return whether the output that was begun has the rows of a packet.

        Args:
            row: with which the packet begins, in the full resolution.
        """
        mark, begun = self.path(0, row).with_suffix(".copied"), self.run.path / _BEGUN
        return begun.exists() and (mark.exists() or self.run.is_unsealed)

    def _frame(self, level: int) -> Grid:
        """Return the size of a resolution, as a part of the output's frame."""
        height, width = self.grid.height >> level, self.grid.width >> level
        return self.grid.crop(PixelWindow(0, 0, height, width))

    def path(self, level: int, row: int) -> Path:
        """Return the file of a packet.

        Args:
            level: its resolution, 0 = the full one.
            row: of that, with which it begins.
        """
        return self.folder / f"{level}-{row:06d}.tif"

    def raw_path(self, level: int, row: int) -> Path:
        """Return the file with rows of an overview, not packed.

        Args:
            level: its resolution.
            row: of that, with which the file begins.
        """
        return self.folder / f"{level}-{row:06d}.raw"

    def _packets_of(self, level: int) -> list[Path]:
        """Return the packets of a resolution that are there, from top to bottom."""
        rows = range(0, self._frame(level).height, ROWS)
        return [path for row in rows if (path := self.path(level, row)).exists()]

    def _sources(
        self, level: int, window: PixelWindow | None = None
    ) -> list[tuple[Path, int, int]]:
        """Return the files for rows of a resolution, and from where to where these go.

        Args:
            level: 0 = strips; else what packets of the resolution before left.
            window: of the rows; None = all.
        """
        height = self._frame(level).height
        if level:
            tops: Sequence[int] = range(0, height, ROWS // 2)
            files = [self.raw_path(level, top) for top in tops]
        else:
            tops, files = self.edges[:-1], self.strips
        ends = [*tops[1:], height]
        return [
            (path, top, end)
            for path, top, end in zip(files, tops, ends, strict=True)
            if window is None or (top < window.row_stop and end > window.row)
        ]
