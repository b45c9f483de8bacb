"""Compiled loops of 3 x 3 convolutions: Winograd's for many channels, one for few.

Pictures are flat float32 arrays in channels-last order, (b, h, w, c).
`convolve_winograd` transforms, multiplies and transforms back one block of tiles at a
time, small enough to stay in the cache of the processor. Threads share the work: each
call does `part` of `parts`.
"""

from __future__ import annotations

import numpy as np

from rsupres.kernels.compile import compiled
from rsupres.kernels.intrinsics import (
    PANEL,
    PLACES,
    ROWS,
    SEEN,
    TAPS,
    TILE,
    VECTORS,
    enter,
    leave,
    multiply,
    weigh,
)
from rsupres.kernels.llvm import LANES

_CACHE = 1 << 17  # numbers of a block of tiles, before and after its product
_MIN_TILES = 24  # of a block, so that reading the filters from memory pays
_MIN_BLOCKS = 8  # a thread, below which threads share the panels of each block


@compiled
def transform_weights(taps, filters, channels, panels, part, parts):  # type: ignore[no-untyped-def]  # compiled
    """Write ``G g G^T`` in panels.

    Args:
        taps: (9 channels panels PANEL).
        filters: (36 panels channels PANEL).
        channels: number of channels in.
        panels: number of panels of channels out.
        part: number of this part of the work.
        parts: number of parts.
    """
    right, beside = channels * panels * PANEL, panels * channels * PANEL
    for job in range(part, channels * panels, parts):
        panel, c = divmod(job, channels)
        read = taps.ctypes.data + 4 * PANEL * (c * panels + panel)
        write = filters.ctypes.data + 4 * PANEL * job
        weigh(read, TAPS * right, right, write, SEEN * beside, beside, VECTORS)


@compiled
def convolve_winograd(  # type: ignore[no-untyped-def]  # compiled
    pixels, shape, filters, channels, bias, skip, slope, out, part, parts
):
    """Write ``f(x * filters + bias + skip)``; f(y) = y, and slope y where y < 0.

    Args:
        pixels: (b h w groups channels).
        shape: b, h, w, groups.
        filters: (groups 36 n c PANEL), see `transform_weights`; c whole vectors.
        channels: number of channels in of a group.
        bias: (groups o).
        skip: (b h w groups o), or empty.
        slope: 1 makes f the identity.
        out: (b h w groups o).
        part: number of this part of the work.
        parts: number of parts.
    """
    b, h, w, groups = shape
    steep = np.float32(slope)
    width = len(bias) // groups
    padded = -(-width // PANEL) * PANEL
    depth = -(-channels // LANES) * LANES
    across = -(-w // TILE)
    tiles = -(-h // TILE) * across
    size = _block_size(tiles, depth + padded)
    blocks = -(-tiles // size)
    entered = np.zeros(PLACES * size * depth, np.float32)
    products = np.empty(PLACES * size * padded, np.float32)
    patch = np.zeros(PLACES * depth, np.float32)
    added = np.zeros(TILE * TILE * padded, np.float32)
    tile = np.empty(TILE * TILE * padded, np.float32)
    shift = _padded_bias(bias, groups, padded)
    panels = padded // PANEL
    cuts = parts if blocks < _MIN_BLOCKS * parts and panels >= parts else 1
    for job in range(part, b * groups * blocks * cuts, parts):
        rest, cut = divmod(job, cuts)
        picture, rest = divmod(rest, groups * blocks)
        group, block = divmod(rest, blocks)
        start = cut * panels // cuts * PANEL
        stop = (cut + 1) * panels // cuts * PANEL
        first = block * size
        n = min(size, tiles - first)
        place = (picture, h, w, first, n)
        _enter_tiles(
            pixels, place, groups * channels, group * channels, channels, patch, entered
        )
        constant = shift[group * padded :]
        _multiply_places(
            entered, filters, products, (group, size, n, depth, padded), start, stop
        )
        row_out, at = groups * width, group * width + start
        columns = (start, stop, min(stop, width) - start)
        _leave_tiles(
            products, place, size, columns, constant, skip, steep, row_out, at,
            added, tile, out,
        )  # fmt: skip


@compiled
def _block_size(tiles, channels):  # type: ignore[no-untyped-def]  # compiled
    """Return the tiles of a block: as many as fit into the cache, full rows."""
    size = min(tiles, max(_MIN_TILES, _CACHE // (PLACES * channels)))
    return -(-size // ROWS) * ROWS


@compiled
def _padded_bias(bias, groups, padded):  # type: ignore[no-untyped-def]  # compiled
    """Return the bias of each group, continued by zeros to `padded` channels."""
    width = len(bias) // groups
    result = np.zeros(groups * padded, np.float32)
    for group in range(groups):
        start = group * padded
        result[start : start + width] = bias[group * width : (group + 1) * width]
    return result


@compiled
def _copy(read, at, steps_in, written, to, steps_out, rows, cols, n):  # type: ignore[no-untyped-def]  # compiled
    """Copy n numbers of each of rows x cols pixels.

    Args:
        read: numbers to read from `at` on.
        at: first number.
        steps_in: numbers between two rows, and between two columns.
        written: numbers to write from `to` on.
        to: first number.
        steps_out: as `steps_in`.
        rows: of pixels.
        cols: of pixels.
        n: numbers of a pixel.
    """
    for i in range(rows):
        for j in range(cols):
            o = at + i * steps_in[0] + j * steps_in[1]
            k = to + i * steps_out[0] + j * steps_out[1]
            written[k : k + n] = read[o : o + n]


@compiled
def _enter_tiles(  # type: ignore[no-untyped-def]  # compiled
    pixels, place, row_in, origin, channels, patch, entered
):
    """Write ``B^T d B`` of the tiles of a block to (36, size, depth).

    Args:
        pixels: (b h w row_in).
        place: picture, its height and width, first tile, number of tiles.
        row_in: numbers of a pixel.
        origin: first channel of the group.
        channels: number of channels of the group.
        patch: (36 depth), zeros from `channels` on; for tiles at an edge.
        entered: result.
    """
    picture, h, w, first, n = place
    across, depth = -(-w // TILE), len(patch) // PLACES
    size = len(entered) // (PLACES * depth)
    for k in range(n):
        y, x = divmod(first + k, across)
        y, x = TILE * y - 1, TILE * x - 1
        at = ((picture * h + y) * w + x) * row_in + origin
        read, down, right = pixels.ctypes.data + 4 * at, w * row_in, row_in
        outside = y < 0 or x < 0 or y > h - SEEN or x > w - SEEN
        if outside or channels < depth:
            patch[:] = 0.0
            for i in range(max(0, -y), min(SEEN, h - y)):
                for j in range(max(0, -x), min(SEEN, w - x)):
                    to, o = (SEEN * i + j) * depth, at + (i * w + j) * row_in
                    patch[to : to + channels] = pixels[o : o + channels]
            read, down, right = patch.ctypes.data, SEEN * depth, depth
        write, beside = entered.ctypes.data + 4 * k * depth, size * depth
        enter(read, down, right, write, SEEN * beside, beside, depth // LANES)


@compiled
def _multiply_places(entered, filters, products, sides, start, stop):  # type: ignore[no-untyped-def]  # compiled
    """Write the matrix product of each of 36 places.

    Args:
        entered: (36 size depth).
        filters: of all groups.
        products: (36 size padded).
        sides: group, size, number of tiles, depth, padded.
        start: first channel out, a multiple of PANEL.
        stop: end of the channels out.
    """
    group, size, n, depth, padded = sides
    for place in range(PLACES):
        row = (group * PLACES + place) * depth * padded
        for panel in range(start, stop, PANEL):
            factors = filters.ctypes.data + 4 * (row + panel * depth)
            for k in range(place * size, place * size + n, ROWS):
                a = entered.ctypes.data + 4 * k * depth
                c = products.ctypes.data + 4 * (k * padded + panel)
                multiply(a, factors, c, depth, padded)


@compiled
def _leave_tiles(  # type: ignore[no-untyped-def]  # compiled
    products, place, size, columns, bias, skip, slope, row_out, origin, added, tile, out
):
    """Write ``f(A^T m A + bias + skip)`` of the tiles of a block.

    Args:
        products: (36 size padded).
        place: picture, its height and width, first tile, number of tiles.
        size: tiles that a block has room for.
        columns: first and end channel out of the group, and how many of them exist.
        bias: of the group, padded.
        skip: (b h w row_out), or empty.
        slope: of f below zero.
        row_out: numbers of a pixel.
        origin: the first channel's number in it.
        added: (16 padded), zeros if there is no skip; for tiles at an edge.
        tile: (16 padded); for tiles at an edge.
        out: (b h w row_out).
    """
    picture, h, w, first, n = place
    start, stop, filled = columns
    across, padded = -(-w // TILE), len(tile) // TILE**2
    constant = bias.ctypes.data + 4 * start
    inside = w * row_out, row_out
    for k in range(n):
        y, x = divmod(first + k, across)
        y, x = TILE * y, TILE * x
        at = ((picture * h + y) * w + x) * row_out + origin
        down, right = min(TILE, h - y), min(TILE, w - x)
        whole = down == TILE and right == TILE and start + filled == stop
        if whole:
            write, below, beside = out.ctypes.data + 4 * at, w * row_out, row_out
        else:
            write, below, beside = tile.ctypes.data, TILE * padded, padded
        old, under, aside = added.ctypes.data, 0, 0
        if len(skip) and whole:
            old, under, aside = skip.ctypes.data + 4 * at, below, beside
        elif len(skip):
            under, aside = below, beside
            _copy(skip, at, inside, added, 0, (under, aside), down, right, filled)
        read, vectors = products.ctypes.data + 4 * (k * padded + start), stop - start
        vectors //= LANES
        steps = size * padded
        leave(
            read, steps, write, below, beside, constant, old, under, aside, slope,
            vectors,
        )  # fmt: skip
        if not whole:
            _copy(tile, 0, (below, beside), out, at, inside, down, right, filled)


@compiled
def convolve_narrow(  # type: ignore[no-untyped-def]  # compiled
    pixels, shape, taps, channels, bias, out, part, parts
):
    """Write ``x * weights + bias`` for few channels out: all taps are one product.

    Args:
        pixels: (b h w channels), w 6 or more, channels whole vectors.
        shape: b, h, w.
        taps: (channels PANEL): of each tap, row by row, what goes to each channel out.
        channels: number of channels in.
        bias: (o), at most `NARROW`.
        out: (b h w o).
        part: number of this part of the work.
        parts: number of parts.
    """
    b, h, w = shape
    width = len(bias)
    band = -(-b * h // parts)  # lines of a part
    lines = np.zeros((TAPS, (w + 2) * PANEL), np.float32)  # of b h lines, in turn
    seen = -1
    for line in range(part * band, min(b * h, (part + 1) * band)):
        y = line % h
        for above in range(max(line - 1, line - y), min(line + 2, line - y + h)):
            if above <= seen:
                continue
            seen = above
            for k in range(0, w, ROWS):
                x = min(k, w - ROWS)
                read = pixels.ctypes.data + 4 * (above * w + x) * channels
                write = lines[above % TAPS].ctypes.data + 4 * (x + 1) * PANEL
                multiply(read, taps.ctypes.data, write, channels, PANEL)
        for o in range(width):
            written = out[line * w * width :]
            for x in range(w):
                written[x * width + o] = bias[o]
            for i in range(max(0, 1 - y), min(TAPS, h - y + 1)):
                row = lines[(line + i - 1) % TAPS]
                for j in range(TAPS):
                    column = row[j * PANEL + (TAPS * i + j) * width + o :]
                    for x in range(w):
                        written[x * width + o] += column[x * PANEL]
