"""Stages that decode a latent: how much images count, and the latent that they get."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest
import torch

from rsupres.training.batches import Batch
from rsupres.training.config import DataConfig, StageConfig, TrainConfig
from rsupres.training.families.e2diffsr import losses
from rsupres.training.losses import StageSetup
from rsupres.training.registry import build_training, stage_options

RICH, OTHER = torch.rand((2, 3, 32, 32), generator=torch.Generator().manual_seed(0))
HR = torch.stack([RICH, 0.5 + 0.02 * OTHER])
BATCH = Batch(HR, HR[..., ::2, ::2].contiguous(), Fraction(2))


def loss_of(options: dict[str, object], folder: Path) -> float:
    """Return the L1 term of stage "closing" of fresh networks, always the same."""
    stage = StageConfig("closing", 1, options=options)
    run = TrainConfig(
        name="small",
        family="e2diffsr",
        out="out",
        data=DataConfig(train=("p",)),
        stage=(stage,),
    )
    torch.manual_seed(0)
    family = build_training(run, folder)
    setup = StageSetup(stage, stage_options(family, stage), None)
    outcome = family.loss(BATCH, torch.Generator().manual_seed(1), setup)
    return float(outcome.terms["pixel"].detach())


def test_flat_images_count_as_much_as_rich_ones_where_asked(tmp_path: Path) -> None:
    plain, even = (loss_of({"even": even}, tmp_path) for even in (False, True))
    # The rich picture has nearly all of the error, and a weight below 0.2 of 2.
    assert even < 0.35 * plain


def test_no_latent_is_sampled_where_all_are_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampled, nearly = (
        loss_of({"drop_prior": share}, tmp_path) for share in (0.0, 0.999999)
    )
    monkeypatch.delattr(losses, "sample_latent")
    dropped = loss_of({"drop_prior": 1.0}, tmp_path)
    assert dropped == nearly
    assert dropped != sampled
