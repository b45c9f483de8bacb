"""Measure a super-resolved picture against the truth: `rsupres evaluate SR HR`.

A request names the files and how they are brought together; the result is one row of
figures. `rsupres.evaluation.pairs` reads and aligns the pictures,
`rsupres.evaluation.report` measures them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypedDict, Unpack, cast

import numpy as np

from rsupres.errors import InputError
from rsupres.evaluation.measures.calibration import Calibration, calibrate_file
from rsupres.evaluation.measures.indices import INDICES, index_figures
from rsupres.evaluation.measures.metrics import consistency
from rsupres.evaluation.measures.seams import seam_ratio, tile_borders
from rsupres.evaluation.pairs import (
    Layer,
    Pair,
    Preparation,
    load_lr,
    load_pair,
    match_histogram,
    shrink_to,
)
from rsupres.evaluation.perceptual.weights import load_measures
from rsupres.evaluation.report import Row, score, without_border
from rsupres.grid import PixelWindow
from rsupres.raster.files import StrPath
from rsupres.raster.stretch import StretchChoice, parse_stretch
from rsupres.tile_grid import TileGrid


@dataclass(frozen=True)
class PairRequest:
    """Two pictures to compare, and how; see `PairOptions` for the other fields.

    Attributes:
        sr: the picture under test, a raster file.
        hr: the truth.
        align: as the option, () = by the displacement found.
        border: SR pixels left out at every side, the option `crop_border`; None = 0.
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
    metric_weights: Path | None = None
    calibration: str | None = None
    all_figures: bool = False
    indices: tuple[str, ...] = ()


@dataclass(frozen=True)
class PairResult:
    """Figures of one picture.

    Attributes:
        row: the figures.
        valid_pixels: SR pixels that were compared.
        moved: by how much HR was moved, SR pixels (down, right).
        calibration: of predicted errors, None when none were given.
    """

    row: Row
    valid_pixels: int
    moved: tuple[float, float]
    calibration: Calibration | None = None

    @property
    def more_figures(self) -> dict[str, float]:
        """Figures of predicted errors, by name; empty when none were given."""
        found = self.calibration
        if found is None:
            return {}
        return {
            "spread_skill": found.spread_skill,
            "spread_error_correlation": found.correlation,
        }

    def to_json(self) -> dict[str, object]:
        """Return JSON-able values, the figures flat among them."""
        return self.row.to_json() | {
            "valid_pixels": self.valid_pixels,
            "hr_moved_by": list(self.moved),
            **({"calibration": self.calibration.to_json()} if self.calibration else {}),
        }


_FOLDERS = ("lpips_weights", "metric_weights")


class PairOptions(TypedDict, total=False):
    """Options of `evaluate`, by the command's names.

    Attributes:
        lr: the input of `sr`, for consistency and ERGAS.
        resample: warp the truth to the grid of `sr` where they differ.
        hr_nodata: pixels of the truth with this number in every band are invalid.
        align: move the truth by these SR pixels (down, right), or "auto": by the
            displacement found; needs `resample`.
        match_histogram: give `sr` the truth's distribution of values before.
        stretch: which range of numbers is 0 to 1 in the figures.
        tile_size: LR pixels of the tiles that `sr` was made in, for the seam ratio;
            needs `lr`.
        overlap: of those tiles, LR pixels.
        halo: of the model that made them, LR pixels.
        crop_border: SR pixels left out at every side for PSNR, SSIM, SAM and ERGAS.
        lpips_weights: folder of the LPIPS (squeeze) weights; None = the folder that the
            environment variable `RSUPRES_LPIPS` names, else no LPIPS.
        metric_weights: folder with weights of LPIPS (squeeze, alex, vgg), DISTS,
            CLIP-IQA, MUSIQ and NIQE; None = the folder that the environment variable
            `RSUPRES_METRIC_WEIGHTS` names, else none.
        all_figures: measure MS-SSIM, UIQI, NIQE, and with `lr` those of opensr-test.
        calibration: raster of standard deviations that ``uncertainty`` wrote for `sr`.
        indices: "ndvi" and "ndwi"; errors of these, from red, green and near infrared.
    """

    lr: StrPath | None
    resample: bool
    hr_nodata: float | None
    align: tuple[float, float] | Literal["auto"] | None
    match_histogram: bool
    stretch: str
    tile_size: int | None
    overlap: int
    halo: int
    crop_border: int
    lpips_weights: StrPath | None
    metric_weights: StrPath | None
    all_figures: bool
    calibration: StrPath | None
    indices: Sequence[str]


def evaluate(
    sr: StrPath,
    hr: StrPath,
    **options: Unpack[PairOptions],
) -> PairResult:
    """Measure a picture against the truth, as `rsupres evaluate SR HR` does.

    Args:
        sr: the picture under test.
        hr: the truth.
        **options: see `PairOptions`.

    Returns:
        The figures, on the common ground and the valid pixels of both.

    Raises:
        RsupresError: as `measure_pair`.

    Examples:
        >>> import rsupres
        >>> found = rsupres.evaluate("x4.tif", "truth.tif")  # doctest: +SKIP
        >>> found.row.figures["psnr"]  # doctest: +SKIP
        33.54
    """
    values = cast("dict[str, Any]", options)
    kinds = {"lr": os.fspath, "calibration": os.fspath}
    for name, kind in (kinds | dict.fromkeys(_FOLDERS, Path)).items():
        if values.get(name) is not None:
            values[name] = kind(values[name])
    if values.get("align") == "auto":
        values["align"] = ()
    values["border"] = values.pop("crop_border", 0)
    return measure_pair(PairRequest(os.fspath(sr), os.fspath(hr), **values))


def measure_pair(request: PairRequest) -> PairResult:
    """Measure SR against HR where both have valid pixels.

    Raises:
        InputError: a file cannot be read, the two share no valid pixel, or an argument
            is missing that another one needs.
        BandError: no bands in common.
        GridError: the grids differ and `request.resample` is off, or LR does not fit.
        CheckpointError: the LPIPS weights that are named are missing or damaged.
    """
    check_request(request)
    preparation = Preparation(
        parse_stretch(request.stretch),
        request.resample,
        request.hr_nodata,
        request.align,
    )
    pair, sr, stretch = load_pair(request.sr, request.hr, preparation)
    of_lr = _OfInput(Fraction(1), {}, None, None)
    if request.lr is not None:
        of_lr = _compare_with_lr(sr, load_lr(request.lr, request.sr, stretch), request)
    tested = pair.sr
    if request.match_histogram:
        tested = match_histogram(pair.sr, pair.hr, pair.valid)
    figures = score(
        tested,
        pair.hr,
        float(of_lr.scale),
        border=request.border or 0,
        valid=pair.valid,
        perceptual=load_measures(
            request.metric_weights, request.lpips_weights, "cpu"
        ).measures,
    )
    if request.lr is None:
        figures.pop("ergas")  # needs the scale
    name, truth = Path(request.sr).name, Path(request.hr).name
    shown_scale = "-" if request.lr is None else str(of_lr.scale)
    if request.all_figures:
        figures |= _all_figures(tested, pair, of_lr)
    figures |= _index_figures(request, preparation, pair)
    row = Row(name, shown_scale, truth, 1, figures | of_lr.figures)
    found = None
    if request.calibration is not None:
        found = calibrate_file(request.calibration, pair, stretch)
    moved = (pair.moved[0], pair.moved[1])
    return PairResult(row, int(pair.valid.sum()), moved, found)


def check_request(request: PairRequest) -> None:
    """Refuse an argument without the one that it needs.

    Raises:
        InputError: a tile size without LR, a shift without resampling, an unknown
            index, or predicted errors of values that are changed.
    """
    if unknown := [name for name in request.indices if name not in INDICES]:
        raise InputError(
            f"{unknown[0]!r} is none of {', '.join(INDICES)}.", argument="indices"
        )
    if request.tile_size is not None and request.lr is None:
        raise InputError(
            f"{request.tile_size}: the tiles lie on the grid of LR, which is missing.",
            argument="tile_size",
            remedies=("lr",),
        )
    if request.calibration is not None and request.match_histogram:
        raise InputError(
            "gives SR other values than those whose errors are predicted.",
            argument="match_histogram",
        )
    if request.align is not None and not request.resample:
        raise InputError(
            "warps HR, which was not asked for.",
            argument="align",
            remedies=("resample",),
        )


def _index_figures(
    request: PairRequest, preparation: Preparation, pair: Pair
) -> dict[str, float]:
    """Return the errors of indices; reflectance 0 stays 0, HR is moved as before."""
    figures: dict[str, float] = {}
    align = None if request.align is None else (pair.moved[0], pair.moved[1])
    for name in request.indices:
        of_bands = replace(
            preparation,
            stretch=StretchChoice("reflectance"),
            align=align,
            roles=INDICES[name],
        )
        bands, _, _ = load_pair(request.sr, request.hr, of_bands)
        inner = without_border(bands.valid, request.border or 0)
        figures |= index_figures(name, bands.sr, bands.hr, inner)
    return figures


class _OfInput(NamedTuple):
    """The scale and figures that LR adds, and SR and LR on LR pixels, None without."""

    scale: Fraction
    figures: dict[str, float]
    shrunk: Layer | None
    lr: Layer | None


def _all_figures(tested: np.ndarray, pair: Pair, of_lr: _OfInput) -> dict[str, float]:
    """Return the figures that are measured only when asked for."""
    from rsupres.evaluation.measures.more import (
        enlarge,
        opensr_figures,
        similarity_figures,
    )
    from rsupres.evaluation.measures.opensr import consistency_figures

    figures = similarity_figures(tested, pair.hr, pair.valid)
    shrunk, lr = of_lr.shrunk, of_lr.lr
    if shrunk is None or lr is None:
        return figures
    size = [int(n * of_lr.scale) for n in lr.valid.shape]
    whole = enlarge(np.where(lr.valid, lr.pixels, 0), (size[0], size[1]))
    frame = PixelWindow(0, 0, size[0], size[1])
    inside = pair.window.intersection(frame)
    if inside is not None:
        part = inside.relative_to(pair.window).slices()
        figures |= opensr_figures(
            tested[:, *part],
            pair.hr[:, *part],
            whole[:, *inside.slices()],
            pair.valid[part],
        )
    return figures | consistency_figures(shrunk.pixels, lr.pixels, lr.valid)


def _compare_with_lr(sr: Layer, lr: Layer, request: PairRequest) -> _OfInput:
    """Return the scale, and the figures that need the LR input."""
    shrunk, lr, scale = shrink_to(lr, sr)
    found = consistency(shrunk.pixels, lr.pixels, lr.valid)
    figures = {"consistency": found.rms, "consistency_mae": found.mean_abs}
    if request.tile_size is not None:
        tiles = TileGrid.plan(
            lr.grid, scale, request.tile_size, request.overlap, request.halo
        )
        figures["seam"] = seam_ratio(sr.pixels, *tile_borders(tiles), sr.valid)
    return _OfInput(scale, figures, shrunk, lr)
