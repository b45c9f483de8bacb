"""The papers' tests on miniature layouts of their data."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rsupres.cli.options.evaluation import PROTOCOLS as NAMES
from rsupres.errors import InputError
from rsupres.evaluation.comparison.protocols import (
    PROTOCOLS,
    Table,
    _datasets,
    _request,
    run_protocol,
)
from rsupres.evaluation.comparison.tables import published
from rsupres.evaluation.measure_models import ModelsRequest
from rsupres.evaluation.measures.metrics import psnr
from rsupres.evaluation.resize import resize_bicubic
from tests.cli.commands import run
from tests.pictures import texture

BICUBIC = ModelsRequest((), ("bicubic",))


def write_png(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.transpose(1, 2, 0)).save(path)
    return path


def image(side: int, seed: int = 0) -> np.ndarray:
    return (texture(side, side, seed) * 255).astype(np.uint8)


def test_the_command_knows_the_protocols() -> None:
    assert tuple(PROTOCOLS) == NAMES


def test_e2diffsr_crops_and_scores_as_the_paper(tmp_path: Path) -> None:
    pixels = image(50)
    write_png(tmp_path / "AID" / "test" / "port" / "port_1.png", pixels)
    (table,) = run_protocol("e2diffsr", tmp_path, BICUBIC, [Fraction(17, 5)])
    # 3.4: LR is floor(50 / 3.4) rounded down to 10 (denominator 5), HR 34 x 34.
    hr = pixels[:, :34, :34]
    sr = resize_bicubic(resize_bicubic(hr, (10, 10)), (34, 34))
    inner = np.s_[:, 4:-4, 4:-4]
    wanted = psnr(sr[inner] / 255.0, hr[inner] / 255.0)
    assert table.ours[0].figures["psnr"] == pytest.approx(wanted, abs=1e-9)
    assert table.theirs["bicubic"] == {"fid": 46.23, "lpips_alex": 0.426}
    assert any("1 images; the paper has 1000" in note for note in table.notes)


def test_a_bicubic_far_from_the_papers_is_said(tmp_path: Path) -> None:
    write_png(tmp_path / "AID" / "test" / "a.png", image(48))
    result = run("evaluate", tmp_path, "--protocol", "e2diffsr", "--scale", 4, "--json")
    assert result.exit_code == 0, result.output
    (table,) = [json.loads(line) for line in result.stdout.splitlines()]
    assert table["paper"]["E2DiffSR"]["psnr"] == 27.186
    assert any("Bicubic has" in note for note in table["notes"])
    text = run("evaluate", tmp_path, "--protocol", "e2diffsr", "--scale", 4).stdout
    assert "E2DiffSR (paper)" in text
    assert "27.1860" in text


def test_dota_is_cut_to_its_middle(tmp_path: Path) -> None:
    write_png(tmp_path / "DOTA" / "images" / "P1.png", image(600))
    dataset = PROTOCOLS["e2diffsr"].datasets[1]
    (found,) = _datasets(PROTOCOLS["e2diffsr"], tmp_path)
    own = _request(PROTOCOLS["e2diffsr"], *found, "4", BICUBIC)
    assert found[0] is dataset
    assert (own.middle, own.border, own.degradation) == (512, None, "bicubic")


def test_of_more_images_than_the_paper_has_every_kth_is_taken(tmp_path: Path) -> None:
    folder = tmp_path / "AID"
    folder.mkdir()
    for k in range(30):
        (folder / f"{k}.png").touch()
    dataset = PROTOCOLS["e2diffsr"].datasets[0]
    small = type(dataset)(dataset.name, dataset.folders, 10)
    own = _request(PROTOCOLS["e2diffsr"], small, folder, "4", BICUBIC)
    assert own.every == 3


def test_refdiff_takes_the_stored_lr_and_the_conditions_beside(tmp_path: Path) -> None:
    test = tmp_path / "SECOND" / "RefSR_dataset" / "test"
    hr = image(64)
    write_png(test / "HR_512" / "1.png", hr)
    lr = np.full((3, 8, 8), 90, np.uint8)  # not the bicubic of HR, so that it shows
    write_png(test / "Bic_LR_D8_32" / "1.png", lr)
    (table,) = run_protocol("refdiff", tmp_path, BICUBIC, [Fraction(8)])
    flat = np.full_like(hr, 90)
    wanted = psnr(flat / 255.0, hr / 255.0)
    assert table.ours[0].figures["psnr"] == pytest.approx(wanted, abs=1e-9)
    assert table.theirs["Ref-Diff"]["lpips_alex"] == 0.2642
    found = _datasets(PROTOCOLS["refdiff"], tmp_path)
    request = ModelsRequest((), ("refdiff-mini",))
    own = _request(PROTOCOLS["refdiff"], *found[0], "8", request)
    assert own.reference_from == ("HR_512=Ref",)
    assert own.change_mask_from == ("HR_512=CD_mask",)


def test_sgdm_reduces_the_truth_and_looks_at_the_maps(tmp_path: Path) -> None:
    write_png(tmp_path / "hr_256" / "18_1_2.png", image(96))
    (table,) = run_protocol("sgdm", tmp_path, BICUBIC)
    assert (table.scale, table.ours[0].n_images) == ("32", 1)
    assert table.figures[:2] == ("psnr_y", "ssim_y")
    assert table.theirs["SGDM"]["psnr_y"] == 20.65
    found = _datasets(PROTOCOLS["sgdm"], tmp_path)
    own = _request(
        PROTOCOLS["sgdm"], *found[0], "32", ModelsRequest((), ("sgdm-mini",))
    )
    assert own.vector_map_from == ("hr_256=ref_256",)


def test_slimdiffsr_leaves_no_border_out(tmp_path: Path) -> None:
    write_png(tmp_path / "NWPU-RESISC45" / "beach" / "beach_1.png", image(48))
    (table,) = run_protocol("slimdiffsr", tmp_path, BICUBIC, [Fraction(4)])
    hr = image(48)
    sr = resize_bicubic(resize_bicubic(hr, (12, 12)), (48, 48))
    wanted = psnr(sr / 255.0, hr / 255.0)
    assert table.ours[0].figures["psnr"] == pytest.approx(wanted, abs=1e-9)
    assert table.figures == ("psnr_y", "ssim_y")


def test_a_stored_lr_of_another_size_is_refused(tmp_path: Path) -> None:
    test = tmp_path / "SECOND" / "RefSR_dataset" / "test"
    write_png(test / "HR_512" / "1.png", image(64))
    write_png(test / "Bic_LR_D8_32" / "1.png", image(9))
    with pytest.raises(InputError, match="does not fit 8 x 8"):
        run_protocol("refdiff", tmp_path, BICUBIC, [Fraction(8)])


@pytest.mark.parametrize(
    ("options", "code", "text"),
    [
        (("--protocol", "e2diffsr"), 3, "holds no data set of the protocol"),
        (("--protocol", "e2diffsr", "--scale", "5"), 3, "has scales 2, 13/5"),
        (("--protocol", "e2diffsr", "--crop-border", "3"), 2, "tests of your own"),
        (("--model", "bicubic", "--protocol", "x2"), 2, "--protocol"),
    ],
)
def test_what_a_protocol_cannot_do_is_said(
    tmp_path: Path, options: tuple[str, ...], code: int, text: str
) -> None:
    (tmp_path / "AID").mkdir() if "--scale" in options else None
    result = run("evaluate", tmp_path, *options)
    assert result.exit_code == code
    assert text in result.stderr


def test_tables_of_the_papers_have_all_scales() -> None:
    for name, protocol in PROTOCOLS.items():
        for dataset in protocol.datasets:
            for scale in protocol.scales:
                rows = published(name, dataset.name, scale)
                is_charted = (dataset.name, scale) != ("DIOR", "4")
                wanted = not (name == "slimdiffsr" and is_charted)
                assert bool(rows) == wanted, (name, dataset, scale)
                for row in rows.values():
                    assert set(row) <= set(protocol.figures)


def test_a_table_shows_what_is_not_measured_as_a_dash() -> None:
    table = Table("AID", "4", ("psnr", "fid"), (), {"x": {"psnr": 1.0}}, ())
    assert table.to_json()["paper"] == {"x": {"psnr": 1.0}}
