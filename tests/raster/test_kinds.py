"""Types of whole numbers that cannot hold a scene are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rsupres.errors import InputError
from rsupres.raster.dataset import Raster
from rsupres.raster.kinds import check_holds
from tests.helpers import make_scene


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16"])
def test_reflectance_is_not_rounded_away(tmp_path: Path, dtype: str) -> None:
    pixels = np.linspace(0.03, 0.3, 100, dtype=np.float32).reshape(1, 10, 10)
    path = make_scene(tmp_path / "s.tif", pixels=pixels)
    with Raster.open(path) as scene:
        with pytest.raises(InputError, match="a_scale"):
            check_holds(scene, dtype)
        check_holds(scene, "float32")


@pytest.mark.parametrize("factor", [1, 1000.5])
def test_floats_that_whole_numbers_hold_pass(tmp_path: Path, factor: float) -> None:
    pixels = (np.arange(100, dtype=np.float32) % 4 * factor).reshape(1, 10, 10)
    with Raster.open(make_scene(tmp_path / "s.tif", pixels=pixels)) as scene:
        check_holds(scene, "uint16")


def test_numbers_outside_the_type_are_refused(tmp_path: Path) -> None:
    pixels = np.full((1, 4, 4), 70000.0, np.float32)
    with (
        Raster.open(make_scene(tmp_path / "s.tif", pixels=pixels)) as scene,
        pytest.raises(InputError, match="70000"),
    ):
        check_holds(scene, "uint16")
