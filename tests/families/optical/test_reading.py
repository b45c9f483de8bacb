"""What optical models read of a sensor or are told of it, and what that changes."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import Tensor

from rsupres.degradations.optics import (
    FREQUENCIES,
    Kernel,
    gaussian_of,
    response,
    sample,
    sampling_matrix,
)
from rsupres.families.base import SamplerOptions
from rsupres.families.optical.config import FACTS, Facts
from rsupres.families.optical.features import N_FEATURES, describe
from rsupres.families.optical.reading import (
    N_READ,
    estimate,
    find_groups,
    gaussian_transfer,
    read_sensor,
)
from rsupres.families.optical.resolver import back_project, nearest_kernel
from rsupres.families.optical.sensing import Estimator
from rsupres.upscaling.array import upscale_whole
from rsupres.upscaling.memory import ArrayReader
from tests.families.optical.small_model import CONFIG, CPU, make_model, picture


def always(*read: float) -> dict[str, np.ndarray]:
    """Return weights of an estimator that reads the same from every picture."""
    return {
        "mean": np.zeros(N_FEATURES),
        "deviation": np.ones(N_FEATURES),
        **{f"layers.{k}.bias": np.zeros(2) for k in (0, 2)},
        "layers.0.weight": np.zeros((2, N_FEATURES)),
        "layers.2.weight": np.zeros((2, 2)),
        "layers.4.weight": np.zeros((N_READ, 2)),
        "layers.4.bias": np.array(read),
    }


READ = (0.8, 0.3, 0.1, 0.0, 0.5, 0.0)
LEAST = gaussian_transfer(0.45)


@pytest.mark.parametrize(
    ("least", "transfer"),
    [(None, READ[:4]), (0.45, LEAST), (0.2, (0.8, 0.3, 0.1, 0.2**4))],
)
def test_what_is_read_is_told_within_what_is_known_of_the_platform(
    least: float | None, transfer: tuple[float, ...]
) -> None:
    lr, weights = picture(side=48), always(*READ)
    options = SamplerOptions(least_mtf=least)
    (group,) = find_groups(ArrayReader(lr), options, weights)
    assert group.facts.transfer == pytest.approx(transfer)
    assert group.facts.noise == pytest.approx(0.25 * Facts.LARGEST_NOISE)
    found = read_sensor(ArrayReader(lr), options, weights)
    assert found == group.found()
    span = group.high - group.low
    assert found["noise"] == pytest.approx(0.25 * Facts.LARGEST_NOISE * span)
    given = replace(options, sensor_mtf=0.3, noise=0.0)
    assert read_sensor(ArrayReader(lr), given, weights) == pytest.approx(
        {"sensor_mtf": 0.3, "noise": 0.0}
    )


def test_the_estimator_reads_the_same_with_and_without_torch() -> None:
    torch.manual_seed(3)
    estimator = Estimator(8).eval()
    weights = {k: v.numpy() for k, v in estimator.state_dict().items()}
    window = picture(side=64)
    with torch.no_grad():
        wanted = estimator(torch.from_numpy(describe([window]))[None])[0]
    facts = estimate(weights, [window])
    assert facts.transfer == pytest.approx(wanted[:4].clamp(0, 1).tolist(), abs=1e-5)


@pytest.mark.parametrize(
    ("kernel", "wanted"),
    [
        (Kernel("bicubic"), "bicubic"),
        (Kernel("area"), "area"),
        (gaussian_of(0.1), "gaussian"),
        (gaussian_of(0.45), "gaussian"),
    ],
)
def test_the_kernel_is_found_by_its_transfer(kernel: Kernel, wanted: str) -> None:
    told = tuple(response(sampling_matrix(32, 128, kernel)).tolist())
    found = nearest_kernel(told)
    assert found.kind == wanted
    if wanted == "gaussian":
        assert found.sigma == pytest.approx(kernel.sigma, rel=0.02)


@pytest.mark.parametrize("transfer", [None, gaussian_transfer(0.3), READ[:4]])
@pytest.mark.parametrize("scale", ["3/2", "4", "6"])
def test_a_locked_result_agrees_with_the_scene_through_its_blur(
    transfer: tuple[float, ...] | None, scale: str
) -> None:
    lr, s = torch.from_numpy(picture())[None], Fraction(scale)
    side = int(48 * s)
    start = torch.nn.functional.interpolate(lr, (side, side), mode="bicubic")
    kernel = nearest_kernel(transfer) if transfer else Kernel("area")
    rows = torch.from_numpy(sampling_matrix(48, side, kernel)).float()
    told = torch.tensor(Facts(transfer, noise=0.02).as_numbers(float(s)))
    assert back_project(start, lr, told, lock=False) is start
    locked = back_project(start, lr, told, lock=True)
    before, after = (
        float((lr - rows @ sr @ rows.T)[..., 3:-3, 3:-3].square().mean().sqrt())
        for sr in (start, locked)
    )
    assert after < 0.35 * before


def told_of(**facts: object) -> Tensor:
    plain: dict[str, object] = {"transfer": gaussian_transfer(0.2), "noise": 0.0}
    told = Facts(**{**plain, **facts})  # type: ignore[arg-type]  # by name
    return torch.tensor(told.as_numbers(4.0))


def test_results_agree_with_the_scene_through_a_known_blur() -> None:
    lr = torch.from_numpy(picture())[None]
    rows = torch.from_numpy(sampling_matrix(48, 192, gaussian_of(0.2))).float()
    start = torch.nn.functional.interpolate(lr, scale_factor=4.0, mode="bicubic")
    better = back_project(start, lr, told_of(), lock=False)

    def lack(sr: Tensor) -> float:
        inner = np.s_[:, :, 3:-3, 3:-3]
        return float((lr - rows @ sr @ rows.T)[inner].abs().mean())

    assert lack(better) < 0.5 * lack(start)


@pytest.mark.parametrize(
    "facts",
    [
        {"transfer": None},
        {"transfer": gaussian_transfer(0.5)},  # hardly blurred
        {"noise": 0.02},
        {"quality": 75.0},
    ],
)
def test_unknown_sharp_and_noisy_scenes_are_not_corrected(
    facts: dict[str, object],
) -> None:
    lr = torch.from_numpy(picture())[None]
    sr = torch.nn.functional.interpolate(lr, scale_factor=4.0, mode="nearest")
    assert back_project(sr, lr, told_of(**facts), lock=False) is sr


def test_what_is_told_changes_the_result() -> None:
    lr = picture()
    plain, blurred, noisy = (
        upscale_whole(make_model(options=options), lr, Fraction(4), CPU)
        for options in (
            SamplerOptions(),
            SamplerOptions(sensor_mtf=0.1),
            SamplerOptions(noise=0.02),
        )
    )
    assert np.abs(plain - blurred).max() > 1e-4
    assert np.abs(plain - noisy).max() > 1e-4


def test_facts_become_the_numbers_that_the_network_was_trained_with() -> None:
    nothing = Facts().as_numbers(4.0)
    assert nothing == [1.0, *[0.0] * (FACTS - 1)]
    told = Facts((0.9, 0.6, 0.3, 0.1), 0.0125, 55, 1.0).as_numbers(2.0)
    wanted = [0.5, 1.0, 0.9, 0.6, 0.3, 0.1, 1.0, 0.5, 1.0, 1.0, 1.0, 1.0]
    np.testing.assert_allclose(told, wanted, atol=1e-6)
    assert Facts(quality=0).as_numbers(1.0)[8:10] == [1.0, 0.0]
    assert Facts.quality_of(1.0) == 55


def test_a_gaussian_is_told_by_its_mtf_at_nyquist() -> None:
    assert gaussian_transfer(0.3)[FREQUENCIES.index(0.5)] == pytest.approx(0.3)
    assert gaussian_transfer(0.3)[FREQUENCIES.index(1.0)] == pytest.approx(0.3**4)


def test_detail_draws_and_the_mean_does_not() -> None:
    config = replace(CONFIG, noise=4, texture=4)
    lr = picture()

    def make(detail: float, seed: int) -> np.ndarray:
        model = make_model(config, SamplerOptions(detail=detail))
        return upscale_whole(model, lr, Fraction(4), CPU, seed)

    np.testing.assert_array_equal(make(0.0, 1), make(0.0, 2))
    np.testing.assert_array_equal(make(1.0, 1), make(1.0, 1))
    assert np.abs(make(1.0, 1) - make(1.0, 2)).max() > 1e-4
    assert np.abs(make(0.5, 1) - make(1.0, 1)).max() > 1e-4


def spectrum_end(features: np.ndarray) -> float:
    """Return the log power of the highest whole ring of the plain spectrum."""
    return float(features[8])


def test_features_tell_blur_from_sharpness_and_show_jpeg() -> None:
    ground = np.random.default_rng(3).random((3, 512, 512)) > 0.5
    powers = []
    for mtf in (0.05, 0.2, 0.5):
        matrix = sampling_matrix(128, 512, gaussian_of(mtf))
        lr = sample(ground.astype(np.float64), matrix, matrix)
        powers.append(spectrum_end(describe([lr])))
    assert powers[0] < powers[1] - 0.5 < powers[2] - 1.0
    stepped = lr + np.tile(np.repeat([0.0, 0.2], 8), 8)
    assert describe([lr]).shape == (N_FEATURES,)
    assert describe([stepped])[-2] > describe([lr])[-2] + 0.2
