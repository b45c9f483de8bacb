"""Measure what a page plots: differences from the input, histograms, power, seams.

Figures of a whole run come from its tags. The rest is measured here: on the whole
result where it is small, else on windows that are spread over it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import Resampling
from scipy.ndimage import distance_transform_edt

from rsupres.evaluation.measures.seams import seam_ratio, tile_borders
from rsupres.grid import Grid, PixelWindow, ceil_div
from rsupres.report.sources import Floats, Picture, Sources, read_on
from rsupres.tile_grid import TileGrid

MAX_WHOLE = 1_600  # SR pixels along a side that are measured at once
WINDOW = 512  # SR pixels along a side of a window of a larger result
N_ALONG = 4  # windows along each side
MAX_MAP = 360  # pixels along a side of the map of differences
N_BINS = 60
N_RINGS = 48

Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class DifferenceMap:
    """The result brought back to LR pixels, less its input.

    Attributes:
        values: (h, w) mean over the bands, as a share of the range; NaN = not known.
        grid: frame of the values.
        step: LR pixels along a side of a value.
    """

    values: Floats
    grid: Grid
    step: int


@dataclass(frozen=True)
class Histogram:
    """Shares of values of one band, by picture.

    Attributes:
        band: name.
        edges: of the bins, in the file's numbers.
        shares: by name of the picture; each sums up to at most 1.
    """

    band: str
    edges: tuple[float, ...]
    shares: dict[str, tuple[float, ...]]


@dataclass(frozen=True)
class Spectrum:
    """Power by frequency, all directions alike.

    Attributes:
        frequency: cycles per LR pixel; 0.5 is the finest that the input can show.
        power_db: by name of the picture, dB.
    """

    frequency: tuple[float, ...]
    power_db: dict[str, tuple[float | None, ...]]


@dataclass(frozen=True)
class Measured:
    """Measurements on the pixels.

    Attributes:
        histograms: one for each band.
        spectrum: of the mean of the shown bands; None for a result too small.
        seam: gradient across tile borders over that elsewhere; NaN without borders.
        seam_over_input: the same, over that of the enlarged input, which has no seams;
            edges of the ground that lie on a tile border cancel.
        detail: share of the variation that is finer than the input can show.
        hr_detail: the same of the truth; NaN without.
        share: of the result's pixels that were measured.
    """

    histograms: tuple[Histogram, ...]
    spectrum: Spectrum | None
    seam: float
    seam_over_input: float
    detail: float
    hr_detail: float
    share: float


def difference_map(sources: Sources) -> DifferenceMap | None:
    """Return where the result, averaged over LR pixels, differs from its input."""
    lr, sr = sources.lr, sources.sr
    if lr is None:
        return None
    frame = sources.frame.refine(1 / sources.scale)
    step = ceil_div(max(frame.height, frame.width), MAX_MAP)
    grid = frame.refine(Fraction(1, step))
    pairs = [(s, i) for s, i in sr.same_bands(lr) if s in sr.rgb]
    spans = np.array([sr.spans[band - 1] for band, _ in pairs])[:, None, None]
    ours = read_on(sr.raster, [s for s, _ in pairs], grid, Resampling.average)
    theirs = read_on(lr.raster, [i for _, i in pairs], grid, Resampling.average)
    values = ((ours - theirs) / spans).mean(axis=0)
    return DifferenceMap(values.astype(np.float32), grid, step)


def measure(sources: Sources, tiles: TileGrid | None) -> Measured:
    """Return the figures of a result, measured window by window.

    Args:
        sources: open.
        tiles: how it was tiled, None = not known.
    """
    tally = _Tally(sources, tiles)
    windows = list(measured_windows(sources.frame, sources.scale))
    for window in windows:
        tally.add(window)
    frame = sources.frame
    area = sum(window.height * window.width for window in windows)
    return tally.result(area / (frame.height * frame.width))


def measured_windows(frame: Grid, scale: Fraction) -> Iterator[PixelWindow]:
    """Yield the windows that are measured, on whole LR pixels.

    Args:
        frame: of the result.
        scale: SR pixels along one LR pixel.
    """
    step = scale.numerator
    starts = [_starts(n, step) for n in (frame.height, frame.width)]
    for row, height in starts[0]:
        for col, width in starts[1]:
            yield PixelWindow(row, col, height, width)


def _starts(length: int, step: int) -> list[tuple[int, int]]:
    if length <= MAX_WHOLE:
        return [(0, max(step, length // step * step))]
    side = WINDOW // step * step
    last = length - side
    return [(last * k // (N_ALONG - 1) // step * step, side) for k in range(N_ALONG)]


class _Tally:
    """Sums over the windows of a result."""

    def __init__(self, sources: Sources, tiles: TileGrid | None) -> None:
        self._sources = sources
        self._borders = ([], []) if tiles is None else tile_borders(tiles)
        self._pictures: dict[str, Picture] = {"result": sources.sr}
        if sources.lr is not None:
            self._pictures["input"] = sources.lr
        if sources.hr is not None:
            self._pictures["truth"] = sources.hr
        self._edges: list[Doubles] = []
        self._counts: dict[str, list[Doubles]] = {}
        self._rings: dict[str, list[Doubles]] = {}
        self._seams: list[tuple[float, float, int]] = []

    def add(self, window: PixelWindow) -> None:
        """Take one window."""
        frame = self._sources.frame.crop(window)
        scale = self._sources.scale
        for name, picture in self._pictures.items():
            grid = frame.refine(1 / scale) if name == "input" else frame
            pixels = read_on(picture.raster, [*self._bands(name).values()], grid)
            self._count(name, pixels)
            shown = self._shown(name, pixels)
            per_lr = 1.0 if name == "input" else float(scale)
            if (rings := ring_power(shown, per_lr)) is not None:
                self._rings.setdefault(name, []).append(rings)
            if name == "result":
                self._add_seam(pixels, window)

    def _bands(self, name: str) -> dict[int, int]:
        """Return by the result's bands those of a picture that mean the same."""
        return dict(self._sources.sr.same_bands(self._pictures[name]))

    def _shown(self, name: str, pixels: Floats) -> Floats:
        """Return (h, w): the mean of the bands shown, in units of their ranges."""
        rgb, bands = self._sources.sr.rgb, self._bands(name)
        places = [k for k, band in enumerate(bands) if band in rgb]
        own = [band for result, band in bands.items() if result in rgb]
        spans = [self._pictures[name].spans[band - 1] for band in own]
        shown = pixels[places] / np.array(spans, np.float32)[:, None, None]
        return np.asarray(shown.mean(axis=0))

    def _count(self, name: str, pixels: Floats) -> None:
        """Add the values to the histograms; the first window decides on the bins."""
        if not self._edges:
            self._edges = [_bins(band) for band in pixels]
        if name == "truth" and not _same_numbers(self._pictures):
            return
        bands = self._sources.sr.raster.data_bands
        counts = self._counts.setdefault(
            name, [np.zeros(N_BINS + 1) for _ in self._edges]
        )
        for band, values in zip(self._bands(name), pixels, strict=True):
            place = bands.index(band)
            known = values[np.isfinite(values)]
            counts[place][:-1] += np.histogram(known, self._edges[place])[0]
            counts[place][-1] += known.size

    def _add_seam(self, pixels: Floats, window: PixelWindow) -> None:
        """Add the seams of a window, in the result and in the enlarged input."""
        rows = [r - window.row for r in self._borders[0]]
        cols = [c - window.col for c in self._borders[1]]
        rows = [r for r in rows if 0 < r < window.height]
        cols = [c for c in cols if 0 < c < window.width]
        if not rows and not cols:
            return
        lr, frame = self._sources.lr, self._sources.frame.crop(window)
        ratios = [_seam(pixels, rows, cols), math.nan]
        if lr is not None:
            enlarged = read_on(lr.raster, [*self._bands("input").values()], frame)
            ratios[1] = _seam(enlarged, rows, cols)
        if math.isfinite(ratios[0]):
            self._seams.append((ratios[0], ratios[1], len(rows) + len(cols)))

    def result(self, share: float) -> Measured:
        """Return the figures of all windows together."""
        rings = {name: np.mean(found, axis=0) for name, found in self._rings.items()}
        seam, of_input = (
            np.average([s[k] for s in self._seams], weights=[s[2] for s in self._seams])
            if self._seams
            else math.nan
            for k in (0, 1)
        )
        return Measured(
            histograms=tuple(self._histograms()),
            spectrum=_spectrum(rings, float(self._sources.scale)),
            seam=float(seam),
            seam_over_input=float(seam / of_input),
            detail=_beyond_input(rings.get("result"), float(self._sources.scale)),
            hr_detail=_beyond_input(rings.get("truth"), float(self._sources.scale)),
            share=min(1.0, share),
        )

    def _histograms(self) -> Iterator[Histogram]:
        raster = self._sources.sr.raster
        for place, band in enumerate(raster.data_bands):
            shares = {
                name: tuple((counts[place][:-1] / counts[place][-1]).tolist())
                for name, counts in self._counts.items()
                if counts[place][-1]
            }
            name = raster.descriptions[band - 1] or f"band {band}"
            yield Histogram(name, tuple(self._edges[place].tolist()), shares)


def _seam(pixels: Floats, rows: Sequence[int], cols: Sequence[int]) -> float:
    valid = np.asarray(np.isfinite(pixels).all(axis=0))
    return seam_ratio(np.where(valid, pixels, 0), rows, cols, valid)


def _same_numbers(pictures: dict[str, Picture]) -> bool:
    """Return whether numbers of the truth mean what those of the result mean."""
    sr, hr = pictures["result"].raster, pictures["truth"].raster
    return sr.dtype == hr.dtype and set(sr.scales) == set(hr.scales)


def _bins(band: Floats) -> Doubles:
    known = band[np.isfinite(band)]
    if not known.size:
        return np.linspace(0, 1, N_BINS + 1)
    low, high = np.percentile(known, (0.2, 99.8)).tolist()
    span = max(high - low, 1e-6)
    step = span * 1.1 / N_BINS
    if not str(band.dtype).startswith("float") or float(known[0]).is_integer():
        step = max(1.0, math.ceil(step))  # so that no bin lacks a whole number
    start = math.floor(low - 0.05 * span)
    return np.asarray(start + step * np.arange(N_BINS + 1), np.float64)


def ring_power(picture: np.ndarray, per_lr: float) -> Doubles | None:
    """Return the power in rings of equal frequency, up to the picture's own limit.

    Args:
        picture: (h, w), NaN where not known.
        per_lr: its pixels along one LR pixel.

    Returns:
        (N_RINGS,) of frequencies 0 to `per_lr / 2` cycles per LR pixel; power density
        per LR pixel, so that pictures of any pixel size compare. None for a picture
        that is too small or mostly unknown.
    """
    known = np.isfinite(picture)
    if min(picture.shape) < 16 or known.mean() < 0.5:
        return None
    filled = picture.astype(np.float64)
    if not known.all():
        nearest = distance_transform_edt(
            ~known, return_distances=False, return_indices=True
        )
        filled = filled[tuple(nearest)]
    window = np.outer(*(np.hanning(n + 2)[1:-1] for n in picture.shape))
    centred = (filled - filled.mean()) * window
    power = np.abs(np.fft.fft2(centred)) ** 2 / (window**2).sum() / per_lr**2
    rows, cols = (np.fft.fftfreq(n) for n in picture.shape)
    radius = np.hypot(rows[:, None], cols[None, :]) * 2  # 1 is the picture's limit
    ring = np.minimum((radius * N_RINGS).astype(int), N_RINGS)
    sums = np.bincount(ring.ravel(), power.ravel(), N_RINGS + 1)[:N_RINGS]
    counts = np.bincount(ring.ravel(), minlength=N_RINGS + 1)[:N_RINGS]
    return np.asarray(np.where(counts > 0, sums / np.maximum(counts, 1), np.nan))


def _spectrum(rings: dict[str, Doubles], scale: float) -> Spectrum | None:
    if "result" not in rings:
        return None
    frequency = (np.arange(N_RINGS) + 0.5) / N_RINGS * scale / 2
    top = np.nanmax(rings["result"][1:])
    power: dict[str, tuple[float | None, ...]] = {}
    for name, values in rings.items():
        own = (np.arange(N_RINGS) + 0.5) / N_RINGS * (1 if name == "input" else scale)
        there = np.interp(frequency, own / 2, values, right=np.nan)
        there[frequency > own[-1] / 2 + 1e-9] = np.nan
        decibels = 10 * np.log10(np.maximum(there / top, 1e-12))
        power[name] = tuple(_listed(decibels))
    return Spectrum(tuple(frequency.tolist()), power)


def _beyond_input(rings: Doubles | None, scale: float) -> float:
    """Return the share of the power beyond the input's finest frequency."""
    if rings is None or scale <= 1:
        return math.nan
    weights = np.arange(N_RINGS) + 0.5  # rings grow with their radius
    power = np.nan_to_num(rings) * weights
    beyond = (np.arange(N_RINGS) + 0.5) / N_RINGS > 1 / scale
    total = power[1:].sum()
    return float(power[beyond].sum() / total) if total > 0 else math.nan


def _listed(values: Sequence[float] | Doubles) -> list[float | None]:
    return [round(float(v), 3) if math.isfinite(v) else None for v in values]
