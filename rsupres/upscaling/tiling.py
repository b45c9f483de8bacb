"""Cut a frame into tiles that suit a model, and say how many go into one call."""

from __future__ import annotations

from fractions import Fraction

from rsupres.errors import InputError
from rsupres.families.base import ModelSpec
from rsupres.grid import Grid, round_up
from rsupres.tile_grid import TileGrid, lr_step

# LR pixels of blending beyond the halos of two neighbouring tiles.
_DEFAULT_RAMP = 8
# SR bytes of one batch on a CPU; more only costs memory there.
_CPU_BATCH_BYTES = 16 * 2**20
_MAX_CPU_BATCH = 8  # tiles
_GPU_BATCH = 16  # tiles


def plan_tiles(
    frame: Grid,
    scale: Fraction,
    spec: ModelSpec,
    model: str,
    size: int | None = None,
    overlap: int | None = None,
) -> TileGrid:
    """Return the tiles of a frame.

    Args:
        frame: LR pixels of the scene.
        scale: SR pixels along one LR pixel.
        spec: of the model.
        model: its name, for messages.
        size: LR pixels along a tile's side; None = the model's, rounded up to what the
            scale asks.
        overlap: LR pixels that neighbours share; None = two halos and a ramp.

    Raises:
        InputError: the size is too small for the model's halo.
        GridError: size or overlap do not fit the scale.
    """
    step = lr_step(scale, spec.multiple)
    floor = 2 * spec.halo + 1
    shared = overlap
    if shared is None:
        shared = round_up(2 * spec.halo + _DEFAULT_RAMP, step)
    if size is None:
        size = max(round_up(spec.tile_size, step), round_up(shared + floor, step))
    elif overlap is None and shared >= size:
        least = round_up(floor, step) + step
        raise InputError(
            f"{size} is too small for model {model}, whose halo is {spec.halo}; use at "
            f"least {round_up(shared + 1, step)}, or {least} with an overlap of "
            f"{round_up(floor, step)}.",
            argument="tile_size",
            remedies=("overlap",),
        )
    return TileGrid.plan(frame, scale, size, shared, spec.halo, spec.multiple)


def find_batch_size(grid: TileGrid, n_bands: int, device: str) -> int:
    """Return how many tiles suit one call of a model on a device.

    Args:
        grid: the tiling.
        n_bands: bands of the model.
        device: where it computes.
    """
    if device != "cpu":
        return _GPU_BATCH
    height, width = grid.tile_shape
    n_values = height * width * grid.scale**2 * max(n_bands, 1)
    return max(1, min(_MAX_CPU_BATCH, int(_CPU_BATCH_BYTES // (4 * n_values))))
