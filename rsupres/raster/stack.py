"""Open several files as one scene: files of different bands, or neighbours.

Both are described to GDAL as a virtual raster, which is opened like any other scene.
Files that cannot be joined without resampling are refused. Only headers are read here.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
from rasterio.io import MemoryFile

from rsupres.errors import BandError, InputError
from rsupres.grid import Grid, PixelWindow
from rsupres.products.masks import is_class_name
from rsupres.raster.dataset import Raster
from rsupres.raster.files import date_in
from rsupres.raster.kinds import can_hold
from rsupres.raster.nodata import is_same_nodata
from rsupres.raster.open import usual_band_name
from rsupres.raster.place.union import covers, union_grid
from rsupres.raster.product.describe import Coarse, Refinement, open_product, place_on
from rsupres.raster.product.find import find_product
from rsupres.raster.reading import common_scale
from rsupres.raster.reading.joined import Part, joined_band
from rsupres.raster.reading.same_bands import match_bands
from rsupres.raster.virtual import VirtualBand, virtual_raster

_DATE_IN_NAME = re.compile(r"(?<!\d)(?:19|20)\d\d[01]\d[0-3]\d(?!\d)")
_BAND_IN_NAME = re.compile(
    r"(?:^|[_.!])((?:S[RT]_)?B(?:\d\d|8A|\d)|QA_(?:PIXEL|RADSAT)|SCL|FMASK)(?:[_.]|$)",
    re.IGNORECASE,
)

logger = logging.getLogger(__name__)


@contextmanager
def open_scenes(
    names: Sequence[str],
    nodata: float | None = None,
    bands_out: str | None = None,
    *,
    is_told: bool = False,
    sample_pixels: int | None = None,
) -> Iterator[Raster]:
    """Yield one scene, or several files as one, while it is open.

    Files of different bands become one scene, in order, on the grid of the finest;
    files with the same bands on aligned grids become a mosaic, the later ones on top,
    where a pixel that is nodata or masked shows the file below. Numbers of the later
    ones are brought to the scale and offset of the first, where this is exact.

    Args:
        names: files, folders, URLs or GDAL names.
        nodata: value without a measurement, instead of what the files declare.
        bands_out: bands of a product that are wanted; None = its finest.
        is_told: the user says what the numbers of all files mean, whatever their tags.
        sample_pixels: how many are looked at to see whether numbers on another scale
            fit the type; None = all.

    Raises:
        InputError: no file, one cannot be opened, or they do not fit together.
    """
    if not names:
        raise InputError("No scene is given.")
    with ExitStack() as stack:
        opened = [stack.enter_context(_open(name, bands_out)) for name in names]
        parts = [declare_nodata(scene, nodata) for scene in opened]
        if len(names) == 1:
            yield parts[0]
            return
        refinement = Refinement()
        if _are_bands(parts):
            xml, refinement = _as_bands(parts)
        else:
            xml = _as_mosaic(parts, is_told=is_told, sample_pixels=sample_pixels)
        stack.enter_context(memory := MemoryFile(xml.encode(), filename="scene.vrt"))
        label = f"{os.path.basename(names[0])} and {len(names) - 1} more"
        try:
            joined = stack.enter_context(Raster.open(memory.name))
        except InputError as error:
            raise InputError(error.problem.replace(memory.name, label)) from error
        joined.path = label
        yield joined.joining(parts, refinement)


def _open(name: str, bands_out: str | None) -> Raster:
    """Open a file, or the wanted bands of a product."""
    if bands_out is None:
        return Raster.open(name)
    product = find_product(name)
    if product is None:
        raise BandError(
            f"chooses bands of products and STAC items, and {name} is neither; choose "
            "by number instead.",
            argument="bands_out",
            remedies=("bidx",),
        )
    return Raster.open_product(open_product(product, bands_out))


def declare_nodata(scene: Raster, nodata: float | None) -> Raster:
    """Return a scene with the nodata value that the user states.

    Args:
        scene: open.
        nodata: None = as the file says.

    Raises:
        InputError: the scene's type cannot hold the value.
    """
    if nodata is None:
        return scene
    if not can_hold(np.dtype(scene.dtype), nodata):
        raise InputError(
            f"{nodata:g}: no pixel of {scene.path} can have this value, as its type is "
            f"{scene.dtype}.",
            argument="input_nodata",
        )
    return scene.with_nodata(nodata)


def _are_bands(parts: Sequence[Raster]) -> bool:
    """Return whether files are bands of one scene, not parts of a mosaic."""
    grids = {(part.grid.transform, part.grid.height, part.grid.width) for part in parts}
    if len(grids) > 1 and not _differ_in_size(parts):
        return False
    if all(len(part.data_bands) == 1 for part in parts):
        return True
    names = [usual_band_name(name.upper()) for name in _band_names(parts) if name]
    n_bands = sum(len(part.data_bands) for part in parts)
    return len(set(names)) == n_bands


def _differ_in_size(parts: Sequence[Raster]) -> bool:
    """Return whether files have pixels of several sizes."""
    return len({tuple(np.round(part.grid.transform[:2], 9)) for part in parts}) > 1


def _as_bands(parts: Sequence[Raster]) -> tuple[str, Refinement]:
    """Join files of different bands; those with coarser pixels are sharpened."""
    grid = min((part.grid for part in parts), key=lambda grid: abs(grid.transform.a))
    placed = [_place_on(grid, part) for part in parts]
    names = _band_names(parts)
    _warn_of_other_dates(parts, names)
    is_masked = any(part.has_file_mask for part in parts) or not all(
        covers(grid, [place.intersection(grid.window) or place]) for place, _ in placed
    )
    dtype = str(np.result_type(*(part.dtype for part in parts)))
    bands: list[VirtualBand] = []
    coarse: dict[int, Coarse] = {}
    fine: list[int] = []
    for part, (place, kind) in zip(parts, placed, strict=True):
        own = Part(part, part.data_bands, place)
        for at in range(len(part.data_bands)):
            name = names[len(bands)]
            band = joined_band([own], at, is_masked)
            colour = None if len(part.data_bands) == 1 else band.colour
            bands.append(replace(band, name=name, colour=colour, dtype=dtype))
            if is_class_name(name or ""):
                continue
            if kind.factor > 1:
                coarse[len(bands)] = kind
            else:
                fine.append(len(bands))
    guides = tuple(fine) if coarse else ()
    return virtual_raster(grid, parts[0].tags, bands), Refinement(coarse, guides)


def _doubtful(parts: Sequence[Raster]) -> str:
    """Return why bands of several files have no different names."""
    named = [name for name in _band_names(parts) if name]
    twice = next((name for name in named if named.count(name) > 1), None)
    return f"{twice} is there twice" if twice else "some have none"


def _place_on(grid: Grid, part: Raster) -> tuple[PixelWindow, Coarse]:
    """Return where a file lies on the finest grid, and how its pixels do."""
    place, kind = place_on(grid, part.grid, part.path)
    if place.intersection(grid.window) is None:
        raise InputError(
            f"{part.path}: lies beside the files with finer pixels, so it holds no "
            "bands of their scene."
        )
    return place, kind


def _dates_in(name: str) -> frozenset[object]:
    """Return the dates that a name has."""
    found = _DATE_IN_NAME.findall(name)
    return frozenset(found or [date for date in (date_in(name),) if date])


def _warn_of_other_dates(parts: Sequence[Raster], names: Sequence[str | None]) -> None:
    """Warn when files that become the bands of one scene show several dates."""
    known = [name for name in names if name]
    dates = [_dates_in(Path(part.path).stem) for part in parts]
    if len(set(known)) < len(known):
        logger.warning(
            "%s: files that become bands of one scene have the same band name, %s; "
            "are they of several dates?",
            parts[0].path,
            next(name for name in known if known.count(name) > 1),
        )
    elif all(dates) and not frozenset.intersection(*dates):
        logger.warning(
            "%s and %s become bands of one scene; their names have different dates.",
            parts[0].path,
            next(p.path for p, d in zip(parts, dates, strict=True) if d != dates[0]),
        )


def _overlapping(parts: Sequence[Raster], places: Sequence[PixelWindow]) -> InputError:
    """Return the error that files on the same ground are no bands of one scene."""
    wide = next((part for part in parts if len(part.data_bands) > 1), parts[0])
    other = next(part for part in parts if part is not wide)
    return InputError(
        f"{wide.path} has {len(wide.data_bands)} bands on the ground of {other.path}; "
        "files are joined as bands of one scene if each band has a name that no other "
        f"has; here {_doubtful(parts)}. Leave out what is no band of the scene, such "
        "as pictures (TCI) and other layers (AOT, WVP), or give one scene."
    )


def _as_mosaic(
    parts: Sequence[Raster], *, is_told: bool, sample_pixels: int | None
) -> str:
    if _differ_in_size(parts):
        raise InputError(
            f"{parts[0].path} and {len(parts) - 1} more: files with pixels of several "
            "sizes are joined as bands of one scene if each band has a name that no "
            f"other has; here {_doubtful(parts)}. Name the bands, for example with "
            "gdal_translate -of VRT and <Description> in each band, or resample to "
            "one size first."
        )
    grid, places = union_grid(parts)
    first = parts[0]
    if len(set(places)) < len(places):
        raise _overlapping(parts, places)
    for part in parts[1:]:
        if (len(part.data_bands), part.dtype) != (len(first.data_bands), first.dtype):
            raise InputError(
                f"{part.path}: {len(part.data_bands)} bands of {part.dtype} differ "
                f"from {len(first.data_bands)} of {first.dtype} of {first.path}; "
                "scenes that are joined must have the same."
            )
    placed = [
        _place(part, first, place, is_told=is_told)
        for part, place in zip(parts, places, strict=True)
    ]
    is_masked = any(part.has_file_mask for part in parts) or any(
        not is_same_nodata(part.nodata_of(band), first.nodata_of(first_band))
        for part, bands, *_ in placed
        for band, first_band in zip(bands, first.data_bands, strict=True)
    )
    if not is_masked and first.nodata is None and not covers(grid, places):
        raise InputError(
            "The scenes leave gaps between them and have no nodata value to fill them; "
            "give one in virtual copies, for example with gdal_translate -of VRT "
            "-a_nodata 0 FILE COPY.vrt, and use those."
        )
    for part, part_bands, _, rescalings in placed[1:]:
        common_scale.check(part, part_bands, rescalings, first, sample_pixels)
    bands = [joined_band(placed, at, is_masked) for at in range(len(first.data_bands))]
    return virtual_raster(grid, first.tags, bands)


def _place(part: Raster, first: Raster, place: PixelWindow, *, is_told: bool) -> Part:
    """Return a file with its bands and numbers brought to those of the first one."""
    bands = match_bands(part, first)
    rescalings = common_scale.find(part, bands, first, is_told=is_told)
    return Part(part, bands, place, rescalings)


def _band_names(parts: Sequence[Raster]) -> list[str | None]:
    """Return the names of all bands; of a file with one, also a code in its name."""
    names: list[str | None] = []
    for part in parts:
        own = [part.descriptions[band - 1] or None for band in part.data_bands]
        if len(own) == 1 and own[0] is None:
            found = _BAND_IN_NAME.search(Path(part.path).stem)
            own = [found.group(1).upper() if found else None]
        names += own
    return names
