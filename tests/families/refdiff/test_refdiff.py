"""Ref-Diff on scenes and in training, with tiny networks of random weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rsupres.checkpoints.catalogue import load_model
from rsupres.diffusion.edm import (
    Churn,
    karras_sigmas,
    sample_dpm_plus,
    sample_euler,
    sample_heun,
)
from rsupres.diffusion.noise import NoiseField
from rsupres.errors import CheckpointError, InputError
from rsupres.families.base import Conditions, SamplerOptions, SceneContext, TileBatch
from rsupres.families.refdiff.config import MINI, RELEASED
from rsupres.families.refdiff.images import enlarge_lr, make_frame
from rsupres.families.refdiff.network import RefDiffUNet
from rsupres.families.refdiff.resolver import SAMPLERS, RefDiff, make_spec
from rsupres.families.storage import config_to_json
from rsupres.grid import PixelWindow
from rsupres.training.batches import Batch
from rsupres.training.config import StageConfig
from rsupres.training.families.refdiff.losses import (
    ClosingOptions,
    EdmOptions,
    closing_loss,
    edm_loss,
)
from rsupres.training.families.refdiff.stale_references import (
    StaleReferences,
    make_stale,
)
from rsupres.training.losses import StageSetup
from tests.tiny_refdiff import SCALE, TINY, images, tiny_network, write_tiny

CPU = torch.device("cpu")
NO_DOUBT = {  # a reference that lies where it should and of which all is confirmed
    "fit": np.array([0, 0, 1, 0.01], np.float32).reshape(4, 1, 1),
    "fit_rows": np.zeros(1, np.float32),
    "fit_cols": np.zeros(1, np.float32),
}


def load_tiny(tmp_path: Path, **options: object) -> RefDiff:
    model = load_model(
        str(write_tiny(tmp_path / "tiny.safetensors")), CPU, SamplerOptions(**options)
    )
    assert isinstance(model, RefDiff)
    return model


def batch_of(lr: torch.Tensor, at: tuple[int, int] = (0, 0), **given) -> TileBatch:
    row, col = at
    window = PixelWindow(row, col, lr.shape[2], lr.shape[3])
    return TileBatch(
        lr,
        torch.ones_like(lr[:, :1], dtype=torch.bool),
        Conditions(**given),
        NoiseField(5),
        [window],
        [window.scaled(SCALE)],
        SceneContext(NO_DOUBT),
    )


def test_missing_parts_of_the_reference_show_the_enlarged_scene() -> None:
    lr, reference = images()
    valid = torch.ones_like(reference[:, :1], dtype=torch.bool)
    valid[..., 64:] = False
    frame = make_frame(lr, reference * valid, valid, None, SCALE, MINI)
    enlarged = enlarge_lr(lr, (128, 128), "bicubic") * 2 - 1
    assert torch.equal(frame.guidance.reference[..., 48:], enlarged[..., 48:])
    assert not torch.allclose(frame.guidance.reference[..., :40], enlarged[..., :40])
    useless, changed, border = frame.guidance.mask[0, :, 60]
    missing = (torch.arange(128) >= 48).float()
    assert torch.allclose(useless, missing, atol=1e-6)
    assert not bool(changed.any())  # what is missing has not changed
    assert not bool(border.any())
    nothing = make_frame(lr, None, None, None, SCALE, MINI)
    assert torch.equal(nothing.guidance.reference, enlarged)
    assert bool((nothing.guidance.mask[:, 0] == 1).all())
    released = make_frame(lr, reference * valid, valid, None, SCALE, RELEASED)
    assert torch.equal(
        released.guidance.reference[..., 64:], released.guidance.lr[..., 64:]
    )
    assert torch.equal(
        released.guidance.reference[..., :64], reference[..., :64] * 2 - 1
    )


def test_where_a_change_is_told_the_old_ground_is_not_shown() -> None:
    lr, reference = images()
    mask = torch.zeros(1, 1, 128, 128, dtype=torch.uint8)
    mask[..., 40:80, 40:80] = 3
    mask[..., 50:60, 50:60] = 5
    mask[..., 100:, :] = 255  # not known: as if unchanged
    frame = make_frame(lr, reference, None, mask, SCALE, MINI)
    enlarged = enlarge_lr(lr, (128, 128), "bicubic")
    assert frame.base is not None
    inside = (slice(None), slice(None), slice(40, 80), slice(40, 80))
    assert torch.equal(frame.base[inside], enlarged[inside])
    assert torch.equal(frame.guidance.reference[inside], enlarged[inside] * 2 - 1)
    assert not torch.allclose(frame.base[..., 104:, :], enlarged[..., 104:, :])
    picture = torch.rand(1, 3, 128, 128)
    all_stays = make_frame(lr, reference, None, mask, SCALE, replace(MINI, finest=0.0))
    there_and_back = all_stays.picture(all_stays.denoised(picture))
    assert torch.allclose(there_and_back, picture, atol=1e-6)
    raw = make_frame(lr, reference, None, mask, SCALE, RELEASED).guidance
    assert raw.mask.shape == (1, 1, 128, 128)
    assert float(raw.mask[0, 0, 45, 45]) == pytest.approx(3 / 255)
    assert torch.equal(raw.reference, reference * 2 - 1)  # as released, all is shown


def test_outlines_of_a_mask_are_shown_to_the_pixel() -> None:
    mask = torch.zeros(1, 1, 128, 128, dtype=torch.uint8)
    mask[..., 40:80, 40:80] = 3
    mask[..., 50:60, 50:60] = 5
    mask[..., 90:] = 255
    lr, reference = images()
    guidance = make_frame(lr, reference, None, mask, SCALE, MINI).guidance
    useless, changed, border = guidance.mask[0]
    told = ((mask[0, 0] > 0) & (mask[0, 0] < 255)).float()
    assert torch.allclose(useless, told, atol=1e-6)
    assert torch.equal(changed, told)
    assert torch.nonzero(border[45]).flatten().tolist() == [39, 79]
    assert torch.nonzero(border[55]).flatten().tolist() == [39, 49, 59, 79]
    assert border[49, 50:60].all()
    stem = RefDiffUNet(MINI).maps(guidance).stem[0, -MINI.mask_channels :]
    assert stem.shape == (33, 32, 32)
    fine = torch.nn.functional.pixel_shuffle(stem[1:], 4)
    assert torch.equal(fine, guidance.mask[0, 1:])


def gaussian(x: torch.Tensor, sigma: float) -> torch.Tensor:
    """The ideal denoiser of pictures that are 0.5 times standard normal."""
    return x * (0.25 / (0.25 + sigma**2))


@pytest.mark.parametrize("solver", [sample_heun, sample_dpm_plus])
def test_solvers_are_of_second_order(solver) -> None:
    """From sigma 80 to 0 the exact flow shrinks x by sqrt(0.25 / (0.25 + 80^2))."""
    start = torch.tensor([80.0, -30.0], dtype=torch.float64)
    exact = start * (0.25 / (0.25 + 80.0**2)) ** 0.5
    errors = [
        float((solver(gaussian, start, karras_sigmas(n)) - exact).abs().max())
        for n in (20, 40)
    ]
    assert errors[1] < errors[0] / 2.5
    assert errors[1] < 0.02 * float(exact.abs().max())


def test_euler_is_of_first_order() -> None:
    start = torch.tensor([80.0, -30.0], dtype=torch.float64)
    exact = start * (0.25 / (0.25 + 80.0**2)) ** 0.5
    errors = [
        float((sample_euler(gaussian, start, karras_sigmas(n)) - exact).abs().max())
        for n in (20, 40, 80)
    ]
    assert 1.6 < errors[0] / errors[1] < 2.6
    assert 1.6 < errors[1] / errors[2] < 2.6


def test_churn_draws_only_between_its_levels() -> None:
    asked: list[int] = []

    def noise(step: int) -> torch.Tensor:
        asked.append(step)
        return torch.zeros(2, dtype=torch.float64)

    start = torch.ones(2, dtype=torch.float64)
    sample_heun(gaussian, start, karras_sigmas(16), Churn(40.0), noise)
    levels = karras_sigmas(16)[:-1]
    assert asked == [k for k, s in enumerate(levels) if 0.05 <= s <= 50.0]


def test_names_and_steps_of_samplers_are_checked(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="dpm\\+\\+"):
        load_tiny(tmp_path, sampler="unipc")
    with pytest.raises(InputError, match="steps 0"):
        load_tiny(tmp_path, steps=0)
    assert len(load_tiny(tmp_path).sigmas) == TINY.steps + 1
    assert len(load_tiny(tmp_path, sampler="heun").sigmas) == 19
    assert len(load_tiny(tmp_path, steps=7).sigmas) == 8
    assert SAMPLERS["released"].calls(256) == 511


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_every_sampler_makes_a_picture_that_depends_on_its_conditions(
    tmp_path: Path, sampler: str
) -> None:
    model = load_tiny(tmp_path, sampler=sampler, steps=2)
    lr, reference = images(8, 8)
    with torch.inference_mode():
        alone = model.upscale(batch_of(lr), SCALE)
        again = model.upscale(batch_of(lr), SCALE)
        shown = model.upscale(batch_of(lr, reference=reference), SCALE)
        mask = torch.ones(1, 1, 64, 64, dtype=torch.uint8)
        masked = model.upscale(
            batch_of(lr, reference=reference, change_mask=mask), SCALE
        )
    assert alone.shape == (1, 3, 64, 64)
    assert alone.dtype == torch.float32
    assert 0.0 <= float(alone.min()) <= float(alone.max()) <= 1.0
    assert torch.equal(alone, again)
    for a, b in ((alone, shown), (shown, masked)):
        assert float((a - b).abs().max()) > 1e-3


def test_half_precision_stays_close(tmp_path: Path) -> None:
    lr, reference = images(8, 8)
    batch = batch_of(lr, reference=reference)
    with torch.inference_mode():
        full = load_tiny(tmp_path).upscale(batch, SCALE)
        half = load_tiny(tmp_path, precision="bf16").upscale(batch, SCALE)
    assert float((full - half).abs().mean()) < 0.02


def test_what_lies_far_away_changes_nothing(tmp_path: Path) -> None:
    """No statistics of a tile: noise and result belong to the ground."""
    model = load_tiny(tmp_path, steps=1)
    lr, reference = images(24, 8)
    with torch.inference_mode():
        whole = model.upscale(batch_of(lr, reference=reference), SCALE)
        lower = model.upscale(
            batch_of(lr[:, :, 4:], at=(4, 0), reference=reference[:, :, 32:]), SCALE
        )
    reach = 32 + (1 + 2 + 6 * 4 + 1) * TINY.patch + 16  # cut, cells of a call, cubic
    assert reach < 176
    assert torch.allclose(whole[:, :, reach:], lower[:, :, reach - 32 :], atol=1e-5)


def test_a_released_model_without_class_table_takes_no_mask() -> None:
    kept = {"scales": frozenset({SCALE}), "gsd": None, "halo": 8}
    assert make_spec(RELEASED, **kept, classes=None).accepts == {"reference"}
    stated = make_spec(RELEASED, **kept, classes="second")
    assert stated.accepts == {"reference", "change_mask"}
    assert stated.needs == {"reference"}
    assert stated.multiple == 4
    assert stated.stochastic
    assert not make_spec(MINI, **kept, classes=None).stochastic
    assert make_spec(MINI, **kept, classes=None).accepts == stated.accepts


def test_other_tensors_are_named(tmp_path: Path) -> None:
    network = RefDiffUNet(replace(TINY, blocks=2))
    path = write_tiny(tmp_path / "other.safetensors", network)
    with pytest.raises(CheckpointError, match="surplus"):
        load_model(str(path), CPU, SamplerOptions())


def pairs(n: int = 4, **given) -> Batch:
    generator = torch.Generator().manual_seed(1)
    hr = torch.rand(n, 3, 64, 64, generator=generator)
    lr = torch.nn.functional.avg_pool2d(hr, 8)
    noise = 0.05 * torch.randn(hr.shape, generator=generator)
    valid = torch.ones(n, 1, 64, 64, dtype=torch.bool)
    conditions = Conditions(
        reference=(hr + noise).clamp(0, 1), reference_valid=valid, **given
    )
    return Batch(hr, lr, SCALE, conditions)


def test_stale_references_are_told_or_not() -> None:
    batch = pairs()
    mask = torch.zeros(4, 1, 64, 64, dtype=torch.uint8)
    mask[:, :, :8] = 2
    given = replace(batch.conditions, change_mask=mask)
    never = StaleReferences(0, 0, 0, 0, mask=1)
    kept = make_stale(given, never, torch.Generator().manual_seed(2))
    assert torch.equal(kept.reference, given.reference)
    assert torch.equal(kept.change_mask, mask)
    hidden = make_stale(given, replace(never, mask=0), torch.Generator())
    assert not bool(hidden.change_mask.any())
    told = make_stale(given, replace(never, stale=1, told=1), torch.Generator())
    differs = (told.reference != given.reference).any(1, keepdim=True)
    assert bool(differs.flatten(1).any(1).all())
    assert bool((told.change_mask[differs] > 0).all())
    quiet = make_stale(given, replace(never, stale=1, told=0), torch.Generator())
    assert torch.equal(quiet.change_mask, mask)
    gone = make_stale(given, replace(never, absent=1), torch.Generator())
    assert not bool(gone.reference_valid.any())
    assert not bool(gone.reference.any())
    part = make_stale(given, replace(never, partial=1), torch.Generator())
    share = part.reference_valid.float().mean((1, 2, 3))
    assert 0.0 < float(share.min()) <= float(share.max()) < 1.0


@pytest.mark.parametrize(
    ("loss", "options"),
    [
        (edm_loss, EdmOptions()),
        pytest.param(closing_loss, ClosingOptions(through=0), marks=pytest.mark.slow),
    ],
)
def test_losses_fall_on_a_batch(loss, options) -> None:
    network = tiny_network()
    stage = StageConfig(name="any", iterations=1)
    job = StageSetup(stage, replace(options, stale=0.0, absent=0.0, partial=0.0), None)
    optimiser = torch.optim.Adam(network.parameters(), 2e-2)
    batch, values = pairs(), []
    for _ in range(20):
        outcome = loss(network, batch, torch.Generator().manual_seed(3), job)
        total = torch.stack(list(outcome.terms.values())).sum()
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
        values.append(float(total.detach()))
    assert values[-1] < 0.9 * values[0]


def test_the_released_loss_is_a_sum_over_256() -> None:
    network, batch = tiny_network(), pairs(2)
    stage = StageConfig(name="any", iterations=1)
    mean, summed = (
        edm_loss(
            network,
            batch,
            torch.Generator().manual_seed(3),
            StageSetup(stage, EdmOptions(summed=summed), None),
        )
        .terms["edm"]
        .item()
        for summed in (False, True)
    )
    assert summed == pytest.approx(mean * batch.hr.numel() / 256, rel=1e-4)


def test_calls_without_gradient_change_no_value() -> None:
    network, batch = tiny_network(), pairs(2)
    values = [
        closing_loss(
            network,
            batch,
            torch.Generator().manual_seed(3),
            StageSetup(
                StageConfig(name="closing", iterations=1),
                ClosingOptions(through=n),
                None,
            ),
        ).terms["pixel"]
        for n in (0, 1)
    ]
    assert torch.equal(*values)
    slopes = [torch.autograd.grad(v, network.enc.parameters()) for v in values]
    assert not torch.equal(slopes[0][0], slopes[1][0])


def test_architecture_survives_json(tmp_path: Path) -> None:
    model = load_tiny(tmp_path)
    assert model.config == TINY
    assert config_to_json(TINY)["mult"] == [1]
