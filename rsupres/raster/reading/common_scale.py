"""Bring numbers of one file to the scale and offset of another, exactly or not at all.

Sentinel-2 products before and after baseline 04.00 differ by 1000 digital numbers, so
that files of both can be joined only when those of one are moved.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rsupres.errors import InputError
from rsupres.grid import PixelWindow
from rsupres.raster.dataset import Raster

_BLOCK_VALUES = 1 << 24  # read at a time
_EXACT = float(1 << 53)  # whole numbers up to here are exact while they are rescaled
_TOLERANCE = 1e-6  # by which tags, which are rounded, miss whole numbers

logger = logging.getLogger(__name__)


class Rescaling(NamedTuple):
    """Conversion of a band's numbers to another scale: dn * ratio + shift.

    Attributes:
        ratio: 1 where the scales are the same.
        shift: in the numbers that result.
    """

    ratio: float = 1.0
    shift: float = 0.0

    @property
    def is_needed(self) -> bool:
        """Whether any number changes."""
        return self != Rescaling()


def apply(
    dn: NDArray[np.generic], rescalings: Sequence[Rescaling]
) -> NDArray[np.generic]:
    """Return numbers (c, h, w) on the other scale, in their type; see `find`.

    Numbers that `check` was not given, such as nodata, may become any number.

    Args:
        dn: as a file stores them.
        rescalings: one a band.
    """
    if not any(item.is_needed for item in rescalings):
        return dn
    moved = dn.astype(np.float64)
    for plane, (ratio, shift) in zip(moved, rescalings, strict=True):
        plane *= ratio
        plane += shift
    if dn.dtype.kind in "iu":
        limits = np.iinfo(dn.dtype.name)
        np.clip(np.rint(moved), limits.min, limits.max, out=moved)
    return moved.astype(dn.dtype)


def find(
    part: Raster, bands: Sequence[int], first: Raster, *, is_told: bool = False
) -> tuple[Rescaling, ...]:
    """Return how each band of a file becomes one of the file that it is joined with.

    Args:
        part: open.
        bands: of it, from 1, in the order of the data bands of `first`.
        first: open, of the same type.
        is_told: the user says what the numbers of all files mean, whatever their
            tags; then nothing is rescaled.

    Raises:
        InputError: scale or offset differ so that whole numbers would not become
            whole numbers, or only one of the files has any.
    """
    found = [
        _between(part, band, first, first_band, is_told=is_told)
        for band, first_band in zip(bands, first.data_bands, strict=True)
    ]
    if any(item.is_needed for item in found):
        logger.info(
            "%s: its numbers are brought to the scale and offset of %s.",
            part.path,
            first.path,
        )
    return tuple(found)


def _between(
    part: Raster, band: int, first: Raster, first_band: int, *, is_told: bool
) -> Rescaling:
    own = part.scales[band - 1], part.offsets[band - 1]
    other = first.scales[first_band - 1], first.offsets[first_band - 1]
    if np.allclose(own, other, rtol=1e-9, atol=0):
        return Rescaling()
    is_known = (1.0, 0.0) not in (own, other) and other[0] != 0 != own[0]
    if not is_known or is_told:
        raise _different(part, band, first, first_band, "")
    ratio, shift = own[0] / other[0], (own[1] - other[1]) / other[0]
    if np.dtype(first.dtype).kind == "f":
        return Rescaling(ratio, shift)
    whole = Rescaling(float(round(ratio)), float(round(shift)))
    limit = _TOLERANCE * max(1.0, abs(ratio)), _TOLERANCE * max(1.0, abs(shift))
    if abs(ratio - whole.ratio) > limit[0] or abs(shift - whole.shift) > limit[1]:
        raise _different(part, band, first, first_band, "")
    return whole


def check(
    part: Raster,
    bands: Sequence[int],
    rescalings: Sequence[Rescaling],
    first: Raster,
    sample_pixels: int | None = None,
) -> None:
    """Refuse numbers that the type cannot hold, or that would become nodata.

    Args:
        part: open.
        bands: of it, from 1, in the order of the data bands of `first`.
        rescalings: of these bands.
        first: open, of the same type.
        sample_pixels: look at about so many; None = at all, which reads the file.

    Raises:
        InputError: there are such numbers.
    """
    triples = zip(bands, rescalings, first.data_bands, strict=True)
    for band, rescaling, first_band in triples:
        if not rescaling.is_needed or np.dtype(first.dtype).kind == "f":
            continue
        for values in _values(part, band, sample_pixels):
            _check_values(values, (part, band), (first, first_band), rescaling)


def _check_values(
    values: NDArray[np.generic],
    of: tuple[Raster, int],
    becoming: tuple[Raster, int],
    rescaling: Rescaling,
) -> None:
    """Refuse the measured numbers of a window that do not fit."""
    first, first_band = becoming
    limits = np.iinfo(first.dtype)
    ends = np.array([values.min(), values.max()], np.float64)
    low, high = sorted(ends * rescaling.ratio + rescaling.shift)
    nodata = first.nodata_of(first_band)
    if not (max(limits.min, -_EXACT) <= low and high <= min(limits.max, _EXACT)):
        problem = f"go from {low:g} to {high:g}, beyond those of {first.dtype}"
    elif (
        nodata is not None
        and (
            values.astype(np.float64) * rescaling.ratio + rescaling.shift == nodata
        ).any()
    ):
        problem = f"are {nodata:g} in places, which means nodata there"
    else:
        return
    raise _different(*of, first, first_band, f"; its numbers on that scale {problem}")


def _values(
    part: Raster, band: int, sample_pixels: int | None
) -> Iterator[NDArray[np.generic]]:
    """Yield the measured numbers of a band, some rows at a time, or a sample."""
    if sample_pixels is None:
        yield from _rows_of(part, band)
        return
    dn, valid = part.read_decimated((band,), sample_pixels)
    if valid.any():
        yield dn[valid]


def _rows_of(part: Raster, band: int) -> Iterator[NDArray[np.generic]]:
    height, width = part.grid.height, part.grid.width
    step = max(1, _BLOCK_VALUES // width)
    for row in range(0, height, step):
        window = PixelWindow(row, 0, min(step, height - row), width)
        dn, valid = part.read_stored(window, (band,))
        if valid.any():
            yield dn[valid]


def _different(
    part: Raster, band: int, first: Raster, first_band: int, problem: str
) -> InputError:
    return InputError(
        f"{part.path}: band {band} has scale {part.scales[band - 1]:g} and offset "
        f"{part.offsets[band - 1]:g}, but {first.path} has "
        f"{first.scales[first_band - 1]:g} and {first.offsets[first_band - 1]:g}, so "
        f"the same number means something else{problem}; bring them to one scale "
        "first, for example each with gdal_translate -ot Float32 -unscale FILE OUT.tif."
    )
