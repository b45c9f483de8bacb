"""`rsupres evaluate DATASET --model`: models on a test set, and wrong calls."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rsupres.checkpoints import catalogue as checkpoints
from rsupres.datasets.chips import read_chip
from rsupres.datasets.packs import CropOrigin, PackMeta, write_pack
from rsupres.evaluation.measures.edges import find_edges
from rsupres.evaluation.resize import resize_bicubic
from rsupres.families.base import (
    ModelSpec,
    SamplerOptions,
    ScaleRange,
)
from tests.cli.commands import evaluate, rows_of
from tests.fakes import RepeatingModel
from tests.helpers import write_image
from tests.pictures import (
    picture,
    psnr_by_hand,
    write_random_weights,
)

CPU = torch.device("cpu")


SPEC = ModelSpec(
    family="stub",
    scales=ScaleRange(Fraction(1), Fraction(8), Fraction(4)),
    bands=("red", "green", "blue"),
    multiple=8,
    detail=True,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    chips = tmp_path / "chips"
    chips.mkdir()
    for k in range(3):
        write_image(chips / f"town_{k}.tif", picture(61, 70, k))
    return chips


@pytest.fixture(autouse=True)
def no_lpips(monkeypatch: pytest.MonkeyPatch) -> None:
    """LPIPS is measured only where a test names weights."""
    monkeypatch.delenv("RSUPRES_LPIPS", raising=False)


def test_bicubic_on_a_test_set_is_pillow_both_ways(folder: Path) -> None:
    rows = rows_of(evaluate(folder, "--model", "bicubic", "--scale", 3, "--json", "-v"))
    assert [row["image"] for row in rows] == [f"town_{k}.tif" for k in range(3)] + [
        None
    ]
    expected = []
    for k in range(3):
        hr = picture(61, 70, k)[:, :60, :69]
        rgb = Image.fromarray(hr.transpose(1, 2, 0))
        lr = rgb.resize((23, 20), Image.Resampling.BICUBIC)
        sr = lr.resize((69, 60), Image.Resampling.BICUBIC)
        expected.append(psnr_by_hand(np.asarray(sr).transpose(2, 0, 1), hr, 3))
    measured = [float(str(row["psnr"])) for row in rows]
    assert measured == pytest.approx([*expected, float(np.mean(expected))])
    assert rows[-1]["images"] == 3
    assert rows[-1]["scale"] == "3"
    assert "lpips_squeeze" not in rows[-1]


def test_table_lists_each_model_and_scale_once(folder: Path) -> None:
    result = evaluate(
        folder, "--model", "bicubic", "--scale", 2, "--scale", "5/2", "-q"
    )
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].split()[:4] == ["model", "scale", "image", "PSNR"]
    assert [line.split()[1] for line in lines[1:]] == ["5/2", "2"]
    assert all("mean of 3" in line for line in lines[1:])


def test_every_glob_and_exclude_choose_the_images(folder: Path) -> None:
    base = (folder, "--model", "bicubic", "--json")
    assert rows_of(evaluate(*base, "--every", 2))[0]["images"] == 2
    assert rows_of(evaluate(*base, "--glob", "*_1.tif"))[0]["images"] == 1
    assert rows_of(evaluate(*base, "--exclude-glob", "*_1.tif"))[0]["images"] == 2


def test_border_is_the_scale_unless_said(folder: Path) -> None:
    base = (folder, "--model", "bicubic", "--scale", 4, "--glob", "*_0*", "--json")
    scores = {
        border: rows_of(evaluate(*base, "--crop-border", border))[0]["psnr"]
        for border in ("auto", 4, 0)
    }
    assert scores["auto"] == scores[4]
    assert scores["auto"] != scores[0]


def test_large_images_are_cut(folder: Path) -> None:
    rows = rows_of(evaluate(folder, "--model", "bicubic", "--max-side", 40, "--json"))
    assert rows[0]["images"] == 12


def test_sentinel2_degradation_is_another_lr_and_its_seed_counts(folder: Path) -> None:
    base = (folder, "--model", "bicubic", "--json")
    scores = [
        rows_of(evaluate(*base, *more))[0]["psnr"]
        for more in (
            (),
            ("--degradation", "sentinel2"),
            ("--degradation", "sentinel2"),
            ("--degradation", "sentinel2", "--seed", 5),
        )
    ]
    assert scores[1] == scores[2]
    assert len(set(scores)) == 3


def test_pack_brings_its_own_degradation(tmp_path: Path) -> None:
    crops = [picture(64, 64, k) for k in range(2)]
    path = tmp_path / "p.safetensors"
    origins = tuple(CropOrigin("ulm", f"{k}.tif", 5.0) for k in range(2))
    meta = PackMeta("validation", "sentinel2", origins, {"mtf": [0.2, 0.2]})
    write_pack(path, crops, meta)
    base = (path, "--model", "bicubic", "--json")
    own = rows_of(evaluate(*base, "-v"))
    assert [row["image"] for row in own] == ["0.tif 5 m", "1.tif 5 m", None]
    assert own[0]["degradation"] == "sentinel2"
    other = rows_of(evaluate(*base, "--degradation", "bicubic"))
    assert other[0]["degradation"] == "bicubic"
    assert other[0]["psnr"] != own[-1]["psnr"]
    assert rows_of(evaluate(*base, "--every", 2))[0]["images"] == 1


def test_models_get_the_options_and_the_lr_image(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[RepeatingModel] = []

    def load(
        name: str, device: torch.device, options: SamplerOptions
    ) -> RepeatingModel:
        assert device == CPU
        made.append(RepeatingModel(SPEC, options))
        return made[-1]

    monkeypatch.setattr(checkpoints, "load_model", load)
    result = evaluate(
        *(folder, "--model", "bicubic", "--model", "stub", "--detail", 0),
        *("--detail", 0.5, "--steps", 7, "--precision", "bf16", "--device", "cpu"),
        *("--scale", 4, "--glob", "*_0*", "--seed", 11, "--json"),
    )
    rows = rows_of(result)
    names = ["bicubic", "stub detail 0", "stub detail 0.5"]
    assert [row["model"] for row in rows] == names
    assert [stub.options for stub in made] == [
        SamplerOptions(steps=7, detail=detail, precision="bf16") for detail in (0, 0.5)
    ]
    batch = made[0].batches[0]
    hr = picture(61, 70)[:, :60, :68]
    lr = resize_bicubic(hr, (15, 17)).astype(np.float32) / 255
    np.testing.assert_array_equal(batch.lr[0, :, :15, :17].numpy(), lr)
    assert batch.noise.seed == 11
    repeated = np.repeat(np.repeat(lr * 255, 4, 1), 4, 2)
    assert rows[1]["psnr"] == pytest.approx(psnr_by_hand(repeated, hr, 4), abs=1e-3)


def test_lpips_is_measured_with_the_weights_named(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    weights = tmp_path / "weights"
    weights.mkdir()
    write_random_weights(weights)
    base = (folder, "--model", "bicubic", "--json")
    named = rows_of(evaluate(*base, "--lpips-weights", weights))
    monkeypatch.setenv("RSUPRES_LPIPS", str(weights))
    assert rows_of(evaluate(*base)) == named
    assert "lpips_squeeze" in named[0]
    monkeypatch.setenv("RSUPRES_LPIPS", str(tmp_path))
    assert evaluate(*base).exit_code == 4


def test_models_run_with_and_without_a_map_side_by_side(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bicubic rows have the edges near the map's borders as well."""
    (folder.parent / "maps").mkdir()
    for k in range(3):
        chart = np.zeros((3, 61, 70), np.uint8)
        chart[:, 20:40, 10:50] = 50 * (k + 1)
        write_image(folder.parent / "maps" / f"town_{k}.tif", chart)
    looking = replace(SPEC, accepts=frozenset({"vector_map"}), detail=False)
    model = RepeatingModel(looking)
    monkeypatch.setattr(checkpoints, "load_model", lambda *_: model)
    base = (folder, "--model", "bicubic", "--model", "looking", "--json", "--scale", 4)
    maps = ("--vector-map-from", "chips=maps")
    rows = rows_of(evaluate(*base, *maps, "--without", "vector-map", "-v"))
    assert [r["model"] for r in rows[:3]] == [
        "bicubic",
        "looking",
        "looking without vector map",
    ]
    shown = [batch.conditions.vector_map for batch in model.batches]
    assert [chart is None for chart in shown] == [False, True] * 3
    chips = [read_chip(path) for path in sorted(folder.glob("*.tif"))]
    for chip, row in zip(chips, rows[::3], strict=False):
        hr = chip.pixels[:, :60, :68]
        sr = resize_bicubic(resize_bicubic(hr, (15, 17)), (60, 68))
        inner = np.zeros((60, 68), bool)
        inner[4:-4, 4:-4] = True
        near = np.zeros((60, 68), bool)
        near[18:42, 8:52] = True
        near[22:38, 12:48] = False
        near[[18, 18, 41, 41], [8, 51, 8, 51]] = False
        for name, asked in (("edge_f1", None), ("edge_f1_map", near)):
            wanted = find_edges(sr / 255, hr / 255, inner).f1(asked)
            assert row[name] == pytest.approx(wanted)
    assert "edge_f1_map" not in rows_of(evaluate(*base))[0]


def test_pictures_show_lr_result_and_truth(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "pictures"
    base = (folder, "--model", "bicubic", "--scale", 2, "--glob", "*_0*")
    assert evaluate(*base, "--pictures", out).exit_code == 0
    panel = np.asarray(Image.open(out / "town_0_x2.png"))
    assert panel.shape == (60, 3 * 70 + 2 * 4, 3)
    hr = picture(61, 70)[:, :60].transpose(1, 2, 0)
    np.testing.assert_array_equal(panel[:, -70:], hr)
    assert not np.array_equal(panel[:, :70], hr)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("a.tif",), 2, "SR and HR"),
        (("a.tif", "b.tif", "c.tif"), 2, "SR and HR"),
        (("a.tif", "b.tif"), 3, "a.tif"),
        (("a.tif", "b.tif", "--every", 2), 2, "--every is for a test set"),
        (("a.tif", "b.tif", "--scale", 2), 2, "--scale is for a test set"),
        (("a.tif", "b.tif", "--tile-size", 8), 2, "--lr"),
        (("a.tif", "b.tif", "--align", "auto"), 2, "--resample"),
        (("a.tif", "b.tif", "--resample", "--align", "1"), 2, "neither auto"),
        (("a.tif", "b.tif", "--crop-border", "-1"), 2, "auto"),
        (("FOLDER", "--model", "bicubic", "--lr", "x.tif"), 2, "--lr is for SR"),
        (("FOLDER", "--model", "bicubic", "--match-histogram"), 2, "--match-histogram"),
        (("FOLDER", "--model", "bicubic", "--scale", "1/2"), 3, "at least 1"),
        (("FOLDER", "--model", "bicubic", "--scale", "64"), 3, "too small"),
        (("FOLDER", "--model", "bicubic", "--glob", "*.png"), 3, "no image"),
        (("FOLDER", "--model", "bicubic", "--without", "vector-map"), 3, "none of"),
        (("a.tif", "b.tif", "--without", "reference"), 2, "--without is for a test"),
        (("FOLDER", "--model", "bicubik"), 4, "bicubic"),
        (("absent", "--model", "bicubic"), 3, "no such file"),
    ],
)
def test_wrong_calls_end_in_one_line(
    folder: Path, arguments: tuple[object, ...], code: int, message: str
) -> None:
    result = evaluate(*(folder if a == "FOLDER" else a for a in arguments))
    assert result.exit_code == code, result.output
    assert message in result.stderr
    assert result.stdout == ""
    assert sum("Error:" in line for line in result.stderr.splitlines()) == 1
