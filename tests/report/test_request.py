"""Pages of results: what they hold, what they refuse, and what they say as JSON."""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.enums import Resampling
from rasterio.warp import transform_bounds

from rsupres.errors import InputError
from rsupres.report.assemble import Findings
from rsupres.report.batch_index import page_data
from rsupres.report.explain import (
    EXPLANATIONS,
    GOOD,
    LOOK,
    USUAL,
    explain,
    tile_words,
)
from rsupres.report.measure import measured_windows, ring_power
from rsupres.report.page import as_json
from rsupres.report.plots import outline, place_drawing, round_step
from rsupres.report.request import make_report
from rsupres.report.sources import Given, open_sources, read_on
from rsupres.report.views import ROOMS, Room, choose_views
from tests.cli.commands import run
from tests.helpers import NORTH_UP, make_scene, ramp
from tests.pictures import texture

BANDS = ("B04", "B03", "B02", "B08")
QUARTER = NORTH_UP @ Affine.scale(0.25)


def write_pair(folder: Path, side: int = 24) -> tuple[Path, Path]:
    """Write an input of `side` x `side` and a result that averages to it exactly."""
    fine = (texture(4 * side, 4 * side, bands=4) * 4000).astype(np.uint16) // 16 * 16
    coarse = fine.reshape(4, side, 4, side, 4).mean((2, 4)).astype(np.uint16)
    lr = make_scene(folder / "lr.tif", pixels=coarse, descriptions=BANDS)
    tags = {"RSUPRES_SCALE": "4", "RSUPRES_MODEL": "<i>", "RSUPRES_CONSISTENCY": "0.03"}
    sr = make_scene(
        folder / "sr.tif", pixels=fine, descriptions=BANDS, transform=QUARTER, tags=tags
    )
    return lr, sr


def test_a_page_is_one_file_with_its_numbers_as_json(tmp_path: Path) -> None:
    lr, sr = write_pair(tmp_path)
    output = tmp_path / "page.html"
    result = run("report", sr, output, "--lr", lr, "--hr", sr, "--json")
    assert result.exit_code == 0, result.output
    text = output.read_text()
    links = re.findall(r'(?:src|href)="(?!data:)([^"]*)"', text)
    assert links == []
    assert "<i>" not in re.sub(r"<i (class|style)", "", text).replace("<i></i>", "")
    data = page_data(output)
    assert data is not None
    assert data["tags"]["model"] == "<i>"
    assert data["figures"]["consistency"] == 0.03
    assert data["verdicts"]["consistency"] == LOOK
    assert data["bands"] == {"rgb": [1, 2, 3], "nir": [4, 1, 2]}
    assert np.abs(data["difference"]["values"]).max() < 1e-4
    assert data["figures"]["hr_detail"] == data["figures"]["detail"]
    shares = data["histograms"][0]["shares"]
    assert sum(shares["result"]) == pytest.approx(1.0, abs=0.02)
    assert {"result", "input", "truth"} == data["spectrum"]["power_db"].keys()
    with rasterio.open(lr) as file:
        bounds = transform_bounds(file.crs, "EPSG:4326", *file.bounds)
    lon, lat = zip(*data["footprint"], strict=True)
    found = (min(lon), min(lat), max(lon), max(lat))
    assert found == pytest.approx(bounds, abs=1e-5)


def test_a_page_without_an_input_says_so(tmp_path: Path) -> None:
    sr = make_scene(tmp_path / "plain.tif", 40, 30, bands=1, dtype="uint8")
    summary = make_report(sr, tmp_path / "page.html")
    text = summary.output.read_text()
    assert "Give the input" in text
    assert "Neither input, conditions nor truth" in text
    assert "consistency" not in summary.figures


@pytest.mark.parametrize(
    ("output", "code", "text"),
    [("sr.tif", 2, "would be lost"), ("old.html", 5, "exists. See --overwrite")],
)
def test_a_page_replaces_nothing_unasked(
    tmp_path: Path, output: str, code: int, text: str
) -> None:
    _, sr = write_pair(tmp_path)
    (tmp_path / "old.html").write_text("mine")
    before = sr.read_bytes()
    result = run("report", sr, tmp_path / output)
    assert result.exit_code == code
    assert text in result.stderr
    assert sr.read_bytes() == before


def test_upscale_writes_the_page_also_after_a_gate_that_fails(tmp_path: Path) -> None:
    lr, _ = write_pair(tmp_path)
    page, out = tmp_path / "x.html", tmp_path / "x.tif"
    options = ("--model", "bicubic", "--scale", "2", "--fail-if", "valid>0.1")
    assert run("upscale", lr, out, *options, "--report", page).exit_code == 8
    data = page_data(page)
    assert data is not None
    assert data["tags"]["gate"] == "failed"
    assert "Quality gate failed: valid&gt;0.1 (valid = 1)" in page.read_text()
    assert data["conditions"][0]["source"] == "lr.tif"
    assert "Run time" in data["provenance"]
    again = run("upscale", lr, tmp_path / "y.tif", *options, "--report", page)
    assert again.exit_code == 5
    assert not (tmp_path / "y.tif").exists()
    shared = run("upscale", lr, tmp_path / "y.tif", *options, "--report", lr)
    assert shared.exit_code == 2


def test_a_kept_run_knows_its_input(tmp_path: Path) -> None:
    lr, _ = write_pair(tmp_path)
    out = tmp_path / "x.tif"
    options = ("--model", "bicubic", "--scale", "2", "--keep-run")
    assert run("upscale", lr, out, *options).exit_code == 0
    result = run("report", tmp_path / "x.tif.run", tmp_path / "x.html")
    assert result.exit_code == 0, result.output
    data = page_data(tmp_path / "x.html")
    assert data is not None
    assert data["difference"] is not None
    out.unlink()
    result = run("report", tmp_path / "x.tif.run", tmp_path / "y.html")
    assert result.exit_code == 3
    assert "rsupres mosaic" in result.stderr


def test_a_batch_has_an_index_that_begins_with_what_failed(tmp_path: Path) -> None:
    lr, _ = write_pair(tmp_path)
    bad = tmp_path / "z_bad.tif"
    bad.write_bytes(lr.read_bytes()[:2000])
    out, pages = tmp_path / "out", tmp_path / "pages"
    options = ("--model", "bicubic", "--scale", "2", "--out-dir", out)
    result = run("batch", lr, bad, *options, "--report", pages)
    assert result.exit_code == 3
    text = (pages / "index.html").read_text()
    assert "1 of 2 failed" in text
    assert text.index("z_bad.tif") < text.index('href="lr.html"')
    first = (pages / "lr.html").stat().st_mtime_ns
    data = page_data(pages / "index.html")
    assert data is not None
    assert [item["status"] for item in data["items"]] == ["failed", "written"]
    assert "valid" in data["figures"][str(out / "lr.tif")]
    run("batch", lr, *options, "--report", pages)
    assert (pages / "lr.html").stat().st_mtime_ns == first  # up to date, so left alone


def test_a_file_that_is_no_page_of_ours_is_not_replaced(tmp_path: Path) -> None:
    lr, _ = write_pair(tmp_path)
    (tmp_path / "index.html").write_text("my home page")
    options = ("--model", "bicubic", "--scale", "2", "--out-dir", tmp_path / "out")
    result = run("batch", lr, *options, "--report", tmp_path)
    assert result.exit_code == 5
    assert (tmp_path / "index.html").read_text() == "my home page"


def test_a_page_that_is_too_large_shows_less(tmp_path: Path, monkeypatch) -> None:
    lr, sr = write_pair(tmp_path, 32)
    monkeypatch.setattr("rsupres.report.views.MAX_OVERVIEW", 64)
    rooms = (Room(128, 64), Room(64, 32))
    monkeypatch.setattr("rsupres.report.request.ROOMS", rooms)
    sizes = []
    with open_sources(Given(str(sr), (str(lr),))) as sources:
        for room in rooms:
            sizes.append(len(Findings(sources, {}).page(room).encode()))
    assert sizes[1] < sizes[0]
    monkeypatch.setattr("rsupres.report.request.MAX_BYTES", sizes[1] + 10)
    summary = make_report(sr, tmp_path / "page.html", lr=lr)
    assert summary.n_bytes <= sizes[1] + 10
    data = page_data(summary.output)
    assert data is not None
    assert [view["step"] for view in data["views"]] == [2, 1, 1, 1][
        : len(data["views"])
    ]


def test_parts_of_a_large_result_lie_on_input_pixels(tmp_path: Path) -> None:
    lr, sr = write_pair(tmp_path, 32)
    with open_sources(Given(str(sr), (str(lr),))) as sources:
        whole, *parts = choose_views(sources, None, Room(64, 30))
    assert whole.step == 1
    assert parts
    for part in parts:
        assert all(number % 4 == 0 for number in part.window)
        assert part.window.height == 28


@pytest.mark.parametrize("step", [1, 3])
def test_reading_on_an_aligned_frame_is_exact(tmp_path: Path, step: int) -> None:
    path = make_scene(tmp_path / "a.tif", 24, 33)
    with open_sources(Given(str(path))) as sources:
        grid = sources.frame.refine(Fraction(1, step))
        found = read_on(sources.sr.raster, (1, 3), grid)
    whole = ramp(24, 33)[[0, 2]].astype(np.float32)
    means = whole.reshape(2, 24 // step, step, 33 // step, step).mean((2, 4))
    np.testing.assert_allclose(found, means, atol=0.5)


def test_reading_a_coarse_picture_repeats_its_pixels(tmp_path: Path) -> None:
    lr, sr = write_pair(tmp_path)
    with open_sources(Given(str(sr), (str(lr),))) as sources:
        assert sources.lr is not None
        raster = sources.lr.raster
        found = read_on(raster, (1,), sources.frame, Resampling.nearest)
    with rasterio.open(lr) as file:
        wanted = file.read(1).repeat(4, 0).repeat(4, 1)
    np.testing.assert_array_equal(found[0], wanted)


def test_another_place_has_no_pixels(tmp_path: Path) -> None:
    there = make_scene(tmp_path / "b.tif", transform=Affine(10, 0, 9e5, 0, -10, 1e6))
    here = make_scene(tmp_path / "a.tif")
    with open_sources(Given(str(here), (), str(there))) as sources:
        assert sources.hr is not None
        assert np.isnan(read_on(sources.hr.raster, (1,), sources.frame)).all()
    with pytest.raises(InputError, match="in common"):
        make_report(here, tmp_path / "page.html", hr=there)


@pytest.mark.parametrize(
    ("name", "value", "verdict"),
    [
        ("consistency", 0.001, GOOD),
        ("consistency", 0.01, USUAL),
        ("consistency", 0.05, LOOK),
        ("bias", -0.05, LOOK),
        ("valid", 1.0, GOOD),
        ("psnr", 20.0, LOOK),
        ("detail", 0.3, ""),
    ],
)
def test_figures_are_placed_against_experience(
    name: str, value: float, verdict: str
) -> None:
    (figure,) = explain({name: value})
    assert figure.verdict == verdict
    assert (figure.typical != "") == (verdict != "")
    assert 0 <= figure.place <= 1


@pytest.mark.parametrize(
    ("name", "best", "good", "poor"),
    [
        ("consistency", 0.0, 0.006, 0.02),
        ("bias", 0.0, -0.001, -0.005),
        ("valid", 1.0, 0.999, 0.8),
        ("seam_over_input", 0.98, 1.03, 1.15),
        ("psnr", 60.0, 32.0, 23.0),
    ],
)
def test_a_gauge_goes_from_perfect_over_good_and_poor_to_worse(
    name: str, best: float, good: float, poor: float
) -> None:
    def place(value: float) -> float:
        (figure,) = explain({name: value})
        return figure.place

    assert place(best) == 0
    assert place(good) == pytest.approx(1 / 3)
    assert place(poor) == pytest.approx(2 / 3)
    assert place(poor + 9 * (poor - good)) == 1


@pytest.mark.parametrize(
    ("tag", "words"),
    [
        ("64,40", "64 × 64 input pixels, 40 shared with each neighbour"),
        ("362,40,406", "406 × 362 input pixels, 40 shared with each neighbour"),
        ("", ""),
    ],
)
def test_tiles_are_told_by_width_height_and_overlap(tag: str, words: str) -> None:
    assert tile_words(tag) == words


def test_nothing_is_explained_that_is_not_known() -> None:
    assert explain({"psnr": float("inf"), "unheard": 1.0}) == []


def test_power_of_one_wave_lies_at_its_frequency() -> None:
    cols = np.arange(128)
    wave = np.sin(2 * np.pi * cols / 8)[None].repeat(128, 0)  # 0.125 cycles a pixel
    power = ring_power(wave, 1.0)
    assert power is not None
    assert np.argmax(power) == pytest.approx(0.25 * 48, abs=1)
    assert ring_power(wave[:8], 1.0) is None


def test_power_of_a_picture_does_not_depend_on_its_pixel_size() -> None:
    noise = texture(64, 64)[0]
    wide = noise.repeat(4, 0).repeat(4, 1)
    coarse, fine = ring_power(noise, 1.0), ring_power(wide, 4.0)
    assert coarse is not None
    assert fine is not None
    low = coarse[4:12].mean() / fine[1:3].mean()
    assert low == pytest.approx(1.0, rel=0.4)


def test_measured_windows_lie_inside_on_whole_input_pixels(tmp_path: Path) -> None:
    path = make_scene(tmp_path / "a.tif", 24, 32)
    with open_sources(Given(str(path))) as sources:
        large = sources.frame.refine(Fraction(200))
    windows = list(measured_windows(large, Fraction(10, 3)))
    assert len(windows) == 16
    for window in windows:
        assert window.intersection(large.window) == window
        assert all(number % 10 == 0 for number in window)


def test_json_inside_of_a_page_cannot_end_its_script() -> None:
    text = as_json({"a": "</script><b>", "n": float("nan"), "f": Fraction(1, 2)})
    assert "<" not in text
    assert (
        text == '{"a": "\\u003c/script\\u003e\\u003cb\\u003e", "n": null, "f": "1/2"}'
    )


def test_round_steps_and_places(tmp_path: Path) -> None:
    assert [round_step(x) for x in (0.011, 1.0, 3.0)] == [0.02, 1.0, 5.0]
    nowhere = make_scene(tmp_path / "n.tif", crs=None)
    with rasterio.open(nowhere) as file:
        assert file.crs is None
    south = make_scene(tmp_path / "s.tif", crs=rasterio.crs.CRS.from_epsg(32733))
    with open_sources(Given(str(south))) as sources:
        edge = outline(sources.frame)
    assert edge is not None
    assert "° S" in place_drawing(edge)


def test_rooms_go_from_much_to_little() -> None:
    assert list(ROOMS) == sorted(ROOMS, reverse=True)


@pytest.mark.parametrize(
    "name", [name for name, about in EXPLANATIONS.items() if about.good is not None]
)
def test_the_page_of_figures_has_the_limits_of_the_pages(name: str) -> None:
    page = Path(__file__).parents[2] / "docs" / "reference" / "figures.md"
    rows = re.findall(
        rf"^\| `{name}` \| (\w+ [^|]*)\|([^|]*)\|$", page.read_text(), re.M
    )
    about = EXPLANATIONS[name]
    assert about.good is not None
    assert about.poor is not None
    found = [re.findall(r"[\d.]+", cell)[0] for row in rows[-1:] for cell in row]
    wanted = [about.good * about.factor, about.poor * about.factor]
    assert [float(number) for number in found] == pytest.approx(wanted)
