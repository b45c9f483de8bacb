"""Coarse bands on the grid of fine ones."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray

from rsupres.products.sharpen import FloatArray, area_mean, enlarge, sharpen
from tests.miniature_safe import SAMPLE


def sample() -> FloatArray:
    """Return a part of the sample without nodata."""
    with rasterio.open(SAMPLE) as dataset:
        return np.asarray(dataset.read()[:, 24:, 24:], np.float32)


def rms(difference: NDArray[np.floating]) -> float:
    inner = difference[:, 8:-8, 8:-8]
    return float(np.sqrt(np.square(inner).mean()))


def test_a_band_that_the_fine_ones_explain_is_nearly_found() -> None:
    fine = sample()
    truth = fine[:1] * np.float32(0.3) + fine[3:] * np.float32(0.6)
    coarse = area_mean(truth, 2)
    found = sharpen(coarse, fine, 2)
    assert rms(found - truth) < 0.5 * rms(enlarge(coarse, 2) - truth)


def test_means_over_coarse_pixels_are_kept() -> None:
    fine = sample()
    coarse = area_mean(fine[[3]] * 0.9, 2)
    found = area_mean(sharpen(coarse, fine, 2), 2)
    np.testing.assert_allclose(found, coarse, atol=0.01 * coarse.std())


def test_flat_guides_add_nothing() -> None:
    coarse = area_mean(sample()[:1], 2)
    flat = np.full((4, *(2 * np.array(coarse.shape[1:]))), 7, np.float32)
    plain = sharpen(coarse, flat, 2)
    assert np.isfinite(plain).all()
    assert rms(plain - enlarge(coarse, 2)) < 0.2 * coarse.std()


@pytest.mark.parametrize("factor", [2, 3, 6])
def test_interpolation_keeps_constants_and_ramps(factor: int) -> None:
    ramp = np.arange(20, dtype=np.float32)[np.newaxis, :, np.newaxis].repeat(9, 2)
    found = enlarge(ramp, factor)
    assert found.shape == (1, 20 * factor, 9 * factor)
    wanted = (np.arange(20 * factor) + 0.5) / factor - 0.5
    inner = slice(2 * factor, -2 * factor)
    np.testing.assert_allclose(found[0, inner, 0], wanted[inner], atol=1e-4)
