"""The base of Ref-Diff: the picture below the detail, from the LR image alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rsupres.blocks.separable import enlarge
from rsupres.checkpoints.catalogue import load_model
from rsupres.families.base import Conditions, Precision, SamplerOptions
from rsupres.families.refdiff.base import UP, BaseNetwork
from rsupres.families.refdiff.fitting import reduce
from rsupres.families.refdiff.images import make_frame
from rsupres.families.refdiff.resolver import RefDiff
from rsupres.training.batches import Batch
from rsupres.training.config import StageConfig
from rsupres.training.families.refdiff.losses import (
    ClosingOptions,
    base_loss,
    closing_loss,
)
from rsupres.training.losses import Outcome, StageSetup
from tests.tiny_refdiff import BASED, SCALE, TINY, images, tiny_network, write_tiny

STAGE = StageConfig(name="any", iterations=1)


def sharpened(lr: torch.Tensor, base: BaseNetwork) -> torch.Tensor:
    size = [int(side * SCALE) for side in lr.shape[2:]]
    finer = torch.nn.functional.interpolate(base(lr), size, mode="bicubic")
    return enlarge(lr, SCALE) + finer


def based() -> BaseNetwork:
    base = tiny_network(config=BASED).base
    assert base is not None
    return base.requires_grad_(False)


def pair() -> Batch:
    lr, reference = images()
    return Batch(reference, lr, SCALE, Conditions(reference=reference.flip(2)))


def test_a_base_of_zeros_changes_nothing() -> None:
    lr, reference = images()
    base = based()
    base.head.weight.zero_()
    plain = make_frame(lr, reference, None, None, SCALE, TINY)
    same = make_frame(lr, reference, None, None, SCALE, BASED, base=base)
    for one, other in zip(plain.guidance, same.guidance, strict=True):
        assert torch.equal(one, other)
    assert plain.base is not None
    assert torch.equal(plain.base, same.base)


def test_the_reference_shows_what_the_base_does_not_make_of_it() -> None:
    lr, reference = images()
    base, config = based(), replace(BASED, fit=False)
    frame = make_frame(lr, reference, None, None, SCALE, config, base=base)
    detail = reference - sharpened(reduce(reference, SCALE), base)
    shown = (frame.guidance.reference - frame.guidance.lr) / 2
    assert torch.allclose(shown, detail, atol=1e-6)
    assert torch.allclose(
        frame.base, sharpened(lr, base) + config.trust * detail, atol=1e-6
    )
    alone = make_frame(lr, None, None, None, SCALE, config, base=base)
    assert torch.allclose(alone.base, sharpened(lr, base), atol=1e-6)


def test_a_flat_image_gets_no_raster() -> None:
    base = based()
    flat = torch.full((1, 3, 24, 24), 0.3)
    inner = (slice(None), slice(None), slice(48, 52), slice(48, 52))
    assert float(base(flat)[inner].std((2, 3)).max()) < 1e-6
    lr, _ = images()
    assert float(base(lr).std()) > 1e-3


def test_the_base_sees_a_neighbourhood_alone() -> None:
    base, (lr, _) = based(), images(40, 40)
    part = base(lr[..., 4:36, 4:36])[..., 10 * UP : -10 * UP, 10 * UP : -10 * UP]
    whole = base(lr)[..., 14 * UP : -14 * UP, 14 * UP : -14 * UP]
    assert float(whole.std()) > 0
    assert torch.allclose(part, whole, atol=1e-6)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_checkpoint_brings_its_base(tmp_path: Path, precision: Precision) -> None:
    network = tiny_network(1, BASED)
    path = write_tiny(tmp_path / "based.safetensors", network, BASED)
    model = load_model(
        str(path), torch.device("cpu"), SamplerOptions(precision=precision)
    )
    assert isinstance(model, RefDiff)
    assert network.base is not None
    lr, _ = images()
    with torch.inference_mode():
        wanted, made = network.base(lr), model.network.base(lr)
    assert made.dtype == torch.float32
    assert torch.allclose(wanted, made, atol=1e-6 if precision == "fp32" else 1e-2)


def total(outcome: Outcome) -> torch.Tensor:
    return torch.stack(list(outcome.terms.values())).sum()


def test_the_stage_of_the_base_brings_it_closer_to_the_truth() -> None:
    network, batch = tiny_network(config=BASED), pair()
    assert network.base is not None
    optimiser = torch.optim.Adam(network.base.parameters(), 2e-3)
    setup, generator = StageSetup(STAGE, None, None), torch.Generator()
    values = []
    for _ in range(20):
        loss = total(base_loss(network, batch, generator, setup))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        values.append(float(loss.detach()))
    assert values[-1] < 0.95 * values[0]
    assert all(p.grad is None for p in network.enc.parameters())


def test_the_closing_stage_trains_the_base_and_weighs_squares() -> None:
    network, batch = tiny_network(config=BASED), pair()
    assert network.base is not None
    options = ClosingOptions(absent=0, partial=0, stale=0, squared_weight=2.0)
    setup = StageSetup(STAGE, options, None)
    made = closing_loss(network, batch, torch.Generator().manual_seed(1), setup)
    total(made).backward()
    assert float(network.base.head.weight.grad.abs().max()) > 0
    doubled = replace(setup, options=replace(options, squared_weight=4.0))
    again = closing_loss(network, batch, torch.Generator().manual_seed(1), doubled)
    assert torch.allclose(again.terms["squared"], 2 * made.terms["squared"])
    assert torch.equal(again.terms["pixel"], made.terms["pixel"])
