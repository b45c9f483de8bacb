"""Open products as one raster: bands of several pixel sizes on the finest grid.

The files are described to GDAL as a virtual raster, in which a pixel of 20 m is four
equal pixels of 10 m. `Refinement` says which bands these are; `refine` beside this
module replaces them by sharpened ones where pixels are read.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import rasterio
from numpy.typing import NDArray

from rsupres.errors import BandError, InputError
from rsupres.grid import Grid, PixelWindow, ceil_div
from rsupres.products.landsat import named_radiometry
from rsupres.products.model import BandFile, Product, Radiometry
from rsupres.products.sentinel2 import BANDS, FINE, TEN_METRES, bands_of
from rsupres.raster.open import check_complete, check_kind, find_grid, open_dataset
from rsupres.raster.product.find import SUBDATASET
from rsupres.raster.reading.names import gdal_name
from rsupres.raster.virtual import VirtualBand, VirtualSource, virtual_raster

MISPLACED = 0.1  # fine pixels by which a coarse grid may miss the fine one


FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class Sharpener:
    """A way to bring coarse bands to the grid of fine ones.

    Attributes:
        members: bands that are sharpened together, in order.
        guides: fine bands that it looks at, in order.
        factor: fine pixels along a coarse one.
        reach: coarse pixels away from which a result may depend.
        run: maps (c, h, w) and (g, h * factor, w * factor) to (c, h * factor, ...).
    """

    members: tuple[int, ...]
    guides: tuple[int, ...]
    factor: int
    reach: int
    run: Callable[[FloatArray, FloatArray], FloatArray]


class Coarse(NamedTuple):
    """Position of coarse pixels on the grid of fine ones.

    Attributes:
        factor: fine pixels along a coarse one.
        row: first row of some coarse pixel, 0 to `factor` - 1.
        col: first column, likewise.
    """

    factor: int
    row: int = 0
    col: int = 0


@dataclass(frozen=True)
class Refinement:
    """The bands of a raster that were stored with coarser pixels.

    Attributes:
        coarse: those, by number from 1.
        guides: bands with fine pixels, which show where edges lie.
        hidden: bands that are there for the sake of others only.
        sharpener: replaces the guided regression for its bands; None = none does.
    """

    coarse: Mapping[int, Coarse] = field(default_factory=dict)
    guides: tuple[int, ...] = ()
    hidden: frozenset[int] = frozenset()
    sharpener: Sharpener | None = None


@dataclass(frozen=True)
class ProductRaster:
    """A product as GDAL opens it.

    Attributes:
        product: what it says about itself.
        xml: a virtual raster.
        refinement: of its bands.
        undecided: names of the bands whose scale and offset are unknown.
    """

    product: Product
    xml: str
    refinement: Refinement
    undecided: tuple[str, ...]


def choose(product: Product, bands_out: str | None) -> list[BandFile]:
    """Return the bands of a product that are wanted, in their order.

    Args:
        product: open.
        bands_out: as for `bands_of`; None = those with the finest pixels.

    Raises:
        BandError: it has no such band, or none at all.
    """
    if bands_out is None and len(product.bands) + len(product.layers) == 1:
        return [*product.bands, *product.layers.values()]
    if not any(band.name in BANDS for band in product.bands):
        return _choose_others(product, bands_out)
    if bands_out is not None:
        return [product.find(name) for name in bands_of(bands_out)]
    fine = [band for band in product.bands if band.gsd == 10 and band.name in FINE]
    if not fine:
        if SUBDATASET.fullmatch(product.path):
            return list(product.bands)
        names = ", ".join(band.name for band in product.bands)
        raise BandError(
            f"{product.path}: the product has no 10 m bands; choose from {names}.",
            remedies=("bands_out",),
        )
    return sorted(fine, key=lambda band: TEN_METRES.index(band.name))


def _choose_others(product: Product, bands_out: str | None) -> list[BandFile]:
    """Return bands of another satellite: all of the finest, or those with a name."""
    if bands_out in (None, "all"):
        finest = min(band.gsd or 0.0 for band in product.bands)
        return [band for band in product.bands if (band.gsd or 0.0) == finest]
    assert bands_out is not None
    return [product.find(name.strip()) for name in bands_out.split(",")]


def open_product(product: Product, bands_out: str | None = None) -> ProductRaster:
    """Return a product as one raster, as GDAL opens it.

    Args:
        product: of `find_product`.
        bands_out: bands that are wanted, see `choose`.

    Raises:
        InputError: a file is missing or damaged, or the files do not fit together.
    """
    wanted = choose(product, bands_out)
    helpers = _helpers(product, wanted)
    with ExitStack() as stack:
        opened = [
            _Opened.of(stack, product, band)
            for band in [*wanted, *(band for band in helpers if band not in wanted)]
        ]
    frame = min((item.grid for item in opened), key=lambda grid: grid.gsd_m)
    dtype = str(np.result_type(*(item.dtype for item in opened)))
    bands, coarse = [], {}
    for number, item in enumerate(opened, 1):
        place, kind = place_on(frame, item.grid, item.band.path)
        if kind.factor > 1 and item.band not in product.layers.values():
            coarse[number] = kind
        bands.append(item.virtual(product, place, dtype))
    refinement = Refinement(
        coarse,
        tuple(
            number
            for number, item in enumerate(opened, 1)
            if item.band in helpers and number not in coarse
        ),
        frozenset(range(len(wanted) + 1, len(opened) + 1)),
    )
    undecided = tuple(
        item.band.name
        for item in opened[: len(wanted)]
        if item.radiometry is None and item.band not in product.layers.values()
    )
    xml = virtual_raster(frame, product.tags, bands)
    return ProductRaster(product, xml, refinement, undecided)


def _helpers(product: Product, wanted: Sequence[BandFile]) -> list[BandFile]:
    """Return the bands by whose help wanted ones are sharpened, if one needs it."""
    sizes = {band.gsd for band in wanted if band.name in BANDS} - {10, None}
    if not sizes or SUBDATASET.fullmatch(product.path):
        return []
    helpers = [band for band in product.bands if band.name in FINE and band.gsd == 10]
    if helpers and 20 in sizes:
        helpers += [
            band
            for band in product.bands
            if band.gsd == 20 and BANDS[band.name].gsd == 20
        ]
    return helpers


@dataclass(frozen=True)
class _Opened:
    """A band of a product with its file's header."""

    band: BandFile
    grid: Grid
    shape: tuple[int, int]
    dtype: str
    nodata: float | None
    radiometry: Radiometry | None

    @classmethod
    def of(cls, stack: ExitStack, product: Product, band: BandFile) -> _Opened:
        name = band.path
        dataset = stack.enter_context(open_dataset(name, name))
        check_kind(dataset, name, is_classes=True)
        if band.band > dataset.count:
            raise InputError(f"{name}: no band {band.band}.")
        grid = find_grid(dataset, name, needs_crs=True)
        check_complete(dataset, name)
        return cls(
            band=band,
            grid=grid,
            shape=dataset.shape,
            dtype=str(dataset.dtypes[band.band - 1]),
            nodata=dataset.nodatavals[band.band - 1],
            radiometry=band.radiometry or _told_by_file(dataset, band),
        )

    def virtual(self, product: Product, place: PixelWindow, dtype: str) -> VirtualBand:
        """Return the band on the product's grid, in a type that holds all bands."""
        facts = BANDS.get(self.band.name)
        is_layer = self.band in product.layers.values()
        stated = None if is_layer else self.radiometry
        nodata = self.nodata if product.nodata is None else product.nodata
        return VirtualBand(
            dtype=dtype,
            sources=[
                VirtualSource(
                    gdal_name(self.band.path), self.band.band, place, size=self.shape
                )
            ],
            name=self.band.name,
            nodata=nodata,
            colour=facts.colour if facts else None,
            scale=stated.scale if stated else 1.0,
            offset=stated.offset if stated else 0.0,
        )


def _told_by_file(dataset: rasterio.DatasetReader, band: BandFile) -> Radiometry | None:
    """Return scale and offset that a band's file has itself, None without."""
    pair = dataset.scales[band.band - 1], dataset.offsets[band.band - 1]
    if pair != (1.0, 0.0):
        return Radiometry(*pair)
    return named_radiometry(os.path.basename(band.path), dataset.tags(), (None,))


def place_on(frame: Grid, grid: Grid, name: str) -> tuple[PixelWindow, Coarse]:
    """Return where a coarser grid lies on a finer one, and how its pixels do.

    Args:
        frame: the finer one.
        grid: the coarser one, or one with the same pixels.
        name: of its file, for messages.

    Raises:
        InputError: another CRS, a ratio or an offset that is not whole.
    """
    if frame.crs != grid.crs:
        raise InputError(f"{name}: its CRS is not that of the other bands.")
    relative = ~frame.transform @ grid.transform
    factor = max(1, round(relative.a))
    row, col = round(relative.f), round(relative.c)
    misplaced = max(
        abs(relative.a - factor) * grid.width,
        abs(relative.e - factor) * grid.height,
        abs(relative.b) * grid.height,
        abs(relative.d) * grid.width,
        abs(relative.f - row),
        abs(relative.c - col),
    )
    if misplaced > MISPLACED:
        raise InputError(
            f"{name}: {relative.a:.5g} x {relative.e:.5g} of the finest pixels along "
            f"one of its own, not {factor} x {factor} from a common corner, so that it "
            f"lies up to {misplaced:.2g} of them astray; bring it to their grid "
            f"first: {_warp_command(frame, factor, name)}."
        )
    place = PixelWindow(row, col, grid.height * factor, grid.width * factor)
    return place, Coarse(factor, row % factor, col % factor)


def _warp_command(frame: Grid, factor: int, name: str) -> str:
    """Return a command that brings a file to a grid of `factor` times its pixels."""
    height, width = ceil_div(frame.height, factor), ceil_div(frame.width, factor)
    left, top = frame.transform @ (0.0, 0.0)
    right, bottom = frame.transform @ (width * factor * 1.0, height * factor * 1.0)
    place = " ".join(f"{value:.12g}" for value in (left, bottom, right, top))
    return f"gdalwarp -r cubic -te {place} -ts {width} {height} {name} RESAMPLED.tif"
