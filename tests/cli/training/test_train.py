"""`rsupres train` on a machine with torch and packs, and nothing to read rasters."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from rsupres.cli import main
from rsupres.datasets.packs import CropOrigin, PackMeta, write_pack

ROOT = Path(__file__).parents[3]
WITHOUT = (
    *("rasterio", "geopandas", "shapely", "pyogrio", "pyproj", "osmnx"),
    *("diffusers", "affine", "PIL"),
)
CONFIG = """
name = "tiny"
family = "e2diffsr"
out = "out"
precision = "fp32"
threads = 1
overrides = { enc_base = 8, sr_channels = 16, imdbs = 1, csum_channels = 16 }
[data]
train = ["p.safetensors"]
validation = ["p.safetensors"]
lr_side = 12
batch = 1
[[stage]]
name = "autoencoder"
iterations = 2
[[stage]]
name = "closing"
iterations = 1
"""
BLOCKED = f"""
import runpy, sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {WITHOUT}:
            raise ImportError(f"{{name}} is not on this machine")
sys.meta_path.insert(0, Block())
sys.argv = ["rsupres", *sys.argv[1:]]
runpy.run_module("rsupres", run_name="__main__")
"""


def _write(folder: Path) -> Path:
    crops = [np.random.default_rng(0).integers(0, 256, (3, 48, 48), np.uint8)]
    meta = PackMeta("train", "bicubic", (CropOrigin("a", "a.tif", 1.0),))
    write_pack(folder / "p.safetensors", crops, meta)
    path = folder / "c.toml"
    path.write_text(CONFIG)
    return path


@pytest.mark.slow
def test_training_from_packs_needs_no_raster_libraries(tmp_path: Path) -> None:
    process = subprocess.run(
        [sys.executable, "-c", BLOCKED, "train", str(_write(tmp_path)), "--debug"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert process.returncode == 0, process.stderr
    assert (tmp_path / "out/tiny.safetensors").is_file()
    assert "Pillow is not installed" in process.stderr


@pytest.mark.slow
def test_the_block_of_that_test_works() -> None:
    process = subprocess.run(
        [sys.executable, "-c", BLOCKED, "plan", "a.tif", "--scale", "2"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "rasterio is not on this machine" in process.stderr


def test_an_unknown_stage_exits_3_and_names_the_known(tmp_path: Path) -> None:
    path = _write(tmp_path)
    path.write_text(CONFIG.replace('"closing"', '"distil"'))
    result = CliRunner().invoke(main, ["train", str(path)])
    assert result.exit_code == 3
    assert "stage 2: family 'e2diffsr' has no stage 'distil'; known: autoenc" in (
        result.output
    )


def test_a_finished_training_leaves_an_edited_card_alone(tmp_path: Path) -> None:
    config = str(_write(tmp_path))
    assert CliRunner().invoke(main, ["train", config]).exit_code == 0
    card = tmp_path / "out/tiny.toml"
    edited = card.read_text().replace('licence = ""', 'licence = "CC0"') + "# mine\n"
    card.write_text(edited)
    assert CliRunner().invoke(main, ["train", config]).exit_code == 0
    assert card.read_text() == edited
    stale = re.sub("[0-9a-f]{64}", "0" * 64, edited)
    card.write_text(stale)
    assert CliRunner().invoke(main, ["train", config]).exit_code == 0
    assert card.read_text() == edited


def test_training_writes_onto_none_of_its_inputs(tmp_path: Path) -> None:
    path = _write(tmp_path)
    same = CONFIG.replace('"out"', '"."')
    for name, text in (
        ("tiny.toml", same),
        ("c.toml", same.replace('name = "tiny"', 'name = "p"', 1)),
    ):
        path = tmp_path / name
        path.write_text(text)
        pack = (tmp_path / "p.safetensors").read_bytes()
        result = CliRunner().invoke(main, ["train", str(path)])
        assert result.exit_code == 2, result.output
        assert path.read_text() == text
        assert (tmp_path / "p.safetensors").read_bytes() == pack
