"""`rsupres dataset build`: packs from image files, split by place."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch

from rsupres.datasets.packs import Pack
from rsupres.degradations.base import degrade_bicubic
from rsupres.degradations.sentinel2 import Sentinel2Params
from tests.cli.training.chips import GSD_M, build, run, write_noise

SPLIT = ("--split-by", r"^([a-z]+)_\d{4}", "--validation", "bath")


def test_pack_holds_the_images_and_where_they_come_from(
    chips: Path, tmp_path: Path
) -> None:
    out = tmp_path / "all.safetensors"
    result = build(out, chips, "--licence", "CC BY 4.0")
    assert result.exit_code == 0, result.output
    pack = Pack.load(out)
    assert [c.source for c in pack.meta.crops] == sorted(
        p.name for p in chips.iterdir()
    )
    assert {c.gsd_m for c in pack.meta.crops} == {GSD_M}
    assert pack.meta.licence == "CC BY 4.0"
    assert pack.meta.degradation == "bicubic"
    with rasterio.open(chips / "ulm_2020_7.tif") as file:
        np.testing.assert_array_equal(pack.crops[3], file.read())


def test_places_are_split_whole(chips: Path, tmp_path: Path) -> None:
    result = build(tmp_path / "packs", chips, *SPLIT)
    assert result.exit_code == 0, result.output
    places = {
        split: {
            c.place
            for c in Pack.load(tmp_path / f"packs/{split}.safetensors").meta.crops
        }
        for split in ("train", "validation")
    }
    assert places == {"train": {"ulm"}, "validation": {"bath"}}
    table = run("check", tmp_path / "packs", "--json")
    rows = [json.loads(line) for line in table.stdout.splitlines()]
    assert [(row["split"], row["crops"]) for row in rows] == [
        ("train", 2),
        ("validation", 2),
    ]


def test_images_of_one_ground_in_both_splits_are_refused(
    chips: Path, tmp_path: Path
) -> None:
    # another name for the ground of ulm, half a chip to the east
    write_noise(chips / "neuulm_2020_7.tif", 5, east=5e5 + 16)
    result = build(tmp_path / "packs", chips, *SPLIT, "--validation", "neuulm")
    assert result.exit_code == 3
    assert "same ground" in result.stderr
    assert not list((tmp_path / "packs").iterdir())


def test_an_image_of_both_splits_under_two_names_is_refused(
    chips: Path, tmp_path: Path
) -> None:
    for name, east in (("ulm_2022_1.tif", 7e5), ("bath_2022_1.tif", 8e5)):
        write_noise(chips / name, 77, east=east)
    result = build(tmp_path / "packs", chips, *SPLIT)
    assert result.exit_code == 3
    assert "in both splits" in result.stderr
    assert not list((tmp_path / "packs").iterdir())


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--split-by", r"^(\d+)_"), 3, "does not match"),
        (("--split-by", "(", "--validation", "bath"), 2, "--split-by"),
        (("--split-by", "^([a-z]+)", "--validation", "rome"), 3, "names no place"),
        (("--split-by", "^([a-z]+)", "--validation", "*"), 3, "nothing is left"),
        (("--glob", "*.jp2"), 3, "no image matches"),
        (("--exclude-glob", "*"), 3, "no image matches"),
        (("--gsd", "0.6,x"), 2, "list of metres"),
        (("--gsd", "0.1"), 3, "no crop"),
        (("--params", "mtf=0.2,0.3"), 2, "has no --params"),
        (("--degradation", "sentinel2", "--params", "blur=1"), 3, "blur"),
        (("--degradation", "sentinel2", "--params", "mtf"), 2, "KEY=NUMBER"),
        (("--max-bytes", "100"), 3, "no crop"),
        (("--hr", "absent"), 3, "no such file"),
    ],
)
def test_wrong_options_end_in_one_line_and_no_file(
    chips: Path, tmp_path: Path, options: tuple[str, ...], code: int, message: str
) -> None:
    out = tmp_path / "out"
    result = build(out, chips, *options)
    assert result.exit_code == code
    assert message in result.stderr
    errors = [line for line in result.stderr.splitlines() if "Error" in line]
    assert len(errors) == 1
    assert not list(out.glob("*"))


def test_an_existing_pack_is_kept_without_overwrite(
    chips: Path, tmp_path: Path
) -> None:
    out = tmp_path / "p.safetensors"
    out.write_bytes(b"mine")
    assert build(out, chips).exit_code == 5
    assert out.read_bytes() == b"mine"
    assert build(out, chips, "--overwrite").exit_code == 0
    assert Pack.load(out).crops


def test_validation_into_one_file_is_a_usage_error(chips: Path, tmp_path: Path) -> None:
    assert build(tmp_path / "p.safetensors", chips, *SPLIT).exit_code == 2


def test_gsds_are_made_by_area_averaging(chips: Path, tmp_path: Path) -> None:
    out = tmp_path / "p.safetensors"
    result = build(out, chips, "--gsd", "0.5,1.0,1.25,0.2", "--glob", "ulm_2018*")
    assert result.exit_code == 0, result.output
    pack = Pack.load(out)
    assert [c.gsd_m for c in pack.meta.crops] == [0.5, 1.0, 1.25]
    assert [c.shape for c in pack.crops] == [(3, 64, 64), (3, 32, 32), (3, 25, 25)]
    mean = pack.crops[0].reshape(3, 32, 2, 32, 2).mean((2, 4))
    np.testing.assert_allclose(pack.crops[1], mean, atol=0.5)


def test_same_seed_gives_the_same_bytes_and_another_another_choice(
    chips: Path, tmp_path: Path
) -> None:
    size = 3 * 64 * 64
    packs = []
    for name, seed in (("a", 1), ("b", 1), ("c", 4), ("d", 5)):
        out = tmp_path / f"{name}.safetensors"
        result = build(out, chips, "--max-bytes", size, "--seed", seed)
        assert result.exit_code == 0, result.output
        packs.append(out.read_bytes())
        assert len(Pack.load(out).crops) == 1
    assert packs[0] == packs[1]
    sources = {
        Pack.load(tmp_path / f"{n}.safetensors").meta.crops[0].source for n in "acd"
    }
    assert len(sources) > 1


def test_crop_size_cuts_images_and_leaves_invalid_parts_out(tmp_path: Path) -> None:
    path = tmp_path / "ulm_2020_7.tif"
    write_noise(path, 1, nodata=True)
    out = tmp_path / "p.safetensors"
    result = build(out, path, "--crop-size", 32)
    assert result.exit_code == 0, result.output
    pack = Pack.load(out)
    assert {c.shape for c in pack.crops} == {(3, 32, 32)}
    names = [c.source.partition("@")[2] for c in pack.meta.crops]
    assert names == ["0,32", "32,0", "32,32"]


def test_parameters_of_the_sensor_are_all_in_the_header(
    chips: Path, tmp_path: Path
) -> None:
    out = tmp_path / "p.safetensors"
    options = ("--degradation", "sentinel2", "--params", "mtf=0.2,0.3")
    result = build(out, chips, *options, "--params", "bits=10")
    assert result.exit_code == 0, result.output
    meta = Pack.load(out).meta
    params = Sentinel2Params.from_json(meta.parameters)
    assert (params.mtf, params.bits) == ((0.2, 0.3), 10)
    assert set(meta.parameters) == set(Sentinel2Params().to_json())


@pytest.mark.parametrize("degradation", ["bicubic", "sentinel2"])
def test_a_fixed_scale_stores_lr_crops(
    chips: Path, tmp_path: Path, degradation: str
) -> None:
    out = tmp_path / "p.safetensors"
    result = build(out, chips, "--scale", "5/2", "--degradation", degradation)
    assert result.exit_code == 0, result.output
    pack = Pack.load(out)
    assert {c.shape for c in pack.crops} == {(3, 60, 60)}
    assert {c.shape for c in pack.lr} == {(3, 24, 24)}
    hr = torch.from_numpy(pack.crops[0])[None].float() / 255
    bicubic = (degrade_bicubic(hr, (24, 24))[0] * 255).round().numpy()
    is_bicubic = np.array_equal(bicubic, pack.lr[0])
    assert is_bicubic == (degradation == "bicubic")
    assert run("check", out).exit_code == 0
