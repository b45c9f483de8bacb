"""Bands of classes or bits are no pictures: no model, warp or figure takes them."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import rasterio

import rsupres
from rsupres.change.images import matched_bands
from rsupres.conditions.base import TargetScene
from rsupres.conditions.references import open_references
from rsupres.datasets.chips import read_chip
from rsupres.evaluation.pairs import Preparation, load_pair
from rsupres.grid import Grid, PixelWindow
from rsupres.output.tiff import packets
from rsupres.raster.bands import choose_bands
from rsupres.raster.dataset import Raster
from rsupres.raster.stretch import Stretch, parse_stretch
from rsupres.raster.virtual import VirtualBand, VirtualSource, virtual_raster
from rsupres.upscaling.job import UpscaleJob
from rsupres.upscaling.pipeline import upscale_scene
from tests.helpers import NORTH_UP, UTM, make_scene

RGB = ("red", "green", "blue")
NAMED = ("SCL", "B04", "B03", "B02")
UNNAMED = ("QA_PIXEL", None, None, None)


def _pixels(side: int = 24) -> np.ndarray:
    rng = np.random.default_rng(1)
    pixels = rng.integers(300, 3000, (4, side, side)).astype(np.uint16)
    pixels[0] = rng.choice([3, 9], (side, side))
    return pixels


@pytest.mark.parametrize("names", [NAMED, UNNAMED])
def test_codes_are_never_a_colour(tmp_path: Path, names: tuple[str | None]) -> None:
    pixels = _pixels()
    path = make_scene(tmp_path / "s.tif", pixels=pixels, descriptions=names)
    alone = make_scene(
        tmp_path / "p.tif", pixels=pixels[1:], descriptions=("B04", "B03", "B02")
    )
    with Raster.open(path) as scene:
        assert choose_bands(scene, RGB).roles == (2, 3, 4)
        frame = TargetScene(
            scene, (2, 3, 4), RGB, Stretch((0.0,) * 3, (1e4,) * 3), Fraction(1)
        )
        with open_references(
            [str(path)], frame, coregister=False, fill=False
        ) as reference:
            assert reference.fingerprint()["files"][0]["bands"] == [2, 3, 4]
    if names == NAMED:  # the stretch of names is that of reflectance
        np.testing.assert_array_equal(read_chip(path).pixels, read_chip(alone).pixels)


def test_codes_are_neither_compared_nor_measured(tmp_path: Path) -> None:
    pixels = _pixels()
    names = ("SCL", "B05", "B06", "B07")
    one = make_scene(tmp_path / "a.tif", pixels=pixels, descriptions=names)
    pixels[0] = 12 - pixels[0]
    two = make_scene(tmp_path / "b.tif", pixels=pixels, descriptions=names)
    with Raster.open(one) as before, Raster.open(two) as after:
        assert matched_bands(before, after, "auto") == ((2, 3, 4), (2, 3, 4))
    pair, _, _ = load_pair(str(one), str(two), Preparation(parse_stretch("auto")))
    assert len(pair.sr) == 3
    np.testing.assert_array_equal(pair.sr, pair.hr)


@pytest.mark.parametrize(
    "maker", ["upscale", pytest.param("mosaic", marks=pytest.mark.slow)]
)
def test_overviews_of_large_outputs_hold_codes_that_exist(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, maker: str
) -> None:
    monkeypatch.setattr(packets, "PACKED_BYTES", 0)
    folder, out = tmp_path / "tiles", tmp_path / "o.tif"
    folder.mkdir()
    side = 600 if maker == "upscale" else 1200
    scene = make_scene(folder / "s.tif", pixels=_pixels(side), descriptions=NAMED)
    if maker == "mosaic":
        rsupres.mosaic(folder, out)
    else:
        job = UpscaleJob(
            scenes=(str(scene),), output=out, model="bicubic", scale=Fraction(2)
        )
        upscale_scene(job)
    with rasterio.open(out) as file:
        assert file.overviews(1)
        small = file.read(1, out_shape=(600, 600))
    assert set(np.unique(small)) == {3, 9}


def test_bands_of_several_types_are_read_in_one_that_holds_all(tmp_path: Path) -> None:
    wide = np.arange(1, 65, dtype=np.uint16).reshape(1, 8, 8) * 700
    codes = (wide % 7).astype(np.uint8)
    files = [(wide, "uint16", "B04"), (codes, "uint8", "SCL")]
    bands = []
    for pixels, dtype, name in files:
        source = str(make_scene(tmp_path / f"{name}.tif", pixels=pixels))
        place = PixelWindow(0, 0, 8, 8)
        bands.append(VirtualBand(dtype, [VirtualSource(source, 1, place)], name))
    path = tmp_path / "mixed.vrt"
    path.write_text(virtual_raster(Grid(UTM, NORTH_UP, 8, 8), {}, bands))
    with Raster.open(path) as scene:
        dn, _ = scene.read_stored(scene.grid.window, (1, 2))
    assert dn.dtype == "uint16"
    np.testing.assert_array_equal(dn, [wide[0], codes[0]])
