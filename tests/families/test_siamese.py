"""The network that finds what was built: windows, missing bands, checkpoints."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from rsupres.checkpoints.catalogue import load_model
from rsupres.checkpoints.file import write_checkpoint
from rsupres.families.base import SamplerOptions
from rsupres.families.siamese import (
    Siamese,
    SiameseConfig,
    SiameseNetwork,
    make_spec,
    with_presence,
)
from rsupres.families.storage import config_to_json

CPU = torch.device("cpu")
CONFIG = SiameseConfig(channels=8)


def make_detector() -> Siamese:
    torch.manual_seed(0)
    return Siamese(CONFIG, SiameseNetwork(CONFIG).eval(), CPU)


def two_dates(side: int = 48) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(9, side, side)).astype("f4")


def test_a_window_with_its_halo_is_a_cut_of_the_whole() -> None:
    detector, inputs = make_detector(), two_dates()
    halo = detector.halo
    whole = detector.detect(inputs)
    part = detector.detect(inputs[:, 10:40, 8:44])[halo:-halo, halo:-halo]
    np.testing.assert_allclose(
        part, whole[10 + halo : 40 - halo, 8 + halo : 44 - halo], atol=1e-6
    )
    assert halo == 7
    assert whole.std() > 1e-4


def test_the_order_of_dates_matters_and_a_missing_band_is_told_from_zeros() -> None:
    detector, inputs = make_detector(), two_dates()
    swapped = np.concatenate([inputs[4:8], inputs[:4], inputs[8:]])
    assert np.abs(detector.detect(inputs) - detector.detect(swapped)).max() > 1e-4
    zeros, missing = inputs.copy(), inputs.copy()
    zeros[[3, 7]], missing[[3, 7]] = 0.0, np.nan
    assert np.isfinite(detector.detect(missing)).all()
    assert np.abs(detector.detect(zeros) - detector.detect(missing)).max() > 1e-5
    marked = with_presence(torch.from_numpy(missing[None, :4]))
    assert marked[0, 4:].mean((1, 2)).tolist() == [1, 1, 1, 0]


def test_a_checkpoint_gives_the_same_network_back(tmp_path: Path) -> None:
    detector = make_detector()
    path = tmp_path / "detector.safetensors"
    tensors = dict(detector.network.state_dict())
    write_checkpoint(path, tensors, make_spec(CONFIG), config_to_json(CONFIG), "test")
    again = load_model(str(path), CPU, SamplerOptions())
    assert isinstance(again, Siamese)
    assert again.config == CONFIG
    np.testing.assert_allclose(
        again.detect(two_dates()), detector.detect(two_dates()), atol=1e-6
    )
