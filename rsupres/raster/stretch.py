"""Map digital numbers to [0, 1] and back: one invertible stretch per scene.

A `Stretch` is found once for the whole scene, stored in the run and undone on writing;
one per tile would make the tiles visible. Values beyond its limits are kept:
`split_excess` separates them from what a model sees, and they are added again to its
output. Rounding to the type of the output is done by `rsupres.raster.nodata`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from rsupres.errors import InputError
from rsupres.products.model import undecided
from rsupres.raster.bands import class_bands, landsat_reflectance, names_sentinel2
from rsupres.raster.nodata import as_floats, quantise

if TYPE_CHECKING:
    from rsupres.raster.dataset import Raster

FloatArray = NDArray[np.float32]
DoubleArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
StretchKind = Literal["auto", "reflectance", "percentile", "limits"]

AUTO_PERCENTILES = (0.5, 99.5)
SAMPLE_PIXELS = 1_000_000  # of a scene, for its percentiles
REFLECTANCE_DN = 10_000.0  # DN of reflectance 1 where the file has no scale
FLOAT_REFLECTANCE_MAX = 1.5  # float rasters up to here hold reflectance itself
TILE_STRETCH = "RSUPRES_TILE_STRETCH"  # tag of a tile: the limits of its scene

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StretchChoice:
    """The user's choices of how a stretch is found.

    Attributes:
        kind: the rule by which the limits are found.
        limits: percentiles for "percentile", DN for "limits", else None.
    """

    kind: StretchKind
    limits: tuple[float, float] | None = None

    def __str__(self) -> str:
        """Return the text that `parse_stretch` reads."""
        pair = "" if self.limits is None else "{:g},{:g}".format(*self.limits)
        if self.kind == "percentile":
            return f"percentile:{pair}"
        return pair or self.kind


@dataclass(frozen=True)
class Stretch:
    """The DN that become 0 and 1, per band.

    Attributes:
        low: DN of 0, one per band.
        high: DN of 1, one per band; `low[i] < high[i]`.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]

    def to_unit(self, dn: NDArray[np.generic]) -> FloatArray:
        """Return DN (c, h, w) of any real dtype as float32 unit values, not clipped.

        One plane per band of this stretch; [0, 1] within the limits; NaN stays NaN.
        """
        unit = as_floats(dn)
        low, span = self._columns(dn)
        unit -= low.astype(unit.dtype)
        unit /= span.astype(unit.dtype)
        return unit.astype(np.float32, copy=False)

    def to_pixels(
        self,
        unit: FloatArray,
        dtype: str,
        nodata: float | None = None,
        valid: BoolArray | None = None,
    ) -> NDArray[np.generic]:
        """Return unit values as pixels (c, H, W) of a type, rounded; undoes `to_unit`.

        Args:
            unit: (c, H, W) float32.
            dtype: numpy name of the output's type.
            nodata: value that no valid pixel may take, None for none.
            valid: (1, H, W) or (c, H, W) bool; pixels outside become nodata, or 0
                without one.
        """
        low, span = self._columns(unit)
        return quantise(unit, span.ravel(), low.ravel(), dtype, nodata, valid)

    def for_bands(self, bands: Sequence[int]) -> Stretch:
        """Return the limits of these bands, counted from 1, in this order."""
        return Stretch(
            tuple(self.low[band - 1] for band in bands),
            tuple(self.high[band - 1] for band in bands),
        )

    def to_json(self) -> dict[str, list[float]]:
        """Return plain values from which `from_json` makes an equal object."""
        return {"low": list(self.low), "high": list(self.high)}

    @classmethod
    def from_json(cls, stored: Mapping[str, Sequence[float]]) -> Stretch:
        """Return the stretch that `to_json` stored.

        Raises:
            ValueError: the limits are not as many, or do not rise.
        """
        low, high = tuple(stored["low"]), tuple(stored["high"])
        if not all(a < b for a, b in zip(low, high, strict=True)):
            raise ValueError("limits of a stretch that do not rise")
        return cls(low, high)

    def _columns(self, pixels: NDArray[np.generic]) -> tuple[DoubleArray, DoubleArray]:
        if pixels.ndim != 3 or pixels.shape[0] != len(self.low):
            raise ValueError(
                f"pixels of shape {pixels.shape} for a stretch of {len(self.low)} bands"
            )
        low = np.array(self.low, np.float64)
        span = np.array(self.high, np.float64) - low
        return low.reshape(-1, 1, 1), span.reshape(-1, 1, 1)


def parse_stretch(text: str) -> StretchChoice:
    """Read `auto`, `reflectance`, `percentile:LO,HI` or `LO,HI`.

    Raises:
        InputError: any other text, limits that do not rise, percentiles outside 0-100.
    """
    name = text.strip().lower()
    if name in ("auto", "reflectance"):
        return StretchChoice("auto" if name == "auto" else "reflectance")
    is_percentile = name.startswith("percentile:")
    try:
        low, high = (float(part) for part in name.split(":")[-1].split(","))
    except ValueError:
        raise InputError(
            f"stretch {text!r} is not one of auto, reflectance, percentile:2,98 or "
            "LO,HI, such as 0,3000."
        ) from None
    if not (np.isfinite(low) and np.isfinite(high) and low < high):
        raise InputError(f"stretch {text!r}: the limits must rise, as in 0,3000.")
    if is_percentile and not 0 <= low < high <= 100:
        raise InputError(f"stretch {text!r}: percentiles lie between 0 and 100.")
    return StretchChoice("percentile" if is_percentile else "limits", (low, high))


def find_stretch(scene: Raster, choice: StretchChoice) -> Stretch:
    """Find the limits of every band of the file, once for the scene.

    `auto` is 0 to 255 for uint8; reflectance where the file indicates it (scale and
    offset, or names of Sentinel-2 or Landsat Collection 2); else the percentiles 0.5
    and 99.5. A tile of `rsupres tile` has the limits of its scene.

    Args:
        scene: an open scene, perhaps cropped; percentiles are those of the crop.
        choice: the rule that the user chose.

    Returns:
        A stretch with one pair of limits per band of the file; see
        `Stretch.for_bands`. Bands that hold no picture (alpha) get 0 to 1.

    Raises:
        InputError: the scene has no valid pixel to take percentiles from, or its
            scale tags are not positive.
    """
    if choice.kind == "limits" and choice.limits is not None:
        return _same_limits(scene, *choice.limits)
    if choice.kind == "percentile" and choice.limits is not None:
        return _percentile_stretch(scene, choice.limits)
    if choice.kind == "reflectance":
        _check_decided(scene)
        return _reflectance_stretch(scene)
    if stored := scene.any_tag(TILE_STRETCH):
        return Stretch.from_json(json.loads(stored))
    _check_decided(scene)
    if scene.dtype == "uint8" and not has_scale(scene):
        return _same_limits(scene, 0.0, 255.0)
    if reflecting := _reflecting(scene):
        logger.info("%s: stretched as reflectance 0 to 1.", scene.path)
        others = set(scene.data_bands) - reflecting - class_bands(scene)
        return _merged(scene, _reflectance_stretch(scene, reflecting), others)
    logger.info(
        "%s: stretched between percentiles %g and %g of the scene.",
        scene.path,
        *AUTO_PERCENTILES,
    )
    return _percentile_stretch(scene, AUTO_PERCENTILES)


def _check_decided(scene: Raster) -> None:
    """Refuse bands of a product whose scale and offset are unknown."""
    if scene.undecided:
        raise undecided(scene.path, scene.undecided)


def split_excess(unit: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return float32 unit values clipped to [0, 1], and the excess, 0 within.

    Their sum is `unit`, of any shape, within one rounding.
    """
    clipped = np.clip(unit, np.float32(0), np.float32(1))
    return clipped, unit - clipped


def _same_limits(scene: Raster, low: float, high: float) -> Stretch:
    return Stretch((low,) * scene.count, (high,) * scene.count)


def _percentile_stretch(scene: Raster, percentiles: tuple[float, float]) -> Stretch:
    low, high = [0.0] * scene.count, [1.0] * scene.count
    sample, valid = scene.read_decimated(scene.data_bands, SAMPLE_PIXELS, joint=0)
    if not valid.any():
        raise InputError(
            f"{scene.path}: no valid pixel to find a stretch from; if nodata value "
            "and mask are right, give the limits.",
            remedies=("stretch=0,3000",),
        )
    for plane, shown, band in zip(sample, valid, scene.data_bands, strict=True):
        if not shown.any():
            continue
        pair = np.percentile(plane[shown].astype(np.float64), percentiles)
        low[band - 1], high[band - 1] = float(pair[0]), float(pair[1])
        if not low[band - 1] < high[band - 1]:
            high[band - 1] = low[band - 1] + 1
    return Stretch(tuple(low), tuple(high))


def _merged(scene: Raster, stretch: Stretch, others: Collection[int]) -> Stretch:
    """Return a stretch with percentiles for bands that hold something else, as heat."""
    if not others:
        return stretch
    by_percentile = _percentile_stretch(scene, AUTO_PERCENTILES)
    pairs = [
        (
            by_percentile.low[index] if index + 1 in others else stretch.low[index],
            by_percentile.high[index] if index + 1 in others else stretch.high[index],
        )
        for index in range(scene.count)
    ]
    return Stretch(tuple(low for low, _ in pairs), tuple(high for _, high in pairs))


def _reflectance_stretch(
    scene: Raster, bands: Collection[int] | None = None
) -> Stretch:
    """Return the limits of reflectance 0 and 1; 0 and 1 of bands that hold none."""
    landsat = None if has_scale(scene) else landsat_reflectance(scene)
    unity = None if has_scale(scene) or landsat else _unity_dn(scene)
    low, high = [], []
    for band in range(1, scene.count + 1):
        if bands is not None and band not in bands:
            low.append(0.0)
            high.append(1.0)
            continue
        scale, offset = scene.scales[band - 1], scene.offsets[band - 1]
        if landsat is not None:
            scale, offset = landsat
        if unity is not None:
            scale, offset = 1 / unity, 0.0
        if not scale > 0:
            raise InputError(
                f"{scene.path}: band {band} has scale {scale:g}; reflectance needs a "
                "positive one. Give the limits instead.",
                remedies=("stretch=0,3000",),
            )
        low.append(0.0 - offset / scale)
        high.append((1 - offset) / scale)
    return Stretch(tuple(low), tuple(high))


def _unity_dn(scene: Raster) -> float:
    """Return the DN of reflectance 1 of a file without scale tags."""
    if scene.dtype == "uint8":
        return 255.0
    if scene.dtype.startswith("float"):
        sample, valid = scene.read_decimated(scene.data_bands, SAMPLE_PIXELS, joint=0)
        inside = sample[valid]
        if inside.size and np.percentile(inside, 99.9) <= FLOAT_REFLECTANCE_MAX:
            return 1.0
    return REFLECTANCE_DN


def has_scale(scene: Raster) -> bool:
    """Return whether a file has a scale or offset for its numbers."""
    pairs = zip(scene.scales, scene.offsets, strict=True)
    return any(pair != (1.0, 0.0) for pair in pairs)


def _reflecting(scene: Raster) -> frozenset[int]:
    """Return the bands of a scene, from 1, that hold reflectance; none if unknown."""
    if has_scale(scene):
        return _scaled_like_reflectance(scene)
    bands = frozenset(scene.data_bands)
    if landsat_reflectance(scene) is not None:
        names = {band: scene.descriptions[band - 1] or "" for band in bands}
        return frozenset(b for b in bands if not names[b].upper().startswith("ST_"))
    kinds = ("uint16", "int16", "uint32", "int32", "float32", "float64")
    is_named = scene.dtype in kinds and names_sentinel2(scene)
    return bands if is_named else frozenset()


def _scaled_like_reflectance(scene: Raster) -> frozenset[int]:
    """Return bands whose DN * scale + offset look like reflectance, not like metres."""
    measured = [b for b in scene.data_bands if b not in class_bands(scene)]
    if not measured:
        return frozenset()
    sample, valid = scene.read_decimated(measured, SAMPLE_PIXELS, joint=0)
    return frozenset(
        band
        for plane, shown, band in zip(sample, valid, measured, strict=True)
        if not shown.any() or _looks_like_reflectance(scene, band, plane[shown])
    )


def _looks_like_reflectance(scene: Raster, band: int, dn: FloatArray) -> bool:
    scale, offset = scene.scales[band - 1], scene.offsets[band - 1]
    return bool(-0.5 <= np.percentile(dn, 50) * scale + offset <= 1.5)
