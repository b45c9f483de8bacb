"""Filling of pixels that are not valid."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from numpy.testing import assert_array_equal

from rsupres.grid import PixelWindow
from rsupres.raster.dataset import Raster
from rsupres.raster.nodata import FILL_REACH, fill_invalid
from tests.helpers import make_scene
from tests.raster.scenes import windows
from tests.strategies import COSTLY


def hole(height: int = 90, width: int = 100) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(1)
    lr = random.random((2, height, width), np.float32)
    rows, cols = np.mgrid[:height, :width]
    valid = (rows - 40) ** 2 + (cols - 30) ** 2 > 25**2
    valid &= rows + cols < 150
    valid &= random.random((height, width)) > 0.01
    return np.where(valid, lr, np.nan).astype(np.float32), valid[np.newaxis]


def test_filling_keeps_valid_pixels_and_leaves_no_nan() -> None:
    lr, valid = hole()
    filled = fill_invalid(lr, valid)
    assert np.isfinite(filled).all()
    assert_array_equal(filled[:, valid[0]], lr[:, valid[0]])


def test_filling_continues_a_constant_and_then_fades() -> None:
    lr = np.full((1, 5, 100), 0.25, np.float32)
    valid = np.zeros((1, 5, 100), bool)
    valid[:, :, :10] = True
    filled = fill_invalid(lr * valid, valid, background=[0.75])[0, 2]
    half = 10 + FILL_REACH // 2
    np.testing.assert_allclose(filled[:half], 0.25)
    assert (np.diff(filled[half : 10 + FILL_REACH]) > 0).all()
    np.testing.assert_array_equal(filled[10 + FILL_REACH :], 0.75)


def test_filling_without_a_valid_pixel_gives_the_background() -> None:
    filled = fill_invalid(
        np.full((2, 4, 4), np.nan, np.float32), np.zeros((1, 4, 4), bool), [1.0, 2.0]
    )
    assert_array_equal(filled[:, 0, 0], [1, 2])
    assert np.ptp(filled, axis=(1, 2)).max() == 0


@COSTLY
@given(windows)
def test_a_filled_value_depends_on_its_position_alone(
    tmp_path_factory: pytest.TempPathFactory, window: PixelWindow
) -> None:
    path = tmp_path_factory.getbasetemp() / "hole.tif"
    lr, valid = hole()
    if not path.exists():
        make_scene(path, pixels=np.where(valid, lr, -1), nodata=-1)
    window = PixelWindow(window.row + 40, window.col + 40, *window[2:])
    with Raster.open(path) as scene:
        part, part_valid = scene.read_filled(window, [1, 2])
        whole, whole_valid = scene.read_filled(PixelWindow(-30, -30, 210, 210), [1, 2])
    place = window.relative_to(PixelWindow(-30, -30, 210, 210)).slices()
    assert_array_equal(part, whole[(slice(None), *place)])
    assert_array_equal(part_valid, whole_valid[(slice(None), *place)])
