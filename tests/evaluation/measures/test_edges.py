"""Edge scores on pictures whose edges are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import ndimage
from skimage.feature import canny

from rsupres.errors import InputError
from rsupres.evaluation.measures.edges import (
    SIGMA,
    STEEP,
    find_edges,
    map_borders,
)
from rsupres.evaluation.measures.metrics import luma
from tests.pictures import texture


def f1(sr, hr, valid=None, near=None) -> float:
    return find_edges(sr, hr, valid).f1(near)


def boxes(shift: int = 0, contrast: float = 0.5) -> np.ndarray:
    """Return (3, 96, 120): two bright boxes on grey, moved to the right."""
    picture = np.full((3, 96, 120), 0.3)
    for top, left in ((20, 24), (56, 70)):
        picture[:, top : top + 18, left + shift : left + shift + 22] += contrast
    return picture


def blurred(picture: np.ndarray, side: int) -> np.ndarray:
    """Return the mean over a square of odd side."""
    reach = side // 2
    padded = np.pad(picture, ((0, 0), (reach, reach), (reach, reach)), mode="edge")
    views = np.lib.stride_tricks.sliding_window_view(padded, (side, side), (1, 2))
    return views.mean((3, 4))


def test_equal_pictures_have_all_edges() -> None:
    for picture in (boxes(), texture(60, 70, 3), texture(40, 40, 1, bands=1)):
        assert f1(picture, picture) == 1.0


@pytest.mark.parametrize("seed", [1, 3, 5])
def test_edges_are_those_of_scikit_image_within_a_pixel(seed: int) -> None:
    """Its Canny takes Sobel's gradient and interpolates where ours takes sectors."""
    picture = texture(120, 140, seed).astype(np.float64)
    ours = find_edges(picture, picture).true
    grey = luma(picture)[0]
    smooth = ndimage.gaussian_filter(grey, SIGMA, mode="nearest")
    gradient = np.hypot(*(ndimage.sobel(smooth, axis=axis) for axis in (0, 1)))
    steep = STEEP * np.sqrt(np.mean(gradient**2))
    theirs = canny(grey, SIGMA, steep, steep, mode="nearest")
    for found, near in ((ours, theirs), (theirs, ours)):
        close = ndimage.binary_dilation(near, np.ones((3, 3)))
        assert found.sum() > 200
        assert (found & close).sum() > 0.9 * found.sum()


def test_a_pixel_is_forgiven_and_three_are_not() -> None:
    """Of a box moved sideways, the horizontal sides stay where they were."""
    hr = boxes()
    assert f1(boxes(1), hr) == 1.0
    moved = f1(boxes(3), hr)
    # 18 rows of two sides lost, and 3 columns at each end, of 2 (18 + 22) pixels
    assert moved == pytest.approx((80 - 2 * 18) / 80, abs=0.06)
    assert f1(np.roll(hr, (9, 9), (1, 2)), hr) < 0.2


def test_blur_loses_edges_and_contrast_alone_does_not() -> None:
    hr = texture(160, 160, 5)
    scores = [f1(blurred(hr, side), hr) for side in (1, 3, 5, 9)]
    assert scores[0] == 1.0
    assert scores[0] > scores[1] > scores[2] > scores[3] >= 0.0
    assert scores[3] < 0.5
    assert f1(0.2 + 0.3 * hr, hr) == pytest.approx(1.0, abs=1e-3)
    assert f1(np.full_like(hr, 0.4), hr) == 0.0


def test_what_knows_nothing_scores_little() -> None:
    """As the module says of unrelated pictures and of noise."""
    hr = texture(160, 160, 5)
    assert f1(texture(160, 160, 6), hr) < 0.3
    noise = np.random.default_rng(0).random(hr.shape)
    assert f1(noise, hr) < 0.2


def test_invented_edges_cost_precision() -> None:
    hr = boxes()
    sr = hr.copy()
    sr[:, 60:78, 20:42] += 0.5  # a third box as large as each of the two
    assert f1(sr, hr) == pytest.approx(2 * (2 / 3) / (2 / 3 + 1), abs=0.01)
    assert f1(hr, sr) == pytest.approx(2 * (2 / 3) / (2 / 3 + 1), abs=0.01)


def test_diagonal_edges_are_thin() -> None:
    rows, cols = np.mgrid[:64, :64]
    hr = np.repeat((rows + cols > 64)[None], 3, 0) * 0.5
    assert f1(hr, hr) == 1.0
    assert f1(np.roll(hr, 4, 2), hr) < 0.15


def test_only_edges_near_the_maps_borders_are_asked_about() -> None:
    """The map knows the first box, the picture the second one too, in a wrong place."""
    hr = boxes()
    chart = np.zeros((3, 96, 120), np.uint8)
    chart[:, 20:38, 24:46] = 200
    near = map_borders(chart)
    assert near.sum() == 22 * 26 - 4 - 14 * 18  # two pixels to both sides
    sr = hr.copy()
    sr[:, 50:] = np.roll(sr[:, 50:], 12, 2)
    assert f1(sr, hr, near=near) == 1.0
    assert f1(sr, hr) < 0.9
    without = np.full_like(hr, 0.3)
    without[:, 50:] = hr[:, 50:]
    assert f1(without, hr, near=near) == 0.0
    assert not map_borders(chart * 0).any()
    assert math.isnan(f1(sr, hr, near=map_borders(chart * 0)))


def test_invalid_pixels_make_no_edges() -> None:
    hr, sr = boxes(), boxes()
    valid = np.ones((1, 96, 120), bool)
    valid[:, 50:] = False
    sr[:, 50:] = np.nan
    assert f1(sr, hr, valid) == 1.0
    assert math.isnan(f1(sr, hr, valid & False))


def test_nothing_to_find_is_nan_and_shapes_must_fit() -> None:
    flat = np.full((3, 20, 20), 0.1)
    assert math.isnan(f1(boxes()[:, :20, :20], flat))
    with pytest.raises(InputError, match="one shape"):
        f1(flat, flat[:, 1:])


def test_grey_is_as_good_as_colour() -> None:
    hr, sr = texture(80, 80, 2), texture(80, 80, 4)
    mixed = 0.7 * hr + 0.3 * sr
    grey = [(luma(picture) - 16 / 255) * 255 / 219 for picture in (mixed, hr)]
    assert f1(*grey) == pytest.approx(f1(mixed, hr), abs=0.01)
