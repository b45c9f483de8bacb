"""Write a Cloud Optimized GeoTIFF from blocks that are compressed already.

GDAL writes the header, of a file without pixels, and the overviews. The blocks are
copied behind them as they are, in the order and with the frames that GDAL gives them,
so the file has the bytes that GDAL's COG driver writes for the same pixels.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

import rasterio
import rasterio.shutil
from rasterio.errors import RasterioError
from rasterio.io import MemoryFile

from rsupres.errors import InputError
from rsupres.grid import PixelWindow
from rsupres.output.tiff.creation import cog_options
from rsupres.output.tiff.geotiff import describe_bands
from rsupres.output.tiff.profile import BLOCK, OutputFormat, OutputMeta
from rsupres.raster.open import stored_blocks
from rsupres.raster.virtual import virtual_raster

_Block = tuple[int, int]  # offset and length in a file, bytes
_FRAME = 4  # bytes before a block, its length, and after it, its last bytes again
_MAGIC = (b"II*\0", b"II+\0")  # of a TIFF, and of a BigTIFF
_OFFSETS, _LENGTHS = 324, 325  # TIFF tags
_FORMATS = {3: "H", 4: "I", 16: "Q"}  # of TIFF types, for `struct`


class _Array(NamedTuple):
    """Place of an array of numbers in a TIFF.

    Attributes:
        place: of the first, in bytes.
        kind: of each, for `struct`.
        length: how many there are.
    """

    place: int
    kind: str
    length: int


class _Directory(NamedTuple):
    """The arrays of one resolution: where its blocks lie, and their lengths."""

    offsets: _Array
    lengths: _Array


def empty_cog(meta: OutputMeta, form: OutputFormat) -> bytes:
    """Return a COG without pixels, as GDAL writes it: only its header.

    GDAL looks at every pixel for it, 1.4 gigabytes a second on one core.

    Args:
        meta: description of the output.
        form: how it is stored.
    """
    height, width = meta.grid.height, meta.grid.width
    with ExitStack() as stack:
        stack.enter_context(rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True))
        smaller: list[str] = []
        while max(height, width) > BLOCK:
            height, width = height // 2, width // 2
            window = PixelWindow(0, 0, height, width)
            empty = _without_pixels(replace(meta, grid=meta.grid.crop(window)), form)
            smaller.append(_in_memory(stack, empty))
        whole = _in_memory(stack, _without_pixels(meta, form, smaller))
        target = stack.enter_context(MemoryFile(ext=".tif"))
        options = cog_options(meta, form) | {"SPARSE_OK": "TRUE"}
        rasterio.shutil.copy(whole, target.name, driver="COG", **options)
        return bytes(target.read())


def begin_cog(
    header: bytes,
    packets: Sequence[Sequence[Path]],
    overviews: Path,
    part: Path,
) -> int:
    """Write a COG up to the blocks of the full resolution, which `copy_blocks` adds.

    Args:
        header: of `empty_cog`.
        packets: for each of the largest resolutions, files with its blocks, top to
            bottom.
        overviews: a COG whose levels are the other resolutions.
        part: file to write.

    Returns:
        Bytes before those blocks.
    """
    filled = bytearray(header)
    directories = [*_directories(filled)]
    with part.open("wb") as target:
        target.write(filled)
        for level in range(len(directories) - 1, 0, -1):
            place, lengths = target.tell(), []
            for path, blocks in _stored(packets, overviews, level):
                lengths += [length for _, length in blocks]
                _copy(path, blocks, target)
            _set_blocks(filled, directories[level], place, lengths)
        place = target.tell()
        lengths = [length for path in packets[0] for _, length in _blocks_of(path)]
        _set_blocks(filled, directories[0], place, lengths)
        target.truncate(place + sum(lengths) + 2 * _FRAME * len(lengths))
        target.seek(0)
        target.write(filled)
    return place


def copy_blocks(packet: Path, first: int, part: Path) -> range:
    """Copy the blocks of a packet into a COG of `begin_cog`.

    Args:
        packet: a file with rows of blocks.
        first: number of its first block in the output.
        part: the COG; its other blocks stay.

    Returns:
        The bytes of the COG that it wrote.

    Raises:
        InputError: one of both is damaged.
    """
    with part.open("r+b") as target:
        offsets = _full_resolution(target).offsets
        size = struct.calcsize(offsets.kind)
        target.seek(offsets.place + first * size)
        (place,) = struct.unpack(f"<{offsets.kind}", target.read(size))
        target.seek(place - _FRAME)
        _copy(packet, _blocks_of(packet), target)
        return range(place - _FRAME, target.tell())


def check_copied(part: Path) -> None:
    """Check that the blocks of the full resolution are all in a COG of `begin_cog`.

    Args:
        part: the COG.

    Raises:
        InputError: the frame of a block is not there.
    """
    with part.open("rb") as file:
        arrays = []
        for array in _full_resolution(file):
            file.seek(array.place)
            kind = f"<{array.length}{array.kind}"
            arrays.append(struct.unpack(kind, file.read(struct.calcsize(kind))))
        for offset, length in zip(*arrays, strict=True):
            file.seek(offset - _FRAME)
            if file.read(_FRAME) != struct.pack("<I", length):
                raise damaged(part)


def damaged(path: Path) -> InputError:
    """Return the error of a file in a run directory that was whole a moment ago.

    Args:
        path: of the file.
    """
    return InputError(
        f"{path}: this part of the output is damaged or gone; delete it, if it is "
        "there, and run the same command again."
    )


def _stored(
    packets: Sequence[Sequence[Path]], overviews: Path, level: int
) -> Iterator[tuple[Path, list[_Block]]]:
    """Yield the files with the blocks of an overview, and where these lie."""
    if level < len(packets):
        for path in packets[level]:
            yield path, _blocks_of(path)
    else:
        yield overviews, _blocks_of(overviews, level - len(packets))


def _blocks_of(path: Path, level: int = 0) -> list[_Block]:
    """Return where the blocks of a resolution of a file lie."""
    options = {"overview_level": level - 1} if level else {}
    try:
        with rasterio.open(path, **options) as dataset:
            blocks = [*stored_blocks(dataset)]
    except RasterioError as error:
        raise damaged(path) from error
    size = path.stat().st_size
    if any(block is None or sum(block) > size for block in blocks):
        raise damaged(path)
    return cast(list[_Block], blocks)


def _copy(path: Path, blocks: Sequence[_Block], target: BinaryIO) -> None:
    """Write blocks of a file with their frames."""
    with path.open("rb") as source:
        for offset, length in blocks:
            source.seek(offset)
            block = source.read(length)
            target.write(struct.pack("<I", length))
            target.write(block)
            target.write(block[-_FRAME:])


def _without_pixels(
    meta: OutputMeta, form: OutputFormat, overviews: Sequence[str] = ()
) -> str:
    bands = [
        replace(band, overviews=overviews)
        for band in describe_bands(meta, form, lambda number: [])
    ]
    return virtual_raster(meta.grid, meta.tags, bands)


def _in_memory(stack: ExitStack, xml: str) -> str:
    name: str = stack.enter_context(MemoryFile(xml.encode(), ext=".vrt")).name
    return name


def _set_blocks(
    header: bytearray, directory: _Directory, place: int, lengths: Sequence[int]
) -> None:
    """Enter blocks that follow one another from byte `place` on."""
    offsets = []
    for length in lengths:
        offsets.append(place + _FRAME)
        place += length + 2 * _FRAME
    for array, values in zip(directory, (offsets, lengths), strict=True):
        assert array.length == len(values)
        kind = f"<{array.length}{array.kind}"
        struct.pack_into(kind, header, array.place, *values)


def _full_resolution(file: BinaryIO) -> _Directory:
    """Return the arrays of a COG's first directory."""
    size = 1 << 16
    while True:
        file.seek(0)
        start = file.read(size)
        try:
            if start[:4] in _MAGIC:
                return next(_directories(start))
        except (struct.error, KeyError, StopIteration):  # the directory is longer
            pass
        if len(start) < size:
            raise damaged(Path(file.name))
        size *= 2


def _directories(header: bytes | bytearray) -> Iterator[_Directory]:
    """Yield the arrays of each directory of a little-endian TIFF or BigTIFF."""
    is_big = header[2] == 43
    pointer, size, counter = ("<Q", 20, "<Q") if is_big else ("<I", 12, "<H")
    (place,) = struct.unpack_from(pointer, header, 8 if is_big else 4)
    while place:
        (n_tags,) = struct.unpack_from(counter, header, place)
        place += struct.calcsize(counter)
        found: dict[int, _Array] = {}
        for entry in range(place, place + n_tags * size, size):
            tag, kind, count = struct.unpack_from("<HH" + pointer[1], header, entry)
            if tag in (_OFFSETS, _LENGTHS):
                value = entry + 4 + struct.calcsize(pointer)
                if count * struct.calcsize(_FORMATS[kind]) > struct.calcsize(pointer):
                    (value,) = struct.unpack_from(pointer, header, value)
                found[tag] = _Array(value, _FORMATS[kind], count)
        yield _Directory(found[_OFFSETS], found[_LENGTHS])
        (place,) = struct.unpack_from(pointer, header, place + n_tags * size)
