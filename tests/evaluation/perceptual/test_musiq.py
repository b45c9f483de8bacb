"""MUSIQ computes what IQA-PyTorch's network computes with the same weights."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from rsupres.errors import CheckpointError
from rsupres.evaluation.perceptual import musiq
from rsupres.evaluation.perceptual.musiq import Musiq, musiq_quality
from tests.parity.golden import name_seeded_tensor

# Scores of pyiqa 0.1.16 (pyiqa/archs/musiq_arch.py, MUSIQ(num_layers=2)), filled with
# `name_seeded_tensor`, for `waves(height, width)`. That package is not installed for
# tests: its licence is for noncommercial use, and it needs 23 other packages.
PYIQA = {
    (40, 90): -0.2359626442193985,
    (300, 410): 0.02598128467798233,
    (500, 333): -0.42560091614723206,
}


def waves(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack(
        [
            0.5
            + 0.3 * np.sin(0.11 * x + 0.02 * k * y * (1 + k)) * np.cos(0.07 * y + k)
            + 0.15 * np.sin(1.7 * x + 0.9 * y + k)
            for k in range(3)
        ]
    ).astype(np.float32)


@pytest.fixture(scope="module")
def network() -> Musiq:
    module = Musiq(n_layers=2)
    stored = {
        name: torch.from_numpy(name_seeded_tensor(name, value.shape))
        for name, value in module.state_dict().items()
    }
    module.load_state_dict(stored)
    return module.eval()


@pytest.mark.parametrize(
    "size",
    [
        pytest.param(size, marks=() if k == 0 else pytest.mark.slow)
        for k, size in enumerate(PYIQA)
    ],
)
def test_scores_are_those_of_iqa_pytorch(network: Musiq, size: tuple[int, int]) -> None:
    score = musiq_quality(network, waves(*size), np.ones(size, bool))
    assert score == pytest.approx(PYIQA[size], abs=2e-6)  # sums in another order


def test_the_network_has_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        stored = Musiq().state_dict()
    assert sum(value.numel() for value in stored.values()) == 27_125_825
    assert len(stored) == 248


def test_large_pictures_are_the_mean_of_blocks_that_are_valid_whole(
    network: Musiq, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture, valid = waves(60, 100), np.ones((60, 100), bool)
    monkeypatch.setattr(musiq, "MAX_BLOCK", 60)
    halves = [
        musiq_quality(network, half, np.ones((60, 50), bool))
        for half in (picture[:, :, :50], picture[:, :, 50:])
    ]
    assert halves[0] != halves[1]
    both = musiq_quality(network, picture, valid)
    assert both == pytest.approx(np.mean(halves), abs=1e-6)
    valid[3, 3] = False
    left_out = musiq_quality(network, picture, valid)
    assert left_out == pytest.approx(halves[1], abs=1e-6)
    valid[3, 80] = False
    assert math.isnan(musiq_quality(network, picture, valid))


def test_a_file_of_another_network_is_refused() -> None:
    with torch.device("meta"):
        stored = Musiq().state_dict()
    stored.pop("head.bias")
    with pytest.raises(CheckpointError, match="other layers"):
        Musiq.load(Path("other.pth"), stored)
