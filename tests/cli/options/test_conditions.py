"""Conditions from the command line: each option's effect, each bad input's code."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from click.testing import Result

from tests.cli.commands import run
from tests.fakes import LookingModel, spec
from tests.helpers import NORTH_UP, UTM, make_scene
from tests.pictures import texture

SR = NORTH_UP @ Affine.scale(0.5)
GROUND = texture(96, 112, 6)
LOOKS = frozenset({"reference", "vector_map", "style", "change_mask"})
RGB = ("red", "green", "blue")


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    small = GROUND.reshape(3, 48, 2, 56, 2).mean((2, 4))
    return make_scene(
        tmp_path / "scene.tif",
        pixels=np.round(small * 6000).astype(np.uint16),
        descriptions=("B04", "B03", "B02"),
        nodata=0,
    )


@pytest.fixture
def model(monkeypatch) -> LookingModel:
    plain = spec(bands=RGB, accepts=LOOKS, steps=4, stochastic=True)
    return LookingModel(plain).install(monkeypatch)


@pytest.fixture
def reference(tmp_path: Path) -> Path:
    """Displaced by 4 SR pixels downwards, with a hole."""
    pixels = np.round(np.roll(GROUND, 4, 1) * 255).astype(np.uint8)
    pixels[:, 30:60, 70:] = 0
    return make_scene(tmp_path / "r.tif", pixels=pixels, transform=SR, nodata=0)


@pytest.fixture
def buildings(tmp_path: Path) -> Path:
    """One building and one pond, side by side."""
    x, y = NORTH_UP.c, NORTH_UP.f
    features = []
    for west, tags in ((100, {"building": "yes"}), (300, {"natural": "water"})):
        ring = [
            [x + west + e, y - 100 - s]
            for e, s in ((0, 0), (100, 0), (100, 100), (0, 100), (0, 0))
        ]
        geometry = {"type": "Polygon", "coordinates": [ring]}
        features.append({"type": "Feature", "properties": tags, "geometry": geometry})
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32633"}}
    path = tmp_path / "map.geojson"
    path.write_text(
        json.dumps({"type": "FeatureCollection", "crs": crs, "features": features})
    )
    return path


def call(
    scene: Path, *options: object, name: str = "out.tif", model: str = "fake"
) -> Result:
    output = scene.with_name(name)
    return run("upscale", scene, output, "--scale", 2, "--model", model, *options)


def upscale(scene: Path, *options: object, name: str = "out.tif") -> Path:
    output = scene.with_name(name)
    result = call(scene, "--overwrite", *options, name=name)
    assert result.exit_code == 0, result.output
    return output


def tags_of(path: Path) -> dict[str, str]:
    with rasterio.open(path) as dataset:
        return dataset.tags()


def seen(model: LookingModel, name: str) -> np.ndarray:
    """What the model saw of the whole scene in the last run."""
    return getattr(model.prepared[-1], name)[0].numpy()


# --- every option --------------------------------------------------------------------


def test_a_reference_reaches_the_model_and_the_tags(scene, reference, model):
    output = upscale(scene, "--reference", reference)
    valid = seen(model, "reference_valid")[0]
    assert not valid[30:60, 70:].any()
    assert valid[:, :70].all()
    assert json.loads(tags_of(output)["RSUPRES_REFERENCE"])["files"]


def test_references_are_repeated_or_listed(scene, reference, tmp_path, model):
    patch = make_scene(
        tmp_path / "patch_2022-01-01.tif",
        pixels=np.full((3, 10, 10), 200, np.uint8),
        transform=SR,
    )
    dated = make_scene(
        tmp_path / "old_2001-01-01.tif",
        pixels=np.round(GROUND * 255).astype(np.uint8),
        transform=SR,
    )
    upscale(scene, "--reference", patch, "--reference", dated)
    repeated = seen(model, "reference")
    np.testing.assert_allclose(repeated[:, :10, :10], 200 / 255, atol=1e-6)
    names = tmp_path / "names.txt"
    names.write_text(f"{dated}\n{patch}\n")
    upscale(scene, "--reference", f"@{names}")
    np.testing.assert_array_equal(seen(model, "reference"), repeated)


def test_coregister_takes_the_displacement_out(scene, reference, model):
    errors = []
    for options in ((), ("--coregister",)):
        upscale(scene, "--reference", reference, *options)
        valid = seen(model, "reference_valid")[0]
        error = np.abs(seen(model, "reference") - GROUND)[:, valid]
        errors.append(error[:, : error.shape[1] // 2].mean())
    assert errors[1] < 0.2 * errors[0]


def test_the_displacement_is_warned_about(scene, reference, model):
    result = call(scene, "--reference", reference)
    assert "+2.0" in result.stderr.replace("+1.9", "+2.0")
    assert "--coregister" in result.stderr


def test_fill_reference_fills_from_the_scene(scene, reference, model):
    upscale(scene, "--reference", reference, "--fill-reference")
    assert seen(model, "reference_valid").all()
    hole = seen(model, "reference")[:, 35:55, 75:105]
    assert np.corrcoef(hole.ravel(), GROUND[:, 35:55, 75:105].ravel())[0, 1] > 0.8


def test_a_map_its_legend_and_its_layers(scene, buildings, model):
    pictures = []
    for options in (
        (),
        ("--legend", "osm-carto"),
        ("--layers", "building"),
        ("--layers", "water"),
    ):
        upscale(scene, "--vector-map", buildings, *options)
        pictures.append(seen(model, "vector_map"))
    house, pond = (slice(None), 30, 30), (slice(None), 30, 70)
    plain, carto, houses, ponds = pictures
    assert (plain[house] != carto[house]).any()
    assert (plain[house] == houses[house]).all()
    assert (houses[pond] == houses[:, 0, 0]).all()
    assert (ponds[house] == ponds[:, 0, 0]).all()
    assert (plain[pond] == ponds[pond]).all()


def test_several_maps_make_one(scene, buildings, tmp_path, model):
    whole = json.loads(buildings.read_text())
    paths = []
    for number, feature in enumerate(whole["features"]):
        paths.append(tmp_path / f"part{number}.geojson")
        paths[-1].write_text(json.dumps({**whole, "features": [feature]}))
    upscale(scene, "--vector-map", paths[0], "--vector-map", paths[1])
    parts = seen(model, "vector_map")
    upscale(scene, "--vector-map", buildings)
    np.testing.assert_array_equal(parts, seen(model, "vector_map"))


def test_a_change_mask_its_classes_and_their_attribute(
    scene, tmp_path, buildings, model
):
    codes = np.zeros((1, 48, 56), np.uint8)
    codes[:, 10:20, 10:20] = 2
    path = make_scene(tmp_path / "mask.tif", pixels=codes)
    upscale(scene, "--change-mask", path, "--class-table", "second")
    np.testing.assert_array_equal(
        seen(model, "change_mask")[0], codes[0].repeat(2, 0).repeat(2, 1)
    )
    whole = json.loads(buildings.read_text())
    for number, feature in enumerate(whole["features"]):
        feature["properties"] = {"became": 2 + number}
    buildings.write_text(json.dumps(whole))
    upscale(
        scene,
        "--change-mask",
        buildings,
        "--class-table",
        "second",
        "--class-attribute",
        "became",
    )
    mask = seen(model, "change_mask")[0]
    assert (mask[30, 30], mask[30, 70], mask[0, 0]) == (2, 3, 0)


def test_former_names_of_options_work_and_warn(scene, tmp_path, model):
    codes = np.full((1, 48, 56), 3, np.uint8)
    mask = make_scene(tmp_path / "mask.tif", pixels=codes)
    given = (scene, tmp_path / "o.tif", "--scale", 2, "--model", "fake")
    done = run(
        *("upscale", *given, "--change-mask", mask),
        *("--change-classes", "second", "--change-attribute", "became"),
    )
    assert done.exit_code == 0, done.output
    assert "--change-classes is now called --class-table" in done.stderr
    assert "--change-attribute is now called --class-attribute" in done.stderr
    assert json.loads(tags_of(tmp_path / "o.tif")["RSUPRES_CHANGE_MASK"])
    assert (seen(model, "change_mask") == 3).all()
    alone = run("tile", scene, tmp_path / "tiles", "--change-classes", "second")
    assert alone.exit_code == 2
    assert "--class-table needs a change mask. See --change-mask." in alone.stderr
    for command in ("upscale", "tile", "dataset build", "evaluate"):
        assert "--change-classes" not in run(*command.split(), "--help").output


def test_change_may_be_detected(scene, reference, model):
    output = upscale(
        scene, "--reference", reference, "--coregister", "--change-mask", "detect"
    )
    marks = json.loads(tags_of(output)["RSUPRES_CHANGE_MASK"])
    assert marks["kind"] == "detected"
    assert seen(model, "change_mask").shape == (1, 96, 112)


def test_a_style_is_followed_or_drawn(scene, tmp_path, monkeypatch, model):
    style = make_scene(tmp_path / "style.png", 20, 30, dtype="uint8", driver="PNG")
    upscale(scene, "--style", style)
    assert model.prepared[-1].style.shape == (3, 20, 30)
    options = []
    monkeypatch.setattr(
        "rsupres.upscaling.preparation.model.load_model",
        lambda *given: options.append(given[2]) or model,
    )
    output = upscale(scene, "--style-sample", "--sampler", "heun")
    assert options[0].style_sample is True
    assert options[0].sampler == "heun"
    tags = tags_of(output)
    assert (tags["RSUPRES_STYLE_SAMPLE"], tags["RSUPRES_SAMPLER"]) == ("yes", "heun")


def test_plan_shows_conditions_as_text_and_json(scene, reference, buildings, model):
    options = (
        "--scale",
        2,
        "--model",
        "fake",
        "--reference",
        reference,
        "--vector-map",
        buildings,
    )
    output = scene.with_name("out.tif")
    text = run("plan", scene, output, *options)
    assert text.exit_code == 0, text.output
    assert "reference  r.tif (undated); covers 88" in text.stdout
    assert "vector map 2 features in legend maptiler" in text.stdout
    assert "of it for conditions" in text.stdout
    plan = json.loads(run("plan", scene, output, *options, "--json").stdout)
    assert set(plan["conditions"]) == {"reference", "vector_map"}
    assert plan["conditions_s"] > 0
    assert not output.exists()


@pytest.mark.slow
def test_mosaic_finishes_a_run_with_conditions(scene, reference, buildings, model):
    options = (
        "--reference",
        reference,
        "--vector-map",
        buildings,
        "--coregister",
        "--tile-size",
        16,
        "--overlap",
        6,
    )
    whole = upscale(scene, *options, name="whole.tif")

    class Stop(Exception):
        pass

    n_before = len(model.batches)

    def stop(sr, batch):
        if len(model.batches) > n_before + 4:
            raise Stop
        return sr

    model.twist = stop
    parts = scene.with_name("parts.tif")
    result = run("upscale", scene, parts, "--scale", 2, "--model", "fake", *options)
    assert result.exit_code == 1
    assert not parts.exists()
    model.twist = lambda sr, batch: sr
    result = run("mosaic", f"{parts}.run", parts)
    assert result.exit_code == 0, result.output
    with rasterio.open(whole) as one, rasterio.open(parts) as other:
        np.testing.assert_array_equal(one.read(), other.read())


# --- bad input -----------------------------------------------------------------------


def refused(scene: Path, *options: object) -> str:
    output = scene.with_name("bad.tif")
    result = call(scene, *options, name=output.name)
    assert result.exit_code == 3, result.output
    assert not output.exists()
    assert not Path(f"{output}.run").exists()
    line = result.stderr.strip().splitlines()[-1]
    assert "Traceback" not in result.stderr
    return line


def test_bad_conditions_are_one_line_and_leave_nothing(scene, tmp_path, model):
    text = tmp_path / "text.tif"
    text.write_text("no raster")
    far = make_scene(
        tmp_path / "far.tif",
        crs=UTM,
        transform=NORTH_UP @ Affine.translation(90000, 0),
    )
    empty = make_scene(
        tmp_path / "empty.tif",
        pixels=np.zeros((3, 96, 112), np.uint8),
        transform=SR,
        nodata=0,
    )
    coarse = make_scene(
        tmp_path / "coarse.tif", transform=NORTH_UP @ Affine.scale(3, 3)
    )
    broken = tmp_path / "broken.geojson"
    broken.write_text('{"type": "FeatureColl')
    for options, words in (
        (("--reference", tmp_path / "none.tif"), "none.tif"),
        (("--reference", text), "not a raster"),
        (("--reference", far), "do not touch"),
        (("--reference", empty), "no valid pixel"),
        (("--reference", coarse), "swapped"),
        (("--vector-map", broken), "broken.geojson"),
        (("--style", tmp_path / "none.png"), "--style"),
        (("--style", text), "not a raster"),
        (("--change-mask", tmp_path / "none.gpkg"), "none.gpkg"),
        (("--coregister",), "--coregister needs a reference image. See --reference."),
        (("--layers", "road"), "--layers needs a vector map. See --vector-map."),
        (("--change-mask", "detect"), "--change-mask detect needs a reference image."),
    ):
        assert words in refused(scene, *options), options


def test_a_condition_that_the_model_does_not_look_at_names_those_that_do(
    scene, reference, monkeypatch
):
    result = call(scene, "--reference", reference, model="bicubic")
    assert result.exit_code == 3
    assert "bicubic does not look at a reference image" in result.stderr
    assert "these do:" in result.stderr or "no model on this machine" in result.stderr


def test_a_missing_condition_names_its_option(scene, monkeypatch):
    needy = spec(bands=RGB, needs=frozenset({"vector_map"}))
    LookingModel(needy).install(monkeypatch)
    assert "needs a vector map. See --vector-map." in refused(scene)


def test_usage_errors_are_clicks_own(scene, model):
    for options in (("--layers", "road,,water"), ("--reference", "@/no/list.txt")):
        result = run("upscale", scene, "o.tif", "--model", "fake", *options)
        assert result.exit_code == 2, result.output
