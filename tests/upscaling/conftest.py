"""Fixtures of the tests in this folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers import make_scene
from tests.upscaling.scenes import textured


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    pixels = textured()
    pixels[:, 12:30, 5:25] = 0
    pixels[0, 40, 40] = 14000  # beyond the stretch
    return make_scene(
        tmp_path / "scene.tif",
        pixels=pixels,
        nodata=0,
        descriptions=("B04", "B03", "B02"),
    )
