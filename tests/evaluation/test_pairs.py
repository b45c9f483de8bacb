"""Two pictures are brought together without a change of their figures."""

from __future__ import annotations

import numpy as np

from rsupres.evaluation.pairs import match_histogram
from tests.pictures import (
    texture,
)


def test_matching_is_monotone_and_ignores_invalid_pixels() -> None:
    a, b = texture(40, 40, 1), texture(40, 40, 2) * 0.5
    valid = np.ones((40, 40), bool)
    valid[:10] = False
    matched = match_histogram(a, b, valid)
    for band in range(3):
        order = np.argsort(a[band][valid])
        assert (np.diff(matched[band][valid][order]) >= 0).all()
        quantiles = [np.quantile(x[band][valid], (0.1, 0.5, 0.9)) for x in (matched, b)]
        np.testing.assert_allclose(*quantiles, atol=0.01)
    b[:, :10] = 9.0
    np.testing.assert_array_equal(match_histogram(a, b, valid), matched)
