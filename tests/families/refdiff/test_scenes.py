"""Ref-Diff through the command line: scenes, references, coverage, and bad input."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine

from rsupres.families.refdiff.config import RELEASED
from rsupres.families.refdiff.network import RefDiffUNet
from tests.cli.commands import run
from tests.helpers import NORTH_UP, make_scene
from tests.tiny_refdiff import images, tiny_network, write_tiny

FINE = NORTH_UP @ Affine.scale(1 / 8)
# The released network, narrow: it has groups, attention and masks of class codes.
NARROW = replace(RELEASED, channels=16, mult=(1, 1), blocks=1, sft_width=8)


def write_pair(folder: Path, height: int, width: int) -> tuple[Path, Path]:
    """Write a scene, and a reference that covers the upper half of it."""
    lr, fine = (
        np.round(image[0].numpy() * 250 + 2).astype(np.uint8)
        for image in images(height, width)
    )
    scene = make_scene(folder / "scene.tif", pixels=lr)
    upper = fine[:, : 4 * height]
    return scene, make_scene(folder / "reference.tif", pixels=upper, transform=FINE)


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    return write_pair(tmp_path, 20, 28)


@pytest.fixture
def scene(pair: tuple[Path, Path]) -> Path:
    return pair[0]


@pytest.fixture
def reference(pair: tuple[Path, Path]) -> Path:
    return pair[1]


def test_a_scene_is_upscaled_with_a_reference_of_half_of_it(
    tmp_path: Path, scene: Path, reference: Path
) -> None:
    model = write_tiny(tmp_path / "tiny.safetensors")
    # In bfloat16, pixels far from the reference may differ by one.
    common = ("--model", model, "--scale", 8, "--precision", "fp32")
    bare = run("upscale", scene, tmp_path / "bare.tif", *common)
    assert bare.exit_code == 0, bare.output
    assert "No reference is given" in bare.output
    assert "See --reference." in bare.output
    result = run(
        "upscale", scene, tmp_path / "o.tif", *common, "--reference", reference
    )
    assert result.exit_code == 0, result.output
    assert "No change mask is given" in result.output
    assert "See --change-mask, --change-mask detect." in result.output
    with (
        rasterio.open(tmp_path / "o.tif") as out,
        rasterio.open(tmp_path / "bare.tif") as without,
        rasterio.open(scene) as given,
    ):
        assert out.shape == (160, 224)
        assert out.crs == given.crs
        assert out.transform.almost_equals(given.transform @ Affine.scale(1 / 8))
        difference = np.abs(out.read().astype(int) - without.read().astype(int))
    assert difference[:, :50].mean() > 1
    assert difference[:, 152:].max() == 0


def covered(path: Path) -> np.ndarray:
    with rasterio.open(path) as dataset:
        return dataset.read(1)


def test_parts_without_reference_are_marked_in_a_coverage_raster(
    tmp_path: Path, reference: Path
) -> None:
    lr, _ = images(20, 28)
    pixels = np.round(lr[0].numpy() * 250 + 2).astype(np.uint8)
    pixels[:, 3:6, 20:24] = 0
    scene = make_scene(tmp_path / "holed.tif", pixels=pixels, nodata=0)
    model = write_tiny(tmp_path / "tiny.safetensors")
    common = ("--model", model, "--scale", 8, "--reference", reference)
    wanted = np.zeros((160, 224), np.uint8)
    wanted[:80] = 1
    wanted[24:48, 160:192] = 255
    marks = tmp_path / "covered.tif"
    result = run(
        "upscale", scene, tmp_path / "o.tif", *common, "--reference-coverage", marks
    )
    assert result.exit_code == 0, result.output
    assert np.array_equal(covered(marks), wanted)
    with rasterio.open(marks) as dataset, rasterio.open(tmp_path / "o.tif") as out:
        assert (dataset.crs, dataset.transform) == (out.crs, out.transform)
        assert dataset.nodata == 255
        assert dataset.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert json.loads(dataset.tags()["RSUPRES_CLASSES"])["0"] == "no reference"
        assert dataset.tags()["RSUPRES_JOB"] == out.tags()["RSUPRES_JOB"]
    # What the enlarged scene fills is no reference either; options of the picture
    # that would lose classes are not the raster's.
    filled = tmp_path / "filled.tif"
    options = ("--fill-reference", "--driver", "GTiff", "--co", "COMPRESS=JPEG")
    result = run(
        *("upscale", scene, tmp_path / "f.tif", *common, *options),
        *("--other-bands", "skip", "--reference-coverage", filled),
    )
    assert result.exit_code == 0, result.output
    assert np.array_equal(covered(filled), wanted)


def test_a_coverage_raster_is_part_of_the_run(
    tmp_path: Path, scene: Path, reference: Path
) -> None:
    model = write_tiny(tmp_path / "tiny.safetensors")
    command = ("upscale", scene, tmp_path / "o.tif", "--model", model, "--scale", 8)
    marks = tmp_path / "c.tif"
    asked = (*command, "--reference", reference, "--reference-coverage", marks)
    for part in ("1/2", "2/2"):
        assert not marks.exists()
        result = run(*asked, "--shard", part)
        assert result.exit_code == 0, result.output
    assert np.unique(covered(marks)[:80]).tolist() == [1]
    assert np.unique(covered(marks)[80:]).tolist() == [0]
    assert not (tmp_path / "o.tif.run").exists()
    (tmp_path / "o.tif").unlink()
    before = marks.read_bytes()
    refused = run(*asked)
    assert refused.exit_code == 5, refused.output
    assert "c.tif exists" in refused.output
    assert marks.read_bytes() == before
    assert run(*asked, "--overwrite").exit_code == 0
    same = run(*command, "--reference", reference, "--reference-coverage", command[2])
    assert same.exit_code == 3
    assert "same file" in same.output
    alone = run(*command, "--overwrite", "--reference-coverage", tmp_path / "n.tif")
    assert alone.exit_code == 3
    assert (
        "--reference-coverage needs a reference image. See --reference." in alone.output
    )


def test_nan_weights_end_with_code_7_and_nothing_is_written(
    tmp_path: Path, scene: Path, reference: Path
) -> None:
    network = tiny_network()
    with torch.no_grad():
        network.map_layer0.weight.fill_(float("nan"))
    model = write_tiny(tmp_path / "nan.safetensors", network)
    marks = tmp_path / "c.tif"
    result = run(
        *("upscale", scene, tmp_path / "o.tif", "--model", model, "--scale", 8),
        *("--reference", reference, "--reference-coverage", marks),
    )
    assert result.exit_code == 7, result.output
    assert "NaN" in result.output
    assert not (tmp_path / "o.tif").exists()
    assert not marks.exists()


def codes(path: Path, values: np.ndarray, transform: Affine = FINE, **more) -> Path:
    return make_scene(
        path, pixels=values[None].astype(np.uint8), transform=transform, **more
    )


FAR = Affine.translation(0, 100_000)  # LR pixels


def far_reference(folder: Path) -> tuple[object, ...]:
    _, fine = images(20, 28)
    pixels = (fine[0].numpy() * 250).astype(np.uint8)
    far = make_scene(folder / "x.tif", pixels=pixels, transform=NORTH_UP @ FAR)
    return ("--reference", far)


def grey_reference(folder: Path) -> tuple[object, ...]:
    grey = np.full((1, 160, 224), 90, np.uint8)
    return ("--reference", make_scene(folder / "x.tif", pixels=grey, transform=FINE))


def coarse_reference(folder: Path) -> tuple[object, ...]:
    pixels = np.full((3, 6, 8), 90, np.uint8)
    coarse = NORTH_UP @ Affine.scale(4)
    return (
        "--reference",
        make_scene(folder / "x.tif", pixels=pixels, transform=coarse),
    )


def strange_classes(folder: Path) -> tuple[object, ...]:
    mask = codes(folder / "x.tif", np.arange(160 * 224).reshape(160, 224) % 10)
    return ("--change-mask", mask, "--class-table", "second")


def far_mask(folder: Path) -> tuple[object, ...]:
    mask = codes(folder / "x.tif", np.ones((160, 224)), NORTH_UP @ FAR)
    return ("--change-mask", mask)


def mask_of_three_bands(folder: Path) -> tuple[object, ...]:
    pixels = np.ones((3, 160, 224), np.uint8)
    return (
        "--change-mask",
        make_scene(folder / "x.tif", pixels=pixels, transform=FINE),
    )


BAD = {
    "a reference of another place": (far_reference, 3, "scene.tif"),
    "a reference of one band": (grey_reference, 3, "band"),
    "a reference coarser than the scene": (coarse_reference, 3, "coarser"),
    "classes that the table lacks": (strange_classes, 3, "7, 8, 9 not in class table"),
    "a mask of another place": (far_mask, 3, "x.tif"),
    "a mask of three bands": (mask_of_three_bands, 3, "band"),
    "a mask that is not there": (lambda _: ("--change-mask", "no.tif"), 3, "no.tif"),
    "a scale that was not trained": (lambda _: ("--scale", "4"), 3, "offers"),
    "tiles within the halo": (lambda _: ("--tile-size", "4"), 3, "--tile-size 4"),
    "a sampler of others": (lambda _: ("--sampler", "unipc"), 3, "dpm++"),
    "classes for what is detected": (
        lambda _: ("--change-mask", "detect", "--class-table", "second"),
        3,
        "detect finds no classes",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_input_is_refused_with_its_name_and_nothing_is_written(
    what: str, tmp_path: Path, scene: Path, reference: Path
) -> None:
    make, code, text = BAD[what]
    model = write_tiny(tmp_path / "tiny.safetensors")
    options = make(tmp_path)
    if "--reference" not in options:
        options = ("--reference", reference, *options)
    if "--scale" not in options:
        options = ("--scale", 8, *options)
    before = {path.name for path in tmp_path.iterdir()}
    result = run("upscale", scene, tmp_path / "o.tif", "--model", model, *options)
    assert result.exit_code == code, result.output
    assert text in result.output
    assert "Traceback" not in result.output
    after = {path.name for path in tmp_path.iterdir()}
    assert after - {"o.tif.run"} == before  # what a run found would stay for the next


def test_scene_and_reference_in_each_others_place_are_refused(
    tmp_path: Path, scene: Path, reference: Path
) -> None:
    model = write_tiny(tmp_path / "tiny.safetensors")
    result = run(
        *("upscale", reference, tmp_path / "o.tif", "--model", model),
        *("--scale", 8, "--reference", scene),
    )
    assert result.exit_code == 3, result.output
    assert "coarser" in result.output
    assert not (tmp_path / "o.tif").exists()


def test_a_scene_of_one_band_is_refused(tmp_path: Path, reference: Path) -> None:
    grey = make_scene(tmp_path / "grey.tif", pixels=np.full((1, 20, 28), 9, np.uint8))
    result = run(
        *("upscale", grey, tmp_path / "o.tif", "--scale", 8, "--reference", reference),
        *("--model", write_tiny(tmp_path / "tiny.safetensors")),
    )
    assert result.exit_code == 3, result.output
    assert "band" in result.output


@pytest.mark.slow
def test_masks_of_other_grids_are_laid_over_the_scene(
    tmp_path: Path, scene: Path, reference: Path
) -> None:
    """One pixel of the mask is 4 x 4 of the result; outside it nothing is known."""
    model = write_tiny(tmp_path / "tiny.safetensors")
    small, whole = np.zeros((20, 28)), np.zeros((160, 224))
    small[4:8, 4:8], whole[16:32, 16:32] = 5, 5
    masks = {
        "small": codes(tmp_path / "s.tif", small, FINE @ Affine.scale(4)),
        "whole": codes(tmp_path / "w.tif", whole),
        "none": codes(tmp_path / "n.tif", np.zeros((160, 224))),
    }
    made = {}
    for name, mask in masks.items():
        output = tmp_path / f"{name}.out.tif"
        result = run(
            *("upscale", scene, output, "--model", model, "--scale", 8),
            *("--reference", reference, "--change-mask", mask),
        )
        assert result.exit_code == 0, result.output
        with rasterio.open(output) as dataset:
            made[name] = dataset.read().astype(int)
    assert np.array_equal(made["small"], made["whole"])
    assert np.abs(made["none"] - made["whole"])[:, 16:32, 16:32].mean() > 0.5


def test_a_model_of_classes_is_told_what_its_mask_means(
    tmp_path: Path, pair: tuple[Path, Path]
) -> None:
    (tmp_path / "small").mkdir()
    scene, reference = write_pair(tmp_path / "small", 10, 14)
    torch.manual_seed(0)
    model = write_tiny(
        tmp_path / "r.safetensors", RefDiffUNet(NARROW), NARROW, classes="second"
    )
    mask = codes(tmp_path / "m.tif", np.full((80, 112), 3))
    common = ("--model", model, "--scale", 8, "--sampler", "heun", "--steps", 1)
    small = ("upscale", scene, tmp_path / "o.tif", *common, "--reference", reference)
    unknown = run(*small, "--change-mask", mask)
    assert unknown.exit_code == 3, unknown.output
    assert "--class-table" in unknown.output
    told = run(*small, "--change-mask", mask, "--class-table", "second")
    assert told.exit_code == 0, told.output
    tags = rasterio.open(tmp_path / "o.tif").tags()
    assert json.loads(tags["RSUPRES_CHANGE_MASK"])["table"] == "second"
    found = run(
        *("upscale", pair[0], tmp_path / "d.tif", *common),
        *("--reference", pair[1], "--change-mask", "detect"),
    )
    assert found.exit_code == 0, found.output
    assert "takes every change for 'water' (1 of SECOND)" in found.output


@pytest.mark.parametrize(
    "options",
    [pytest.param(("--sampler", "heun"), marks=pytest.mark.slow), ("--steps", 5)],
)
def test_samplers_that_a_model_was_not_trained_for_are_warned_about(
    tmp_path: Path, scene: Path, reference: Path, options: tuple[object, ...]
) -> None:
    model = write_tiny(tmp_path / "tiny.safetensors")
    common = ("--model", model, "--scale", 8, "--reference", reference)
    result = run("upscale", scene, tmp_path / "o.tif", *common, *options)
    assert result.exit_code == 0, result.output
    assert "poorer pictures" in result.output
    quiet = run("upscale", scene, tmp_path / "q.tif", *common)
    assert "poorer" not in quiet.output


@pytest.mark.parametrize(("times", "warned"), [(1.005, False), (1.2, True)])
def test_a_pixel_size_that_was_not_trained_is_warned_about(
    tmp_path: Path, times: float, warned: bool
) -> None:
    model = write_tiny(tmp_path / "tiny.safetensors", gsd=(10.0, 10.0))
    lr, _ = images(12, 12)
    scene = make_scene(
        tmp_path / "s.tif",
        pixels=np.round(lr[0].numpy() * 250 + 2).astype(np.uint8),
        transform=NORTH_UP @ Affine.scale(times),
    )
    result = run("upscale", scene, tmp_path / "o.tif", "--model", model, "--scale", 8)
    assert result.exit_code == 0, result.output
    assert ("was trained on 10 to 10 m" in result.output) == warned
