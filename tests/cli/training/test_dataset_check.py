"""`rsupres dataset check`: faulty packs, repeats, and places in two splits."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rsupres.datasets.packs import CropOrigin, PackMeta, write_pack
from tests.cli.training.chips import crop, run


def make_pack(path: Path, hr: list[np.ndarray], **changes: object) -> None:
    fields: dict[str, object] = {
        "split": "train",
        "degradation": "bicubic",
        "crops": tuple(CropOrigin("ulm", f"{k}.tif", 0.6) for k in range(len(hr))),
    }
    write_pack(path, hr, PackMeta(**(fields | changes)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: p.write_bytes(b"x" * 99), "damaged"),
        (lambda p: make_pack(p, [crop(0)[:, :20]]), "too few"),
        (lambda p: make_pack(p, [crop(0) * 0]), "single colour"),
        (lambda p: make_pack(p, [crop(0).astype(np.int16)]), "not uint8"),
        (lambda p: make_pack(p, [crop(0)], split="test"), "split"),
        (lambda p: make_pack(p, []), "0 crops"),
        (
            lambda p: make_pack(
                p, [crop(0)], degradation="sentinel2", parameters={"blur": 1}
            ),
            "blur",
        ),
    ],
)
def test_check_refuses_faulty_packs(
    tmp_path: Path, make: Callable[[Path], object], message: str
) -> None:
    path = tmp_path / "p.safetensors"
    make(path)
    result = run("check", path)
    assert result.exit_code == 3, result.output
    assert message in result.stderr


def test_check_counts_repeated_crops(tmp_path: Path) -> None:
    path = tmp_path / "p.safetensors"
    make_pack(path, [crop(0), crop(1), crop(0), crop(0)])
    result = run("check", path, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["repeats"] == 2


def test_check_finds_crops_and_places_in_both_splits(tmp_path: Path) -> None:
    train, validation = tmp_path / "t.safetensors", tmp_path / "v.safetensors"
    make_pack(train, [crop(0), crop(1)])
    make_pack(validation, [crop(2)], split="validation")
    result = run("check", train, validation)
    assert result.exit_code == 3
    assert "'ulm' is in both" in result.stderr
    bath = (CropOrigin("bath", "0.tif", 0.6),)
    make_pack(validation, [crop(1)], split="validation", crops=bath)
    result = run("check", train, validation)
    assert result.exit_code == 3
    assert "1 crops are in both" in result.stderr
    make_pack(validation, [crop(2)], split="validation", crops=bath)
    assert run("check", train, validation).exit_code == 0
