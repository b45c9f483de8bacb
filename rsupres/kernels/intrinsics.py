"""Winograd's transforms and the matrix product of `convolutions`, as instructions.

Each intrinsic becomes vector instructions inside of the function that calls it.
Addresses are plain integers; distances between pixels are counts of float32 numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from rsupres.kernels.llvm import INDEX, LANES, NUMBER, VECTOR, Vector, loop, square

TILE = 4  # output pixels of a tile's side
SEEN = 6  # input pixels that it reads
TAPS = 3  # side of the weights
PLACES = SEEN * SEEN
ROWS, VECTORS = 6, 2  # size of a product whose sums stay in registers
PANEL = LANES * VECTORS  # output channels of such a product
NARROW = PANEL // 9  # most channels out of `convolutions.convolve_narrow`

_ADDRESS, _COUNT = types.uintp, types.intp

_Formula = Callable[[Sequence[Vector]], list[Vector]]

# One direction of the transforms: interpolation at 0, 1, -1, 2, -2 and infinity.


def _of_pixels(d: Sequence[Vector]) -> list[Vector]:
    """Return B^T d."""
    p, q = d[4] - 4.0 * d[2], d[3] - 4.0 * d[1]
    r, s = d[4] - d[2], 2.0 * (d[3] - d[1])
    first, last = 4.0 * d[0] - 5.0 * d[2] + d[4], 4.0 * d[1] - 5.0 * d[3] + d[5]
    return [first, p + q, p - q, r + s, r - s, last]


def _of_weights(g: Sequence[Vector]) -> list[Vector]:
    """Return G g."""
    p, q = (-1 / 6) * (g[0] + g[2]), (1 / 6) * g[1]
    r, s = (1 / 24) * g[0] + (1 / 6) * g[2], (1 / 12) * g[1]
    return [0.25 * g[0], p - q, p + q, r + s, r - s, g[2]]


def _of_products(m: Sequence[Vector]) -> list[Vector]:
    """Return A^T m."""
    p, q, r, s = m[1] + m[2], m[1] - m[2], m[3] + m[4], m[3] - m[4]
    return [m[0] + p + r, q + 2.0 * s, p + 4.0 * r, q + 8.0 * s + m[5]]


def _both_ways(
    formula: _Formula, n: int, builder: Any, start: Any, down: Any, right: Any
) -> list[Vector]:
    """Return the transformed square of n x n from a place on, row by row."""
    places = square(builder, start, down, right, n)
    values = [Vector.load(builder, place) for place in places]
    columns = [formula(values[j::n]) for j in range(n)]
    return [value for row in zip(*columns, strict=True) for value in formula(row)]


def _transform(formula: _Formula, n: int, made: int) -> Any:
    """Return a function that transforms squares of n x n to such of made x made.

    It takes the addresses of what it reads and writes, each with the numbers between
    two rows and between two columns, and of how many vectors a place consists.
    """

    def generate(context: Any, builder: Any, _: Any, given: Any) -> Any:
        read, down, right, write, below, beside, vectors = given
        read, write = (builder.inttoptr(k, NUMBER.as_pointer()) for k in (read, write))

        def body(k: Any) -> None:
            shift = [builder.mul(k, INDEX(LANES))]
            start = builder.gep(read, shift)
            values = _both_ways(formula, n, builder, start, down, right)
            start = builder.gep(write, shift)
            places = square(builder, start, below, beside, made)
            for place, value in zip(places, values, strict=True):
                value.store(place)

        loop(builder, vectors, body)
        return context.get_dummy_value()

    taken = (_ADDRESS, _COUNT, _COUNT, _ADDRESS, _COUNT, _COUNT, _COUNT)

    def typed(_: Any, a: Any, b: Any, c: Any, d: Any, e: Any, f: Any, g: Any) -> Any:
        return types.void(*taken), generate

    return intrinsic(typed)


enter = _transform(_of_pixels, SEEN, SEEN)
weigh = _transform(_of_weights, TAPS, SEEN)


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
            builder.inttoptr(k, NUMBER.as_pointer()) for k in (read, write, bias, skip)
        )
        down = builder.mul(right, INDEX(SEEN))

        def body(k: Any) -> None:
            shift = [builder.mul(k, INDEX(LANES))]
            start = builder.gep(read, shift)
            values = _both_ways(_of_products, SEEN, builder, start, down, right)
            start = builder.gep(write, shift)
            places = square(builder, start, below, beside, TILE)
            added = square(builder, builder.gep(skip, shift), under, aside, TILE)
            constant = Vector.load(builder, builder.gep(bias, shift))
            steep = Vector.spread(builder, slope)
            for place, old, value in zip(places, added, values, strict=True):
                y = value + constant + Vector.load(builder, old)
                y.maximum(steep * y).store(place)

        loop(builder, n, body)
        return context.get_dummy_value()

    taken: list[Any] = [_ADDRESS, _COUNT, _ADDRESS, _COUNT, _COUNT]
    taken += [_ADDRESS, _ADDRESS, _COUNT, _COUNT, types.float32, _COUNT]
    return types.void(*taken), generate


leave: Any = intrinsic(_typed_leave)


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
        a, b, out = (builder.inttoptr(k, NUMBER.as_pointer()) for k in given[:3])
        depth, width = given[3:]
        lanes = [INDEX(k * LANES) for k in range(VECTORS)]
        rows = [builder.gep(a, [builder.mul(depth, INDEX(k))]) for k in range(ROWS)]
        before, zero = builder.block, ir.Constant(VECTOR, None)
        grown: list[list[Vector]] = []

        def body(k: Any) -> None:
            sums = [[builder.phi(VECTOR) for _ in lanes] for _ in rows]
            line = builder.gep(b, [builder.mul(k, INDEX(PANEL))])
            factors = [Vector.load(builder, builder.gep(line, [j])) for j in lanes]
            for row, last in zip(rows, sums, strict=True):
                number = builder.load(builder.gep(row, [k]))
                one = Vector.spread(builder, number)
                pairs = zip(last, factors, strict=True)
                grown.append([one * f + Vector(builder, phi) for phi, f in pairs])
            for last, new in zip(sums, grown, strict=True):
                for phi, vector in zip(last, new, strict=True):
                    phi.add_incoming(zero, before)
                    phi.add_incoming(vector.value, builder.block)

        loop(builder, depth, body)
        for k, new in enumerate(grown):
            start = builder.gep(out, [builder.mul(width, INDEX(k))])
            for vector, lane in zip(new, lanes, strict=True):
                vector.store(builder.gep(start, [lane]))
        return context.get_dummy_value()

    return types.void(_ADDRESS, _ADDRESS, _ADDRESS, _COUNT, _COUNT), generate


multiply: Any = intrinsic(_typed_multiply)
