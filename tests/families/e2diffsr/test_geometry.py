"""Latent tiles are fitted to the scene, and as large as the memory allows."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest

from rsupres.families.e2diffsr.geometry import Geometry, latent_tiles

GB = 2**30


def excess(
    side: int, scale: Fraction, precision: str, memory: int, *, is_local: bool
) -> float:
    geometry = Geometry.of(side, side, scale)
    tiles = latent_tiles(geometry, precision, memory, 4, is_local=is_local)
    return len(tiles) * math.prod(tiles.tile_shape) / math.prod(geometry.cells)


@pytest.mark.parametrize("scale", [Fraction(2), Fraction(4)])
@pytest.mark.parametrize(
    ("precision", "memory", "is_local"),
    [("fp32", 8, True), ("bf16", 8, True), ("bf16", 24, False)],
)
def test_at_most_15_percent_of_a_latent_are_computed_twice(
    scale: Fraction, precision: str, memory: int, is_local: bool
) -> None:
    found = [
        excess(side, scale, precision, memory * GB, is_local=is_local)
        for side in range(200, 11_001, 9)
    ]
    assert max(found) <= 1.15


@pytest.mark.parametrize(
    ("precision", "memory", "side"),
    [("fp32", 2, 160), ("fp32", 24, 481), ("bf16", 12, 639), ("bf16", 512, 800)],
)
def test_a_tile_takes_at_most_a_third_of_the_memory(
    precision: str, memory: int, side: int
) -> None:
    geometry = Geometry.of(20_000, 20_000, Fraction(4))
    tiles = latent_tiles(geometry, precision, memory * GB, 4, is_local=True)
    assert 0.9 * side <= tiles.tile_shape[0] <= side


def test_a_small_scene_has_one_tile() -> None:
    tiles = latent_tiles(
        Geometry.of(200, 500, Fraction(4)), "bf16", 24 * GB, 4, is_local=False
    )
    assert len(tiles) == 1
    assert tiles.tile_shape == (100, 252)  # columns of a multiple of four
