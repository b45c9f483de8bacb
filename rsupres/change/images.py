"""Detect change between two images of any size, block by block.

The images are compared on the coarser of their grids, the finer one averaged. Three
passes find the differences, their spread, and the mask. A pass keeps only a sample of
the pixels, so memory does not grow with the images. The statistics are in
`rsupres.change.detection`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from functools import partial

import numpy as np
from numpy.typing import NDArray

from rsupres.change.class_rasters import (
    check_overlap,
    coarser_grid,
    minimum_pixels,
    needed_window,
)
from rsupres.change.components import drop_small
from rsupres.change.detection import (
    MIN_PIXELS,
    SMOOTHING,
    TITLES,
    Detector,
    Method,
    fit_differences,
    make_detector,
    statistic,
)
from rsupres.change.learned import MIN_LEARNED, Learned, colours, load_learned, suits
from rsupres.change.options import DetectionOptions
from rsupres.change.statistics.built_up import MARGIN, BuiltUp, find_built_up
from rsupres.change.statistics.null_distribution import Floats
from rsupres.change.statistics.sky import Relation
from rsupres.errors import BandError, ConditionError
from rsupres.grid import Grid, PixelWindow
from rsupres.legends.class_table import CHANGED, NODATA, UNCHANGED
from rsupres.raster.bands import choose_bands, measured_bands
from rsupres.raster.blocks import Blocks
from rsupres.raster.dataset import Raster
from rsupres.raster.place.registration import find_shift
from rsupres.raster.place.warp import (
    Source,
    source_pixels_per_pixel,
    source_window,
    warp,
)
from rsupres.raster.stretch import Stretch
from rsupres.raster.undeclared import heed_undeclared

logger = logging.getLogger(__name__)

Codes = NDArray[np.uint8]

BLOCK_SIDE = 256  # pixels, halved where one image is far finer
MAX_SOURCE_SIDE = 2048  # pixels of the finer image that one block takes, along a side
SAMPLE_PIXELS = 1 << 18  # that statistics are computed from
WARN_COARSER = 1.5  # an earlier image with pixels so much larger is probably the later
SHIFT_SIDE = 512  # pixels of the window in which the displacement is measured
WARN_SHIFT = 0.5  # pixels
WARN_BANDS = 4  # fewer bands show little of a change
_ROLES = ("red", "green", "blue", "nir")


class DetectedChange:
    """Change between two images, on the coarser of their grids.

    A `on_grid.MaskPixels`: 0 unchanged, 1 changed, 255 where one is missing.

    Attributes:
        grid: the coarser grid, cropped to the SR grid.
        detector: differences and threshold.
        min_pixels: smaller parts are dropped.
    """

    def __init__(
        self, before: Raster, after: Raster, target: Grid, options: DetectionOptions
    ) -> None:
        check_overlap(before, after)
        for scene in (before, after):
            needed_window(scene, target)
        before, after = heed_undeclared(before), heed_undeclared(after)
        grid = coarser_grid(before.grid, after.grid)
        needed = source_window(grid, target)
        assert needed is not None
        self.grid = grid.crop(needed)
        self._where = f"{before.path} and {after.path}"
        _check_sharpness(before, after)
        self._bands = matched_bands(before, after, options.method)
        self._sources = [
            _Image(scene, bands, self.grid)
            for scene, bands in zip((before, after), self._bands, strict=True)
        ]
        side = BLOCK_SIDE
        while (
            side > 16 and side * max(s.ratio for s in self._sources) > MAX_SOURCE_SIDE
        ):
            side //= 2
        self._images = Blocks(self.grid.window, side, self._read_images)
        self._warn_of_shift()
        self._built: BuiltUp | None = None
        step = self._step()
        x, y = self._sample(step)
        self.detector = self._fit(options, step, x, y)
        self._learned: Learned | None = None
        if options.method == "built":
            self._built = self._find_built_up(before, after, x, y)
        elif options.method == "learned" or options.may_be_learned:
            self._learned = self._load_learned(after, x, y, options)
        self.min_pixels = minimum_pixels(
            self.grid,
            options.minimum_area_m2,
            MIN_LEARNED if self._learned else MIN_PIXELS,
        )
        self._raw = Blocks(self.grid.window, BLOCK_SIDE, self._decide)
        self._mask = Blocks(self.grid.window, BLOCK_SIDE, self._clean)

    @property
    def method(self) -> Method:
        """The method that found the differences."""
        if self._learned:
            return "learned"
        return "built" if self._built else self.detector.differences.method

    def read(self, window: PixelWindow) -> Codes:
        """Return (1, h, w) for a window inside the grid."""
        return np.asarray(self._mask.read(window))

    def _read_images(self, window: PixelWindow) -> NDArray[np.float32]:
        """Return the bands of both images, NaN in all bands where one is missing."""
        parts = [source.read(window) for source in self._sources]
        both = np.concatenate(parts)
        both[:, ~np.isfinite(both).all(axis=0)] = np.nan
        return both

    def _fit(
        self, options: DetectionOptions, step: int, x: Floats, y: Floats
    ) -> Detector:
        given = options.method
        method = given if given == "irmad" or given == "cva" else "auto"
        found = fit_differences(x, y, method, self._where)
        logger.info(
            "%s: %s in %d steps, correlations %s.",
            self._where,
            TITLES[found.method],
            found.n_iterations,
            ", ".join(f"{rho:.3f}" for rho in found.correlations),
        )
        measure = partial(make_detector, found, significance=options.significance)
        spread = measure(np.ones(MIN_PIXELS), threshold=None)
        values = [
            self._statistic(spread, place)[_every(place, step)].ravel()
            for place in self._images.windows()
        ]
        sampled = np.concatenate(values)
        return measure(sampled[np.isfinite(sampled)], threshold=options.threshold)

    def _load_learned(
        self, after: Raster, x: Floats, y: Floats, options: DetectionOptions
    ) -> Learned | None:
        """Return the network; None where `auto` prefers IR-MAD."""
        is_wanted = options.method == "learned"
        roles = colours(after, self._bands[1]) if len(x) == len(y) else None
        if roles is None and is_wanted:
            raise BandError(
                f"{self._where}: the network needs the same bands in both images, red, "
                "green and blue or near infrared among them; IR-MAD does not.",
                remedies=("method=irmad",),
            )
        if roles is None or not (is_wanted or suits(self.grid)):
            return None
        places, frame = list(self._images.windows()), self.grid.window
        read, found = self._images.read, self.detector.differences
        learned = load_learned(frame, places, read, (x, y), found, roles)
        return learned if is_wanted or learned.is_sure(read, frame, places) else None

    def _find_built_up(
        self, before: Raster, after: Raster, x: Floats, y: Floats
    ) -> BuiltUp:
        bands = self._bands[1]
        try:
            named = choose_bands(after, ("red", "green", "nir")).roles
            red, green, infrared = (bands.index(band) for band in named)
        except (BandError, ValueError) as error:
            raise BandError(
                f"{self._where}: to find what was built, both images need red, green "
                "and near infrared; IR-MAD does not.",
                remedies=("method=irmad",),
            ) from error
        if len(x) != len(y):
            raise BandError(
                f"{self._where}: to find what was built, both images need the same "
                "bands; IR-MAD does not.",
                remedies=("method=irmad",),
            )
        squared = np.sum(self.detector.differences.apply(x, y) ** 2, axis=0)
        relation = Relation.fit(x, y, self.detector.null.survival(squared))
        return find_built_up(
            self.grid.window,
            list(self._images.windows()),
            self._images.read,
            (red, green, infrared),
            relation,
        )

    def _step(self) -> int:
        """Return the distance of sampled pixels along rows and columns."""
        pixels = self.grid.height * self.grid.width
        return max(1, math.ceil(math.sqrt(pixels / SAMPLE_PIXELS)))

    def _sample(self, step: int) -> tuple[Floats, Floats]:
        """Return (c, n) of both images, known pixels only."""
        sample = np.concatenate(list(self._thinned(step)), axis=1)
        sample = sample[:, np.isfinite(sample[0])].astype(np.float64)
        n_before = len(self._bands[0])
        return sample[:n_before], sample[n_before:]

    def _thinned(self, step: int) -> Iterator[NDArray[np.float32]]:
        """Yield (c, n) of every `step`-th pixel of both images, block by block."""
        for place in self._images.windows():
            pixels = self._images.read(place)[:, *_every(place, step)]
            yield pixels.reshape(len(pixels), -1)

    def _statistic(
        self, detector: Detector, window: PixelWindow
    ) -> NDArray[np.float64]:
        wide = window.grown(SMOOTHING, self.grid.window)
        both = self._images.read(wide).astype(np.float64)
        valid = np.isfinite(both[0])
        both = np.where(valid, both, 0.0)
        n_before = len(self._bands[0])
        differences = detector.differences.apply(both[:n_before], both[n_before:])
        return statistic(differences, valid)[window.relative_to(wide).slices()]

    def _decide(self, window: PixelWindow) -> Codes:
        if self._learned is not None:
            return self._learned.codes(self._images.read, self.grid.window, window)
        values = self._statistic(self.detector, window)
        with np.errstate(invalid="ignore"):
            marked = values > self.detector.critical
        if self._built is not None and marked.any():
            wide = window.grown(MARGIN, self.grid.window)
            both = np.nan_to_num(self._images.read(wide).astype(np.float64))
            marked &= self._built.may_be(both, wide, window)
        changed = np.where(marked, CHANGED, UNCHANGED)
        changed[np.isnan(values)] = NODATA
        return changed.astype(np.uint8)[np.newaxis]

    def _clean(self, window: PixelWindow) -> Codes:
        wide = window.grown(self.min_pixels, self.grid.window)
        raw = self._raw.read(wide)[0]
        kept = drop_small(raw == CHANGED, self.min_pixels)
        values = np.where((raw == CHANGED) & ~kept, np.uint8(UNCHANGED), raw)
        return values[np.newaxis, *window.relative_to(wide).slices()]

    def _warn_of_shift(self) -> None:
        """Warn when the images are displaced: edges then look like change."""
        frame = self.grid
        height, width = min(SHIFT_SIDE, frame.height), min(SHIFT_SIDE, frame.width)
        middle = PixelWindow(
            (frame.height - height) // 2, (frame.width - width) // 2, height, width
        )
        both = self._images.read(middle)
        valid = np.isfinite(both[0])
        n_before = len(self._bands[0])
        if np.count_nonzero(valid) < valid.size // 4:
            return
        one, other = (
            np.where(valid, part, 0.0).mean(axis=0, keepdims=True)
            for part in (both[:n_before], both[n_before:])
        )
        shift = find_shift(one, other, valid)
        length = math.hypot(*shift)
        if WARN_SHIFT < length < min(height, width) / 8:
            logger.warning(
                "%s are displaced by %+.2f pixels down and %+.2f right; edges will "
                "look changed. Register them first.",
                self._where,
                shift.row,
                shift.col,
            )


class _Image:
    """One image on the common grid, linearly scaled to [0, 1]."""

    def __init__(self, scene: Raster, bands: tuple[int, ...], grid: Grid) -> None:
        self.ratio = source_pixels_per_pixel(scene.grid, grid)
        self._source = Source(scene, bands, _span(scene, bands), self.ratio)
        self._grid = grid

    def read(self, window: PixelWindow) -> NDArray[np.float32]:
        """Return (c, h, w), NaN where nothing is known."""
        found = warp(self._source, self._grid.crop(window), self.ratio)
        if found is None:
            shape = len(self._source.bands), window.height, window.width
            return np.full(shape, np.nan, np.float32)
        return found


def matched_bands(
    before: Raster, after: Raster, method: str
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the numbers of the bands of both images that are compared.

    These are all bands, but for codes of classes, where both images have the same
    ones, else the bands of the same colours. Without common colours they are all bands
    again, because IR-MAD can compare different bands.

    Args:
        before: earlier image.
        after: later image.
        method: auto, irmad or cva.

    Raises:
        BandError: CVA has nothing to compare.
    """
    one, other = measured_bands(before), measured_bands(after)
    names = [
        [scene.descriptions[band - 1] for band in bands]
        for scene, bands in ((before, one), (after, other))
    ]
    if len(one) == len(other) and names[0] == names[1]:
        chosen = one, other
    else:
        chosen = _by_role(before, after) or (one, other)
        if method == "cva" and len(chosen[0]) != len(chosen[1]):
            raise BandError(
                f"{before.path} and {after.path} have no bands that are known to be "
                "the same, which CVA needs; IR-MAD does not.",
                remedies=("method=irmad",),
            )
    if len(chosen[0]) < WARN_BANDS:
        logger.warning(
            "%s and %s: %d bands show little of a change; give all that both have.",
            before.path,
            after.path,
            min(len(bands) for bands in chosen),
        )
    return chosen


def _by_role(
    before: Raster, after: Raster
) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    for roles in (_ROLES, _ROLES[:3]):
        try:
            return choose_bands(before, roles).roles, choose_bands(after, roles).roles
        except BandError:
            continue
    return None


def _span(scene: Raster, bands: tuple[int, ...]) -> Stretch:
    """Return a stretch that no value leaves; detection ignores linear scales."""
    kind = np.dtype(scene.dtype)
    if kind.kind in "iu" and kind.itemsize <= 2:
        limits = np.iinfo(kind)
        return Stretch(
            (float(limits.min),) * len(bands), (float(limits.max),) * len(bands)
        )
    dn, valid = scene.read_decimated(bands, SAMPLE_PIXELS)
    seen = dn[:, valid[0]]
    if not seen.size:
        raise ConditionError(
            f"{scene.path}: no valid pixel; is its nodata value right?"
        )
    low, high = (seen.min(axis=1).astype(float), seen.max(axis=1).astype(float))
    reach = np.maximum(high - low, 1e-6)
    return Stretch(tuple(low - reach), tuple(high + reach))


def _check_sharpness(before: Raster, after: Raster) -> None:
    if source_pixels_per_pixel(before.grid, after.grid) < 1 / WARN_COARSER:
        logger.warning(
            "%s is coarser than %s; the earlier image comes first. Are the two "
            "swapped?",
            before.path,
            after.path,
        )


def _every(place: PixelWindow, step: int) -> tuple[slice, slice]:
    """Return slices that keep the rows and columns that are multiples of a step."""
    return slice(-place.row % step, None, step), slice(-place.col % step, None, step)
