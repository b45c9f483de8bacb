"""Any sensor: the facts are those of the images, and every draw is the generator's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from rsupres.degradations.any_sensor import AnySensor
from rsupres.degradations.optics import (
    Kernel,
    gaussian_of,
    response,
    sample,
    sampling_matrix,
)
from rsupres.degradations.spectra import SpectrumParams, change_spectra
from rsupres.errors import InputError

QUIET = replace(AnySensor(), noisy=0.0, compressed=0.0, rounded=0.0, shifted=0.0)
ONLY = {kind: tuple(float(k == kind) for k in range(9)) for kind in range(9)}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def ground(n: int = 4) -> torch.Tensor:
    return torch.rand((n, 3, 64, 64), generator=generator(9))


def test_a_draw_is_the_generators_alone() -> None:
    first, again, other = (
        AnySensor().take(ground(), (16, 16), generator(seed)) for seed in (1, 1, 2)
    )
    torch.testing.assert_close(first.lr, again.lr, atol=0, rtol=0)
    torch.testing.assert_close(first.transfer, again.transfer, atol=0, rtol=0)
    assert not torch.equal(first.lr, other.lr)


def test_the_transfer_is_that_of_the_kernel() -> None:
    narrow = replace(QUIET, kernels=ONLY[0], mtf=(0.3, 0.3), astigmatic=0.0)
    taken = narrow.take(ground(), (16, 16), generator())
    matrix = sampling_matrix(16, 64, gaussian_of(0.3))
    np.testing.assert_allclose(taken.transfer[0], response(matrix), atol=1e-6)
    wanted = sample(ground().numpy()[0], matrix, matrix)
    np.testing.assert_allclose(taken.lr[0], wanted, atol=1e-5)
    assert not taken.noise.any()
    assert not taken.quality.any()


def test_thinned_images_are_pixels_of_the_ground() -> None:
    thinned = replace(QUIET, kernels=ONLY[6]).take(ground(), (16, 16), generator())
    matrix = sampling_matrix(16, 64, Kernel("nearest"))
    np.testing.assert_allclose(
        thinned.lr[1], sample(ground().numpy()[1], matrix, matrix)
    )


def test_noise_has_the_deviation_that_is_told() -> None:
    sensor = replace(QUIET, noisy=1.0, growing=0.0, grey=0.0, noise=(0.02, 0.02))
    flat = torch.full((6, 3, 128, 128), 0.5)
    taken = sensor.take(flat, (64, 64), generator())
    assert torch.allclose(taken.noise, torch.tensor(0.02))
    for image in taken.lr:
        assert float(image.std()) == pytest.approx(0.02, rel=0.05)


def test_jpeg_is_told_and_leaves_whole_levels() -> None:
    sensor = replace(QUIET, compressed=1.0, quality=(60, 60))
    taken = sensor.take(ground(), (16, 16), generator())
    assert taken.quality.tolist() == [60.0] * 4
    levels = taken.lr * 255
    torch.testing.assert_close(levels, levels.round(), atol=1e-3, rtol=0)


def test_images_that_are_taken_alike_share_everything_but_the_noise() -> None:
    same = ground(1).expand(4, 3, 64, 64)
    mixed = replace(AnySensor(), noisy=0.0).take(same, (16, 16), generator(4)).lr
    assert not torch.equal(mixed[0], mixed[1])
    for seed in range(8):
        sensor = replace(AnySensor(), noisy=0.0, alike=1.0)
        lr = sensor.take(same, (16, 16), generator(seed)).lr
        assert torch.equal(lr[0], lr[3])
    taken = replace(QUIET, noisy=1.0, alike=1.0).take(same, (16, 16), generator(5))
    assert taken.noise.unique().numel() == 1
    assert not torch.equal(taken.lr[0], taken.lr[3])


def test_degrade_clips_and_keeps_the_size() -> None:
    lr = AnySensor().degrade(ground() * 2 - 0.5, (16, 16), generator())
    assert lr.shape == (4, 3, 16, 16)
    assert float(lr.min()) >= 0.0
    assert float(lr.max()) <= 1.0


def test_shares_add_up() -> None:
    with pytest.raises(InputError):
        replace(AnySensor(), kernels=(1.0, 1.0, *[0.0] * 7))


def test_spectra_keep_the_ground_and_draw_from_the_generator() -> None:
    hr = ground(32)
    first, again = (change_spectra(hr, generator(3), SpectrumParams()) for _ in "ab")
    torch.testing.assert_close(first, again, atol=0, rtol=0)
    assert first.shape == hr.shape
    grey = replace(SpectrumParams(), kinds=(0.0, 0.0, 1.0, 0.0))
    made = change_spectra(hr, generator(), grey)
    torch.testing.assert_close(made[:, 0], made[:, 2], atol=0, rtol=0)
    still = SpectrumParams(
        kinds=(1.0, 0.0, 0.0, 0.0), reversed=0, inverted=0, toned=0, stretched=0
    )
    torch.testing.assert_close(change_spectra(hr, generator(), still), hr)
