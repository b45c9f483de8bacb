"""The displacement between two pictures, to a part of a pixel."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsupres.raster.place.registration import find_shift
from tests.pictures import fourier_shift, texture
from tests.strategies import COSTLY


@COSTLY
@given(st.floats(-5, 5), st.floats(-5, 5), st.integers(0, 9))
def test_shift_is_found_to_a_few_hundredths(row: float, col: float, seed: int) -> None:
    large = texture(128, 112, seed)
    window = (slice(None), slice(16, 112), slice(16, 96))
    shift = find_shift(fourier_shift(large, row, col)[window], large[window])
    assert shift.row == pytest.approx(row, abs=0.05)
    assert shift.col == pytest.approx(col, abs=0.05)


def test_shift_survives_blur_noise_and_another_contrast() -> None:
    large = texture(160, 160, 3)
    moved = fourier_shift(large, 0.3, -1.6)
    blurred = (2 * moved + np.roll(moved, 1, 1) + np.roll(moved, -1, 1)) / 4
    noise = 0.02 * np.random.default_rng(1000).standard_normal(large.shape)
    window = (slice(None), slice(16, 144), slice(16, 144))
    shift = find_shift((0.4 * blurred + 0.2 + noise)[window], large[window])
    assert shift.row == pytest.approx(0.3, abs=0.1)
    assert shift.col == pytest.approx(-1.6, abs=0.1)


def test_shift_of_a_flat_picture_is_nan() -> None:
    assert math.isnan(find_shift(np.full((1, 32, 32), 0.3), texture(32, 32)[:1]).row)
