"""`rsupres evaluate`: a picture against the truth, and models on a test set."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
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
from rsupres.checkpoints.catalogue import load_model
from rsupres.cli import main
from rsupres.datasets.chips import read_chip
from rsupres.datasets.packs import CropOrigin, PackMeta, write_pack
from rsupres.errors import InputError, ModelOutputError
from rsupres.evaluation.edges import edge_f1
from rsupres.evaluation.pairs import match_histogram
from rsupres.evaluation.report import Row, mean_rows, table_lines
from rsupres.evaluation.resize import resize_bicubic, sizes_at
from rsupres.families.base import (
    ModelSpec,
    SamplerOptions,
    ScaleRange,
    SceneContext,
    SceneReader,
    TileBatch,
)
from rsupres.upscaling.array import upscale_whole
from tests.helpers import write_image
from tests.pictures import fourier_shift, texture, write_random_weights

CPU = torch.device("cpu")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["evaluate", *map(str, arguments)])


def rows_of(result: Result) -> list[dict[str, object]]:
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def picture(height: int, width: int, seed: int = 0, bands: int = 3) -> np.ndarray:
    return (texture(height, width, seed, bands) * 255).round().astype(np.uint8)


@dataclass
class Stub:
    """A model that repeats pixels and remembers how it was called."""

    spec: ModelSpec
    options: SamplerOptions = field(default_factory=SamplerOptions)
    batches: list[TileBatch] = field(default_factory=list)
    answer: float | None = None

    def prepare(
        self, scene: SceneReader, scale: Fraction, noise: object
    ) -> SceneContext:
        return SceneContext(numbers={"height": float(scene.height)})

    def upscale(self, batch: TileBatch, scale: Fraction) -> torch.Tensor:
        self.batches.append(batch)
        size = [int(n * scale) for n in batch.lr.shape[2:]]
        sr = torch.nn.functional.interpolate(batch.lr, size=size, mode="nearest")
        return sr if self.answer is None else torch.full_like(sr, self.answer)


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


def psnr_by_hand(sr: np.ndarray, hr: np.ndarray, border: int) -> float:
    inner = np.s_[:, border:-border, border:-border] if border else np.s_[:]
    error = (sr.astype(float) - hr.astype(float))[inner]
    return 10 * math.log10(255**2 / np.mean(error**2))


def test_bicubic_on_a_test_set_is_pillow_both_ways(folder: Path) -> None:
    rows = rows_of(run(folder, "--model", "bicubic", "--scale", 3, "--json", "-v"))
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
    result = run(folder, "--model", "bicubic", "--scale", 2, "--scale", "5/2", "-q")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].split()[:4] == ["model", "scale", "image", "PSNR"]
    assert [line.split()[1] for line in lines[1:]] == ["5/2", "2"]
    assert all("mean of 3" in line for line in lines[1:])


def test_every_glob_and_exclude_choose_the_images(folder: Path) -> None:
    base = (folder, "--model", "bicubic", "--json")
    assert rows_of(run(*base, "--every", 2))[0]["images"] == 2
    assert rows_of(run(*base, "--glob", "*_1.tif"))[0]["images"] == 1
    assert rows_of(run(*base, "--exclude-glob", "*_1.tif"))[0]["images"] == 2


def test_border_is_the_scale_unless_said(folder: Path) -> None:
    base = (folder, "--model", "bicubic", "--scale", 4, "--glob", "*_0*", "--json")
    scores = {
        border: rows_of(run(*base, "--crop-border", border))[0]["psnr"]
        for border in ("auto", 4, 0)
    }
    assert scores["auto"] == scores[4]
    assert scores["auto"] != scores[0]


def test_large_images_are_cut(folder: Path) -> None:
    rows = rows_of(run(folder, "--model", "bicubic", "--max-side", 40, "--json"))
    assert rows[0]["images"] == 12


def test_sentinel2_degradation_is_another_lr_and_its_seed_counts(folder: Path) -> None:
    base = (folder, "--model", "bicubic", "--json")
    scores = [
        rows_of(run(*base, *more))[0]["psnr"]
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
    own = rows_of(run(*base, "-v"))
    assert [row["image"] for row in own] == ["0.tif 5 m", "1.tif 5 m", None]
    assert own[0]["degradation"] == "sentinel2"
    other = rows_of(run(*base, "--degradation", "bicubic"))
    assert other[0]["degradation"] == "bicubic"
    assert other[0]["psnr"] != own[-1]["psnr"]
    assert rows_of(run(*base, "--every", 2))[0]["images"] == 1


def test_models_get_the_options_and_the_lr_image(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Stub] = []

    def load(name: str, device: torch.device, options: SamplerOptions) -> Stub:
        assert device == CPU
        made.append(Stub(SPEC, options))
        return made[-1]

    monkeypatch.setattr(checkpoints, "load_model", load)
    result = run(
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
    named = rows_of(run(*base, "--lpips-weights", weights))
    monkeypatch.setenv("RSUPRES_LPIPS", str(weights))
    assert rows_of(run(*base)) == named
    assert "lpips_squeeze" in named[0]
    monkeypatch.setenv("RSUPRES_LPIPS", str(tmp_path))
    assert run(*base).exit_code == 4


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
    model = Stub(looking)
    monkeypatch.setattr(checkpoints, "load_model", lambda *_: model)
    base = (folder, "--model", "bicubic", "--model", "looking", "--json", "--scale", 4)
    maps = ("--vector-map-from", "chips=maps")
    rows = rows_of(run(*base, *maps, "--without", "vector-map", "-v"))
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
            wanted = edge_f1(sr / 255, hr / 255, inner, asked)
            assert row[name] == pytest.approx(wanted)
    assert "edge_f1_map" not in rows_of(run(*base))[0]


def test_pictures_show_lr_result_and_truth(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "pictures"
    base = (folder, "--model", "bicubic", "--scale", 2, "--glob", "*_0*")
    assert run(*base, "--pictures", out).exit_code == 0
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
    result = run(*(folder if a == "FOLDER" else a for a in arguments))
    assert result.exit_code == code, result.output
    assert message in result.stderr
    assert result.stdout == ""
    assert sum("Error:" in line for line in result.stderr.splitlines()) == 1


def test_a_pair_is_measured_where_both_are_valid(tmp_path: Path) -> None:
    hr = picture(60, 60)
    sr = np.clip(hr.astype(int) + 10, 1, 255).astype(np.uint8)
    sr[:, :5] = 0  # nodata of SR
    # HR begins 10 pixels to the right and below
    a = write_image(tmp_path / "sr.tif", sr, nodata=0)
    origin = (5e5 + 50, 5e6 - 50)
    b = write_image(tmp_path / "hr.tif", hr[:, 10:, 10:], origin=origin)
    row = rows_of(run(a, b, "--json"))[0]
    expected = psnr_by_hand(sr[:, 10:, 10:], hr[:, 10:, 10:], 0)
    assert row["psnr"] == pytest.approx(expected)
    assert row["valid_pixels"] == 50 * 50
    assert (row["shift_row"], row["shift_col"]) == (0, 0)
    assert "ergas" not in row
    border = rows_of(run(a, b, "--json", "--crop-border", 7))[0]
    inner = psnr_by_hand(sr[:, 10:, 10:], hr[:, 10:, 10:], 7)
    assert border["psnr"] == pytest.approx(inner)


def test_hr_nodata_names_pixels_that_are_no_measurement(tmp_path: Path) -> None:
    hr = np.maximum(picture(40, 40), 1)
    sr = np.clip(hr.astype(int) + 10, 1, 255).astype(np.uint8)
    hr[:, :20] = 0
    a = write_image(tmp_path / "sr.tif", sr)
    b = write_image(tmp_path / "hr.tif", hr)
    assert rows_of(run(a, b, "--json"))[0]["valid_pixels"] == 1600
    row = rows_of(run(a, b, "--json", "--hr-nodata", 0))[0]
    assert row["valid_pixels"] == 800
    assert row["psnr"] == pytest.approx(psnr_by_hand(sr[:, 20:], hr[:, 20:], 0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"crs": CRS.from_epsg(32632)}, "CRS"),
        ({"gsd_m": 6.0}, "pixel size"),
        ({"origin": (5e5 + 2, 5e6)}, "displaced by 0.000 and 0.400"),
        ({"origin": (6e5, 5e6)}, "no common ground"),
    ],
)
def test_grids_that_differ_are_refused_with_one_line(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    a = write_image(tmp_path / "sr.tif", picture(40, 40))
    b = write_image(tmp_path / "hr.tif", picture(40, 40), **change)  # type: ignore[arg-type]
    result = run(a, b)
    assert result.exit_code == 3
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_resample_brings_hr_to_the_grid_of_sr(tmp_path: Path) -> None:
    # the same smooth ground on a finer, displaced grid
    def ground(height: int, width: int, gsd_m: float, east: float) -> np.ndarray:
        x = east + (np.arange(width) + 0.5) * gsd_m
        y = (np.arange(height)[:, None] + 0.5) * gsd_m
        wave = 120 + 60 * np.sin(x / 19) * np.cos(y / 23)
        return np.stack([wave, wave * 0.8, wave * 0.5]).round().astype(np.uint8)

    a = write_image(tmp_path / "sr.tif", ground(60, 60, 5.0, 0.0))
    finer = ground(150, 150, 2.0, 8.0)
    b = write_image(tmp_path / "hr.tif", finer, gsd_m=2.0, origin=(5e5 + 8, 5e6))
    assert run(a, b).exit_code == 3
    row = rows_of(run(a, b, "--resample", "--json"))[0]
    assert float(str(row["psnr"])) > 40
    assert abs(float(str(row["shift_col"]))) < 0.1


@pytest.mark.parametrize("align", ["auto", "0.40,-1.30"])
def test_align_moves_hr_onto_sr(tmp_path: Path, align: str) -> None:
    large = texture(90, 90).astype(np.float64)
    smooth = (large + np.roll(large, 1, 1) + np.roll(large, 1, 2)) / 3
    moved = fourier_shift(smooth, 0.4, -1.3)
    window = np.s_[:, 10:80, 10:80]
    a, b = (
        write_image(tmp_path / f"{k}.tif", (image[window] * 255).round().astype("u1"))
        for k, image in enumerate((moved, smooth))
    )
    before = rows_of(run(a, b, "--json"))[0]
    after = rows_of(run(a, b, "--resample", "--align", align, "--json"))[0]
    assert before["shift_row"] == pytest.approx(0.4, abs=0.06)
    assert before["shift_col"] == pytest.approx(-1.3, abs=0.06)
    assert after["hr_moved_by"] == pytest.approx([0.4, -1.3], abs=0.06)
    assert after["shift_col"] == pytest.approx(0.0, abs=0.1)
    assert float(str(after["psnr"])) > float(str(before["psnr"])) + 3


def test_match_histogram_undoes_a_monotone_change_of_tone(tmp_path: Path) -> None:
    hr = picture(64, 64)
    sr = (255 * (hr / 255) ** 1.7 * 0.6).round().astype(np.uint8)
    a, b = (write_image(tmp_path / f"{k}.tif", p) for k, p in enumerate((sr, hr)))
    plain, matched = (
        float(str(rows_of(run(a, b, "--json", *more))[0]["psnr"]))
        for more in ((), ("--match-histogram",))
    )
    assert plain < 20
    assert matched > 35


def test_matching_is_monotone_and_ignores_invalid_pixels() -> None:
    a, b = texture(40, 40, 1), texture(40, 40, 2) * 0.5
    valid = np.ones((40, 40), bool)
    valid[:10] = False
    matched = match_histogram(a, b, valid)
    for band in range(3):
        order = np.argsort(a[band][valid])
        assert (np.diff(matched[band][valid][order]) >= 0).all()
        quantiles = [np.quantile(x[band][valid], (0.1, 0.5, 0.9)) for x in (matched, b)]
        np.testing.assert_allclose(*quantiles, atol=0.01)
    b[:, :10] = 9.0
    np.testing.assert_array_equal(match_histogram(a, b, valid), matched)


def test_stretch_sets_the_range_of_the_figures(tmp_path: Path) -> None:
    hr = picture(40, 40).astype(np.uint16) * 10
    a = write_image(tmp_path / "sr.tif", hr + np.uint16(25))
    b = write_image(tmp_path / "hr.tif", hr)
    for top, expected in ((2500, 40.0), (25000, 60.0)):
        row = rows_of(run(a, b, "--json", "--stretch", f"0,{top}"))[0]
        assert row["psnr"] == pytest.approx(expected, abs=1e-3)


def make_scene(tmp_path: Path, scale: int = 4) -> tuple[Path, Path, np.ndarray]:
    """An LR scene, and SR that repeats its pixels with a part of one cut off."""
    lr = picture(20, 24)
    sr = np.repeat(np.repeat(lr, scale, 1), scale, 2)
    low = write_image(tmp_path / "lr.tif", lr, gsd_m=10.0)
    high = write_image(tmp_path / "sr.tif", sr, gsd_m=10.0 / scale)
    return low, high, sr


def test_consistency_is_zero_where_lr_pixels_keep_their_mean(tmp_path: Path) -> None:
    low, high, sr = make_scene(tmp_path)
    row = rows_of(run(high, high, "--lr", low, "--json"))[0]
    assert row["consistency"] == pytest.approx(0, abs=1e-6)
    assert row["scale"] == "4"
    assert row["ergas"] == 0
    assert row["psnr"] is None  # infinite
    sr = np.clip(sr.astype(int) + 5, 0, 255).astype(np.uint8)
    brighter = write_image(tmp_path / "b.tif", sr, gsd_m=2.5)
    row = rows_of(run(brighter, high, "--lr", low, "--json"))[0]
    assert row["consistency"] == pytest.approx(5 / 255, abs=1e-5)
    assert row["consistency_rms"] == pytest.approx(5 / 255, abs=1e-5)


def test_consistency_of_a_part_of_the_scene_is_that_part(tmp_path: Path) -> None:
    low, high, sr = make_scene(tmp_path)
    part = sr[:, 8:40, 12:50]  # LR rows 2 to 10, columns 3 to 12.5
    origin = (5e5 + 30, 5e6 - 20)
    path = write_image(tmp_path / "part.tif", part, gsd_m=2.5, origin=origin)
    row = rows_of(run(path, high, "--lr", low, "--json"))[0]
    assert row["consistency"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("gsd_m", "origin", "message"),
    [
        (2.5, (5e5 + 2.5, 5e6), "corners meet"),
        (2.5, (5e5 + 160, 5e6), "beyond the LR scene"),
        (7.77, (5e5, 5e6), "does not lie on"),
    ],
)
def test_sr_that_is_not_on_the_grid_of_lr_is_refused(
    tmp_path: Path, gsd_m: float, origin: tuple[float, float], message: str
) -> None:
    low, _, sr = make_scene(tmp_path)
    path = write_image(tmp_path / "x.tif", sr, gsd_m=gsd_m, origin=origin)
    result = run(path, path, "--lr", low)
    assert result.exit_code == 3
    assert message in result.stderr


def test_seam_ratio_sees_steps_at_the_borders_of_the_tiles(tmp_path: Path) -> None:
    lr = picture(48, 48)
    sr = picture(192, 192, 1) // 2 + 20
    low = write_image(tmp_path / "lr.tif", lr, gsd_m=10.0)
    plain = write_image(tmp_path / "plain.tif", sr, gsd_m=2.5)
    stepped = sr.copy()
    stepped[:, 64:128] += 60
    steps = write_image(tmp_path / "steps.tif", stepped, gsd_m=2.5)
    options = ("--lr", low, "--tile-size", 16, "--json")
    clean, seams = (
        float(str(rows_of(run(path, plain, *options))[0]["seam"]))
        for path in (plain, steps)
    )
    assert clean == pytest.approx(1.0, abs=0.25)
    assert seams > clean + 0.5
    # other tiles: no border lies on the steps
    moved = rows_of(run(steps, plain, *options, "--overlap", 6, "--halo", 1))[0]
    assert float(str(moved["seam"])) < clean + 0.25


def test_sixteen_bit_and_other_types_have_their_own_stretch(tmp_path: Path) -> None:
    hr = picture(40, 40)
    a = write_image(tmp_path / "sr.tif", hr.astype(np.uint16) * 30 + 77)
    b = write_image(tmp_path / "hr.tif", hr)
    result = run(a, b, "--json", "--match-histogram")
    assert result.exit_code == 0, result.output
    assert "own stretch" in result.stderr


@pytest.mark.parametrize("scale", ["2", "3", "4", "5/2", "10/3"])
def test_upscale_whole_of_bicubic_is_pillow(scale: str) -> None:
    ratio = Fraction(scale)
    lr = texture(18, 21)
    sr = upscale_whole(load_model("bicubic", CPU, SamplerOptions()), lr, ratio, CPU)
    assert sr.shape == (3, int(18 * ratio), int(21 * ratio))
    size = (int(18 * ratio), int(21 * ratio))
    if ratio.denominator == 1:
        expected = [
            np.asarray(
                Image.fromarray(band).resize(size[::-1], Image.Resampling.BICUBIC)
            )
            for band in lr
        ]
        inner = np.s_[:, 12:-12, 12:-12]  # beyond the edge one reflects, one weighs
        np.testing.assert_allclose(sr[inner], np.stack(expected)[inner], atol=2e-6)


def test_upscale_whole_pads_to_what_the_model_needs_and_crops_back() -> None:
    stub = Stub(SPEC)
    lr = texture(18, 21)
    sr = upscale_whole(stub, lr, Fraction(3), CPU)
    batch = stub.batches[0]
    assert batch.lr.shape == (1, 3, 24, 24)  # multiples of 8 at scale 3
    assert batch.windows_sr[0][2:] == (72, 72)
    assert batch.scene.numbers["height"] == 24
    reflected = np.pad(lr, ((0, 0), (0, 6), (0, 3)), mode="symmetric")
    np.testing.assert_array_equal(batch.lr[0].numpy(), reflected)
    np.testing.assert_array_equal(sr, np.repeat(np.repeat(lr, 3, 1), 3, 2))


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: (Stub(SPEC), 3, Fraction(9)), InputError),
        (lambda: (Stub(SPEC), 4, Fraction(4)), InputError),
        (
            lambda: (
                Stub(replace(SPEC, needs=frozenset({"reference"}))),
                3,
                Fraction(4),
            ),
            InputError,
        ),
        (lambda: (Stub(SPEC, answer=math.nan), 3, Fraction(4)), ModelOutputError),
    ],
)
def test_upscale_whole_refuses_what_cannot_work(
    make: Callable[[], tuple[Stub, int, Fraction]], error: type[Exception]
) -> None:
    stub, bands, scale = make()
    with pytest.raises(error):
        upscale_whole(stub, texture(16, 16, bands=bands), scale, CPU)


def test_sizes_keep_lr_and_hr_on_the_same_ground() -> None:
    assert sizes_at(256, 250, Fraction(3)) == ((85, 83), (255, 249))
    lr, hr = sizes_at(256, 250, Fraction(13, 5))
    assert (lr, hr) == ((95, 95), (247, 247))
    with pytest.raises(InputError, match="too small"):
        sizes_at(12, 30, Fraction(13, 5))


def test_means_leave_missing_figures_out_and_the_table_shows_a_dash() -> None:
    rows = [
        Row("m", "4", "a", 1, {"psnr": 20.0, "sam": math.nan}),
        Row("m", "4", "b", 1, {"psnr": 30.0, "sam": 2.0}),
        Row("n", "4", "b", 1, {"psnr": 10.0, "sam": math.nan}),
    ]
    means = mean_rows(rows)
    assert [(r.model, r.n_images, r.figures["psnr"]) for r in means] == [
        ("m", 2, 25.0),
        ("n", 1, 10.0),
    ]
    assert means[0].figures["sam"] == 2.0
    lines = table_lines(means)
    assert lines[0].split() == ["model", "scale", "image", "PSNR", "SAM"]
    assert lines[2].split() == ["n", "4", "mean", "of", "1", "10.000", "-"]
    assert means[1].to_json()["sam"] is None
