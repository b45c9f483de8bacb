"""Sampling matrices: against Pillow, against plain means, and against their MTF."""

from __future__ import annotations

import math

import numpy as np
import pytest
from PIL import Image

from rsupres.degradations.optics import (
    KINDS,
    Kernel,
    gaussian_of,
    response,
    sample,
    sampling_matrix,
    sensor_of,
)
from rsupres.errors import InputError

RESAMPLING = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "lanczos": Image.Resampling.LANCZOS,
    "area": Image.Resampling.BOX,
    "nearest": Image.Resampling.NEAREST,
}


def kernel_of(kind: str) -> Kernel:
    sigma = 0.4 if kind in ("gaussian", "sensor") else 0.0
    return Kernel(kind, sigma)  # type: ignore[arg-type]  # one of KINDS


@pytest.mark.parametrize("kind", sorted(RESAMPLING))
@pytest.mark.parametrize(("n_lr", "n_hr"), [(16, 64), (20, 50), (32, 64)])
def test_kernels_resize_as_pillow_does(kind: str, n_lr: int, n_hr: int) -> None:
    if kind == "area" and n_hr % n_lr:
        n_hr = 3 * n_lr  # Pillow counts a pixel wholly or not at all
    image = np.random.default_rng(0).random((n_hr, n_hr), np.float32)
    matrix = sampling_matrix(n_lr, n_hr, kernel_of(kind))
    ours = sample(image[None], matrix, matrix)[0]
    theirs = Image.fromarray(image).resize((n_lr, n_lr), RESAMPLING[kind])
    np.testing.assert_allclose(ours, np.asarray(theirs), atol=2e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_sum_to_one_and_mirror_each_other(kind: str) -> None:
    matrix = sampling_matrix(15, 60, kernel_of(kind))
    np.testing.assert_allclose(matrix.sum(1), 1.0)
    if kind != "nearest":  # which takes the pixel after the centre
        np.testing.assert_allclose(matrix, matrix[::-1, ::-1], atol=1e-12)


@pytest.mark.parametrize("mtf", [0.05, 0.2, 0.4, 0.6])
@pytest.mark.parametrize("make", [gaussian_of, sensor_of])
def test_the_response_at_nyquist_is_the_mtf_asked_for(mtf: float, make) -> None:  # type: ignore[no-untyped-def]
    found = response(sampling_matrix(33, 33 * 16, make(mtf)))
    assert found[1] == pytest.approx(mtf, abs=0.004)
    assert np.all(np.diff(found) < 0)


def test_thinning_without_a_filter_keeps_every_frequency() -> None:
    matrix = sampling_matrix(32, 128, Kernel("nearest"))
    np.testing.assert_allclose(response(matrix), 1.0)


def test_a_shift_moves_the_ground_by_lr_pixels() -> None:
    ramp = np.arange(128.0)[None, None].repeat(128, 1)
    still, moved = (
        sample(ramp, sampling_matrix(32, 128, gaussian_of(0.3)), columns)
        for columns in (
            sampling_matrix(32, 128, gaussian_of(0.3), shift) for shift in (0.0, 0.25)
        )
    )
    np.testing.assert_allclose((moved - still)[0, 8:-8, 8:-8], 1.0, atol=1e-6)


@pytest.mark.parametrize(("kind", "sigma"), [("area", 1.0), ("gaussian", 0.0)])
def test_a_kernel_refuses_a_width_that_it_has_not(kind: str, sigma: float) -> None:
    with pytest.raises(InputError):
        Kernel(kind, sigma)  # type: ignore[arg-type]  # one of KINDS


@pytest.mark.parametrize("mtf", [0.0, 1.0, -0.1, math.inf])
def test_an_mtf_lies_between_0_and_1(mtf: float) -> None:
    with pytest.raises(InputError):
        gaussian_of(mtf)
