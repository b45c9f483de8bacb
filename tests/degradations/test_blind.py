"""The blind degradations: each part against what its page in docs/families states."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from rsupres.degradations.blind import RefDiffDegradation, SecondOrder, rescale
from rsupres.degradations.jpeg import compress_images, recompress
from rsupres.degradations.kernels import (
    SIDE,
    KernelMix,
    draw_gaussians,
    draw_kernels,
    draw_motions,
    draw_sinc,
    filter_images,
)
from rsupres.degradations.noise import gaussian_noise, poisson_noise
from rsupres.degradations.registry import DEGRADATIONS, make_degradation
from rsupres.errors import InputError

N = 1500
MIX = KernelMix(
    (7, 21), (0.45, 0.25, 0.12, 0.03, 0.12, 0.03), 0.1, (0.2, 1.5), (0.5, 2), (1, 1.5)
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def picture(n: int = 2, side: int = 64, seed: int = 0) -> torch.Tensor:
    return torch.rand((n, 3, side, side), generator=generator(seed))


def deviations(kernels: torch.Tensor) -> torch.Tensor:
    """Return the two main standard deviations (n, 2) of kernels, larger first."""
    y, x = torch.meshgrid(*[torch.arange(SIDE) - SIDE // 2.0] * 2, indexing="ij")
    moments = [(kernels * m).sum((1, 2)) for m in (y * y, y * x, x * x)]
    covariance = torch.stack(
        [torch.stack(moments[:2], 1), torch.stack(moments[1:], 1)], 1
    )
    return torch.linalg.eigvalsh(covariance).clamp_min(0).sqrt().flip(1)


def only(family: int) -> KernelMix:
    shares = tuple(float(k == family) for k in range(6))
    return replace(MIX, shares=shares, sinc=0.0)


def test_the_parameters_are_those_of_the_paper() -> None:
    found = SecondOrder().to_json()
    assert found == {
        "sizes": [7, 21],
        "shares": [0.45, 0.25, 0.12, 0.03, 0.12, 0.03],
        "sinc": 0.1,
        "blur_2": 0.5,
        "sigma_1": [0.2, 1.5],
        "sigma_2": [0.2, 1.0],
        "beta_generalised": [0.5, 2.0],
        "beta_plateau": [1.0, 1.5],
        "resize_1": [0.2, 0.7, 0.1],
        "resize_2": [0.3, 0.4, 0.3],
        "range_1": [0.3, 1.5],
        "range_2": [0.6, 1.2],
        "gaussian": 0.5,
        "grey": 0.4,
        "noise_1": [1.0, 15.0],
        "noise_2": [1.0, 12.0],
        "poisson_1": [0.05, 2.0],
        "poisson_2": [0.05, 1.0],
        "jpeg_1": [60, 95],
        "jpeg_2": [60, 100],
        "final_sinc": 0.8,
    }
    found = RefDiffDegradation().to_json()
    assert found["sigma"] == [0.2, 3.0]
    assert (found["anisotropic"], found["motion"]) == (0.5, 1.0)
    assert (found["noise"], found["noise_hard"]) == ([0.0, 10.0], [0.0, 5.0])
    assert found["jpeg"] == [60, 95]


@pytest.mark.parametrize("family", range(6))
def test_kernels_are_sound_and_of_their_family(family: int) -> None:
    kernels = draw_kernels(N, only(family), generator())
    torch.testing.assert_close(kernels.sum((1, 2)), torch.ones(N))
    assert (kernels >= 0).all()
    torch.testing.assert_close(kernels, kernels.flip(1, 2))  # no shift
    ratio = deviations(kernels)
    round_ones = (ratio[:, 0] - ratio[:, 1]).abs() < 1e-3
    assert (round_ones.float().mean() > 0.99) == (family in (0, 2, 4))


def test_the_gaussians_have_the_deviations_asked_for() -> None:
    mix = replace(only(0), sigma=(1.2, 1.2), sizes=(21, 21))
    kernels = draw_kernels(50, mix, generator())
    torch.testing.assert_close(deviations(kernels), torch.full((50, 2), 1.2))
    y = torch.arange(SIDE) - SIDE // 2.0
    line = torch.exp(-0.5 * (y / 1.2).square())
    wanted = line[:, None] * line / line.sum() ** 2
    torch.testing.assert_close(kernels[0], wanted)


def test_half_of_the_exponents_lie_below_one() -> None:
    drawn = [
        (beta < 1).float().mean().item()
        for beta in (
            blind_beta((0.5, 2.0)),
            blind_beta((0.9, 4.0)),
        )
    ]
    assert drawn == pytest.approx([0.5, 0.5], abs=0.04)
    assert (blind_beta((1.0, 1.5)) == 1.0).float().mean().item() == pytest.approx(
        0.5, abs=0.03
    )


def blind_beta(pair: tuple[float, float]) -> torch.Tensor:
    from rsupres.degradations.kernels import _draw_beta

    beta = _draw_beta(N, pair, generator())
    assert pair[0] <= beta.min()
    assert beta.max() <= pair[1]
    return beta


def test_kernel_sizes_are_odd_and_all_come() -> None:
    mix = replace(only(0), sigma=(9.0, 9.0))  # reaches the edge of every size
    support = (draw_kernels(N, mix, generator()) > 0).any(2).sum(1)
    assert sorted(set(support.tolist())) == list(range(7, 22, 2))


def test_a_tenth_of_the_kernels_is_sinc() -> None:
    mix = replace(MIX, sizes=(21, 21))
    negative = (draw_kernels(N, mix, generator()) < -1e-6).any(2).any(1)
    assert negative.float().mean().item() == pytest.approx(0.1, abs=0.02)


def test_sinc_passes_low_and_stops_high_frequencies() -> None:
    kernels = draw_sinc(N, (21, 21), 1.0, generator())
    spectrum = torch.fft.fft2(kernels).abs()
    flat, low, corner = spectrum[:, 0, 0], spectrum[:, 0, 1], spectrum[:, 10, 10]
    torch.testing.assert_close(flat, torch.ones(N))
    assert low.min() > 0.5
    assert corner.median() < 0.3
    pulses = draw_sinc(N, (7, 21), 0.8, generator())[:, SIDE // 2, SIDE // 2] == 1.0
    assert pulses.float().mean().item() == pytest.approx(0.2, abs=0.04)


def test_filtering_is_a_reflected_correlation_at_any_size() -> None:
    kernels = draw_kernels(2, MIX, generator())
    large = picture(2, 40)
    padded = torch.nn.functional.pad(large, [SIDE // 2] * 4, mode="reflect")
    wanted = [
        torch.nn.functional.conv2d(image[:, None], kernel[None, None])[:, 0]
        for image, kernel in zip(padded, kernels, strict=True)
    ]
    torch.testing.assert_close(filter_images(large, kernels), torch.stack(wanted))
    for side in (1, 2, 5):
        flat = torch.full((2, 3, side, side), 0.3)
        torch.testing.assert_close(filter_images(flat, kernels), flat)


def test_motion_blurs_along_a_line_of_at_most_the_length() -> None:
    large, small = deviations(draw_motions(500, 8.0, generator())).T
    assert small.max() < 0.6
    assert large.max() < 8.0 / math.sqrt(12) + 0.5
    assert large.max() > 2.0
    assert large.min() < 0.6


def test_anisotropic_gaussians_have_their_share() -> None:
    first, second = deviations(draw_gaussians(N, (0.8, 3.0), 0.5, generator())).T
    two = ((first - second) > 1e-2).float().mean().item()
    assert two == pytest.approx(0.5, abs=0.04)


def test_gaussian_noise_is_as_strong_as_drawn_and_grey_where_wanted() -> None:
    flat = torch.full((200, 3, 32, 32), 0.5)
    grey = (torch.arange(200) < 100).view(-1, 1, 1, 1)
    noise = gaussian_noise(flat, (1.0, 15.0), grey, generator()) * 255
    sigma = noise.flatten(1).std(1)
    assert 0.9 < sigma.min() < 2
    assert 14 < sigma.max() < 16
    same = (noise[:, 0] == noise[:, 1]).flatten(1).all(1)
    assert same.tolist() == grey.flatten().tolist()


def test_poisson_noise_has_the_variance_of_counts() -> None:
    levels = torch.linspace(0, 1, 256).round(decimals=6)
    flat = levels[torch.randint(0, 256, (4, 1, 256, 256), generator=generator())]
    image = flat.expand(-1, 3, -1, -1).contiguous()
    grey = torch.tensor([False, False, True, True]).view(-1, 1, 1, 1)
    noise = poisson_noise(image, (1.0, 1.0), grey, generator())
    # 256 levels: counts of 256 v have the variance 256 v, so noise has v / 256
    for part in (noise[:2], noise[2:]):
        assert part.square().mean().item() == pytest.approx(0.5 / 256, rel=0.05)
        assert abs(part.mean().item()) < 1e-3
    assert torch.equal(noise[2:, 0], noise[2:, 1])
    assert not torch.equal(noise[:2, 0], noise[:2, 1])
    half = poisson_noise(image, (0.5, 0.5), grey, generator())
    torch.testing.assert_close(half, noise / 2)


@pytest.mark.parametrize(("low", "high"), [(60, 95), (60, 60)])
def test_jpeg_is_pillows_at_the_quality_drawn(low: int, high: int) -> None:
    image = picture(3, 32)
    read = compress_images(image, (low, high), generator())
    assert read.shape == image.shape
    rounded = (image * 255 + 0.5).floor().byte().numpy()
    drawn = [
        next(
            q
            for q in range(low, high + 1)
            if (recompress(i, q) == (o * 255).round().byte().numpy()).all()
        )
        for i, o in zip(rounded, read, strict=True)
    ]
    assert all(low <= q <= high for q in drawn)
    assert len(set(drawn)) == (1 if low == high else 3)


def test_sizes_change_as_often_as_stated() -> None:
    wide = torch.zeros((1, 1, 100, 100))
    source = generator()
    sides = torch.tensor(
        [
            rescale(wide, (100, 100), (0.2, 0.7, 0.1), (0.3, 1.5), source).shape[2]
            for _ in range(600)
        ]
    )
    shares = [(sides > 100), (sides < 100), (sides == 100)]
    found = [share.float().mean().item() for share in shares]
    assert found == pytest.approx([0.2, 0.7, 0.1], abs=0.06)
    assert 30 <= sides.min() < 35
    assert 140 < sides.max() <= 150


@pytest.mark.parametrize("name", DEGRADATIONS)
@pytest.mark.parametrize(("side", "size"), [(64, 16), (128, 8), (50, 20), (24, 24)])
def test_every_degradation_gives_lr_that_a_seed_repeats(
    name: str, side: int, size: int
) -> None:
    degradation = make_degradation(name, {})
    hr = picture(2, side)
    first, again, other = (
        degradation.degrade(hr, (size, size), generator(seed)) for seed in (1, 1, 2)
    )
    assert first.shape == (2, 3, size, size)
    assert first.dtype == torch.float32
    assert first.min() >= 0
    assert first.max() <= 1
    assert torch.equal(first, again)
    assert torch.equal(first, other) == (name == "bicubic")


@pytest.mark.parametrize(
    "name", ["refdiff", pytest.param("second-order", marks=pytest.mark.slow)]
)
def test_blind_degradations_do_not_move_the_picture(name: str) -> None:
    ramp = (torch.arange(128) + 0.5) / 128
    hr = ramp.expand(1, 3, 128, 128).contiguous()
    degradation = make_degradation(name, {})
    lr = torch.stack(
        [degradation.degrade(hr, (32, 32), generator(s))[0] for s in range(60)]
    )
    wanted = (torch.arange(32) + 0.5) / 32
    offset = (lr.mean((0, 1, 2)) - wanted)[6:-6].mean() * 32  # LR pixels
    assert abs(offset.item()) < 0.08


def test_refdiff_is_milder_from_x12_on() -> None:
    flat = torch.full((64, 3, 128, 128), 0.5)
    strength = {}
    for size in (16, 8):
        lr = RefDiffDegradation().degrade(flat, (size, size), generator())
        strength[size] = (lr - 0.5).flatten(1).std(1).max().item() * 255
    assert 5.5 < strength[16] < 11.5  # also JPEG
    assert 3.5 < strength[8] < 6.0


def test_wrong_parameters_are_named() -> None:
    for values, message in (
        ({"jpeg": [60]}, "jpeg"),
        ({"quality": 3}, "quality"),
        ({"resize_1": [0.5, 0.5, 0.5]}, "resize_1 is out of range"),
        ({"sizes": [7, 23]}, "sizes must lie in"),
        ({"sigma_1": [2.0, 1.0]}, "sigma_1 is out of range"),
    ):
        with pytest.raises(InputError, match=message):
            make_degradation("refdiff" if "jpeg" in values else "second-order", values)
    with pytest.raises(InputError, match="known: bicubic, sentinel2"):
        make_degradation("jpeg", {})


def test_large_sinc_kernels_cut_lower_than_small_ones() -> None:
    # In the middle a low-pass of cutoff w has w^2 / (4 pi), a little more when cut.
    for side, lowest in ((21, math.pi / 5), (11, math.pi / 3)):
        mix = replace(MIX, sizes=(side, side), sinc=1.0)
        middle = draw_kernels(N, mix, generator())[:, SIDE // 2, SIDE // 2]
        cutoff = (4.0 * math.pi * middle).sqrt()
        assert lowest < cutoff.min().item() < 1.2 * lowest
        assert cutoff.max().item() == pytest.approx(math.pi, rel=0.12)


OTHER_VALUES = {
    "sizes": (7, 9),
    "shares": (0.0, 0.0, 0.0, 0.0, 0.0, 1.0),
    "sinc": 1.0,
    "blur_2": 1.0,
    "sigma_1": (3.0, 3.0),
    "sigma_2": (3.0, 3.0),
    "sigma": (3.0, 3.0),
    "beta_generalised": (0.5, 1.1),
    "beta_plateau": (0.5, 1.1),
    "resize_1": (0.0, 0.0, 1.0),
    "resize_2": (0.0, 0.0, 1.0),
    "range_1": (0.9, 1.1),
    "range_2": (0.9, 1.1),
    "gaussian": 1.0,
    "grey": 1.0,
    "noise_1": (40.0, 40.0),
    "noise_2": (40.0, 40.0),
    "poisson_1": (5.0, 5.0),
    "poisson_2": (5.0, 5.0),
    "jpeg_1": (10, 10),
    "jpeg_2": (10, 10),
    "final_sinc": 0.0,
    "anisotropic": 0.0,
    "motion": 0.0,
    "noise": (40.0, 40.0),
    "noise_hard": (40.0, 40.0),
    "jpeg": (10, 10),
    "hard_from": 3.0,
}


@pytest.mark.parametrize(
    ("kind", "field"),
    [(k, f) for k in (SecondOrder, RefDiffDegradation) for f in k().to_json()],
)
def test_every_parameter_has_an_effect(kind: type, field: str) -> None:
    plain, changed = kind(), replace(kind(), **{field: OTHER_VALUES[field]})
    hr, size = picture(8, 48), (3, 3) if field == "noise_hard" else (12, 12)
    assert any(
        not torch.equal(
            plain.degrade(hr, size, generator(seed)),
            changed.degrade(hr, size, generator(seed)),
        )
        for seed in range(12)
    )
