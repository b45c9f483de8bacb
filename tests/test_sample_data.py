"""The sample data are what their generator makes, and lie where they say."""

from __future__ import annotations

from importlib.metadata import version
from itertools import product
from pathlib import Path

import numpy as np
import pyogrio
import pytest
import rasterio
from make_sample_data import BANDS, make_town, write_sample_data
from rasterio.features import rasterize
from shapely import STRtree
from shapely.geometry import Point
from town_canvas import shrunk
from town_cover import BUILDING, LAND_COVER, WATER
from town_layout import lay_out_town
from town_sensor import MTF_AT_NYQUIST, sentinel2

ROOT = Path(__file__).parents[1]
DATA = ROOT / "sample_data"
FILES = [
    "town_s2.tif",
    "town_hr.tif",
    "town_aerial.tif",
    "town_reference.tif",
    "town_change.tif",
    "town.osm",
]


def read(name):
    with rasterio.open(DATA / name) as source:
        return source.read()


def frame(name):
    with rasterio.open(DATA / name) as source:
        return source.crs, source.transform, source.shape


def agreement(left, right):
    """Correlation of two images without their edges, where both are given."""
    a, b = (image[..., 4:-4, 4:-4].ravel().astype(float) for image in (left, right))
    return np.corrcoef(a, b)[0, 1]


def best_shift(still, moving):
    """The shift in pixels that makes two images agree best."""
    shifts = list(product((-1, 0, 1), (-1, 0, 1)))
    return max(shifts, key=lambda s: agreement(still, np.roll(moving, s, (-2, -1))))


def burn(features, name="town_hr.tif"):
    crs, transform, shape = frame(name)
    shapes = features.to_crs(crs).geometry
    return rasterize(shapes, out_shape=shape, transform=transform) > 0


def read_map(where, layer="multipolygons"):
    return pyogrio.read_dataframe(DATA / "town.osm", layer=layer, where=where)


@pytest.mark.slow
def test_the_generator_makes_the_committed_bytes(tmp_path):
    pins = dict(
        line.strip().split("==")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    )
    other = [n for n in ("numpy", "rasterio", "shapely") if version(n) != pins[n]]
    if other:
        pytest.skip(f"not the versions of constraints.txt: {', '.join(other)}")
    made = write_sample_data(tmp_path)
    assert [path.name for path in made] == FILES
    differ = [p.name for p in made if p.read_bytes() != (DATA / p.name).read_bytes()]
    assert not differ


def test_all_files_together_stay_below_a_megabyte():
    assert sum((DATA / name).stat().st_size for name in FILES) < 1_000_000


def test_the_scene_looks_like_sentinel_2_to_a_reader():
    with rasterio.open(DATA / "town_s2.tif") as scene:
        assert scene.crs.to_epsg() == 32632
        assert scene.res == (10, 10)
        assert scene.dtypes == ("uint16",) * 4
        assert scene.descriptions == BANDS
        assert scene.scales == (0.0001,) * 4
        assert scene.nodata == 0
        left, top = scene.transform.c, scene.transform.f
    assert left % 10 == 0
    assert top % 10 == 0


def test_only_the_upper_right_corner_of_the_scene_is_nodata():
    empty = read("town_s2.tif") == 0
    assert (empty == empty[0]).all()
    corner = empty[0]
    assert corner[0, -1]
    assert 0.02 < corner.mean() < 0.15
    assert not corner[:, : corner.shape[1] // 2].any()
    assert not corner[corner.shape[0] // 2 :].any()


def test_the_truth_refines_the_scene_by_four():
    crs, transform, (height, width) = frame("town_s2.tif")
    refined = transform @ transform.scale(0.25)
    for name in ("town_hr.tif", "town_reference.tif", "town_change.tif"):
        assert frame(name) == (crs, refined, (4 * height, 4 * width))
    assert read("town_hr.tif").min() > 0


def test_the_scene_is_the_truth_seen_from_afar():
    scene, truth = read("town_s2.tif"), read("town_hr.tif").astype(np.float32)
    scene = scene[..., 50:, :].astype(float)
    for shift in product((-1, 0, 1), (-1, 0, 1)):
        seen = shrunk(np.roll(truth, shift, (-2, -1)), 4)[..., 50:, :]
        if shift == (0, 0):
            still = agreement(scene, seen)
        else:
            assert agreement(scene, seen) < agreement(scene, shrunk(truth, 4)[:, 50:])
    assert still > 0.97
    assert abs(scene.mean() / shrunk(truth, 4)[..., 50:, :].mean() - 1) < 0.01


@pytest.mark.parametrize("band", range(4))
def test_the_sensor_leaves_the_stated_contrast_at_nyquist(band):
    gsd_m, side = 1.25, 640
    x = (np.arange(side) + 0.5) * gsd_m
    # The crests lie on pixel centres of the 10 m grid: no contrast is lost to phase.
    stripes = 0.3 + 0.1 * np.cos(2 * np.pi * (x - 5) / 20)
    image = np.broadcast_to(stripes, (4, side, side)).astype(np.float32)
    seen = sentinel2(image, gsd_m, seed=3)[band, 10:-10, 10:-10].astype(float)
    contrast = abs(seen[:, ::2].mean() - seen[:, 1::2].mean()) / 2 / 1000
    assert contrast == pytest.approx(list(MTF_AT_NYQUIST.values())[band], abs=0.004)


def test_the_sensor_is_quiet_and_unbiased_over_even_ground():
    even = np.full((4, 320, 320), 0.12, np.float32)
    seen = sentinel2(even, 1.25, seed=1).astype(float)
    assert seen.mean() == pytest.approx(1200, abs=1)
    assert 5 < seen.std() < 12


def test_the_photograph_shows_the_truth_in_more_detail():
    aerial, truth = read("town_aerial.tif"), read("town_hr.tif")[:3]
    crs, fine, shape = frame("town_aerial.tif")
    truth_crs, coarse, _ = frame("town_hr.tif")
    assert crs == truth_crs
    assert fine.a == 0.625
    col, row = ~coarse @ (fine.c, fine.f)
    assert (col % 4, row % 4) == (0, 0)
    side = shape[0] // 4
    part = truth[:, int(row) : int(row) + side, int(col) : int(col) + side]
    tones = shrunk(aerial.astype(np.float32) ** 2, 4)
    assert agreement(part, tones) > 0.97
    assert best_shift(part, tones) == (0, 0)


def test_the_reference_lies_on_the_truth_where_nothing_changed():
    reference, truth = read("town_reference.tif")[0], read("town_hr.tif")[0]
    town = (slice(100, 290), slice(80, 300))
    edges = [
        np.abs(np.gradient(image.astype(float))[0])[town]
        for image in (truth, reference)
    ]
    assert best_shift(*edges) == (0, 0)


def test_the_mask_marks_what_differs_most_from_the_reference():
    change = read("town_change.tif")[0]
    truth = np.sqrt(read("town_hr.tif")[:3].astype(float))
    reference = read("town_reference.tif").astype(float)
    # Crops rotate, which is no change of cover.
    stayed = (change == 0) & ~burn(read_map("landuse IN ('farmland', 'meadow')"))
    assert set(np.unique(change)) <= set(LAND_COVER)
    assert 0.01 < (change > 0).mean() < 0.1
    misfit = np.zeros(change.shape)
    for now, before in zip(truth, reference, strict=True):
        fit = np.polyfit(before[stayed], now[stayed], 1)
        misfit += (np.polyval(fit, before) - now) ** 2
    for value in (WATER, BUILDING):
        assert misfit[change == value].mean() > 2 * misfit[stayed].mean()


def test_the_mask_and_the_map_agree_on_the_new_buildings():
    new = read_map("building IS NOT NULL AND other_tags LIKE '%start_date%'")
    mapped = burn(new)
    masked = read("town_change.tif")[0] == BUILDING
    assert len(new) > 20
    assert (mapped & masked).sum() > 0.95 * (mapped | masked).sum()


def test_the_map_lies_on_the_picture():
    red, _, _, infrared = read("town_hr.tif").astype(float)
    greenness = (infrared - red) / (infrared + red)
    river = burn(read_map('other_tags LIKE \'%"water"=>"river"%\''))
    roads = read_map("highway IN ('primary', 'secondary')", layer="lines")
    roads = roads.to_crs(32632)
    roads["geometry"] = roads.buffer(2.5)
    fields = burn(read_map("landuse = 'farmland'"))
    assert infrared[river].mean() < 0.25 * infrared[~river].mean()
    assert greenness[burn(roads)].mean() < 0.25
    for shift in ((20, 0), (0, 20), (-20, 0), (0, -20)):
        moved = np.roll(river, shift, (0, 1))
        assert infrared[moved].mean() > 1.5 * infrared[river].mean()
    assert fields.mean() > 0.2


def test_the_map_holds_what_later_tools_draw():
    lines = read_map("highway IS NOT NULL", layer="lines")
    areas = read_map(None)
    kinds = set(lines.highway)
    assert {"primary", "secondary", "residential", "track"} <= kinds
    assert lines.other_tags.str.contains('"width"').all()
    assert lines.other_tags.str.contains('"bridge"=>"yes"').sum() == 1
    assert (areas.building.notna()).sum() > 200
    assert {"farmland", "forest", "residential"} <= set(areas.landuse.dropna())
    assert areas.geometry.is_valid.all()


@pytest.mark.slow
def test_each_seed_gives_a_town_of_its_own():
    scene, other = make_town(0, 600, 2.5), make_town(11, 600, 2.5)
    assert scene.now.shape == scene.earlier.shape == (4, 240, 240)
    assert scene.cover.shape == scene.change.shape == (240, 240)
    assert np.isfinite(scene.now).all()
    assert scene.now.min() > 0
    assert scene.now.max() < 1
    assert 0 < (scene.change > 0).mean() < 0.3
    assert not np.array_equal(scene.now, other.now)
    assert scene.now.tobytes() == make_town(0, 600, 2.5).now.tobytes()


@pytest.mark.parametrize(
    ("seed", "size_m"),
    [
        pytest.param(34, 600, marks=pytest.mark.slow),
        pytest.param(50, 760, marks=pytest.mark.slow),
        pytest.param(12, 1040, marks=pytest.mark.slow),
    ],
)
def test_all_shapes_are_valid_where_slivers_fold_over(seed, size_m):
    town = lay_out_town(seed, size_m)
    parcels = [f.polygon for f in town.fields] + [w.polygon for w in town.woods]
    grounds = [patch.polygon for patch in town.patches]
    shapes = [*parcels, *grounds, town.river, town.built_up]
    assert all(shape.is_valid and not shape.is_empty for shape in shapes)


@pytest.mark.slow
@pytest.mark.parametrize(
    "seed", [3, *(pytest.param(n, marks=pytest.mark.slow) for n in (7, 20))]
)
def test_buildings_stand_on_dry_land_beside_roads_and_trees(seed):
    town = lay_out_town(seed, 900)
    outlines = [building.footprint() for building in town.buildings]
    assert len(outlines) > 100
    for road in town.roads:
        lane = road.line.buffer(road.width / 2)
        assert not any(lane.intersects(outline) for outline in outlines)
    assert not any(town.river.intersects(outline) for outline in outlines)
    trunks = [Point(tree.x, tree.y) for tree in town.trees]
    assert len(STRtree(trunks).query(outlines, predicate="contains")[0]) == 0


@pytest.mark.slow
def test_what_is_new_was_not_there_before():
    town = lay_out_town(7, 900)
    now, earlier = town.now(), town.earlier()
    new = [b for b in town.buildings if b.era == "new"]
    assert len(new) > 10
    assert len(now.buildings) - len(earlier.buildings) == len(new)
    assert not {b.era for b in earlier.buildings} & {"new"}
    assert {t.era for t in now.trees} == {"always", "new"}


def test_a_town_too_small_or_of_broken_pixels_is_refused():
    with pytest.raises(ValueError, match="600 m or more"):
        lay_out_town(1, 400)
    with pytest.raises(ValueError, match="no multiple"):
        make_town(1, 600, 0.7)
