"""Find where two images of one place differ more than light, season and sensor explain.

Two methods give a statistic that is large where something changed. Neither depends on
gains and offsets of the bands:

- IR-MAD (Nielsen 2007): differences of canonical variates, weighted again and again
  with the probability that a pixel did not change;
- CVA: differences of the bands after radiometric normalisation, their length measured
  in the covariance of unchanged ground.

The threshold and the weights follow the distribution that is fitted to the image
(`rsupres.change.statistics.null_distribution`). Nielsen uses the textbook chi-square;
the fitted one keeps IR-MAD from collapsing onto the few pixels that are most alike.

Works on arrays; files and blocks are read by `rsupres.change.images`.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rsupres.change.statistics.null_distribution import Floats, NullDistribution
from rsupres.errors import ConditionError

logger = logging.getLogger(__name__)

Method = Literal["irmad", "cva", "built", "learned"]
TITLES = {
    "irmad": "IR-MAD",
    "cva": "CVA",
    "built": "IR-MAD and a look for buildings",
    "learned": "a network trained on buildings and roads",
}

MIN_PIXELS = 9  # default minimum size of a changed part
MAX_ITERATIONS = 50
CONVERGED = 1e-3  # of the canonical correlations
SMOOTHING = 1  # pixels around a pixel whose differences are averaged with its own
RIDGE = 1e-6  # of a band's variance, added so that the covariance can be inverted
MIN_VARIANCE = 1e-6  # of a difference of unit variates
MIN_PIXELS_TO_FIT = 256
MIN_MEAN_WEIGHT = 0.01  # below it too few pixels carry the fit


@dataclass(frozen=True)
class Differences:
    """Linear differences of two images: `before @ x - after @ y - offset` per pixel.

    Attributes:
        before: (k, p), weights of the earlier image's bands.
        after: (k, q), weights of the later image's bands.
        offset: (k,).
        method: that found them.
        n_iterations: that were needed.
        correlations: (k,) rising; canonical for IR-MAD, of the bands for CVA.
    """

    before: Floats
    after: Floats
    offset: Floats
    method: Method
    n_iterations: int
    correlations: Floats

    def apply(self, x: Floats, y: Floats) -> Floats:
        """Return the differences (k, ...) of two images.

        Args:
            x: (p, ...), bands of the earlier image.
            y: (q, ...), bands of the later image.
        """
        shape = x.shape[1:]
        flat = self.before @ x.reshape(len(x), -1) - self.after @ y.reshape(len(y), -1)
        flat -= self.offset[:, np.newaxis]
        return flat.reshape(len(flat), *shape)


@dataclass(frozen=True)
class Detector:
    """Differences with the threshold of their statistic.

    Attributes:
        differences: between the images.
        null: distribution of the statistic on unchanged ground.
        critical: the statistic of changed pixels is larger.
    """

    differences: Differences
    null: NullDistribution
    critical: float


def fit_differences(
    x: Floats, y: Floats, method: Literal["auto", "irmad", "cva"], where: str
) -> Differences:
    """Return the differences of two images that show change best.

    Args:
        x: (p, n) pixels of the earlier image, finite.
        y: (q, n) pixels of the later image; the same bands for CVA.
        method: auto is IR-MAD, and CVA where that does not converge.
        where: names of the images, for messages.

    Raises:
        ConditionError: too few pixels, a flat image, or bands that CVA cannot compare.
    """
    n_pixels = x.shape[1]
    if n_pixels < MIN_PIXELS_TO_FIT:
        raise ConditionError(
            f"{where}: only {n_pixels} pixels are valid in both images, too few to "
            f"find unchanged ground (at least {MIN_PIXELS_TO_FIT}); give a mask from "
            "another source."
        )
    for image, name in ((x, "earlier"), (y, "later")):
        if not (image.std(axis=1) > 0).any():
            raise ConditionError(
                f"{where}: the {name} image has the same value everywhere; nothing can "
                "be compared."
            )
    if method != "cva":
        found = _fit_irmad(x, y)
        if found is not None:
            return found
        if method == "irmad" or len(x) != len(y):
            raise ConditionError(
                f"{where}: IR-MAD does not converge in {MAX_ITERATIONS} steps; compare "
                "by CVA, which needs the same bands in both.",
                remedies=("method=cva",) if method == "irmad" else (),
            )
        logger.warning("%s: IR-MAD does not converge; CVA is used instead.", where)
    if len(x) != len(y):
        raise ConditionError(
            f"{where}: CVA compares band by band, but there are {len(x)} and {len(y)} "
            "of them; use IR-MAD, or files with the same bands.",
            remedies=("method=irmad",),
        )
    return _fit_cva(x, y)


def statistic(differences: Floats, valid: NDArray[np.bool_]) -> Floats:
    """Return (h, w): squared differences averaged over 3 x 3 pixels, NaN if invalid.

    Args:
        differences: (k, h, w).
        valid: (h, w) bool; invalid pixels do not enter the mean.
    """
    sums = _box(np.where(valid, differences, 0.0))
    counts = _box(valid[np.newaxis].astype(np.float64))[0]
    with np.errstate(invalid="ignore", divide="ignore"):
        means = sums / counts
    return np.where(valid, np.sum(means**2, axis=0), np.nan)


def make_detector(
    differences: Differences,
    sample: Floats,
    significance: float,
    threshold: float | None,
) -> Detector:
    """Return a detector with a threshold of the statistic.

    Args:
        differences: found by `fit_differences`.
        sample: (n,) the statistic at pixels spread over the images.
        significance: share of unchanged pixels that may be marked.
        threshold: in standard deviations of unchanged ground, None = by significance.
    """
    n_differences = len(differences.offset)
    null = NullDistribution.fit(sample, n_differences)
    if threshold is not None:
        return Detector(differences, null, threshold**2 * null.spread)
    return Detector(differences, null, null.critical(significance))


def _fit_irmad(x: Floats, y: Floats) -> Differences | None:
    """Find canonical differences (Nielsen 2007, Eqs. 5-12), None if not converged."""
    n_differences = min(len(x), len(y))
    weights = np.ones(x.shape[1])
    before = np.full(n_differences, np.inf)
    for step in range(1, MAX_ITERATIONS + 1):
        try:
            a, b, rho = _canonical(x, y, weights, n_differences)
        except np.linalg.LinAlgError:
            return None
        spread = np.sqrt(np.maximum(2 * (1 - rho), MIN_VARIANCE))[:, np.newaxis]
        a, b = a / spread, b / spread
        total = weights.sum()
        offset = (a @ (x @ weights) - b @ (y @ weights)) / total
        found = Differences(a, b, offset, "irmad", step, rho)
        if np.abs(rho - before).max() < CONVERGED:
            return found
        before = rho
        squared = np.sum(found.apply(x, y) ** 2, axis=0)
        weights = NullDistribution.fit(squared, n_differences).survival(squared)
        if weights.mean() < MIN_MEAN_WEIGHT:
            return None
    return None


def _canonical(
    x: Floats, y: Floats, weights: Floats, n: int
) -> tuple[Floats, Floats, Floats]:
    """Return (n, p), (n, q) and (n,): unit variates, least correlated first."""
    xx, xy, yy = _covariances(x, y, weights)
    left = np.linalg.inv(np.linalg.cholesky(_ridged(xx)))
    right = np.linalg.inv(np.linalg.cholesky(_ridged(yy)))
    u, rho, v = np.linalg.svd(left @ xy @ right.T)
    order = slice(n - 1, None, -1)
    a, b = (u.T @ left)[:n][::-1], (v @ right)[:n][::-1]
    return a, b, np.minimum(rho[order], 1.0)


def _fit_cva(x: Floats, y: Floats) -> Differences:
    """Find the normalised, whitened differences of the bands, with the same weights."""
    weights = np.ones(x.shape[1])
    before = np.zeros(len(x))
    for step in range(1, MAX_ITERATIONS + 1):
        xx, xy, yy = _covariances(x, y, weights)
        variances, partners = np.diag(xx), np.diag(yy)
        gains = _gains(variances, np.diag(xy), partners)
        total = weights.sum()
        offset = (x @ weights - gains * (y @ weights)) / total
        rest = x - gains[:, np.newaxis] * y - offset[:, np.newaxis]
        covariance = (rest * weights) @ rest.T / total
        covariance += MIN_VARIANCE * np.diag(variances)
        white = np.linalg.inv(np.linalg.cholesky(_ridged(covariance)))
        with np.errstate(invalid="ignore", divide="ignore"):
            rho = np.nan_to_num(np.diag(xy) / np.sqrt(variances * partners))
        found = Differences(
            white, white * gains, white @ offset, "cva", step, np.sort(rho)
        )
        if np.abs(rho - before).max() < CONVERGED:
            return found
        before = rho
        squared = np.sum(found.apply(x, y) ** 2, axis=0)
        weights = NullDistribution.fit(squared, len(x)).survival(squared)
        if weights.mean() < MIN_MEAN_WEIGHT:
            return found
    return found


def _gains(xx: Floats, xy: Floats, yy: Floats) -> Floats:
    """Return gains from y to x: orthogonal regression, or the ratio of deviations."""
    half = (xx - yy) / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        gains = (half + np.sqrt(half**2 + xy**2)) / xy
        ratio = np.sqrt(xx / yy)
    gains = np.where((xy > 0) & np.isfinite(gains), gains, ratio)
    return np.where(np.isfinite(gains) & (gains > 0), gains, 1.0)


def _covariances(
    x: Floats, y: Floats, weights: Floats
) -> tuple[Floats, Floats, Floats]:
    total = weights.sum()
    x = x - (x @ weights / total)[:, np.newaxis]
    y = y - (y @ weights / total)[:, np.newaxis]
    xw, yw = x * weights, y * weights
    return xw @ x.T / total, xw @ y.T / total, yw @ y.T / total


def _ridged(covariance: Floats) -> Floats:
    """Return a covariance that can be inverted: ridges relative, 1 where it is 0."""
    variances = np.diag(covariance)
    extra = np.where(variances > 0, RIDGE * variances, 1.0)
    return np.asarray(covariance + np.diag(extra))


def _box(image: Floats) -> Floats:
    """Return sums over 3 x 3 pixels of (k, h, w), zero beyond the edge."""
    from scipy import ndimage

    side = 2 * SMOOTHING + 1
    sums = ndimage.correlate(image, np.ones((1, side, side)), mode="constant")
    return np.asarray(sums)
