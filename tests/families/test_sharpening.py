"""Bands of 20 m on the grid of 10 m: levels, windows, checkpoints, what ships."""

from __future__ import annotations

from dataclasses import asdict
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from rsupres.checkpoints.catalogue import load_model
from rsupres.checkpoints.file import write_checkpoint
from rsupres.degradations.optics import gaussian_of, sample, sampling_matrix
from rsupres.errors import ConditionError
from rsupres.families.base import SamplerOptions
from rsupres.families.sharpening import (
    Levels,
    Sharpener,
    SharpeningConfig,
    SharpeningNetwork,
    make_spec,
)
from rsupres.upscaling.job import UpscaleJob
from rsupres.upscaling.pipeline import upscale_scene
from tests.helpers import make_scene

CPU = torch.device("cpu")
CONFIG = SharpeningConfig(("f1", "f2"), ("c1",), channels=8, blocks=1)


def make_sharpener() -> Sharpener:
    torch.manual_seed(0)
    network = SharpeningNetwork(CONFIG).eval()
    torch.nn.init.normal_(network.conv_out.weight, std=0.1)
    return Sharpener(CONFIG, network, CPU)


def random_bands(count: int, side: int) -> np.ndarray:
    return np.random.default_rng(0).normal(3000, 500, (count, side, side)).astype("f4")


def test_a_window_with_its_halo_is_a_cut_of_the_whole() -> None:
    sharpener = make_sharpener()
    coarse, fine = random_bands(1, 30), random_bands(2, 60)
    levels = Levels.of(coarse), Levels.of(fine)
    whole = sharpener.sharpen(coarse, fine, levels)
    part = sharpener.sharpen(coarse[:, 4:24, 6:26], fine[:, 8:48, 12:52], levels)
    halo = sharpener.halo
    inner = slice(2 * halo, 40 - 2 * halo)
    cut = whole[:, 8:48, 12:52][:, inner, inner]
    np.testing.assert_allclose(part[:, inner, inner], cut, rtol=1e-4)
    assert whole.shape == (1, 60, 60)
    assert whole.std() > 50


def test_levels_follow_units_and_leave_out_extremes_and_gaps() -> None:
    values = np.concatenate([np.linspace(100, 200, 1001), [np.nan, 65535]])[None]
    levels = Levels.of(values.astype(np.float32))
    assert levels.low[0] == pytest.approx(102, abs=0.2)
    assert levels.span[0] == pytest.approx(96, abs=0.4)
    bands = random_bands(1, 8)
    back = levels.from_unit(levels.to_unit(bands))
    np.testing.assert_allclose(back, bands, rtol=1e-5)
    flat = Levels.of(np.full((1, 9), 7.0, np.float32))
    assert np.isfinite(flat.to_unit(np.full((1, 2, 2), 7.0, np.float32))).all()
    assert Levels.of(np.full((2, 9), np.nan, np.float32)).span.tolist() == [1, 1]


def test_a_checkpoint_comes_back_and_upscales_no_scene(tmp_path: Path) -> None:
    sharpener = make_sharpener()
    path = tmp_path / "own.safetensors"
    architecture = {
        k: list(v) if isinstance(v, tuple) else v for k, v in asdict(CONFIG).items()
    }
    tensors = dict(sharpener.network.state_dict())
    write_checkpoint(path, tensors, make_spec(CONFIG), architecture, "test")
    again = load_model(str(path), CPU, SamplerOptions())
    assert isinstance(again, Sharpener)
    coarse, fine = random_bands(1, 8), random_bands(2, 16)
    levels = Levels.of(coarse), Levels.of(fine)
    wanted = sharpener.sharpen(coarse, fine, levels)
    np.testing.assert_allclose(again.sharpen(coarse, fine, levels), wanted, rtol=1e-5)
    scene = make_scene(tmp_path / "s.tif", pixels=random_bands(1, 20).astype("u2"))
    job = UpscaleJob(
        scenes=(str(scene),),
        output=tmp_path / "o.tif",
        model=str(path),
        scale=Fraction(2),
    )
    with pytest.raises(ConditionError, match="needs the 10 m bands of a Sentinel-2"):
        upscale_scene(job)


def test_the_shipped_network_draws_edges_where_the_fine_bands_have_them() -> None:
    """Fields of straight borders, seen by four sharp bands and six blurred ones."""
    sharpener = load_model("s2-bands-small", CPU, SamplerOptions())
    assert isinstance(sharpener, Sharpener)
    random = np.random.default_rng(1)
    fields = np.kron(random.integers(0, 6, (12, 12)), np.ones((8, 8), int))
    tones = random.uniform(500, 4000, 6) * random.uniform(0.5, 1.5, (10, 1))
    truth = np.stack([tone[fields] for tone in tones]).astype(np.float32)
    rows = sampling_matrix(48, 96, gaussian_of(0.3))
    coarse = sample(truth[4:], rows, rows)
    levels = Levels.of(coarse), Levels.of(truth[:4])
    made = sharpener.sharpen(coarse, truth[:4], levels)
    plain = functional.interpolate(
        torch.from_numpy(coarse)[None], scale_factor=2, mode="bicubic"
    )[0].numpy()
    errors = [np.sqrt(np.square(image - truth[4:]).mean()) for image in (made, plain)]
    assert errors[0] < 0.75 * errors[1]
