"""Estimate how many bytes an output takes, by compressing a sample of its pixels."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import rasterio
import rasterio.shutil
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.io import MemoryFile

from rsupres.grid import round_up
from rsupres.output.tiff.creation import output_options
from rsupres.output.tiff.profile import BLOCK, OutputFormat

_KEPT = 128, 128  # blocks of overviews while GDAL makes a COG
_TAGS_BYTES = 6000  # header and tags of an output


@dataclass(frozen=True)
class Sizes:
    """Bytes of an output.

    Attributes:
        raw: of its pixels, uncompressed, without overviews.
        overviews: of its overviews, uncompressed, as GDAL keeps them meanwhile.
        file: of the file.
    """

    raw: int
    overviews: int
    file: int


def estimate_sizes(
    sample: Sequence[NDArray[np.generic]],
    shape: tuple[int, int, int],
    form: OutputFormat,
    growth: float = 1.0,
) -> Sizes:
    """Return the sizes of an output, from a sample of pixels like its own.

    Args:
        sample: blocks (c, h, w) of the output's type, in the bands' order; may be none.
        shape: bands, rows and columns of the output.
        form: how it is stored.
        growth: by how much its pixels compress less than those of the sample.
    """
    n_bands, height, width = shape
    raw = n_bands * height * width * np.dtype(form.dtype).itemsize
    levels = _overviews(height, width) if form.driver == "COG" else []
    shares = [0.25 ** (number + 1) for number in range(len(levels))]
    full, halves = _ratio(sample, form), _ratio(list(map(_halved, sample)), form)
    file = raw * min(1.0, growth * full) + raw * sum(shares) * min(1.0, growth * halves)
    pixel = n_bands * np.dtype(form.dtype).itemsize
    kept = sum(pixel * padded(*level, _KEPT) for level in levels)
    return Sizes(raw, kept, int(file) + _TAGS_BYTES)


def padded(height: int, width: int, block: tuple[int, int]) -> int:
    """Return the pixels of whole blocks, which an uncompressed file holds.

    Args:
        height: of the file.
        width: of the file.
        block: height and width of its blocks.
    """
    return round_up(height, block[0]) * round_up(width, block[1])


def _overviews(height: int, width: int) -> list[tuple[int, int]]:
    """Return the height and width of each overview of a COG."""
    found: list[tuple[int, int]] = []
    while max(height, width) > BLOCK:
        height, width = -(-height // 2), -(-width // 2)
        found.append((height, width))
    return found


def _halved(block: NDArray[np.generic]) -> NDArray[np.generic]:
    """Return a block at half its resolution, by average."""
    rows, cols = (side // 2 * 2 for side in block.shape[1:])
    even = block[:, :rows, :cols].astype(np.float32)
    quarters = [even[:, row::2, col::2] for row in (0, 1) for col in (0, 1)]
    mean = np.mean(quarters, axis=0)
    return np.asarray(mean.round() if block.dtype.kind in "iu" else mean, block.dtype)


def _ratio(blocks: Sequence[NDArray[np.generic]], form: OutputFormat) -> float:
    """Return compressed bytes by bytes of blocks; 1 where that cannot be found."""
    n_raw = sum(block.nbytes for block in blocks)
    try:
        n_written = sum(_written(block, form) for block in blocks)
    except RasterioError:
        return 1.0
    return n_written / n_raw if n_raw else 1.0


def _written(block: NDArray[np.generic], form: OutputFormat) -> int:
    """Return the bytes of the stored pixels of one block."""
    size = {"count": block.shape[0], "height": block.shape[1], "width": block.shape[2]}
    kind = {"driver": "GTiff", "dtype": block.dtype.name, "nodata": form.nodata}
    place = rasterio.Affine(1, 0, 0, 0, -1, 16)
    options = output_options(replace(form, dtype=block.dtype.name))
    side = str(max(128, -(-max(block.shape[1:]) // 16) * 16))  # 128 is COG's least
    for key in options.keys() & {"BLOCKSIZE", "BLOCKXSIZE", "BLOCKYSIZE"}:
        options[key] = side
    with MemoryFile() as source, MemoryFile(ext=".tif") as target:
        with rasterio.open(source.name, "w", transform=place, **kind, **size) as raw:
            raw.write(block)
        with rasterio.Env():
            rasterio.shutil.copy(
                source.name, target.name, driver=form.driver, **options
            )
        return len(target.read())


def packing_bytes(strips: Sequence[int], sizes: Sizes) -> float:
    """Return the most that packets, and rows that are in none yet, take together.

    Args:
        strips: rows of each strip of the output.
        sizes: of the output.
    """
    height = sum(strips)
    raw, packed = sizes.raw / height, 0.75 * sizes.file / height  # bytes a row
    peak = 0.0
    for top, stop in itertools.pairwise(itertools.accumulate(strips, initial=0)):
        last = stop if stop == height else stop // BLOCK * BLOCK
        first = top // BLOCK * BLOCK
        halved = first // (2 * BLOCK) * 2 * BLOCK  # rows whose overview is packed, too
        waiting = top - first + stop - max(last, top) + (last - halved) / 4
        held = waiting * raw + (last + halved / 4) * packed
        peak = max(peak, held)
    return peak + 0.06 * sizes.file
