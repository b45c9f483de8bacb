"""The four claims about tiling, and what the mosaic refuses."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rsupres.blend import Mosaic, Piece, edge_weights, join
from rsupres.errors import ModelOutputError
from rsupres.tile_grid import Tile, TileGrid
from tests.strategies import make_grid, tile_grids

N_CHANNELS = 2
Source = Callable[[Tile], np.ndarray | None]
seeds = st.integers(0, 2**32 - 1)


def noisy_tiles(seed: int, share_skipped: float = 0.0) -> Source:
    """Return a source of tiles that differ from their neighbours on common ground."""

    def make(tile: Tile) -> np.ndarray | None:
        rng = np.random.default_rng([seed, tile.row, tile.col])
        if rng.random() < share_skipped:
            return None
        shape = (N_CHANNELS, tile.sr.height, tile.sr.width)
        return rng.standard_normal(shape, np.float32)

    return make


def copied_tiles(image: np.ndarray) -> Source:
    return lambda tile: image[(slice(None), *tile.sr.slices())].copy()


def run(
    grid: TileGrid, source: Source, first_row: int = 0, last_row: int | None = None
) -> Iterator[Piece]:
    """Stream the tiles through a mosaic and yield each piece as soon as it is final."""
    mosaic = Mosaic(grid, N_CHANNELS, first_row, last_row)
    stop = grid.shape[0] if last_row is None else last_row
    for row in range(first_row, stop):
        for tile in grid.tile_row(row):
            sr = source(tile)
            if sr is None:
                mosaic.skip(tile)
            else:
                mosaic.add(tile, sr)
            yield from mosaic.finished()


def whole_weights(grid: TileGrid, *, normalised: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return every tile's weights along rows and columns: (n, H) and (n, W)."""
    n_rows, n_cols = grid.shape
    both = []
    for axis, n_tiles in enumerate((n_rows, n_cols)):
        starts = [
            (grid.tile_row(i)[0] if axis == 0 else grid[i]).sr for i in range(n_tiles)
        ]
        weights = np.zeros((n_tiles, (grid.sr.height, grid.sr.width)[axis]))
        for i, window in enumerate(starts):
            ramps = (i > 0, i < n_tiles - 1)
            side = window[2 + axis]
            weights[i, window[axis] : window[axis] + side] = edge_weights(
                grid, side, ramps
            )
        both.append(weights / weights.sum(0) if normalised else weights)
    return both[0], both[1]


def whole_raster_mosaic(grid: TileGrid, source: Source) -> np.ndarray:
    """Blend without strips: rows of tiles, then their sum, in float32."""
    rows, cols = (w.astype(np.float32) for w in whole_weights(grid, normalised=True))
    total = np.zeros((N_CHANNELS, grid.sr.height, grid.sr.width), np.float32)
    for number, weights in enumerate(rows):
        row = np.zeros_like(total)
        for tile in grid.tile_row(number):
            in_rows, in_cols = tile.sr.slices()
            sr = source(tile)
            assert sr is not None
            row[:, in_rows, in_cols] += sr * cols[tile.col, in_cols]
        total += row * weights[:, None]
    return total


@given(tile_grids())
def test_every_pixel_weighs_something(grid: TileGrid) -> None:
    rows, cols = whole_weights(grid, normalised=False)
    assert (rows.sum(axis=0) > 0).all()
    assert (cols.sum(axis=0) > 0).all()


@given(tile_grids(), seeds)
def test_a_copied_image_comes_back(grid: TileGrid, seed: int) -> None:
    shape = (N_CHANNELS, grid.sr.height, grid.sr.width)
    image = np.random.default_rng(seed).random(shape, np.float32) + np.float32(0.5)
    mosaic = join(run(grid, copied_tiles(image)))
    # Three roundings of a weight, one of the product and one for each tile added.
    n_most = np.prod(
        [(w > 0).sum(0).max() for w in whole_weights(grid, normalised=True)]
    )
    deviation = np.abs(mosaic.astype(np.float64) / image - 1)
    assert deviation.max() <= (4 + n_most) * 2.0**-24


@given(tile_grids(), seeds)
def test_streamed_equals_whole_bit_for_bit(grid: TileGrid, seed: int) -> None:
    source = noisy_tiles(seed)
    assert np.array_equal(join(run(grid, source)), whole_raster_mosaic(grid, source))


@given(tile_grids(), seeds)
def test_restarting_at_any_strip_gives_the_same_bits(grid: TileGrid, seed: int) -> None:
    source = noisy_tiles(seed, share_skipped=0.3)
    n_rows, n_cols = grid.shape
    whole = {(piece.index, piece.window.col): piece for piece in run(grid, source)}
    assert [index for index, _ in whole] == sorted(list(range(n_rows)) * n_cols)
    for strip in range(n_rows):
        first_row = grid.rows_touching(strip).start
        again = [
            late
            for late in run(grid, source, first_row)
            if late.index >= strip and late.content == "all"
        ]
        assert [(late.index, late.window.col) for late in again] == [
            key for key in whole if key[0] >= strip
        ]
        for late in again:
            same = whole[late.index, late.window.col]
            assert late.window == same.window
            assert late.pixels.tobytes() == same.pixels.tobytes()


@given(tile_grids(), seeds, st.integers(1, 4))
def test_shards_together_give_the_same_bits(
    grid: TileGrid, seed: int, n_shards: int
) -> None:
    source = noisy_tiles(seed, share_skipped=0.2)
    n_rows = grid.shape[0]
    bounds = [n_rows * i // n_shards for i in range(n_shards + 1)]
    strips: list[Piece] = []
    for start, stop in itertools.pairwise(bounds):
        if start < stop:
            first_row = grid.rows_touching(start).start
            made = run(grid, source, first_row, stop)
            shard = [strip for strip in made if strip.content == "all"]
            assert all(strip.index < stop for strip in shard)
            strips += [strip for strip in shard if strip.index >= start]
    assert join(iter(strips)).tobytes() == join(run(grid, source)).tobytes()


@given(tile_grids(), seeds)
def test_pieces_leave_as_soon_as_their_tile_is_in(grid: TileGrid, seed: int) -> None:
    mosaic, source = Mosaic(grid, N_CHANNELS), noisy_tiles(seed)
    for tile in grid:
        sr = source(tile)
        assert sr is not None
        mosaic.add(tile, sr)
        (piece,) = mosaic.finished()
        n_cols = grid.shape[1]
        stop = grid[tile.col + 1].sr.col if tile.col < n_cols - 1 else grid.sr.width
        strip = grid.strip(tile.row)
        left = tile.sr.col
        assert piece.index == tile.row
        assert piece.window == strip._replace(col=left, width=stop - left)
        assert piece.pixels.shape == (N_CHANNELS, *piece.window[2:])
        assert piece.is_last == (tile.col == n_cols - 1)
    assert not list(mosaic.finished())


def test_a_mosaic_holds_a_tile_and_what_overlaps_with_the_next_row() -> None:
    grid = TileGrid.plan(make_grid(60, 396), Fraction(2), 32, 4, 0)
    mosaic, source = Mosaic(grid, N_CHANNELS), noisy_tiles(0)
    held = []
    for tile in grid:
        sr = source(tile)
        assert sr is not None
        mosaic.add(tile, sr)
        list(mosaic.finished())
        parts = [*mosaic._above.values(), *mosaic._right.values()]
        held.append(sum(part.size if part.base is None else 1e9 for part in parts))
    shared = N_CHANNELS * 8 * (grid.sr.width + 64)
    assert max(held) <= shared  # beside the tile; a strip has 14 tiles


@given(tile_grids(), seeds)
def test_skipped_tiles_leave_their_ground_to_the_neighbours(
    grid: TileGrid, seed: int
) -> None:
    source = noisy_tiles(seed, share_skipped=0.5)
    rows, cols = whole_weights(grid, normalised=True)
    total = np.zeros((N_CHANNELS, grid.sr.height, grid.sr.width))
    weight = np.zeros(total.shape[1:])
    bound = np.zeros_like(total)
    n_tiles = np.zeros(total.shape[1:])
    for tile in grid:
        sr = source(tile)
        if sr is not None:
            in_rows, in_cols = tile.sr.slices()
            part = rows[tile.row, in_rows, None] * cols[tile.col, in_cols]
            total[:, in_rows, in_cols] += sr * part
            weight[in_rows, in_cols] += part
            n_tiles[in_rows, in_cols] += 1
            bound[:, in_rows, in_cols] += np.abs(sr) * part
    expected = np.divide(total, weight, out=np.zeros_like(total), where=weight > 0)
    bound = np.divide(bound, weight, out=np.zeros_like(total), where=weight > 0)
    mosaic = join(run(grid, source))
    assert (mosaic[:, weight == 0] == 0).all()
    # As above, for the sum and for the weight that it is divided by.
    assert (np.abs(mosaic - expected) <= bound * (2 * n_tiles + 9) * 2.0**-24).all()


def test_halos_and_far_sides_do_not_reach_the_mosaic() -> None:
    grid = TileGrid.plan(make_grid(100, 100), Fraction(3, 2), 32, 12, 4)

    def source(tile: Tile) -> np.ndarray:
        sr = np.full((N_CHANNELS, tile.sr.height, tile.sr.width), np.nan, np.float32)
        border = tile.border
        top, left = 0 if border.top else 6, 0 if border.left else 6
        bottom = tile.sr.height - (0 if border.bottom else 6)
        right = tile.sr.width - (0 if border.right else 6)
        sr[:, top:bottom, left:right] = 1
        return sr

    assert np.allclose(join(run(grid, source)), 1, rtol=0, atol=1e-6)


def test_weights_are_a_raised_cosine_at_pixel_centres() -> None:
    grid = TileGrid.plan(make_grid(100, 100), Fraction(2), 32, 8, 1)
    ramp = 0.5 - 0.5 * np.cos(np.pi * (np.arange(12) + 0.5) / 12)
    falling = edge_weights(grid, 64, (False, True))
    assert falling[:48].tolist() == [1.0] * 48
    assert falling[48:50].tolist() == [1.0] * 2
    assert np.allclose(falling[50:62], ramp[::-1], rtol=0, atol=1e-15)
    assert falling[62:].tolist() == [0.0] * 2
    rising = edge_weights(grid, 64, (True, False))
    assert np.allclose(rising[:16] + falling[48:], 1, rtol=0, atol=1e-15)


def test_seams_are_hard_without_overlap() -> None:
    grid = TileGrid.plan(make_grid(8, 8), Fraction(2), 4, 0, 0)

    def source(tile: Tile) -> np.ndarray:
        return np.full((N_CHANNELS, 8, 8), 2 * tile.row + tile.col, np.float32)

    expected = np.kron([[0, 1], [2, 3]], np.ones((8, 8)))
    assert np.array_equal(join(run(grid, source))[1], expected)


def test_tiles_out_of_order_are_refused() -> None:
    grid = TileGrid.plan(make_grid(40, 40), Fraction(2), 16, 4, 1)
    pixels = np.zeros((N_CHANNELS, 32, 32), np.float32)
    mosaic = Mosaic(grid, N_CHANNELS, 1, 2)
    with pytest.raises(ValueError, match="tile 0, 0 came, tile 1, 0 is due"):
        mosaic.add(grid[0], pixels)


def test_tiles_after_the_last_one_are_refused() -> None:
    grid = TileGrid.plan(make_grid(10, 10), Fraction(2), 16, 4, 1)
    mosaic = Mosaic(grid, N_CHANNELS)
    mosaic.skip(grid[0])
    with pytest.raises(ValueError, match="none is due"):
        mosaic.skip(grid[0])


@pytest.mark.parametrize("rows", [(-1, 2), (0, 0), (2, 2), (0, 4), (3, None)])
def test_rows_that_are_not_there_are_refused(rows: tuple[int, int | None]) -> None:
    grid = TileGrid.plan(make_grid(40, 40), Fraction(2), 16, 4, 1)
    assert grid.shape == (3, 3)
    with pytest.raises(ValueError, match="of 3"):
        Mosaic(grid, N_CHANNELS, *rows)


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((2, 32, 31), "float32"), ((3, 32, 32), "float32"), ((2, 32, 32), "float64")],
)
def test_output_of_another_shape_or_type_is_the_models_fault(
    shape: tuple[int, ...], dtype: str
) -> None:
    grid = TileGrid.plan(make_grid(40, 40), Fraction(2), 16, 4, 1)
    mosaic = Mosaic(grid, N_CHANNELS)
    with pytest.raises(ModelOutputError, match=r"expected float32 \(2, 32, 32\)"):
        mosaic.add(grid[0], np.zeros(shape, dtype))
    mosaic.add(grid[0], np.zeros((2, 32, 32), np.float32))  # still due


def test_where_a_tile_stands_alone_its_own_pixels_are_given_out() -> None:
    grid = TileGrid.plan(make_grid(40, 40), Fraction(2), 16, 4, 1)
    mosaic = Mosaic(grid, N_CHANNELS)
    for tile in grid:
        pixels = noisy_tiles(1)(tile)
        assert pixels is not None
        before = pixels.copy()
        mosaic.add(tile, pixels)
        (piece,) = mosaic.finished()
        assert np.shares_memory(piece.pixels, pixels)
        rows, cols = slice(8, piece.window.height), slice(8, piece.window.width)
        assert np.array_equal(piece.pixels[:, rows, cols], before[:, rows, cols])


@given(tile_grids(), seeds, st.data())
def test_two_parts_of_a_strip_give_the_same_bits(
    grid: TileGrid, seed: int, data: st.DataObject
) -> None:
    cuts = [strip for strip in range(grid.shape[0]) if grid.parts_at(strip)]
    assume(cuts)
    cut = data.draw(st.sampled_from(cuts))
    source = noisy_tiles(seed, share_skipped=0.3)
    whole = list(run(grid, source))
    upper, lower = list(run(grid, source, 0, cut)), list(run(grid, source, cut))
    above = [piece for piece in upper if piece.content == "above"]
    own = [piece for piece in lower if piece.content == "own"]
    assert {piece.index for piece in above + own} == {cut}
    mosaic = Mosaic(grid, N_CHANNELS, cut, cut + 1)
    for parts in zip(above, own, strict=True):
        for part in parts:
            mosaic.put(part)
    joined = [piece for piece in mosaic.finished() if piece.content == "all"]
    found = [piece for piece in upper + lower if piece.content == "all"] + joined
    found.sort(key=lambda piece: (piece.index, piece.window.col))
    assert join(found).tobytes() == join(whole).tobytes()
    assert [p.window for p in found] == [p.window for p in whole]


def test_a_strip_that_several_rows_above_touch_is_not_made_of_parts() -> None:
    grid = TileGrid.plan(make_grid(40, 10), Fraction(2), 16, 12, 1)
    assert grid.rows_touching(3).start == 0
    assert not any(map(grid.parts_at, range(grid.shape[0])))
    found = {(piece.index, piece.content) for piece in run(grid, noisy_tiles(0), 2)}
    assert found == {(5, "all"), (6, "all")}
