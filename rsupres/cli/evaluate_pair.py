"""`rsupres evaluate SR HR`: figures of a picture against the truth."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rsupres.cli.console import Console
from rsupres.cli.options.evaluation import Options, find_lpips

if TYPE_CHECKING:
    from rsupres.evaluation.pairs import Layer


def evaluate_pair(
    console: Console, sr_path: str, hr_path: str, options: Options
) -> None:
    """Measure SR against HR on their common grid and show the figures."""
    from rsupres.evaluation.metrics import consistency
    from rsupres.evaluation.pairs import (
        Request,
        load_lr,
        load_pair,
        match_histogram,
        shrink_to,
    )
    from rsupres.evaluation.report import Row, score, table_lines
    from rsupres.raster.stretch import parse_stretch

    if options.tile_size is not None and options.lr is None:
        raise click.UsageError("--tile-size needs --lr, whose grid the tiles lie on.")
    if options.align is not None and not options.resample:
        raise click.UsageError("--align warps HR; give --resample with it.")
    request = Request(
        parse_stretch(options.stretch),
        options.resample,
        options.hr_nodata,
        options.align,
    )
    pair, sr, stretch = load_pair(sr_path, hr_path, request)
    scale, extra = Fraction(1), {}
    if options.lr is not None:
        shrunk, lr, scale = shrink_to(load_lr(options.lr, sr_path, stretch), sr)
        found = consistency(shrunk.pixels, lr.pixels, lr.valid)
        extra = {"consistency": found.mean_abs, "consistency_rms": found.rms}
        if options.tile_size is not None:
            extra["seam"] = _seam(sr, lr, scale, options)
    tested = pair.sr
    if options.match:
        tested = match_histogram(pair.sr, pair.hr, pair.valid)
    figures = score(
        tested,
        pair.hr,
        float(scale),
        border=options.border or 0,
        valid=pair.valid,
        lpips=find_lpips(options, "cpu"),
    )
    if options.lr is None:
        figures.pop("ergas")  # needs the scale
    name = Path(sr_path).name
    row = Row(
        name, str(scale) if options.lr else "-", Path(hr_path).name, 1, figures | extra
    )
    record = row.to_json() | {
        "valid_pixels": int(pair.valid.sum()),
        "hr_moved_by": list(pair.moved),
    }
    console.emit(record, "\n".join(table_lines([row])))


def _seam(sr: Layer, lr: Layer, scale: Fraction, options: Options) -> float:
    from rsupres.evaluation.metrics import seam_ratio, tile_borders
    from rsupres.grid import TileGrid

    assert options.tile_size is not None
    tiles = TileGrid.plan(
        lr.grid, scale, options.tile_size, options.overlap, options.halo
    )
    rows, cols = tile_borders(tiles)
    return seam_ratio(sr.pixels, rows, cols, sr.valid)
