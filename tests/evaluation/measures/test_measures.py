"""MS-SSIM, UIQI and the measures of opensr-test; our own against kept libraries."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from rsupres.evaluation.measures import metrics
from rsupres.evaluation.measures.more import enlarge, similarity_figures
from rsupres.evaluation.measures.opensr import (
    consistency_figures,
    correctness,
    normalised_difference,
    scores,
    synthesis,
)
from rsupres.evaluation.resize import resize_bicubic_float
from tests.pictures import fourier_shift, texture


def whole(picture: np.ndarray) -> np.ndarray:
    return np.ones(picture.shape[1:], bool)


def test_scores_are_those_of_the_paper() -> None:
    d_im, d_om = np.array([0.0, 1.0, 0.5, 2.0]), np.array([1.0, 0.0, 0.7, 2.0])
    im, om, ha = scores(d_im, d_om)
    # The truth itself, the input itself, between them, and far from both.
    np.testing.assert_allclose(im[:2], [0.0, 1.0])
    np.testing.assert_allclose(om[:2], [1.0, 0.0])
    np.testing.assert_allclose(ha, np.exp(-0.4 * d_im * d_om))
    assert im[2] == pytest.approx(0.5 + 0.7 * (1 - math.exp(-0.8 * 0.2)))
    assert np.argmin(scores(d_im, d_om), axis=0).tolist() == [0, 1, 0, 2]


def test_truth_input_and_noise_are_improvement_omission_and_hallucination() -> None:
    hr = texture(64, 64)
    enlarged = enlarge(resize_bicubic_float(hr, (16, 16)), (64, 64))
    noise = np.random.default_rng(0).uniform(0, 1, hr.shape)
    assert correctness(hr, hr, enlarged, whole(hr)) == (1.0, 0.0, 0.0)
    assert correctness(enlarged, hr, enlarged, whole(hr)) == (0.0, 1.0, 0.0)
    found = correctness(noise, hr, enlarged, whole(hr))
    assert found.hallucination > 0.9
    assert sum(found) == pytest.approx(1.0)
    half = correctness((hr + enlarged) / 2, hr, enlarged, whole(hr))
    assert half.hallucination < 0.05


def test_invalid_pixels_and_pixels_with_nothing_to_add_do_not_count() -> None:
    hr = texture(32, 32)
    enlarged = enlarge(resize_bicubic_float(hr, (8, 8)), (32, 32))
    valid = whole(hr)
    valid[:16] = False
    sr = np.where(valid, hr, 0.9)
    assert correctness(sr, hr, enlarged, valid).improvement == 1.0
    assert math.isnan(correctness(sr, hr, hr, valid).improvement)
    assert math.isnan(synthesis(sr, enlarged, np.zeros_like(valid)))
    assert synthesis(enlarged + 0.1, enlarged, valid) == pytest.approx(0.1, abs=1e-6)


def test_normalised_difference_is_that_of_the_bands() -> None:
    one, other = np.full((2, 1, 1), 0.3), np.array([0.1, 0.3]).reshape(2, 1, 1)
    assert normalised_difference(one, other)[0, 0] == pytest.approx(0.25)
    assert normalised_difference(one * 0, one * 0)[0, 0] == 0.0


def test_consistency_sees_colour_and_place() -> None:
    lr = texture(48, 48)
    same = consistency_figures(lr, lr, whole(lr))
    assert same["lr_sam"] == pytest.approx(0.0, abs=1e-4)
    moved = consistency_figures(fourier_shift(lr, 0.3, 0.4), lr, whole(lr))
    assert moved["lr_shift"] == pytest.approx(0.5, abs=0.05)
    tinted = lr * np.array([1.3, 1.0, 1.0])[:, None, None]
    assert consistency_figures(tinted, lr, whole(lr))["lr_sam"] > 3


def test_similarity_is_torchmetrics_on_blocks_without_invalid_pixels() -> None:
    from torchmetrics.functional.image import (
        multiscale_structural_similarity_index_measure as ms_ssim,
    )

    hr = texture(200, 180)
    sr = np.clip(hr + np.random.default_rng(0).normal(0, 0.02, hr.shape), 0, 1)
    pair = [torch.from_numpy(x.astype(np.float32))[None] for x in (sr, hr)]
    found = similarity_figures(sr, hr, whole(hr))
    wanted = float(ms_ssim(*pair, data_range=1.0))
    assert found["ms_ssim"] == pytest.approx(wanted, abs=1e-6)
    valid = whole(hr)
    valid[5, 5] = False
    parted = similarity_figures(sr, hr, valid)
    assert math.isnan(parted["ms_ssim"])  # no block is large enough
    assert parted["uiqi"] == pytest.approx(found["uiqi"], abs=0.05)


def test_our_figures_are_those_of_torchmetrics_where_all_is_valid() -> None:
    import torchmetrics.functional.image as library

    hr = texture(64, 64, 1)
    sr = np.clip(hr + np.random.default_rng(1).normal(0, 0.03, hr.shape), 0.01, 1)
    a, b = (torch.from_numpy(x.astype(np.float64))[None] for x in (sr, hr))
    psnr = library.peak_signal_noise_ratio(a, b, data_range=1.0)
    assert metrics.psnr(sr, hr) == pytest.approx(float(psnr), abs=1e-4)
    sam = math.degrees(float(library.spectral_angle_mapper(a, b)))
    assert metrics.sam_deg(sr, hr) == pytest.approx(sam, rel=1e-6)
    ergas = library.error_relative_global_dimensionless_synthesis(a, b, ratio=4)
    assert metrics.ergas(sr, hr, 4.0) == pytest.approx(float(ergas), rel=1e-6)
