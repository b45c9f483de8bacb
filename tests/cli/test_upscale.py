"""`rsupres upscale`: every option has its effect."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import fields
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

from rsupres.errors import InputError
from rsupres.upscaling.job import UpscaleJob
from tests.cli.commands import run as invoke
from tests.cli.scenes import X2, textured, upscale
from tests.helpers import NORTH_UP, UTM, make_scene, read


def test_the_output_keeps_what_the_scene_says(scene):
    with rasterio.open(upscale(scene)) as sr, rasterio.open(scene) as lr:
        assert sr.crs == lr.crs
        assert sr.transform == lr.transform @ Affine.scale(0.5)
        assert (sr.height, sr.width) == (80, 72)
        assert sr.nodata == lr.nodata
        assert sr.dtypes == lr.dtypes
        assert sr.descriptions == lr.descriptions
        tags = sr.tags()
    assert tags["RSUPRES_MODEL"] == "bicubic"
    assert tags["RSUPRES_SCALE"] == "2"
    assert tags["RSUPRES_STRETCH"]


def test_the_output_is_a_valid_cog(scene):
    from rio_cogeo.cogeo import cog_validate

    valid, errors, _ = cog_validate(str(upscale(scene)))
    assert valid, errors


def test_json_is_one_object_and_nothing_else(scene, tmp_path):
    result = invoke("upscale", scene, tmp_path / "o.tif", *X2, "--json")
    (line,) = result.stdout.splitlines()
    record = json.loads(line)
    assert record["status"] == "written"
    assert record["figures"]["valid"] == 1.0


def test_json_tells_errors_too(tmp_path):
    result = invoke("upscale", "no.tif", tmp_path / "o.tif", *X2, "--json")
    assert json.loads(result.stdout)["exit_code"] == result.exit_code == 3


def test_the_log_goes_to_stderr_and_to_a_file(scene, tmp_path):
    log = tmp_path / "log.txt"
    output = tmp_path / "o.tif"
    result = invoke("upscale", scene, output, *X2, "-v", "--log-file", log)
    assert "stretched as reflectance" in result.stderr
    assert "stretched" not in result.stdout
    assert "stretched as reflectance" in log.read_text()


def test_quiet_leaves_stderr_empty(scene, tmp_path):
    assert invoke("upscale", scene, tmp_path / "o.tif", *X2, "-q").stderr == ""


def test_progress_is_plain_lines_without_a_terminal(scene, tmp_path):
    lines = invoke("upscale", scene, tmp_path / "o.tif", *X2).stderr.splitlines()
    assert lines == ["Tiles", "Write"]
    options = (*X2, "--tile-size", "16", "--overlap", "6", "--overwrite")
    lines = invoke("upscale", scene, tmp_path / "o.tif", *options).stderr.splitlines()
    assert lines[0] == "Tiles: 12 tiles"
    assert lines[1].startswith("Tiles: 12/12 tiles, ")
    assert "tiles/s, 0:00:00 left" in lines[1]


def test_scale_may_be_a_fraction(scene, tmp_path):
    output = tmp_path / "o.tif"
    invoke("upscale", scene, output, "--scale", "10/3", "--model", "bicubic")
    with rasterio.open(output) as sr:
        assert (sr.height, sr.width) == (133, 120)
        assert sr.transform.a == pytest.approx(3.0, abs=1e-12)
        assert (sr.transform.c, sr.transform.f) == (NORTH_UP.c, NORTH_UP.f)


def test_bidx_and_skip_give_the_bands_in_that_order(scene):
    picked = upscale(scene, "-b", "3,1", "--other-bands", "skip")
    everything = upscale(scene, name="all.tif")
    np.testing.assert_array_equal(read(picked), read(everything)[[2, 0]])
    with rasterio.open(picked) as dataset:
        assert dataset.descriptions == ("B02", "B04")


def test_other_bands_are_kept_in_the_files_order(scene):
    some = upscale(scene, "-b", "2", "--other-bands", "cubic")
    np.testing.assert_array_equal(read(some), read(upscale(scene, name="all.tif")))
    with rasterio.open(some) as dataset:
        assert dataset.tags()["RSUPRES_OTHER_BANDS"] == "cubic"


def test_stretch_decides_what_counts_as_clipped(scene, tmp_path):
    output = tmp_path / "o.tif"
    arguments = ("upscale", scene, output, *X2, "--stretch", "600,700", "--json")
    record = json.loads(invoke(*arguments).stdout)
    assert record["figures"]["clipped"] > 0.3
    # What lies beyond the stretch is carried past the model.
    # ... up to one unit where a value lies just between two numbers.
    other = read(upscale(scene, name="b.tif")).astype(int)
    assert np.abs(read(output) - other).max() <= 1
    assert (read(output) != other).mean() < 1e-3


def test_bounds_cut_out_whole_pixels(scene):
    west, north = NORTH_UP @ (4, 6)
    east, south = NORTH_UP @ (20, 30)
    part = upscale(scene, "--bounds", west, south, east, north)
    with rasterio.open(part) as dataset:
        assert dataset.shape == (48, 32)
        assert (dataset.transform.c, dataset.transform.f) == pytest.approx(
            (west, north)
        )
    whole = read(upscale(scene, name="all.tif"))
    inner = (slice(None), slice(4, -4), slice(4, -4))
    np.testing.assert_array_equal(read(part)[inner], whole[:, 12:60, 8:40][inner])


def test_bounds_may_be_in_another_crs(scene):
    from rasterio.warp import transform_bounds

    west, north = NORTH_UP @ (4.2, 6.2)
    east, south = NORTH_UP @ (19.8, 29.8)
    degrees = transform_bounds(UTM, "EPSG:4326", west, south, east, north)
    part = upscale(scene, "--bounds", *degrees, "--bounds-crs", "EPSG:4326")
    with rasterio.open(part) as dataset:
        corner = ~NORTH_UP @ (dataset.transform.c, dataset.transform.f)
        # The box of a box that is turned a little is larger, but not by much.
        assert corner == pytest.approx((3.5, 5.5), abs=0.6)
        assert dataset.shape == pytest.approx((50, 34), abs=3)


def test_pixels_outside_the_aoi_are_nodata(scene, tmp_path):
    corners = [NORTH_UP @ place for place in ((2, 2), (18, 2), (2, 18), (2, 2))]
    aoi = tmp_path / "aoi.geojson"
    geometry = {"type": "Polygon", "coordinates": [[list(c) for c in corners]]}
    layer = {
        "type": "FeatureCollection",
        "crs": {"type": "name", "properties": {"name": "EPSG:32633"}},
        "features": [{"type": "Feature", "properties": {}, "geometry": geometry}],
    }
    aoi.write_text(json.dumps(layer))
    pixels = read(upscale(scene, "--aoi", aoi))
    assert pixels.shape[1:] == (32, 32)
    assert (pixels[:, :4, :4] > 0).all()
    assert (pixels[:, -4:, -4:] == 0).all()


def test_tile_size_and_overlap_change_how_not_what(scene, tmp_path):
    output = tmp_path / "o.tif"
    options = ("--tile-size", 16, "--overlap", 6, "--json")
    record = json.loads(invoke("upscale", scene, output, *X2, *options).stdout)
    assert record["tiles"] == 12
    np.testing.assert_array_equal(read(output), read(upscale(scene, name="b.tif")))
    with rasterio.open(output) as dataset:
        assert dataset.tags()["RSUPRES_TILE"] == "16,6"


def test_driver_and_creation_options_reach_gdal(scene):
    output = upscale(scene, "--driver", "gtiff", "--co", "COMPRESS=LZW")
    with rasterio.open(output) as dataset:
        assert dataset.profile["compress"] == "lzw"
        assert dataset.tags(ns="IMAGE_STRUCTURE").get("LAYOUT") != "COG"


def test_dtype_and_nodata_change_the_output(scene):
    with rasterio.open(upscale(scene, "--dtype", "float32", "--nodata", -1)) as dataset:
        assert dataset.dtypes[0] == "float32"
        assert dataset.nodata == -1
        assert (dataset.read() % 1 != 0).any()


def test_existing_output_is_refused_skipped_or_replaced(scene):
    output = upscale(scene)
    before = output.stat().st_mtime_ns
    refused = invoke("upscale", scene, output, *X2)
    assert refused.exit_code == 5
    assert "--overwrite" in refused.stderr
    skipped = invoke("upscale", scene, output, *X2, "--skip-existing", "--json")
    assert json.loads(skipped.stdout)["status"] == "existed"
    assert output.stat().st_mtime_ns == before
    assert invoke("upscale", scene, output, *X2, "--overwrite").exit_code == 0
    assert output.stat().st_mtime_ns > before


def test_the_run_directory_can_be_named_and_kept(scene, tmp_path):
    run = tmp_path / "elsewhere"
    upscale(scene, "--run-dir", run, "--keep-run")
    assert (run / "strips" / "0000.tif").exists()
    assert json.loads(invoke("status", run, "--json").stdout)["state"] == "computed"
    assert invoke("mosaic", run, tmp_path / "again.tif").exit_code == 0
    assert (tmp_path / "again.tif").read_bytes() == (tmp_path / "out.tif").read_bytes()


def test_a_gate_that_fails_marks_the_output_and_exits_8(scene, tmp_path):
    output = tmp_path / "o.tif"
    result = invoke("upscale", scene, output, *X2, "--fail-if", "consistency>0.0001")
    assert result.exit_code == 8
    assert "consistency = " in result.stderr
    with rasterio.open(output) as dataset:
        assert dataset.tags()["RSUPRES_GATE"] == "failed"
    assert not output.with_name("o.tif.run").exists()


def test_a_gate_that_is_met_is_noted(scene):
    with rasterio.open(upscale(scene, "--fail-if", "valid<0.9")) as dataset:
        assert dataset.tags()["RSUPRES_GATE"] == "passed"


def test_locked_low_frequencies_average_to_the_input(scene):
    sr = read(upscale(scene, "--lock-low-frequencies", "--dtype", "float32"))
    mean = sr.reshape(3, 40, 2, 36, 2).mean(axis=(2, 4))
    np.testing.assert_allclose(mean, textured(), atol=0.02)


def test_paths_may_come_from_a_list(scene, tmp_path):
    names = tmp_path / "names.txt"
    names.write_text(f"{scene}\n\n")
    assert invoke("upscale", f"@{names}", tmp_path / "o.tif", *X2).exit_code == 0


def test_files_of_one_band_become_one_scene(tmp_path):
    pixels = textured()
    parts = [
        make_scene(tmp_path / f"T33_B0{4 - i}.tif", pixels=pixels[i : i + 1])
        for i in range(3)
    ]
    output = tmp_path / "o.tif"
    assert invoke("upscale", *parts, output, *X2).exit_code == 0
    names = ("B04", "B03", "B02")
    whole = make_scene(tmp_path / "scene.tif", pixels=pixels, descriptions=names)
    np.testing.assert_array_equal(read(output), read(upscale(whole, name="w.tif")))
    with rasterio.open(output) as dataset:
        assert dataset.descriptions == ("B04", "B03", "B02")


def test_neighbours_on_one_grid_become_one_scene(tmp_path):
    pixels = textured()
    left = make_scene(tmp_path / "l.tif", pixels=pixels[:, :, :20])
    right = make_scene(
        tmp_path / "r.tif",
        pixels=pixels[:, :, 15:],
        transform=NORTH_UP @ Affine.translation(15, 0),
    )
    output = tmp_path / "o.tif"
    assert invoke("upscale", left, right, output, *X2).exit_code == 0
    whole = make_scene(tmp_path / "scene.tif", pixels=pixels)
    np.testing.assert_array_equal(read(output), read(upscale(whole)))


def test_a_rotated_transform_works(tmp_path):
    turned = NORTH_UP @ Affine.rotation(30)
    scene = make_scene(tmp_path / "s.tif", pixels=textured(), transform=turned)
    with rasterio.open(upscale(scene)) as dataset:
        assert dataset.transform.almost_equals(turned @ Affine.scale(0.5), 1e-12)


def test_nan_pixels_are_masked_in_their_band_and_the_rest_is_fine(tmp_path):
    pixels = textured().astype(np.float32)
    pixels[1, 10:14, 10:14] = np.nan
    scene = make_scene(tmp_path / "s.tif", pixels=pixels, nodata=np.nan)
    sr = read(upscale(scene))
    hole = np.zeros((80, 72), bool)
    hole[20:28, 20:28] = True
    assert np.isnan(sr[1, hole]).all()
    assert np.isfinite(sr[:, ~hole]).all()
    assert np.isfinite(sr[[0, 2]]).all()


EVERY_OPTION = {
    "model": ("--model", "x", "x"),
    "scale": ("--scale", "2.5", Fraction(5, 2)),
    "bidx": ("--bidx", "3,2,1", (3, 2, 1)),
    "named_bands": ("--bands", "Red=3, blue=1", (("red", 3), ("blue", 1))),
    "other_bands": ("--other-bands", "inject", "inject"),
    "stac": ("--stac", None, True),
    "rgb8": ("--rgb8", "p.png", Path("p.png")),
    "qml": ("--qml", None, True),
    "bands_out": ("--bands-out", "10m,B11", "10m,B11"),
    "dn_scale": ("--dn-scale", "0.0001", 1e-4),
    "dn_offset": ("--dn-offset", "-1000", -1000.0),
    "mask": ("--mask", "scl", "scl"),
    "mask_classes": ("--mask-classes", "clouds,2", ("clouds", "2")),
    "mask_action": ("--mask-action", "keep-bicubic", "keep-bicubic"),
    "input_nodata": ("--input-nodata", "255", 255.0),
    "stretch": ("--stretch", "0,3000", "0,3000"),
    "aoi": ("--aoi", "a.gpkg", "a.gpkg"),
    "seed": ("--seed", "7", 7),
    "steps": ("--steps", "3", 3),
    "samples": ("--samples", "4", 4),
    "uncertainty": ("--uncertainty", "u.tif", Path("u.tif")),
    "interval": ("--interval", ("0.9", "l.tif", "h.tif"), 0.9),
    "interval_low": ("--interval", ("0.9", "l.tif", "h.tif"), Path("l.tif")),
    "interval_high": ("--interval", ("0.9", "l.tif", "h.tif"), Path("h.tif")),
    "detail": ("--detail", "0.25", 0.25),
    "sensor_mtf": ("--sensor-mtf", "0.2", 0.2),
    "noise": ("--noise", "12", 12.0),
    "lock_low_frequencies": ("--lock-low-frequencies", None, True),
    "tile_size": ("--tile-size", "64", 64),
    "overlap": ("--overlap", "20", 20),
    "batch_size": ("--batch-size", "3", 3),
    "device": ("--device", "cuda:1", "cuda:1"),
    "precision": ("--precision", "bf16", "bf16"),
    "shard": ("--shard", "2/3", (2, 3)),
    "driver": ("--driver", "gtiff", "GTiff"),
    "creation": ("--co", "compress=LZW", (("COMPRESS", "LZW"),)),
    "dtype": ("--dtype", "float32", "float32"),
    "nodata": ("--nodata", "-9999", -9999.0),
    "overwrite": ("--overwrite", None, True),
    "skip_existing": ("--skip-existing", None, True),
    "update": ("--update", None, True),
    "restart": ("--restart", None, True),
    "run_dir": ("--run-dir", "r", Path("r")),
    "keep_run": ("--keep-run", None, True),
    "fail_if": ("--fail-if", "valid<1", ("valid<1",)),
    "vector_map": ("--vector-map", "a.osm.pbf", ("a.osm.pbf",)),
    "legend": ("--legend", "osm-carto", "osm-carto"),
    "layers": ("--layers", "Building, road", ("building", "road")),
    "reference": ("--reference", "r.tif", ("r.tif",)),
    "coregister": ("--coregister", None, True),
    "fill_reference": ("--fill-reference", None, True),
    "reference_coverage": ("--reference-coverage", "c.tif", Path("c.tif")),
    "change_mask": ("--change-mask", "detect", "detect"),
    "class_table": ("--class-table", "second", "second"),
    "class_attribute": ("--class-attribute", "class", "class"),
    "style": ("--style", "s.tif", "s.tif"),
    "style_sample": ("--style-sample", None, True),
    "sampler": ("--sampler", "heun", "heun"),
}


@pytest.mark.parametrize("field", EVERY_OPTION)
def test_every_option_reaches_the_job(field, monkeypatch):
    option, text, wanted = EVERY_OPTION[field]
    jobs: list[UpscaleJob] = []

    def remember(job: UpscaleJob, **more: object) -> None:
        jobs.append(job)
        raise InputError("enough")

    monkeypatch.setattr("rsupres.upscaling.pipeline.upscale_scene", remember)
    invoke("upscale", "a.tif", "b.tif")
    values = text if isinstance(text, tuple) else () if text is None else (text,)
    result = invoke("upscale", "a.tif", "b.tif", option, *values)
    assert result.exit_code == 3
    assert getattr(jobs[1], field) == wanted
    assert getattr(jobs[0], field) != wanted


def test_every_field_of_a_job_has_its_option():
    without = {"scenes", "output", "store", "bounds", "bounds_crs"}
    assert {field.name for field in fields(UpscaleJob)} == EVERY_OPTION.keys() | without


def test_the_module_runs_as_a_program():
    command = [sys.executable, "-m", "rsupres", "--version"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("rsupres")
