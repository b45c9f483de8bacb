"""The distribution of the change statistic on unchanged ground.

The statistic is a sum of squares, so the textbook law on unchanged ground is a
chi-square. Real ground never stays quite the same: crops, shadows and sun make the
tails heavier, and a threshold at 1 % of the textbook law marks most of a scene. Here
the scale and the degrees of freedom of the chi-square are therefore fitted to the image
itself, by the median and the upper quartile of the statistic. The fit holds while less
than a quarter of the ground changed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_QUANTILES = (0.5, 0.75)
_MIN_DOF = 0.1
_N_DOFS = 256
_NODES = 8192
_MAX_DEVIATION = 40.0  # standard deviations; the probability beyond is 0 in float64


@dataclass(frozen=True)
class NullDistribution:
    """Distribution of the statistic on unchanged ground: scale times chi-square.

    Attributes:
        scale: factor of the chi-square.
        dof: degrees of freedom, at most the number of differences.
        spread: median of the statistic divided by the median of a chi-square with all
            degrees of freedom; its square root is one standard deviation of a
            difference.
    """

    scale: float
    dof: float
    spread: float

    @classmethod
    def fit(cls, statistic: Floats, n_differences: int) -> NullDistribution:
        """Return the fit of scale and degrees of freedom to median and upper quartile.

        Args:
            statistic: (n,) of changed and unchanged pixels together.
            n_differences: how many differences were squared and summed.
        """
        median, quartile = (float(v) for v in np.quantile(statistic, _QUANTILES))
        if median <= 1e-9:  # more than half of the pixels are the same in both images
            return cls(1.0, float(n_differences), 1.0)
        dofs, ratios, medians = _chi_square_table(n_differences)
        dof = float(np.exp(np.interp(-quartile / median, -ratios, np.log(dofs))))
        middle = float(np.interp(dof, dofs, medians))
        return cls(median / middle, dof, median / float(medians[-1]))

    def survival(self, statistic: Floats) -> Floats:
        """Return the probability of a value at least as large on unchanged ground.

        Interpolated between `_NODES` values, with an error of about 1e-6.
        """
        from scipy.special import chdtrc

        roots = np.sqrt(statistic / self.scale)
        nodes = np.linspace(0.0, _MAX_DEVIATION, _NODES)
        return np.asarray(np.interp(roots, nodes, chdtrc(self.dof, nodes**2)))

    def critical(self, significance: float) -> float:
        """Return the value that unchanged ground exceeds with this probability."""
        from scipy.special import chdtri

        return self.scale * float(chdtri(self.dof, significance))


@lru_cache(maxsize=8)
def _chi_square_table(max_dof: int) -> tuple[Floats, Floats, Floats]:
    """Return degrees of freedom, upper quartile over median, and median of each."""
    from scipy.special import chdtri

    dofs = np.geomspace(_MIN_DOF, max_dof, _N_DOFS)
    median, quartile = (chdtri(dofs, 1 - share) for share in _QUANTILES)
    return dofs, quartile / median, median
