"""Cut a frame into tiles that suit a model, and say how many go into one call."""

from __future__ import annotations

from fractions import Fraction

from rsupres.errors import InputError
from rsupres.families.base import ModelSpec
from rsupres.grid import Grid, ceil_div, round_up
from rsupres.output.tiff.profile import BLOCK
from rsupres.tile_grid import TileGrid, even_side, fit_side, lr_step, machine_memory

# LR pixels of blending beyond the halos of two neighbouring tiles.
_DEFAULT_RAMP = 8
_EXACT_RAMP = 2  # where both neighbours have the same pixels
# Sides of default tiles in overlaps: a twelfth of the rows and a twenty-ninth of the
# columns are computed twice. Wide tiles leave strips, which memory must hold, low.
_ROWS, _COLS = 13, 30
# Blocks of a COG along the sides of tiles that are packed, at least, and how many rows
# or columns are computed then, at the most, over those needed.
_PACKED_BLOCKS = 1, 2
_PACKED_EXCESS = Fraction(134, 125)
# Memory that a tile of a model's own side takes in float32, about, and the shares of
# the machine's that go to a tile and to a strip of the mosaic. Locking holds whole
# strips, about five times over; else a few of their rows are held.
_TILE_BYTES = 340 * 2**20
_TILE_SHARE, _STRIP_SHARE, _LOCKED_SHARE = 4, 8, 16
# SR bytes of one batch on a CPU; more only costs memory there.
_CPU_BATCH_BYTES = 16 * 2**20
_MAX_CPU_BATCH = 8  # tiles
_GPU_BATCH = 16  # tiles
_GPU_PIXELS = 16 * 256**2  # LR pixels of one batch


def plan_tiles(
    frame: Grid,
    scale: Fraction,
    spec: ModelSpec,
    model: str,
    size: int | None = None,
    overlap: int | None = None,
    n_bands: int = 3,
    *,
    lock: bool = False,
) -> TileGrid:
    """Return the tiles of a frame.

    Args:
        frame: LR pixels of the scene.
        scale: SR pixels along one LR pixel.
        spec: of the model.
        model: its name, for messages.
        size: LR pixels along a tile's side; None = fitted to the frame, as large as the
            memory of the machine lets tiles of the model be.
        overlap: LR pixels that neighbours share; None = two halos and a ramp.
        n_bands: of the output, whose strips default tiles leave room for.
        lock: low frequencies are locked.

    Raises:
        InputError: the size is too small for the model's halo.
        GridError: size or overlap do not fit the scale.
    """
    step = lr_step(scale, spec.multiple)
    floor = 2 * spec.halo + 1
    shared = _default_overlap(spec, step) if overlap is None else overlap
    if size is None:
        least = max(round_up(spec.tile_size, step), round_up(shared + floor, step))
        limits = _limits(least, frame.width * scale**2 * n_bands, lock=lock)
        height, width = _fitted_sides(frame, least, limits, shared, step)
        if spec.exact:
            height, width = _packed_sides(frame, (height, width), shared, scale)
        sides = height, shared, spec.halo, spec.multiple, width
        return TileGrid.plan(frame, scale, *sides)
    if overlap is None and shared >= size:
        least = round_up(floor, step) + step
        raise InputError(
            f"{size} is too small for model {model}, whose halo is {spec.halo}; use at "
            f"least {round_up(shared + 1, step)}, or {least} with an overlap of "
            f"{round_up(floor, step)}.",
            argument="tile_size",
            remedies=("overlap",),
        )
    return TileGrid.plan(frame, scale, size, shared, spec.halo, spec.multiple)


def _default_overlap(spec: ModelSpec, step: int) -> int:
    """Return two halos and a ramp, in LR pixels."""
    ramp = _EXACT_RAMP if spec.exact else _DEFAULT_RAMP
    return round_up(2 * spec.halo + ramp, step)


def _fitted_sides(
    frame: Grid, least: int, limits: tuple[int, int], overlap: int, step: int
) -> tuple[int, int]:
    """Return height and width of tiles that cut a frame with little to spare.

    Args:
        frame: LR pixels of the scene.
        least: side of the model's own tiles, which its memory suits.
        limits: rows, and pixels, of a tile that memory allows.
        overlap: LR pixels that neighbours share.
        step: of all sides.
    """
    n_rows, n_cols = (round_up(n, step) for n in (frame.height, frame.width))
    highest = max(least, min(limits[0], limits[1] // least))
    rows = max(least, min(_ROWS * overlap, highest))
    height = fit_side(n_rows, round_up(rows, step), overlap, step)
    height = even_side(n_rows, height, round_up(highest, step), overlap, step)
    cols = max(least, min(_COLS * overlap, limits[1] // max(rows, height)))
    return height, fit_side(n_cols, round_up(cols, step), overlap, step)


def _packed_sides(
    frame: Grid, fitted: tuple[int, int], overlap: int, scale: Fraction
) -> tuple[int, int]:
    """Return height and width of tiles by which a mosaic grows by blocks of a COG.

    Blocks are then compressed as they come (`rsupres.output.tiff.packed_strip`).

    Args:
        frame: LR pixels of the scene.
        fitted: sides that fit it; each stays where no other does.
        overlap: LR pixels that neighbours share.
        scale: SR pixels along one LR pixel.
    """
    distance = BLOCK / scale
    if distance.denominator > 1:
        return fitted
    sides = []
    for length, side, least in zip(
        (frame.height, frame.width), fitted, _PACKED_BLOCKS, strict=True
    ):
        n_blocks = max(least, (side - overlap) // int(distance))
        packed = n_blocks * int(distance) + overlap
        n_tiles = ceil_div(length - overlap, packed - overlap)
        fits = n_tiles * packed <= _PACKED_EXCESS * length
        sides.append(packed if fits else side)
    height, width = sides
    return height, width


def _limits(least: int, row_values: Fraction, *, lock: bool) -> tuple[int, int]:
    """Return how many LR rows, and pixels, of a default tile memory allows.

    Args:
        least: side of the model's own tiles.
        row_values: of the mosaic's rows on one LR row, in float32.
        lock: low frequencies are locked.
    """
    memory = machine_memory()
    share = _LOCKED_SHARE if lock else _STRIP_SHARE
    strip_rows = int(memory / (4 * row_values) / share)
    return strip_rows, least**2 * max(1, memory // _TILE_SHARE // _TILE_BYTES)


def find_batch_size(grid: TileGrid, n_bands: int, device: str) -> int:
    """Return how many tiles suit one call of a model on a device.

    Args:
        grid: the tiling.
        n_bands: bands of the model.
        device: where it computes.
    """
    height, width = grid.tile_shape
    if device != "cpu":
        return max(1, min(_GPU_BATCH, _GPU_PIXELS // (height * width)))
    n_values = height * width * grid.scale**2 * max(n_bands, 1)
    return max(1, min(_MAX_CPU_BATCH, int(_CPU_BATCH_BYTES // (4 * n_values))))
