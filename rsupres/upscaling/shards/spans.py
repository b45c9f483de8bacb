"""Decide which tile rows a shard runs, and which parts of strips it leaves to others.

The first strip of a shard needs the tile row above it, which the shard before runs. So
each of the two keeps its part of that strip. Nothing is read or written here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from rsupres.output.strip_parts import Part
from rsupres.tile_grid import Shard, TileGrid, missing_spans
from rsupres.upscaling.finishing import lock_rows


@dataclass(frozen=True)
class Span:
    """Consecutive strips that are computed in one go.

    Attributes:
        strips: those that are finished; may be empty where parts are kept.
        rows: tile rows to run, non-empty.
        parts: of other strips, which are kept.
        takes_part: the first strip is finished with the part above it, which is there.
    """

    strips: range
    rows: range
    parts: frozenset[Part] = field(default_factory=frozenset)
    takes_part: bool = False


def plan_spans(
    grid: TileGrid,
    shard: Shard,
    done: frozenset[int],
    has: Callable[..., bool],
    *,
    lock: bool,
) -> list[Span]:
    """Return what a shard has to compute.

    Args:
        grid: the tiling.
        shard: with its strips.
        done: strips that are done.
        has: tells whether a part is there, given a strip and "own" or "above"; asked
            later than `done`, as a part is kept before the strip above is done.
        lock: low frequencies are locked, which needs the strips around, too; no part
            is kept then.
    """
    missing = list(missing_spans(shard, done))
    if lock:
        return [Span(strips, locked_rows(grid, strips)) for strips in missing]
    plans = (_Plan(grid, done, has).span(strips) for strips in missing)
    return [span for span in plans if span is not None]


@dataclass(frozen=True)
class _Plan:
    """The arguments of `plan_spans`."""

    grid: TileGrid
    done: frozenset[int]
    has: Callable[..., bool]

    def span(self, strips: range) -> Span | None:
        """Return what missing strips need; None where only parts are to be joined."""
        first, last = strips.start, strips.stop - 1
        is_kept = self.has(last, "own") and self._is_given(last)
        stop = last if is_kept and not self._is_owed(last + 1) else last + 1
        if first == stop:
            return None
        parts: set[Part] = set()
        begin, top = first, self.grid.rows_touching(first).start
        takes_part = False
        if self._is_given(first):
            top = first
            # Another process may join two parts that are there.
            takes_part = self.has(first, "above") and not self.has(first, "own")
            begin = first if takes_part else first + 1
            if not takes_part and not self.has(first, "own"):
                parts.add((first, "own"))
        if self._is_owed(stop):
            parts.add((stop, "above"))
        return Span(range(begin, stop), range(top, stop), frozenset(parts), takes_part)

    def _is_owed(self, strip: int) -> bool:
        """Return whether a strip below those of a process needs the part above it."""
        is_missing = strip < self.grid.shape[0] and strip not in self.done
        return is_missing and self.grid.parts_at(strip) and not self.has(strip, "above")

    def _is_given(self, strip: int) -> bool:
        """Return whether the part above a strip is there or will come.

        A process that computes the strip above keeps it, as this strip is missing.
        """
        if not self.grid.parts_at(strip):
            return False
        return strip - 1 not in self.done or self.has(strip, "above")


def locked_rows(grid: TileGrid, strips: range) -> range:
    """Return the tile rows to run for strips whose low frequencies are locked.

    Args:
        grid: the tiling.
        strips: non-empty, step 1.
    """
    starts = [int(grid.strip(row).row / grid.scale) for row in range(grid.shape[0])]
    edges = [*starts, grid.lr.height]
    low = lock_rows((edges[strips.start], edges[strips.start + 1]), grid)[0]
    high = lock_rows((edges[strips.stop - 1], edges[strips.stop]), grid)[1]
    first = max(row for row, start in enumerate(starts) if start <= low)
    stop = min(row for row, end in enumerate(edges) if end >= high)
    return range(grid.rows_touching(first).start, stop)
