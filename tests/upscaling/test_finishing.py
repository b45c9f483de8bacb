"""Strips are finished one by one, in memory that does not grow with the scene."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from affine import Affine

from rsupres.blend import Piece
from rsupres.grid import Grid
from rsupres.raster.stretch import Stretch
from rsupres.tile_grid import TileGrid
from rsupres.upscaling.finishing import (
    LOCK_REACH,
    FinishedStrip,
    Finisher,
    StripRules,
    lock_rows,
)
from rsupres.upscaling.gates import StripSums
from rsupres.upscaling.preparation.lr_rows import LrRows, nearest

WIDTH = 12


def rules(height: int, scale: Fraction = Fraction(2), **more: object) -> StripRules:
    frame = Grid(None, Affine.identity(), height, WIDTH)
    step = scale.denominator
    grid = TileGrid.plan(frame, scale, 8 * step, 2 * step, 0)
    stretch = Stretch((0.0,), (1000.0,))
    return StripRules(grid, stretch, 1, (0,), "float32", None, **more)


def feed(
    finisher: Finisher,
    plan: StripRules,
    sr: np.ndarray,
    lr: np.ndarray,
    edges: Sequence[int] = (),
) -> Iterator[list[FinishedStrip]]:
    """Push strip after strip, in pieces with these edges; yield what each finishes."""
    for index in range(plan.grid.shape[0]):
        window = plan.grid.strip(index)
        pixels = sr[:, window.row : window.row_stop].copy()
        valid = np.ones((1, *lr.shape[1:]), bool)
        rows = LrRows(0, lr, None, None, valid)
        finished: list[FinishedStrip] = []
        for start, stop in itertools.pairwise(edges or (0, window.width)):
            part = window._replace(col=start, width=stop - start)
            is_last = stop == window.width
            piece = Piece(index, part, pixels[:, :, start:stop].copy(), is_last)
            finished += finisher.push(piece, rows)
        yield finished


def finish_all(*given) -> list[FinishedStrip]:
    """Push all strips, and return what they finish."""
    return list(itertools.chain.from_iterable(feed(*given)))


def pictures(plan: StripRules) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    lr, sr = (
        rng.random((1, frame.height, frame.width), np.float32)
        for frame in (plan.grid.lr, plan.grid.sr)
    )
    return lr, sr


@pytest.mark.parametrize("scale", [Fraction(2), Fraction(4), Fraction(5, 2)], ids=str)
def test_locked_strips_average_to_the_input(scale):
    plan = rules(64, scale, lock=True)
    lr, sr = pictures(plan)
    n_strips = plan.grid.shape[0]
    out = finish_all(Finisher(plan, range(n_strips)), plan, sr, lr)
    assert [strip.index for strip in out] == list(range(n_strips))
    assert all(s.sums.squares / s.sums.values < 1e-10 for s in out)
    whole = np.concatenate([strip.pixels for strip in out], axis=1)
    assert whole.shape == (1, int(64 * scale), int(WIDTH * scale))


def test_locking_keeps_only_the_rows_that_it_needs():
    plan = rules(400, lock=True)
    lr, sr = pictures(plan)
    finisher = Finisher(plan, range(plan.grid.shape[0]))
    kept, waiting = [], []
    for _ in feed(finisher, plan, sr, lr):
        assert finisher._residual is not None
        kept.append(finisher._residual.shape[1])
        waiting.append(len(finisher._pending))
    assert min(kept) > 0
    assert max(kept) <= 2 * LOCK_REACH + 3 * 8
    assert max(waiting) <= 3
    assert waiting[-1] == 0


def test_surroundings_are_not_given_out_but_make_the_same_pixels():
    plan = rules(120, lock=True)
    lr, sr = pictures(plan)
    whole = finish_all(Finisher(plan, range(plan.grid.shape[0])), plan, sr, lr)
    part = finish_all(Finisher(plan, range(7, 9)), plan, sr, lr)
    assert [strip.index for strip in part] == [7, 8]
    for strip in part:
        np.testing.assert_array_equal(strip.pixels, whole[strip.index].pixels)


@pytest.mark.parametrize("lock", [False, True])
def test_pieces_are_finished_as_whole_strips_are(lock: bool) -> None:
    plan = rules(40, Fraction(4), lock=lock)
    lr, sr = pictures(plan)
    found = []
    for edges in ((), (0, 8, 20, 48)):
        finisher = Finisher(plan, range(plan.grid.shape[0]))
        found.append(finish_all(finisher, plan, sr, lr, edges))
    whole, parts = found
    assert len(parts) == len(whole) * (1 if lock else 3)
    for strip in whole:
        mine = [part for part in parts if part.index == strip.index]
        assert [part.is_last for part in mine] == [False] * (len(mine) - 1) + [True]
        pixels = np.concatenate([part.pixels for part in mine], axis=2)
        np.testing.assert_array_equal(pixels, strip.pixels)
        total = StripSums()
        for part in mine:
            total = total.plus(part.sums)
        assert total.values == strip.sums.values
        assert total.squares == pytest.approx(strip.sums.squares, rel=1e-6)


def test_bands_that_are_enlarged_have_the_same_pixels_in_pieces() -> None:
    plan = replace(
        rules(40, Fraction(5, 2)), order=(0, 1), stretch=Stretch((0, 0), (1, 1))
    )
    _, sr = pictures(plan)
    frame = plan.grid.lr
    rng = np.random.default_rng(3)
    seen, excess, others = rng.random((3, 1, frame.height, frame.width), np.float32)
    rows = LrRows(0, seen, excess, others, np.ones_like(seen, bool))
    found = []
    for edges in ((0, 30), (0, 10, 20, 30)):
        out: list[FinishedStrip] = []
        finisher = Finisher(plan, range(1))
        window = plan.grid.strip(0)
        for start, stop in itertools.pairwise(edges):
            pixels = sr[:, : window.height, start:stop].copy()
            part = window._replace(col=start, width=stop - start)
            out += finisher.push(Piece(0, part, pixels, stop == 30), rows)
        found.append(np.concatenate([part.pixels for part in out], axis=2))
    np.testing.assert_allclose(found[1], found[0], rtol=0, atol=1e-6)


def test_rows_around_a_strip_are_whole_steps_of_the_scale():
    grid = rules(200, Fraction(10, 3)).grid
    top, bottom = lock_rows((60, 66), grid)
    assert (top, bottom) == (60 - 12, 66 + 12)
    assert lock_rows((0, 3), grid)[0] == 0


@pytest.mark.parametrize("scale", [Fraction(3), Fraction(5, 2), Fraction(10, 3)])
def test_masks_are_taken_at_the_centres_of_sr_pixels(scale):
    rng = np.random.default_rng(1)
    mask = rng.random((1, 12, 18)) > 0.5
    fine = nearest(mask, scale)
    assert fine.shape == (1, int(12 * scale), int(18 * scale))
    for row, col in [(0, 0), (7, 11), (fine.shape[1] - 1, fine.shape[2] - 1)]:
        source = (int((n + 0.5) / float(scale)) for n in (row, col))
        assert fine[0, row, col] == mask[(0, *source)]
