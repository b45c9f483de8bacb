"""Training of a student on pairs, and how much each image counts."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import torch

from rsupres.training.batches import Batch
from rsupres.training.config import DataConfig, StageConfig, TrainConfig
from rsupres.training.losses import StageSetup
from rsupres.training.registry import build_training, stage_options


def test_flat_images_count_as_much_as_rich_ones_where_asked(tmp_path: Path) -> None:
    rich, flat = torch.rand((2, 3, 64, 64), generator=torch.Generator().manual_seed(0))
    hr = torch.stack([rich, 0.5 + 0.02 * flat])
    batch = Batch(hr, hr[..., ::4, ::4].contiguous(), Fraction(4))
    terms = []
    for options in ({}, {"even": True}):
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
        family = build_training(run, tmp_path)
        setup = StageSetup(stage, stage_options(family, stage), None)
        outcome = family.loss(batch, torch.Generator(), setup)
        terms.append(float(outcome.terms["pixel"].detach()))
    # The rich picture has nearly all of the error, and a weight below 0.2 of 2.
    assert terms[1] < 0.35 * terms[0]
