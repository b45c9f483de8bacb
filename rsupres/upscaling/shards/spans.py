"""Decide which tile rows a shard runs, and which parts of strips it writes.

The first strip of a shard also needs the tile row above, which the shard before runs.
So that no row runs twice, each of the two writes its part of that strip. Nothing is
read or written here.
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
        strips: those to finish; empty where only parts are written.
        rows: tile rows to run, non-empty.
        parts: of further strips, to be written.
        takes_part: finish the first strip with its part "above", which is there.
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
        has: tells whether a part is there, given a strip and "own" or "above"; called
            after `done` was read, as a part is written before the strip above is done.
        lock: low frequencies are locked, which needs the strips around, too; no part
            is written then.
    """
    missing = list(missing_spans(shard, done))
    if lock:
        return [Span(strips, _locked_rows(grid, strips)) for strips in missing]
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
        is_written = self.has(last, "own") and self._has_above(last)
        stop = last if is_written and not self._lacks_above(last + 1) else last + 1
        if first == stop:
            return None
        parts: set[Part] = set()
        begin, top = first, self.grid.rows_touching(first).start
        takes_part = False
        if self._has_above(first):
            top = first
            # Another process may join two parts that are there.
            takes_part = self.has(first, "above") and not self.has(first, "own")
            begin = first if takes_part else first + 1
            if not takes_part and not self.has(first, "own"):
                parts.add((first, "own"))
        if self._lacks_above(stop):
            parts.add((stop, "above"))
        return Span(range(begin, stop), range(top, stop), frozenset(parts), takes_part)

    def _lacks_above(self, strip: int) -> bool:
        """Return whether the strip after those of a process lacks its part "above"."""
        is_missing = strip < self.grid.shape[0] and strip not in self.done
        return is_missing and self.grid.parts_at(strip) and not self.has(strip, "above")

    def _has_above(self, strip: int) -> bool:
        """Return whether a strip's part "above" is there or will come.

        A process that computes the strip above writes it, as this strip is missing.
        """
        if not self.grid.parts_at(strip):
            return False
        return strip - 1 not in self.done or self.has(strip, "above")


def _locked_rows(grid: TileGrid, strips: range) -> range:
    """Return the tile rows to run for strips whose low frequencies are locked."""
    starts = [int(grid.strip(row).row / grid.scale) for row in range(grid.shape[0])]
    edges = [*starts, grid.lr.height]
    low = lock_rows((edges[strips.start], edges[strips.start + 1]), grid)[0]
    high = lock_rows((edges[strips.stop - 1], edges[strips.stop]), grid)[1]
    first = max(row for row, start in enumerate(starts) if start <= low)
    stop = min(row for row, end in enumerate(edges) if end >= high)
    return range(grid.rows_touching(first).start, stop)
