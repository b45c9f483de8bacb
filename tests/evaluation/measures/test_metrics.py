"""Each figure against an independent formula, a closed form, or a known change."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import binary_erosion
from skimage.metrics import structural_similarity

from rsupres.errors import InputError
from rsupres.evaluation.measures.metrics import (
    consistency,
    ergas,
    luma,
    psnr,
    sam_deg,
    ssim,
)
from rsupres.evaluation.measures.seams import seam_ratio, tile_borders
from rsupres.evaluation.perceptual.lpips import LpipsSqueeze, lpips_distance
from rsupres.grid import Grid
from rsupres.raster.place.registration import find_shift
from rsupres.tile_grid import TileGrid
from tests.pictures import texture
from tests.strategies import COSTLY

PAIRWISE: list[Callable[..., object]] = [
    psnr,
    ssim,
    sam_deg,
    lambda sr, hr, valid=None: ergas(sr, hr, 4, valid),
    consistency,
    find_shift,
]


def test_psnr_of_a_constant_error_is_its_closed_form() -> None:
    hr = texture(20, 30) * 0.5
    assert psnr(hr + 0.1, hr) == pytest.approx(20.0, abs=1e-4)
    assert psnr(hr, hr) == math.inf


def test_psnr_takes_one_mean_square_over_the_bands() -> None:
    hr = np.zeros((2, 4, 4))
    sr = hr.copy()
    sr[0] += 0.2  # MSE 0.04 and 0
    assert psnr(sr, hr) == pytest.approx(-10 * math.log10(0.02))


def test_luma_meets_the_published_corner_values() -> None:
    colours = np.array([[0, 0, 0], [1, 1, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1]]).T
    values = luma(colours[:, None, :].astype(float))[0, 0] * 255
    np.testing.assert_allclose(values, [16, 235, 81.481, 144.553, 40.966], atol=1e-9)


@pytest.mark.parametrize("hole", [False, True])
def test_ssim_is_that_of_scikit_image(hole: bool) -> None:
    a, b = texture(26, 31, 1, bands=2), texture(26, 31, 2, bands=2)
    mask = np.ones((26, 31), bool)
    if hole:
        mask[12, 4] = False
        a[:, 12, 4] = np.nan
    _, reference = structural_similarity(
        *(np.nan_to_num(picture.astype(np.float64)) for picture in (a, b)),
        channel_axis=0,
        data_range=1.0,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        full=True,
    )
    inside = np.zeros_like(mask)
    inside[5:-5, 5:-5] = True
    whole = inside & binary_erosion(mask, np.ones((11, 11)), border_value=1)
    assert whole.sum() == 16 * 21 - (11 * 5 if hole else 0)
    assert ssim(a, b, mask) == pytest.approx(reference[:, whole].mean(), abs=1e-9)


def test_ssim_is_one_for_equal_and_falls_with_noise() -> None:
    hr = texture(40, 40)
    noise = np.random.default_rng(1000).standard_normal(hr.shape)
    assert ssim(hr, hr) == pytest.approx(1.0)
    scores = [ssim(hr + level * noise, hr) for level in (0.01, 0.05, 0.2)]
    assert 1 > scores[0] > scores[1] > scores[2] > 0


def test_ssim_without_a_whole_window_is_nan() -> None:
    assert math.isnan(ssim(texture(10, 40), texture(10, 40)))
    mask = np.zeros((20, 20), bool)
    mask[:, :10] = True
    assert math.isnan(ssim(texture(20, 20), texture(20, 20), mask))


def test_sam_is_the_angle_between_colours_whatever_the_brightness() -> None:
    hr = np.tile(np.array([1.0, 0.0, 0.0])[:, None, None], (1, 5, 5))
    sr = np.tile(np.array([1.0, 1.0, 0.0])[:, None, None], (1, 5, 5)) * 0.3
    assert sam_deg(sr, hr) == pytest.approx(45.0)
    picture = texture(9, 9).astype(np.float64)
    assert sam_deg(picture * 0.5, picture) == pytest.approx(0.0, abs=1e-6)
    a, b = texture(9, 9, 1).astype(float), texture(9, 9, 2).astype(float)
    cosine = (a * b).sum(0) / np.sqrt((a * a).sum(0) * (b * b).sum(0))
    expected = np.degrees(np.arccos(cosine)).mean()
    assert sam_deg(a, b) == pytest.approx(float(expected), abs=1e-6)


def test_sam_leaves_black_pixels_out_and_needs_two_bands() -> None:
    a, b = texture(9, 9, 1), texture(9, 9, 2)
    black = a.copy()
    black[:, 0] = 0
    keep = np.ones((9, 9), bool)
    keep[0] = False
    assert sam_deg(black, b) == pytest.approx(sam_deg(a, b, keep))
    assert math.isnan(sam_deg(a[:1], b[:1]))


def test_ergas_is_its_closed_form() -> None:
    hr = np.stack([np.full((4, 4), 0.5), np.full((4, 4), 0.2)])
    sr = hr + np.array([0.05, 0.06])[:, None, None]  # relative errors 0.1 and 0.3
    expected = 100 / 4 * math.sqrt((0.1**2 + 0.3**2) / 2)
    assert ergas(sr, hr, 4) == pytest.approx(expected)
    assert ergas(sr, hr, 2) == pytest.approx(2 * expected)
    assert math.isnan(ergas(sr, hr * 0, 4))


def test_consistency_is_the_mean_and_rms_difference() -> None:
    lr = np.zeros((1, 2, 2))
    shrunk = np.array([[[0.3, -0.1], [0.0, 0.0]]])
    found = consistency(shrunk, lr)
    assert found.mean_abs == pytest.approx(0.1)
    assert found.rms == pytest.approx(math.sqrt(0.1 / 4))


def test_seam_ratio_sees_a_step_at_the_borders() -> None:
    sr = np.zeros((1, 40, 40))
    sr += np.arange(40) * 0.01  # gradient 0.01 along columns, 0 along rows
    assert seam_ratio(sr, [], [20]) == pytest.approx(1.0)
    sr[:, :, 20:] += 0.03
    assert seam_ratio(sr, [], [20]) == pytest.approx(4.0)
    assert seam_ratio(sr, [], [19]) < 1
    turned = sr.transpose(0, 2, 1)
    assert seam_ratio(turned, [20], []) == pytest.approx(4.0)


def test_seam_ratio_of_an_untiled_texture_is_near_one() -> None:
    sr = texture(200, 200)
    assert seam_ratio(sr, [50, 100, 150], [64, 128]) == pytest.approx(1.0, abs=0.1)


def test_seam_ratio_skips_invalid_pixels_and_checks_its_borders() -> None:
    sr = texture(40, 40)
    mask = np.ones((40, 40), bool)
    mask[:, 20] = False
    sr[:, :, 20] = 9.0
    assert math.isnan(seam_ratio(sr, [], [20], mask))
    assert math.isnan(seam_ratio(sr, [], []))
    for border in (0, 40, -1):
        with pytest.raises(InputError, match="borders"):
            seam_ratio(sr, [border], [])


def make_tile_grid(size: int, overlap: int, halo: int, scale: Fraction) -> TileGrid:
    from affine import Affine
    from rasterio.crs import CRS

    frame = Grid(CRS.from_epsg(32631), Affine(10, 0, 5e5, 0, -10, 5e6), 50, 40)
    return TileGrid.plan(frame, scale, size, overlap, halo)


def test_tile_borders_lie_where_weights_start_and_stop() -> None:
    # rows: windows 0..20, 16..36, 30..50 (pulled back); columns: 0..20, 16..36, 20..40
    rows, cols = tile_borders(make_tile_grid(20, 4, 1, Fraction(2)))
    assert rows == [34, 38, 62, 70]
    assert cols == [34, 38, 42, 70]
    hard, _ = tile_borders(make_tile_grid(25, 0, 0, Fraction(4)))
    assert hard == [100]


@pytest.mark.parametrize("figure", PAIRWISE)
def test_invalid_pixels_count_nowhere(figure: Callable[..., object]) -> None:
    hr, sr = texture(48, 48, 1), texture(48, 48, 2)
    mask = np.ones((1, 48, 48), bool)
    mask[:, :, 40:] = False
    first = figure(sr, hr, mask)
    sr[:, :, 40:] = np.nan
    hr[:, :, 40:] = 7.0
    np.testing.assert_allclose(np.array(first), np.array(figure(sr, hr, mask)))
    assert np.isfinite(np.array(first)).all()


@pytest.mark.parametrize("figure", PAIRWISE)
def test_wrong_shapes_are_refused_and_empty_masks_give_nan(
    figure: Callable[..., object],
) -> None:
    a = texture(24, 24)
    with pytest.raises(InputError):
        figure(a, a[:, :-1])
    with pytest.raises(InputError):
        figure(a, a, np.ones((3, 3), bool))
    assert np.isnan(np.array(figure(a, a, np.zeros((24, 24), bool)))).all()


@COSTLY
@given(st.integers(0, 99), st.floats(0.01, 0.3))
def test_more_noise_is_worse_by_every_figure(seed: int, level: float) -> None:
    hr = texture(32, 32, seed)
    noise = np.random.default_rng(seed + 1000).standard_normal(hr.shape)
    less, more = hr + level / 2 * noise, hr + level * noise
    assert psnr(less, hr) == pytest.approx(psnr(more, hr) + 20 * math.log10(2), abs=0.1)
    assert ssim(less, hr) > ssim(more, hr)
    assert ergas(less, hr, 4) == pytest.approx(ergas(more, hr, 4) / 2, rel=0.01)


def test_lpips_in_blocks_is_the_mean_of_the_blocks() -> None:
    torch.manual_seed(0)
    module = LpipsSqueeze().eval()
    for head in module.heads:
        head.data.uniform_(0, 1)
    a, b = texture(600, 40, 1), texture(600, 40, 2)
    halves = [
        lpips_distance(module, a[:, rows], b[:, rows])
        for rows in (slice(0, 300), slice(300, 600))
    ]
    assert lpips_distance(module, a, b) == pytest.approx(np.mean(halves), rel=1e-5)
    assert math.isnan(lpips_distance(module, a[:, :10], b[:, :10]))
    mask = np.zeros((600, 40), bool)
    mask[:300] = True
    half = lpips_distance(module, a, b, mask)
    assert half == pytest.approx(halves[0], rel=1e-5)
    a[:, 300:] = np.nan
    assert lpips_distance(module, a, b, mask) == half
