"""Training of a student on pairs: how much images count, and whose gates they get."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest
import torch

from rsupres.training.batches import Batch
from rsupres.training.config import DataConfig, StageConfig, TrainConfig
from rsupres.training.losses import StageSetup
from rsupres.training.registry import build_training, stage_options


def loss_of(batch: Batch, options: dict[str, object], folder: Path) -> float:
    """Return the L1 term of a fresh student, always the same one."""
    stage = StageConfig("direct", 1, options=options)
    run = TrainConfig(
        name="tiny",
        family="slimdiffsr",
        architecture="tiny-mini",
        out="out",
        data=DataConfig(train=("p",), fixed_scales=(4.0,)),
        stage=(stage,),
    )
    torch.manual_seed(0)
    family = build_training(run, folder)
    setup = StageSetup(stage, stage_options(family, stage), None)
    outcome = family.loss(batch, torch.Generator(), setup)
    return float(outcome.terms["pixel"].detach())


def batch_of(*pictures: torch.Tensor) -> Batch:
    hr = torch.stack(pictures)
    return Batch(hr, hr[..., ::4, ::4].contiguous(), Fraction(4))


RICH, OTHER = torch.rand((2, 3, 64, 64), generator=torch.Generator().manual_seed(0))
FLAT = 0.5 + 0.02 * OTHER


def test_flat_images_count_as_much_as_rich_ones_where_asked(tmp_path: Path) -> None:
    batch = batch_of(RICH, FLAT)
    plain, even = (loss_of(batch, o, tmp_path) for o in ({}, {"even": True}))
    # The rich picture has nearly all of the error, and a weight below 0.2 of 2.
    assert even < 0.35 * plain


def test_pictures_alone_do_not_share_gates(tmp_path: Path) -> None:
    options = {"alone": True}
    each = [loss_of(batch_of(x), options, tmp_path) for x in (RICH, FLAT)]
    both = loss_of(batch_of(RICH, FLAT), options, tmp_path)
    assert both == pytest.approx(sum(each) / 2, rel=1e-5)
    shared = loss_of(batch_of(RICH, FLAT), {}, tmp_path)
    assert shared != pytest.approx(sum(each) / 2, rel=1e-5)
