"""Run the model on tiles and blend them into strips.

One reading thread is ahead of the model, which runs in the calling thread; others
finish the pieces of strips, and one writes them in order. Batches never span tile rows,
so a resumed run forms the same batches as an uninterrupted one. Where pixels and
conditions come from is a `TileSource`: a scene of
`rsupres.upscaling.preparation.work`, or an array in memory. The caller has set
`torch.inference_mode`.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import NamedTuple, Protocol, cast

import numpy as np
import torch
from torch import Tensor

from rsupres.blend import Mosaic, Piece
from rsupres.blocks.separable import CUBIC_REACH
from rsupres.diffusion.noise import NoiseField
from rsupres.errors import ModelOutputError, ResourceError
from rsupres.execution import (
    OnProgress,
    Progress,
    read_ahead,
    threads_beside,
    write_behind,
)
from rsupres.families.base import (
    Conditions,
    PredictsSpread,
    SceneContext,
    SuperResolver,
    TileBatch,
)
from rsupres.grid import PixelWindow
from rsupres.tile_grid import Tile, TileGrid
from rsupres.upscaling.finishing import FinishedStrip, Finisher, StripRules
from rsupres.upscaling.preparation.lr_rows import LrRows
from rsupres.upscaling.shards.spans import Span

logger = logging.getLogger(__name__)

_CPU_OUT_OF_MEMORY = ("can't allocate memory", "not enough memory")


class TileConditions(Protocol):
    """Conditions that are read tile by tile, such as a `ConditionSet`."""

    @property
    def has_tiles(self) -> bool:
        """Whether there is anything to read for a window."""
        ...

    def read(self, window: PixelWindow) -> Mapping[str, np.ndarray]:
        """Return (c, H, W) by name for an SR window of the padded frame."""
        ...

    def conditions(
        self, tiles: Sequence[Mapping[str, np.ndarray]], sample: int = 0
    ) -> Conditions:
        """Return windows of one size that `read` returned as a batch, on the CPU."""
        ...


@dataclass(frozen=True)
class TileSource:
    """The pixels and conditions of tiles, and the samples drawn for each.

    Attributes:
        grid: the tiling.
        n_bands: bands of the model.
        read_rows: returns LR rows [start, stop) of the padded frame.
        conditions: on the SR frame.
        device: where the model computes.
        seed: of the noise.
        samples: how many pictures are drawn and averaged.
        has_variance: variances follow the means, band by band.
    """

    grid: TileGrid
    n_bands: int
    read_rows: Callable[[int, int], LrRows]
    conditions: TileConditions
    device: torch.device
    seed: int = 0
    samples: int = 1
    has_variance: bool = False

    @property
    def n_channels(self) -> int:
        """Channels of the mosaic: means, and variances if asked for."""
        return self.n_bands * (2 if self.has_variance else 1)


@dataclass
class Counts:
    """Counts of this process's work; they grow as it works.

    Attributes:
        tiles: tiles done.
        skipped: those of them without a valid pixel.
        batch_size: tiles in one call; halved when memory runs out.
    """

    tiles: int = 0
    skipped: int = 0
    batch_size: int = 1


class ReadTile(NamedTuple):
    """A tile as it was read.

    Attributes:
        tile: its place.
        row: pixels of its whole tile row, shared by the tiles of the row.
        lr: its own pixels.
        conditions: (c, H, W) by name; empty where there are none or nothing is valid.
        is_empty: it has no valid pixel, so the model does not run.
    """

    tile: Tile
    row: LrRows
    lr: LrRows
    conditions: Mapping[str, np.ndarray]
    is_empty: bool


@dataclass(frozen=True)
class TileRunner:
    """Runs the model on consecutive strips.

    Attributes:
        source: of pixels and conditions.
        model: loaded.
        contexts: what the model prepared, one a sample.
        counts: grows.
        show: called after every tile.
        total: tiles that this process will do in all, for progress.
    """

    source: TileSource
    model: SuperResolver
    contexts: Sequence[SceneContext]
    counts: Counts
    show: OnProgress
    total: int

    def compute(
        self,
        span: Span,
        rules: StripRules,
        write: Callable[[FinishedStrip], None],
        keep: Callable[[Piece], None],
        above: Iterable[Piece] = (),
    ) -> None:
        """Compute strips and hand each to `write`, in another thread.

        Strips come in pieces, from left to right, unless they are locked.

        Args:
            span: the strips.
            rules: how strips are finished.
            write: called top to bottom with finished strips or pieces of these.
            keep: called with the pieces of parts of other strips; the part above the
                next strip comes before the end of the last strip.
            above: pieces of the part above the first strip.

        Raises:
            ModelOutputError: NaN, infinity or a wrong shape from the model.
            ResourceError: a single tile does not fit into memory.
        """
        finisher = Finisher(rules, span.strips)
        n_threads = 1 if rules.lock else threads_beside()

        def finish(piece: Piece, lr: LrRows) -> list[FinishedStrip] | Piece:
            return finisher.push(piece, lr) if piece.content == "all" else piece

        def store(finished: Future[list[FinishedStrip] | Piece]) -> None:
            result = finished.result()
            if isinstance(result, Piece):
                keep(result)
            else:
                for strip in result:
                    write(strip)

        with (
            closing(self.blend(span.rows, above)) as blended,
            ThreadPoolExecutor(n_threads, "rsupres-finish") as threads,
            write_behind(store, n_threads) as behind,
        ):
            for item in blended:
                behind.put(threads.submit(finish, *item))
                del item

    def blend(
        self, rows: range, above: Iterable[Piece] = ()
    ) -> Generator[tuple[Piece, LrRows], None, None]:
        """Yield the pieces of blended strips, each with the LR rows around the strip.

        Args:
            rows: tile rows to run, non-empty, step 1.
            above: pieces that rows above give to the first strip.

        Raises:
            ModelOutputError: NaN, infinity or a wrong shape from the model.
            ResourceError: a single tile does not fit into memory.
        """
        source = self.source
        mosaic = Mosaic(source.grid, source.n_channels, rows.start, rows.stop)
        for part in above:
            mosaic.put(part)
        # A batch ahead where conditions are read, else a tile row.
        n_cols = source.grid.shape[1]
        ahead = self.counts.batch_size if source.conditions.has_tiles else n_cols
        with read_ahead(_read_tiles(source, rows), ahead) as items:
            for _, tiles in itertools.groupby(items, lambda item: item.tile.row):
                for row in self._add_row(tiles, mosaic):
                    yield from ((piece, row) for piece in mosaic.finished())

    def _add_row(self, items: Iterable[ReadTile], mosaic: Mosaic) -> Iterator[LrRows]:
        """Upscale a tile row and add it to the mosaic; yield its LR rows each time.

        A batch is run as soon as it is full, so few tiles are held at a time.
        """
        waiting: list[ReadTile] = []
        for item in items:
            waiting.append(item)
            n_used = sum(not item.is_empty for item in waiting)
            if n_used == self.counts.batch_size:
                yield from self._add(waiting, mosaic)
                waiting = []
        yield from self._add(waiting, mosaic)

    def _add(self, items: Sequence[ReadTile], mosaic: Mosaic) -> Iterator[LrRows]:
        results = self._upscale_all([item for item in items if not item.is_empty])
        for item in items:
            if item.is_empty:
                mosaic.skip(item.tile)
                self.counts.skipped += 1
            else:
                mosaic.add(item.tile, next(results))
            self.counts.tiles += 1
            self.show(Progress("Tiles", self.counts.tiles, self.total, "tiles"))
            yield item.row

    def _upscale_all(self, items: Sequence[ReadTile]) -> Iterator[np.ndarray]:
        """Yield one (c, H, W) float32 a tile; smaller batches where memory ends."""
        done = 0
        while done < len(items):
            part = items[done : done + self.counts.batch_size]
            try:
                sr = self._upscale(part)
            except (MemoryError, RuntimeError) as error:
                if not _is_out_of_memory(error):
                    raise
                self._shrink(error, part[0].tile)
            else:
                yield from sr
                done += len(part)

    def _shrink(self, error: BaseException, tile: Tile) -> None:
        size, device = self.counts.batch_size, self.source.device
        if size == 1:
            raise ResourceError(
                f"{device}: one tile of {tile.lr.width} x {tile.lr.height} pixels does "
                "not fit into memory; use smaller tiles.",
                remedies=("tile_size",),
            ) from error
        self.counts.batch_size = size // 2
        text = "%s: out of memory with %d tiles at once; going on with %d."
        logger.warning(text, device, size, size // 2)
        if device.type == "cuda":
            torch.cuda.empty_cache()

    def _upscale(self, items: Sequence[ReadTile]) -> np.ndarray:
        """Return means, and variances if asked for, of one batch: (b, n, H, W)."""
        samples = self.source.samples
        mean, *predicted = self._sample(items, 0)
        if samples == 1 and not self.source.has_variance:
            return mean.cpu().numpy()
        # Welford's update, so that variances do not suffer from cancellation.
        squares = torch.zeros_like(mean)
        for sample in range(1, samples):
            sr = self._sample(items, sample)[0]
            before = sr - mean
            mean += before / (sample + 1)
            squares += before * (sr - mean)
        parts = [mean, *predicted]
        if self.source.has_variance and not predicted:
            parts.append(squares / (samples - 1))
        return torch.cat(parts, dim=1).cpu().numpy()

    def _sample(self, items: Sequence[ReadTile], sample: int) -> tuple[Tensor, ...]:
        """Return SR of a batch, and its variance if wanted and the model knows it."""
        source, device = self.source, self.source.device
        lr = torch.from_numpy(np.stack([item.lr.seen for item in items]))
        valid = torch.from_numpy(np.stack([item.lr.valid for item in items]))
        read = [item.conditions for item in items if item.conditions]
        batch = TileBatch(
            lr=lr.to(device),
            valid=valid.to(device),
            conditions=source.conditions.conditions(read, sample).to(device),
            noise=NoiseField(source.seed, sample),
            windows_lr=[item.tile.lr for item in items],
            windows_sr=[item.tile.sr for item in items],
            scene=self.contexts[sample],
        )
        if source.has_variance and self.model.spec.tails:
            model = cast(PredictsSpread, self.model)
            both = model.upscale_with_variance(batch, source.grid.scale)
            parts = both.tensor_split([source.n_bands], 1)
        else:
            parts = (self.model.upscale(batch, source.grid.scale),)
        for part in parts:
            _check_result(part, batch, [item.tile for item in items])
        return tuple(part.float() for part in parts)


def _read_tiles(source: TileSource, rows: range) -> Iterator[ReadTile]:
    """Yield the tiles of tile rows with their pixels, row-major."""
    grid = source.grid
    for row in rows:
        tiles = grid.tile_row(row)
        whole = rows_around(source, row)
        for tile in tiles:
            lr = _cut(whole, tile)
            is_empty = not lr.valid.any()
            needs_conditions = source.conditions.has_tiles and not is_empty
            read = source.conditions.read(tile.sr) if needs_conditions else {}
            yield ReadTile(tile, whole, lr, read, is_empty)


def rows_around(source: TileSource, row: int) -> LrRows:
    """Return the LR rows of a tile row, and those around it that finishing needs.

    Args:
        source: of the pixels.
        row: of tiles, from 0.
    """
    height, tile = source.grid.lr.height, source.grid.tile_row(row)[0].lr
    top, bottom = tile.row - CUBIC_REACH, tile.row_stop + CUBIC_REACH
    return source.read_rows(max(0, top), min(height, bottom))


def _cut(lr: LrRows, tile: Tile) -> LrRows:
    rows = lr.cut(tile.lr.row, tile.lr.row_stop)
    cols = slice(tile.lr.col, tile.lr.col_stop)
    seen = rows.seen[:, :, cols]
    # Of the model's bands, any will do: those that are invalid alone are filled alone.
    measured = rows.valid[: len(seen), :, cols]
    if rows.hidden is not None:
        measured = measured & ~rows.hidden[:, :, cols]
    valid = np.asarray(measured.any(axis=0, keepdims=True))
    return LrRows(rows.top, seen, None, None, valid)


def _check_result(sr: Tensor, batch: TileBatch, tiles: Sequence[Tile]) -> None:
    first = tiles[0].sr
    shape = (*batch.lr.shape[:2], first.height, first.width)
    if tuple(sr.shape) != shape:
        raise ModelOutputError(
            f"tile {tiles[0].row}, {tiles[0].col}: the model returned the shape "
            f"{tuple(sr.shape)}, expected {shape}."
        )
    if torch.isfinite(sr.sum()):
        return
    for tile, pixels in zip(tiles, sr, strict=True):
        if not torch.isfinite(pixels).all():
            lr = tile.lr
            raise ModelOutputError(
                f"tile {tile.row}, {tile.col} (LR rows {lr.row} to {lr.row_stop}, "
                f"columns {lr.col} to {lr.col_stop}): the model returned NaN or "
                "infinity; unless fp32 helps, the checkpoint is damaged.",
                remedies=("precision=fp32",),
            )


def _is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that memory, not the model, failed."""
    is_named = isinstance(error, (torch.OutOfMemoryError, MemoryError))
    return is_named or any(text in str(error) for text in _CPU_OUT_OF_MEMORY)
