"""Optical models on scenes: bands, levels, bounds and tiles."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from rsupres.checkpoints.catalogue import load_model
from rsupres.checkpoints.file import read_checkpoint, write_checkpoint
from rsupres.degradations.optics import gaussian_of, sample, sampling_matrix
from rsupres.diffusion.noise import NoiseField
from rsupres.errors import CheckpointError, InputError
from rsupres.families.base import Conditions, SamplerOptions, TileBatch
from rsupres.families.optical.reading import band_groups
from rsupres.families.optical.resolver import (
    HALO,
    Optical,
    bound,
    from_checkpoint,
    make_spec,
)
from rsupres.grid import PixelWindow
from rsupres.upscaling.array import upscale_whole
from rsupres.upscaling.memory import ArrayReader
from tests.families.optical.small_model import (
    CONFIG,
    CPU,
    make_model,
    make_network,
    picture,
)


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
    model.network.spread.by_facts[0] = 2.0  # the first fact is log2(3/2) / 2
    more = model.upscale_with_variance(half, Fraction(3, 2))
    torch.testing.assert_close(more[:, 4:], 1.5 ** (2 / math.log(2)) * smaller[:, 4:])


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
