"""Open what a page shows, and read it on the pixels of a view.

Bands are found by their names, as models find them. A view is a frame: a part of the
result at full size, or all of it reduced. Sources finer than the frame are averaged,
what is coarser is enlarged by the kernel that the caller names. Memory depends on the
frame, not on the file, because reduced reads use the file's overviews.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import Resampling

from rsupres.change.mask import ChangeMask
from rsupres.conditions.maps import is_drawn
from rsupres.errors import BandError, GridError
from rsupres.grid import Grid, PixelWindow
from rsupres.legends.legend import DEFAULT_COLOUR_LEGEND
from rsupres.legends.legend_file import load_legend
from rsupres.output.tiff.geotiff import read_tags
from rsupres.raster.bands import choose_bands
from rsupres.raster.dataset import Raster
from rsupres.raster.files import StrPath
from rsupres.raster.place.warp import places, source_pixels_per_pixel, source_window
from rsupres.raster.stack import open_scenes
from rsupres.raster.stretch import StretchChoice, find_stretch
from rsupres.raster.virtual import warp_array
from rsupres.tile_grid import TileGrid
from rsupres.vector.map import VectorMap

Floats = NDArray[np.float32]

ALIGNED = 0.01  # pixels; frames closer than that are the same frame
RGB = ("red", "green", "blue")
NIR = ("nir", "red", "green")


@dataclass(frozen=True)
class Given:
    """Files of a page, named as the arguments of `rsupres.make_report`.

    Attributes:
        sr: the result.
        change_mask: the argument `mask`, polygons or a class raster.
    """

    sr: str
    lr: tuple[str, ...] = ()
    hr: str | None = None
    vector_map: tuple[str, ...] = ()
    legend: str | None = None
    reference: tuple[str, ...] = ()
    change_mask: str | None = None
    uncertainty: str | None = None

    @property
    def files(self) -> Mapping[str, Sequence[str]]:
        """Names of the files that are read, by argument."""
        single = {
            "target": self.sr,
            "hr": self.hr,
            "mask": self.change_mask,
            "uncertainty": self.uncertainty,
        }
        several = {
            "lr": self.lr,
            "vector_map": self.vector_map,
            "reference": self.reference,
        }
        return {k: (v,) for k, v in single.items() if v is not None} | several


@dataclass(frozen=True)
class Picture:
    """An open raster, and which of its bands are shown.

    Attributes:
        raster: open.
        rgb: three bands for natural colours, or one that is shown grey.
        nir: bands for false colours; empty without near infrared.
        spans: numbers that the range of the stretch spans, per band of the file.
    """

    raster: Raster
    rgb: tuple[int, ...]
    nir: tuple[int, ...]
    spans: tuple[float, ...]

    @classmethod
    def of(cls, raster: Raster) -> Picture:
        """Return an open raster with its bands."""
        bands = raster.data_bands
        try:
            rgb = choose_bands(raster, RGB).roles
        except BandError:
            rgb = bands[:3] if len(bands) >= 3 else bands[:1]
        nir: tuple[int, ...] = ()
        if len(bands) > 3:
            with suppress(BandError):
                nir = choose_bands(raster, (*NIR, "blue")).roles[:3]
        stretch = find_stretch(raster, StretchChoice("auto"))
        spans = np.subtract(stretch.high, stretch.low)
        return cls(raster, rgb, nir, tuple(float(span) for span in spans))

    def same_bands(self, other: Picture) -> list[tuple[int, int]]:
        """Return pairs of bands of both files that mean the same."""
        ours, theirs = self.raster.data_bands, other.raster.data_bands
        names = [self.raster.descriptions[band - 1] for band in ours]
        there = {other.raster.descriptions[band - 1]: band for band in theirs}
        if all(names) and len(set(names)) == len(names) and set(names) & set(there):
            pairs = zip(ours, names, strict=True)
            return [(band, there[name]) for band, name in pairs if name in there]
        if len(ours) == len(theirs):
            return list(zip(ours, theirs, strict=True))
        return list(zip(self.rgb, other.rgb, strict=False))


@dataclass(frozen=True)
class Sources:
    """The open rasters of a page.

    Attributes:
        given: their names.
        tags: `RSUPRES_*` tags of the result, without the prefix, in small letters.
        scale: SR pixels along one LR pixel.
        sr: the result.
        lr: its input.
        hr: the truth.
        uncertainty: the standard deviation.
        references: earlier images, the latest first.
    """

    given: Given
    tags: Mapping[str, str]
    scale: Fraction
    sr: Picture
    lr: Picture | None
    hr: Picture | None
    uncertainty: Picture | None
    references: tuple[Picture, ...]

    @property
    def frame(self) -> Grid:
        """Frame of the result."""
        return self.sr.raster.grid

    def tiles(self, halo: int) -> TileGrid | None:
        """Return how tiles of a halo (LR pixels) were cut; None without tags."""
        sides = self.tags.get("tile", "").split(",")
        if len(sides) not in (2, 3) or not all(side.isdigit() for side in sides):
            return None
        size, overlap, *width = map(int, sides)
        try:
            lr = self.frame.refine(1 / self.scale)
            return TileGrid.plan(lr, self.scale, size, overlap, halo, 1, *width)
        except GridError:
            return None


@contextmanager
def open_sources(given: Given) -> Iterator[Sources]:
    """Open the files of a page; close them on leaving.

    Raises:
        InputError: one is missing or no raster.
    """
    with ExitStack() as stack:

        def opened(name: StrPath | None) -> Picture | None:
            if name is None:
                return None
            return Picture.of(stack.enter_context(Raster.open(name)))

        sr = opened(given.sr)
        assert sr is not None
        lr = None
        if given.lr:
            lr = Picture.of(stack.enter_context(open_scenes(given.lr)))
        tags = {
            name.removeprefix("RSUPRES_").lower(): value
            for name, value in read_tags(Path(given.sr)).items()
            if name.startswith("RSUPRES_")
        }
        references = [opened(name) for name in given.reference]
        yield Sources(
            given=given,
            tags=tags,
            scale=_scale(tags, sr, lr),
            sr=sr,
            lr=lr,
            hr=opened(given.hr),
            uncertainty=opened(given.uncertainty),
            references=tuple(found for found in references if found is not None),
        )


def _scale(tags: Mapping[str, str], sr: Picture, lr: Picture | None) -> Fraction:
    """Return the scale by the tags, else by the pixel sizes, else 1."""
    if "scale" in tags:
        return Fraction(tags["scale"])
    if lr is None:
        return Fraction(1)
    ratio = source_pixels_per_pixel(sr.raster.grid, lr.raster.grid)
    return max(Fraction(1), Fraction(ratio).limit_denominator(64))


def read_on(
    scene: Raster,
    bands: Sequence[int],
    target: Grid,
    kernel: Resampling = Resampling.cubic,
) -> Floats:
    """Return bands (c, H, W) float32 in the file's numbers, NaN where not known.

    Args:
        scene: open.
        bands: of its file, from 1.
        target: frame wanted, any CRS.
        kernel: for what is not averaged; `nearest` shows pixels as they are.
    """
    empty = np.full((len(bands), target.height, target.width), np.nan, np.float32)
    needed = source_window(scene.grid, target)
    if needed is None:
        return empty
    try:
        ratio = source_pixels_per_pixel(scene.grid, target)
    except GridError:
        return empty
    step = max(1, math.floor(ratio + ALIGNED))
    exact = _aligned_window(scene.grid, target, step)
    if exact is not None:
        return _masked(*scene.read_averaged(exact, bands, step))
    window = _multiple(needed, step, scene.grid.window)
    if window is None:
        return empty
    pixels = _masked(*scene.read_averaged(window, bands, step))
    frame = scene.grid.crop(window).refine(Fraction(1, step))
    if ratio / step > 1 + ALIGNED and kernel != Resampling.nearest:
        kernel = Resampling.average
    out = warp_array(pixels, frame, target, kernel, tolerance=ALIGNED)
    out[:, np.isnan(out).any(axis=0)] = np.nan
    return out


def read_map(
    paths: Sequence[str], target: Grid, legend: str | None
) -> tuple[Floats, str]:
    """Return colours (3, H, W), 0 to 255, of a map on a frame, and the map in one line.

    Args:
        paths: vector files, or one raster in a legend's colours.
        target: frame wanted.
        legend: name or file; None = the default.
    """
    if is_drawn(tuple(paths)):
        with Raster.open(paths[0]) as scene:
            drawn = read_on(scene, scene.data_bands[:3], target, Resampling.nearest)
        return drawn, "drawn before"
    chosen = load_legend(legend or DEFAULT_COLOUR_LEGEND)
    opened = VectorMap.open(paths, target, chosen)
    n_features = sum(opened.counts.values())
    words = f"{n_features} features drawn by legend {chosen.name}"
    return opened.burn(target.window).astype(np.float32), words


def read_mask(path: str, target: Grid) -> tuple[Floats, float, dict[str, str]]:
    """Return colours (3, H, W), share changed, and class colours of a mask on a frame.

    Args:
        path: polygons or a class raster.
        target: frame wanted.
    """
    with ChangeMask.open([path], target) as mask:
        codes = mask.read(target.window)[0]
        palette, names = mask.palette(), mask.names()
    lookup = np.zeros((256, 3), np.float32)
    for code, colour in palette.items():
        lookup[code] = colour
    known = codes[codes < 255]
    share = float((known > 0).mean()) if known.size else 0.0
    found = {int(code) for code in np.unique(known)} - {0}
    shown = {
        names.get(code, f"class {code}"): "#{:02x}{:02x}{:02x}".format(*palette[code])
        for code in sorted(found & palette.keys())
    }
    return np.moveaxis(lookup[codes], 2, 0), share, shown


def _masked(dn: Floats, valid: NDArray[np.bool_]) -> Floats:
    dn[:, ~valid[0]] = np.nan
    return dn


def _aligned_window(source: Grid, target: Grid, step: int) -> PixelWindow | None:
    """Return the window whose means over `step` pixels are the target's pixels."""
    if source.crs != target.crs:
        return None
    col, row = places(
        source,
        target,
        np.array([0.0, target.width, 0.0]),
        np.array([0.0, 0.0, target.height]),
    )
    height, width = target.height * step, target.width * step
    wanted_col, wanted_row = col[0] + [0, width, 0], row[0] + [0, 0, height]
    off = max(
        np.abs(col - wanted_col).max(),
        np.abs(row - wanted_row).max(),
        abs(col[0] - round(col[0])),
        abs(row[0] - round(row[0])),
    )
    window = PixelWindow(round(row[0]), round(col[0]), height, width)
    inside = window.intersection(source.window) == window
    return window if off <= ALIGNED and inside else None


def _multiple(needed: PixelWindow, step: int, frame: PixelWindow) -> PixelWindow | None:
    """Return a window around `needed`, its sides multiples of `step`, in the frame."""
    sides = []
    for start, length, limit in (
        (needed.row, needed.height, frame.height),
        (needed.col, needed.width, frame.width),
    ):
        n = min(math.ceil(length / step) * step, limit // step * step)
        if n == 0:
            return None
        sides.append((min(start, limit - n), n))
    (row, height), (col, width) = sides
    return PixelWindow(row, col, height, width)
