"""Default tiles are fitted to the frame: little is computed twice."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st

from rsupres.errors import InputError
from rsupres.families.base import ModelSpec
from rsupres.grid import Grid
from rsupres.tile_grid import TileGrid, fit_side
from rsupres.upscaling.preparation import tiling
from rsupres.upscaling.preparation.tiling import find_batch_size, plan_tiles
from tests.fakes import RANGE

GB = 2**30
# Halo and multiple of the models that ship: optical, E2DiffSR, SlimDiffSR, bicubic.
MODELS = [(256, 16, 1), (256, 12, 8), (256, 12, 16), (144, 2, 1)]


def plan(
    height: int,
    width: int,
    model: tuple[int, int, int] = MODELS[0],
    scale: Fraction = Fraction(4),
    **options: int,
) -> TileGrid:
    tile_size, halo, multiple = model
    spec = ModelSpec(
        *("bicubic", RANGE, (), frozenset(), frozenset(), tile_size, multiple, halo),
        exact=halo == 2,
    )
    frame = Grid(None, Affine.identity(), height, width)
    return plan_tiles(frame, scale, spec, "model", **options)  # type: ignore[arg-type]


def excess(tiles: TileGrid) -> float:
    """Return pixels computed over pixels needed."""
    scene = tiles.scene
    return len(tiles) * math.prod(tiles.tile_shape) / (scene.height * scene.width)


@pytest.fixture(autouse=True)
def _memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiling, "machine_memory", lambda: 128 * GB)


@pytest.mark.parametrize("model", MODELS)
def test_of_squares_of_any_side_at_most_15_percent_are_computed_twice(
    model: tuple[int, int, int],
) -> None:
    sides = range(200, 11_001, 1 if model == MODELS[0] else 7)
    worst = max(sides, key=lambda side: excess(plan(side, side, model)))
    assert excess(plan(worst, worst, model)) <= 1.15


@given(
    st.integers(200, 11_000),
    st.integers(200, 11_000),
    st.sampled_from([MODELS[0], MODELS[-1]]),  # others pad the frame to their multiple
    st.sampled_from([Fraction(2), Fraction(5, 2), Fraction(10, 3), Fraction(8)]),
)
def test_of_rectangles_too(
    height: int, width: int, model: tuple[int, int, int], scale: Fraction
) -> None:
    assert excess(plan(height, width, model, scale)) <= 1.15


@given(
    st.integers(1, 3000), st.integers(2, 300), st.integers(0, 100), st.integers(1, 12)
)
def test_a_fitted_side_is_allowed_and_covers_the_length(
    length: int, largest: int, overlap: int, step: int
) -> None:
    length, largest, overlap = (n * step for n in (length, largest, overlap))
    if overlap >= largest:
        return
    side = fit_side(length, largest, overlap, step)
    assert side % step == 0
    assert overlap < side <= largest
    n_tiles = 1 if length <= side else -(-(length - overlap) // (side - overlap))
    at_least = 1 if length <= largest else -(-(length - overlap) // (largest - overlap))
    assert n_tiles <= at_least


@pytest.mark.parametrize("memory", [1, 4, 8])
def test_little_memory_makes_smaller_tiles(
    monkeypatch: pytest.MonkeyPatch, memory: int
) -> None:
    full = math.prod(plan(4000, 4000).tile_shape)
    monkeypatch.setattr(tiling, "machine_memory", lambda: memory * GB)
    small = plan(4000, 4000)
    assert math.prod(small.tile_shape) < full
    assert math.prod(small.tile_shape) <= max(1, 3 * memory // 4) * 256**2 * 1.01


def test_with_8_gb_at_most_15_percent_are_computed_twice_unless_strips_are_locked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tiling, "machine_memory", lambda: 8 * GB)
    for model in MODELS:
        worst = max(excess(plan(n, n, model)) for n in range(200, 11_001, 97))
        assert worst <= 1.15
    side = 10_980
    locked = plan(side, side, lock=True)  # holds whole strips in memory
    assert locked.tile_shape[0] < 0.6 * plan(side, side).tile_shape[0]


def test_wide_scenes_of_many_bands_get_low_tiles(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tiling, "machine_memory", lambda: 32 * GB)
    few, many = (plan(10_980, 10_980, n_bands=n) for n in (3, 13))
    assert many.tile_shape[0] < few.tile_shape[0]
    assert excess(few) <= 1.15


@pytest.mark.parametrize("shape", [(1, 1), (3, 500), (39, 41), (7, 2000)])
def test_frames_smaller_than_the_overlap_have_one_tile_there(
    shape: tuple[int, int],
) -> None:
    assert plan(*shape).tile_shape[0] == shape[0]


def test_sides_that_are_asked_for_stay() -> None:
    tiles = plan(1000, 700, size=128)
    assert tiles.tile_shape == (128, 128)
    assert tiles.sides == [128, 40]
    with pytest.raises(InputError, match="40 is too small"):
        plan(1000, 700, size=40)


def test_batches_on_a_gpu_hold_as_many_pixels_whatever_the_tiles() -> None:
    large, small = plan(4000, 4000), plan(4000, 4000, size=64)
    sizes = [find_batch_size(tiles, 3, "cuda") for tiles in (large, small)]
    assert sizes == [1, 16]


@pytest.mark.parametrize("memory", [8, 24, 128])
def test_two_processes_share_the_rows_of_any_scene_within_5_percent(
    monkeypatch: pytest.MonkeyPatch, memory: int
) -> None:
    monkeypatch.setattr(tiling, "machine_memory", lambda: memory * GB)
    for model in MODELS:
        for side in [1000, 2000, 4000, 10_980, *range(1000, 11_001, 173)]:
            n_rows = plan(side, side, model).shape[0]
            assert n_rows / 2 / -(-n_rows // 2) >= 0.95, (model, side)
