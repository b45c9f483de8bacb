"""Noise is standard normal and depends on the ground alone."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsupres.diffusion.noise import NoiseField
from rsupres.grid import PixelWindow

WHOLE = PixelWindow(-20, -37, 41, 75)
BIG = PixelWindow(0, 0, 1024, 1024)


def parts(frame: PixelWindow) -> st.SearchStrategy[PixelWindow]:
    """Windows inside a frame."""

    @st.composite
    def build(draw: st.DrawFn) -> PixelWindow:
        row = draw(st.integers(frame.row, frame.row_stop - 1))
        col = draw(st.integers(frame.col, frame.col_stop - 1))
        height = draw(st.integers(1, frame.row_stop - row))
        width = draw(st.integers(1, frame.col_stop - col))
        return PixelWindow(row, col, height, width)

    return build()


@given(parts(WHOLE), st.integers(1, 3), st.integers(0, 2**63))
def test_windows_draw_the_same_noise_for_the_same_ground(
    part: PixelWindow, channels: int, seed: int
) -> None:
    field = NoiseField(seed)
    whole = field.draw(2, WHOLE, 3)
    cut = whole[(slice(channels), *part.relative_to(WHOLE).slices())]
    assert np.array_equal(field.draw(2, part, channels), cut)


@given(parts(WHOLE._replace(row=2**40, col=-(2**40))))
def test_positions_far_from_the_origin_are_positions_too(part: PixelWindow) -> None:
    whole = WHOLE._replace(row=2**40, col=-(2**40))
    cut = NoiseField(1).draw(0, whole, 1)[
        (slice(None), *part.relative_to(whole).slices())
    ]
    assert np.array_equal(NoiseField(1).draw(0, part, 1), cut)


def test_noise_has_the_bits_it_always_had() -> None:
    noise = NoiseField(7, sample=1).draw(3, PixelWindow(-3, -5, 12, 21), 2)
    assert noise.dtype == np.float32
    assert noise.shape == (2, 12, 21)
    assert (
        hashlib.sha256(noise.tobytes()).hexdigest()
        == "f6e1b5420487571b0d971ed4a8ddc2bb9d2f809ff7314e853972470d5e4efbc9"
    )


def test_noise_is_standard_normal() -> None:
    noise = np.sort(NoiseField(11).draw(0, BIG, 4).ravel().astype(np.float64))
    n = noise.size
    # Five standard errors of each moment of n independent normals.
    assert abs(noise.mean()) < 5 / np.sqrt(n)
    assert abs((noise**2).mean() - 1) < 5 * np.sqrt(2 / n)
    assert abs((noise**3).mean()) < 5 * np.sqrt(15 / n)
    assert abs((noise**4).mean() - 3) < 5 * np.sqrt(96 / n)
    # Kolmogorov-Smirnov: 2.2 / sqrt(n) is exceeded once in 10,000 cases.
    levels = np.linspace(0.0005, 0.9995, 1000)
    below = np.searchsorted(noise, [NormalDist().inv_cdf(level) for level in levels])
    assert np.abs(below / n - levels).max() < 2.2 / np.sqrt(n)


@pytest.mark.parametrize("sigmas", [3.0, 4.0, 4.5])
def test_tails_are_those_of_a_normal(sigmas: float) -> None:
    noise = NoiseField(12).draw(0, BIG, 4)
    expected = 2 * NormalDist().cdf(-sigmas) * noise.size
    assert abs((np.abs(noise) > sigmas).sum() - expected) < 5 * np.sqrt(expected)


def test_neighbouring_pixels_are_uncorrelated_also_in_their_squares() -> None:
    noise = NoiseField(13).draw(0, BIG, 1)[0].astype(np.float64)
    for field in (noise, noise**2 - 1):
        power = (field**2).mean()
        for rows, cols in [(0, 1), (0, 2), (0, 4), (0, 8), (1, 0), (8, 0), (1, 1)]:
            moved = field[rows:, cols:] * field[: 1024 - rows, : 1024 - cols]
            assert abs(moved.mean() / power) < 5 / 1024


@pytest.mark.parametrize("other", ["seed", "sample", "draw", "channel", "row", "col"])
def test_whatever_differs_gives_independent_noise(other: str) -> None:
    field, window = NoiseField(5, 5), PixelWindow(5, 5, 512, 512)
    one = field.draw(5, window, 6)
    if other in ("seed", "sample"):
        two = replace(field, **{other: 6}).draw(5, window, 6)
    elif other == "draw":
        two = field.draw(6, window, 6)
    elif other == "channel":
        one, two = one[:5], one[1:]
    else:
        two = field.draw(5, window._replace(**{other: 5 + 512}), 6)
    correlation = np.mean(one.astype(np.float64) * two)
    assert abs(correlation) < 5 / np.sqrt(one.size)


@pytest.mark.parametrize(
    ("window", "channels"), [((0, 0, 0, 5), 1), ((0, 0, 5, 0), 1), ((0, 0, 5, 5), 0)]
)
def test_empty_draws_are_refused(window: tuple[int, ...], channels: int) -> None:
    with pytest.raises(ValueError, match="cannot draw"):
        NoiseField(0).draw(0, PixelWindow(*window), channels)
