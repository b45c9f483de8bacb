"""Training of optical models: all stages run, resume, and say what they score."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from rsupres.checkpoints.catalogue import load_model
from rsupres.datasets.packs import CropOrigin, Pack, PackMeta, write_pack
from rsupres.evaluation.perceptual.lpips import LpipsSqueeze
from rsupres.families.base import TAILS, SamplerOptions
from rsupres.families.optical.config import OpticalConfig
from rsupres.families.optical.network import Spread
from rsupres.training.batches import PatchSource
from rsupres.training.config import DataConfig, PatchOptions, StageConfig, TrainConfig
from rsupres.training.families.optical.losses import (
    draw_loss,
    feature_loss,
    mean_loss,
    spread_loss,
)
from rsupres.training.families.optical.training import OpticalTraining, _take, _tell
from rsupres.training.loop import train
from rsupres.training.losses import image_weights
from rsupres.training.registry import build_training
from rsupres.upscaling.array import upscale_whole

CPU = torch.device("cpu")


def _pack(folder: Path) -> Path:
    random = np.random.default_rng(0)
    crops = [
        np.kron(random.integers(40, 216, (3, 16, 16)), np.ones((8, 8))).astype(np.uint8)
        for _ in range(4)
    ]
    origins = tuple(CropOrigin("town", f"town_{k}.tif", 0.6) for k in range(4))
    path = folder / "pack.safetensors"
    write_pack(path, crops, PackMeta("train", "bicubic", origins, {}, "none", 0))
    return path


def _config(folder: Path, *stages: StageConfig) -> TrainConfig:
    data = DataConfig(
        train=(str(_pack(folder)),), lr_side=32, batch=2, scales=(2.0, 4.0)
    )
    return TrainConfig(
        "tiny", "optical", "out", data, stages, "tiny", precision="fp32", halo=4
    )


def test_all_stages_make_a_model_that_upscales(tmp_path: Path) -> None:
    config = _config(
        tmp_path,
        StageConfig("mean", 3),
        StageConfig("draw", 2),
        StageConfig("estimator", 2),
        StageConfig("spread", 2),
    )
    assert train(config, tmp_path, CPU, stop_after_s=0.0) is None
    path = train(config, tmp_path, CPU)
    assert path is not None
    for detail in (0.0, 1.0):
        model = load_model(str(path), CPU, SamplerOptions(detail=detail))
        lr = np.random.default_rng(1).random((4, 40, 40), np.float32)
        sr = upscale_whole(model, lr, Fraction(4), CPU)
        assert sr.shape == (4, 160, 160)
    assert model.spec.detail
    assert model.spec.halo == 4
    assert len(model.spec.tails) == len(TAILS)


def test_every_stage_trains_its_own_part_only(tmp_path: Path) -> None:
    training = build_training(_config(tmp_path, StageConfig("mean", 1)), tmp_path)
    assert isinstance(training, OpticalTraining)
    names = [name for name, _ in training.networks.named_parameters()]
    owners = [
        [stage for stage, plan in training.stages.items() if plan.covers(name)]
        for name in names
    ]
    assert all(len(stages) == 1 for stages in owners)


def test_half_of_the_facts_are_told(tmp_path: Path) -> None:
    source = PatchSource(
        [Pack.load(_pack(tmp_path))], PatchOptions(32, 64, fixed_scales=(4.0,)), seed=0
    )
    generator = torch.Generator().manual_seed(0)
    taken, truth = _take(source.batch(0), generator)
    assert truth.shape == (64, 3, 128, 128)
    told = _tell(taken, 4.0, generator)
    assert torch.all(told[:, 0] == 1.0)
    for flag in (1, 6, 8):
        assert 0.3 < float(told[:, flag].mean()) < 0.7
    assert not told[told[:, 1] == 0][:, 2:6].any()


def test_the_score_asks_for_the_spread_of_the_truth() -> None:
    """Draws that scatter as the truth score better than twins and than wild ones."""
    generator = torch.Generator().manual_seed(0)
    shape = (64, 1, 16, 16)
    truth = torch.randn(shape, generator=generator)
    weights = torch.ones(64, 1, 1, 1)

    def score(spread: float) -> float:
        first, second = (
            spread * torch.randn(shape, generator=generator) for _ in range(2)
        )
        return float(draw_loss(first, second, truth, weights))

    twins = draw_loss(torch.zeros(shape), torch.zeros(shape), truth, weights)
    assert score(1.0) < score(2.0)
    assert score(1.0) < float(twins)


def test_the_score_asks_for_fine_texture_beside_strong_shapes() -> None:
    """Texture of a tenth of the shapes' size is not lost among their errors."""
    generator = torch.Generator().manual_seed(0)

    def ground() -> tuple[torch.Tensor, torch.Tensor]:
        coarse = torch.randn((64, 1, 4, 4), generator=generator)
        fine = torch.randn((64, 1, 32, 32), generator=generator)
        shapes = functional.interpolate(coarse, scale_factor=8, mode="bicubic")
        return 0.05 * shapes, 0.005 * fine

    weights = torch.ones(64, 1, 1, 1)
    (shapes, texture), first, second = ground(), ground(), ground()
    truth = shapes + texture
    whole = draw_loss(sum(first), sum(second), truth, weights)  # type: ignore[arg-type]
    smooth = draw_loss(first[0], second[0], truth, weights)
    assert float(smooth - whole) > 0.04 * float(whole)


def test_the_spread_is_learned_as_mean_absolute_error_and_its_shape_noted() -> None:
    generator = torch.Generator().manual_seed(0)
    errors = 0.02 * torch.randn((8, 3, 32, 32), generator=generator)
    tries = {s: torch.full_like(errors, math.log(s)) for s in (0.012, 0.016, 0.022)}
    losses = {s: float(spread_loss(errors, logs)) for s, logs in tries.items()}
    assert min(losses, key=losses.__getitem__) == 0.016  # 0.02 * sqrt(2 / pi)
    spread = Spread(OpticalConfig(16, 2, 1, 8, spread=8))
    for _ in range(200):
        spread.note(errors, tries[0.016])
    assert float(spread.ratio) == pytest.approx(0.02 / 0.016, rel=0.02)
    normal = [0.674, 1.282, 1.645, 1.960, 2.576]
    assert spread.tails.tolist() == pytest.approx(normal, rel=0.03)


def test_the_score_of_features_asks_for_the_spread_of_the_truth() -> None:
    generator = torch.Generator().manual_seed(0)
    truth, *draws = (torch.randn((32, 4, 8, 8), generator=generator) for _ in range(3))
    weights = torch.ones(32, 1, 1, 1)

    def score(spread: float) -> float:
        first, second = (spread * draw for draw in draws)
        return float(feature_loss([first], [second], [truth], weights))

    assert score(1.0) < min(score(0.0), score(2.0))


def test_weighted_maps_are_as_far_apart_as_lpips_says() -> None:
    torch.manual_seed(0)
    module = LpipsSqueeze().eval()
    for head in module.heads:
        torch.nn.init.uniform_(head)
    first, second = torch.rand((2, 1, 3, 40, 40)) * 2 - 1
    with torch.no_grad():
        pairs = zip(module.maps(first), module.maps(second), strict=True)
        distance = sum((a - b).square().sum(1).mean() for a, b in pairs)
        assert float(distance) == pytest.approx(float(module(first, second)), rel=1e-4)


def test_flat_images_count_as_much_as_rich_ones() -> None:
    truth = torch.zeros(2, 3, 8, 8)
    bicubic = torch.stack([torch.full((3, 8, 8), 0.01), torch.full((3, 8, 8), 0.1)])
    weights = image_weights(bicubic, truth)
    assert float(weights.mean()) == pytest.approx(1.0)
    assert float(weights[0]) > 2 * float(weights[1])
    assert float(mean_loss(truth, truth, weights)) == 0.0
