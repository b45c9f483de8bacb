"""Check that a type of the output can hold a scene's numbers and its nodata value."""

from __future__ import annotations

import math

import numpy as np

from rsupres.errors import InputError
from rsupres.raster.dataset import Raster

_SAMPLE_PIXELS = 250_000
_FEWEST_STEPS = 16  # whole numbers that a scene of fractions must span


def check_type(scene: Raster, dtype: str, nodata: float | None = None) -> None:
    """Refuse a type or nodata value that cannot hold a scene.

    Args:
        scene: open; a sample of it is read.
        dtype: numpy name of the output's type.
        nodata: of the output; None = the scene's.

    Raises:
        InputError: the type cannot be written or does not hold the nodata value, or as
            `check_holds`.
    """
    kind = np.dtype(dtype)
    if kind.kind not in "iuf" or kind.itemsize > 8:
        raise InputError(
            f"{scene.path}: type {kind} cannot be written; choose another.",
            remedies=("dtype",),
        )
    wanted = scene.nodata if nodata is None else nodata
    if wanted is not None and not can_hold(kind, wanted):
        raise InputError(
            f"nodata {wanted:g} cannot be stored as {kind}; choose a value that can.",
            remedies=("nodata",),
        )
    check_holds(scene, kind.name)


def can_hold(kind: np.dtype[np.generic], value: float) -> bool:
    """Return whether a type has a number, for floats but for rounding.

    Args:
        kind: numpy's type.
        value: any number.

    >>> can_hold(np.dtype("uint8"), -9999.0), can_hold(np.dtype("float32"), 1e300)
    (False, False)
    """
    if kind.kind == "f":
        with np.errstate(over="ignore"):
            stored = np.float64(value).astype(kind)
        return bool(np.isfinite(stored)) or not math.isfinite(value)
    limits = np.iinfo(kind.name)
    return (
        math.isfinite(value)
        and float(value).is_integer()
        and limits.min <= value <= limits.max
    )


def check_holds(scene: Raster, dtype: str) -> None:
    """Refuse a type of whole numbers that would clip a scene or round it away.

    Args:
        scene: open; a sample of it is read.
        dtype: numpy name of the output's type.

    Raises:
        InputError: numbers lie outside the type, or are fractions, such as
            reflectance, that become a few whole numbers.
    """
    kind = np.dtype(dtype)
    if kind.kind not in "iu" or np.can_cast(np.dtype(scene.dtype), kind):
        return
    pixels, valid = scene.read_decimated(scene.data_bands, _SAMPLE_PIXELS, joint=0)
    values = pixels[valid]
    if not values.size:
        return
    low, high = float(values.min()), float(values.max())
    limits = np.iinfo(kind.name)
    if low < limits.min or high > limits.max:
        raise InputError(
            f"{kind}: the scene's numbers go from {low:g} to {high:g} and are not "
            "rescaled; use a type that holds them.",
            argument="dtype",
        )
    if high - low < _FEWEST_STEPS and bool((values != np.rint(values)).any()):
        raise InputError(
            f"{kind}: the scene's numbers go from {low:g} to {high:g} and are not "
            "rescaled, so that little but 0 would be left; use float32, or rescale "
            "the scene first, for example with gdal_translate -ot UInt16 -scale 0 1 0 "
            "10000 -a_scale 0.0001.",
            argument="dtype",
        )
