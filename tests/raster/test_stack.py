"""Several files as one scene: what the joined scene still says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

from rsupres.raster.stack import open_scenes
from tests.helpers import NORTH_UP, make_scene


@pytest.mark.parametrize("dtype", ["int64", "uint64", "int16", "float64"])
@pytest.mark.parametrize("nodata", [None, 0])
def test_neighbours_keep_numbers_types_and_tags(
    tmp_path: Path, dtype: str, nodata: float | None
) -> None:
    tags = {'SAID "SO"': 'a < b & "c"'}
    paths = [
        make_scene(
            tmp_path / f"{k}.tif",
            *(8, 10, 3, dtype),
            transform=NORTH_UP @ Affine.translation(10 * k, 0),
            nodata=nodata,
            scales=(0.5,) * 3,
            offsets=(k + 1.0 for k in range(3)),
            tags=tags,
        )
        for k in range(2)
    ]
    with open_scenes([str(path) for path in paths]) as scene:
        dn, valid = scene.read_stored(scene.grid.window, scene.data_bands)
        assert dict(scene.tags) == tags
        assert (scene.dtype, scene.nodata) == (dtype, nodata)
        assert (scene.scales, scene.offsets) == ((0.5,) * 3, (1.0, 2.0, 3.0))
    parts = []
    for path in paths:
        with rasterio.open(path) as file:
            parts.append(file.read())
    np.testing.assert_array_equal(dn, np.concatenate(parts, axis=2))
    assert valid.all()


def test_where_files_overlap_a_pixel_of_the_lower_one_shows_through(
    tmp_path: Path,
) -> None:
    low, high = (np.full((1, 4, 6), value, np.int16) for value in (5, 7))
    high[0, :, :2] = 0
    paths = [
        make_scene(
            tmp_path / f"{k}.tif",
            pixels=np.repeat(pixels, 2, axis=0),
            transform=NORTH_UP @ Affine.translation(2 * k, 0),
            nodata=0,
        )
        for k, pixels in enumerate((low, high))
    ]
    with open_scenes([str(path) for path in paths]) as scene:
        dn, valid = scene.read_stored(scene.grid.window, (1,))
    np.testing.assert_array_equal(dn[0], [[5, 5, 5, 5, 7, 7, 7, 7]] * 4)
    assert valid.all()
