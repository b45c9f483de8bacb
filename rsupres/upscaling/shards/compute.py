"""Compute the strips of a shard, and join the parts of strips between two shards.

Shards never wait for one another: each writes its part of the strip between two of
them, and the process that finds both parts makes the strip. If a shard never runs, any
process that computes its strips later does this.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from rsupres.blend import Mosaic
from rsupres.execution import OnProgress, Progress
from rsupres.families.base import SceneContext, SuperResolver
from rsupres.output.damage.repair import drop_damaged
from rsupres.output.run_dir import Run
from rsupres.output.strip_parts import PartSaver, StripParts
from rsupres.output.tiff.packets import Packets
from rsupres.tile_grid import split_strips
from rsupres.upscaling.finishing import Finisher
from rsupres.upscaling.inference import Counts, TileRunner, rows_around
from rsupres.upscaling.outputs import SUMS, StripSaver, side_outputs
from rsupres.upscaling.preparation.context import context_of, prepare_samples
from rsupres.upscaling.preparation.work import Work
from rsupres.upscaling.shards.spans import Span, plan_spans

logger = logging.getLogger(__name__)


def compute_strips(work: Work, run: Run, show: OnProgress, counts: Counts) -> None:
    """Compute the strips of this process' shard that are not there yet.

    Args:
        work: the settled job.
        run: open.
        show: called often, from this thread.
        counts: grow.

    Raises:
        RsupresError: reading, the model or writing fails.
    """
    n_strips = work.grid.shape[0]
    index, count = work.job.shard or (1, 1)
    shard = split_strips(n_strips, count)[index - 1]
    parts, lock = parts_of(run), work.rules.lock
    spans = plan_spans(work.grid, shard, run.done_strips(), parts.has, lock=lock)
    if spans:
        _run_spans(work, run, spans, show, counts)
    join_parts(work, run, [*shard.strips, shard.strips.stop])


def _run_spans(
    work: Work, run: Run, spans: list[Span], show: OnProgress, counts: Counts
) -> None:
    model = work.model.load()
    context = shared_context(work, run, show, lambda: model)
    contexts = [context_of(context, sample) for sample in range(work.job.samples)]
    total = sum(len(span.rows) for span in spans) * work.grid.shape[1]
    show(Progress("Tiles", 0, total, "tiles"))
    runner = TileRunner(work.tile_source, model, contexts, counts, show, total)
    rules, packets, parts = work.rules, packets_of(work, run), parts_of(run)
    for span in spans:
        with (
            StripSaver(work, run, packets, span.strips) as saver,
            PartSaver(parts, span.parts) as keeper,
        ):
            above = parts.read(span.rows.start, "above") if span.takes_part else ()
            runner.compute(span, rules, saver.take, keeper.take, above)
        logger.debug("Strips %s and %s are done.", span.strips, sorted(span.parts))


def join_parts(work: Work, run: Run, strips: Sequence[int]) -> None:
    """Make the strips whose two parts are there, and remove the parts.

    Args:
        work: the settled job.
        run: open.
        strips: to look at; those that another process joins now are left to it.

    Raises:
        RsupresError: reading or writing fails.
    """
    parts = parts_of(run)
    for strip in strips:
        if parts.has(strip, "own") and parts.has(strip, "above"):
            with parts.claimed(strip) as is_ours:
                if is_ours and strip not in run.done_strips():
                    _join(work, run, parts, strip)
    for strip in run.done_strips().intersection(strips):
        parts.drop(strip)


def _join(work: Work, run: Run, parts: StripParts, strip: int) -> None:
    source, strips = work.tile_source, range(strip, strip + 1)
    lr = rows_around(source, strip)
    mosaic = Mosaic(work.grid, source.n_channels, strip, strip + 1)
    with StripSaver(work, run, packets_of(work, run), strips) as saver:
        finisher = Finisher(work.rules, strips)
        above, own = parts.read(strip, "above"), parts.read(strip, "own")
        for pair in zip(above, own, strict=True):
            for piece in pair:
                mosaic.put(piece)
            for piece in mosaic.finished():
                for finished in finisher.push(piece, lr):
                    saver.take(finished)
    logger.debug("Strip %d is made of two parts.", strip)


def shared_context(
    work: Work, run: Run, show: OnProgress, load: Callable[[], SuperResolver]
) -> SceneContext:
    """Return what the model computes once for the scene; the run keeps it.

    Args:
        work: the settled job.
        run: open.
        show: called with how many rows the model has read.
        load: returns the model, where it has to compute.
    """
    return run.share_context(lambda: prepare_samples(work, load(), run, show))


def drop_damage(work: Work, run: Run) -> int:
    """Remove damaged files of a run; return how many strips are missing for it.

    Args:
        work: the settled job.
        run: open; no other process works there, or all strips are done.
    """
    sides = [side.name for side in side_outputs(work)]
    return drop_damaged(packets_of(work, run), [SUMS, *sides])


def parts_of(run: Run) -> StripParts:
    """Return the parts of strips that a run keeps.

    Args:
        run: open.
    """
    return StripParts(run.path, run.is_unsealed)


def packets_of(work: Work, run: Run) -> Packets:
    """Return the packets of the strips of the upscaled scene.

    Args:
        work: the settled job.
        run: open.
    """
    edges = [work.grid.strip(strip).row for strip in range(work.grid.shape[0])]
    edges.append(work.sr_grid.height)
    return Packets(
        run, work.sr_grid, len(work.order), work.format, edges, bool(work.codes)
    )
