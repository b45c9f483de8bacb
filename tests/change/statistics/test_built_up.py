"""Of all that changed, what was built: fields, clouds and shadows are left out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

import rsupres
from rsupres.change import images
from rsupres.change.statistics.sky import find_sky
from rsupres.errors import BandError
from tests.helpers import make_scene

BANDS = ("B04", "B03", "B02", "B08")
GREEN, SOIL, ROOF, WATER = (
    np.array(values, float)[:, None, None]
    for values in (
        (400, 600, 300, 3000),
        (1600, 1300, 1000, 2200),
        (2800, 2600, 2500, 2900),
        (300, 500, 700, 150),
    )
)
SIDE = 240
HOUSES, FIELD, POND = (
    (slice(None), slice(row, row + side), slice(col, col + side))
    for row, col, side in ((20, 20, 16), (10, 60, 40), (60, 20, 16))
)
INSIDE = (slice(None), slice(20, 40), slice(70, 90))  # of the field
CLOUD, SHADOW = (180, 180), (180, 80)


def two_dates(*, sky: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Meadows and soil at two dates: houses are built, a field is cut, a pond dug."""
    random = np.random.default_rng(1)
    soil = np.kron(random.random((24, 24)) < 0.4, np.ones((10, 10)))[None] > 0
    soil[:, :100, :120] = False
    before = np.where(soil, SOIL, GREEN)
    texture = 1 + 0.12 * ndimage.gaussian_filter(random.normal(size=(SIDE, SIDE)), 1)
    rows = 1 + 0.05 * np.sin(np.arange(SIDE) * 1.9)[:, None]
    before = before * texture * rows
    after = before.copy()
    after[FIELD] = (before / GREEN * SOIL)[FIELD]
    after[POND] = (before / GREEN * WATER)[POND]
    pattern = np.kron(random.random((1, 8, 8)) < 0.5, np.ones((1, 2, 2))) > 0
    after[HOUSES] = np.where(pattern, ROOF, SOIL)
    if sky:
        y, x = np.mgrid[:SIDE, :SIDE]
        for (row, col), height in ((CLOUD, 4000), (SHADOW, -0.7)):
            blob = np.exp(-((y - row) ** 2 + (x - col) ** 2) / (2 * 12**2))
            after = after + height * blob if height > 0 else after * (1 + height * blob)
    noise = [random.normal(0, 15, before.shape) for _ in range(2)]
    return before + noise[0], 1.1 * after + 50 + noise[1]


def marked(folder: Path, method: str, *, sky: bool = False, **scene) -> np.ndarray:
    """Return the mask of the command."""
    paths = []
    for name, pixels in zip(("before", "after"), two_dates(sky=sky), strict=True):
        path = folder / f"{name}.tif"
        numbers = pixels.clip(1).astype("uint16")
        make_scene(path, pixels=numbers, **({"descriptions": BANDS} | scene))
        paths.append(str(path))
    out = folder / f"{method}.tif"
    rsupres.change_mask(paths, out, like=paths[1], scale=1, method=method)
    import rasterio

    with rasterio.open(out) as file:
        return file.read(1) == 1


def share(mask: np.ndarray, part: tuple[slice, ...]) -> float:
    return float(mask[part[1:]].mean())


def test_houses_are_kept_and_fields_and_water_left_out(tmp_path: Path) -> None:
    every, built = (marked(tmp_path, method) for method in ("irmad", "built"))
    assert min(share(every, part) for part in (HOUSES, FIELD, POND)) > 0.8
    assert share(built, HOUSES) > 0.8
    assert share(built, INSIDE) < 0.05  # its edges are new structure
    assert share(built, POND) < 0.1
    assert not (built & ~every).any()


def test_clouds_and_their_shadows_are_left_out(tmp_path: Path) -> None:
    every = marked(tmp_path, "irmad", sky=True)
    built = marked(tmp_path, "built", sky=True)
    for row, col in (CLOUD, SHADOW):
        part = np.s_[row - 6 : row + 6, col - 6 : col + 6]
        assert every[part].mean() > 0.5
        assert built[part].mean() < 0.02
    assert share(built, HOUSES) > 0.5


def test_a_wide_part_with_sharp_edges_is_no_cloud() -> None:
    y, x = np.mgrid[:80, :80]
    soft = 40 * np.exp(-((y - 40) ** 2 + (x - 40) ** 2) / (2 * 10**2))
    sharp = np.where((abs(y - 40) < 12) & (abs(x - 40) < 12), 9.0, 0.0)
    nothing = np.zeros((80, 80), np.float32)
    assert find_sky(soft.astype(np.float32), nothing)[20:60, 30:50].all()
    assert not find_sky(sharp.astype(np.float32), nothing).any()
    # A dark part counts only where there are clouds.
    assert not find_sky(nothing, sharp.astype(np.float32)).any()
    both = find_sky(np.roll(soft, 30, 1).astype(np.float32), sharp.astype(np.float32))
    assert both[35:45, 30:50].all()


def test_the_mask_does_not_depend_on_the_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = marked(tmp_path, "built", sky=True)
    (tmp_path / "built.tif").unlink()
    monkeypatch.setattr(images, "BLOCK_SIDE", 64)
    assert np.array_equal(marked(tmp_path, "built", sky=True), whole)


def test_images_without_near_infrared_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BandError, match="near infrared"):
        marked(tmp_path, "built", descriptions=("red", "green", "blue", "thermal"))
