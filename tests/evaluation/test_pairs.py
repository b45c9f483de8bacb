"""Two pictures are brought together without a change of their figures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rsupres.evaluation.pairs import Preparation, load_lr, load_pair, match_histogram
from rsupres.raster.stretch import parse_stretch
from tests.helpers import make_scene
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


@pytest.mark.parametrize("stretch", ["auto", "reflectance"])
def test_each_file_goes_through_its_own_scale_and_offset(
    tmp_path: Path, stretch: str
) -> None:
    rng = np.random.default_rng(1)
    pixels = rng.integers(500, 3500, (3, 12, 12)).astype(np.uint16)
    scale = (1e-4,) * 3
    hr = make_scene(tmp_path / "hr.tif", pixels=pixels, scales=scale)
    sr = make_scene(
        tmp_path / "sr.tif", pixels=pixels + 1000, scales=scale, offsets=(-0.1,) * 3
    )
    preparation = Preparation(parse_stretch(stretch))
    pair, _, own = load_pair(str(sr), str(hr), preparation)
    np.testing.assert_allclose(pair.sr, pair.hr, atol=1e-5)
    lr = load_lr(str(hr), str(sr), own)
    np.testing.assert_allclose(lr.pixels, pair.hr, atol=1e-5)
