"""Compare predicted standard deviations with the real errors.

A prediction is good when errors are as large as predicted (spread over skill is 1,
intervals hold their share of the errors) and large in the same places (correlation).
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from rsupres.errors import GridError
from rsupres.evaluation.pairs import Pair, same_bands
from rsupres.families.base import TAILS
from rsupres.raster.dataset import Raster
from rsupres.raster.stretch import Stretch

_BINS = 10  # of equally many values, in the table of reliability
# Deviations within which these shares of the errors lie if they are normal.
NORMAL_TAILS = tuple(NormalDist().inv_cdf(0.5 + share / 2) for share in TAILS)


@dataclass(frozen=True)
class Calibration:
    """Comparison of predicted standard deviations with the real errors.

    Attributes:
        spread_skill: root mean square of the predicted deviations over that of the
            errors; below 1 the predictions are too small.
        coverage: for each of `TAILS`, the share of errors within its interval.
        correlation: of the deviations with the errors' sizes.
        bins: mean predicted deviation and root mean square error, in units of the
            range, of values ordered by the prediction.
    """

    spread_skill: float
    coverage: tuple[float, ...]
    correlation: float
    bins: tuple[tuple[float, float], ...]

    def to_json(self) -> dict[str, object]:
        """Return JSON-able values; NaN and infinity become None."""
        return {
            "spread_skill": _finite(self.spread_skill),
            "coverage": dict(zip(map(str, TAILS), self.coverage, strict=True)),
            "spread_error_correlation": _finite(self.correlation),
            "reliability": [
                {"predicted": predicted, "rmse": rmse} for predicted, rmse in self.bins
            ],
        }

    def lines(self) -> list[str]:
        """Return the figures as lines of text."""
        held = ", ".join(
            f"{100 * share:g} %: {100 * found:.1f} %"
            for share, found in zip(TAILS, self.coverage, strict=True)
        )
        rows = [f"  {a:9.5f} {b:9.5f} {a / max(b, 1e-9):6.2f}" for a, b in self.bins]
        return [
            f"spread over skill {self.spread_skill:.3f}, correlation of the spread "
            f"with the error {self.correlation:.3f}",
            f"share of errors within the interval of {held}",
            "  predicted      RMSE  ratio  (tenths of the values, units of the range)",
            *rows,
        ]


def calibrate(
    error: np.ndarray, deviation: np.ndarray, tails: Sequence[float]
) -> Calibration:
    """Return how well errors fit their predicted standard deviations.

    Args:
        error: values of any shape.
        deviation: predicted, of the same shape, in the same units.
        tails: number of deviations within which each share of `TAILS` should lie.
    """
    size = np.abs(error, dtype=np.float64).ravel()
    spread = np.asarray(deviation, np.float64).ravel()
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation = float(np.corrcoef(spread, size)[0, 1])
    parts = np.array_split(np.argsort(spread), min(_BINS, max(1, spread.size)))
    bins = tuple((_rms(spread[part]), _rms(size[part])) for part in parts)
    skill = _rms(size)
    return Calibration(
        spread_skill=_rms(spread) / skill if skill else math.inf,
        coverage=tuple(float(np.mean(size <= reach * spread)) for reach in tails),
        correlation=correlation,
        bins=bins,
    )


def calibrate_file(path: str, pair: Pair, stretch: Stretch) -> Calibration:
    """Return how well a pair's errors fit the raster of deviations written beside SR.

    Args:
        path: what ``--uncertainty`` wrote.
        pair: SR and HR.
        stretch: of SR.

    Raises:
        InputError: the file cannot be read.
        BandError: its bands are not those of SR.
        GridError: it does not cover the grid of SR.
    """
    with Raster.open(path) as scene:
        bands = same_bands(scene, len(pair.sr))
        if scene.grid.window.intersection(pair.window) != pair.window:
            raise GridError(f"{path}: does not lie on the grid of the SR picture.")
        values, known = scene.read(pair.window, bands)
        stored = scene.any_tag("RSUPRES_TAILS")
    span = np.subtract(stretch.high, stretch.low).astype(np.float32)[:, None, None]
    valid = pair.valid & known.all(axis=0)
    tails = json.loads(stored or "null") or NORMAL_TAILS
    return calibrate((pair.sr - pair.hr)[:, valid], (values / span)[:, valid], tails)


def _rms(values: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.mean(np.square(values)))) if values.size else math.nan


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
