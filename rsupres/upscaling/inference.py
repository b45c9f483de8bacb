"""Tiles of one shard through the model and into finished strips.

Reading runs ahead by one tile row or, with conditions, by one batch of tiles; the model
runs in the calling thread, finishing and writing one strip behind. Batches never span
tile rows, so a resumed run forms the same batches as one that was never stopped. The
caller has set `torch.inference_mode`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from rsupres.blend import Mosaic, Strip
from rsupres.blocks.separable import CUBIC_REACH
from rsupres.diffusion.noise import NoiseField
from rsupres.errors import ModelOutputError, ResourceError
from rsupres.execution import OnProgress, Progress, read_ahead, write_behind
from rsupres.families.base import Conditions, SceneContext, SuperResolver, TileBatch
from rsupres.grid import PixelWindow
from rsupres.raster.stretch import split_excess
from rsupres.tile_grid import Tile
from rsupres.upscaling.finishing import FinishedStrip, Finisher, LrRows, lock_rows
from rsupres.upscaling.work import Work

if TYPE_CHECKING:
    from rsupres.output.run_dir import Run

logger = logging.getLogger(__name__)

_CPU_OUT_OF_MEMORY = ("can't allocate memory", "not enough memory")


@dataclass
class Counts:
    """What this process did so far; grows as it works.

    Attributes:
        tiles: tiles done.
        skipped: those of them without a valid pixel.
        batch_size: tiles in one call; halved when memory runs out.
    """

    tiles: int = 0
    skipped: int = 0
    batch_size: int = 1


class _RowOfTiles(NamedTuple):
    row: int
    lr: LrRows


class _TileConditions(NamedTuple):
    """Conditions of one tile; those of a row's tiles follow its `_RowOfTiles`."""

    arrays: Mapping[str, np.ndarray]


_Item = _RowOfTiles | _TileConditions


@dataclass(frozen=True)
class PreparedScene:
    """The scene as a model sees it while it prepares: a `SceneReader`.

    Attributes:
        work: the settled job.
        prefix: of the names of arrays, one per sample.
        run: where the arrays live.
        show: told how far down the scene the model has read.
        sample: which of the run's samples is prepared.
    """

    work: Work
    prefix: str
    run: Run
    show: OnProgress
    sample: int = 0
    _deepest: list[int] = field(default_factory=lambda: [0])

    @property
    def height(self) -> int:
        """LR rows of the padded frame."""
        return self.work.grid.lr.height

    @property
    def width(self) -> int:
        """LR columns of the padded frame."""
        return self.work.grid.lr.width

    def read(self, window: PixelWindow) -> tuple[np.ndarray, np.ndarray]:
        """Return (c, h, w) float32 in [0, 1], filled, and (1, h, w) bool valid."""
        work = self.work
        roles = work.bands.roles
        dn, valid = work.scene.read_filled(window, roles)
        first = work.stretch.for_bands(range(1, len(roles) + 1))
        deepest = max(self._deepest[0], window.row_stop)
        self._deepest[0] = deepest
        self.show(Progress("Prepare", deepest, self.height, "rows"))
        return split_excess(first.to_unit(dn))[0], valid

    def read_conditions(self, window_sr: PixelWindow) -> Conditions:
        """Return the conditions on an SR window as a batch of one, on the CPU."""
        return self.work.conditions.read_conditions(window_sr, self.sample)

    @property
    def style(self) -> Tensor | None:
        """The style image of this sample, (c, Hs, Ws) in [0, 1]."""
        return self.work.conditions.conditions((), self.sample).style

    def allocate(self, name: str, shape: Sequence[int], dtype: str) -> np.ndarray:
        """Return a zeroed array that lives in the run directory."""
        return self.run.allocate(f"{self.prefix}{name}", shape, dtype)


def prepare_samples(
    work: Work, model: SuperResolver, run: Run, show: OnProgress
) -> SceneContext:
    """Let the model find what all tiles share, for every sample.

    Returns:
        One context; names begin with ``s<sample>_``, see `context_of`.
    """
    arrays: dict[str, np.ndarray] = {}
    numbers: dict[str, float] = {}
    for sample in range(work.job.samples):
        prefix = f"s{sample}_"
        scene = PreparedScene(work, prefix, run, show, sample)
        noise = NoiseField(work.job.seed, sample)
        context = model.prepare(scene, work.grid.scale, noise)
        arrays |= {prefix + name: value for name, value in context.arrays.items()}
        numbers |= {prefix + name: value for name, value in context.numbers.items()}
    return SceneContext(arrays, numbers)


def context_of(whole: SceneContext, sample: int) -> SceneContext:
    """Return one sample's part of what `prepare_samples` returned."""
    prefix = f"s{sample}_"
    return SceneContext(
        {
            k.removeprefix(prefix): v
            for k, v in whole.arrays.items()
            if k.startswith(prefix)
        },
        {
            k.removeprefix(prefix): v
            for k, v in whole.numbers.items()
            if k.startswith(prefix)
        },
    )


@dataclass(frozen=True)
class TileRunner:
    """Runs the model on consecutive strips.

    Attributes:
        work: the settled job.
        model: loaded.
        context: of all samples.
        counts: grows.
        show: progress.
        total: tiles that this process will do in all, for progress.
    """

    work: Work
    model: SuperResolver
    context: SceneContext
    counts: Counts
    show: OnProgress
    total: int

    def compute(self, strips: range, write: Callable[[FinishedStrip], None]) -> None:
        """Compute consecutive strips and hand each to `write`, in another thread.

        Args:
            strips: non-empty, step 1.
            write: called top to bottom with finished strips.

        Raises:
            ModelOutputError: NaN, infinity or a wrong shape from the model.
            ResourceError: a single tile does not fit into memory.
        """
        work = self.work
        rows, stop = tile_rows(work, strips)
        n_channels = len(work.bands.roles) * (2 if work.has_deviation else 1)
        mosaic = Mosaic(work.grid, n_channels, rows.start, stop)
        finisher = Finisher(work.rules, strips, write)

        def finish(item: tuple[Strip, LrRows]) -> None:
            finisher.push(*item)

        depth = work.batch_size if work.conditions.has_tiles else 1
        with (
            read_ahead(_read_items(work, rows), depth) as items,
            write_behind(finish) as behind,
        ):
            for item in items:
                assert isinstance(item, _RowOfTiles)
                self._run_row(item, items, mosaic)
                for strip in mosaic.finished():
                    behind.put((strip, item.lr))
                    del strip

    def _run_row(
        self, item: _RowOfTiles, items: Iterator[_Item], mosaic: Mosaic
    ) -> None:
        tiles = list(self.work.grid.tile_row(item.row))
        used = _used(item.lr, tiles)
        cuts = [_cut(item.lr, tile) for tile in used]
        results = self._upscale_all(used, cuts, items)
        for tile in tiles:
            if tile in used:
                mosaic.add(tile, next(results))
            else:
                mosaic.skip(tile)
                self.counts.skipped += 1
            self.counts.tiles += 1
            self.show(Progress("Tiles", self.counts.tiles, self.total, "tiles"))

    def _upscale_all(
        self, tiles: Sequence[Tile], cuts: Sequence[LrRows], items: Iterator[_Item]
    ) -> Iterator[np.ndarray]:
        """Yield one (c, H, W) float32 a tile; smaller batches where memory ends."""
        done = 0
        read: list[Mapping[str, np.ndarray]] = []  # conditions from tile `done` on
        while done < len(tiles):
            size = min(self.counts.batch_size, len(tiles) - done)
            part = slice(done, done + size)
            if self.work.conditions.has_tiles:
                read += [_arrays(next(items)) for _ in range(size - len(read))]
            try:
                sr = self._upscale(tiles[part], cuts[part], read[:size])
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                if not _is_out_of_memory(error):
                    raise
                self._shrink(error, tiles[done])
                continue
            yield from sr
            done += size
            del read[:size]

    def _shrink(self, error: BaseException, tile: Tile) -> None:
        size = self.counts.batch_size
        device = self.work.device
        if size == 1:
            raise ResourceError(
                f"{device}: one tile of {tile.lr.height} x {tile.lr.width} pixels does "
                "not fit into memory; use smaller tiles.",
                remedies=("tile_size",),
            ) from error
        self.counts.batch_size = size // 2
        logger.warning(
            "%s: out of memory with %d tiles at once; going on with %d.",
            device,
            size,
            self.counts.batch_size,
        )
        if device.type == "cuda":
            torch.cuda.empty_cache()

    def _upscale(
        self,
        tiles: Sequence[Tile],
        cuts: Sequence[LrRows],
        read: Sequence[Mapping[str, np.ndarray]],
    ) -> np.ndarray:
        """Return means, and variances if asked for, of one batch: (b, n, H, W)."""
        samples = self.work.job.samples
        mean = self._sample(tiles, cuts, read, 0)
        if samples == 1:
            return mean.cpu().numpy()
        # Welford's update, so that variances do not suffer from cancellation.
        squares = torch.zeros_like(mean)
        for sample in range(1, samples):
            sr = self._sample(tiles, cuts, read, sample)
            before = sr - mean
            mean += before / (sample + 1)
            squares += before * (sr - mean)
        if not self.work.has_deviation:
            return mean.cpu().numpy()
        return torch.cat([mean, squares / (samples - 1)], dim=1).cpu().numpy()

    def _sample(
        self,
        tiles: Sequence[Tile],
        cuts: Sequence[LrRows],
        read: Sequence[Mapping[str, np.ndarray]],
        sample: int,
    ) -> Tensor:
        device, scale = self.work.device, self.work.grid.scale
        lr = torch.from_numpy(np.stack([cut.seen for cut in cuts]))
        valid = torch.from_numpy(np.stack([cut.valid for cut in cuts]))
        batch = TileBatch(
            lr=lr.to(device),
            valid=valid.to(device),
            conditions=self.work.conditions.conditions(read, sample).to(device),
            noise=NoiseField(self.work.job.seed, sample),
            windows_lr=[tile.lr for tile in tiles],
            windows_sr=[tile.sr for tile in tiles],
            scene=context_of(self.context, sample),
        )
        sr = self.model.upscale(batch, scale)
        _check_result(sr, batch, tiles)
        return sr.float()


def tile_rows(work: Work, strips: range) -> tuple[range, int]:
    """Return the tile rows to run for strips, and where the mosaic's strips end.

    Locking low frequencies needs the strips around, too.
    """
    grid = work.grid
    first, stop = strips.start, strips.stop
    if work.job.lock_low_frequencies:
        starts = [int(grid.strip(row).row / grid.scale) for row in range(grid.shape[0])]
        edges = [*starts, grid.lr.height]
        low = lock_rows((edges[strips.start], edges[strips.start + 1]), grid)[0]
        high = lock_rows((edges[strips.stop - 1], edges[strips.stop]), grid)[1]
        first = max(row for row, start in enumerate(starts) if start <= low)
        stop = min(row for row, end in enumerate(edges) if end >= high)
    return range(grid.rows_touching(first).start, stop), stop


def _read_items(work: Work, rows: range) -> Iterator[_Item]:
    """Read tile rows, each followed by the conditions of its tiles that are run."""
    for item in _read_rows(work, rows):
        yield item
        if work.conditions.has_tiles:
            for tile in _used(item.lr, work.grid.tile_row(item.row)):
                yield _TileConditions(work.conditions.read(tile.sr))


def _read_rows(work: Work, rows: range) -> Iterator[_RowOfTiles]:
    """Read tile rows, each with the rows around it that its strip needs."""
    grid = work.grid
    n_model = len(work.bands.roles)
    for row in rows:
        tile = grid.tile_row(row)[0]
        top = max(0, tile.lr.row - CUBIC_REACH)
        bottom = min(grid.lr.height, tile.lr.row_stop + CUBIC_REACH)
        window = PixelWindow(top, 0, bottom - top, grid.lr.width)
        dn, valid = work.scene.read_filled(window, work.file_bands)
        unit = work.stretch.to_unit(dn)
        seen, excess = split_excess(unit[:n_model])
        yield _RowOfTiles(
            row,
            LrRows(
                top,
                seen,
                excess if excess.any() else None,
                unit[n_model:] if len(unit) > n_model else None,
                valid,
            ),
        )


def _arrays(item: _Item) -> Mapping[str, np.ndarray]:
    assert isinstance(item, _TileConditions)
    return item.arrays


def _used(lr: LrRows, tiles: Sequence[Tile]) -> list[Tile]:
    """Return the tiles of a row that hold a valid pixel; the others are not run."""
    return [tile for tile in tiles if _cut(lr, tile).valid.any()]


def _cut(lr: LrRows, tile: Tile) -> LrRows:
    rows = lr.cut(tile.lr.row, tile.lr.row_stop)
    cols = slice(tile.lr.col, tile.lr.col_stop)
    return rows._replace(
        seen=rows.seen[:, :, cols],
        excess=None,
        others=None,
        valid=rows.valid[:, :, cols],
    )


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
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return any(text in str(error) for text in _CPU_OUT_OF_MEMORY)
