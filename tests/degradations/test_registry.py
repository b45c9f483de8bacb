"""The simulated sensors: against Pillow, and against the physics they state."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from rsupres.degradations.base import degrade_bicubic
from rsupres.degradations.sentinel2 import Sentinel2Params, degrade_sentinel2
from rsupres.degradations.tones import ToneParams, tone
from rsupres.errors import InputError
from tests.parity.golden import Cases

# an ideal sensor: nothing but the optics and the detector
QUIET = Sentinel2Params(mtf=(0.2, 0.3)).still()


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise_image(height: int, width: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    image[: height // 2, : width // 2] = 255  # overshoot beside it is clipped
    return image


def as_tensor(image: np.ndarray) -> Tensor:
    return torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255


@given(
    st.integers(12, 64), st.floats(0.8, 3.0), st.floats(1.0, 8.5), st.integers(0, 99)
)
def test_bicubic_is_pillow_to_within_one_level(
    h: int, aspect: float, scale: float, seed: int
) -> None:
    w = int(h * aspect) + 1  # Pillow changes the order of passes when 1.5 w < h
    hr = noise_image(int(h * scale), int(w * scale), seed)
    expected = np.asarray(Image.fromarray(hr).resize((w, h), Image.Resampling.BICUBIC))
    lr = degrade_bicubic(as_tensor(hr), (h, w))[0].permute(1, 2, 0) * 255
    difference = np.abs(lr.numpy() - expected)
    assert difference.max() <= 1.001
    assert (difference > 0.5).mean() < 0.02


def test_bicubic_meets_the_golden_case() -> None:
    tensors = Cases("e2diffsr").tensors
    if "resize_x3p4/in/hr_u8" not in tensors:
        pytest.skip("this golden folder has no resize case")
    hr, expected = tensors["resize_x3p4/in/hr_u8"], tensors["resize_x3p4/out/lr_u8"]
    size = expected.shape[:2]
    pillow = Image.fromarray(hr).resize(size[::-1], Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(np.asarray(pillow), expected)
    lr = degrade_bicubic(as_tensor(hr), size)[0].permute(1, 2, 0) * 255
    np.testing.assert_allclose(lr.numpy(), expected, atol=1.001)


def test_bicubic_levels_set_the_step() -> None:
    hr = as_tensor(noise_image(40, 40, 1))
    lr = degrade_bicubic(hr, (10, 10), levels=1023) * 1023
    torch.testing.assert_close(lr, lr.round(), atol=1e-3, rtol=0)
    assert (lr / 1023 * 255 - (lr / 1023 * 255).round()).abs().max() > 0.1


@pytest.mark.parametrize("scale", [2.0, 3.4, 4.0, 8.0])
@pytest.mark.parametrize("mtf", [0.15, 0.25, 0.35])
def test_sentinel2_has_the_mtf_asked_for(scale: float, mtf: float) -> None:
    n = 40
    width = round(n * scale)
    x = (torch.arange(width) + 0.5) * n / width  # LR pixels
    wave = 0.5 + 0.4 * torch.cos(math.pi * (x - 0.5))  # extremes at LR centres
    hr = wave.expand(1, 3, width, width).contiguous()
    params = replace(QUIET, mtf=(mtf, mtf))
    for image in (hr, hr.mT):
        lr = degrade_sentinel2(image, (n, n), generator(), params)
        amplitude = (lr[0, 0, 8:-8, 8:-8] - 0.5).abs().mean() / 0.4
        # what remains is HR sampling: aliases of the wave at 1/scale
        assert float(amplitude) == pytest.approx(mtf, abs=0.012)


@given(st.integers(12, 64), st.integers(12, 64), st.floats(1.0, 8.0))
def test_sentinel2_keeps_a_constant_at_any_ratio(h: int, w: int, scale: float) -> None:
    hr = torch.full((2, 3, int(h * scale), int(w * scale)), 0.3)
    params = replace(QUIET, band_shift=0.3, common_shift=0.2, mtf=(0.15, 0.35))
    lr = degrade_sentinel2(hr, (h, w), generator(), params)
    assert lr.shape == (2, 3, h, w)
    assert (lr - 0.3).abs().max() < 2e-5  # half a step of 16 bits


def test_sentinel2_without_shift_keeps_a_ramp_in_place() -> None:
    ramp = ((torch.arange(136) + 0.5) / 136).expand(1, 3, 136, 136).contiguous()
    lr = degrade_sentinel2(ramp, (40, 40), generator(), QUIET)
    expected = ((torch.arange(40) + 0.5) / 40).expand(40, 40)
    inside = slice(4, -4)
    torch.testing.assert_close(
        lr[0, 1][:, inside], expected[:, inside], atol=3e-5, rtol=0
    )


def ramp_offsets(params: Sentinel2Params, n: int = 64) -> Tensor:
    """Measured shift (n, 3) in LR pixels of a ramp along the columns."""
    ramp = ((torch.arange(160) + 0.5) / 160).expand(n, 3, 160, 160).contiguous()
    lr = degrade_sentinel2(ramp, (40, 40), generator(), params)
    still = degrade_sentinel2(ramp, (40, 40), generator(), QUIET)
    return (lr - still)[..., 8:-8].mean((2, 3)) * 40


def test_bands_shift_against_each_other_but_not_on_average() -> None:
    offsets = ramp_offsets(replace(QUIET, band_shift=0.2))
    assert offsets.abs().max() <= 0.2 + 1e-3
    assert offsets.abs().max() > 0.15
    assert offsets.mean(1).abs().max() < 1e-3


def test_common_shift_moves_all_bands_alike_within_its_limit() -> None:
    offsets = ramp_offsets(replace(QUIET, common_shift=0.25))
    assert (offsets - offsets.mean(1, keepdim=True)).abs().max() < 1e-3
    assert 0.2 < offsets.abs().max() <= 0.25 + 1e-3
    assert offsets.mean().abs() < 0.06  # either way


@pytest.mark.parametrize("span", [0.25, 1.0])
@pytest.mark.parametrize("value", [0.1, 0.8])
def test_noise_has_the_stated_variance(span: float, value: float) -> None:
    params = replace(
        QUIET,
        reflectance_range=(span, span),
        read_noise=(6e-4, 6e-4),
        shot_noise=(8e-6, 8e-6),
        bits=12,
        full_scale=1.5,
    )
    lr = degrade_sentinel2(
        torch.full((1, 3, 128, 128), value), (64, 64), generator(), params
    )
    step = 1.5 / 4095
    variance = 6e-4**2 + 8e-6 * value * span + step**2 / 12
    assert float(lr.std()) * span == pytest.approx(math.sqrt(variance), rel=0.04)
    assert float(lr.mean()) == pytest.approx(value, abs=1e-4 / span)


def test_digitisation_has_the_stated_levels() -> None:
    params = replace(QUIET, bits=4, full_scale=1.5, reflectance_range=(0.5, 0.5))
    ramp = torch.linspace(0, 1, 256).expand(1, 3, 256, 256).contiguous()
    levels = degrade_sentinel2(ramp, (64, 64), generator(), params).unique() * 0.5
    torch.testing.assert_close(levels, torch.arange(6) * 0.1, atol=1e-6, rtol=0)


def test_share_of_8_bit_images_is_kept() -> None:
    hr = torch.rand((60, 3, 24, 24), generator=generator(3))
    params = replace(QUIET, share_8bit=0.5)
    lr = degrade_sentinel2(hr, (12, 12), generator(), params) * 255
    is_8bit = ((lr - lr.round()).abs().amax((1, 2, 3)) < 1e-3).sum()
    assert 18 < int(is_8bit) < 42


def test_sentinel2_depends_on_the_seed_alone() -> None:
    hr = torch.rand((2, 3, 64, 64), generator=generator(1))
    params = Sentinel2Params()
    first = degrade_sentinel2(hr, (17, 16), generator(5), params)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        again = degrade_sentinel2(hr, (17, 16), generator(5), params)
    torch.testing.assert_close(first, again, atol=0, rtol=0)
    other = degrade_sentinel2(hr, (17, 16), generator(6), params)
    assert (first - other).abs().max() > 1e-3
    assert first.min() >= 0
    assert first.max() <= 1


def test_images_of_a_batch_get_their_own_draws() -> None:
    hr = torch.rand((1, 3, 64, 64), generator=generator(1)).repeat(2, 1, 1, 1)
    lr = degrade_sentinel2(hr, (16, 16), generator(), Sentinel2Params())
    assert (lr[0] - lr[1]).abs().max() > 1e-3


@pytest.mark.parametrize("size", [(65, 16), (16, 0), (16, 65)])
def test_sizes_that_are_no_degradation_are_refused(size: tuple[int, int]) -> None:
    hr = torch.zeros(1, 3, 64, 64)
    with pytest.raises(InputError, match="LR size"):
        degrade_bicubic(hr, size)
    with pytest.raises(InputError, match="LR size"):
        degrade_sentinel2(hr, size, generator(), QUIET)


@pytest.mark.parametrize(
    "params", [replace(QUIET, bits=10), ToneParams(gamma=(0.5, 0.6))]
)
def test_parameters_survive_json(params: Sentinel2Params | ToneParams) -> None:
    text = json.dumps(params.to_json())
    assert type(params).from_json(json.loads(text)) == params


@pytest.mark.parametrize(
    "values",
    [
        {"blur": 1.0},
        {"mtf": 0.3},
        {"mtf": [0.3, 0.2]},
        {"mtf": [0.3, 0.9]},
        {"bits": 12.5},
        {"band_shift": -0.1},
        {"band_shift": "0.1"},
        {"reflectance_range": [0, 1]},
    ],
)
def test_wrong_parameters_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(InputError):
        Sentinel2Params.from_json(values)


def test_tone_leaves_the_share_that_is_left_alone() -> None:
    hr = torch.rand((40, 3, 8, 8), generator=generator(1))
    off = ToneParams(share_linear=0.0, share_display=0.0)
    torch.testing.assert_close(tone(hr, generator(), off), hr, atol=0, rtol=0)
    toned = tone(hr, generator(), ToneParams(share_linear=0.25, share_display=0.25))
    untouched = ((toned - hr).abs().amax((1, 2, 3)) == 0).sum()
    assert 10 <= int(untouched) <= 30


@pytest.mark.parametrize(
    "params",
    [
        ToneParams(share_linear=1.0, share_display=0.0),
        ToneParams(share_linear=0.0, share_display=1.0),
    ],
)
def test_tone_keeps_the_order_of_values_in_every_band(params: ToneParams) -> None:
    ramp = torch.linspace(0, 1, 256).expand(32, 3, 4, 256).contiguous()
    toned = tone(ramp, generator(), params)
    assert toned.diff(dim=-1).min() >= 0
    assert toned.min() >= 0
    assert toned.max() <= 1
    assert (toned - ramp).abs().amax((1, 2, 3)).min() > 0.02  # each image changes


def test_linear_tones_are_dark_and_flat() -> None:
    ramp = torch.linspace(0, 1, 256).expand(64, 3, 4, 256).contiguous()
    params = ToneParams(share_linear=1.0, share_display=0.0)
    toned = tone(ramp, generator(), params)
    assert toned.mean() < 0.35
    assert float(toned[:, :, :, -1].max()) <= 0.8 * 1.06 + 0.12 + 1e-6
    spans = (toned[..., -1] - toned[..., 0]).mean(1)[:, 0]
    assert spans.min() < 0.2
    assert spans.max() > 0.6
