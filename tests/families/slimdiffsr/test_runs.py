"""SlimDiffSR through the command: sizes, scales, broken weights, precision."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from click.testing import CliRunner, Result

from rsupres.checkpoints.file import write_checkpoint
from rsupres.cli import main
from rsupres.families.slimdiffsr.resolver import (
    Config,
    architecture_to_json,
    make_network,
    make_spec,
)
from tests.families.slimdiffsr.small_models import SMALL, each_config, mini_config
from tests.helpers import make_scene


def weights(path: Path, config: Config, **changed: float) -> Path:
    """Write a checkpoint; tensors named in `changed` are filled with a value."""
    torch.manual_seed(0)
    tensors = dict(make_network(config).state_dict())
    for name, value in changed.items():
        tensors[name] = torch.full_like(tensors[name], value)
    spec = make_spec(config, gsd=None)
    write_checkpoint(path, tensors, spec, architecture_to_json(config), "test")
    return path


def upscale(scene: Path, model: Path, *more: str) -> tuple[Result, Path]:
    out = scene.with_name("out.tif")
    fixed = ("--scale", "4", "--driver", "GTiff", "--overwrite", *more)
    given = ["upscale", str(scene), str(out), "--model", str(model), *fixed]
    return CliRunner().invoke(main, given), out


@mini_config
@pytest.mark.parametrize(
    ("size", "sampler"),
    [
        ((1, 1), "scene"),
        ((3, 40), "alone"),
        pytest.param((70, 5), "scene", marks=pytest.mark.slow),
    ],
)
def test_scenes_smaller_than_the_padding_are_upscaled(
    tmp_path: Path, config: Config, sampler: str, size: tuple[int, int]
) -> None:
    """The released script fails below 33 pixels; a halo is larger than these."""
    model = weights(tmp_path / "m.safetensors", config)
    scene = make_scene(tmp_path / "in.tif", *size)
    result, out = upscale(scene, model, "--sampler", sampler)
    assert result.exit_code == 0, result.output
    with rasterio.open(out) as sr, rasterio.open(scene) as lr:
        assert (sr.height, sr.width) == (4 * size[0], 4 * size[1])
        assert sr.bounds == lr.bounds
        assert (sr.read() > 0).all()


@each_config
def test_a_scale_that_the_weights_are_not_for_is_told(
    tmp_path: Path, config: Config
) -> None:
    model = weights(tmp_path / "m.safetensors", config)
    result, out = upscale(make_scene(tmp_path / "in.tif"), model, "--scale", "8")
    assert result.exit_code == 3
    assert "model m offers 4" in result.output
    assert not out.exists()


@each_config
@pytest.mark.parametrize(
    ("sampler", "precision"),
    [pytest.param("scene", "fp32", marks=pytest.mark.slow), ("alone", "bf16")],
)
def test_weights_that_are_no_numbers_write_nothing(
    tmp_path: Path, config: Config, sampler: str, precision: str
) -> None:
    name = "unet.mid_block.mid_block.conv1.low_branch.0.weight"
    model = weights(tmp_path / "m.safetensors", config, **{name: math.nan})
    scene = make_scene(tmp_path / "in.tif")
    result, out = upscale(scene, model, "--sampler", sampler, "--precision", precision)
    assert result.exit_code == 7, result.output
    assert "NaN" in result.output
    assert not out.exists()


@pytest.mark.slow
@pytest.mark.parametrize("has_products", [False, True])
def test_half_precision_is_chosen_by_its_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_products: bool
) -> None:
    """`auto` is bf16 on processors that multiply it, else fp32; these differ little."""
    monkeypatch.setattr(
        "rsupres.upscaling.preparation.devices.multiplies_bfloat16",
        lambda: has_products,
    )
    model = weights(tmp_path / "m.safetensors", SMALL)
    scene = make_scene(tmp_path / "in.tif", 40, 40)
    made = {}
    for precision in ("auto", "fp32", "bf16"):
        result, out = upscale(scene, model, "--device", "cpu", "--precision", precision)
        assert result.exit_code == 0, result.output
        with rasterio.open(out) as sr:
            made[precision] = sr.read().astype(np.float64)
    chosen = "bf16" if has_products else "fp32"
    np.testing.assert_array_equal(made["auto"], made[chosen])
    difference = np.abs(made["bf16"] - made["fp32"])
    contrast = np.ptp(made["fp32"])
    assert 0.0 < difference.max() <= 0.05 * contrast
