"""Find the parts of a job that decide its cost."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from rsupres.families import SENSOR_READERS
from rsupres.products.sharpen import REACH
from rsupres.upscaling.estimates.costs import Load
from rsupres.upscaling.preparation.work import Work

_FINE = 2  # fine pixels along a coarse one, of bands that a network sharpens


def find_load(work: Work) -> Load:
    """Return those properties of a job that decide its cost."""
    grid, spec, card = work.grid, work.model.spec, work.model.card
    n_model = len(work.bands.roles)
    n_variances = n_model if work.has_deviation else 0
    (height, width), output = grid.tile_shape, work.sr_grid
    strip = max(grid.strip(row).height for row in range(grid.shape[0]))
    options = work.model.options
    return Load(
        model=card.name,
        family=spec.family,
        precision=options.precision,
        weights_bytes=card.file.stat().st_size if card.file else 0,
        tile_sr=int(height * width * grid.scale**2),
        tile_lr=height * width,
        n_tiles=len(grid),
        batch=min(work.batch_size, grid.shape[1]),
        n_bands=n_model,
        scene_sr=int(grid.sr.height * grid.sr.width),
        scene_lr=grid.lr.height * grid.lr.width,
        strip_values=grid.sr.width * strip * (len(work.order) + n_variances),
        written_values=output.width * output.height * len(work.order),
        float_values=output.width * output.height * n_model * n_float_rasters(work),
        samples=work.job.samples,
        n_conditions=len(work.job.given_conditions),
        passes=_passes(work),
        detail=options.detail if spec.detail else 0.0,
        sharpening=work.sharpening,
        sharpened_lr=_sharpened_lr(work),
    )


def n_float_rasters(work: Work) -> int:
    """Return how many rasters of float32 a job writes beside its output."""
    return (work.job.uncertainty is not None) + 2 * (work.job.interval is not None)


def _passes(work: Work) -> int:
    """Return how often the networks run on a tile: once for bands that run together."""
    family = work.model.spec.family
    if family not in SENSOR_READERS:
        return 1
    reader: Any = import_module(SENSOR_READERS[family])
    return len(reader.band_groups(len(work.bands.roles)))


def _sharpened_lr(work: Work) -> int:
    """Return the LR pixels that are sharpened while tile rows are read."""
    coarse = work.scene.refinement.coarse if work.sharpening else {}
    if not coarse.keys() & set(work.file_bands):
        return 0
    around = 2 * _FINE * REACH
    n_rows = work.grid.shape[0] * (work.grid.tile_shape[0] + around)
    return n_rows * work.grid.lr.width
