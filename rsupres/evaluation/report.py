"""Measure all figures of a picture, average rows of figures, and lay out their table.

The figures themselves are in `rsupres.evaluation.measures` and `.perceptual`. Nothing
here opens files or runs models.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rsupres.evaluation.measures import metrics
from rsupres.evaluation.measures.edges import find_edges, map_borders
from rsupres.raster.place.registration import find_shift

if TYPE_CHECKING:
    from rsupres.evaluation.perceptual.weights import Measure


class Column(NamedTuple):
    """Presentation of a figure: heading, digits after the point, meaning."""

    heading: str
    digits: int
    meaning: str


COLUMNS: Mapping[str, Column] = {
    "psnr": Column("PSNR", 3, "dB over all bands"),
    "ssim": Column("SSIM", 4, "mean of the bands"),
    "psnr_y": Column("PSNR-Y", 3, "dB of BT.601 Y"),
    "ssim_y": Column("SSIM-Y", 4, "of BT.601 Y"),
    "sam": Column("SAM", 3, "spectral angle, degrees"),
    "ergas": Column("ERGAS", 3, "relative error in synthesis"),
    "ndvi_rmse": Column("NDVI", 4, "RMS error of the vegetation index"),
    "ndvi_bias": Column("NDVI-bias", 4, "mean error of the vegetation index"),
    "ndwi_rmse": Column("NDWI", 4, "RMS error of the water index"),
    "ndwi_bias": Column("NDWI-bias", 4, "mean error of the water index"),
    "edge_f1": Column("edge-F1", 3, "F1 of edges within a pixel of the truth's"),
    "edge_f1_map": Column("F1-map", 3, "the same near borders of the map"),
    "lpips_squeeze": Column("LPIPS(sq)", 4, "LPIPS (squeeze)"),
    "lpips_alex": Column("LPIPS(al)", 4, "LPIPS (alex)"),
    "lpips_vgg": Column("LPIPS(vg)", 4, "LPIPS (vgg)"),
    "dists": Column("DISTS", 4, "distance of structure and texture"),
    "clip_iqa": Column("CLIP-IQA", 4, "share of CLIP for a good photo"),
    "musiq": Column("MUSIQ", 2, "predicted rating by people, about 0 to 100"),
    "niqe": Column("NIQE", 3, "distance from sharp photographs"),
    "fid": Column("FID", 2, "distance of all results and all truths"),
    "kid": Column("KID", 5, "the same by a kernel, without bias by their number"),
    "niqe_aerial": Column("NIQE-air", 3, "distance from sharp aerial images"),
    "ms_ssim": Column("MS-SSIM", 4, "SSIM at five scales"),
    "uiqi": Column("UIQI", 4, "universal image quality index"),
    "synthesis": Column("synth", 5, "mean |SR - enlarged LR| of range"),
    "improvement": Column("improved", 4, "share of pixels moved towards the truth"),
    "omission": Column("omitted", 4, "share of pixels left as the input"),
    "hallucination": Column("halluc", 4, "share of pixels far from both"),
    "lr_sam": Column("SAM-LR", 3, "angle of reduced SR and LR, degrees"),
    "lr_shift": Column("shift-LR", 3, "shift of reduced SR against LR, LR pixels"),
    "consistency": Column("cons", 5, "RMS of downscaled SR - LR, share of the range"),
    "consistency_mae": Column("cons-mae", 5, "mean absolute value of the same"),
    "shift_row": Column("dy", 2, "shift against HR, SR pixels, down"),
    "shift_col": Column("dx", 2, "shift against HR, SR pixels, right"),
    "seam": Column("seam", 4, "gradient across tile borders / elsewhere"),
}


@dataclass(frozen=True)
class Row:
    """Figures of one picture, or means over several.

    Attributes:
        model: name of the model, or of the method, that made the picture.
        scale: text such as "4" or "10/3".
        image: name; None for a mean.
        n_images: how many pictures went into it.
        figures: by name of `COLUMNS`; a missing figure was not measured.
    """

    model: str
    scale: str
    image: str | None
    n_images: int
    figures: Mapping[str, float]

    def to_json(self) -> dict[str, object]:
        """Return the row flat; figures that are not finite become None."""
        numbers = {
            name: value if math.isfinite(value) else None
            for name, value in self.figures.items()
        }
        return {
            "model": self.model,
            "scale": self.scale,
            "image": self.image,
            "images": self.n_images,
            **numbers,
        }


def score(
    sr: np.ndarray,
    hr: np.ndarray,
    scale: float,
    *,
    border: int,
    valid: np.ndarray | None = None,
    perceptual: Mapping[str, Measure] | None = None,
    chart: np.ndarray | None = None,
) -> dict[str, float]:
    """Return the figures of a picture against the truth, by name of `COLUMNS`.

    PSNR, SSIM, SAM, ERGAS and edges leave out a border, where every method lacks the
    pixels beyond; LPIPS and shift take the whole picture. Y and LPIPS need three bands,
    and take the first three for red, green and blue.

    Args:
        sr: (c, H, W) in [0, 1].
        hr: the same shape and range.
        scale: LR GSD divided by SR GSD.
        border: pixels left out at every side.
        valid: (H, W) bool; None = all.
        perceptual: functions of the first three bands, by figure; None = none.
        chart: (3, H, W) uint8, a map in a legend's colours; edges near its borders are
            measured too; None = no map.
    """
    whole = metrics.checked_mask(sr, hr, valid)
    inner = without_border(whole, border)
    figures = {
        "psnr": metrics.psnr(sr, hr, inner),
        "ssim": metrics.ssim(sr, hr, inner),
    }
    if sr.shape[0] >= 3:
        y_sr, y_hr = metrics.luma(sr[:3]), metrics.luma(hr[:3])
        figures["psnr_y"] = metrics.psnr(y_sr, y_hr, inner)
        figures["ssim_y"] = metrics.ssim(y_sr, y_hr, inner)
    figures["sam"] = metrics.sam_deg(sr, hr, inner)
    figures["ergas"] = metrics.ergas(sr, hr, scale, inner)
    edges = find_edges(sr, hr, inner)
    figures["edge_f1"] = edges.f1()
    if chart is not None:
        figures["edge_f1_map"] = edges.f1(map_borders(chart))
    if sr.shape[0] >= 3:
        for name, measure in (perceptual or {}).items():
            figures[name] = measure(sr[:3], hr[:3], whole)
    shift = find_shift(sr, hr, whole)
    return {**figures, "shift_row": shift.row, "shift_col": shift.col}


def without_border(mask: NDArray[np.bool_], border: int) -> NDArray[np.bool_]:
    """Return a mask that is False near its sides.

    Args:
        mask: (H, W).
        border: pixels at every side that become False.
    """
    height, width = mask.shape
    window = np.s_[border : height - border, border : width - border]
    inner = np.zeros_like(mask)
    inner[window] = mask[window]
    return inner


def mean_rows(rows: Iterable[Row]) -> list[Row]:
    """Average the rows of each model and scale, in the order of their first rows.

    Decibels are averaged as decibels. A picture without a figure (NaN) does not count
    in that figure's mean.
    """
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.model, row.scale), []).append(row)
    means = []
    for (model, scale), group in groups.items():
        figures = {}
        for name in COLUMNS:
            values = [row.figures[name] for row in group if name in row.figures]
            known = [value for value in values if not math.isnan(value)]
            if values:
                figures[name] = sum(known) / len(known) if known else math.nan
        means.append(Row(model, scale, None, len(group), figures))
    return means


def table_lines(rows: Sequence[Row]) -> list[str]:
    """Lay out rows as lines of text below headings; a missing figure shows as "-"."""
    shown = [name for name in COLUMNS if any(name in row.figures for row in rows)]
    width = max([len(row.model) for row in rows] + [5])
    image = max([len(row.image or f"mean of {row.n_images}") for row in rows] + [5])
    cells = [f"{COLUMNS[name].heading:>9}" for name in shown]
    lines = [f"{'model':{width}} {'scale':>5} {'image':{image}} " + " ".join(cells)]
    for row in rows:
        cells = []
        for name in shown:
            value = row.figures.get(name, math.nan)
            text = "-" if math.isnan(value) else f"{value:.{COLUMNS[name].digits}f}"
            cells.append(f"{text:>9}")
        label = row.image or f"mean of {row.n_images}"
        lines.append(
            f"{row.model:{width}} {row.scale:>5} {label:{image}} " + " ".join(cells)
        )
    return lines
