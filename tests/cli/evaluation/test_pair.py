"""`rsupres evaluate SR HR`: a picture against the truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rasterio.crs import CRS

from tests.cli.commands import evaluate, rows_of
from tests.helpers import write_image
from tests.pictures import (
    fourier_shift,
    picture,
    psnr_by_hand,
    texture,
)


@pytest.fixture(autouse=True)
def no_lpips(monkeypatch: pytest.MonkeyPatch) -> None:
    """LPIPS is measured only where a test names weights."""
    monkeypatch.delenv("RSUPRES_LPIPS", raising=False)


def test_a_pair_is_measured_where_both_are_valid(tmp_path: Path) -> None:
    hr = picture(60, 60)
    sr = np.clip(hr.astype(int) + 10, 1, 255).astype(np.uint8)
    sr[:, :5] = 0  # nodata of SR
    # HR begins 10 pixels to the right and below
    a = write_image(tmp_path / "sr.tif", sr, nodata=0)
    origin = (5e5 + 50, 5e6 - 50)
    b = write_image(tmp_path / "hr.tif", hr[:, 10:, 10:], origin=origin)
    row = rows_of(evaluate(a, b, "--json"))[0]
    expected = psnr_by_hand(sr[:, 10:, 10:], hr[:, 10:, 10:], 0)
    assert row["psnr"] == pytest.approx(expected)
    assert row["valid_pixels"] == 50 * 50
    assert (row["shift_row"], row["shift_col"]) == (0, 0)
    assert "ergas" not in row
    border = rows_of(evaluate(a, b, "--json", "--crop-border", 7))[0]
    inner = psnr_by_hand(sr[:, 10:, 10:], hr[:, 10:, 10:], 7)
    assert border["psnr"] == pytest.approx(inner)


def test_hr_nodata_names_pixels_that_are_no_measurement(tmp_path: Path) -> None:
    hr = np.maximum(picture(40, 40), 1)
    sr = np.clip(hr.astype(int) + 10, 1, 255).astype(np.uint8)
    hr[:, :20] = 0
    a = write_image(tmp_path / "sr.tif", sr)
    b = write_image(tmp_path / "hr.tif", hr)
    assert rows_of(evaluate(a, b, "--json"))[0]["valid_pixels"] == 1600
    row = rows_of(evaluate(a, b, "--json", "--hr-nodata", 0))[0]
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
    result = evaluate(a, b)
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
    assert evaluate(a, b).exit_code == 3
    row = rows_of(evaluate(a, b, "--resample", "--json"))[0]
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
    before = rows_of(evaluate(a, b, "--json"))[0]
    after = rows_of(evaluate(a, b, "--resample", "--align", align, "--json"))[0]
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
        float(str(rows_of(evaluate(a, b, "--json", *more))[0]["psnr"]))
        for more in ((), ("--match-histogram",))
    )
    assert plain < 20
    assert matched > 35


def test_stretch_sets_the_range_of_the_figures(tmp_path: Path) -> None:
    hr = picture(40, 40).astype(np.uint16) * 10
    a = write_image(tmp_path / "sr.tif", hr + np.uint16(25))
    b = write_image(tmp_path / "hr.tif", hr)
    for top, expected in ((2500, 40.0), (25000, 60.0)):
        row = rows_of(evaluate(a, b, "--json", "--stretch", f"0,{top}"))[0]
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
    row = rows_of(evaluate(high, high, "--lr", low, "--json"))[0]
    assert row["consistency"] == pytest.approx(0, abs=1e-6)
    assert row["scale"] == "4"
    assert row["ergas"] == 0
    assert row["psnr"] is None  # infinite
    sr = np.clip(sr.astype(int) + 5, 0, 255).astype(np.uint8)
    brighter = write_image(tmp_path / "b.tif", sr, gsd_m=2.5)
    row = rows_of(evaluate(brighter, high, "--lr", low, "--json"))[0]
    assert row["consistency"] == pytest.approx(5 / 255, abs=1e-5)
    assert row["consistency_mae"] == pytest.approx(5 / 255, abs=1e-5)


def test_consistency_of_a_part_of_the_scene_is_that_part(tmp_path: Path) -> None:
    low, high, sr = make_scene(tmp_path)
    part = sr[:, 8:40, 12:50]  # LR rows 2 to 10, columns 3 to 12.5
    origin = (5e5 + 30, 5e6 - 20)
    path = write_image(tmp_path / "part.tif", part, gsd_m=2.5, origin=origin)
    row = rows_of(evaluate(path, high, "--lr", low, "--json"))[0]
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
    result = evaluate(path, path, "--lr", low)
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
        float(str(rows_of(evaluate(path, plain, *options))[0]["seam"]))
        for path in (plain, steps)
    )
    assert clean == pytest.approx(1.0, abs=0.25)
    assert seams > clean + 0.5
    # other tiles: no border lies on the steps
    moved = rows_of(evaluate(steps, plain, *options, "--overlap", 6, "--halo", 1))[0]
    assert float(str(moved["seam"])) < clean + 0.25


def test_sixteen_bit_and_other_types_have_their_own_stretch(tmp_path: Path) -> None:
    hr = picture(40, 40)
    a = write_image(tmp_path / "sr.tif", hr.astype(np.uint16) * 30 + 77)
    b = write_image(tmp_path / "hr.tif", hr)
    result = evaluate(a, b, "--json", "--match-histogram")
    assert result.exit_code == 0, result.output
    assert "own stretch" in result.stderr
