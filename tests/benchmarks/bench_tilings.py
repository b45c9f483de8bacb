"""What tilings compute beyond what is needed, by arithmetic alone.

``python tests/benchmarks/bench_tilings.py [--step N]`` prints, for squares of 200 to
11,000 pixels (every N-th side, 7), the worst share of pixels computed over pixels
needed: of default tiles by the memory of the machine, and of the latent of E2DiffSR.
Then, for two and three shards, ideal tiles of the slowest one over those that it
computes. Nothing is asserted; the tiling tests do.
"""

from __future__ import annotations

import argparse
import itertools
import math
from collections.abc import Callable
from fractions import Fraction
from unittest import mock

from affine import Affine

from rsupres.families.base import ModelSpec, ScaleRange
from rsupres.families.e2diffsr.geometry import Geometry, latent_tiles
from rsupres.grid import Grid
from rsupres.tile_grid import TileGrid, split_strips
from rsupres.upscaling.preparation import tiling
from rsupres.upscaling.shards.spans import plan_spans

_GB = 2**30
_SCALE = Fraction(4)
# Name, tile side, halo and multiple of the models that ship.
_MODELS = (
    ("optical", 256, 16, 1),
    ("e2diffsr", 256, 12, 8),
    ("slimdiffsr", 256, 12, 16),
    ("bicubic", 144, 2, 1),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--step", type=int, default=7)
    sides = range(200, 11_001, parser.parse_args().step)
    print(f"{'':<12}{'memory':>8}{'worst':>8}{'at side':>9}{'11,000':>8}")
    for name, *shape in _MODELS:
        for gigabytes in (8, 16, 24, 64):
            row = _worst(sides, lambda side: _plan(side, shape, gigabytes))  # noqa: B023
            print(f"{name:<12}{gigabytes:>5} GB{row}")
    for context, precision in itertools.product(("local", "wide"), ("fp32", "bf16")):
        for gigabytes in (8, 16, 24, 64):
            shape = (precision, gigabytes, context)
            row = _worst(sides, lambda side: _latent(side, *shape))  # noqa: B023
            print(f"{context:<6}latent {precision:<5}{gigabytes:>5} GB{row}")
    for n_shards in (2, 3):
        print(f"\n{n_shards} shards    " + "".join(f"{n:>8}" for n in _SHARDED))
        for name, *shape in _MODELS:
            shares = (_sharded(_plan(n, shape, 24), n_shards) for n in _SHARDED)
            print(f"{name:<12}" + "".join(f"{share:8.3f}" for share in shares))


_SHARDED = (1000, 2000, 4000, 10_980)


def _plan(side: int, shape: list[int], gigabytes: int) -> TileGrid:
    tile_size, halo, multiple = shape
    scales = ScaleRange(Fraction(1), Fraction(16), Fraction(16))
    spec = ModelSpec(
        "bicubic",
        scales,
        tile_size=tile_size,
        halo=halo,
        multiple=multiple,
        exact=halo == 2,
    )
    frame = Grid(None, Affine.identity(), side, side)
    with mock.patch.object(tiling, "machine_memory", return_value=gigabytes * _GB):
        return tiling.plan_tiles(frame, _SCALE, spec, "model")


def _latent(side: int, precision: str, gigabytes: int, context: str) -> TileGrid:
    geometry, is_local = Geometry.of(side, side, _SCALE), context == "local"
    return latent_tiles(geometry, precision, gigabytes * _GB, 4, is_local=is_local)


def _worst(sides: range, plan: Callable[[int], TileGrid]) -> str:
    worst = max(sides, key=lambda side: _excess(plan(side)))
    return f"{_excess(plan(worst)):8.3f}{worst:9d}{_excess(plan(11_000)):8.3f}"


def _excess(tiles: TileGrid) -> float:
    scene = tiles.scene
    return len(tiles) * math.prod(tiles.tile_shape) / (scene.height * scene.width)


def _sharded(tiles: TileGrid, n_shards: int) -> float:
    """Return the share of the tile rows over those of the slowest shard."""
    n_rows = tiles.shape[0]
    shards = [
        plan_spans(tiles, shard, frozenset(), _none, lock=False)
        for shard in split_strips(n_rows, n_shards)
    ]
    return n_rows / n_shards / max(len(span.rows) for spans in shards for span in spans)


def _none(strip: int, content: str) -> bool:
    return False


if __name__ == "__main__":
    main()
