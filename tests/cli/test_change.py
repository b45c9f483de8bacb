"""`rsupres change` as a user meets it: files, figures, options and refusals."""

from __future__ import annotations

import json
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
from affine import Affine
from click.testing import CliRunner
from shapely.geometry import box

from rsupres.change.mask import ChangeMask
from rsupres.cli import main
from rsupres.execution import Interrupted
from tests.helpers import NORTH_UP, UTM, make_scene

ROOT = Path(__file__).parents[2]
DATA = ROOT / "sample_data"


def run(*arguments):
    return CliRunner().invoke(main, ["change", *map(str, arguments)])


def read(path):
    with rasterio.open(path) as file:
        return file.read(1)


@pytest.fixture
def scene(tmp_path):
    return make_scene(tmp_path / "scene.tif", 24, 32)


@pytest.fixture
def covers(tmp_path):
    tags = {"title": "ESA WorldCover 10 m"}  # codes alone name no table
    before = np.full((1, 24, 32), 10, np.uint8)
    after = before.copy()
    after[0, 4:12, 6:16] = 50
    after[0, 20, 20:24] = 80
    return (
        make_scene(tmp_path / "before.tif", pixels=before, tags=tags),
        make_scene(tmp_path / "after.tif", pixels=after, tags=tags),
    )


@pytest.fixture
def images(tmp_path):
    rng = np.random.default_rng(0)
    before = 0.3 + rng.random((4, 6, 8)).repeat(8, axis=1).repeat(8, axis=2)
    before += rng.normal(0, 0.03, before.shape)
    after = 1.4 * before + rng.normal(0, 0.03, before.shape)
    after[:, 8:20, 16:40] = 3 + rng.random((4, 1, 1))
    after[:, 40:42, 50:52] = 3
    after[:, 30:34, 4:9] += 0.2
    transform = NORTH_UP @ Affine.scale(0.5)
    return [
        make_scene(
            tmp_path / f"{name}.tif",
            pixels=(1000 * pixels).astype(np.uint16),
            transform=transform,
        )
        for name, pixels in (("early", before), ("late", after))
    ]


def test_a_mask_is_a_cog_on_the_scenes_grid_with_palette_and_names(
    tmp_path, scene, covers
):
    out = tmp_path / "mask.tif"
    result = run(*covers, out, "--like", scene, "--scale", "5/2")
    assert result.exit_code == 0, result.output
    with rasterio.open(out) as file, rasterio.open(scene) as like:
        assert file.crs == like.crs
        assert file.transform == like.transform @ Affine.scale(0.4)
        assert file.shape == (60, 80)
        assert (file.count, file.dtypes, file.nodata) == (1, ("uint8",), 255)
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert file.colormap(1)[50] == (250, 0, 0, 255)
        assert file.descriptions == ("change",)
        tags = file.tags()
    assert tags["RSUPRES_CLASS_TABLE"] == "worldcover"
    assert json.loads(tags["RSUPRES_CLASSES"])["50"] == "built-up"
    assert json.loads(tags["RSUPRES_CHANGE"])["kind"] == "land cover"
    assert set(np.unique(read(out))) == {0, 50}
    assert not list(tmp_path.glob("*.run"))
    assert not list(tmp_path.glob("*.tmp"))


def test_the_area_of_each_class_is_printed(tmp_path, scene, covers):
    arguments = (*covers, tmp_path / "mask.tif", "--like", scene, "--minimum-area", 0)
    text = run(*arguments).stdout
    assert "50 built-up" in text
    assert "8,000 m2" in text  # 8 x 10 pixels of 10 m
    assert "land cover" in text
    record = json.loads(run(*arguments, "--json", "--overwrite").stdout)
    assert record["changed"] == [
        {"value": 50, "class": "built-up", "pixels": 1280, "area_m2": 8000.0},
        {"value": 80, "class": "permanent water", "pixels": 64, "area_m2": 400.0},
    ]
    assert record["unchanged_m2"] == 24 * 32 * 100 - 8400
    assert record["share"] == pytest.approx(84 / 768)


def test_a_mask_of_ours_is_read_again_with_its_classes(tmp_path, scene, covers):
    first, second = tmp_path / "a.tif", tmp_path / "b.tif"
    options = ("--like", scene, "--output-table", "second")
    assert run(*covers, first, *options).exit_code == 0
    result = run(first, second, "--like", scene)
    assert "building" in result.stdout
    assert np.array_equal(read(first), read(second))
    assert set(np.unique(read(second))) == {0, 5}


def test_polygons_with_classes(tmp_path, scene):
    left, bottom = NORTH_UP @ (4, 12)
    right, top = NORTH_UP @ (10, 6)
    path = tmp_path / "new.gpkg"
    geopandas.GeoDataFrame(
        {"what": ["water"]}, geometry=[box(left, bottom, right, top)], crs=UTM
    ).to_file(path, engine="pyogrio")
    out = tmp_path / "mask.tif"
    common = ("--like", scene, "--scale", 2)
    assert run(path, out, *common).exit_code == 0
    assert set(np.unique(read(out))) == {0, 1}
    result = run(
        *(path, out, *common, "--overwrite", "--class-attribute", "what"),
        *("--class-table", "cnam-cd"),
    )
    assert result.exit_code == 0, result.output
    wanted = np.zeros((48, 64), np.uint8)
    wanted[12:24, 8:20] = 4
    assert np.array_equal(read(out), wanted)


def marked(images, tmp_path, *options):
    out = tmp_path / "mask.tif"
    like = ("--like", images[1], "--scale", 1, "--overwrite")
    result = run(*images, out, *like, *options)
    assert result.exit_code == 0, result.output
    return read(out)


def test_every_option_of_detection_has_an_effect(tmp_path, images, covers):
    plain = marked(images, tmp_path)
    square = np.zeros(plain.shape, bool)
    square[8:20, 16:40] = True
    assert (plain[square] == 1).mean() > 0.95
    looser = marked(images, tmp_path, "--significance", 0.2)
    assert (looser == 1).sum() > (plain == 1).sum()
    stricter = marked(images, tmp_path, "--threshold", 40)
    assert 0 < (stricter == 1).sum() < (plain == 1).sum()
    larger = marked(images, tmp_path, "--minimum-area", 25 * 60)
    assert plain[41, 51] == 1
    assert larger[41, 51] == 0
    assert (larger[square] == 1).mean() > 0.95
    classed = marked(images, tmp_path, "--land-cover", covers[1])
    assert set(np.unique(classed)) == {0, 10, 50}
    by_cva = marked(images, tmp_path, "--method", "cva")
    assert (by_cva[square] == 1).mean() > 0.95
    with rasterio.open(tmp_path / "mask.tif") as file:
        assert json.loads(file.tags()["RSUPRES_CHANGE"])["method"] == "cva"


def test_the_method_says_what_rasters_of_one_band_are(tmp_path, scene, covers):
    out = tmp_path / "mask.tif"
    common = (*covers, out, "--like", scene)
    assert "land cover" in run(*common).stdout
    varied = np.arange(24 * 32, dtype=np.uint8).reshape(1, 24, 32) % 11
    make_scene(covers[0], pixels=10 * varied)
    assert "detected by CVA" in run(*common, "--method", "cva", "--overwrite").stdout
    pixels = [np.random.default_rng(s).integers(1, 3, (1, 24, 32)) for s in (0, 1)]
    for path, codes in zip(covers, pixels, strict=True):
        make_scene(path, pixels=codes.astype(np.uint8))
    again = (*common, "--overwrite", "--method", "land-cover")
    stderr = run(*again).stderr
    assert "name theirs" in stderr
    assert "--class-table" in stderr
    result = run(*again, "--class-table", "dynamic-world")
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--significance", "0.1", "--threshold", "3"), "exclude each other"),
        (("--significance", "0"), "--significance"),
        (("--class-attribute", "x"), "--class-attribute has no effect for two rasters"),
        (
            ("--method", "land-cover", "--threshold", "3"),
            "--threshold has no effect for land covers",
        ),
        (("--method", "magic"), "--method"),
    ],
)
def test_options_that_make_no_sense_are_a_usage_error(
    tmp_path, scene, covers, options, message
):
    result = run(*covers, tmp_path / "mask.tif", "--like", scene, *options)
    assert result.exit_code == 2
    assert message in result.stderr


def test_one_source_takes_no_options_of_two_and_three_are_too_many(
    tmp_path, scene, covers
):
    out = tmp_path / "mask.tif"
    for option in ("--significance=0.1", "--minimum-area=4", "--land-cover=x.tif"):
        result = run(covers[0], out, "--like", scene, option)
        assert result.exit_code == 2
        assert f"{option.split('=')[0]} has no effect for one source" in result.stderr
    assert run(covers[0], out, "--like", scene, "--method", "cva").exit_code == 2
    assert run(*covers, covers[0], out, "--like", scene).exit_code == 2
    assert run(out, "--like", scene).exit_code == 2


def test_bad_input_is_one_line_and_leaves_nothing(tmp_path, scene, covers):
    far = make_scene(
        tmp_path / "far.tif",
        pixels=np.full((1, 24, 32), 10, np.uint8),
        transform=NORTH_UP @ Affine.translation(4000, 0),
    )
    nowhere = make_scene(
        tmp_path / "nowhere.tif", pixels=np.full((1, 24, 32), 10, np.uint8), crs=None
    )
    broken = tmp_path / "broken.gpkg"
    broken.write_bytes(b"no database")
    out = tmp_path / "mask.tif"
    for sources, words in (
        ((far,), "do not touch"),
        ((covers[0], far), "do not touch"),
        ((nowhere,), "no CRS"),
        ((broken,), "broken.gpkg"),
        ((tmp_path / "none.tif",), "none.tif"),
        ((covers[0], tmp_path / "none.tif"), "none.tif"),
        ((*covers, "--class-table", "second"), "not in class table second"),
        ((*covers, "--class-table", "mars"), "mars"),
        ((*covers, "--land-cover", covers[0]), "--land-cover has no effect"),
    ):
        result = run(*sources, out, "--like", scene)
        assert result.exit_code == 3, (sources, result.output)
        lines = [x for x in result.stderr.splitlines() if x.startswith("Error")]
        assert len(lines) == 1
        assert words in lines[0]
        assert not out.exists()
        assert not list(tmp_path.glob("mask.tif*"))


def test_an_output_that_exists_is_kept_unless_asked(tmp_path, scene, covers):
    out = tmp_path / "mask.tif"
    assert run(*covers, out, "--like", scene).exit_code == 0
    before = out.read_bytes()
    result = run(*covers, out, "--like", scene)
    assert result.exit_code == 5
    assert out.read_bytes() == before
    result = run(*covers, out, "--like", scene, "--overwrite", "--minimum-area", 0)
    assert result.exit_code == 0
    assert out.read_bytes() != before


def test_driver_creation_options_and_run_directory(tmp_path, scene, covers):
    out, work = tmp_path / "mask.tif", tmp_path / "work"
    result = run(
        *(*covers, out, "--like", scene, "--driver", "GTiff", "--co", "COMPRESS=LZW"),
        *("--run-dir", work, "--keep-run"),
    )
    assert result.exit_code == 0, result.output
    assert (work / "run.json").exists()
    with rasterio.open(out) as file:
        assert file.compression.name == "lzw"
        assert "LAYOUT" not in file.tags(ns="IMAGE_STRUCTURE")
        assert file.colormap(1)[50] == (250, 0, 0, 255)
    result = run(*covers, tmp_path / "x.tif", "--like", scene, "--co", "COMPRES=LZW")
    assert result.exit_code == 3


def test_a_stopped_run_goes_on_and_counts_all(tmp_path, scene, covers, monkeypatch):
    monkeypatch.setattr("rsupres.output.scene_grid.STRIP_VALUES", 20 * 128)
    out = tmp_path / "mask.tif"
    arguments = (*covers, out, "--like", scene, "--json")
    whole = json.loads(run(*arguments).stdout)
    out.unlink()
    read_window = ChangeMask.read
    calls = []

    def stop_at_third(self, window):
        calls.append(window)
        if len(calls) == 3:
            raise Interrupted(2)
        return read_window(self, window)

    monkeypatch.setattr(ChangeMask, "read", stop_at_third)
    assert run(*arguments).exit_code == 130
    assert not out.exists()
    calls.clear()
    monkeypatch.setattr(ChangeMask, "read", read_window)
    again = json.loads(run(*arguments).stdout)
    assert again["changed"] == whole["changed"]
    assert again["unchanged_m2"] == whole["unchanged_m2"]


def test_much_change_and_none_are_worth_a_warning(tmp_path, scene, covers):
    out = tmp_path / "mask.tif"
    result = run(covers[0], covers[0], out, "--like", scene)
    assert "0 % of the ground changed; is that so?" in result.stderr
    result = run(covers[0], out, "--like", scene, "--overwrite")
    assert "100 % of the ground changed; is that so?" in result.stderr


def test_the_towns_own_mask_comes_back_pixel_by_pixel(tmp_path):
    out = tmp_path / "mask.tif"
    like = ("--like", DATA / "town_s2.tif", "--class-table", "second")
    result = run(DATA / "town_change.tif", out, *like)
    assert result.exit_code == 0, result.output
    assert np.array_equal(read(out), read(DATA / "town_change.tif"))
    assert "building" in result.stdout


def test_new_buildings_of_the_towns_map_are_those_of_its_mask(tmp_path):
    import pyogrio

    new = pyogrio.read_dataframe(
        DATA / "town.osm",
        layer="multipolygons",
        where="building IS NOT NULL AND other_tags LIKE '%start_date%'",
    )
    path, out = tmp_path / "new.geojson", tmp_path / "mask.tif"
    new[["building", "geometry"]].assign(code=5).to_file(path, engine="pyogrio")
    result = run(
        *(path, out, "--like", DATA / "town_s2.tif", "--class-attribute", "code"),
        *("--class-table", "second"),
    )
    assert result.exit_code == 0, result.output
    ours, truth = read(out) == 5, read(DATA / "town_change.tif") == 5
    assert (ours & truth).sum() > 0.95 * (ours | truth).sum()
