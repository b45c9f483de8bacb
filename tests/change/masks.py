"""Grids, class rasters and polygons that change masks are made of."""

from __future__ import annotations

from fractions import Fraction

import geopandas
import numpy as np
import pytest
from affine import Affine
from shapely.geometry import box

from rsupres.change.mask import ChangeMask
from rsupres.change.options import ChangeOptions, DetectionOptions
from rsupres.errors import ConditionError
from rsupres.grid import Grid
from tests.helpers import NORTH_UP, UTM, make_scene

LR = Grid(UTM, NORTH_UP, 24, 32)
SR = LR.refine(Fraction(4))


def read(sources, grid=SR, window=None, **options):
    with ChangeMask.open([str(s) for s in sources], grid, options_of(options)) as mask:
        return mask.read(window or grid.window)[0]


def options_of(options):
    of_detection = ("method", "significance", "threshold", "minimum_area_m2")
    detection = {k: v for k, v in options.items() if k in of_detection}
    rest = {k: v for k, v in options.items() if k not in of_detection}
    return ChangeOptions(detection=DetectionOptions(**detection), **rest)


def refused(sources, match, *, argument="", remedies=(), **options):
    """Check that sources are refused, and which arguments the error names."""
    with pytest.raises(ConditionError, match=match) as caught:
        read(sources, **options)
    assert (caught.value.argument, caught.value.remedies) == (argument, remedies)


def codes(path, pixels, tags=None, **kwargs):
    """Write a class raster; codes of WorldCover are known by its name in a tag."""
    tags = {"title": "ESA WorldCover 10 m", **(tags or {})}
    pixels = np.asarray(pixels)[np.newaxis]
    return make_scene(path, pixels=pixels, tags=tags, **kwargs)


def random_codes(values, shape=(24, 32), seed=0):
    return np.random.default_rng(seed).choice(np.array(values, np.uint8), shape)


def ground(row, col):
    """The place of an LR row and column."""
    return NORTH_UP @ (col, row)


def polygon(top, left, bottom, right):
    return box(*ground(bottom, left), *ground(top, right))


def write_polygons(path, shapes, crs=UTM, **columns):
    frame = geopandas.GeoDataFrame(columns, geometry=list(shapes), crs=crs)
    frame.to_file(path, engine="pyogrio")
    return path


def cover_pair(folder, before=10, after=50):
    early = np.full((24, 32), before, np.uint8)
    late = early.copy()
    late[4:12, 6:16] = after
    return codes(folder / "a.tif", early), codes(folder / "b.tif", late)


def image_pair(folder, bands=4, fine=1):
    """Two dates of a place of 96 x 128 m; a square of 10 m pixels is new."""
    rng = np.random.default_rng(0)
    patches = 0.3 + rng.random((bands, 12, 16)).repeat(8, axis=1).repeat(8, axis=2)
    patches += rng.normal(0, 0.02, patches.shape)
    after = patches * 1.3 + 0.1 + rng.normal(0, 0.02, patches.shape)
    after[:, 24:48, 40:80] = 3 + rng.random((bands, 1, 1))
    names = ("B04", "B03", "B02", "B08")[:bands]
    transform = NORTH_UP @ Affine.scale(0.25)
    early = patches.repeat(fine, axis=1).repeat(fine, axis=2)
    return [
        make_scene(
            folder / "before.tif",
            pixels=(1000 * early).astype(np.uint16),
            transform=transform @ Affine.scale(1 / fine),
            descriptions=names,
        ),
        make_scene(
            folder / "after.tif",
            pixels=(1000 * after).astype(np.uint16),
            transform=transform,
            descriptions=names,
        ),
    ]
