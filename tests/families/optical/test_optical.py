"""Optical models on scenes: bands, levels, bounds, tiles, and what they are told."""

from __future__ import annotations

from dataclasses import asdict, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from rsupres.checkpoints.catalogue import load_model
from rsupres.checkpoints.file import read_checkpoint, write_checkpoint
from rsupres.degradations.optics import (
    FREQUENCIES,
    Kernel,
    gaussian_of,
    response,
    sample,
    sampling_matrix,
)
from rsupres.diffusion.noise import NoiseField
from rsupres.errors import CheckpointError, InputError
from rsupres.families.base import Conditions, SamplerOptions, TileBatch
from rsupres.families.optical.config import FACTS, Facts, OpticalConfig
from rsupres.families.optical.features import N_FEATURES, describe
from rsupres.families.optical.network import OpticalNetwork
from rsupres.families.optical.reading import (
    N_READ,
    band_groups,
    estimate,
    find_groups,
    gaussian_transfer,
    read_sensor,
)
from rsupres.families.optical.resolver import (
    HALO,
    Optical,
    back_project,
    bound,
    from_checkpoint,
    make_spec,
    nearest_kernel,
)
from rsupres.families.optical.sensing import Estimator
from rsupres.grid import PixelWindow
from rsupres.upscaling.array import upscale_whole
from rsupres.upscaling.memory import ArrayReader

CPU = torch.device("cpu")
CONFIG = OpticalConfig(channels=16, units=2, blocks=1, hidden=8)


def make_network(config: OpticalConfig = CONFIG) -> OpticalNetwork:
    """Return a network whose head and modulations matter."""
    torch.manual_seed(0)
    network = OpticalNetwork(config)
    for name, parameter in network.named_parameters():
        if "head" in name or ".l2.weight" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    return network.eval().requires_grad_(False)


def make_model(
    config: OpticalConfig = CONFIG, options: SamplerOptions | None = None
) -> Optical:
    network = make_network(config)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch omits it
    spec = make_spec(config, gsd=None)
    return Optical(spec, network, options or SamplerOptions(), CPU)


def picture(bands: int = 3, side: int = 48, seed: int = 0) -> np.ndarray:
    """Return smooth ground with edges, (bands, side, side) in [0.2, 0.8]."""
    random = np.random.default_rng(seed)
    rows = sampling_matrix(side, 4 * side, gaussian_of(0.3))
    rough = random.random((bands, 4 * side, 4 * side)) > 0.5
    return (0.2 + 0.6 * sample(rough.astype(np.float64), rows, rows)).astype(np.float32)


def batch_of(model: Optical, lr: np.ndarray, scale: Fraction) -> TileBatch:
    """Return a whole picture as one tile."""
    noise = NoiseField(0)
    window = PixelWindow(0, 0, *lr.shape[1:])
    return TileBatch(
        lr=torch.from_numpy(lr)[None],
        valid=torch.ones((1, 1, *lr.shape[1:]), dtype=torch.bool),
        conditions=Conditions(),
        noise=noise,
        windows_lr=[window],
        windows_sr=[window.scaled(scale)],
        scene=model.prepare(ArrayReader(lr), scale, noise),
    )


def tile(batch: TileBatch, window: PixelWindow, scale: Fraction) -> TileBatch:
    rows, cols = window.slices()
    return replace(
        batch,
        lr=batch.lr[:, :, rows, cols],
        valid=batch.valid[:, :, rows, cols],
        windows_lr=[window],
        windows_sr=[window.scaled(scale)],
    )


@pytest.mark.parametrize("bands", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("scale", ["1", "3/2", "2", "4", "6"])
def test_any_bands_at_any_scale(bands: int, scale: str) -> None:
    lr = picture(bands)
    sr = upscale_whole(make_model(), lr, Fraction(scale), CPU)
    side = int(48 * Fraction(scale))
    assert sr.shape == (bands, side, side)
    assert np.isfinite(sr).all()


def test_the_predicted_error_comes_with_the_same_picture() -> None:
    model = make_model(replace(CONFIG, spread=8))
    assert model.network.spread is not None
    model.network.spread.ratio.fill_(3.0)
    batch = batch_of(model, 2.0 * picture(4), Fraction(3, 2))
    both = model.upscale_with_variance(batch, Fraction(3, 2))
    torch.testing.assert_close(both[:, :4], model.upscale(batch, Fraction(3, 2)))
    assert both.shape == (1, 8, 72, 72)
    assert (both[:, 4:] > 0).all()
    # A picture of twice the contrast is off by twice as much.
    half = batch_of(model, picture(4), Fraction(3, 2))
    smaller = model.upscale_with_variance(half, Fraction(3, 2))
    torch.testing.assert_close(both[:, 4:], 4 * smaller[:, 4:], rtol=1e-3, atol=1e-9)


@pytest.mark.parametrize(
    ("bands", "groups"),
    [
        (1, [(0,)]),
        (2, [(0,), (1,)]),
        (3, [(0, 1, 2)]),
        (5, [(0, 1, 2), (3,), (4,)]),
    ],
)
def test_three_bands_run_together_and_others_alone(
    bands: int, groups: list[tuple[int, ...]]
) -> None:
    assert band_groups(bands) == groups


def test_a_further_band_is_what_the_network_makes_of_it_alone() -> None:
    lr = picture(4)
    together = upscale_whole(make_model(), lr, Fraction(2), CPU)
    alone = upscale_whole(make_model(), lr[3:], Fraction(2), CPU)
    np.testing.assert_allclose(together[3:], alone, atol=1e-6)
    without = upscale_whole(make_model(), lr[:3], Fraction(2), CPU)
    np.testing.assert_allclose(together[:3], without, atol=1e-6)


@pytest.mark.parametrize("scale", ["2", "5/2", "4"])
def test_tiles_are_cuts_of_the_whole(scale: str) -> None:
    model, s = make_model(), Fraction(scale)
    batch = batch_of(model, picture(side=80), s)
    whole = model.upscale(batch, s)
    window = PixelWindow(16, 8, 56, 60)
    part = model.upscale(tile(batch, window, s), s)
    top, left, halo = int(16 * s), int(8 * s), int(HALO * s)
    inner = (..., slice(halo, -halo), slice(halo, -halo))
    cut = whole[..., top : top + part.shape[2], left : left + part.shape[3]]
    torch.testing.assert_close(part[inner], cut[inner], atol=2e-5, rtol=0)


def test_pictures_of_a_batch_do_not_see_each_other() -> None:
    model, scale = make_model(), Fraction(4)
    one = batch_of(model, picture(seed=1), scale)
    two = replace(
        one,
        lr=torch.cat([one.lr, torch.from_numpy(picture(seed=2))[None]]),
        windows_lr=one.windows_lr * 2,
    )
    torch.testing.assert_close(
        model.upscale(two, scale)[:1], model.upscale(one, scale), atol=1e-5, rtol=0
    )


def test_results_keep_near_the_range_around() -> None:
    lr = torch.from_numpy(picture(1, 16))[None]
    wild = torch.randn(1, 1, 64, 64) * 5
    kept = bound(wild, lr, (64, 64))
    for row, col in [(0, 0), (30, 41), (63, 63)]:
        near = lr[
            0,
            0,
            max(row // 4 - 2, 0) : row // 4 + 3,
            max(col // 4 - 2, 0) : col // 4 + 3,
        ]
        slack = 0.25 * (near.max() - near.min())
        assert near.min() - slack <= kept[0, 0, row, col] <= near.max() + slack


def test_saturated_pixels_leave_the_levels_of_clean_ground() -> None:
    clean = picture(side=100)
    spoilt = clean.copy()
    spoilt[:, :10, :10] = 1.0  # 1 % of the scene
    first, second = (
        batch_of(make_model(), lr, Fraction(4)).scene.numbers for lr in (clean, spoilt)
    )
    span = first["high_0"] - first["low_0"]
    assert second["low_0"] == pytest.approx(first["low_0"], abs=0.01 * span)
    assert second["high_0"] == pytest.approx(first["high_0"], abs=0.1 * span)


def test_values_beyond_the_stretch_are_sharpened_like_the_rest() -> None:
    lr = picture()
    sr = upscale_whole(make_model(), lr, Fraction(2), CPU)
    bright = upscale_whole(make_model(), lr + np.float32(1), Fraction(2), CPU)
    np.testing.assert_allclose(bright, sr + 1.0, atol=1e-5)


def test_glint_keeps_its_brightness() -> None:
    """Far beyond the levels of training, interpolation adds what the network lacks."""
    lr = picture()
    lr[:, 20:30, 20:30] = 40.0
    sr = upscale_whole(make_model(), lr, Fraction(2), CPU)
    assert np.abs(sr[:, 46:54, 46:54] - 40.0).max() < 0.5
    assert sr[:, :30, :30].max() < 1.5


def test_further_bands_are_not_taken_for_softer_than_the_first() -> None:
    model = make_model(replace(CONFIG, estimator=8))
    sharp = picture(3, side=64)
    rows = sampling_matrix(64, 64, gaussian_of(0.001))
    soft = sample(picture(1, side=64, seed=1).astype(np.float64), rows, rows)
    numbers = batch_of(
        model, np.concatenate([sharp, soft.astype(np.float32)]), Fraction(2)
    ).scene.numbers
    alone = batch_of(model, soft.astype(np.float32), Fraction(2)).scene.numbers
    for k in range(2, 6):
        wanted = max(alone[f"told_0_{k}"], numbers[f"told_0_{k}"])
        assert numbers[f"told_1_{k}"] == pytest.approx(wanted)


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
    config = replace(CONFIG, noise=4)
    lr = picture()

    def make(detail: float, seed: int) -> np.ndarray:
        model = make_model(config, SamplerOptions(detail=detail))
        return upscale_whole(model, lr, Fraction(4), CPU, seed)

    np.testing.assert_array_equal(make(0.0, 1), make(0.0, 2))
    np.testing.assert_array_equal(make(1.0, 1), make(1.0, 1))
    assert np.abs(make(1.0, 1) - make(1.0, 2)).max() > 1e-4
    assert np.abs(make(0.5, 1) - make(1.0, 1)).max() > 1e-4


def test_a_checkpoint_comes_back(tmp_path: Path) -> None:
    network = make_network()
    path = tmp_path / "optical.safetensors"
    spec = make_spec(CONFIG, gsd=(0.5, 20.0))
    write_checkpoint(path, network.state_dict(), spec, asdict(CONFIG), "a test")
    model = load_model(str(path), CPU, SamplerOptions())
    assert model.spec == spec
    lr = picture()
    np.testing.assert_array_equal(
        upscale_whole(model, lr, Fraction(2), CPU),
        upscale_whole(make_model(), lr, Fraction(2), CPU),
    )
    checkpoint = read_checkpoint(path)
    with pytest.raises(InputError, match="one step"):
        from_checkpoint(checkpoint, CPU, SamplerOptions(steps=4))
    odd = replace(checkpoint, architecture={"width": 3})
    with pytest.raises(CheckpointError, match="does not fit"):
        from_checkpoint(odd, CPU, SamplerOptions())


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
