"""Weights are verified and named when missing; the networks follow the papers."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from rsupres.errors import CheckpointError
from rsupres.evaluation.perceptual import weights
from rsupres.evaluation.perceptual.dists import Dists, dists_distance
from rsupres.evaluation.perceptual.features import alex_features, vgg_layers
from rsupres.evaluation.perceptual.inception import Inception
from rsupres.evaluation.perceptual.lpips import FEATURES_FILE, HEADS_FILE
from rsupres.evaluation.perceptual.musiq import Musiq
from rsupres.evaluation.perceptual.weights import find_weights, load_measures
from rsupres.raster.files import file_sha256
from tests.evaluation.clip_file import clip_tensors, write_clip
from tests.helpers import shared_data
from tests.pictures import texture, write_random_weights

DISTANCES = ("lpips_squeeze", "lpips_alex", "lpips_vgg", "dists")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of all measures, written once."""
    below = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    write_random_weights(below)
    for name, layers in (
        ("alexnet-owt-7be5be79.pth", alex_features().features),
        ("vgg16-397923af.pth", vgg_layers()),
    ):
        for layer in layers:
            if isinstance(layer, torch.nn.Conv2d):
                torch.nn.init.kaiming_normal_(layer.weight)  # keeps deep maps alive
        stored = {f"features.{k}": v for k, v in layers.state_dict().items()}
        torch.save(stored | {"classifier.1.weight": torch.zeros(1)}, below / name)
    sizes = {
        "alex": (64, 192, 384, 256, 256),
        "vgg": (64, 128, 256, 512, 512),
        "squeeze": (64, 128, 256, 384, 384, 512, 512),
    }
    for kind, channels in sizes.items():
        heads = {
            f"lin{k}.model.1.weight": torch.rand(1, n, 1, 1) / n
            for k, n in enumerate(channels)
        }
        torch.save(heads, below / f"lpips_lin_{kind}_v0.1.pth")
    shares = {name: torch.rand(1, 1475, 1, 1) for name in ("alpha", "beta")}
    torch.save(shares, below / "dists_alpha_beta.pt")
    write_clip(below / "ViT-B-16.pt", clip_tensors())
    mean, covariance = np.zeros((1, 36)), np.eye(36)
    np.savez(
        below / "niqe_pris_params.npz", mu_pris_param=mean, cov_pris_param=covariance
    )
    with torch.device("meta"):
        musiq = Musiq().state_dict()
        layers = Inception().state_dict()
    constant = torch.full((1,), 0.01)  # each tensor of the file is a view of it
    torch.save(
        {name: constant.expand(value.shape) for name, value in musiq.items()},
        below / "musiq_koniq_ckpt-e95806b9.pth",
    )
    inception = {n: torch.zeros(v.shape, dtype=v.dtype) for n, v in layers.items()}
    torch.save(
        inception | {"fc.weight": torch.zeros(1)},
        below / "pt_inception-2015-12-05-6726825d.pth",
    )
    return below


@pytest.fixture
def folder(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of those files, whose hashes are taken for good."""
    below = tmp_path / "weights" / "deep"
    shutil.copytree(made, below, copy_function=os.link)
    known = {
        figure: tuple(f._replace(sha256=file_sha256(below / f.name)) for f in files)
        for figure, files in weights.FILES.items()
    }
    monkeypatch.setattr(weights, "FILES", known)
    monkeypatch.delenv("RSUPRES_LPIPS", raising=False)
    return tmp_path / "weights"


def test_every_measure_is_zero_for_equal_pictures_and_rises_with_noise(
    folder: Path,
) -> None:
    measures = load_measures(folder, None, "cpu").measures
    assert set(measures) == {*DISTANCES, "clip_iqa", "musiq", "niqe"}
    hr, valid = texture(64, 70), np.ones((64, 70), bool)
    noise = np.random.default_rng(0).normal(0, 1, hr.shape)
    for measure in (measures[name] for name in DISTANCES):
        assert measure(hr, hr, valid) == pytest.approx(0.0, abs=1e-5)
        near, far = (measure(hr + k * noise, hr, valid) for k in (0.02, 0.2))
        assert 0 < near < far


@pytest.mark.slow
def test_the_environment_names_the_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load_measures(None, None, "cpu") == ({}, None)
    monkeypatch.setenv(weights.ENVIRONMENT, str(folder))
    found = load_measures(None, None, "cpu")
    assert len(found.measures) == 7
    assert found.features is not None


def test_what_is_missing_is_named_in_one_line_with_its_source(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "deep" / "alexnet-owt-7be5be79.pth").unlink()
    (folder / "deep" / "lpips_lin_alex_v0.1.pth").unlink()
    (folder / "deep" / "musiq_koniq_ckpt-e95806b9.pth").unlink()
    (folder / "deep" / "pt_inception-2015-12-05-6726825d.pth").unlink()
    with caplog.at_level(logging.WARNING):
        found = find_weights(folder)
    assert set(found) == set(weights.FILES) - {"lpips_alex", "musiq", "fid"}
    line, musiq, of_sets = [record.getMessage() for record in caplog.records]
    assert line.startswith("lpips_alex not measured: ")
    named = "musiq_koniq_ckpt-e95806b9.pth (MUSIQ for KonIQ-10k, of IQA-PyTorch)"
    assert musiq.startswith("musiq not measured: ")
    assert musiq.endswith(f"{named}.")
    assert of_sets.startswith("FID and KID not measured: ")
    assert "6726825d.pth (Inception v3 for FID, of pytorch-fid)" in of_sets
    assert "alexnet-owt-7be5be79.pth (torchvision's AlexNet)" in line
    assert "lpips_lin_alex_v0.1.pth (LPIPS v0.1 of its authors)" in line


def test_a_file_that_is_not_the_published_one_is_refused(folder: Path) -> None:
    path = folder / "deep" / "dists_alpha_beta.pt"
    stored = path.read_bytes()
    path.unlink()  # a name of the file that all tests share
    path.write_bytes(stored + b" ")
    with pytest.raises(CheckpointError, match="SHA-256 begins with") as raised:
        load_measures(folder, None, "cpu")
    assert raised.value.argument == "metric_weights"


def test_a_folder_without_any_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds the weights of no measure"):
        find_weights(tmp_path)


def test_published_files_are_known_by_their_hashes() -> None:
    metrics = shared_data("metrics")
    found = find_weights(metrics)
    assert [path.name for path in found["lpips_squeeze"]] == [FEATURES_FILE, HEADS_FILE]
    for files in weights.FILES.values():
        for file in files:
            if (path := metrics / file.name).exists():
                assert file_sha256(path) == file.sha256


def test_dists_compares_structure_and_texture_as_the_paper_defines_them() -> None:
    torch.manual_seed(0)
    module = Dists().requires_grad_(False)
    module.alpha.zero_()
    module.beta.zero_()
    module.alpha[:, :3] = 1.0  # texture of the image itself: its means alone
    flat, other = torch.full((1, 3, 32, 32), 0.2), torch.full((1, 3, 32, 32), 0.6)
    wanted = 1 - (2 * 0.2 * 0.6 + 1e-6) / (0.04 + 0.36 + 1e-6)
    assert float(module(flat, other)) == pytest.approx(wanted, rel=1e-5)
    module.alpha.zero_()
    module.beta[:, :3] = 1.0  # structure: the correlation, 0 of opposite waves
    wave = torch.sin(torch.arange(32.0)).expand(1, 3, 32, 32)
    assert float(module(0.5 + wave / 4, 0.5 - wave / 4)) == pytest.approx(2, abs=1e-3)


def test_dists_pools_by_the_root_of_weighted_squares() -> None:
    module = Dists()
    x = torch.rand(1, 2, 8, 8)
    pooled = module._pool(x)
    kernel = np.outer([0.25, 0.5, 0.25], [0.25, 0.5, 0.25])
    patch = (x[0, 1, 1:4, 3:6].numpy() ** 2 * kernel).sum() ** 0.5
    assert pooled.shape == (1, 2, 4, 4)
    assert float(pooled[0, 1, 1, 2]) == pytest.approx(float(patch), rel=1e-5)


def test_dists_leaves_blocks_with_invalid_pixels_out() -> None:
    module = Dists().requires_grad_(False)
    hr, valid = texture(40, 40), np.ones((40, 40), bool)
    valid[3, 3] = False
    assert np.isnan(dists_distance(module, hr, hr, valid))
