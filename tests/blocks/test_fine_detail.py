"""Detail finer than an LR image can tell: its measure and its limit."""

from __future__ import annotations

from fractions import Fraction

import torch

from rsupres.blocks.fine_detail import blurred, finest_contrast, limit_finest

FLAT = torch.full((1, 3, 24, 24), 0.4)


def test_a_gaussian_keeps_the_mean_and_has_its_width() -> None:
    dot = torch.zeros(1, 1, 41, 41)
    dot[..., 20, 20] = 1.0
    spot = blurred(dot, 2.0)[0, 0]
    rows = torch.arange(41.0) - 20
    width = (spot.sum(1) * rows.square()).sum().sqrt()
    torch.testing.assert_close(spot.sum(), torch.tensor(1.0))
    torch.testing.assert_close(width, torch.tensor(2.0), atol=0.05, rtol=0)
    torch.testing.assert_close(blurred(FLAT, 1.0), FLAT)


def test_contrast_is_that_of_the_finest_detail_where_it_is() -> None:
    lr = FLAT.clone()
    lr[..., 1::2, :12] += 0.2  # stripes at the highest frequency, left half
    found = finest_contrast(lr, Fraction(8))
    assert found.shape == (1, 1, 192, 192)
    wave = found[..., 80:112, 16:48].mean()
    torch.testing.assert_close(wave, torch.tensor(0.1), atol=0.02, rtol=0)
    assert found[..., 168:].abs().max() < 1e-6


def test_dots_go_and_what_is_coarse_or_small_stays() -> None:
    ramp = torch.linspace(0, 1, 96).expand(1, 3, 96, 96).clone()
    dotted = ramp.clone()
    dotted[..., 40, 40] -= 0.5
    none = torch.zeros(1, 1, 96, 96)
    kept = limit_finest(dotted, none, 1.0)
    assert (kept - ramp)[..., 40, 40].abs().max() < 0.1
    inner = (..., slice(None), slice(5, -5))
    torch.testing.assert_close(limit_finest(ramp, none, 1.0)[inner], ramp[inner])
    torch.testing.assert_close(limit_finest(dotted, none + 1.0, 1.0), dotted)
