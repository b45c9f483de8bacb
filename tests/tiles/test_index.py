"""Scenes cut into tiles: aligned, indexed, complete, and put together bit for bit."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st

import rsupres
from rsupres.blend import Mosaic, join
from rsupres.conditions.base import ConditionRequest, TargetScene
from rsupres.conditions.open import open_conditions
from rsupres.errors import GridError, InputError, RunConflictError
from rsupres.execution import Interrupted
from rsupres.raster.dataset import Raster
from rsupres.raster.stretch import find_stretch, parse_stretch
from rsupres.tiles import files as tile_files
from rsupres.tiles.cut import TileJob, tile_scene
from rsupres.tiles.index import TileIndex, Tiling, profiles, read_index, records
from tests.helpers import NORTH_UP, UTM, make_scene, read
from tests.strategies import COSTLY

SR = NORTH_UP @ Affine.scale(0.5)
ROTATED = (
    Affine.translation(399960.1, 5200020.3)
    @ Affine.rotation(17.3)
    @ Affine.scale(10, -10)
)


def job_for(scene: Path, **options: object) -> TileJob:
    plain = {"scale": Fraction(2), "tile_size": 20, "overlap": 6, **options}
    return TileJob((str(scene),), scene.parent / "tiles", **plain)


def random_scene(path: Path, height: int, width: int, dtype: str, **more) -> np.ndarray:
    rng = np.random.default_rng(height * 1000 + width)
    kind = np.dtype(dtype)
    if kind.kind == "f":
        pixels = (rng.standard_normal((2, height, width)) * 1e3).astype(dtype)
    else:
        limits = np.iinfo(kind)
        pixels = rng.integers(
            limits.min, limits.max, (2, height, width), dtype, endpoint=True
        )
    make_scene(path, pixels=pixels, **more)
    return pixels


@COSTLY
@given(
    shape=st.tuples(st.integers(5, 41), st.integers(5, 41)),
    size=st.integers(3, 10),
    overlap=st.integers(0, 4),
    scale=st.sampled_from([Fraction(1), Fraction(2), Fraction(5, 2), Fraction(10, 3)]),
    halo=st.integers(0, 2),
    dtype=st.sampled_from(
        ["uint8", "int16", "uint16", "int32", "uint32", "float32", "float64"]
    ),
    kind=st.sampled_from(["plain", "nodata", "mask", "nan"]),
    transform=st.sampled_from([NORTH_UP, ROTATED]),
)
def test_untouched_tiles_give_back_the_scene_bit_for_bit(
    tmp_path_factory, shape, size, overlap, scale, halo, dtype, kind, transform
):
    folder = tmp_path_factory.mktemp("round")
    step = scale.denominator
    overlap = (
        overlap * step if overlap * step > 2 * halo else (2 * halo // step + 1) * step
    )
    if overlap == step and not halo:
        overlap = 0
    size = overlap + (size + 3) * step * (1 if step > 1 else 3)
    more: dict[str, object] = {"transform": transform}
    if kind == "mask":
        more["mask"] = np.random.default_rng(1).random(shape) > 0.3
    pixels = random_scene(folder / "probe.tif", *shape, dtype)
    if kind == "nodata":
        pixels[:, : shape[0] // 2, ::3] = 7
        more["nodata"] = 7
    if kind == "nan" and np.dtype(dtype).kind == "f":
        pixels[:, 1:3] = np.nan
        pixels[0, 3] = np.inf
        more["nodata"] = np.nan
    scene = make_scene(folder / "scene.tif", pixels=pixels, **more)
    tile_scene(job_for(scene, scale=scale, tile_size=size, overlap=overlap, halo=halo))
    rsupres.mosaic(folder / "tiles", folder / "out.tif", driver="GTiff")
    with rasterio.open(scene) as before, rasterio.open(folder / "out.tif") as after:
        assert after.transform == before.transform
        assert after.crs == before.crs
        assert repr(after.nodata) == repr(before.nodata)
        assert after.dtypes == before.dtypes
        assert after.read().tobytes() == before.read().tobytes()
        np.testing.assert_array_equal(after.dataset_mask(), before.dataset_mask())


@pytest.mark.parametrize("is_lr", [True, False])
def test_the_planned_weights_are_those_of_the_blending(tmp_path, is_lr):
    scene = make_scene(tmp_path / "scene.tif", height=50, width=43)
    with Raster.open(scene) as opened:
        plan = Tiling("scene.tif", opened.grid, Fraction(5, 2), 20, 8, 3)
    grid = plan.lr_grid if is_lr else plan.grid
    frame = plan.scene if is_lr else plan.sr
    rows, cols = profiles(plan, is_lr=is_lr)
    rng = np.random.default_rng(3)
    mosaic = Mosaic(grid, 1)
    total, weight = np.zeros((2, frame.height, frame.width))
    for tile, record in zip(grid, records(plan), strict=True):
        pixels = rng.random((1, tile.sr.height, tile.sr.width), np.float32)
        mosaic.add(tile, pixels.copy())
        place = record.lr if is_lr else record.sr
        part = place.slices()
        product = rows[record.row][:, None] * cols[record.col]
        total[part] += pixels[0, : place.height, : place.width] * product
        weight[part] += product
    blended = join(mosaic.finished())
    expected = blended[0, : frame.height, : frame.width]
    np.testing.assert_allclose(total / weight, expected, atol=2e-6)


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(2).integers(200, 6000, (3, 41, 53)).astype(np.uint16)
    pixels[:, 3:9, 4:12] = 0
    names = ("B04", "B03", "B02")
    return make_scene(
        tmp_path / "scene.tif", pixels=pixels, nodata=0, descriptions=names
    )


@pytest.fixture
def conditions(tmp_path: Path) -> ConditionRequest:
    """A map, a reference with a hole on another grid, and a mask of classes."""
    x, y = NORTH_UP.c, NORTH_UP.f
    ring = [[x + 40, y - 50], [x + 200, y - 50], [x + 200, y - 150], [x + 40, y - 50]]
    feature = {
        "type": "Feature",
        "properties": {"building": "yes"},
        "geometry": {"type": "Polygon", "coordinates": [ring]},
    }
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32633"}}
    (tmp_path / "map.geojson").write_text(
        json.dumps({"type": "FeatureCollection", "crs": crs, "features": [feature]})
    )
    rng = np.random.default_rng(4)
    pixels = rng.integers(1, 255, (3, 90, 120)).astype(np.uint8)
    pixels[:, 20:40, 30:50] = 0
    shifted = SR @ Affine.translation(-3.3, -4.4)
    make_scene(
        tmp_path / "ref_2019-01-02.tif", pixels=pixels, transform=shifted, nodata=0
    )
    codes = np.zeros((1, 82, 106), np.uint8)
    codes[0, 10:50, 20:60] = 3
    codes[0, 60:, 80:] = 255  # unknown
    make_scene(tmp_path / "change.tif", pixels=codes, transform=SR, nodata=255)
    return ConditionRequest(
        vector_map=(str(tmp_path / "map.geojson"),),
        reference=(str(tmp_path / "ref_2019-01-02.tif"),),
        change_mask=str(tmp_path / "change.tif"),
    )


def test_tiles_hold_what_a_model_would_be_shown(tmp_path, scene, conditions):
    job = job_for(scene, conditions=conditions, overlap=8, stretch="reflectance")
    summary = tile_scene(job)
    assert summary.kinds == ("lr", "map", "reference", "change")
    index = read_index(tmp_path / "tiles" / "tiles.gpkg")
    with Raster.open(scene) as opened:
        stretch = find_stretch(opened, parse_stretch("reflectance"))
        frame = TargetScene(
            opened, (1, 2, 3), ("red", "green", "blue"), stretch, Fraction(2)
        )
        with open_conditions(conditions, frame) as sources:
            for tile in index.tiles:
                told = sources.read(tile.sr)
                reference = read(tmp_path / "tiles" / "reference" / tile.name)
                known = np.isfinite(told["reference"]).all(axis=0)
                assert ((reference != 65_535).all(axis=0) == known).all()
                near = np.abs(reference / 65_534 - told["reference"])[:, known]
                assert near.max(initial=0) < 1e-5
                drawn = read(tmp_path / "tiles" / "map" / tile.name)
                np.testing.assert_array_equal(drawn, told["vector_map"])
                mask = read(tmp_path / "tiles" / "change" / tile.name)
                np.testing.assert_array_equal(mask, told["change_mask"])
                assert tile.shares["reference"] == pytest.approx(known.mean())
                assert tile.shares["change_mask"] == pytest.approx((mask != 255).mean())
    assert 0 < summary.shares["vector_map"] < 0.5
    shares = [tile.shares["reference"] for tile in index.tiles]
    assert min(shares) < 1
    assert max(shares) == 1


def test_the_index_says_where_every_tile_lies(tmp_path, scene):
    tile_scene(job_for(scene))
    path = tmp_path / "tiles" / "tiles.gpkg"
    layer = geopandas.read_file(path, layer="tiles")
    assert layer.crs == UTM
    with rasterio.open(scene) as whole:
        pixels = whole.read()
    for row in layer.itertuples():
        with rasterio.open(tmp_path / "tiles" / "lr" / row.name) as tile:
            box = tile.bounds
            assert row.geometry.bounds == pytest.approx(tuple(box), abs=1e-6)
            rows = slice(row.lr_row, row.lr_row + row.lr_height)
            cols = slice(row.lr_col, row.lr_col + row.lr_width)
            np.testing.assert_array_equal(tile.read(), pixels[:, rows, cols])
            assert tile.descriptions == ("B04", "B03", "B02")
            assert row.valid == pytest.approx((tile.read(1) > 0).mean())
        assert (row.sr_row, row.sr_height) == (2 * row.lr_row, 2 * row.lr_height)
        assert (row.scale, row.overlap, row.source) == ("2", 6, "scene.tif")
    assert layer.valid.min() < 1
    index = read_index(path)
    assert Tiling.from_json(index.plan.to_json()) == index.plan


def test_hr_is_cut_along_and_may_end_early(tmp_path, scene):
    rng = np.random.default_rng(1)
    hr = rng.integers(1, 9000, (4, 70, 60)).astype(np.uint16)
    place = SR @ Affine.translation(10, 8)
    make_scene(tmp_path / "hr.tif", pixels=hr, transform=place, nodata=0)
    tile_scene(job_for(scene, hr=str(tmp_path / "hr.tif")))
    canvas = np.zeros((4, 82, 106), np.uint16)
    canvas[:, 8:78, 10:70] = hr
    for tile in read_index(tmp_path / "tiles" / "tiles.gpkg").tiles:
        rows, cols = tile.sr.slices()
        cut = read(tmp_path / "tiles" / "hr" / tile.name)
        np.testing.assert_array_equal(cut, canvas[:, rows, cols])
        assert tile.shares["hr"] == pytest.approx((cut[0] > 0).mean())
    rsupres.mosaic(tmp_path / "tiles" / "hr", tmp_path / "hr_again.tif")
    np.testing.assert_array_equal(read(tmp_path / "hr_again.tif"), canvas)


@pytest.mark.parametrize(
    ("transform", "text"),
    [
        (SR @ Affine.translation(0.4, 0), "not on the SR grid"),
        (NORTH_UP, "not on the SR grid"),
        (SR @ Affine.translation(1000, 0), "do not touch"),
    ],
)
def test_an_hr_image_of_another_grid_is_refused(tmp_path, scene, transform, text):
    make_scene(tmp_path / "hr.tif", transform=transform)
    with pytest.raises(InputError, match=text):
        tile_scene(job_for(scene, hr=str(tmp_path / "hr.tif")))
    assert {path.name for path in tmp_path.iterdir()} == {"scene.tif", "hr.tif"}


def test_an_interrupted_folder_is_not_there_and_is_continued(
    tmp_path, scene, conditions, monkeypatch
):
    job = job_for(scene, conditions=conditions, overlap=8)
    written, real = [], tile_files.write_whole

    def write(path, *arguments):
        if len(written) == 25:
            raise Interrupted(2)
        written.append(path)
        real(path, *arguments)

    monkeypatch.setattr(tile_files, "write_whole", write)
    with pytest.raises(Interrupted, match="same command"):
        tile_scene(job)
    assert not job.folder.exists()
    monkeypatch.setattr(tile_files, "write_whole", real)
    done = {path: path.stat().st_mtime_ns for path in written[:16]}
    with pytest.raises(RunConflictError, match="another job"):
        tile_scene(job_for(scene, conditions=conditions, overlap=10))
    tile_scene(job)
    assert not job.run_path.exists()
    for path, time_ns in done.items():  # the first tile row was not written again
        moved = job.folder / path.relative_to(job.run_path / "tiles")
        assert moved.stat().st_mtime_ns == time_ns
    rsupres.mosaic(job.folder, tmp_path / "out.tif")
    np.testing.assert_array_equal(read(tmp_path / "out.tif"), read(scene))


def test_a_folder_is_replaced_only_when_asked_and_only_if_it_holds_tiles(
    tmp_path, scene
):
    tile_scene(job_for(scene))
    with pytest.raises(RunConflictError, match="exists") as error:
        tile_scene(job_for(scene))
    assert error.value.remedies == ("overwrite",)
    tile_scene(job_for(scene, tile_size=30, overwrite=True))
    assert read_index(tmp_path / "tiles" / "tiles.gpkg").plan.size == 30
    n_tiles = len(list((tmp_path / "tiles" / "lr").iterdir()))
    assert n_tiles == len(read_index(tmp_path / "tiles" / "tiles.gpkg").tiles)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["scene.tif", "tiles"]
    (tmp_path / "tiles" / "tiles.gpkg").rename(tmp_path / "tiles" / "thesis.gpkg")
    with pytest.raises(RunConflictError, match="other files"):
        tile_scene(job_for(scene, overwrite=True))
    assert (tmp_path / "tiles" / "thesis.gpkg").exists()


def test_sides_that_the_scale_does_not_allow_are_refused(tmp_path, scene):
    with pytest.raises(GridError, match="multiple of 3"):
        tile_scene(job_for(scene, scale=Fraction(10, 3), tile_size=20))
    with pytest.raises(GridError, match="twice the halo"):
        tile_scene(job_for(scene, halo=4))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["scene.tif"]
    summary = tile_scene(
        job_for(scene, scale=Fraction(10, 3), tile_size=None, overlap=None)
    )
    assert (summary.overlap, summary.shape) == (18, (1, 1))


def test_tiles_keep_the_stretch_of_their_scene(tmp_path):
    ramp = np.arange(1, 1601, dtype=np.uint16).reshape(1, 40, 40).repeat(3, 0)
    scene = make_scene(tmp_path / "plain.tif", pixels=ramp)
    tile_scene(job_for(scene))
    with Raster.open(scene) as opened:
        whole = find_stretch(opened, parse_stretch("auto"))
    for path in (tmp_path / "tiles" / "lr").iterdir():
        with Raster.open(path) as tile:
            assert find_stretch(tile, parse_stretch("auto")) == whole
            assert find_stretch(tile, parse_stretch("0,9")).high == (9.0,) * 3


@pytest.mark.parametrize("text", ["", "not a database"])
def test_a_damaged_index_is_named(tmp_path, text):
    path = tmp_path / "tiles.gpkg"
    path.write_text(text)
    with pytest.raises(InputError, match=r"tiles\.gpkg: not an index"):
        read_index(path)


def test_records_survive_the_index(tmp_path, scene, conditions):
    tile_scene(job_for(scene, conditions=conditions, overlap=8))
    index = read_index(tmp_path / "tiles" / "tiles.gpkg")
    assert isinstance(index, TileIndex)
    assert index.kinds == ("vector_map", "reference", "change_mask")
    planned = records(index.plan)
    assert [tile.lr for tile in index.tiles] == [tile.lr for tile in planned]
    assert [tile.sr for tile in index.tiles] == [tile.sr for tile in planned]
