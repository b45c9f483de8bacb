"""Bicubic enlargement, area means, and their inverse."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from rsupres.blocks.separable import (
    apply_cols,
    apply_rows,
    area_map,
    area_means,
    cubic_map,
    enlarge,
    inverse_map,
)

SCALES = [Fraction(2), Fraction(3), Fraction(4), Fraction(5, 2), Fraction(10, 3)]
each_scale = pytest.mark.parametrize("scale", SCALES, ids=str)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("scale", [2, 3, 4, 7])
def test_enlarging_agrees_with_pillow(scale):
    lr = noise(1, 37, 70)
    sr = enlarge(lr, Fraction(scale))[0].numpy()
    image = Image.fromarray(lr[0].numpy())
    wanted = image.resize((70 * scale, 37 * scale), Image.Resampling.BICUBIC)
    np.testing.assert_allclose(sr, np.asarray(wanted), atol=2e-6)


@each_scale
def test_enlarging_keeps_a_ramp_a_ramp_away_from_the_edges(scale):
    lr = torch.arange(30.0).expand(1, 30, 30)
    sr = enlarge(lr, scale)[0, 50]
    wanted = (np.arange(len(sr)) + 0.5) / float(scale) - 0.5
    inner = slice(int(3 * scale), -int(3 * scale))
    np.testing.assert_allclose(sr[inner], wanted[inner], atol=1e-4)


@each_scale
@given(start=st.integers(0, 20), length=st.integers(1, 40))
def test_a_window_of_the_map_is_that_part_of_the_whole(scale, start, length):
    lr = noise(90, 1)
    whole = apply_rows(lr, cubic_map(Fraction(0), 90, int(90 * scale), scale))
    step = scale.denominator
    start, length = 2 + start, length * step
    start = -(-start // step) * step
    low, high = start - 2, min(90, start + length + 2)
    length = min(length, (90 - start) // step * step)
    window = cubic_map((start - low) * scale, high - low, int(length * scale), scale)
    part = apply_rows(lr[low:high], window)
    first = int(start * scale)
    np.testing.assert_allclose(part, whole[first : first + len(part)], atol=1e-6)


@each_scale
def test_area_means_keep_the_mean_and_a_constant(scale):
    axis = area_map(60, scale)
    sr = noise(1, axis.n_source)
    lr = apply_cols(sr, axis)
    assert lr.shape == (1, 60)
    assert float(lr.mean()) == pytest.approx(float(sr.mean()), abs=1e-6)
    np.testing.assert_allclose(apply_cols(torch.ones_like(sr), axis), 1.0, atol=1e-6)


def test_area_means_of_a_whole_scale_are_block_means():
    sr = noise(8, 12)
    lr = apply_rows(apply_cols(sr, area_map(3, Fraction(4))), area_map(2, Fraction(4)))
    np.testing.assert_allclose(lr, sr.reshape(2, 4, 3, 4).mean(dim=(1, 3)), atol=1e-6)


@pytest.mark.parametrize("scale", [2, 3, 4, 8, Fraction(5, 2)])
def test_area_means_are_those_of_the_maps(scale):
    scale = Fraction(scale)
    sr = noise(2, int(40 * scale), int(60 * scale))
    maps = area_map(40, scale), area_map(60, scale)
    assert torch.equal(
        area_means(sr, scale), apply_cols(apply_rows(sr, maps[0]), maps[1])
    )
    with pytest.raises(ValueError, match=r"pixels for a map|not whole"):
        area_means(sr[:, 1:], scale)


def test_area_maps_that_are_not_whole_are_refused():
    with pytest.raises(ValueError, match="not whole"):
        area_map(4, Fraction(10, 3))


@each_scale
def test_the_inverse_undoes_enlarging_and_averaging(scale):
    n = 120
    lr = noise(1, n, seed=3) - 0.5
    there = apply_cols(
        apply_cols(lr, inverse_map(n, scale)),
        cubic_map(Fraction(0), n, int(n * scale), scale),
    )
    back = apply_cols(there, area_map(n, scale))
    np.testing.assert_allclose(back, lr, atol=2e-6)


def test_the_number_of_threads_is_what_it_was():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        enlarge(noise(1, 8, 8), Fraction(2))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
