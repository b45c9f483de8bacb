"""Measures without a truth, and those of whole sets, follow their definitions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import linalg, ndimage
from torch import Tensor

from rsupres.datasets.chips import Chip
from rsupres.errors import CheckpointError
from rsupres.evaluation.candidates import bicubic_candidate
from rsupres.evaluation.images import bicubic_degradation
from rsupres.evaluation.measures import niqe as niqe_module
from rsupres.evaluation.measures.niqe import (
    Sharp,
    aerial_model,
    block_features,
    fit,
    niqe,
    read_model,
)
from rsupres.evaluation.perceptual.clip_iqa import (
    BAD,
    GOOD,
    ClipIqa,
    read_clip,
    to_side,
)
from rsupres.evaluation.perceptual.inception import Inception, features_of
from rsupres.evaluation.perceptual.inception import to_side as to_299
from rsupres.evaluation.perceptual.sets import Sets, set_distances
from rsupres.evaluation.report import mean_rows
from rsupres.evaluation.testset import run_testset
from tests.evaluation.clip_file import WIDTH, clip_tensors, write_clip
from tests.helpers import shared_data
from tests.pictures import texture

HEAD = Path("clip.pt")


def attended(x: Tensor, stored: Mapping[str, Tensor], start: str, mask: bool) -> Tensor:
    """One block of CLIP as its paper and GPT-2's describe it, step by step."""

    def normed(name: str, values: Tensor) -> Tensor:
        weight, bias = (stored[f"{start}.{name}.{k}"] for k in ("weight", "bias"))
        return F.layer_norm(values, (WIDTH,), weight, bias)

    heads, length = WIDTH // 64, len(x)
    hidden = torch.full((length, length), -math.inf).triu(1) if mask else None
    y = normed("ln_1", x)
    weight, bias = (stored[f"{start}.attn.in_proj_{k}"] for k in ("weight", "bias"))
    q, k, v = (y @ weight.T + bias).view(length, 3, heads, 64).permute(1, 2, 0, 3)
    rated = q @ k.mT / 8 + (0 if hidden is None else hidden)
    y = (rated.softmax(2) @ v).transpose(0, 1).flatten(1)
    out, shift = (stored[f"{start}.attn.out_proj.{k}"] for k in ("weight", "bias"))
    y = y @ out.T + shift
    x = x + y
    y = normed("ln_2", x) @ stored[f"{start}.mlp.c_fc.weight"].T
    y = y + stored[f"{start}.mlp.c_fc.bias"]
    y = y * torch.sigmoid(1.702 * y)
    y = y @ stored[f"{start}.mlp.c_proj.weight"].T + stored[f"{start}.mlp.c_proj.bias"]
    return x + y


def text_vector(stored: Mapping[str, Tensor], tokens: tuple[int, ...]) -> Tensor:
    x = stored["token_embedding.weight"][list(tokens)]
    x = x + stored["positional_embedding"][: len(tokens)]
    for number in range(2):
        x = attended(x, stored, f"transformer.resblocks.{number}", True)
    x = F.layer_norm(x, (WIDTH,), stored["ln_final.weight"], stored["ln_final.bias"])[
        -1
    ]
    return F.normalize(x @ stored["text_projection"], dim=0)


def picture_vector(stored: Mapping[str, Tensor], pixels: Tensor) -> Tensor:
    x = F.conv2d(pixels[None], stored["visual.conv1.weight"], stride=8)[0]
    x = torch.cat([stored["visual.class_embedding"][None], x.flatten(1).T])
    x = x + stored["visual.positional_embedding"]
    pre = (stored["visual.ln_pre.weight"], stored["visual.ln_pre.bias"])
    x = F.layer_norm(x, (WIDTH,), *pre)
    for number in range(2):
        x = attended(x, stored, f"visual.transformer.resblocks.{number}", False)
    post = (stored["visual.ln_post.weight"], stored["visual.ln_post.bias"])
    seen = F.layer_norm(x[0], (WIDTH,), *post) @ stored["visual.proj"]
    return F.normalize(seen, dim=0)


def test_clip_of_openai_s_file_computes_what_its_layers_say(tmp_path: Path) -> None:
    write_clip(tmp_path / "ViT-B-16.pt", clip_tensors())
    stored = read_clip(tmp_path / "ViT-B-16.pt")
    sr, valid = texture(24, 30), np.ones((24, 30), bool)
    measured = ClipIqa(HEAD, stored, "cpu")(sr, sr, valid)
    mean, std = (
        torch.tensor(v).view(3, 1, 1)
        for v in (
            (0.48145466, 0.4578275, 0.40821073),
            (0.26862954, 0.26130258, 0.27577711),
        )
    )
    pixels = (torch.from_numpy(to_side(sr, 24)).float() - mean) / std
    looks = picture_vector(stored, pixels)
    good, bad = (float(looks @ text_vector(stored, t)) for t in (GOOD, BAD))
    wanted = 1 / (1 + math.exp(100 * (bad - good)))
    assert measured == pytest.approx(wanted, abs=2e-3)
    assert 0.001 < measured < 0.999  # else the comparison would say little


def test_clip_sees_the_middle_and_refuses_what_is_no_clip(tmp_path: Path) -> None:
    sr = texture(24, 48)
    np.testing.assert_allclose(to_side(sr, 24), np.clip(sr[:, :, 12:36], 0, 1))
    stored = clip_tensors()
    hidden = np.ones((24, 48), bool)
    hidden[0, 0] = False
    assert math.isnan(ClipIqa(HEAD, stored, "cpu")(sr, sr, hidden))
    stored.pop("visual.transformer.resblocks.1.ln_2.bias")
    with pytest.raises(CheckpointError, match="other layers"):
        ClipIqa(HEAD, stored, "cpu")
    (tmp_path / "no.pt").write_bytes(b"no archive")
    with pytest.raises(CheckpointError, match="no TorchScript"):
        read_clip(tmp_path / "no.pt")


def test_niqe_fits_the_shape_that_values_were_drawn_from() -> None:
    rng = np.random.default_rng(0)
    sizes = rng.standard_gamma(1 / 1.5, 200_000) ** (1 / 1.5)
    draws = rng.choice((-1, 1), 200_000) * sizes
    uneven = np.where(draws < 0, 2 * draws, draws)
    # A density with other widths on both sides holds values by those widths.
    share = np.where(uneven < 0, 1, 0.5)
    uneven = uneven[np.random.default_rng(0).random(len(uneven)) < share]
    shape, left, right = niqe_module._fit_shape(uneven)
    assert (shape, left, right) == pytest.approx((1.5, 2.0, 1.0), rel=0.02)


def test_niqe_is_low_for_sharp_pictures_and_rises_with_blur_and_noise() -> None:
    rng = np.random.default_rng(1)
    size = (3, 200, 300)
    drawn = [
        ndimage.gaussian_filter(rng.normal(0, 0.6, size), (0, 1, 1)) for _ in range(6)
    ]
    sharp = [np.clip(0.5 + picture, 0, 1) for picture in drawn]
    model = fit(sharp[:5])
    valid = np.ones(size[1:], bool)
    kept = niqe(sharp[5], valid, model)
    blurred = niqe(ndimage.gaussian_filter(sharp[5], (0, 2, 2)), valid, model)
    noisy = niqe(np.clip(sharp[5] + rng.normal(0, 0.2, size), 0, 1), valid, model)
    assert kept < 0.5 * min(blurred, noisy)


def test_niqe_needs_two_whole_blocks() -> None:
    model = Sharp(np.zeros(36), np.eye(36))
    picture, valid = texture(96, 192), np.ones((96, 192), bool)
    assert math.isfinite(niqe(picture, valid, model))
    valid[5, 5] = False
    assert math.isnan(niqe(picture, valid, model))
    assert block_features(picture, valid)[0].shape == (1, 36)
    assert math.isnan(niqe(texture(90, 300), np.ones((90, 300), bool), model))


def test_the_models_of_niqe_are_near_each_other_and_damaged_ones_are_refused(
    tmp_path: Path,
) -> None:
    photographs = read_model(shared_data("metrics") / "niqe_pris_params.npz")
    away = (aerial_model().mean - photographs.mean) / np.sqrt(
        np.diag(photographs.covariance)
    )
    assert np.abs(away).max() < 3  # the same features, of other pictures
    short = {"mu_pris_param": np.zeros(35), "cov_pris_param": np.eye(36)}
    np.savez(tmp_path / "bad.npz", allow_pickle=False, **short)
    with pytest.raises(CheckpointError, match="other sizes"):
        read_model(tmp_path / "bad.npz")
    (tmp_path / "no.npz").write_bytes(b"none")
    with pytest.raises(CheckpointError, match="no parameters"):
        read_model(tmp_path / "no.npz")


def test_fid_and_kid_of_features_are_those_of_their_formulas() -> None:
    rng = np.random.default_rng(0)
    truths, made = rng.normal(0, 1, (40, 5)), rng.normal(0.3, 1.5, (40, 5))
    found = set_distances(truths, made)
    a, b = np.cov(truths, rowvar=False), np.cov(made, rowvar=False)
    away = truths.mean(0) - made.mean(0)
    fid = away @ away + np.trace(a + b - 2 * linalg.sqrtm(a @ b).real)
    assert found["fid"] == pytest.approx(fid, rel=1e-6)

    def kernel(one: np.ndarray, other: np.ndarray) -> np.ndarray:
        return np.asarray((one @ other.T / 5 + 1) ** 3)

    same = [kernel(x, x) for x in (truths, made)]
    parts = [(k.sum() - np.trace(k)) / (40 * 39) for k in same]
    kid = sum(parts) - 2 * kernel(truths, made).mean()
    assert found["kid"] == pytest.approx(kid, rel=1e-6)


def test_sets_stand_in_the_means_of_a_test() -> None:
    chips = (
        Chip(
            (texture(32, 32, k) * 255).astype(np.uint8), np.ones((32, 32), bool), 0, "a"
        )
        for k in range(3)
    )
    sets = Sets(lambda picture: picture.mean((1, 2)).astype(np.float32))
    tested, reduce = [bicubic_candidate()], bicubic_degradation()
    rows = list(run_testset(chips, tested, [Fraction(2)], reduce, sets=sets))
    (mean,) = sets.complete(mean_rows(rows))
    assert {"fid", "kid"} <= mean.figures.keys()
    assert mean.figures["fid"] == pytest.approx(0, abs=1.0)  # bicubic keeps means
    assert not any("fid" in row.figures for row in rows)


def test_inception_has_the_layers_and_sizes_of_the_graph() -> None:
    module = Inception().eval()
    # Of 23,834,568 parameters that are published, the classifier has 2,049,000.
    assert sum(p.numel() for p in module.parameters()) == 21_785_568
    maps: dict[str, tuple[int, ...]] = {}
    for name in ("Conv2d_4a_3x3", "Mixed_5d", "Mixed_6e", "Mixed_7c"):
        module.get_submodule(name).register_forward_hook(
            lambda _m, _i, out, name=name: maps.update({name: tuple(out.shape[1:])})
        )
    found = features_of(module, (texture(40, 50) * 255).astype(np.uint8))
    assert found.shape == (2048,)
    assert maps == {
        "Conv2d_4a_3x3": (192, 71, 71),
        "Mixed_5d": (288, 35, 35),
        "Mixed_6e": (768, 17, 17),
        "Mixed_7c": (2048, 8, 8),
    }


def test_inception_is_filled_by_name_and_refuses_other_files() -> None:
    stored = dict(Inception().state_dict())
    names = {name.rsplit(".", 2)[0] for name in stored}
    assert {"Mixed_7b.branch3x3_2b", "Mixed_7c.branch3x3dbl_3a"} <= names
    Inception.load(HEAD, stored | {"fc.bias": torch.zeros(3)})
    stored.pop("Mixed_6a.branch3x3.conv.weight")
    with pytest.raises(CheckpointError, match="other layers"):
        Inception.load(HEAD, stored)


def test_pictures_are_resized_as_tensorflow_1_did() -> None:
    ramp = torch.arange(40.0).expand(1, 1, 20, 40).contiguous()
    resized = to_299(ramp)
    assert resized.shape == (1, 1, 299, 299)
    wanted = np.minimum(np.arange(299) * 40 / 299, 39)
    np.testing.assert_allclose(resized[0, 0, 7], wanted, atol=1e-4)
