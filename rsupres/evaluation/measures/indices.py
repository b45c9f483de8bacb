"""Compare vegetation and water indices of a picture with those of the truth.

An index is the normalised difference (a - b) / (a + b) of two bands of reflectance.
Pixels are compared where both sums are positive.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

INDICES: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "ndvi": ("nir", "red"),  # Rouse et al. 1974, vegetation
        "ndwi": ("green", "nir"),  # McFeeters 1996, open water
    }
)


def index_figures(
    name: str, sr: np.ndarray, hr: np.ndarray, valid: np.ndarray
) -> dict[str, float]:
    """Return the root mean square and the mean of an index's error.

    Args:
        name: of `INDICES`; the figures are named after it.
        sr: (2, H, W) reflectance of its two bands, in their order.
        hr: the same of the truth.
        valid: (H, W) bool.

    Returns:
        `{name}_rmse` and `{name}_bias` (SR minus HR), in units of the index, which lies
        in [-1, 1] for positive reflectance; NaN where no pixel can be compared.
    """
    a, b = (_normalised_difference(pixels) for pixels in (sr, hr))
    error = (a - b)[valid]
    error = error[np.isfinite(error)]
    if not error.size:
        return {f"{name}_rmse": math.nan, f"{name}_bias": math.nan}
    return {
        f"{name}_rmse": float(np.sqrt(np.mean(error * error))),
        f"{name}_bias": float(np.mean(error)),
    }


def _normalised_difference(pixels: np.ndarray) -> NDArray[np.float64]:
    a, b = pixels.astype(np.float64)
    total = np.where(a + b > 0, a + b, np.nan)
    return np.asarray((a - b) / total)
