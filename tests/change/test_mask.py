"""Change masks on the SR grid from class rasters, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from rasterio.crs import CRS
from rasterio.warp import Resampling, reproject
from shapely.geometry import Polygon

from rsupres.change.mask import ChangeMask
from rsupres.change.options import ChangeOptions, DetectionOptions
from rsupres.errors import ConditionError, InputError
from rsupres.grid import PixelWindow
from tests.change.masks import (
    SR,
    codes,
    ground,
    image_pair,
    polygon,
    random_codes,
    read,
    refused,
    write_polygons,
)
from tests.helpers import NORTH_UP, UTM, make_scene
from tests.strategies import COSTLY


def test_a_class_raster_is_seen_on_the_sr_grid_pixel_by_pixel(tmp_path):
    pixels = random_codes([0, 0, 0, 1, 5, 255])
    path = codes(tmp_path / "mask.tif", pixels, nodata=255)
    mask = read([path])
    assert mask.dtype == np.uint8
    assert np.array_equal(mask, pixels.repeat(4, axis=0).repeat(4, axis=1))


def test_outside_a_class_raster_the_mask_is_unknown(tmp_path):
    moved = NORTH_UP @ Affine.translation(4, -2)
    path = codes(tmp_path / "mask.tif", random_codes([0, 3]), transform=moved)
    mask = read([path])
    assert (mask[-8:] == 255).all()
    assert (mask[:, :16] == 255).all()
    assert (mask[:-8, 16:] != 255).all()


def test_a_class_raster_of_another_crs_agrees_with_gdal(tmp_path):
    other = CRS.from_epsg(4326)
    transform = Affine(5e-5, 1e-6, 13.685, 0, -4e-5, 46.9465)
    pixels = random_codes(range(7), (50, 80), seed=1)
    path = codes(tmp_path / "mask.tif", pixels, crs=other, transform=transform)
    wanted = np.full((SR.height, SR.width), 255, np.uint8)
    reproject(
        pixels,
        wanted,
        src_crs=other,
        src_transform=transform,
        dst_crs=UTM,
        dst_transform=SR.transform,
        resampling=Resampling.nearest,
        tolerance=0,
        dst_nodata=255,
    )
    assert (read([path]) != wanted).mean() < 0.001


@COSTLY
@given(
    st.integers(0, 80),
    st.integers(0, 100),
    st.integers(1, 96),
    st.integers(1, 128),
    st.sampled_from(["classes", "other CRS", "polygons", "land cover", "detected"]),
)
def test_every_window_is_a_cut_of_the_whole(masks, row, col, height, width, kind):
    mask, whole = masks[kind]
    window = PixelWindow(row, col, height, width).intersection(SR.window)
    assert np.array_equal(mask.read(window)[0], whole[window.slices()])


@pytest.fixture(scope="module")
def masks(tmp_path_factory):
    """One open mask of each kind, and the whole of it."""
    folder = tmp_path_factory.mktemp("masks")
    fine = NORTH_UP @ Affine.scale(0.3)
    before, after = (random_codes([10, 50, 80], seed=s) for s in (0, 1))
    before[4:15, 5:20], after[4:15, 5:20] = 10, 50
    degrees = Affine(5e-5, 0, 13.685, 0, -4e-5, 46.9465)
    images = image_pair(folder)
    shapes = [
        Polygon([ground(*p) for p in ((1, 2), (20, 7.3), (9, 30))]),
        polygon(5, 5, 9.1, 12.7),
    ]
    sources = {
        "classes": [
            codes(folder / "a.tif", random_codes([0, 1, 2], (90, 120)), transform=fine)
        ],
        "other CRS": [
            codes(
                folder / "b.tif",
                random_codes([0, 1, 2], (60, 90)),
                crs=CRS.from_epsg(4326),
                transform=degrees,
            )
        ],
        "polygons": [write_polygons(folder / "c.gpkg", shapes, kind=["3", "4"])],
        "land cover": [codes(folder / "d.tif", before), codes(folder / "e.tif", after)],
        "detected": images,
    }
    opened = {}
    for kind, paths in sources.items():
        options = ChangeOptions(
            class_attribute="kind" if kind == "polygons" else None,
            detection=DetectionOptions(minimum_area_m2=500),
        )
        with pytest.MonkeyPatch.context() as patch:
            for module in (
                "on_grid",
                "class_rasters",
                "images",
            ):  # windows cross blocks
                patch.setattr(f"rsupres.change.{module}.BLOCK_SIDE", 16)
            mask = ChangeMask.open([str(path) for path in paths], SR, options)
        whole = mask.read(SR.window)[0]
        assert len(np.unique(whole)) > 1
        opened[kind] = mask, whole
    yield opened
    for mask, _ in opened.values():
        mask.close()


def test_a_palette_is_welcome(tmp_path):
    path = codes(tmp_path / "mask.tif", random_codes([0, 5]))
    with rasterio.open(path, "r+") as file:
        file.write_colormap(1, {0: (255, 255, 255), 5: (128, 0, 0)})
    assert set(np.unique(read([path]))) == {0, 5}


def test_rgb_labels_are_read_by_the_colours_of_their_table(tmp_path):
    colours = np.array([[255, 255, 255], [128, 0, 0], [0, 0, 255]], np.uint8)
    which = random_codes([0, 1, 2])
    rgb = colours[which].transpose(2, 0, 1)
    path = make_scene(tmp_path / "label.tif", pixels=rgb)
    with pytest.raises(ConditionError, match="three bands are classes only in the"):
        read([path])
    mask = read([path], class_table="second")
    assert np.array_equal(mask[::4, ::4], np.array([0, 5, 1])[which])
    rgb[:, 3, 4] = 1
    make_scene(path, pixels=rgb)
    with pytest.raises(ConditionError, match="colour #010101 is not in"):
        read([path], class_table="second")


def test_classes_that_the_table_lacks_are_refused_on_opening(tmp_path):
    pixels = random_codes([0, 1])
    pixels[20, 30] = 17
    path = codes(tmp_path / "mask.tif", pixels)
    with pytest.raises(ConditionError, match=r"mask\.tif: class 17 not in .* second"):
        ChangeMask.open([str(path)], SR, ChangeOptions(class_table="second"))


def test_a_mask_of_0_and_255_is_refused_until_its_255_has_a_meaning(tmp_path):
    path = codes(tmp_path / "mask.tif", random_codes([0, 255]))
    refused([path], "if 255 means changed", remedies=("class_table=binary",))
    assert set(np.unique(read([path], class_table="binary"))) == {0, 1}
    path = codes(tmp_path / "known.tif", random_codes([0, 255]), nodata=255)
    assert set(np.unique(read([path]))) == {0, 255}


def test_classes_beyond_255_need_a_table(tmp_path):
    path = codes(tmp_path / "mask.tif", np.full((24, 32), 300, np.uint16))
    with pytest.raises(ConditionError, match="300 do not fit into a mask"):
        read([path])


def test_measurements_are_no_classes(tmp_path):
    path = make_scene(tmp_path / "image.tif", bands=4)
    with pytest.raises(ConditionError, match="4 bands of uint16 are not classes"):
        read([path])
    path = codes(tmp_path / "height.tif", np.ones((24, 32), np.float32))
    with pytest.raises(ConditionError, match="1 bands of float32 are not classes"):
        read([path])


def test_a_mask_of_another_place_is_refused_with_both_footprints(tmp_path):
    far = NORTH_UP @ Affine.translation(4000, 0)
    path = codes(tmp_path / "mask.tif", random_codes([0, 1]), transform=far)
    with pytest.raises(ConditionError, match=r"covers 14\..* the scene 13\..*touch"):
        read([path])


def test_a_mask_without_crs_is_refused(tmp_path):
    path = codes(tmp_path / "mask.tif", random_codes([0, 1]), crs=None)
    with pytest.raises(InputError, match=r"mask\.tif: the file has no CRS"):
        read([path])


def test_a_mask_of_unknown_classes_cannot_be_converted(tmp_path):
    path = codes(tmp_path / "mask.tif", random_codes([0, 1]))
    refused(
        [path],
        "class table of its codes is not known; name it",
        remedies=("class_table",),
        output_table="second",
    )
