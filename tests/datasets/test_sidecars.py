"""What belongs to an image by its name: in test sets, in packs, and wrong ones."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from rasterio.crs import CRS

from rsupres.checkpoints import catalogue as checkpoints
from rsupres.cli import main
from rsupres.cli.options.images import DEGRADATIONS as OFFERED
from rsupres.datasets.chips import Chip, coarsen, cut, read_chip
from rsupres.datasets.packs import Pack
from rsupres.datasets.sidecars import Sidecars, renamed
from rsupres.degradations.registry import DEGRADATIONS
from rsupres.errors import ConditionError, InputError
from rsupres.families.base import (
    Conditions,
    ModelSpec,
    ScaleRange,
    SceneContext,
    SceneReader,
    TileBatch,
)
from rsupres.grid import PixelWindow
from rsupres.training.batches import PatchOptions, PatchSource
from rsupres.upscaling.array import upscale_whole
from tests.helpers import write_image

CPU = torch.device("cpu")
SPEC = ModelSpec(
    family="stub",
    scales=ScaleRange(Fraction(1), Fraction(8), Fraction(4)),
    bands=("red", "green", "blue"),
    needs=frozenset({"reference"}),
    accepts=frozenset({"vector_map", "change_mask", "style"}),
    multiple=8,
)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [*map(str, arguments)])


def picture(height: int, width: int, seed: int, bands: int = 3) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(1, 255, (bands, height, width), dtype=np.uint8)


def write(
    path: Path,
    pixels: np.ndarray,
    origin: tuple[float, float] = (5e5, 5e6),
    nodata: int | None = None,
    gsd_m: float = 1.0,
) -> Path:
    path.parent.mkdir(exist_ok=True)
    return write_image(path, pixels, gsd_m, origin, CRS.from_epsg(32631), nodata)


@dataclass
class Looker:
    """A model that returns its reference and remembers all that it was shown."""

    spec: ModelSpec = SPEC
    batches: list[TileBatch] = field(default_factory=list)
    read: list[Conditions] = field(default_factory=list)

    def install(self, monkeypatch: pytest.MonkeyPatch) -> Looker:
        """Be the model that every name stands for."""
        monkeypatch.setattr(checkpoints, "load_model", lambda *_: self)
        return self

    def prepare(
        self, scene: SceneReader, scale: Fraction, noise: object
    ) -> SceneContext:
        self.read.append(scene.read_conditions(PixelWindow(3, 5, 7, 6)))
        return SceneContext()

    def upscale(self, batch: TileBatch, scale: Fraction) -> torch.Tensor:
        self.batches.append(batch)
        assert batch.conditions.reference is not None
        return batch.conditions.reference


@pytest.fixture
def town(tmp_path: Path) -> Path:
    """Two images of 2020 with references of 2018, masks, and maps as PNG."""
    for k in range(2):
        write(tmp_path / "town" / f"town_2020_{k}.tif", picture(61, 70, k))
        reference = picture(61, 70, 10 + k)
        reference[:, :4, :4] = 0
        write(tmp_path / "town" / f"town_2018_{k}.tif", reference, nodata=0)
        write(tmp_path / "mask" / f"town_2020_{k}.tif", picture(61, 70, 20 + k, 1))
        drawn = picture(61, 70, 30 + k).transpose(1, 2, 0)
        (tmp_path / "drawn").mkdir(exist_ok=True)
        Image.fromarray(drawn).save(tmp_path / "drawn" / f"town_2020_{k}.png")
    return tmp_path / "town"


ALL = Sidecars(
    reference=("2020=2018",),
    vector_map=("town/=drawn/", ".tif=.png"),
    change_mask=("town/=mask/",),
)
ALL_OPTIONS = (
    *("--reference-from", "2020=2018", "--change-mask-from", "town/=mask/"),
    *("--vector-map-from", "town/=drawn/", "--vector-map-from", ".tif=.png"),
)


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


def test_companions_are_attached_pixel_by_pixel(town: Path) -> None:
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
def test_a_companion_on_other_pixels_is_refused(
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
    companions = Sidecars(vector_map=(str(water),))
    drawn = companions.attach(read_chip(path), path).layers["vector_map"]
    inside, outside = drawn[:, 30, 30], drawn[:, 5, 5]
    assert drawn.shape == (3, 61, 70)
    assert (inside != outside).any()
    assert (drawn[:, 22:38, 12:48] == inside[:, None, None]).all()
    far = write(tmp_path / "far.tif", picture(30, 30, 0), (9e5, 5e6))
    with pytest.raises(ConditionError, match=r"far\.tif"):
        companions.attach(read_chip(far), far)


def test_models_on_a_test_set_get_what_belongs_to_each_image(
    town: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looker = Looker().install(monkeypatch)
    result = run(
        *("evaluate", town, "--glob", "*_2020_*", "--model", "stub", "--scale", 4),
        *("--json", "-v", "--device", "cpu", *ALL_OPTIONS),
    )
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    hr, reference = (picture(61, 70, k)[:, :60, :68] / 255.0 for k in (1, 11))
    reference[:, :4, :4] = 0
    inner = np.s_[:, 4:-4, 4:-4]
    error = np.mean((hr - reference)[inner] ** 2)
    assert rows[1]["image"] == "town_2020_1.tif"
    assert rows[1]["psnr"] == pytest.approx(-10 * np.log10(error), abs=1e-3)
    seen = looker.batches[1].conditions
    assert seen.given().keys() == {*ALL.names}
    assert seen.reference_valid is not None
    assert not seen.reference_valid[0, 0, :4, :4].any()
    assert seen.reference_valid[0, 0, 4:60, :].all()
    assert seen.change_mask is not None
    assert seen.change_mask.shape == (1, 1, 64, 72)  # as SPEC.multiple wants
    mask = picture(61, 70, 21, 1)[:, :60, :68]
    wanted = np.pad(mask, ((0, 0), (0, 4), (0, 4)), mode="symmetric")
    np.testing.assert_array_equal(seen.change_mask[0].numpy(), wanted)
    window = looker.read[1].change_mask
    assert window is not None
    np.testing.assert_array_equal(window[0].numpy(), mask[:, 3:10, 5:11])


def test_parts_of_large_images_keep_their_companions(
    town: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looker = Looker().install(monkeypatch)
    result = run(
        *("evaluate", town, "--glob", "*_2020_0*", "--model", "stub", "--scale", 2),
        *("--max-side", 36, "--reference-from", "2020=2018", "--device", "cpu"),
    )
    assert result.exit_code == 0, result.output
    parts = [b.conditions.reference for b in looker.batches]
    assert len(parts) == 4
    last = parts[-1]
    assert last is not None
    wanted = picture(61, 70, 10)[:, 30:60, 35:69].astype(np.float32) / 255
    np.testing.assert_allclose(last[0, :, :30, :34].numpy(), wanted, atol=1e-6)


def test_what_no_model_looks_at_is_refused(
    town: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = ("evaluate", town, "--glob", "*_2020_*", "--device", "cpu", "--model")
    result = run(*base, "bicubic", "--reference-from", "2020=2018")
    assert result.exit_code == 3
    assert "--reference-from 2020=2018: none of the models looks at it" in result.output
    Looker().install(monkeypatch)
    result = run(*base, "stub")
    assert result.exit_code == 3
    assert "needs reference" in result.output
    result = run("evaluate", town / "a", town / "b", "--reference-from", "a=b")
    assert result.exit_code == 2
    assert "--reference-from is for a test set" in result.output


def test_a_model_sees_only_what_it_looks_at() -> None:
    looker = Looker(replace(SPEC, needs=frozenset({"reference"}), accepts=frozenset()))
    lr = np.full((3, 8, 8), 0.5, np.float32)
    given = Conditions(
        reference=torch.rand(1, 3, 16, 16),
        reference_valid=torch.ones(1, 1, 16, 16, dtype=torch.bool),
        change_mask=torch.zeros(1, 1, 16, 16, dtype=torch.uint8),
    )
    upscale_whole(looker, lr, Fraction(2), CPU, conditions=given)
    seen = looker.batches[0].conditions.given()
    assert seen.keys() == {"reference", "reference_valid"}
    assert given.reference is not None
    wrong = replace(given, reference=given.reference[..., :15])
    with pytest.raises(InputError, match=r"reference has \(16, 15\) pixels"):
        upscale_whole(looker, lr, Fraction(2), CPU, conditions=wrong)


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


def test_packs_give_their_conditions_to_models(
    town: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "p.safetensors"
    base = ("dataset", "build", out, "--hr", town, "--glob", "*_2020_*")
    assert run(*base, *ALL_OPTIONS).exit_code == 0
    looker = Looker().install(monkeypatch)
    model = ("--model", "stub", "--device", "cpu")
    result = run("evaluate", out, *model, "--degradation", "second-order")
    assert result.exit_code == 0, result.output
    assert looker.batches[0].conditions.given().keys() == {*ALL.names}
    result = run("evaluate", out, *model, "--reference-from", "a=b")
    assert result.exit_code == 3
    assert "a pack holds its own conditions" in result.output


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


def test_a_style_and_a_sampler_reach_the_models(
    town: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looker, options = Looker(), []

    def load(name: str, device: torch.device, chosen: object) -> Looker:
        options.append(chosen)
        return looker

    monkeypatch.setattr(checkpoints, "load_model", load)
    base = ("evaluate", town, "--glob", "*_2020_0*", "--model", "stub")
    more = ("--device", "cpu", "--reference-from", "2020=2018")
    picked = ("--style", town / "town_2018_1.tif", "--sampler", "heun")
    result = run(*base, *more, *picked)
    assert result.exit_code == 0, result.output
    style = looker.batches[0].conditions.style
    assert style is not None
    assert style.shape == (3, 61, 70)
    np.testing.assert_allclose(
        style[:, 30:].numpy() * 255, picture(61, 70, 11)[:, 30:], atol=0.01
    )
    assert run(*base, *more, "--style-sample").exit_code == 0
    assert (options[0].sampler, options[0].style_sample) == ("heun", False)
    assert options[1].style_sample
    assert run(*base, *more, *picked, "--style-sample").exit_code == 2


def test_an_option_without_effect_is_refused(
    town: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Looker(replace(SPEC, accepts=frozenset()))
    monkeypatch.setattr(checkpoints, "load_model", lambda *_: plain)
    base = ("evaluate", town, "--glob", "*_2020_*", "--model", "stub")
    more = ("--device", "cpu", "--reference-from", "2020=2018")
    for options, code in (
        (("--style-sample",), 3),
        (("--style", town / "town_2018_1.tif"), 3),
        (("--change-mask-from", "town/=mask/"), 3),
        (("--legend", "maptiler"), 2),
        (("--class-table", "second"), 2),
    ):
        result = run(*base, *more, *options)
        assert result.exit_code == code, result.output
        assert str(options[0]) in result.output
