"""Scenes of repeated pixels are noticed, others are not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio

from rsupres.raster.dataset import Raster
from rsupres.raster.repeated import repetition, warn_of_lossy, warn_of_repeated
from tests.helpers import make_scene


def ground(side: int = 40) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 3000, (side, side)).astype(np.uint16)


@pytest.mark.parametrize("factor", [2, 3, 4])
@pytest.mark.parametrize("shift", [0, 1])
def test_copies_are_counted_from_any_corner(factor: int, shift: int) -> None:
    copies = np.kron(ground(), np.ones((factor, factor), np.uint16))
    assert repetition(copies[shift:, shift:]) == factor


@pytest.mark.parametrize(
    "pixels",
    [
        ground(),
        np.zeros((40, 40)),
        np.kron(ground(), np.ones((1, 2))),
        np.kron(ground(), np.ones((2, 3))),
        np.kron(ground(3), np.ones((2, 2))),  # too few to tell
        np.kron(ground(), np.ones((2, 2))) + np.arange(80),
    ],
)
def test_other_scenes_are_left_alone(pixels: np.ndarray) -> None:
    assert repetition(pixels) == 1


def test_the_warning_says_how_to_reduce(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pixels = np.kron(ground(60), np.ones((2, 2), np.uint16))[None]
    with Raster.open(str(make_scene(tmp_path / "s.tif", pixels=pixels))) as scene:
        warn_of_repeated(scene)
    assert "2 x 2 times" in caplog.text
    assert "-outsize 60 60" in caplog.text


@pytest.mark.parametrize(
    ("name", "options", "kind"),
    [
        ("a.jp2", {"driver": "JP2OpenJPEG", "QUALITY": "20"}, "JPEG 2000"),
        ("b.jp2", {"driver": "JP2OpenJPEG", "QUALITY": "100", "REVERSIBLE": "YES"}, ""),
        ("c.tif", {"compress": "jpeg", "photometric": "ycbcr"}, "JPEG"),
        ("d.tif", {"compress": "deflate"}, ""),
    ],
)
def test_files_that_were_compressed_with_loss_are_noticed(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    name: str,
    options: dict[str, str],
    kind: str,
) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (3, 64, 64)).astype(np.uint8)
    plain = make_scene(tmp_path / "plain.tif", pixels=pixels)
    with rasterio.open(plain) as file:
        profile = {k: file.profile[k] for k in ("width", "height", "count", "dtype")}
        profile |= {"crs": file.crs, "transform": file.transform}
    with rasterio.open(tmp_path / name, "w", **profile, **options) as file:
        file.write(pixels)
    with Raster.open(str(tmp_path / name)) as scene:
        assert scene.lossy == kind
        warn_of_lossy(scene)
    assert ("with loss" in caplog.text) is bool(kind)
