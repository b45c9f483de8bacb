"""Losses between teacher and student, copied weights, and low-rank adapters."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from rsupres.families.slimdiffsr.network import SlimDiffSRNetwork
from rsupres.families.slimdiffsr.resolver import make_network
from rsupres.families.slimdiffsr.teacher import (
    TeacherNetwork,
    UncertaintyEstimator,
    alpha_bar_at,
    invert_variance,
    schedule,
    uncertainty_loss,
)
from rsupres.training.families.slimdiffsr.distillation import (
    draw_positions,
    feature_loss,
    mmd_squared,
    transfer_weights,
)
from rsupres.training.families.slimdiffsr.training import ARCHITECTURES


def test_mmd_is_the_double_sum() -> None:
    """Against float64 loops over all pairs, for samples of different sizes."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(7, 5, generator=generator)
    y = 0.5 * torch.randn(9, 5, generator=generator) + 0.3
    a, b = x.double().numpy(), y.double().numpy()
    joint = np.concatenate([a, b])
    apart = [
        float(((joint[i] - joint[j]) ** 2).sum())
        for i in range(16)
        for j in range(i + 1, 16)
    ]
    median = sorted(apart)[(len(apart) - 1) // 2]

    def kernel(p: np.ndarray, q: np.ndarray) -> float:
        distance = float(((p - q) ** 2).sum())
        return sum(
            float(np.exp(-distance / (f * median))) for f in (0.25, 0.5, 1, 2, 4)
        )

    def mean(p: np.ndarray, q: np.ndarray) -> float:
        return sum(kernel(i, j) for i in p for j in q) / (len(p) * len(q))

    wanted = mean(a, a) + mean(b, b) - 2 * mean(a, b)
    assert wanted > 0.05
    assert abs(float(mmd_squared(x, y)) - wanted) < 1e-5


def test_mmd_tells_distributions_apart_and_has_a_gradient() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 4, generator=generator)
    same = torch.randn(200, 4, generator=generator)
    other = (same + 1.0).requires_grad_()
    assert abs(float(mmd_squared(x, x))) < 1e-6
    loss = mmd_squared(x, other)
    assert float(loss.detach()) > 10 * float(mmd_squared(x, same))
    loss.backward()  # type: ignore[no-untyped-call]
    assert other.grad is not None
    # Downhill is back towards the sample.
    assert float(other.grad.mean()) > 0


def test_features_are_compared_on_the_teachers_grid() -> None:
    wanted = torch.randn(2, 4, 4, 4)
    assert float(feature_loss(wanted, wanted)) == 0.0
    finer = wanted.repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert float(feature_loss(finer, wanted)) < 1e-12
    assert abs(float(feature_loss(torch.zeros_like(finer), wanted)) - 1.0) < 1e-6


def test_positions_are_rows_of_channels() -> None:
    x = torch.arange(2 * 3 * 4 * 5.0).view(2, 3, 4, 5)
    rows = draw_positions(x, 50, torch.Generator().manual_seed(0))
    assert rows.shape == (50, 3)
    torch.testing.assert_close(rows[:, 1] - rows[:, 0], torch.full((50,), 20.0))


def test_uncertainty_is_least_at_the_true_variance() -> None:
    truth, mean = torch.zeros(2, 4, 8, 8), torch.full((2, 4, 8, 8), 0.5)
    values = [
        float(uncertainty_loss(mean, torch.full((2, 1, 8, 8), s), truth))
        for s in np.log([0.1, 0.25, 0.6])
    ]
    assert values[1] == min(values)
    assert abs(values[1] - 0.5 * (1 + np.log(0.25))) < 1e-5


def test_more_uncertainty_takes_later_steps_of_that_variance() -> None:
    table = torch.from_numpy(schedule())
    variance = torch.tensor([0.01, 0.1, 1.0, 10.0]).view(4, 1, 1, 1)
    t = invert_variance(variance, table)
    assert bool((t.diff() > 0).all())
    kept = alpha_bar_at(t, table)
    torch.testing.assert_close(
        (1 - kept) / kept, variance.double().flatten(), rtol=2e-3, atol=0
    )


def test_estimator_has_the_units_that_the_byte_code_shows() -> None:
    mean, log_variance = UncertaintyEstimator()(torch.randn(2, 4, 6, 7))
    assert (mean.shape, log_variance.shape) == ((2, 4, 6, 7), (2, 1, 6, 7))
    widths = [
        tuple(p.shape[:2]) for p in UncertaintyEstimator().parameters() if p.ndim == 4
    ]
    assert sum(a == 64 for a, _ in widths) == 9  # 4 units of two, one shortcut


def networks() -> tuple[SlimDiffSRNetwork, TeacherNetwork]:
    student = make_network(ARCHITECTURES["tiny"])
    teacher = make_network(ARCHITECTURES["tiny-teacher"])
    assert isinstance(student, SlimDiffSRNetwork)
    assert isinstance(teacher, TeacherNetwork)
    return student, teacher


def test_weights_are_copied_where_names_and_shapes_meet() -> None:
    student, teacher = networks()
    copied = transfer_weights(student, teacher)
    mine, theirs = student.state_dict(), teacher.state_dict()
    pairs = {
        "vae.encoder.layers.3.conv.2.weight": "vae.encoder.layers.3.conv.2.weight",
        "vae.decoder.layers.18.bias": "vae.decoder.layers.18.bias",
        "unet.down_blocks.0.resnets.0.norm1.weight": "unet.down_blocks.0.resnets.0."
        "norm1.weight",
        "unet.down_blocks.1.attentions.0.proj_in.weight": "unet.down_blocks.1."
        "attentions.0.proj_in.weight",
        # The student's two last levels up are the teacher's second and third.
        "unet.up_blocks.1.attentions.1.transformer_blocks.0.ff.net.2.weight": "unet."
        "up_blocks.2.attentions.1.transformer_blocks.0.ff.net.2.weight",
        "unet.up_blocks.0.upsamplers.0.conv.weight": "unet.up_blocks.1.upsamplers.0."
        "conv.weight",
        "unet.mid_block.mid_block.conv_shortcut.weight": "unet.down_blocks.2.resnets.0."
        "conv_shortcut.weight",
    }
    assert set(pairs) <= set(copied)
    for name, other in pairs.items():
        assert torch.equal(mine[name], theirs[other])
    assert not any("conv1" in n or "attn1" in n for n in copied if "unet" in n)


def test_low_rank_adapters_start_at_nothing_and_merge_into_the_weights() -> None:
    pytest.importorskip("peft", reason="LoRA needs peft: rsupres[distill]")
    _, teacher = networks()
    teacher.eval()
    lr = torch.rand(1, 3, 16, 16) * 2 - 1
    names = set(teacher.state_dict())
    with torch.no_grad():
        before = teacher(lr)[1]
        teacher.add_lora(2)
        torch.testing.assert_close(teacher(lr)[1], before)
        tuned = [n for n, _ in teacher.named_parameters() if ".lora_B." in n]
        assert {n.split(".lora_B.")[1].split(".")[0] for n in tuned} == {
            "down",
            "up",
            "rest",
        }
        assert not any("norm" in n or "time_emb" in n for n in tuned)
        for name, parameter in teacher.named_parameters():
            if ".lora_B." in name:
                parameter.normal_(std=0.1)
        after = teacher(lr)[1]
        assert float((after - before).abs().max()) > 1e-3
        teacher.merge_lora()
        torch.testing.assert_close(teacher(lr)[1], after, atol=1e-4, rtol=1e-4)
    assert set(teacher.state_dict()) == names


def test_parity_of_a_table_and_its_interpolation() -> None:
    table = torch.from_numpy(schedule())
    t = torch.tensor([0.0, 10.0, 10.5, 999.0], dtype=torch.float64)
    got: Tensor = alpha_bar_at(t, table)
    torch.testing.assert_close(got[[0, 1, 3]], table[[0, 10, 999]])
    torch.testing.assert_close(got[2], (table[10] + table[11]) / 2)
