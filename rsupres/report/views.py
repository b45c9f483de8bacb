"""Choose the parts of a result that a page shows, and draw every layer of each.

A small result is shown whole, pixel by pixel. A large one is shown whole at a reduced
size, and in parts at full size: where it differs most from its input, where it has most
texture, and its middle. All layers of a part lie on the same pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import partial
from typing import NamedTuple

import numpy as np
from rasterio.enums import Resampling
from scipy.ndimage import uniform_filter

from rsupres.evaluation.measures.seams import tile_borders
from rsupres.grid import Grid, PixelWindow, ceil_div
from rsupres.raster.place.warp import places
from rsupres.report.measure import DifferenceMap
from rsupres.report.pictures import (
    DIVERGING_RAMP,
    RAMP,
    Limits,
    colour_by,
    encode,
    find_limits,
    shade,
)
from rsupres.report.sources import (
    Floats,
    Picture,
    Sources,
    read_map,
    read_mask,
    read_on,
)
from rsupres.tile_grid import TileGrid

MAX_OVERVIEW = 960  # pixels along a side of a reduced result
RGB, NIR, ANY = "rgb", "nir", "any"


class Room(NamedTuple):
    """Sizes of the pictures of a page, SR pixels along a side.

    Attributes:
        whole: a result up to here is shown whole, pixel by pixel.
        part: of a part at full size.
    """

    whole: int
    part: int


# From much to little; the first that makes no page too large is taken.
ROOMS = (Room(1024, 448), Room(720, 448), Room(512, 320), Room(320, 224))


@dataclass(frozen=True)
class Layer:
    """A picture of a view.

    Attributes:
        key: such as "sr".
        mode: natural colours, false colours, or the same in both.
        name: as the page shows it.
        text: what it shows, for those who cannot see it.
        uri: the picture.
        scale: (colour, text) of its legend; empty without one.
    """

    key: str
    mode: str
    name: str
    text: str
    uri: str
    scale: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class View:
    """A part of a result.

    Attributes:
        name: as the page shows it.
        window: SR pixels.
        step: SR pixels along a side of a pixel that is shown.
        grid: frame of what is shown.
        rows: of the tile borders, in pixels that are shown.
        cols: columns of them.
        layers: the pictures.
    """

    name: str
    window: PixelWindow
    step: int
    grid: Grid
    rows: tuple[float, ...] = ()
    cols: tuple[float, ...] = ()
    layers: tuple[Layer, ...] = ()


@dataclass(frozen=True)
class Shown:
    """All views of a result.

    Attributes:
        views: the whole first.
        limits: numbers shown black and white, by colour mode.
        mask_share: share of the change mask that changed; None without a mask.
        map_words: the map in one line; "" without a map.
        coverage: share of the result that references, truth and input cover, by name.
    """

    views: tuple[View, ...]
    limits: Mapping[str, Limits]
    mask_share: float | None = None
    map_words: str = ""
    coverage: Mapping[str, float] = field(default_factory=dict)


def choose_views(
    sources: Sources, difference: DifferenceMap | None, room: Room
) -> list[View]:
    """Return the parts to show, without layers.

    Args:
        sources: open.
        difference: of the result from its input.
        room: how many pixels are shown.
    """
    frame = sources.frame
    longest = max(frame.height, frame.width)
    if longest <= room.whole:
        return [View("Whole result", frame.window, 1, frame)]
    step = ceil_div(longest, MAX_OVERVIEW)
    whole = whole_view(frame)
    window = PixelWindow(0, 0, whole.height * step, whole.width * step)
    name = f"Whole result, reduced {step} times" if step > 1 else "Whole result"
    views = [View(name, window, step, whole)]
    seen: set[PixelWindow] = set()
    for name, place in _places(sources, whole, difference):
        part = _part(place, room.part, frame, sources.scale)
        if part not in seen:
            seen.add(part)
            views.append(View(name, part, 1, frame.crop(part)))
    return views


def whole_view(frame: Grid) -> Grid:
    """Return a frame reduced by a whole number to `MAX_OVERVIEW` pixels a side."""
    longest = max(frame.height, frame.width)
    return frame.refine(Fraction(1, ceil_div(longest, MAX_OVERVIEW)))


def _places(
    sources: Sources, whole: Grid, difference: DifferenceMap | None
) -> Iterator[tuple[str, tuple[float, float]]]:
    """Yield names of parts, and their middle as shares of height and width."""
    if difference is not None:
        size = np.nan_to_num(np.abs(difference.values))
        yield "Largest difference from the input", _peak(size)
    grey = read_on(sources.sr.raster, sources.sr.rgb, whole).mean(axis=0)
    known = np.isfinite(grey)
    slopes = np.hypot(*np.gradient(np.where(known, grey, np.nan)))
    yield "Finest texture", _peak(np.nan_to_num(slopes))
    yield "Middle", (0.5, 0.5)


def _peak(values: np.ndarray) -> tuple[float, float]:
    """Return where the mean over a tenth of the picture is largest, as shares."""
    size = max(3, max(values.shape) // 10)
    smooth = uniform_filter(values.astype(np.float64), size, mode="constant")
    row, col = np.unravel_index(int(smooth.argmax()), smooth.shape)
    return (row + 0.5) / values.shape[0], (col + 0.5) / values.shape[1]


def _part(
    place: tuple[float, float], side: int, frame: Grid, scale: Fraction
) -> PixelWindow:
    """Return a window around a place, on whole LR pixels, inside the frame."""
    step = scale.numerator
    starts, sides = [], []
    for share, length in zip(place, (frame.height, frame.width), strict=True):
        n = max(step, min(side, length) // step * step)
        start = min(max(0, round(share * length) - n // 2), length - n)
        starts.append(start // step * step)
        sides.append(n)
    return PixelWindow(starts[0], starts[1], sides[0], sides[1])


def draw(
    sources: Sources,
    difference: DifferenceMap | None,
    tiles: TileGrid | None,
    room: Room,
) -> Shown:
    """Return every layer of every view, drawn.

    Args:
        sources: open.
        difference: of the result from its input.
        tiles: how it was tiled, None = not known.
        room: how many pixels are shown.
    """
    painter = _Painter(sources, difference)
    borders = ([], []) if tiles is None else tile_borders(tiles)
    views = []
    for view in choose_views(sources, difference, room):
        top, left = view.window.row, view.window.col
        rows = [(r - top) / view.step for r in borders[0]]
        cols = [(c - left) / view.step for c in borders[1]]
        views.append(
            replace(
                view,
                rows=tuple(r for r in rows if 0 < r < view.grid.height),
                cols=tuple(c for c in cols if 0 < c < view.grid.width),
                layers=tuple(painter.layers(view)),
            )
        )
    return Shown(
        tuple(views),
        painter.limits,
        painter.mask_share,
        painter.map_words,
        painter.coverage,
    )


class _Painter:
    """Draws layers; limits and shares are found on the first view, the whole."""

    def __init__(self, sources: Sources, difference: DifferenceMap | None) -> None:
        self._sources = sources
        self._difference = difference
        self._own: dict[str, Limits] = {}
        self._top = 0.0
        self.limits: dict[str, Limits] = {}
        self.mask_share: float | None = None
        self.map_words = ""
        self.coverage: dict[str, float] = {}

    def layers(self, view: View) -> Iterator[Layer]:
        """Yield the layers of a view, in the order in which the page lists them."""
        lossless = view.step == 1
        for mode in (RGB, NIR):
            for key, name, text, paint in self._photographs(view.grid, mode):
                uri = encode(paint(), lossless=lossless or key == "lr")
                yield Layer(key, mode, name, text, uri)
        yield from self._measures(view.grid)
        yield from self._conditions(view.grid)

    def _photographs(
        self, grid: Grid, mode: str
    ) -> Iterator[tuple[str, str, str, Callable[[], np.ndarray]]]:
        """Yield key, name, text and painter of the pictures of a colour mode."""
        sources = self._sources
        colours = "natural colours" if mode == RGB else "false colours, infrared as red"
        todo: list[tuple[str, str, Picture, Resampling]] = []
        if sources.lr is not None:
            lr = sources.lr
            todo += [
                ("lr", "Input, its own pixels", lr, Resampling.nearest),
                ("bicubic", "Input, bicubic", lr, Resampling.cubic),
            ]
        todo += [("sr", "Result", sources.sr, Resampling.nearest)]
        if sources.hr is not None:
            todo += [("hr", "Truth", sources.hr, Resampling.cubic)]
        for key, name, picture, kernel in todo:
            bands = picture.rgb if mode == RGB else picture.nir
            if not bands or (mode == NIR and not sources.sr.nir):
                continue
            pixels = read_on(picture.raster, bands, grid, kernel)
            self._cover(key, pixels)
            limits = self._limits(key, mode, picture, pixels)
            text = f"{name} in {colours}"
            yield key, name, text, partial(shade, pixels, limits)

    def _cover(self, key: str, pixels: Floats) -> None:
        share = float(np.isfinite(pixels).all(axis=0).mean())
        self.coverage.setdefault(key, share)

    def _limits(self, key: str, mode: str, picture: Picture, pixels: Floats) -> Limits:
        """Return limits of a picture: those of the input, where numbers are alike."""
        sr = self._sources.sr.raster
        if (
            picture.raster.dtype == sr.dtype
            and picture.raster.scales[:1] == sr.scales[:1]
        ):
            if mode not in self.limits:
                self.limits[mode] = find_limits(pixels)
            return self.limits[mode]
        return self._own.setdefault(f"{key} {mode}", find_limits(pixels))

    def _measures(self, grid: Grid) -> Iterator[Layer]:
        """Yield layers of uncertainty and of the difference from the input."""
        sources = self._sources
        if sources.uncertainty is not None:
            picture = sources.uncertainty
            spread = read_on(picture.raster, picture.raster.data_bands, grid)
            values = spread.mean(axis=0)
            if not self._top:
                known = values[np.isfinite(values)]
                self._top = float(np.percentile(known, 99)) if known.size else 1.0
            legend = _legend(RAMP, ("0", f"{self._top / 2:.3g}", f"{self._top:.3g}"))
            uri = encode(colour_by(values, 0.0, self._top))
            text = "Standard deviation over the samples, in the numbers of the result"
            yield Layer("uncertainty", ANY, "Uncertainty", text, uri, legend)
        if self._difference is not None:
            yield self._difference_layer(grid, self._difference)

    def _difference_layer(self, grid: Grid, difference: DifferenceMap) -> Layer:
        values = _on_view(difference, grid)
        top = difference_top(difference)
        legend = _legend(
            DIVERGING_RAMP, (f"-{100 * top:.2g} %", "0", f"+{100 * top:.2g} %")
        )
        uri = encode(colour_by(values, -top, top, DIVERGING_RAMP))
        text = "Result brought back to the input's pixels, less the input"
        return Layer("difference", ANY, "Difference from the input", text, uri, legend)

    def _conditions(self, grid: Grid) -> Iterator[Layer]:
        given = self._sources.given
        if self._sources.references:
            pixels = _topmost(self._sources.references, grid)
            self._cover("reference", pixels)
            limits = self._own.setdefault("reference", find_limits(pixels))
            uri = encode(shade(pixels, limits))
            text = "Earlier image that the model was given"
            yield Layer("reference", ANY, "Reference", text, uri)
        if given.vector_map:
            colours, self.map_words = read_map(given.vector_map, grid, given.legend)
            uri = encode(_rgba(colours))
            text = "Map that the model was given, in its legend's colours"
            yield Layer("map", ANY, "Map", text, uri)
        if given.change_mask is not None:
            colours, share, shown = read_mask(given.change_mask, grid)
            if self.mask_share is None:
                self.mask_share = share
            legend = tuple((colour, name) for name, colour in shown.items())
            text = "Where the land changed since the reference"
            uri = encode(_rgba(colours))
            yield Layer("mask", ANY, "Change mask", text, uri, legend)


def difference_top(difference: DifferenceMap) -> float:
    """Return the difference that is shown in full colour, share of the range."""
    known = np.abs(difference.values[np.isfinite(difference.values)])
    return max(float(np.percentile(known, 99)) if known.size else 0.0, 1e-4)


def _on_view(difference: DifferenceMap, grid: Grid) -> np.ndarray:
    """Return the values of the differences under the pixels of a view."""
    cols = np.linspace(0.5, grid.width - 0.5, grid.width)
    rows = np.linspace(0.5, grid.height - 0.5, grid.height)
    # Both frames share axes, so columns and rows map apart from each other.
    x, _ = places(difference.grid, grid, cols, np.zeros_like(cols))
    _, y = places(difference.grid, grid, np.zeros_like(rows), rows)
    height, width = difference.values.shape
    col = np.clip(np.floor(x).astype(int), 0, width - 1)
    row = np.clip(np.floor(y).astype(int), 0, height - 1)
    return np.asarray(difference.values[row[:, None], col])


def _topmost(references: tuple[Picture, ...], grid: Grid) -> Floats:
    """Return the references on a frame, each where those before it are unknown."""
    out: Floats | None = None
    for picture in references:
        pixels = read_on(picture.raster, picture.rgb, grid)
        if out is None:
            out = pixels
        elif len(out) == len(pixels):
            out = np.where(np.isfinite(out), out, pixels)
    assert out is not None
    return out


def _rgba(colours: Floats) -> np.ndarray:
    alpha = np.where(np.isfinite(colours).all(axis=0), 255, 0)[None]
    return np.moveaxis(
        np.concatenate([np.nan_to_num(colours), alpha]).astype(np.uint8), 0, 2
    )


def _legend(
    ramp: tuple[tuple[int, int, int], ...], texts: tuple[str, str, str]
) -> tuple[tuple[str, str], ...]:
    places = (0, len(ramp) // 2, len(ramp) - 1)
    return tuple(
        ("#{:02x}{:02x}{:02x}".format(*ramp[place]), text)
        for place, text in zip(places, texts, strict=True)
    )
