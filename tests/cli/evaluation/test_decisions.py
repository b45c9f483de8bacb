"""What `rsupres evaluate` offers for decisions: pages, gates, choice of images."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rsupres.report.batch_index import page_data
from tests.cli.commands import evaluate
from tests.helpers import write_image
from tests.pictures import texture


@pytest.fixture
def chips(tmp_path: Path) -> Path:
    """Three images of 48 x 48 pixels."""
    folder = tmp_path / "chips"
    folder.mkdir()
    for k in range(3):
        pixels = (texture(48, 48, k) * 255).astype(np.uint8)
        write_image(folder / f"town_{k}.tif", pixels)
    return folder


def test_models_are_named_with_commas_and_compared_on_a_page(
    chips: Path, tmp_path: Path
) -> None:
    page = tmp_path / "models.html"
    result = evaluate(
        chips, "--models", "bicubic,slimdiffsr-mini", "--html", page, "--json"
    )
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [row["model"] for row in rows[:2]] == ["bicubic", "slimdiffsr-mini"]
    psnr = next(row for row in rows[2:] if row["figure"] == "psnr")
    assert (psnr["other"], psnr["n_images"]) == ("bicubic", 3)
    data = page_data(page)
    assert data is not None
    assert len(data["images"]) == 6
    text = page.read_text()
    assert "Where slimdiffsr-mini is worst" in text
    assert text.count("town_0.tif, ×4") == 2
    plain = evaluate(chips, "--models", "bicubic,slimdiffsr-mini")
    assert "against bicubic: mean difference" in plain.stdout


def test_a_page_replaces_no_file_of_others(chips: Path, tmp_path: Path) -> None:
    page = tmp_path / "mine.html"
    page.write_text("mine")
    result = evaluate(chips, "--model", "bicubic", "--html", page)
    assert result.exit_code == 5
    assert page.read_text() == "mine"


@pytest.mark.parametrize(("gate", "code"), [("psnr<1", 0), ("edge_f1<1", 8)])
def test_gates_end_a_test_of_models_after_its_table(
    chips: Path, gate: str, code: int
) -> None:
    result = evaluate(chips, "--model", "bicubic", "--fail-if", gate)
    assert result.exit_code == code
    assert "mean of 3" in result.stdout
    assert ("bicubic x4: edge_f1<1" in result.stderr) == (code == 8)


def test_gates_end_the_comparison_of_two_pictures(chips: Path) -> None:
    sr, hr = chips / "town_0.tif", chips / "town_1.tif"
    result = evaluate(sr, hr, "--fail-if", "ssim<0.9")
    assert result.exit_code == 8
    assert "SSIM" in result.stdout
    # Equal pictures have an infinite PSNR, which is above any limit.
    assert evaluate(hr, hr, "--fail-if", "psnr<90").exit_code == 0
    assert evaluate(hr, hr, "--fail-if", "psnr>90").exit_code == 8
    unknown = evaluate(sr, hr, "--fail-if", "valid<0.9")
    assert unknown.exit_code == 3
    assert "--fail-if 'valid<0.9': no figure 'valid'" in unknown.stderr


def test_all_figures_add_similarity_and_correctness(chips: Path) -> None:
    options = (chips, "--model", "bicubic", "--every", 3, "--json")
    plain = json.loads(evaluate(*options).stdout)
    more = json.loads(evaluate(*options, "--all-figures").stdout)
    added = set(more) - set(plain)
    assert {"uiqi", "synthesis", "omission", "lr_sam"} <= added
    parts = [more[name] for name in ("improvement", "omission", "hallucination")]
    assert sum(parts) == pytest.approx(1.0)
    assert more["omission"] == max(parts)  # bicubic stays with its input


def test_stored_lr_and_the_middle_of_images_are_taken(chips: Path) -> None:
    lr = chips.parent / "low"
    lr.mkdir()
    for k in range(3):
        Image.fromarray(np.full((12, 12, 3), 120, np.uint8)).save(lr / f"town_{k}.tif")
    options = (chips, "--model", "bicubic", "--scale", 4, "--json")
    computed = json.loads(evaluate(*options).stdout)
    stored = json.loads(evaluate(*options, "--lr-from", "chips=low").stdout)
    assert stored["psnr"] < computed["psnr"]
    assert stored["edge_f1"] == 0.0
    middle = json.loads(evaluate(*options, "--middle", 24).stdout)
    assert middle["psnr"] != computed["psnr"]
    both = evaluate(*options, "--middle", 24, "--lr-from", "chips=low")
    assert both.exit_code == 3
    assert "cannot be cut" in both.stderr


def test_missing_metric_weights_are_an_error(chips: Path, tmp_path: Path) -> None:
    result = evaluate(chips, "--model", "bicubic", "--metric-weights", tmp_path)
    assert result.exit_code == 4
    assert "holds the weights of no measure" in result.stderr
