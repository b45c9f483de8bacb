"""Measure a super-resolved picture against the truth: `rsupres evaluate SR HR`.

A request names the files and how they are brought together; the result is one row of
figures. `rsupres.evaluation.pairs` reads and aligns the pictures,
`rsupres.evaluation.report` measures them.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from rsupres.errors import InputError
from rsupres.evaluation.lpips import load_lpips
from rsupres.evaluation.metrics import consistency
from rsupres.evaluation.pairs import (
    Layer,
    Preparation,
    load_lr,
    load_pair,
    match_histogram,
    shrink_to,
)
from rsupres.evaluation.report import Row, score
from rsupres.evaluation.seams import seam_ratio, tile_borders
from rsupres.raster.stretch import parse_stretch
from rsupres.tile_grid import TileGrid


@dataclass(frozen=True)
class PairRequest:
    """Two pictures to compare, and how.

    Attributes:
        sr: the picture under test, a raster file.
        hr: the truth.
        lr: the input that SR was made of; None = no consistency and no ERGAS.
        resample: warp HR to the grid of SR where the grids differ.
        hr_nodata: HR pixels with this DN in every band are invalid; None = as the file
            says.
        align: move HR by this many SR pixels (down, right); () = by the displacement
            found between the two; None = leave it. Needs `resample`.
        match_histogram: give SR the distribution of values of HR, band by band.
        stretch: which range of DN is 1, for `rsupres.raster.stretch.parse_stretch`.
        tile_size: LR pixels that SR was tiled with; None = no seam ratio. Needs `lr`.
        overlap: LR pixels that its tiles shared.
        halo: LR pixels of the model's halo.
        border: SR pixels left out at every side; None = 0.
        lpips_weights: folder of the LPIPS weights; None = `RSUPRES_LPIPS`.
    """

    sr: str
    hr: str
    lr: str | None = None
    resample: bool = False
    hr_nodata: float | None = None
    align: tuple[float, float] | tuple[()] | None = None
    match_histogram: bool = False
    stretch: str = "auto"
    tile_size: int | None = None
    overlap: int = 0
    halo: int = 0
    border: int | None = None
    lpips_weights: Path | None = None


@dataclass(frozen=True)
class PairResult:
    """Figures of one picture.

    Attributes:
        row: the figures.
        valid_pixels: SR pixels that were compared.
        moved: by how much HR was moved, SR pixels (down, right).
    """

    row: Row
    valid_pixels: int
    moved: tuple[float, float]

    def to_json(self) -> dict[str, object]:
        """Return JSON-able values, the figures flat among them."""
        return self.row.to_json() | {
            "valid_pixels": self.valid_pixels,
            "hr_moved_by": list(self.moved),
        }


def measure_pair(request: PairRequest) -> PairResult:
    """Measure SR against HR where both have valid pixels.

    Raises:
        InputError: a file cannot be read, the two share no valid pixel, or an argument
            is missing that another one needs.
        BandError: no bands in common.
        GridError: the grids differ and `request.resample` is off, or LR does not fit.
        CheckpointError: the LPIPS weights that are named are missing or damaged.
    """
    _check(request)
    preparation = Preparation(
        parse_stretch(request.stretch),
        request.resample,
        request.hr_nodata,
        request.align,
    )
    pair, sr, stretch = load_pair(request.sr, request.hr, preparation)
    scale = Fraction(1)
    of_lr: dict[str, float] = {}
    if request.lr is not None:
        lr = load_lr(request.lr, request.sr, stretch)
        scale, of_lr = _compare_with_lr(sr, lr, request)
    tested = pair.sr
    if request.match_histogram:
        tested = match_histogram(pair.sr, pair.hr, pair.valid)
    figures = score(
        tested,
        pair.hr,
        float(scale),
        border=request.border or 0,
        valid=pair.valid,
        lpips=load_lpips(request.lpips_weights, "cpu"),
    )
    if request.lr is None:
        figures.pop("ergas")  # needs the scale
    name, truth = Path(request.sr).name, Path(request.hr).name
    shown_scale = "-" if request.lr is None else str(scale)
    row = Row(name, shown_scale, truth, 1, figures | of_lr)
    return PairResult(row, int(pair.valid.sum()), (pair.moved[0], pair.moved[1]))


def _check(request: PairRequest) -> None:
    if request.tile_size is not None and request.lr is None:
        raise InputError(
            f"{request.tile_size}: the tiles lie on the grid of LR, which is missing.",
            argument="tile_size",
            remedies=("lr",),
        )
    if request.align is not None and not request.resample:
        raise InputError(
            "warps HR, which was not asked for.",
            argument="align",
            remedies=("resample",),
        )


def _compare_with_lr(
    sr: Layer, lr: Layer, request: PairRequest
) -> tuple[Fraction, dict[str, float]]:
    """Return the scale, and the figures that need the LR input."""
    shrunk, lr, scale = shrink_to(lr, sr)
    found = consistency(shrunk.pixels, lr.pixels, lr.valid)
    figures = {"consistency": found.mean_abs, "consistency_rms": found.rms}
    if request.tile_size is not None:
        tiles = TileGrid.plan(
            lr.grid, scale, request.tile_size, request.overlap, request.halo
        )
        figures["seam"] = seam_ratio(sr.pixels, *tile_borders(tiles), sr.valid)
    return scale, figures
