"""Sidecar files: how they are found, attached, cut with their image, and packed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rsupres.cli.options.images import DEGRADATIONS as OFFERED
from rsupres.datasets.chips import Chip, coarsen, cut, read_chip
from rsupres.datasets.packs import Pack
from rsupres.datasets.sidecars import Sidecars, renamed
from rsupres.degradations.registry import DEGRADATIONS
from rsupres.errors import ConditionError, InputError
from rsupres.training.batches import PatchSource
from rsupres.training.config import PatchOptions
from tests.cli.commands import run
from tests.datasets.town import ALL, ALL_OPTIONS, picture, write


def test_the_options_offer_every_degradation() -> None:
    assert tuple(DEGRADATIONS) == OFFERED


def test_the_last_occurrence_of_old_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "2020" / "town_2020_20.tif"
    path.parent.mkdir()
    wanted = path.with_name("town_2018_20.tif")
    wanted.touch()
    assert renamed(path, ("2020=2018",), "reference_from") == wanted
    for rules, message in (
        (("2019=2018",), "does not fit the name"),
        (("2020",), "expected OLD=NEW"),
        (("=2018",), "expected OLD=NEW"),
        (("2020=2016",), "does not exist"),
        (("2020=2018", "2018=2020"), "names the image .* itself"),
    ):
        with pytest.raises(InputError, match=message):
            renamed(path, rules, "reference_from")


def test_sidecars_are_attached_pixel_by_pixel(town: Path) -> None:
    path = town / "town_2020_1.tif"
    chip = ALL.attach(read_chip(path), path)
    assert tuple(sorted(chip.layers)) == ALL.names
    np.testing.assert_array_equal(
        chip.layers["reference"][:, 4:], picture(61, 70, 11)[:, 4:]
    )
    assert chip.layers["reference_valid"].sum() == 61 * 70 - 16
    np.testing.assert_array_equal(chip.layers["change_mask"], picture(61, 70, 21, 1))
    drawn = np.asarray(Image.open(town.parent / "drawn" / "town_2020_1.png"))
    np.testing.assert_array_equal(chip.layers["vector_map"], drawn.transpose(2, 0, 1))


def test_labels_of_second_and_cnam_cd_become_masks(tmp_path: Path) -> None:
    """SECOND: im1, im2, label1, label2 in colours; CNAM-CD: one label of codes."""
    colours = np.array([[255, 255, 255], [128, 0, 0], [0, 128, 0]], np.uint8)
    which = np.random.default_rng(0).integers(0, 3, (32, 32))
    for folder in ("im1", "im2", "label2"):
        (tmp_path / folder).mkdir()
        pixels = picture(32, 32, len(folder)).transpose(1, 2, 0)
        if folder == "label2":
            pixels = colours[which]
        Image.fromarray(pixels).save(tmp_path / folder / "00003.png")
    path = tmp_path / "im2" / "00003.png"
    plain = Sidecars(("im2=im1",), change_mask=("im2=label2",))
    with pytest.raises(
        InputError, match=r"00003\.png: a change mask has one band, not 3"
    ):
        plain.attach(read_chip(path), path)
    second = replace(plain, class_table="second")
    chip = second.attach(read_chip(path), path)
    wanted = np.array([0, 5, 3], np.uint8)[which]
    np.testing.assert_array_equal(chip.layers["change_mask"][0], wanted)
    with pytest.raises(ConditionError, match="not in class table cnam-cd"):
        replace(plain, class_table="cnam-cd").attach(read_chip(path), path)
    Image.fromarray(wanted).save(tmp_path / "label2" / "00003.png")
    cnam = replace(plain, class_table="cnam-cd")
    chip = cnam.attach(read_chip(path), path)
    np.testing.assert_array_equal(chip.layers["change_mask"][0], wanted)
    Image.fromarray(wanted + 2).save(tmp_path / "label2" / "00003.png")
    with pytest.raises(ConditionError, match="class 7 not in class table cnam-cd"):
        cnam.attach(read_chip(path), path)


def test_layers_are_cut_and_coarsened_with_the_image() -> None:
    pixels = picture(60, 90, 0)
    layers = {
        "reference": pixels,
        "reference_valid": (pixels[:1] > 60).astype(np.uint8),
        "vector_map": pixels,
        "change_mask": pixels[:1],
    }
    chip = Chip(pixels, np.ones((60, 90), bool), 1.0, "a", None, layers)
    for part in cut(chip, 32):
        np.testing.assert_array_equal(part.layers["reference"], part.pixels)
        np.testing.assert_array_equal(part.layers["change_mask"], part.pixels[:1])
    coarse = coarsen(chip, 3.0)
    np.testing.assert_array_equal(coarse.layers["reference"], coarse.pixels)
    np.testing.assert_array_equal(coarse.layers["vector_map"], pixels[:, 1::3, 1::3])
    blocks = layers["reference_valid"].reshape(1, 20, 3, 30, 3).min((2, 4))
    np.testing.assert_array_equal(coarse.layers["reference_valid"], blocks)


@pytest.mark.parametrize(("origin", "side"), [((5e5 + 0.5, 5e6), 61), ((5e5, 5e6), 60)])
def test_a_sidecar_on_other_pixels_is_refused(
    town: Path, origin: tuple[float, float], side: int
) -> None:
    path = town / "town_2020_0.tif"
    write(town / "town_2018_0.tif", picture(side, 70, 3), origin)
    with pytest.raises(InputError, match=r"does not lie on the pixels of .*2020_0"):
        Sidecars(reference=("2020=2018",)).attach(read_chip(path), path)


def test_vector_files_are_burnt_on_every_image(town: Path, tmp_path: Path) -> None:
    path = town / "town_2020_0.tif"
    ring = [[5e5 + x, 5e6 - y] for x, y in ((10, 20), (50, 20), (50, 40), (10, 40))]
    feature = {
        "type": "Feature",
        "properties": {"natural": "water"},
        "geometry": {"type": "Polygon", "coordinates": [[*ring, ring[0]]]},
    }
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32631"}}
    text = {"type": "FeatureCollection", "crs": crs, "features": [feature]}
    water = tmp_path / "map.geojson"
    water.write_text(json.dumps(text))
    sidecars = Sidecars(vector_map=(str(water),))
    drawn = sidecars.attach(read_chip(path), path).layers["vector_map"]
    inside, outside = drawn[:, 30, 30], drawn[:, 5, 5]
    assert drawn.shape == (3, 61, 70)
    assert (inside != outside).any()
    assert (drawn[:, 22:38, 12:48] == inside[:, None, None]).all()
    far = write(tmp_path / "far.tif", picture(30, 30, 0), (9e5, 5e6))
    with pytest.raises(ConditionError, match=r"far\.tif"):
        sidecars.attach(read_chip(far), far)


def test_packs_are_built_with_what_belongs_to_the_images(
    town: Path, tmp_path: Path
) -> None:
    out = tmp_path / "p.safetensors"
    result = run(
        *("dataset", "build", out, "--hr", town, "--glob", "*_2020_*", "--json"),
        *("--crop-size", 40, *ALL_OPTIONS),
    )
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["layers"] == list(ALL.names)
    pack = Pack.load(out)
    assert pack.meta.legend == "maptiler"
    assert len(pack.crops) == 8
    np.testing.assert_array_equal(pack.crops[3], picture(61, 70, 0)[:, 30:60, 35:])
    np.testing.assert_array_equal(
        pack.layers["reference"][3], picture(61, 70, 10)[:, 30:60, 35:]
    )
    batch = PatchSource([pack], PatchOptions(lr_side=12, batch=2), 0).batch(0)
    assert batch.conditions.given().keys() == {*ALL.names}


def test_lr_of_another_sensor_is_packed_and_measured(tmp_path: Path) -> None:
    hr, lr = picture(96, 120, 0), picture(48, 60, 1)
    write(tmp_path / "hr" / "a.tif", hr)
    write(tmp_path / "lr" / "a.tif", lr, gsd_m=2.0)
    out = tmp_path / "p.safetensors"
    base = ("dataset", "build", out, "--hr", tmp_path / "hr", "--lr-from", "hr/=lr/")
    assert run(*base).exit_code == 2
    assert run(*base, "--scale", 2, "--gsd", 2).exit_code == 2
    wrong = run(*base, "--scale", 3)
    assert wrong.exit_code == 3
    assert "times 3 are not those of" in wrong.output
    result = run(*base, "--scale", 2, "--crop-size", 64)
    assert result.exit_code == 0, result.output
    pack = Pack.load(out)
    assert (pack.meta.degradation, pack.meta.lr_scale) == ("stored", "2")
    assert [crop.shape[1:] for crop in pack.crops] == [
        *((64, 64), (64, 56)),
        *((32, 64), (32, 56)),
    ]
    np.testing.assert_array_equal(pack.crops[3], hr[:, 64:, 64:])
    np.testing.assert_array_equal(pack.lr[3], lr[:, 32:, 32:])
    shown = run("evaluate", out, "--model", "bicubic", "--scale", 2, "--json")
    assert shown.exit_code == 0, shown.output
    assert json.loads(shown.stdout)["degradation"] == "stored"
    other = run("evaluate", out, "--model", "bicubic", "--scale", 4)
    assert other.exit_code == 3
    assert "See --scale 2, --degradation" in other.output
