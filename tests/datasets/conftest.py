"""Fixtures of the tests in this folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from tests.datasets.town import picture, write


@pytest.fixture
def town(tmp_path: Path) -> Path:
    """Two images of 2020 with references of 2018, masks, and maps as PNG."""
    for k in range(2):
        write(tmp_path / "town" / f"town_2020_{k}.tif", picture(61, 70, k))
        reference = picture(61, 70, 10 + k)
        reference[:, :4, :4] = 0
        write(tmp_path / "town" / f"town_2018_{k}.tif", reference, nodata=0)
        write(tmp_path / "mask" / f"town_2020_{k}.tif", picture(61, 70, 20 + k, 1))
        drawn = picture(61, 70, 30 + k).transpose(1, 2, 0)
        (tmp_path / "drawn").mkdir(exist_ok=True)
        Image.fromarray(drawn).save(tmp_path / "drawn" / f"town_2020_{k}.png")
    return tmp_path / "town"
