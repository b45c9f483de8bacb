"""Decide which pixels are valid, fill the others, and write nodata where they are.

A pixel is valid when every band read is measured (`is_measured`: not the declared
nodata value, not NaN, not infinite), the file's alpha or mask band shows it, and the
area of interest holds its centre; `Raster.read` combines the three. The model sees
invalid pixels filled (`fill_invalid`). On writing, `to_dtype` gives them the nodata
value again and keeps valid pixels off it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
Floats = NDArray[np.floating[Any]]
BoolArray = NDArray[np.bool_]

FILL_REACH = 32  # LR pixels
# Numbers from here on are fill values of old formats, such as -3.4028235e38, even where
# a file declares none: no measurement is as large, and sums of them overflow.
_TOO_LARGE = 1e38
CHUNK_VALUES = 1 << 16  # values worked on at a time, so that they stay in cache


def float_type(kind: str | np.dtype[Any]) -> type[np.float32 | np.float64]:
    """Return the type of floats that holds the numbers of a type, but for 64 bits.

    >>> float_type("uint16"), float_type("int32")
    (<class 'numpy.float32'>, <class 'numpy.float64'>)
    """
    return np.float32 if np.can_cast(kind, np.float32) else np.float64


def as_floats(pixels: NDArray[np.generic]) -> FloatArray:
    """Return numbers as float32, or as float64 where their type needs it."""
    floats: FloatArray = pixels.astype(float_type(pixels.dtype))
    return floats


def is_measured(plane: NDArray[np.generic], nodata: float | None) -> BoolArray:
    """Return (h, w) bool: which pixels are finite, and not the nodata value.

    Floats near the nodata value count as it, as in GDAL's mask; so do numbers beyond
    1e38 in any case.

    Args:
        plane: (h, w) of one band, in the file's type.
        nodata: value that the file declares for the band, None for none.
    """
    measured = (
        np.isfinite(plane) if plane.dtype.kind == "f" else np.ones(plane.shape, bool)
    )
    if plane.dtype.kind == "f" and plane.dtype.itemsize > 2:
        measured &= np.abs(plane) < _TOO_LARGE
    if nodata is None or math.isnan(nodata):
        return np.asarray(measured)
    if plane.dtype.kind == "f":
        measured &= ~_is_near(plane, nodata)
    elif float(nodata).is_integer():
        measured &= plane != int(nodata)
    return np.asarray(measured)


def _is_near(plane: NDArray[np.generic], nodata: float) -> BoolArray:
    """Return where numbers are `nodata`, with the tolerance of GDAL's own mask.

    That is two units in the last place, because the value was often written as text.
    Sums of huge numbers overflow, so that GDAL takes all near 1e38 as one.
    """
    epsilon = float(np.finfo(plane.dtype.name).eps)
    floats: NDArray[Any] = plane
    with np.errstate(over="ignore", invalid="ignore"):
        value = np.asarray(nodata).astype(plane.dtype)
        apart = np.abs(floats - value)
        reach = 2 * epsilon * np.abs(floats + value)
        return np.asarray((floats == value) | (apart < reach))


def is_same_nodata(one: float | None, other: float | None) -> bool:
    """Return whether two nodata values are the same; NaN is itself, None is None.

    Args:
        one: a value, None = there is none.
        other: a value, None = there is none.
    """
    if one is None or other is None:
        return one is other
    return one == other or (math.isnan(one) and math.isnan(other))


def fill_invalid(
    lr: FloatArray, valid: BoolArray, background: Sequence[float] | None = None
) -> FloatArray:
    """Return (c, h, w), finite, valid pixels continued into invalid ones ring by ring.

    Each ring takes the mean of its valid or already filled neighbours (3 x 3). A
    filled value depends on pixels within `FILL_REACH` of it and on nothing else; over
    the second half of that reach it fades into the background, which is the value of
    everything farther away.

    Args:
        lr: (c, h, w) float32; invalid pixels may be NaN.
        valid: (1, h, w) bool.
        background: one value per channel; None = 0.
    """
    if valid.all():
        return lr
    far = np.zeros(lr.shape[0]) if background is None else np.asarray(background)
    far = far.astype(np.float32).reshape(-1, 1, 1)
    known = np.pad(valid[0], 1)
    filled = np.pad(np.where(valid, lr, np.float32(0)), ((0, 0), (1, 1), (1, 1)))
    inner = (slice(1, -1), slice(1, -1))
    faded = np.where(valid, lr, far)
    for ring in range(1, FILL_REACH + 1):
        counts = _sum3(known.astype(np.float32))
        fresh = (counts > 0) & ~known[inner]
        rows, cols = np.nonzero(fresh)
        if not rows.size:
            break
        sums = _sum3_at(filled, rows, cols)
        means = sums / counts[rows, cols]
        weight = np.float32(_fade(ring))
        faded[:, rows, cols] = weight * means + (1 - weight) * far[:, :, 0]
        filled[:, rows + 1, cols + 1] = means
        known[rows + 1, cols + 1] = True
    return faded


def fill_bands(dn: FloatArray, valid: BoolArray) -> FloatArray:
    """Return bands with their invalid pixels filled, each band by its own mask.

    Args:
        dn: (c, h, w) float32.
        valid: (1, h, w) or (c, h, w) bool.
    """
    if bool((valid == valid[:1]).all()):
        return fill_invalid(dn, valid[:1])
    pairs = [(dn[band : band + 1], valid[band : band + 1]) for band in range(len(dn))]
    return np.concatenate([fill_invalid(*pair) for pair in pairs])


def join_valid(apart: BoolArray, joint: int | None) -> BoolArray:
    """Return masks of bands with the first ones together.

    Args:
        apart: (c, h, w) bool, each band's own.
        joint: how many bands, from the first, are invalid where one of them is; None =
            all.

    Returns:
        (1, h, w) where all bands are joint, else (c, h, w).
    """
    if joint is None or joint >= len(apart):
        return np.asarray(apart.all(axis=0, keepdims=True))
    if joint > 1:
        apart[:joint] = apart[:joint].all(axis=0)
    return apart


def to_dtype(
    dn: Floats,
    dtype: str,
    nodata: float | None = None,
    valid: BoolArray | None = None,
) -> NDArray[np.generic]:
    """Return DN rounded half to even, clipped to `dtype`, nodata avoided, (c, H, W).

    A valid pixel that would become nodata moves by one DN (one representable number
    for floats): up, or down where nodata is the largest value.

    Args:
        dn: (c, H, W) floats, finite where valid.
        dtype: numpy name of the output's type.
        nodata: value that no valid pixel may take, None for none.
        valid: (1, H, W) or (c, H, W) bool; pixels outside become nodata, or 0 without
            one.
    """
    ones = np.ones(dn.shape[0], np.float32)
    return quantise(dn, ones, np.zeros_like(ones), dtype, nodata, valid)


def copy_to_dtype(
    dn: NDArray[np.generic],
    dtype: str,
    nodata: float | None = None,
    valid: BoolArray | None = None,
) -> NDArray[np.generic]:
    """Return numbers as `to_dtype` does, without a way through floats if possible.

    Arguments and result are those of `to_dtype`; `dn` may have any type of a file.
    """
    kind = np.dtype(dtype)
    if not np.can_cast(dn.dtype, kind):
        return to_dtype(dn.astype(np.float64), dtype, nodata, valid)
    out = dn.astype(kind)
    taken = _as_dtype(nodata, kind)
    if taken is not None:
        out[out == taken] = _neighbour(taken, kind)
    if valid is not None:
        outside = np.zeros((), kind) if taken is None else taken
        np.copyto(out, outside, where=~valid)
    return out


def quantise(
    pixels: Floats,
    gain: Floats,
    bias: Floats,
    dtype: str,
    nodata: float | None,
    valid: BoolArray | None,
) -> NDArray[np.generic]:
    """Return `to_dtype(pixels * gain + bias, ...)` without intermediate arrays.

    Args:
        pixels: (c, H, W) floats.
        gain: (c,) floats.
        bias: (c,) floats.
        dtype: as for `to_dtype`, whose result this is.
        nodata: as for `to_dtype`.
        valid: as for `to_dtype`.
    """
    kind = np.dtype(dtype)
    floats = float_type(kind)
    out = np.empty(pixels.shape, kind)
    low, high = _range(kind)
    gain, bias = gain.astype(floats), bias.astype(floats)
    is_whole = kind.kind in "iu"
    taken = _as_dtype(nodata, kind)
    free = None if taken is None else _neighbour(taken, kind)
    outside = np.zeros((), kind) if taken is None else taken
    for rows in _row_chunks(pixels.shape[1], pixels.shape[2]):
        for band in range(pixels.shape[0]):
            mask = None if valid is None else valid[band if len(valid) > 1 else 0]
            hidden = None if mask is None else ~mask[rows]
            work = np.multiply(pixels[band, rows], gain[band], dtype=floats)
            work += bias[band]
            if is_whole:
                np.rint(work, out=work)
                np.clip(work, low, high, out=work)
            if hidden is not None:
                work[hidden] = 0  # may be NaN, which no integer can hold
            part = out[band, rows]
            np.copyto(part, work, casting="unsafe")
            if free is not None:
                part[part == taken] = free
            if hidden is not None:
                part[hidden] = outside
    return out


def _fade(ring: int) -> float:
    """Return 1 up to half the reach, then a raised cosine to 0 just beyond it."""
    half = FILL_REACH // 2
    over = max(0, ring - half) / (FILL_REACH + 1 - half)
    return 0.5 + 0.5 * math.cos(math.pi * over)


def _sum3(padded: FloatArray) -> FloatArray:
    """Return the sums over 3 x 3 of a plane padded by one pixel."""
    rows = padded[:-2] + padded[1:-1] + padded[2:]
    return np.asarray(rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:])


def _sum3_at(
    padded: FloatArray, rows: NDArray[np.intp], cols: NDArray[np.intp]
) -> FloatArray:
    """Return the sums (c, n) over 3 x 3 around n pixels, in one fixed order."""
    total = np.zeros((padded.shape[0], rows.size), padded.dtype)
    for down in range(3):
        for right in range(3):
            total += padded[:, rows + down, cols + right]
    return total


def _row_chunks(height: int, width: int) -> Iterator[slice]:
    step = max(1, CHUNK_VALUES // max(1, width))
    for start in range(0, height, step):
        yield slice(start, start + step)


def _range(kind: np.dtype[np.generic]) -> tuple[float, float]:
    """Return the floats that are the smallest and largest to fit `kind`."""
    if kind.kind not in "iu":
        return -math.inf, math.inf
    limits = np.iinfo(kind.name)
    high = float(limits.max)
    if int(high) > limits.max:  # of 64 bits: rounded up
        high = math.nextafter(high, 0)
    return float(limits.min), high


def _as_dtype(
    nodata: float | None, kind: np.dtype[np.generic]
) -> NDArray[np.generic] | None:
    """Return `nodata` in the output's type; None when it cannot occur there."""
    if nodata is None or (kind.kind in "iu" and not float(nodata).is_integer()):
        return None
    if kind.kind in "iu":
        limits = np.iinfo(kind.name)
        if not limits.min <= int(nodata) <= limits.max:
            return None
        return np.array(int(nodata), kind)
    return np.array(nodata, kind)


def _neighbour(
    taken: NDArray[np.generic], kind: np.dtype[np.generic]
) -> NDArray[np.generic]:
    """Return the number next to `taken`: the larger one if there is one."""
    if kind.kind in "iu":
        step = -1 if int(taken) == np.iinfo(kind.name).max else 1
        return np.array(int(taken) + step, kind)
    towards = -np.inf if float(taken) >= float(np.finfo(kind.name).max) else np.inf
    return np.asarray(np.nextafter(taken, np.array(towards, kind)))
