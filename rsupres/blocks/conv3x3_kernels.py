"""The inner loops of `conv3x3`, compiled for the processor at hand.

Pictures are flat float32 arrays in channels-last order, (b, h, w, c). Tiles are
transformed, multiplied and transformed back a block at a time, while they lie in the
cache. What numba would not turn into instructions for vectors by itself, transforms and
products, is written in these: a `_Vector` holds as many channels as the processor takes
at once. Threads share the work as `part` of `parts`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self

import llvmlite.binding
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from rsupres.blocks.compiling import compiled

TILE = 4  # output pixels of a tile's side
_SEEN = 6  # input pixels that it reads
_TAPS = 3
PLACES = _SEEN * _SEEN
LANES = 16 if llvmlite.binding.get_host_cpu_features().get("avx512f") else 8
ROWS, _VECTORS = 6, 2  # of a product whose sums stay in registers
PANEL = LANES * _VECTORS  # output channels of such a product
NARROW = PANEL // 9  # channels out of `convolve_narrow`
_CACHE = 1 << 17  # numbers of a block of tiles, before and after its product
_LEAST = 24  # tiles of a block, for which filters are read from afar
_FEW = 8  # blocks a thread, below which threads share the panels of each block

_INDEX = ir.IntType(64)
_NUMBER = ir.FloatType()
_LANES = ir.VectorType(_NUMBER, LANES)
_ADDRESS, _COUNT = types.uintp, types.intp


class _Vector:
    """A number of each of some channels, as the instructions that compute it."""

    def __init__(self, builder: Any, value: Any) -> None:
        self.builder, self.value = builder, value

    @classmethod
    def load(cls, builder: Any, start: Any) -> Self:
        place = builder.bitcast(start, _LANES.as_pointer())
        return cls(builder, builder.load(place, align=4))

    @classmethod
    def spread(cls, builder: Any, number: Any) -> Self:
        """Return one number for all channels."""
        nothing = ir.Constant(_LANES, ir.Undefined)
        first = ir.Constant(ir.VectorType(ir.IntType(32), LANES), None)
        one = builder.insert_element(nothing, number, ir.IntType(32)(0))
        return cls(builder, builder.shuffle_vector(one, nothing, first))

    def store(self, start: Any) -> None:
        place = self.builder.bitcast(start, _LANES.as_pointer())
        self.builder.store(self.value, place, align=4)

    def __add__(self, other: _Vector) -> _Vector:
        made = self.builder.fadd(self.value, other.value, flags=["contract"])
        return _Vector(self.builder, made)

    def __sub__(self, other: _Vector) -> _Vector:
        made = self.builder.fsub(self.value, other.value, flags=["contract"])
        return _Vector(self.builder, made)

    def __mul__(self, factor: float | _Vector) -> _Vector:
        if isinstance(factor, _Vector):
            value = factor.value
        else:
            value = ir.Constant(_LANES, [factor] * LANES)
        made = self.builder.fmul(self.value, value, flags=["contract"])
        return _Vector(self.builder, made)

    __rmul__ = __mul__

    def largest(self, other: _Vector) -> _Vector:
        """Return the larger one of each channel."""
        larger = self.builder.fcmp_ordered(">", self.value, other.value)
        return _Vector(
            self.builder, self.builder.select(larger, self.value, other.value)
        )


_Formula = Callable[[Sequence[_Vector]], list[_Vector]]

# One direction of the transforms: interpolation at 0, 1, -1, 2, -2 and infinity.


def _of_pixels(d: Sequence[_Vector]) -> list[_Vector]:
    """Return B^T d."""
    p, q = d[4] - 4.0 * d[2], d[3] - 4.0 * d[1]
    r, s = d[4] - d[2], 2.0 * (d[3] - d[1])
    first, last = 4.0 * d[0] - 5.0 * d[2] + d[4], 4.0 * d[1] - 5.0 * d[3] + d[5]
    return [first, p + q, p - q, r + s, r - s, last]


def _of_weights(g: Sequence[_Vector]) -> list[_Vector]:
    """Return G g."""
    p, q = (-1 / 6) * (g[0] + g[2]), (1 / 6) * g[1]
    r, s = (1 / 24) * g[0] + (1 / 6) * g[2], (1 / 12) * g[1]
    return [0.25 * g[0], p - q, p + q, r + s, r - s, g[2]]


def _of_products(m: Sequence[_Vector]) -> list[_Vector]:
    """Return A^T m."""
    p, q, r, s = m[1] + m[2], m[1] - m[2], m[3] + m[4], m[3] - m[4]
    return [m[0] + p + r, q + 2.0 * s, p + 4.0 * r, q + 8.0 * s + m[5]]


def _loop(builder: Any, times: Any, body: Callable[[Any], None]) -> None:
    """Repeat instructions, once at least."""
    before, loop = builder.block, builder.append_basic_block()
    after = builder.append_basic_block()
    builder.branch(loop)
    builder.position_at_end(loop)
    k = builder.phi(_INDEX)
    k.add_incoming(_INDEX(0), before)
    body(k)
    following = builder.add(k, _INDEX(1))
    k.add_incoming(following, loop)
    builder.cbranch(builder.icmp_signed("<", following, times), loop, after)
    builder.position_at_end(after)


def _square(builder: Any, start: Any, down: Any, right: Any, n: int) -> list[Any]:
    """Return the places of a square of n x n, row by row."""
    rows = [builder.gep(start, [builder.mul(down, _INDEX(i))]) for i in range(n)]
    steps = [builder.mul(right, _INDEX(j)) for j in range(n)]
    return [builder.gep(row, [step]) for row in rows for step in steps]


def _both_ways(
    formula: _Formula, n: int, builder: Any, start: Any, down: Any, right: Any
) -> list[_Vector]:
    """Return the transformed square of n x n from a place on, row by row."""
    places = _square(builder, start, down, right, n)
    values = [_Vector.load(builder, place) for place in places]
    columns = [formula(values[j::n]) for j in range(n)]
    return [value for row in zip(*columns, strict=True) for value in formula(row)]


def _transform(formula: _Formula, n: int, made: int) -> Any:
    """Return a function that transforms squares of n x n to such of made x made.

    It takes the addresses of what it reads and writes, each with the numbers between
    two rows and between two columns, and of how many vectors a place consists.
    """

    def generate(context: Any, builder: Any, _: Any, given: Any) -> Any:
        read, down, right, write, below, beside, vectors = given
        read, write = (builder.inttoptr(k, _NUMBER.as_pointer()) for k in (read, write))

        def body(k: Any) -> None:
            shift = [builder.mul(k, _INDEX(LANES))]
            start = builder.gep(read, shift)
            values = _both_ways(formula, n, builder, start, down, right)
            start = builder.gep(write, shift)
            places = _square(builder, start, below, beside, made)
            for place, value in zip(places, values, strict=True):
                value.store(place)

        _loop(builder, vectors, body)
        return context.get_dummy_value()

    taken = (_ADDRESS, _COUNT, _COUNT, _ADDRESS, _COUNT, _COUNT, _COUNT)

    def typed(_: Any, a: Any, b: Any, c: Any, d: Any, e: Any, f: Any, g: Any) -> Any:
        return types.void(*taken), generate

    return intrinsic(typed)


_enter = _transform(_of_pixels, _SEEN, _SEEN)
_weigh = _transform(_of_weights, _TAPS, _SEEN)


def _typed_leave(  # type: ignore[no-untyped-def]  # compiled
    _, read, right, write, below, beside, bias, skip, under, aside, slope, vectors
):
    """Write ``f(A^T m A + bias + skip)`` of a tile.

    Args:
        read: address of the products.
        right: numbers between two places of them.
        write: address of the result.
        below: numbers between two of its rows.
        beside: numbers between two of its columns.
        bias: address.
        skip: address.
        under: numbers between two of its rows.
        aside: numbers between two of its columns.
        slope: of f below zero.
        vectors: of which a place consists.
    """

    def generate(context: Any, builder: Any, _: Any, given: Any) -> Any:
        read, right, write, below, beside, bias, skip, under, aside, slope, n = given
        read, write, bias, skip = (
            builder.inttoptr(k, _NUMBER.as_pointer()) for k in (read, write, bias, skip)
        )
        down = builder.mul(right, _INDEX(_SEEN))

        def body(k: Any) -> None:
            shift = [builder.mul(k, _INDEX(LANES))]
            start = builder.gep(read, shift)
            values = _both_ways(_of_products, _SEEN, builder, start, down, right)
            start = builder.gep(write, shift)
            places = _square(builder, start, below, beside, TILE)
            added = _square(builder, builder.gep(skip, shift), under, aside, TILE)
            constant = _Vector.load(builder, builder.gep(bias, shift))
            steep = _Vector.spread(builder, slope)
            for place, old, value in zip(places, added, values, strict=True):
                y = value + constant + _Vector.load(builder, old)
                y.largest(steep * y).store(place)

        _loop(builder, n, body)
        return context.get_dummy_value()

    taken: list[Any] = [_ADDRESS, _COUNT, _ADDRESS, _COUNT, _COUNT]
    taken += [_ADDRESS, _ADDRESS, _COUNT, _COUNT, types.float32, _COUNT]
    return types.void(*taken), generate


_leave: Any = intrinsic(_typed_leave)


def _typed_multiply(_: Any, a: Any, b: Any, out: Any, depth: Any, width: Any) -> Any:
    """Write the product of 6 rows and a panel.

    Args:
        a: address of (6, depth).
        b: address of (depth, PANEL).
        out: address of the upper left number of (6, PANEL).
        depth: channels that are summed up.
        width: numbers between two rows of the result.
    """

    def generate(context: Any, builder: Any, _: Any, given: Any) -> Any:
        a, b, out = (builder.inttoptr(k, _NUMBER.as_pointer()) for k in given[:3])
        depth, width = given[3:]
        lanes = [_INDEX(k * LANES) for k in range(_VECTORS)]
        rows = [builder.gep(a, [builder.mul(depth, _INDEX(k))]) for k in range(ROWS)]
        before, zero = builder.block, ir.Constant(_LANES, None)
        grown: list[list[_Vector]] = []

        def body(k: Any) -> None:
            sums = [[builder.phi(_LANES) for _ in lanes] for _ in rows]
            line = builder.gep(b, [builder.mul(k, _INDEX(PANEL))])
            factors = [_Vector.load(builder, builder.gep(line, [j])) for j in lanes]
            for row, last in zip(rows, sums, strict=True):
                number = builder.load(builder.gep(row, [k]))
                one = _Vector.spread(builder, number)
                pairs = zip(last, factors, strict=True)
                grown.append([one * f + _Vector(builder, phi) for phi, f in pairs])
            for last, new in zip(sums, grown, strict=True):
                for phi, vector in zip(last, new, strict=True):
                    phi.add_incoming(zero, before)
                    phi.add_incoming(vector.value, builder.block)

        _loop(builder, depth, body)
        for k, new in enumerate(grown):
            start = builder.gep(out, [builder.mul(width, _INDEX(k))])
            for vector, lane in zip(new, lanes, strict=True):
                vector.store(builder.gep(start, [lane]))
        return context.get_dummy_value()

    return types.void(_ADDRESS, _ADDRESS, _ADDRESS, _COUNT, _COUNT), generate


_multiply: Any = intrinsic(_typed_multiply)


@compiled
def transform_weights(taps, filters, channels, panels, part, parts):  # type: ignore[no-untyped-def]  # compiled
    """Write ``G g G^T`` in panels.

    Args:
        taps: (9 channels panels PANEL).
        filters: (36 panels channels PANEL).
        channels: in.
        panels: of channels out.
        part: of the work.
        parts: in all.
    """
    right, beside = channels * panels * PANEL, panels * channels * PANEL
    for job in range(part, channels * panels, parts):
        panel, c = divmod(job, channels)
        read = taps.ctypes.data + 4 * PANEL * (c * panels + panel)
        write = filters.ctypes.data + 4 * PANEL * job
        _weigh(read, _TAPS * right, right, write, _SEEN * beside, beside, _VECTORS)


@compiled
def convolve(  # type: ignore[no-untyped-def]  # compiled
    pixels, shape, filters, channels, bias, skip, slope, out, part, parts
):
    """Write ``f(x * filters + bias + skip)``; f(y) = y, and slope y where y < 0.

    Args:
        pixels: (b h w groups channels).
        shape: b, h, w, groups.
        filters: (groups 36 n c PANEL), see `transform_weights`; c whole vectors.
        channels: in, of a group.
        bias: (groups o).
        skip: (b h w groups o), or empty.
        slope: 1 = f is the identity.
        out: (b h w groups o).
        part: of the work.
        parts: in all.
    """
    b, h, w, groups = shape
    steep = np.float32(slope)
    width = len(bias) // groups
    padded = -(-width // PANEL) * PANEL
    depth = -(-channels // LANES) * LANES
    vectors = depth // LANES
    across = -(-w // TILE)
    tiles = -(-h // TILE) * across
    size = min(tiles, max(_LEAST, _CACHE // (PLACES * (depth + padded))))
    size = -(-size // ROWS) * ROWS
    blocks = -(-tiles // size)
    entered = np.zeros(PLACES * size * depth, np.float32)
    products = np.empty(PLACES * size * padded, np.float32)
    patch = np.zeros(PLACES * depth, np.float32)
    added = np.zeros(TILE * TILE * padded, np.float32)
    tile = np.empty(TILE * TILE * padded, np.float32)
    shift = np.zeros(groups * padded, np.float32)
    for group in range(groups):
        start = group * padded
        shift[start : start + width] = bias[group * width : (group + 1) * width]
    row_in, row_out = groups * channels, groups * width
    panels = padded // PANEL
    cuts = parts if blocks < _FEW * parts and panels >= parts else 1
    for job in range(part, b * groups * blocks * cuts, parts):
        rest, cut = divmod(job, cuts)
        picture, rest = divmod(rest, groups * blocks)
        group, block = divmod(rest, blocks)
        start = cut * panels // cuts * PANEL
        stop = (cut + 1) * panels // cuts * PANEL
        first = block * size
        n = min(size, tiles - first)
        for k in range(n):
            y, x = divmod(first + k, across)
            y, x = TILE * y - 1, TILE * x - 1
            at = ((picture * h + y) * w + x) * row_in + group * channels
            read, down, right = pixels.ctypes.data + 4 * at, w * row_in, row_in
            outside = y < 0 or x < 0 or y > h - _SEEN or x > w - _SEEN
            if outside or channels < depth:
                patch[:] = 0.0
                for i in range(max(0, -y), min(_SEEN, h - y)):
                    for j in range(max(0, -x), min(_SEEN, w - x)):
                        to, o = (_SEEN * i + j) * depth, at + (i * w + j) * row_in
                        patch[to : to + channels] = pixels[o : o + channels]
                read, down, right = patch.ctypes.data, _SEEN * depth, depth
            write, beside = entered.ctypes.data + 4 * k * depth, size * depth
            _enter(read, down, right, write, _SEEN * beside, beside, vectors)
        for place in range(PLACES):
            row = (group * PLACES + place) * depth * padded
            for panel in range(start, stop, PANEL):
                factors = filters.ctypes.data + 4 * (row + panel * depth)
                for k in range(place * size, place * size + n, ROWS):
                    a = entered.ctypes.data + 4 * k * depth
                    c = products.ctypes.data + 4 * (k * padded + panel)
                    _multiply(a, factors, c, depth, padded)
        constant = shift.ctypes.data + 4 * (group * padded + start)
        filled = min(stop, width) - start
        for k in range(n):
            y, x = divmod(first + k, across)
            y, x = TILE * y, TILE * x
            at = ((picture * h + y) * w + x) * row_out + group * width + start
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
                for i in range(down):
                    for j in range(right):
                        o, to = at + (i * w + j) * row_out, i * under + j * aside
                        added[to : to + filled] = skip[o : o + filled]
            read = products.ctypes.data + 4 * (k * padded + start)
            _leave(
                read,
                size * padded,
                write,
                below,
                beside,
                constant,
                old,
                under,
                aside,
                steep,
                (stop - start) // LANES,
            )
            if not whole:
                for i in range(down):
                    for j in range(right):
                        o, to = at + (i * w + j) * row_out, i * below + j * beside
                        out[o : o + filled] = tile[to : to + filled]


@compiled
def convolve_narrow(  # type: ignore[no-untyped-def]  # compiled
    pixels, shape, taps, channels, bias, out, part, parts
):
    """Write ``x * weights + bias`` for few channels out: all taps are one product.

    Args:
        pixels: (b h w channels), w 6 or more, channels whole vectors.
        shape: b, h, w.
        taps: (channels PANEL): of each tap, row by row, what goes to each channel out.
        channels: in.
        bias: (o), at most `NARROW`.
        out: (b h w o).
        part: of the work.
        parts: in all.
    """
    b, h, w = shape
    width = len(bias)
    band = -(-b * h // parts)
    lines = np.zeros((_TAPS, (w + 2) * PANEL), np.float32)  # of b h lines, in turn
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
                write = lines[above % _TAPS].ctypes.data + 4 * (x + 1) * PANEL
                _multiply(read, taps.ctypes.data, write, channels, PANEL)
        for o in range(width):
            written = out[line * w * width :]
            for x in range(w):
                written[x * width + o] = bias[o]
            for i in range(max(0, 1 - y), min(_TAPS, h - y + 1)):
                row = lines[(line + i - 1) % _TAPS]
                for j in range(_TAPS):
                    column = row[j * PANEL + (_TAPS * i + j) * width + o :]
                    for x in range(w):
                        written[x * width + o] += column[x * PANEL]
