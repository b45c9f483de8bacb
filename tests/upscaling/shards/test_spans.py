"""Shards run every tile row once, and whoever is killed, all strips get done."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from random import Random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rsupres.tile_grid import Shard, TileGrid, split_strips
from rsupres.upscaling.shards.spans import Span, plan_spans
from tests.strategies import make_grid, tile_grids


@dataclass
class Folder:
    """What a run directory holds, without files."""

    grid: TileGrid
    done: set[int] = field(default_factory=set)
    parts: set[tuple[int, str]] = field(default_factory=set)
    n_rows: int = 0

    def has(self, strip: int, content: str) -> bool:
        return (strip, content) in self.parts

    def work(self, shard: Shard, *, lock: bool = False) -> Iterator[None]:
        """Compute a shard; the process may be killed whenever this yields."""
        spans = plan_spans(self.grid, shard, frozenset(self.done), self.has, lock=lock)
        yield
        for span in spans:
            first = span.rows.start
            if span.takes_part:
                assert self.has(first, "above")
                assert not self.has(first, "own")
            rows = {*span.rows, *([first - 1] if span.takes_part else [])}
            for row in span.rows:
                self.n_rows += 1
                own, above = (row, "own"), (row + 1, "above")
                for part in {own, above} & span.parts:
                    self.parts.add(part)
                    yield
                if row in span.strips:
                    assert set(self.grid.rows_touching(row)) <= rows
                    self.done.add(row)
                    yield
        for strip in (*shard.strips, shard.strips.stop):
            if self.has(strip, "own") and self.has(strip, "above"):
                self.done.add(strip)
                yield
        for strip in self.done.intersection((*shard.strips, shard.strips.stop)):
            self.parts -= {(strip, "own"), (strip, "above")}
            yield


def take(work: Iterator[None], n_steps: int | None = None) -> None:
    for step, _ in enumerate(work):
        if step == n_steps:
            return


orders = st.integers(1, 7).flatmap(lambda n: st.permutations(range(n)))


@given(tile_grids(), orders)
def test_shards_one_after_the_other_make_all_strips(grid, order):
    folder = Folder(grid)
    shards = split_strips(grid.shape[0], len(order))
    for index in order:
        take(folder.work(shards[index]))
    assert folder.done == set(range(grid.shape[0]))
    assert not folder.parts


@given(st.integers(2, 12), orders, st.data())
def test_no_row_runs_twice_in_shards_at_once_or_one_after_the_other(
    n_rows, order, data
):
    grid = TileGrid.plan(make_grid(8 * n_rows + 4, 10), Fraction(2), 12, 4, 1)
    assert grid.shape[0] == n_rows
    folder = Folder(grid)
    shards = split_strips(n_rows, len(order))
    works = [folder.work(shards[index]) for index in order]
    for work in works[: data.draw(st.integers(0, len(works)))]:
        take(work, data.draw(st.integers(0, 5)))  # those have begun before others end
    for work in works:
        take(work)
    assert folder.done == set(range(n_rows))
    assert folder.n_rows == n_rows


@given(
    tile_grids(),
    st.lists(st.tuples(st.integers(1, 4), st.integers(0, 3), st.integers(0, 9))),
)
def test_whoever_is_killed_one_process_does_the_rest(grid, killed):
    folder = Folder(grid)
    for count, index, n_steps in killed:  # of any number of shards
        shard = split_strips(grid.shape[0], count)[index % count]
        take(folder.work(shard), n_steps)
    take(folder.work(split_strips(grid.shape[0], 1)[0]))
    assert folder.done == set(range(grid.shape[0]))


@given(
    st.integers(2, 9),
    st.lists(st.tuples(st.integers(1, 4), st.integers(0, 3), st.integers(0, 9))),
    orders,
    st.randoms(use_true_random=False),
)
@example(4, [(2, 1, 1)], [0, 1, 2, 3], Random(0))  # a part is there, but not that below
def test_shards_that_begin_at_once_leave_nothing_whoever_was_killed_before(
    n_rows, killed, order, chance
):
    grid = TileGrid.plan(make_grid(8 * n_rows + 4, 10), Fraction(2), 12, 4, 1)
    folder = Folder(grid)
    for count, index, n_steps in killed:
        take(folder.work(split_strips(n_rows, count)[index % count]), n_steps)
    works = [folder.work(split_strips(n_rows, len(order))[index]) for index in order]
    for work in works:
        next(work)  # it has planned
    while works:
        work = chance.choice(works)
        if next(work, "ended") == "ended":
            works.remove(work)
    assert folder.done == set(range(n_rows))


def test_a_strip_that_a_neighbour_may_join_now_is_left_to_the_parts():
    grid = TileGrid.plan(make_grid(52, 10), Fraction(2), 12, 4, 1)
    folder = Folder(grid, done={0, 1, 2}, parts={(3, "own"), (3, "above")})
    second = split_strips(6, 2)[1]
    (span,) = plan_spans(grid, second, frozenset(folder.done), folder.has, lock=False)
    assert span == Span(range(4, 6), range(3, 6))
    folder.parts.remove((3, "own"))
    (span,) = plan_spans(grid, second, frozenset(folder.done), folder.has, lock=False)
    assert span == Span(range(3, 6), range(3, 6), takes_part=True)


@pytest.mark.parametrize("killed_after", range(7))
def test_a_shard_that_never_comes_costs_its_own_rows_only(killed_after):
    grid = TileGrid.plan(make_grid(52, 10), Fraction(2), 12, 4, 1)
    assert grid.shape[0] == 6
    folder = Folder(grid)
    _, second, third = split_strips(6, 3)
    take(folder.work(third))
    take(folder.work(second), killed_after)
    n_lost = folder.n_rows - 2
    take(folder.work(split_strips(6, 1)[0]))
    assert folder.done == set(range(6))
    assert folder.n_rows <= 6 + max(n_lost, 0)


@given(tile_grids(), orders)
def test_with_locked_frequencies_no_part_is_kept(grid, order):
    folder = Folder(grid)
    shards = split_strips(grid.shape[0], len(order))
    for index in order:
        take(folder.work(shards[index], lock=True))
    assert folder.done == set(range(grid.shape[0]))
    assert not folder.parts
