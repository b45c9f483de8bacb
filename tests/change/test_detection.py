"""Detection of change between arrays: what is found, and what has no effect."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsupres.change.components import drop_small, drop_thin
from rsupres.change.detection import (
    MIN_PIXELS,
    fit_differences,
    make_detector,
    statistic,
)
from rsupres.change.options import SIGNIFICANCE
from rsupres.change.statistics.null_distribution import NullDistribution
from rsupres.errors import ConditionError
from tests.strategies import COSTLY

METHODS = ("irmad", "cva")
each_method = pytest.mark.parametrize("method", METHODS)
SQUARE = (slice(20, 34), slice(40, 58))


def make_pair(seed=0, bands=4, noise=0.01, shape=(80, 90)):
    """Two dates of a made-up place: another light, noise, and one new square."""
    rng = np.random.default_rng(seed)
    cover = rng.random((3, 9, 10)).repeat(10, axis=1).repeat(10, axis=2)
    mix = rng.random((bands, 3)) + 0.2
    ground = np.einsum("bk,khw->bhw", mix, cover[:, : shape[0], : shape[1]])
    ground = ground[:, : shape[0], : shape[1]] + rng.normal(0, 0.02, (bands, *shape))
    after = ground + rng.normal(0, noise, ground.shape)
    after[:, *SQUARE] = (rng.random(bands) * 2 + 1)[:, None, None]
    gain = rng.uniform(0.5, 2, bands)[:, None, None]
    return ground, gain * after + 0.3


def detect_change(
    before,
    after,
    valid=None,
    *,
    method="auto",
    significance=SIGNIFICANCE,
    threshold=None,
    min_pixels=MIN_PIXELS,
):
    """Detect change in images that fit in memory, by the steps of `change.images`.

    Returns:
        (1, h, w) uint8: 0 unchanged, 1 changed, 255 where invalid.
    """
    usable = np.isfinite(np.concatenate([before, after])).all(axis=0)
    if valid is not None:
        usable &= valid.reshape(usable.shape)
    x, y = (np.where(usable, image, 0.0) for image in (before, after))
    found = fit_differences(x[:, usable], y[:, usable], method, "the images")
    values = statistic(found.apply(x, y), usable)
    detector = make_detector(found, values[usable], significance, threshold)
    with np.errstate(invalid="ignore"):
        changed = drop_small(values > detector.critical, min_pixels)
    return np.where(usable, changed, 255).astype(np.uint8)[np.newaxis]


def truth_of(image):
    truth = np.zeros(image.shape[1:], bool)
    truth[SQUARE] = True
    return truth


def f1(mask, truth):
    return 2 * (mask & truth).sum() / (mask.sum() + truth.sum())


@each_method
@pytest.mark.parametrize("seed", range(3))
def test_a_new_square_is_found_whatever_the_light(method, seed):
    before, after = make_pair(seed)
    found = detect_change(before, after, method=method)
    assert found.shape == (1, *before.shape[1:])
    assert found.dtype == np.uint8
    # Averaging 3 x 3 pixels widens a part by one.
    assert f1(found[0] == 1, truth_of(before)) > 0.85


def test_bands_need_no_counterpart_for_irmad():
    before, after = make_pair()
    found = detect_change(before, after[[2, 0, 3]], method="irmad")
    assert f1(found[0] == 1, truth_of(before)) > 0.8
    with pytest.raises(ConditionError, match="4 and 3"):
        detect_change(before, after[:3], method="cva")


@each_method
@COSTLY
@given(gains=st.lists(st.floats(0.01, 1000), min_size=8, max_size=8))
def test_gains_and_offsets_of_bands_do_not_matter(method, gains):
    before, after = make_pair(noise=0.05)
    scaled = [
        image * np.array(part)[:, None, None] + 5 * part[0]
        for image, part in ((before, gains[:4]), (after, gains[4:]))
    ]
    plain = detect_change(before, after, method=method, min_pixels=1)
    again = detect_change(*scaled, method=method, min_pixels=1)
    if method == "irmad":
        assert (plain != again).mean() < 0.002
    else:  # orthogonal regression minds the ratio of noise, a little
        assert f1(again[0] == 1, truth_of(before)) > 0.75


@each_method
def test_images_that_are_the_same_show_no_change(method):
    before, _ = make_pair()
    assert not detect_change(before, before.copy(), method=method).any()


@each_method
def test_only_what_differs_is_marked_between_images_that_are_else_the_same(method):
    before, _ = make_pair()
    after = before.copy()
    after[:, *SQUARE] += 1
    found = detect_change(before, after, method=method)[0] == 1
    assert found[SQUARE].all()
    assert found.sum() < 1.5 * truth_of(before).sum()


@each_method
def test_a_smaller_significance_marks_less_and_a_higher_threshold_too(method):
    before, after = make_pair(noise=0.1)
    shares = [
        (detect_change(before, after, method=method, min_pixels=1, **how) == 1).mean()
        for how in (
            {"significance": 0.1},
            {"significance": 1e-3},
            {"significance": 1e-9},
        )
    ]
    assert shares[0] > shares[1] > shares[2] > 0
    looser, stricter = (
        (
            detect_change(before, after, method=method, min_pixels=1, threshold=k) == 1
        ).sum()
        for k in (3, 8)
    )
    assert looser > stricter


def test_noise_alone_is_marked_about_as_often_as_asked():
    rng = np.random.default_rng(3)
    ground = rng.normal(0, 1, (4, 200, 200))
    noisy = [ground + rng.normal(0, 0.3, ground.shape) for _ in range(2)]
    for method in METHODS:
        found = detect_change(*noisy, method=method, significance=0.02, min_pixels=1)
        assert 0.01 < (found == 1).mean() < 0.035


@each_method
def test_invalid_pixels_are_unknown_and_do_not_spoil_the_rest(method):
    before, after = make_pair()
    valid = np.ones(before.shape[1:], bool)
    valid[:12] = False
    before[:, :12], after[:, 50:60, :9] = 1e6, np.nan
    found = detect_change(before, after, valid, method=method)[0]
    assert (found[:12] == 255).all()
    assert (found[50:60, :9] == 255).all()
    assert (found[12:50] != 255).all()
    assert f1(found == 1, truth_of(before)) > 0.8


def test_small_parts_are_dropped():
    before, after = make_pair()
    after[:, 60, 10] += 50
    kept = detect_change(before, after, min_pixels=1)[0]
    assert kept[60, 10] == 1
    assert detect_change(before, after, min_pixels=30)[0, 60, 10] == 0


def test_images_that_cannot_be_compared_are_refused():
    before, after = make_pair()
    with pytest.raises(ConditionError, match="the later image has the same value"):
        detect_change(before, np.full_like(after, 3))
    with pytest.raises(ConditionError, match=r"only 100 pixels .* give a mask"):
        detect_change(before[:, :10, :10], after[:, :10, :10])


def test_one_band_twice_does_not_break_the_covariance():
    before, after = make_pair()
    twice = [np.concatenate([image, image[:1]]) for image in (before, after)]
    for method in METHODS:
        found = detect_change(*twice, method=method)
        assert f1(found[0] == 1, truth_of(before)) > 0.8


def test_auto_falls_back_to_cva_where_irmad_does_not_converge(monkeypatch, caplog):
    before, after = make_pair()
    monkeypatch.setattr("rsupres.change.detection.MAX_ITERATIONS", 1)
    x, y = before.reshape(4, -1), after.reshape(4, -1)
    assert fit_differences(x, y, "auto", "a and b").method == "cva"
    assert "a and b: IR-MAD does not converge; CVA is used" in caplog.text
    with pytest.raises(ConditionError, match="compare by CVA") as caught:
        fit_differences(x, y, "irmad", "a and b")
    assert caught.value.remedies == ("method=cva",)


def test_canonical_variates_are_as_nielsen_defines_them():
    before, after = make_pair(noise=0.2)
    x, y = before.reshape(4, -1), after.reshape(4, -1)
    found = fit_differences(x, y, "irmad", "x")
    assert (np.diff(found.correlations) >= 0).all()
    flat = found.apply(x, y)
    assert flat.shape == x.shape
    assert found.apply(before, after).shape == before.shape
    stay = ~truth_of(before).ravel()
    # Each difference has unit variance, and they are uncorrelated, on what stayed.
    spread = np.cov(flat[:, stay])
    assert np.allclose(np.diag(spread) / np.diag(spread).mean(), 1, atol=0.15)
    assert np.abs(spread - np.diag(np.diag(spread))).max() < 0.1 * spread[0, 0]


@given(dof=st.floats(0.5, 4), scale=st.floats(0.01, 100), seed=st.integers(0, 9))
def test_the_law_of_unchanged_ground_is_found_from_its_quartiles(dof, scale, seed):
    values = scale * 2 * np.random.default_rng(seed).gamma(dof / 2, size=40_000)
    null = NullDistribution.fit(values, 4)
    assert null.dof == pytest.approx(dof, rel=0.1)
    assert null.scale == pytest.approx(scale, rel=0.15)
    critical = null.critical(0.01)
    assert (values > critical).mean() == pytest.approx(0.01, abs=0.005)
    assert null.survival(np.array([critical]))[0] == pytest.approx(0.01, abs=1e-5)


def test_change_up_to_a_fifth_of_the_ground_hardly_moves_the_threshold():
    rng = np.random.default_rng(0)
    values = rng.chisquare(4, 50_000)
    clean = NullDistribution.fit(values, 4).critical(1e-3)
    values[:5_000] += 500
    assert NullDistribution.fit(values, 4).critical(1e-3) < 1.8 * clean


def test_the_statistic_is_a_mean_over_valid_neighbours():
    differences = np.zeros((1, 5, 5))
    differences[0, 2, 2] = 9
    valid = np.ones((5, 5), bool)
    assert statistic(differences, valid)[1, 1] == pytest.approx(1)
    valid[0] = False
    found = statistic(differences, valid)
    assert np.isnan(found[0]).all()
    assert found[1, 1] == pytest.approx((9 / 6) ** 2)


def test_a_threshold_counts_standard_deviations():
    rng = np.random.default_rng(1)
    before, after = make_pair()
    found = fit_differences(
        before.reshape(4, -1), after.reshape(4, -1), "irmad", "images"
    )
    detector = make_detector(found, 7 * rng.chisquare(4, 100_000), 1e-3, 3.0)
    assert detector.critical == pytest.approx(9 * 7, rel=0.03)


masks = st.integers(1, 9).flatmap(
    lambda width: st.lists(
        st.lists(st.booleans(), min_size=width, max_size=width), min_size=1, max_size=9
    )
)


def flooded(mask):
    """Parts by flooding from each pixel: slow and plain."""
    left = {(int(r), int(c)) for r, c in np.argwhere(mask)}
    while left:
        part, edge = set(), [left.pop()]
        while edge:
            row, col = edge.pop()
            part.add((row, col))
            near = {(row + i, col + j) for i in (-1, 0, 1) for j in (-1, 0, 1)} & left
            left -= near
            edge += near
        yield part


@given(masks, st.integers(0, 12))
def test_parts_below_the_minimum_size_are_dropped_and_no_others(rows, min_pixels):
    mask = np.array(rows, bool)
    wanted = np.zeros_like(mask)
    for part in flooded(mask):
        if len(part) >= min_pixels:
            wanted[tuple(np.array(list(part)).T)] = True
    assert np.array_equal(drop_small(mask, min_pixels), wanted)


@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.floats(0.1, 0.6))
def test_what_becomes_of_a_pixel_depends_on_its_surroundings_alone(seed, n, share):
    mask = np.random.default_rng(seed).random((40, 40)) < share
    whole = drop_small(mask, n)
    cut = slice(20 - n, 26 + n), slice(14 - n, 22 + n)
    assert np.array_equal(drop_small(mask[cut], n)[n:-n, n:-n], whole[20:26, 14:22])


def test_lines_of_one_pixel_are_thin_and_squares_are_not():
    mask = np.zeros((6, 7), bool)
    mask[0] = True
    mask[2:4, 1:3] = True
    mask[4, 3] = True
    kept = drop_thin(mask)
    assert kept[2:4, 1:3].all()
    assert kept.sum() == 4
