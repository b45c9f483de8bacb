"""Keep finished rows of a large COG as it will hold them, and make the COG of these.

A packet is a file with the rows of two rows of blocks, compressed with the options of
the output, and beside it the same rows of the first overview. As soon as the strips of
a packet are there, it is written and they are emptied. The output is then a header, the
overviews, and the blocks of the packets as they are, each packet being removed when it
is copied: the disk never holds the pixels twice.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import MaskFlags, Resampling
from rasterio.windows import Window

from rsupres.grid import Grid, PixelWindow, ceil_div
from rsupres.output.atomic import publishing
from rsupres.output.run_dir import Run
from rsupres.output.temporary import sync
from rsupres.output.tiff.cog import begin_cog, copy_blocks
from rsupres.output.tiff.creation import PREDICTABLE, packet_options, raw_options
from rsupres.output.tiff.geotiff import assemble, created, open_strip
from rsupres.output.tiff.profile import BLOCK, OutputFormat, OutputMeta
from rsupres.output.tiff.verify import check_output
from rsupres.raster.virtual import as_dataset

ROWS = 2 * BLOCK  # SR rows of a packet; the overview's are whole blocks, too
_COLS = 4 * BLOCK  # SR columns that are packed together, which bounds the memory
PACKED_BYTES = 64 * 2**20  # below, one copy by GDAL costs less than packets
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
        begun = self.run.path / "output.part"
        is_current = self._is_of_this_form()
        if not begun.exists():
            self._pack(range(len(self.edges) - 1))
            packets = [path for path, _ in self._packed_files()]
            if not is_current or any(map(_has_mask, packets)):
                with publishing(output) as part:
                    assemble(packets, meta, self.form, part)
                return
            if keep or not _on_one_disk(self.run.path, output.absolute().parent):
                with publishing(output) as part:
                    self._begin(packets, meta, part)
                    self._fill(part, keep=True)
                    check_output(part, meta, self.form)
                return
            with publishing(begun) as part:
                self._begin(packets, meta, part)
        # From here on packets are removed, and a later call goes on with this file.
        self._fill(begun, keep=False)
        if is_current:
            check_output(begun, meta, self.form)
            os.replace(begun, output)
            sync(output.absolute().parent)
        else:
            with publishing(output) as part:
                assemble([begun], meta, self.form, part)

    def _is_of_this_form(self) -> bool:
        """Whether packets are stored as the output is now to be; note it for the first.

        The same run may be finished with other creation options.
        """
        file = self.folder / "form.json"
        form = json.dumps(asdict(self.form), sort_keys=True)
        if not file.exists():
            self.folder.mkdir(exist_ok=True)
            with publishing(file) as part:
                part.write_text(form)
        return file.read_text() == form

    def _pack(self, strips: range) -> None:
        packed = {top // ROWS for _, top in self._packed_files()}
        top, stop = self.edges[strips.start], self.edges[strips.stop]
        for row in range(0, self.grid.height, ROWS):
            height = min(ROWS, self.grid.height - row)
            window = PixelWindow(row, 0, height, self.grid.width)
            if row // ROWS not in packed and top <= row and window.row_stop <= stop:
                self._write(window)
                packed.add(row // ROWS)
        for strip in strips:
            first, last = self.edges[strip] // ROWS, (self.edges[strip + 1] - 1) // ROWS
            if packed.issuperset(range(first, last + 1)):
                self.run.empty_strip(strip)

    def _write(self, window: PixelWindow) -> None:
        """Write one packet and, before, its rows of the overview."""
        path = self._path(window.row)
        strips = self._strips_in(window)
        kind = self.form.dtype
        is_masked = any(
            open_strip(*strip, self.n_bands, self.grid.width, kind).has_mask
            for strip in strips
        )
        raw = raw_options(self.grid.width // 2)
        with (
            publishing(path) as part,
            publishing(_half(path)) as half,
            self._opened(part, window.height, packet_options(self.form)) as whole,
            self._opened(half, window.height // 2, raw, 2) as smaller,
        ):
            for left in range(0, window.width, _COLS):
                width = min(_COLS, window.width - left)
                piece = window._replace(col=left, width=width)
                pixels = np.empty((self.n_bands, window.height, width), self.form.dtype)
                _read_into(pixels, piece, strips)
                place = Window(left, 0, width, window.height)
                whole.write(pixels, window=place)
                if is_masked:
                    valid = np.empty((1, window.height, width), np.uint8)
                    _read_into(valid, piece, strips, masks=True)
                    whole.write_mask(valid[0], window=place)
                place = Window(left // 2, 0, width // 2, window.height // 2)
                smaller.write(self._halved(pixels), window=place)

    @contextmanager
    def _opened(
        self, path: Path, height: int, options: Mapping[str, object], factor: int = 1
    ) -> Iterator[rasterio.io.DatasetWriter]:
        """Create a file for rows of the output, or of its first overview."""
        window = PixelWindow(0, 0, height, self.grid.width // factor)
        grid, form = self.grid.crop(window), self.form
        with created(
            path, grid, self.n_bands, form.dtype, form.nodata, options
        ) as dataset:
            yield dataset

    def _halved(self, pixels: NDArray[np.generic]) -> NDArray[np.generic]:
        """Return the first overview of an even number of rows and columns."""
        n_bands, height, width = pixels.shape
        with as_dataset(pixels, self.grid.transform, None, self.form.nodata) as dataset:
            dataset.build_overviews([2], Resampling.average)
            half: NDArray[np.generic] = dataset.read(
                out_shape=(n_bands, height // 2, width // 2)
            )
        return half

    def _begin(self, packets: Sequence[Path], meta: OutputMeta, part: Path) -> None:
        """Write the header and the overviews of the output."""
        overviews = self.folder / "overviews.cog"
        if not overviews.exists():
            window = PixelWindow(0, 0, self.grid.height // 2, self.grid.width // 2)
            smaller = replace(meta, grid=self.grid.crop(window))
            with publishing(overviews) as file:
                assemble([_half(path) for path in packets], smaller, self.form, file)
        for path in packets:
            _half(path).unlink(missing_ok=True)
        begin_cog(packets, overviews, meta, self.form, part)

    def _fill(self, part: Path, *, keep: bool) -> None:
        n_cols = ceil_div(self.grid.width, BLOCK)
        for path, top in self._packed_files():
            copy_blocks(path, top // BLOCK * n_cols, part)
            if not keep:
                path.unlink()

    def _path(self, row: int) -> Path:
        return self.folder / f"{row // ROWS:04d}.tif"

    def _packed_files(self) -> list[tuple[Path, int]]:
        """Return the packets that are there, each with its first row."""
        rows = range(0, self.grid.height, ROWS)
        return [(self._path(row), row) for row in rows if self._path(row).exists()]

    def _strips_in(self, window: PixelWindow) -> list[tuple[Path, int]]:
        """Return the strips with rows of a window, each with its first row."""
        spans = enumerate(itertools.pairwise(self.edges))
        return [
            (self.run.strip_path(strip), top)
            for strip, (top, stop) in spans
            if top < window.row_stop and stop > window.row
        ]


def _half(packet: Path) -> Path:
    """Return the file of the rows of the first overview beside a packet."""
    return packet.with_suffix(".half")


def _has_mask(path: Path) -> bool:
    with rasterio.open(path) as dataset:
        return MaskFlags.per_dataset in dataset.mask_flag_enums[0]


def _on_one_disk(one: Path, other: Path) -> bool:
    return one.stat().st_dev == other.stat().st_dev


def _read_into(
    out: NDArray[np.generic],
    window: PixelWindow,
    files: Sequence[tuple[Path, int]],
    *,
    masks: bool = False,
) -> None:
    """Read a window of files that lie one below the other, each with its first row."""
    for path, top in files:
        with rasterio.open(path) as dataset:
            first = max(window.row, top)
            last = min(window.row_stop, top + dataset.height)
            place = Window(window.col, first - top, window.width, last - first)
            rows = slice(first - window.row, last - window.row)
            if masks:
                out[0, rows] = dataset.dataset_mask(window=place)
            else:
                dataset.read(window=place, out=out[:, rows])
