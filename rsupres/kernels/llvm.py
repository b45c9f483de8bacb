"""Vector instructions for numba intrinsics, written with llvmlite.

A `Vector` holds the same number of as many channels as the processor handles in one
instruction. numba does not reliably find these instructions by itself in the transforms
and products of `intrinsics`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import llvmlite.binding
from llvmlite import ir

LANES = 16 if llvmlite.binding.get_host_cpu_features().get("avx512f") else 8
INDEX = ir.IntType(64)
NUMBER = ir.FloatType()
VECTOR = ir.VectorType(NUMBER, LANES)


class Vector:
    """`LANES` float32 numbers of neighbouring channels, as LLVM instructions."""

    def __init__(self, builder: Any, value: Any) -> None:
        self.builder, self.value = builder, value

    @classmethod
    def load(cls, builder: Any, start: Any) -> Self:
        """Read a vector from an address."""
        place = builder.bitcast(start, VECTOR.as_pointer())
        return cls(builder, builder.load(place, align=4))

    @classmethod
    def spread(cls, builder: Any, number: Any) -> Self:
        """Return a vector that repeats one number."""
        nothing = ir.Constant(VECTOR, ir.Undefined)
        first = ir.Constant(ir.VectorType(ir.IntType(32), LANES), None)
        one = builder.insert_element(nothing, number, ir.IntType(32)(0))
        return cls(builder, builder.shuffle_vector(one, nothing, first))

    def store(self, start: Any) -> None:
        """Write the vector to an address."""
        place = self.builder.bitcast(start, VECTOR.as_pointer())
        self.builder.store(self.value, place, align=4)

    def __add__(self, other: Vector) -> Vector:
        made = self.builder.fadd(self.value, other.value, flags=["contract"])
        return Vector(self.builder, made)

    def __sub__(self, other: Vector) -> Vector:
        made = self.builder.fsub(self.value, other.value, flags=["contract"])
        return Vector(self.builder, made)

    def __mul__(self, factor: float | Vector) -> Vector:
        if isinstance(factor, Vector):
            value = factor.value
        else:
            value = ir.Constant(VECTOR, [factor] * LANES)
        made = self.builder.fmul(self.value, value, flags=["contract"])
        return Vector(self.builder, made)

    __rmul__ = __mul__

    def maximum(self, other: Vector) -> Vector:
        """Return the larger number of each lane."""
        larger = self.builder.fcmp_ordered(">", self.value, other.value)
        return Vector(
            self.builder, self.builder.select(larger, self.value, other.value)
        )


def loop(builder: Any, times: Any, body: Callable[[Any], None]) -> None:
    """Repeat the instructions of `body`, at least once.

    Args:
        builder: of the surrounding function.
        times: how often, an LLVM integer.
        body: adds the instructions of one pass, given its number.
    """
    before, repeated = builder.block, builder.append_basic_block()
    after = builder.append_basic_block()
    builder.branch(repeated)
    builder.position_at_end(repeated)
    k = builder.phi(INDEX)
    k.add_incoming(INDEX(0), before)
    body(k)
    following = builder.add(k, INDEX(1))
    k.add_incoming(following, repeated)
    builder.cbranch(builder.icmp_signed("<", following, times), repeated, after)
    builder.position_at_end(after)


def square(builder: Any, start: Any, down: Any, right: Any, n: int) -> list[Any]:
    """Return the addresses of a square of n x n pixels, row by row.

    Args:
        builder: of the surrounding function.
        start: address of the upper left pixel.
        down: numbers between two rows.
        right: numbers between two columns.
        n: side of the square.
    """
    rows = [builder.gep(start, [builder.mul(down, INDEX(i))]) for i in range(n)]
    steps = [builder.mul(right, INDEX(j)) for j in range(n)]
    return [builder.gep(row, [step]) for row in rows for step in steps]
