"""Change masks on the SR grid: every kind of source, and what is refused."""

from __future__ import annotations

from fractions import Fraction

import geopandas
import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from rasterio.crs import CRS
from rasterio.features import rasterize
from rasterio.warp import Resampling, reproject
from shapely.affinity import translate
from shapely.geometry import LineString, Polygon, box

from rsupres.change.mask import ChangeMask
from rsupres.change.options import ChangeOptions, DetectionOptions
from rsupres.errors import BandError, ConditionError, InputError
from rsupres.grid import Grid, PixelWindow
from rsupres.raster.dataset import Raster
from tests.helpers import NORTH_UP, UTM, make_scene, shared_data
from tests.strategies import COSTLY

LR = Grid(UTM, NORTH_UP, 24, 32)
SR = LR.refine(Fraction(4))


def read(sources, grid=SR, window=None, **options):
    with ChangeMask.open([str(s) for s in sources], grid, _options(options)) as mask:
        return mask.read(window or grid.window)[0]


def _options(options):
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


# Class rasters


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
    images = _image_pair(folder)
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


# Polygons


def test_polygons_fill_the_pixels_whose_centre_they_hold(tmp_path):
    shapes = [
        polygon(2, 3, 9, 11),
        Polygon([ground(*p) for p in ((12, 2), (23, 9), (14, 30))]),
    ]
    path = write_polygons(tmp_path / "new.gpkg", shapes, kind=[5, 3])
    mask = read([path], class_attribute="kind")
    wanted = rasterize(
        zip(shapes, (5, 3), strict=True),
        out_shape=(SR.height, SR.width),
        transform=SR.transform,
    )
    assert (mask != wanted).mean() < 0.001
    assert (mask[8:36, 12:44] == 5).all()
    assert not mask[:8].any()


@pytest.mark.parametrize("suffix", ["gpkg", "geojson", "shp", "fgb"])
def test_polygons_come_from_any_vector_file_and_crs(tmp_path, suffix):
    other = CRS.from_epsg(4326 if suffix == "geojson" else 3857)
    shapes = geopandas.GeoSeries([polygon(2, 3, 9, 11)], crs=UTM).to_crs(other)
    path = write_polygons(tmp_path / f"new.{suffix}", shapes, crs=other)
    mask = read([path])
    wanted = np.zeros_like(mask)
    wanted[8:36, 12:44] = 1
    assert (mask != wanted).mean() < 0.002


def test_classes_of_polygons_may_be_names_of_a_table(tmp_path):
    shapes = [polygon(0, 0, 5, 5), polygon(6, 6, 9, 9), polygon(10, 0, 12, 3)]
    names = ["Building", "water", None]
    path = write_polygons(tmp_path / "new.gpkg", shapes, kind=names)
    mask = read([path], class_attribute="kind", class_table="second")
    assert (mask[:20, :20] == 5).all()
    assert (mask[24:36, 24:36] == 1).all()
    assert (mask[40:48, :12] == 255).all()  # 1 would be water
    with pytest.raises(
        ConditionError, match="kind 'Building' is not a code of 0 to 254"
    ):
        read([path], class_attribute="kind")
    with pytest.raises(ConditionError, match=r"'Building' is neither .* worldcover"):
        read([path], class_attribute="kind", class_table="worldcover")


def test_codes_of_polygons_can_be_brought_to_another_table(tmp_path):
    path = write_polygons(tmp_path / "new.gpkg", [polygon(0, 0, 24, 32)], kind=[80])
    options = {"class_table": "worldcover", "output_table": "second"}
    assert (read([path], class_attribute="kind", **options) == 1).all()


def test_an_attribute_that_no_feature_has_is_refused_with_those_that_there_are(
    tmp_path,
):
    path = write_polygons(tmp_path / "new.gpkg", [polygon(0, 0, 5, 5)], kind=[1])
    refused(
        [path],
        r"'klass': no feature of .* has it; its attributes are kind",
        argument="class_attribute",
        class_attribute="klass",
    )
    refused(
        [path],
        "no effect without the attribute",
        argument="class_table",
        remedies=("class_attribute",),
        class_table="second",
    )


def test_the_later_of_two_polygons_wins_and_the_log_says_so(tmp_path, caplog):
    shapes = [polygon(0, 0, 9, 9), polygon(5, 5, 12, 12)]
    path = write_polygons(tmp_path / "new.gpkg", shapes, kind=[5, 3])
    assert read([path], class_attribute="kind")[24, 24] == 3
    assert "1 pairs of polygons of different classes overlap" in caplog.text


def test_broken_and_foreign_geometries_are_counted_and_the_rest_is_used(
    tmp_path, caplog
):
    bow = Polygon([ground(*p) for p in ((2, 2), (8, 8), (8, 2), (2, 8))])
    line = LineString([ground(0, 0), ground(20, 20)])
    path = write_polygons(tmp_path / "new.gpkg", [bow, line, polygon(10, 10, 12, 12)])
    mask = read([path])
    assert (mask[40:48, 40:48] == 1).all()
    assert mask[12, 20] == 1
    assert "1 broken geometries were repaired" in caplog.text
    assert "1 features are not polygons" in caplog.text


def test_polygons_with_holes_and_z_leave_the_hole(tmp_path):
    ring = polygon(2, 2, 12, 12).difference(polygon(5, 5, 9, 9))
    path = write_polygons(tmp_path / "new.gpkg", [ring])
    mask = read([path])
    assert mask[12, 12] == 1
    assert not mask[20:36, 20:36].any()


def test_polygons_of_another_place_and_swapped_ones_are_told_apart(tmp_path):
    far = translate(polygon(0, 0, 5, 5), 90_000, 0)
    path = write_polygons(tmp_path / "far.gpkg", [far])
    with pytest.raises(ConditionError, match=r"far\.gpkg: covers .* do not touch"):
        read([path])
    degrees = geopandas.GeoSeries([polygon(0, 0, 24, 32)], crs=UTM).to_crs(4326)
    west, south, east, north = degrees.total_bounds
    path = write_polygons(
        tmp_path / "swapped.gpkg", [box(south, west, north, east)], crs=4326
    )
    with pytest.raises(ConditionError, match="latitude before longitude"):
        read([path])


def test_polygons_without_crs_are_refused_and_none_at_all_mark_nothing(
    tmp_path, caplog
):
    with pytest.warns(UserWarning, match="crs"):
        path = write_polygons(tmp_path / "none.gpkg", [polygon(0, 0, 5, 5)], crs=None)
    with pytest.raises(InputError, match="CRS"):
        read([path])
    path = write_polygons(tmp_path / "empty.gpkg", [])
    assert not read([path]).any()
    assert "the mask marks no change" in caplog.text


# Two land covers


def cover_pair(folder, before=10, after=50):
    early = np.full((24, 32), before, np.uint8)
    late = early.copy()
    late[4:12, 6:16] = after
    return codes(folder / "a.tif", early), codes(folder / "b.tif", late)


def test_two_land_covers_give_the_later_class_where_they_differ(tmp_path):
    paths = cover_pair(tmp_path)
    mask = read(paths)
    wanted = np.zeros((96, 128), np.uint8)
    wanted[16:48, 24:64] = 50
    assert np.array_equal(mask, wanted)
    assert set(np.unique(read(paths, output_table="second"))) == {0, 5}


def test_what_is_one_class_in_the_output_table_did_not_change(tmp_path):
    paths = cover_pair(tmp_path, before=30, after=40)  # grass and crops
    assert read(paths).any()
    assert not read(paths, output_table="second").any()


def test_edges_that_disagree_by_a_pixel_are_no_change(tmp_path):
    a, b = cover_pair(tmp_path)
    late = np.full((24, 32), 10, np.uint8)
    late[:, 20] = 80
    late[2, 2] = 80
    codes(b, late)
    assert not read([a, b]).any()
    assert read([a, b], minimum_area_m2=0).any()


def test_missing_land_cover_is_unknown(tmp_path):
    a, b = cover_pair(tmp_path)
    late = np.full((24, 32), 10, np.uint8)
    late[3, 3] = 0
    codes(b, late)
    mask = read([a, b])
    assert (mask[12:16, 12:16] == 255).all()
    assert (mask == 255).sum() == 16


def test_land_covers_on_different_grids_meet_on_the_coarser(tmp_path):
    a, b = cover_pair(tmp_path)
    fine = NORTH_UP @ Affine.scale(0.5)
    late = np.full((48, 64), 80, np.uint8)
    codes(b, late, transform=fine)
    assert (read([a, b]) == 80).all()
    late[1::2, 1::2] = 10  # the fine pixels in which centres of coarse pixels lie
    codes(b, late, transform=fine)
    assert not read([a, b], minimum_area_m2=0).any()


def test_land_covers_of_different_tables_are_refused(tmp_path):
    a, b = cover_pair(tmp_path)
    codes(b, random_codes([0, 1, 6]))
    with pytest.raises(
        ConditionError, match=r"different class tables \(worldcover and"
    ):
        read([a, b])
    with pytest.raises(
        ConditionError, match=r"b\.tif: classes 1, 6 not in .*worldcover"
    ):
        read([a, b], class_table="worldcover")
    with pytest.raises(ConditionError, match=r"a\.tif: class 10 not in .*dynamic"):
        read([a, b], class_table="dynamic-world")


def test_codes_that_several_tables_have_need_the_name_of_theirs(tmp_path):
    paths = [codes(tmp_path / f"{s}.tif", random_codes([1, 2], seed=s)) for s in (0, 1)]
    refused(paths, "name theirs", remedies=("class_table",), covers=True)
    mask = read(paths, class_table="dynamic-world", minimum_area_m2=0)
    assert set(np.unique(mask)) == {0, 2, 3}


def test_labels_of_second_at_two_dates_become_one_mask(tmp_path):
    early, late = random_codes([0, 3, 4]), random_codes([1, 5], seed=1)
    late[early == 0] = 0
    paths = codes(tmp_path / "1.tif", early), codes(tmp_path / "2.tif", late)
    mask = read(paths, class_table="second")
    assert np.array_equal(mask[::4, ::4], late)


def test_land_covers_of_two_places_are_refused(tmp_path):
    a, b = cover_pair(tmp_path)
    far = NORTH_UP @ Affine.translation(4000, 0)
    codes(b, random_codes([10, 50]), transform=far)
    with pytest.raises(ConditionError, match="do not touch"):
        read([a, b], class_table="worldcover")


def test_dates_the_wrong_way_round_are_refused(tmp_path):
    early, late = np.full((24, 32), 10, np.uint8), np.full((24, 32), 50, np.uint8)
    dates = {"ACQUISITION_DATE": "2020-05-01"}, {"ACQUISITION_DATE": "2023-05-01"}
    a = codes(tmp_path / "a.tif", early, tags=dates[0])
    b = codes(tmp_path / "b.tif", late, tags=dates[1])
    assert (read([a, b]) == 50).all()
    with pytest.raises(ConditionError, match=r"of 2023-05-01 .* swap them"):
        read([b, a])


# Two images


def _image_pair(folder, bands=4, fine=1):
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


NEW = np.zeros((96, 128), bool)
NEW[24:48, 40:80] = True


def f1(mask, truth):
    return 2 * (mask & truth).sum() / (mask.sum() + truth.sum())


@pytest.mark.parametrize("method", ["irmad", "cva", "auto"])
@pytest.mark.parametrize("fine", [1, 3])
def test_what_is_new_between_two_images_is_found(tmp_path, method, fine):
    mask = read(_image_pair(tmp_path, fine=fine), method=method)
    assert f1(mask == 1, NEW) > 0.9
    assert set(np.unique(mask)) == {0, 1}


def test_the_smallest_part_is_in_square_metres(tmp_path):
    paths = _image_pair(tmp_path)
    big = read(paths, minimum_area_m2=6300)
    assert f1(big == 1, NEW) > 0.9
    refused(paths, "1e.06: that is", argument="minimum_area", minimum_area_m2=1e6)


def test_images_of_different_bands_are_compared_by_colour(tmp_path):
    before, after = _image_pair(tmp_path)
    with rasterio.open(before) as file:
        rgb = file.read((3, 1, 2))  # blue, red, green
        transform = file.transform
    make_scene(
        before, pixels=rgb, transform=transform, descriptions=("B02", "B04", "B03")
    )
    mask = read([before, after], method="cva")
    assert f1(mask == 1, NEW) > 0.85
    make_scene(before, pixels=rgb[:1], transform=transform, descriptions=("B05",))
    with pytest.raises(BandError, match="CVA"):
        read([before, after], method="cva")


def test_nodata_of_either_image_is_unknown(tmp_path):
    before, after = _image_pair(tmp_path)
    with rasterio.open(before, "r+") as file:
        pixels = file.read()
        pixels[:, :10] = 0
        file.write(pixels)
        file.nodata = 0
    mask = read([before, after])
    assert (mask[:10] == 255).all()
    assert (mask[10:] != 255).all()


def test_the_land_cover_says_into_what(tmp_path):
    paths = _image_pair(tmp_path)
    cover = np.full((24, 32), 30, np.uint8)
    cover[:, 15:] = 50
    cover[8, 18] = 0
    path = str(codes(tmp_path / "cover.tif", cover))
    mask = read(paths, land_cover=path)
    assert mask[30, 45] == 30
    assert mask[30, 65] == 50
    assert mask[34, 74] == 1  # no land cover there
    assert set(np.unique(mask)) == {0, 1, 30, 50}
    second = read(paths, land_cover=path, output_table="second")
    assert set(np.unique(second)) == {0, 3, 5, 255}


def test_options_that_would_do_nothing_are_refused(tmp_path):
    images, covers = _image_pair(tmp_path), cover_pair(tmp_path)
    for sources, name, value in (
        (images, "class_table", "second"),
        (images, "output_table", "second"),
        (covers, "significance", 0.1),
        (covers, "threshold", 3.0),
        (covers, "land_cover", "cover.tif"),
    ):
        refused(
            sources,
            "has no effect",
            argument=name,
            remedies=("method",),
            **{name: value},
        )
    with pytest.raises(InputError, match="polygons say what changed by themselves"):
        read([write_polygons(tmp_path / "p.gpkg", [polygon(0, 0, 5, 5)]), covers[0]])
    with pytest.raises(InputError, match="one source or two, not 3"):
        read([*covers, covers[0]])


def test_images_that_lie_off_each_other_are_worth_a_warning(tmp_path, caplog):
    before, after = _image_pair(tmp_path)
    with rasterio.open(after, "r+") as file:
        file.transform = file.transform @ Affine.translation(2, -1)
    read([before, after])
    assert "right; edges will look changed" in caplog.text


def test_an_earlier_image_that_is_coarser_is_worth_a_warning(tmp_path, caplog):
    before, after = _image_pair(tmp_path, fine=3)
    read([after, before])
    assert "Are the two swapped" in caplog.text


def test_open_scenes_are_left_open(tmp_path):
    before, after = _image_pair(tmp_path)
    with Raster.open(before) as one, Raster.open(after) as other:
        with ChangeMask.open([one, other], SR) as mask:
            found = mask.read(SR.window)
        assert one.read(PixelWindow(0, 0, 1, 1), (1,))[0].shape == (1, 1, 1)
    assert np.array_equal(found[0], read([before, after]))


def test_the_fingerprint_tells_files_options_and_dates(tmp_path):
    before, after = _image_pair(tmp_path)
    found = []
    for options in ({}, {"significance": 0.5}, {"method": "cva"}):
        chosen = _options(options)
        with ChangeMask.open([str(before), str(after)], SR, chosen) as mask:
            found.append(mask.fingerprint())
    assert len({repr(one) for one in found}) == 3
    assert [file["file"] for file in found[0]["files"]] == ["before.tif", "after.tif"]
    assert all(len(file["sha256"]) == 64 for file in found[0]["files"])
    assert (found[0]["method"], found[2]["method"]) == ("irmad", "cva")


def test_a_line_for_people_tells_the_share(tmp_path):
    paths = cover_pair(tmp_path)
    with ChangeMask.open([str(path) for path in paths], SR) as mask:
        assert mask.describe() == (
            "a.tif and b.tif: land cover, ESA WorldCover; about 10.4 % changed"
        )


@pytest.mark.slow
def test_real_pairs_are_detected_better_than_by_difference_and_otsu(monkeypatch):
    monkeypatch.setenv("RSUPRES_DATA", str(shared_data("change", "oscd").parents[1]))
    from bench_change import PAIRS, measure

    rows = [measure(pair, "irmad") for pair in PAIRS[1:3]]  # the benchmark has all six
    ours, theirs = (np.mean([row[who].f1 for row in rows]) for who in ("ours", "otsu"))
    assert ours > 1.5 * theirs
    assert ours > 0.3
